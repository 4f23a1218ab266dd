"""The ledger: what a run takes of the card, the machine and the disk, by tensor group and moment. Arithmetic only, no torch.

Weights, gradients and optimizer state follow exactly from parameter counts. Activations are the family's counted figures:
the bytes alive at the peak of one step of the full-size network, scaled by pixels and rows. The driver's context and the
allocator's slack are predictions. The machine's own memory is counted beside the card's: what a run holds there at its largest
moments. Bytes everywhere; GB is 1e9 bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt

from ..bases.catalog import VAE_PARAMETERS, BaseFacts
from ..families.family import Activations, Figures, LoraLayers
from ..judged import due_steps
from ..settings import TrainSettings
from .plan import Choice, Job, Precision

FP32, HALF = 4, 2  # bytes of a value
ADAMW_STATE = 8  # bytes of a trained parameter: two float32 moments
ADAMW_8BIT_STATE = 2.03  # two 8-bit moments and a float32 scale for each block of 256

# What the driver holds for a process beside its tensors; a prediction for the cards that people have. An H100 (132 multiprocessors,
# CUDA 13) was measured: 552 MB as it wakes, 810 to 817 MB once every kernel of a run is loaded.
CONTEXT = 500_000_000
WORKSPACE = 100_000_000  # convolution and matrix workspaces; a prediction
# Part of the peak that the allocator holds and can't use. On an H100 it had 0.02 to 0.07 of the planned peak more than that, workspaces
# among it, and 0.39 in the one run whose base was in 4 bits: that is not explained, not planned for, and whether it would be given back
# where memory is short was not tried. `expandable_segments` would lower it, and are left to PYTORCH_ALLOC_CONF: torch's own tests leave
# them out on Windows, Jetson and ROCm.
SLACK = 0.04
LARGEST_TENSOR = 160_000_000  # saving copies one tensor at a time: CLIP's embedding in float32
# The lean AdamW's plain form: one piece of a tensor in float32, rounding's draws, what is rounded. Its kernel takes none of it.
PIECE, OF_A_PIECE = 8_388_608, 17

GRADIENT_PIECE = 1 << 25  # values whose gradients are in float32 at a time, as they leave half precision

PEAK = "peak: "
STEP = "peak: step"
# of the machine's memory, measured by `tests.benchmarks.ram`: Python and its libraries, with the CPU's build of torch
PROGRAM = 520_000_000
PROGRAM_ON_GPU = 2_000_000_000  # with CUDA's build, its driver and kernels; a prediction
# and what a CPU's convolutions and the heap hold while the denoiser works, as a part of its weights in float32
BESIDE_DENOISER = 0.35
PINNED = 1.35  # torch rounds each block of pinned memory up to a power of two: SDXL's 8-bit state of 6.9 GB takes 9.1

# Largest first; a batch is taken only where it does not raise what the run needs.
CLASS_IMAGE_BATCHES = (8, 4, 2, 1)

TEXT_ACTIVATIONS, TEXT_CHECKPOINTED = 0.29, 0.012  # bytes of a row for each parameter of a text encoder
PROMPT_ACTIVATIONS = 205_000_000  # bytes of one prompt of 512 tokens in Qwen3 of 4 B, counted: the outputs of all layers are kept
VAE_ENCODE, VAE_DECODE = 0.674, 0.806  # GB of one picture at 512 px in float32, the same VAE in all families


def works_on_copies(choice: Choice, gradient_accumulation: int) -> bool:
    """Whether the passes read half-precision copies of the trained float32 weights, which autocast would cast anew each time.

    Gradients that add up, or that the fp16 scaler looks over, lie in float32 all at once: for a whole network that would be two
    bytes a value more than autocast takes, for a LoRA it is nothing.
    """
    if choice.precision == "fp32" or choice.weights != "fp32" or choice.inside_backward:
        return False
    return choice.method == "lora" or not _gradients_at_once(choice, gradient_accumulation)


def takes_turns(facts: BaseFacts, asked: TrainSettings) -> bool:
    """Whether a run's networks are in memory one at a time: where no text encoder is ever trained and no class images are drawn."""
    return not (facts.family.may_train_text or asked.with_prior)


def _gradients_at_once(choice: Choice, gradient_accumulation: int) -> bool:
    return choice.rows_in_turn or gradient_accumulation > 1 or choice.precision == "fp16"


def lora_parameters(facts: BaseFacts, asked: TrainSettings) -> tuple[int, int]:
    """The values that a LoRA adds to the denoiser and to the text encoders together.

    Exact for the catalogue's bases; for any other an estimate: a network's attention grows like the root of its size.
    """
    figures = facts.family.figures
    counted, of_text = figures.lora[asked.lora_layers], figures.lora_text.get(asked.lora_layers, {})
    added = counted.get(facts.denoiser) or counted[figures.denoiser] * sqrt(facts.denoiser / figures.denoiser)
    text = sum(of_text.get(count) or _text_lora(of_text, count) for count in facts.text_encoders)
    rank = asked.rank_for(facts.family)
    return round(added * rank / 16), round(text * rank / 16)


