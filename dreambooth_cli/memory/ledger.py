"""The ledger: how much a run takes of the card's memory, the machine's memory and the disk, by group of tensors and by moment.
Arithmetic only, no torch.

Weights, gradients and optimizer state follow exactly from parameter counts. Activations come from the family's figures: the bytes that
were counted at the peak of one step of the full-size network, scaled by pixels and rows. The driver's context and the allocator's slack
are predictions. The machine's own memory is counted separately: what a run holds there at its largest moments. All figures are bytes;
GB is 1e9 bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt

from ..bases.catalog import VAE_PARAMETERS, BaseFacts
from ..families.family import Activations, Figures, LoraLayers
from ..gpu import may_grow
from ..judged import due_steps
from ..settings import TrainSettings
from .plan import Choice, Job, Precision

FP32, HALF = 4, 2  # bytes of a value
ADAMW_STATE = 8  # bytes of a trained parameter: two float32 moments
ADAMW_8BIT_STATE = 2.03  # two 8-bit moments and a float32 scale for each block of 256

# What the driver holds for a process besides its tensors; a prediction for the cards that people have. On an H100 and an H200 (132
# multiprocessors, CUDA 13) it was measured: 543 to 552 MB at the start, 797 to 817 MB once every kernel of a run is loaded.
CONTEXT = 500_000_000
WORKSPACE = 100_000_000  # workspaces of convolutions and matrix products; a prediction
# Part of the peak that the allocator holds but can't use, if its segments may grow (`gpu.hand_over`). On an H200, decoding a picture of
# 1024 px in float32 holds 3.69 GB for 3.60 GB of tensors where it may hold no more than 3.9; with segments of fixed size it runs out of
# memory there. Where there is room, more is held: 6.6 and 9.4 GB, of which 1.9 are workspaces that cuDNN does without if need be.
SLACK = 0.04
LARGEST_TENSOR = 160_000_000  # saving copies one tensor at a time; the largest is CLIP's embedding in float32
# The lean AdamW's plain form: values in a piece of a tensor, and bytes for each (a float32 copy, random bits, the rounded value). Its
# kernel needs none of this.
PIECE, OF_A_PIECE = 8_388_608, 17

GRADIENT_PIECE = 1 << 25  # values whose gradients are converted from half precision to float32 at a time

PEAK = "peak: "
STEP = "peak: step"
# of the machine's memory: Python and its libraries with torch's CPU build, measured by `tests.benchmarks.ram`
PROGRAM = 520_000_000
PROGRAM_ON_GPU = 2_000_000_000  # with torch's CUDA build, its driver and kernels; a prediction
# on a CPU: what convolutions and the heap hold while the denoiser works, as a share of its weights in float32; measured likewise
BESIDE_DENOISER = 0.35
PINNED = 1.35  # torch rounds each block of pinned memory up to a power of two: SDXL's 8-bit state of 6.9 GB takes 9.1 GB

# Largest first; a batch size is chosen only if it does not raise what the run needs.
CLASS_IMAGE_BATCHES = (8, 4, 2, 1)

TEXT_ACTIVATIONS, TEXT_CHECKPOINTED = 0.29, 0.012  # bytes for each row and each parameter of a text encoder
PROMPT_ACTIVATIONS = 205_000_000  # bytes for one prompt of 512 tokens in Qwen3 4B, counted: the outputs of all layers are kept
VAE_ENCODE, VAE_DECODE = 0.674, 0.806  # GB for one picture of 512 px in float32; all families have the same VAE
# With segments of fixed size (`gpu.may_grow`), decoding needs more: 1.1 times was too little on an H200, 1.4 was held on an H100 with room.
FIXED_SEGMENTS = 1.3


def works_on_copies(choice: Choice, gradient_accumulation: int) -> bool:
    """Whether the passes read half-precision copies of the trained float32 weights, which autocast would otherwise cast each time.

    Gradients that add up, or that the fp16 scaler checks, are all in float32 at once: for a whole network that would take two bytes a
    value more than autocast does; for a LoRA it is next to nothing.
    """
    if choice.precision == "fp32" or choice.weights != "fp32" or choice.inside_backward:
        return False
    return choice.method == "lora" or not _gradients_at_once(choice, gradient_accumulation)


def takes_turns(facts: BaseFacts) -> bool:
    """Whether a run's networks are in memory one at a time: if no text encoder of the family is ever trained."""
    return not facts.family.may_train_text