def _text_lora(counted: Mapping[int, int], parameters: int) -> float:
    """By the first text encoder that was counted; 0 for a family whose text encoders are never trained."""
    nearest, values = next(iter(counted.items()), (1, 0))
    return values * sqrt(parameters / nearest)


def is_counted(facts: BaseFacts) -> bool:
    """Whether a base's networks are the catalogue's, whose activations were counted; for others they are estimates."""
    figures = facts.family.figures
    texts = figures.lora_text.get("attention")
    return facts.denoiser in figures.quantized and (not texts or all(count in texts for count in facts.text_encoders))


def count_bytes(choice: Choice, job: Job) -> tuple[dict[str, int], "ClassImages"]:
    """The ledger of one choice, bytes by tensor group and peak (groups of 0 left out), and how class images are drawn.

    Copies and activations leave as the gradients come, so a step's peak is less than the sum of its groups, unless gradients
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
    """Bytes of the machine's memory by the moments of a run, from its ledger; `in_parts`: how class images are drawn.

    Without a card, and where it shares the machine's memory, every tensor lies there. Beside a card of its own memory the base lies
    there until it is placed, what waits for its turn, and the state that has no room on the card; a checkpoint and the finished
    model are written from the card one tensor after the other. What is only mapped from a base's files does not count: the system
    takes it back where it needs room.
    """
    facts, asked, gpu = job.facts, job.asked, job.gpu
    vae = facts.vae * FP32
    base = _base_bytes(choice, facts, with_text=True) + vae
    turns = takes_turns(facts, asked)
    if turns:  # a weight is cast as it is read: no network lies there twice
        text = sum(facts.text_encoders) * _value_bytes(choice.precision)
        base = max(vae, text, facts.denoiser * _value_bytes(choice.precision))
    largest = LARGEST_TENSOR if _width(facts) == 1 else 0
    saved = FP32 if asked.save_dtype == "fp32" else HALF
    frozen = () if choice.train_text_encoder else facts.text_encoders
    brought = max((facts.vae, *frozen)) * saved if choice.method == "full" else 0
    stored = ledger.get("EMA", 0)  # beside a preview by the average, the weights themselves
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
            "class images": base if in_parts else 0,
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
    """Bytes that a run writes to disk, at their most: checkpoints (the newest is whole before the oldest goes), the finished
    model, class images (a PNG is no larger than its pixels)."""
    facts, asked, text = job.facts, job.asked, choice.train_text_encoder
    if choice.method == "full":
        trained = facts.denoiser + (sum(facts.text_encoders) if text else 0)
        model = facts.denoiser + sum(facts.text_encoders) + facts.vae
    else:
        added, text_lora = lora_parameters(facts, asked)
        trained = model = added + (text_lora if text else 0)
    state = ADAMW_STATE if choice.optimizer == "adamw" else ADAMW_8BIT_STATE
    a_value = (HALF if choice.weights == "bf16" else FP32) + state + (FP32 if asked.ema else 0)
    by_clock = asked.checkpoint_every and asked.checkpoint_minutes  # where steps are slow, perhaps after each
    saves = asked.steps if by_clock else -(-asked.steps // (asked.checkpoint_every or asked.steps))
    drawn = (HALF if choice.weights == "bf16" else FP32) + (FP32 if asked.ema else 0)  # of a value of weights alone
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
    of_class = beside if asked.frames == "varied" else min(1, beside)  # some of them say a place
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
    # The text encoders read each prompt of a pass once: at most one for each photo, and one for the class images, or each.
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
    """What moves one tensor at a time, in the form that takes more of it: the plain one a piece, the kernel the whole tensor's moments
    from the machine's memory."""
    if choice.weights == "fp32" and not choice.inside_backward and not choice.off_card:
        return 0
    brought = state if choice.off_card else 0
    return round(max(min(largest, PIECE) * (OF_A_PIECE + brought), largest * brought))


def _step_working_set(groups: Mapping[str, int], choice: Choice, asked: TrainSettings) -> int:
    forward = _passing_copies(groups, choice, asked) + groups["activations"]
    update = groups["gradients"] + groups["update"]
    if choice.inside_backward:  # the weights that move while the activations are there are small
        return max(forward, update)
    if asked.gradient_accumulation > 1 or choice.rows_in_turn:
        return max(groups["gradients"] + forward, update)
    return max(forward, groups["late"], update)  # the text encoders' gradients come when all activations are gone


def _passing_copies(groups: Mapping[str, int], choice: Choice, asked: TrainSettings) -> int:
    """Of the half-precision copies those that autocast makes and lets go in every pass."""
    return 0 if works_on_copies(choice, asked.gradient_accumulation) else groups["half-precision copies"]