def _gradients_at_once(choice: Choice, gradient_accumulation: int) -> bool:
    return choice.rows_in_turn or gradient_accumulation > 1 or choice.precision == "fp16"


def lora_parameters(facts: BaseFacts, asked: TrainSettings) -> tuple[int, int]:
    """How many values a LoRA adds to the denoiser, and to all text encoders together.

    Exact for the catalogue's bases; an estimate for others, as a network's attention grows with the square root of its size.
    """
    figures = facts.family.figures
    counted, of_text = figures.lora[asked.lora_layers], figures.lora_text.get(asked.lora_layers, {})
    added = counted.get(facts.denoiser) or counted[figures.denoiser] * sqrt(facts.denoiser / figures.denoiser)
    text = sum(of_text.get(count) or _text_lora(of_text, count) for count in facts.text_encoders)
    rank = asked.rank_for(facts.family)
    return round(added * rank / 16), round(text * rank / 16)


def _text_lora(counted: Mapping[int, int], parameters: int) -> float:
    """An estimate from the first text encoder that was counted; 0 for a family whose text encoders are never trained."""
    nearest, values = next(iter(counted.items()), (1, 0))
    return values * sqrt(parameters / nearest)


def is_counted(facts: BaseFacts) -> bool:
    """Whether a base's networks are among the catalogue's, whose activations were counted; for others they are estimated."""
    figures = facts.family.figures
    texts = figures.lora_text.get("attention")
    return facts.denoiser in figures.quantized and (not texts or all(count in texts for count in facts.text_encoders))


def count_bytes(choice: Choice, job: Job) -> tuple[dict[str, int], "ClassImages"]:
    """The ledger of one choice, bytes by tensor group and by peak (without groups of 0), and how class images are drawn.

    Copies and activations are freed while the gradients are made, so a step's peak is less than the sum of its groups, unless gradients
    are kept from one backward pass to the next.
    """
    asked, on_gpu = job.asked, job.gpu is not None
    groups = _step_groups(choice, job)
    copies = ("half-precision copies",) if works_on_copies(choice, asked.gradient_accumulation) else ()
    kept = sum(groups[group] for group in ("weights", "optimizer state", "EMA", *copies))
    peaks = {
        STEP: kept + _step_working_set(groups, choice, asked),
        **_other_peaks(choice, job, kept=kept),
    }
    drawn = ClassImages(batch=1, in_parts=False, peak=0)
    if asked.with_prior:
        drawn = _class_images(choice, job, below=max(peaks.values()))
        peaks["peak: class images"] = drawn.peak
    extra = {"context": CONTEXT, "allocator slack": WORKSPACE + round(SLACK * max(peaks.values()))} if on_gpu else {}
    groups.pop("late")
    return {group: value for group, value in (groups | extra | peaks).items() if value}, drawn