def _activations(choice: Choice, layers: LoraLayers, facts: BaseFacts, pixels: int) -> Activations:
    """Of one row. A denoiser that is not the catalogue's: its width, hence its activations, go like the root of its size."""
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
    """Peaks outside the step. `kept`: what stays beside a preview or a save; its gradients are gone by then. A card holds the VAE
    alone while pictures are encoded; the machine's memory holds the whole base."""
    facts, resolution = job.facts, job.resolution
    base = facts.vae * FP32 + (0 if job.gpu else _base_bytes(choice, facts, with_text=True))
    peaks = {
        "peak: encoding": base + round(_picture(VAE_ENCODE, facts, job.pixels)),
        "peak: saving": kept + LARGEST_TENSOR if _width(facts) == 1 else kept,
    }
    if takes_turns(facts, job.asked):
        text = sum(facts.text_encoders) * _value_bytes(choice.precision)
        peaks["peak: prompts"] = 0 if choice.text_off_card else text + PROMPT_ACTIVATIONS
        peaks["peak: encoding"] = facts.vae * FP32 + round(_picture(VAE_ENCODE, facts, job.pixels))
    if job.asked.sample_every and takes_turns(facts, job.asked):
        peaks["peak: preview"] = kept + facts.vae * FP32 + _drawing(facts, resolution, pictures=1)
    elif job.asked.sample_every:
        # The VAE and a frozen text encoder come back in float32 for their moment.
        back = facts.vae * FP32 + (0 if choice.train_text_encoder else sum(facts.text_encoders) * FP32)
        passing = _passing_copies(_step_groups(choice, job), choice, job.asked)
        peaks["peak: preview"] = kept + passing + back + _drawing(facts, resolution, pictures=1)
    return peaks


@dataclass(frozen=True)
class ClassImages:
    """How class images are drawn: so many at a time, the base's networks together on the card or in turn; the bytes it takes."""

    batch: int
    in_parts: bool
    peak: int


def _class_images(choice: Choice, job: Job, *, below: int) -> ClassImages:
    """The largest batch that stays below the run's other peaks, all networks together if one does; else in parts on a card."""
    facts, resolution, on_gpu = job.facts, job.resolution, job.gpu is not None
    weights = _base_bytes(choice, facts, with_text=True) + facts.vae * FP32
    denoiser = _base_bytes(choice, facts, with_text=False)
    others = (
        _base_bytes(choice, facts, with_text=True) - denoiser,
        facts.vae * FP32 + _picture(VAE_DECODE, facts, resolution**2),
    )
    batches = CLASS_IMAGE_BATCHES if on_gpu else (1,)
    for batch in () if choice.class_images_in_parts else batches:
        peak = weights + _drawing(facts, resolution, pictures=batch)
        if peak <= below or not on_gpu:
            return ClassImages(batch, in_parts=False, peak=peak)
    # after memory ran out only the least is safe
    for batch in (1,) if choice.class_images_in_parts else batches:
        peak = round(max(*others, denoiser + 2 * batch * _row(facts, resolution)))
        if peak <= below or batch == 1:
            break
    return ClassImages(batch, in_parts=True, peak=peak)


def _base_bytes(choice: Choice, facts: BaseFacts, *, with_text: bool) -> int:
    """The base's denoiser, and its text encoders, as they lie in memory: of the trained weights' kind where they are trained
    themselves, else in the plan's precision; a quantized denoiser in 4 bits where it can be."""
    size = _value_bytes(choice.weights) if choice.method == "full" else _value_bytes(choice.precision)
    figures = facts.family.figures
    in_4_bits = figures.quantized.get(facts.denoiser, figures.quantized[figures.denoiser])
    value = in_4_bits if choice.quantized else figures.fp8 if choice.fp8 else size
    return round(facts.denoiser * value + (sum(facts.text_encoders) * size if with_text else 0))


def _drawing(facts: BaseFacts, resolution: int, *, pictures: int) -> int:
    """Drawing pictures as one batch: the denoiser's rows with and without the prompt, then decoding one after the other."""
    return round(max(2 * pictures * _row(facts, resolution), _picture(VAE_DECODE, facts, resolution**2)))


def _row(facts: BaseFacts, resolution: int) -> float:
    """One row of the denoiser without gradients."""
    figures = facts.family.figures
    return figures.drawing * _share(figures, resolution**2) * _width(facts) * 1e9


def _share(figures: Figures, pixels: int) -> float:
    """The activations of a picture of so many pixels, as a share of those that were counted; a prompt has its own."""
    return (pixels + figures.prompt_pixels) / (figures.side**2 + figures.prompt_pixels)


def _picture(figure: float, facts: BaseFacts, pixels: int) -> float:
    return figure * 1e9 * pixels / 512**2 * min(1.0, sqrt(facts.vae / VAE_PARAMETERS))


def _value_bytes(precision: Precision) -> int:
    return FP32 if precision == "fp32" else HALF