def count_ram(choice: Choice, job: Job, ledger: Mapping[str, int], *, in_parts: bool) -> dict[str, int]:
    """Bytes of the machine's memory by moment of a run, from its ledger; `in_parts`: class images are drawn by networks in turn.

    Without a card, or with one that shares the machine's memory, every tensor is in it. Beside a card with its own memory, the machine
    holds the base until it is moved to the card, the networks that wait for their turn, and optimizer state that does not fit on the card;
    checkpoints and the finished model are written from the card one tensor at a time. What is only mapped from a base's files does not
    count: the system takes it back when it needs room.
    """
    facts, asked, gpu = job.facts, job.asked, job.gpu
    vae = facts.vae * FP32
    base = _base_bytes(choice, facts, with_text=True) + vae
    turns = takes_turns(facts)
    if turns:  # weights are cast as they are read, so that no network is there twice
        text = sum(facts.text_encoders) * _value_bytes(choice.precision)
        base = max(vae, text, facts.denoiser * _value_bytes(choice.precision))
    largest = LARGEST_TENSOR if _width(facts) == 1 else 0
    saved = FP32 if asked.save_dtype == "fp32" else HALF
    frozen = () if choice.train_text_encoder else facts.text_encoders
    brought = max((facts.vae, *frozen)) * saved if choice.method == "full" else 0
    stored = ledger.get("EMA", 0)  # while a preview is drawn with the average, the weights are kept here
    if gpu is None or gpu.shared:
        peaks = {group.removeprefix(PEAK): size for group, size in ledger.items() if group.startswith(PEAK)}
        peaks["checkpoint"] = peaks.pop("saving")
        beside = round(BESIDE_DENOISER * facts.denoiser * FP32) if gpu is None else 0
        peaks |= {moment: peaks[moment] + beside for moment in ("step", "class images", "preview") if moment in peaks}
        if "preview" in peaks:
            peaks["preview"] += stored
        moments = {"loading": base + largest, **peaks, "saving": ledger["weights"] + brought + largest}
    else:
        state = round(PINNED * _step_groups(replace(choice, off_card=False), job)["optimizer state"])
        off_card = state if choice.off_card else 0
        moments = {
            "loading": base + largest,
            "class images": (_base_bytes(choice, facts, with_text=not turns) + vae) if in_parts else 0,
            "encoding": 0 if turns else base - vae,
            "step": off_card,
            "checkpoint": off_card + largest,
            "saving": brought + largest,
        }
        if asked.sample_every:
            moments["preview"] = off_card + stored + (facts.vae + (0 if turns else sum(frozen))) * FP32
    program = PROGRAM if gpu is None or gpu.kind == "mps" else PROGRAM_ON_GPU
    return {moment: program + size for moment, size in moments.items()}


def count_disk(choice: Choice, job: Job) -> dict[str, int]:
    """The most bytes that a run has on disk: checkpoints (the oldest is removed only after the newest is whole), the finished model,
    class images (a PNG counts as no larger than its pixels)."""
    facts, asked, text = job.facts, job.asked, choice.train_text_encoder
    if choice.method == "full":
        trained = facts.denoiser + (sum(facts.text_encoders) if text else 0)
        model = facts.denoiser + sum(facts.text_encoders) + facts.vae
    else:
        added, text_lora = lora_parameters(facts, asked)
        trained = model = added + (text_lora if text else 0)
    state = ADAMW_STATE if choice.optimizer == "adamw" else ADAMW_8BIT_STATE
    a_value = (HALF if choice.weights == "bf16" else FP32) + state + (FP32 if asked.ema else 0)
    by_clock = asked.checkpoint_every and asked.checkpoint_minutes  # if steps are slow, perhaps one after each step
    saves = asked.steps if by_clock else -(-asked.steps // (asked.checkpoint_every or asked.steps))
    drawn = (HALF if choice.weights == "bf16" else FP32) + (FP32 if asked.ema else 0)  # bytes a value without optimizer state
    whole, light = min(saves, asked.keep_checkpoints + 1), max(0, len(due_steps(asked)) - asked.keep_checkpoints - 1)
    return {
        "checkpoints": round(trained * a_value) * whole + trained * drawn * light,
        "model": model * (FP32 if asked.save_dtype == "fp32" else HALF),
        "class images": asked.class_images * 3 * job.resolution**2 if asked.with_prior else 0,
    }


def _step_groups(choice: Choice, job: Job) -> dict[str, int]:
    facts, asked = job.facts, job.asked
    text = sum(facts.text_encoders) if choice.train_text_encoder else 0
    photos, beside = asked.rows
    rows = max(photos, beside) if choice.rows_in_turn else photos + beside
    of_class = beside if asked.frames == "varied" else min(1, beside)  # if varied, some class prompts name a place
    prompts = max(photos, of_class) if choice.rows_in_turn else photos + of_class
    if choice.method == "full":
        trained, of_text, frozen = facts.denoiser + text, text, 0
    else:
        added, text_lora = lora_parameters(facts, asked)
        of_text, frozen = text_lora if text else 0, facts.denoiser + text
        trained = added + of_text
    size = HALF if choice.weights == "bf16" else FP32
    copied = works_on_copies(choice, asked.gradient_accumulation)
    in_pieces = copied and not _gradients_at_once(choice, asked.gradient_accumulation)
    state = ADAMW_STATE if choice.optimizer == "adamw" else ADAMW_8BIT_STATE
    gradient = HALF if in_pieces else size
    largest = min(trained, facts.family.figures.largest_with_text if text else facts.family.figures.largest)
    activations = _activations(choice, asked.lora_layers, facts, job.pixels)
    # The text encoders read each prompt of a pass once: at most one for each photo, and one for all class images, or one for each.
    text_activations = (TEXT_CHECKPOINTED if choice.gradient_checkpointing else TEXT_ACTIVATIONS) * text * prompts
    return {
        "weights": trained * size + (_base_bytes(choice, facts, with_text=bool(text)) if frozen else 0),
        "gradients": (largest if choice.inside_backward else trained) * gradient,
        "optimizer state": 0 if choice.off_card else round(trained * state),
        "EMA": trained * FP32 if asked.ema else 0,
        "half-precision copies": trained * HALF if choice.precision != "fp32" and size == FP32 else 0,
        "activations": round((activations.forward * rows + facts.family.figures.fp8_block * choice.fp8) * 1e9 + text_activations),
        "late": round((trained - of_text) * gradient + activations.late * rows * 1e9 + text_activations),
        "update": _lean_update(choice, largest, state) + (min(trained, GRADIENT_PIECE) * FP32 if in_pieces else 0),
    }


def _lean_update(choice: Choice, largest: int, state: float) -> int:
    """Bytes that the lean AdamW needs to update one tensor, in the form that needs more: the plain form copies a piece; the kernel brings
    the whole tensor's moments from the machine's memory."""
    if choice.weights == "fp32" and not choice.inside_backward and not choice.off_card:
        return 0
    brought = state if choice.off_card else 0
    return round(max(min(largest, PIECE) * (OF_A_PIECE + brought), largest * brought))


def _step_working_set(groups: Mapping[str, int], choice: Choice, asked: TrainSettings) -> int:
    forward = _passing_copies(groups, choice, asked) + groups["activations"]
    update = groups["gradients"] + groups["update"]
    if choice.inside_backward:  # while most activations are there, only small weights are moved
        return max(forward, update)
    if asked.gradient_accumulation > 1 or choice.rows_in_turn:
        return max(groups["gradients"] + forward, update)
    return max(forward, groups["late"], update)  # the text encoders' gradients come when all activations are gone


def _passing_copies(groups: Mapping[str, int], choice: Choice, asked: TrainSettings) -> int:
    """Bytes of the half-precision copies that autocast makes and frees in every pass; 0 if working copies are kept."""
    return 0 if works_on_copies(choice, asked.gradient_accumulation) else groups["half-precision copies"]


def _activations(choice: Choice, layers: LoraLayers, facts: BaseFacts, pixels: int) -> Activations:
    """GB for one row. For a denoiser that is not in the catalogue, its width, and so its activations, grow with the square root of its
    size."""
    figures = facts.family.figures
    half, single = figures.activations["full" if choice.method == "full" else layers, choice.gradient_checkpointing]
    figure = single if choice.precision == "fp32" else half
    scale = _share(figures, pixels) * _width(facts)
    if choice.method == "lora":
        scale *= figures.beside_lora.get((facts.denoiser, layers, choice.gradient_checkpointing), 1.0)
    return Activations(figure.forward * scale, figure.late * scale)


def _width(facts: BaseFacts) -> float:
    figures = facts.family.figures
    return 1.0 if facts.denoiser in figures.quantized else sqrt(facts.denoiser / figures.denoiser)


def _other_peaks(choice: Choice, job: Job, *, kept: int) -> dict[str, int]:
    """The peaks outside the step. `kept`: bytes that stay in memory during a preview or a save (gradients have been freed by then). While
    pictures are encoded, a card holds only the VAE; the machine's memory holds the whole base."""
    facts = job.facts
    base = facts.vae * FP32 + (0 if job.gpu else _base_bytes(choice, facts, with_text=True))
    peaks = {
        "peak: encoding": base + round(_picture(VAE_ENCODE, facts, job.pixels)),
        "peak: saving": kept + LARGEST_TENSOR if _width(facts) == 1 else kept,
    }
    if takes_turns(facts):
        text = sum(facts.text_encoders) * _value_bytes(choice.precision)
        peaks["peak: prompts"] = 0 if choice.text_off_card else text + PROMPT_ACTIVATIONS
        peaks["peak: encoding"] = facts.vae * FP32 + round(_picture(VAE_ENCODE, facts, job.pixels))
    if job.asked.sample_every and takes_turns(facts):
        peaks["peak: preview"] = kept + facts.vae * FP32 + _drawing(job, pictures=1)
    elif job.asked.sample_every:
        # The VAE and a frozen text encoder are loaded again, in float32, for as long as it takes.
        back = facts.vae * FP32 + (0 if choice.train_text_encoder else sum(facts.text_encoders) * FP32)
        passing = _passing_copies(_step_groups(choice, job), choice, job.asked)
        peaks["peak: preview"] = kept + passing + back + _drawing(job, pictures=1)
    return peaks


@dataclass(frozen=True)
class ClassImages:
    """How class images are drawn: `batch` at a time, the base's networks on the card together or (`in_parts`) in turn; `peak`: the bytes
    that this takes."""

    batch: int
    in_parts: bool
    peak: int


def _class_images(choice: Choice, job: Job, *, below: int) -> ClassImages:
    """The largest batch that stays below the run's other peaks, with all networks together if that is possible; else, on a card, in
    parts."""
    facts, resolution, on_gpu = job.facts, job.resolution, job.gpu is not None
    with_text = not takes_turns(facts)  # if they do, the prompts have been read before
    denoiser, loaded = _base_bytes(choice, facts, with_text=False), _base_bytes(choice, facts, with_text=with_text)
    weights = loaded + facts.vae * FP32
    others = (loaded - denoiser, facts.vae * FP32 + _decoding(job))
    batches = CLASS_IMAGE_BATCHES if on_gpu else (1,)
    for batch in () if choice.class_images_in_parts else batches:
        peak = weights + _drawing(job, pictures=batch)
        if peak <= below or not on_gpu:
            return ClassImages(batch, in_parts=False, peak=peak)
    # once memory has run out, only the smallest batch is safe
    for batch in (1,) if choice.class_images_in_parts else batches:
        peak = round(max(*others, denoiser + 2 * batch * _row(facts, resolution)))
        if peak <= below or batch == 1:
            break
    return ClassImages(batch, in_parts=True, peak=peak)


def _base_bytes(choice: Choice, facts: BaseFacts, *, with_text: bool) -> int:
    """Bytes of the base's denoiser, and of its text encoders, in memory: in full fine-tuning in the trained weights' format, otherwise in
    the plan's precision; a frozen denoiser in 4 or 8 bits if the choice says so."""
    size = _value_bytes(choice.weights) if choice.method == "full" else _value_bytes(choice.precision)
    figures = facts.family.figures
    in_4_bits = figures.quantized.get(facts.denoiser, figures.quantized[figures.denoiser])
    value = in_4_bits if choice.quantized else figures.fp8 if choice.fp8 else size
    return round(facts.denoiser * value + (sum(facts.text_encoders) * size if with_text else 0))


def _drawing(job: Job, *, pictures: int) -> int:
    """Bytes for drawing pictures as one batch: the denoiser's rows with and without the prompt, then decoding them one at a time."""
    return round(max(2 * pictures * _row(job.facts, job.resolution), _decoding(job)))


def _decoding(job: Job) -> float:
    """Bytes for decoding one picture, besides the VAE."""
    is_fixed = job.gpu is not None and job.gpu.kind != "mps" and not may_grow(job.gpu)
    return _picture(VAE_DECODE, job.facts, job.resolution**2) * (FIXED_SEGMENTS if is_fixed else 1.0)


def _row(facts: BaseFacts, resolution: int) -> float:
    """Bytes for one row of the denoiser without gradients."""
    figures = facts.family.figures
    return figures.drawing * _share(figures, resolution**2) * _width(facts) * 1e9


def _share(figures: Figures, pixels: int) -> float:
    """The activations for a picture of so many pixels, as a share of those that were counted; prompts that are read beside the picture
    add their own."""
    return (pixels + figures.prompt_pixels) / (figures.side**2 + figures.prompt_pixels)


def _picture(figure: float, facts: BaseFacts, pixels: int) -> float:
    return figure * 1e9 * pixels / 512**2 * min(1.0, sqrt(facts.vae / VAE_PARAMETERS))


def _value_bytes(precision: Precision) -> int:
    return FP32 if precision == "fp32" else HALF
