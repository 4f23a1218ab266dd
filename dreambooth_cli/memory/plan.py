"""The memory plan: what a run takes by tensor group, which means make it fit, and why. Arithmetic only, no torch.

Weights, gradients and optimizer state follow exactly from parameter counts. Activations are the family's counted figures:
the bytes alive at the peak of one step of the full-size network, scaled by pixels and rows. The driver's context and the
allocator's slack are predictions. The machine's own memory is counted beside the card's: what a run holds there at its largest
moments. Bytes everywhere; GB is 1e9 bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import inf, sqrt
from typing import Any, Literal

from ..bases.catalog import CATALOG, VAE_PARAMETERS, BaseFacts, CatalogEntry
from ..errors import DoesNotFit, UsageError
from ..families.family import Activations, Family, Rates
from ..gpu import TAKEN, Gpu, multiplies_bf16
from ..machine import free_memory, machine_memory, resident_memory
from ..schemas import check_values
from ..settings import AUTO, TrainSettings, default_of, flag_of

Method = Literal["full", "lora"]
Precision = Literal["fp32", "bf16", "fp16"]
Optimizer = Literal["adamw", "adamw8bit"]
Weights = Literal["fp32", "bf16"]
Device = Literal["cuda", "mps", "cpu"]

EIGHT_BIT_ADAM, FOUR_BIT_BASE = NEED_8BIT = ("8-bit Adam", "base in 4 bits")
INSTALL_8BIT = 'pipx inject dreambooth-cli "bitsandbytes"'
BF16_CAPABILITY = (8, 0)  # NVIDIA's Ampere and newer compute in bf16
NAN_IN_FP16 = "GTX 16"  # these cards' fp16 convolutions give NaN with Stable Diffusion, as many of their owners report
# On a CPU that multiplies bf16 it pays where pictures are large: 0.5 to 0.8 times the steps a second at 64 and 128 px, 1.0 to 1.8 at 256.
CPU_BF16_RESOLUTION = 256

FP32, HALF = 4, 2  # bytes of a value
ADAMW_STATE = 8  # bytes of a trained parameter: two float32 moments
ADAMW_8BIT_STATE = 2.03  # two 8-bit moments and a float32 scale for each block of 256

CONTEXT = 500_000_000  # what CUDA and its libraries hold before the first tensor; a prediction
WORKSPACE = 100_000_000  # convolution and matrix workspaces; a prediction
# Part of the peak that the allocator holds and can't use; a prediction. Its `expandable_segments` would lower it, and are left to
# PYTORCH_ALLOC_CONF: torch's own tests leave them out on Windows, Jetson and ROCm, every step asks for the same blocks, so that there
# is little to gain, and nothing of it could be measured yet.
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
ROOM = 0.95  # of a card's free memory that a plan reckons with: what else runs there takes a little more or less as time goes by

# Largest first; a batch is taken only where it does not raise what the run needs.
CLASS_IMAGE_BATCHES = (8, 4, 2, 1)


TEXT_ACTIVATIONS, TEXT_CHECKPOINTED = 0.29, 0.012  # bytes of a row for each parameter of a text encoder
VAE_ENCODE, VAE_DECODE = 0.674, 0.806  # GB of one picture at 512 px in float32, the same VAE in all families


@dataclass(frozen=True)
class Job:
    """What a plan is made for: a base, what is asked of the run, the pictures' side in pixels, the card (None: the CPU), whether
    bitsandbytes is there, and what the base is called in messages."""

    facts: BaseFacts
    asked: TrainSettings
    resolution: int
    gpu: Gpu | None
    has_8bit: bool
    name: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One rung of the ladder: what is trained, and by which means.

    Of the means: `rows_in_turn`: instance and class rows in two passes; `weights` in bf16 are rounded stochastically;
    `inside_backward`: each weight moves as soon as it has its gradient; `off_card`: the optimizer's state lies in the machine's
    memory; `quantized`: a LoRA's base in 4 bits; `class_images_in_parts`: for class images the base's networks take turns on the card.
    """

    method: Method
    train_text_encoder: bool
    precision: Precision
    optimizer: Optimizer
    gradient_checkpointing: bool
    rows_in_turn: bool = False
    weights: Weights = "fp32"
    inside_backward: bool = False
    off_card: bool = False
    quantized: bool = False
    class_images_in_parts: bool = False  # of a choice: whatever they would take together


@dataclass(frozen=True, kw_only=True)
class Plan(Choice):
    """How a run will be done: a choice with every `auto` resolved, what it takes, and why it was taken.

    `means` has them in words. `ledger` has bytes by tensor group, then the peaks (`peak: ...`); `needed` is the highest peak with
    context and slack. `remedy` says, where it does not fit, what would. `disk` has the bytes that the run writes, at their most;
    `ram` those of the machine's own memory by the moments of a run, the program's with them.
    """

    resolution: int
    batch_size: int
    learning_rate: float
    text_encoder_learning_rate: float
    text_encoder_stop: int = 0
    alpha: float
    class_image_batch: int
    device: Device
    means: tuple[str, ...]
    ledger: dict[str, int]
    needed: int
    free: int | None
    fits: bool
    why: str
    name: str = ""
    remedy: str = ""
    disk: dict[str, int] = field(default_factory=dict)
    ram: dict[str, int] = field(default_factory=dict)

    @property
    def choice(self) -> Choice:
        """What is trained, and by which means, alone."""
        return Choice(**{item.name: getattr(self, item.name) for item in fields(Choice)})

    @property
    def ram_needed(self) -> int:
        """Bytes of the machine's memory at the largest moment; 0 for a plan of 0.1, which did not count them."""
        return max(self.ram.values(), default=0)

    def to_json(self) -> dict[str, Any]:
        """As plan.json and the events hold it."""
        return asdict(self) | {"means": list(self.means), "ram_gb": round(self.ram_needed / 1e9, 2)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Plan":
        """A plan that `to_json` gave; keys that are not a plan's are left out. Raises ValueError where it is none."""
        check_values(cls, values)
        if values["resolution"] < 8 or values["batch_size"] < 1 or values["class_image_batch"] < 1:
            raise ValueError("resolution and batches can't be that small")
        if not (values["learning_rate"] > 0 and values["text_encoder_learning_rate"] > 0 and values["alpha"] > 0):
            raise ValueError("learning rates and alpha must be above 0")
        known = {item.name for item in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        return cls(**kept | {"means": tuple(values["means"])})


def weights_of(plan: Plan) -> Precision:
    """The number format of the loaded weights: the trained weights' own, or a LoRA's base in the plan's precision."""
    return plan.weights if plan.method == "full" else plan.precision


def works_on_copies(choice: Choice, gradient_accumulation: int) -> bool:
    """Whether the passes read half-precision copies of the trained float32 weights, which autocast would cast anew each time.

    Gradients that add up, or that the fp16 scaler looks over, lie in float32 all at once: for a whole network that would be two
    bytes a value more than autocast takes, for a LoRA it is nothing.
    """
    if choice.precision == "fp32" or choice.weights != "fp32" or choice.inside_backward:
        return False
    return choice.method == "lora" or not _gradients_at_once(choice, gradient_accumulation)


def _gradients_at_once(choice: Choice, gradient_accumulation: int) -> bool:
    return choice.rows_in_turn or gradient_accumulation > 1 or choice.precision == "fp16"


def job_of(entry: CatalogEntry, gpu: Gpu | None, *, has_8bit: bool) -> Job:
    """A base of the catalogue at its own size, as it is trained where nothing is said."""
    facts = entry.facts
    return Job(facts, TrainSettings(), resolution=facts.resolution, gpu=gpu, has_8bit=has_8bit, name=entry.name)


def make_plan(job: Job) -> Plan:
    """The best plan that fits the GPU's free memory and the machine, or the nearest miss (`fits` False). What was stated is never
    changed.

    Without a GPU the plan is for the CPU: the best that fits the machine's free memory, else the smallest. What the machine has in
    all decides whether it fits: what is free there comes and goes. Raises UsageError where 8-bit AdamW is asked for and can't be had.
    """
    _check_optimizer(job)
    _check_family(job.facts.family, job.asked)
    plan = _best_plan(job)
    return plan if plan.fits else replace(plan, remedy=_find_remedy(job))


def check_fits(plan: Plan, asked: TrainSettings) -> None:
    """Stop before any work where a plan does not fit. Raises DoesNotFit naming what would, or the flag to drop."""
    if plan.fits:
        return
    flags = " ".join(_stated_flags(asked).values())
    what = f"{_words(plan)}{f' (asked: {flags})' if flags else ''}"
    again = "go on under a new plan: the same command with --replan"
    if plan.free is not None and plan.needed > plan.free:
        raise DoesNotFit(
            f"{plan.name} does not fit in the GPU's memory: {what} needs {_gb(plan.needed)} GB, {_gb(plan.free)} GB are free",
            plan.remedy or f"close other programs that use the GPU, or {again}",
        )
    raise DoesNotFit(
        f"{plan.name} does not fit in this machine's memory: {what} needs {_gb(plan.ram_needed)} GB of it, and there are "
        f"{_gb(machine_memory())} GB in all",
        plan.remedy or again,
    )


def step_down(
    plan: Plan, facts: BaseFacts, asked: TrainSettings, *, gpu: Gpu | None, drawing_class_images: bool = False
) -> Plan | None:
    """The plan with one means more after memory ran out, of those that leave the state of a run its form and, by the ledger,
    need less in a step, at its peak or else of activations (which then took more than was counted); None where there is none.
    Class images are drawn one by one, in parts, and nothing else helps them."""
    job = _job_again(plan, facts, asked, gpu)
    on_card, full = plan.device == "cuda" and not (gpu is not None and gpu.shared), plan.method == "full"
    may_check, may_turn = asked.gradient_checkpointing == AUTO, asked.with_prior and not plan.inside_backward
    possible: tuple[tuple[bool, dict[str, Any]], ...] = (
        (may_check and not plan.gradient_checkpointing, {"gradient_checkpointing": True}),
        (may_turn and not plan.rows_in_turn, {"rows_in_turn": True}),
        (full and on_card and not plan.off_card and _machine_holds_state(plan, gpu), {"off_card": True}),
    )
    if drawing_class_images:
        possible = ((on_card and not plan.class_images_in_parts, {"class_images_in_parts": True}),)
    for is_open, means in possible:
        if is_open:
            lower = _plan_of(replace(plan.choice, **means), job)
            if drawing_class_images or _in_a_step(lower) < _in_a_step(plan):
                return at_rates_of(plan, lower)
    return None


def _in_a_step(plan: Plan) -> tuple[int, int]:
    """Bytes at the peak of a step, and those of its activations."""
    return plan.ledger[STEP], plan.ledger["activations"]


def calm_down(plan: Plan, facts: BaseFacts, asked: TrainSettings, *, gpu: Gpu | None) -> Plan:
    """The plan to go on with after numbers that were not finite: fp16 has too small a range, so bf16 or fp32 in its place;
    otherwise half the learning rate."""
    if plan.precision != "fp16":
        text_rate = plan.text_encoder_learning_rate / 2
        return replace(plan, learning_rate=plan.learning_rate / 2, text_encoder_learning_rate=text_rate)
    wider: Precision = "bf16" if _auto_precision(gpu) == "bf16" else "fp32"
    further = replace(plan.choice, precision=wider)
    return at_rates_of(plan, _plan_of(further, _job_again(plan, facts, asked, gpu)))


def _job_again(plan: Plan, facts: BaseFacts, asked: TrainSettings, gpu: Gpu | None) -> Job:
    """What a later plan of the same run is made for; its means are named, none is looked for."""
    return Job(facts, asked, resolution=plan.resolution, gpu=gpu, has_8bit=False, name=plan.name)


def at_rates_of(plan: Plan, further: Plan) -> Plan:
    """A later plan of the same run, with the learning rates that it has by now, and the same end of the text encoder's."""
    return replace(
        further,
        learning_rate=plan.learning_rate,
        text_encoder_learning_rate=plan.text_encoder_learning_rate,
        text_encoder_stop=plan.text_encoder_stop,
    )


def inference_precision(gpu: Gpu | None) -> tuple[Device, Precision]:
    """The device and the number format to draw pictures with."""
    return _device(gpu), _auto_precision(gpu)


def lora_parameters(facts: BaseFacts, rank: int) -> tuple[int, int]:
    """The values that a LoRA of this rank adds to the denoiser and to the text encoders together.

    Exact for the catalogue's bases; for any other an estimate: a network's attention grows like the root of its size.
    """
    figures = facts.family.figures
    added = figures.lora.get(facts.denoiser) or figures.lora[figures.denoiser] * sqrt(facts.denoiser / figures.denoiser)
    text = sum(figures.lora_text.get(count) or _text_lora(figures.lora_text, count) for count in facts.text_encoders)
    return round(added * rank / 16), round(text * rank / 16)


def _text_lora(counted: Mapping[int, int], parameters: int) -> float:
    """By the first text encoder that was counted; 0 for a family whose text encoders are never trained."""
    nearest, values = next(iter(counted.items()), (1, 0))
    return values * sqrt(parameters / nearest)


def is_counted(facts: BaseFacts) -> bool:
    """Whether a base's networks are the catalogue's, whose activations were counted; for others they are estimates."""
    figures = facts.family.figures
    return facts.denoiser in figures.lora and (not figures.lora_text or all(count in figures.lora_text for count in facts.text_encoders))


def _check_optimizer(job: Job) -> None:
    if job.asked.optimizer != "adamw8bit":
        return
    if not job.has_8bit:
        raise UsageError("--optimizer adamw8bit needs bitsandbytes", f"install it: {INSTALL_8BIT}")
    if job.gpu is not None and job.gpu.kind == "mps":
        raise UsageError("--optimizer adamw8bit does not run on an Apple GPU", "drop it, or use --optimizer adamw")


def _check_family(family: Family, asked: TrainSettings) -> None:
    """Raises UsageError where a family is asked for what is not done with it."""
    if asked.method not in (AUTO, *family.methods):
        raise UsageError(f"--method {asked.method} is not for {family.title}", f"use --method {family.methods[0]}, or leave it out")
    if asked.train_text_encoder is True and not family.may_train_text:
        raise UsageError(f"the text encoder of {family.title} is never trained", "leave out --train-text-encoder")
    if asked.snr_gamma and family.noise == "flow":
        raise UsageError(f"--snr-gamma weighs the timesteps of diffusion, and {family.title} is trained by flow matching", "leave it out")


def _best_plan(job: Job) -> Plan:
    """The first that fits with a little to spare, or the one that lacks least. A means that would not help is passed over."""
    room, machine = _room(job.gpu)
    plans = []

    def lacking(plan: Plan) -> float:
        return max(0, plan.needed - room) + max(0, plan.ram_needed - machine)

    for choice in _choices(job):
        plan = _plan_of(choice, job)
        for means in _ladder(choice, job):
            if not lacking(plan):
                return plan
            if "off_card" in means and not _machine_holds_state(plan, job.gpu):
                continue
            further = replace(choice, **means)
            lower = _plan_of(further, job)
            if lacking(lower) < lacking(plan):
                choice, plan = further, lower
        if not lacking(plan):
            return plan
        plans.append(plan)
    return min(plans, key=lacking)


def _room(gpu: Gpu | None) -> tuple[float, float]:
    """Bytes of the card and of the machine's memory that a plan is chosen for. Without a GPU, those of the machine that are free."""
    if gpu is None:
        return inf, min(machine_memory(), free_memory() + resident_memory())
    return ROOM * gpu.free, _machine(gpu)


def _machine(gpu: Gpu | None) -> float:
    """Bytes of the machine's memory in all; no bound where a card alone is asked about."""
    return inf if gpu is not None and gpu.alone else machine_memory()


def _machine_holds_state(plan: Plan, gpu: Gpu | None) -> bool:
    """Whether the optimizer state, on the card until now, would fit in what is free of the machine's memory."""
    if gpu is not None and gpu.alone:
        return True
    return PINNED * plan.ledger["optimizer state"] <= free_memory()


def _choices(job: Job) -> Iterator[Choice]:
    """What is trained, the best first, without any means that was not asked for."""
    asked, family = job.asked, job.facts.family
    methods: Sequence[Method] = family.methods if asked.method == AUTO else [asked.method]
    text_encoder = [bool(asked.train_text_encoder)]
    if asked.train_text_encoder == AUTO:
        text_encoder = [True, False] if family.may_train_text and family.rates.trains_text else [False]
    for method in methods:
        for with_text in text_encoder:
            yield Choice(
                method=method,
                train_text_encoder=with_text,
                gradient_checkpointing=asked.gradient_checkpointing is True,
                optimizer="adamw" if asked.optimizer == AUTO else asked.optimizer,
                precision=_training_precision(job.gpu, job.resolution) if asked.precision == AUTO else asked.precision,
            )


def _ladder(choice: Choice, job: Job) -> Iterator[dict[str, Any]]:
    """The means that may be taken, in their order: first what costs time, then what costs exactness.

    A step inside backward clips nothing, adds nothing up and scales nothing, so it is not for runs that were asked to.
    """
    asked, gpu, full = job.asked, job.gpu, choice.method == "full"
    card = gpu is not None and gpu.kind != "mps"
    half = full and card and choice.precision == "bf16"
    alone = asked.gradient_accumulation == 1 and asked.max_grad_norm == default_of(TrainSettings, "max_grad_norm")
    if asked.gradient_checkpointing == AUTO:
        yield {"gradient_checkpointing": True}
    if gpu is not None and asked.with_prior:
        yield {"rows_in_turn": True}
    # a LoRA's own weights and state are too small for these to gain anything
    if full and card and job.has_8bit and asked.optimizer == AUTO:
        yield {"optimizer": "adamw8bit"}
    if half:
        yield {"weights": "bf16"}
    if half and alone:
        yield {"inside_backward": True, "rows_in_turn": False}
    if full and card and not (gpu is not None and gpu.shared):
        yield {"off_card": True}
    if not full and card and job.has_8bit:
        yield {"quantized": True}


def _plan_of(choice: Choice, job: Job) -> Plan:
    asked, rates = job.asked, job.facts.family.rates
    ledger, class_images = count_bytes(choice, job)
    ram = count_ram(choice, job, ledger, in_parts=class_images.in_parts)
    needed = max(value for group, value in ledger.items() if group.startswith(PEAK))
    needed += ledger.get("context", 0) + ledger.get("allocator slack", 0)
    rate = _rate(choice, rates) if asked.learning_rate == AUTO else asked.learning_rate
    text_rate, stop = asked.text_encoder_learning_rate, asked.text_encoder_stop
    free = None if job.gpu is None else job.gpu.free
    plan = Plan(
        **asdict(replace(choice, class_images_in_parts=class_images.in_parts)),
        resolution=job.resolution,
        batch_size=asked.batch_size,
        learning_rate=rate,
        text_encoder_learning_rate=rate * rates.text_share if text_rate == AUTO else text_rate,
        text_encoder_stop=_text_stop(choice, rates, asked.steps) if stop == AUTO else stop,
        alpha=float(asked.rank if asked.alpha == AUTO else asked.alpha),
        class_image_batch=class_images.batch,
        device=_device(job.gpu),
        means=_means(choice),
        ledger=ledger,
        needed=needed,
        free=free,
        fits=(free is None or needed <= free) and max(ram.values()) <= _machine(job.gpu),
        why="",
        name=job.name,
        disk=count_disk(choice, job),
        ram=ram,
    )
    return replace(plan, why=_why(plan, job.facts))


def _rate(choice: Choice, rates: Rates) -> float:
    if choice.method == "lora":
        return rates.lora
    return rates.full_with_text if choice.train_text_encoder else rates.full


def _text_stop(choice: Choice, rates: Rates, steps: int) -> int:
    """The step after which the text encoder stays as it is; 0: never."""
    return round(rates.text_stop * steps) if choice.method == "full" and choice.train_text_encoder else 0


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
            "encoding": base - vae,
            "step": off_card,
            "checkpoint": off_card + largest,
            "saving": brought + largest,
        }
        if asked.sample_every:
            moments["preview"] = off_card + stored + (facts.vae + sum(frozen)) * FP32
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
        added, text_lora = lora_parameters(facts, asked.rank)
        trained = model = added + (text_lora if text else 0)
    state = ADAMW_STATE if choice.optimizer == "adamw" else ADAMW_8BIT_STATE
    a_value = (HALF if choice.weights == "bf16" else FP32) + state + (FP32 if asked.ema else 0)
    by_clock = asked.checkpoint_every and asked.checkpoint_minutes  # where steps are slow, perhaps after each
    saves = asked.steps if by_clock else -(-asked.steps // (asked.checkpoint_every or asked.steps))
    return {
        "checkpoints": round(trained * a_value) * min(saves, asked.keep_checkpoints + 1),
        "model": model * (FP32 if asked.save_dtype == "fp32" else HALF),
        "class images": asked.class_images * 3 * job.resolution**2 if asked.with_prior else 0,
    }


def _step_groups(choice: Choice, job: Job) -> dict[str, int]:
    facts, asked = job.facts, job.asked
    text = sum(facts.text_encoders) if choice.train_text_encoder else 0
    kinds = 2 if asked.with_prior and not choice.rows_in_turn else 1
    if choice.method == "full":
        trained, of_text, frozen = facts.denoiser + text, text, 0
    else:
        added, text_lora = lora_parameters(facts, asked.rank)
        of_text, frozen = text_lora if text else 0, facts.denoiser + text
        trained = added + of_text
    size = HALF if choice.weights == "bf16" else FP32
    copied = works_on_copies(choice, asked.gradient_accumulation)
    in_pieces = copied and not _gradients_at_once(choice, asked.gradient_accumulation)
    state = ADAMW_STATE if choice.optimizer == "adamw" else ADAMW_8BIT_STATE
    gradient = HALF if in_pieces else size
    largest = min(trained, facts.family.figures.largest_with_text if text else facts.family.figures.largest)
    activations = _activations(choice, facts, job.resolution)
    # The text encoders read a prompt for each kind of rows, not every row.
    text_activations = (TEXT_CHECKPOINTED if choice.gradient_checkpointing else TEXT_ACTIVATIONS) * text * kinds
    return {
        "weights": trained * size + (_base_bytes(choice, facts, with_text=bool(text)) if frozen else 0),
        "gradients": (largest if choice.inside_backward else trained) * gradient,
        "optimizer state": 0 if choice.off_card else round(trained * state),
        "EMA": trained * FP32 if asked.ema else 0,
        "half-precision copies": trained * HALF if choice.precision != "fp32" and size == FP32 else 0,
        "activations": round(activations.forward * asked.batch_size * kinds * 1e9 + text_activations),
        "late": round((trained - of_text) * gradient + activations.late * asked.batch_size * kinds * 1e9 + text_activations),
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


def _activations(choice: Choice, facts: BaseFacts, resolution: int) -> Activations:
    """Of one row. A denoiser that is not the catalogue's: its width, hence its activations, go like the root of its size."""
    half, single = facts.family.figures.activations[choice.method, choice.gradient_checkpointing]
    figure = single if choice.precision == "fp32" else half
    scale = (resolution / facts.family.figures.side) ** 2 * _width(facts)
    if choice.method == "lora":
        scale *= facts.family.figures.beside_lora.get((facts.denoiser, choice.gradient_checkpointing), 1.0)
    return Activations(figure.forward * scale, figure.late * scale)


def _width(facts: BaseFacts) -> float:
    figures = facts.family.figures
    return 1.0 if facts.denoiser in figures.lora else sqrt(facts.denoiser / figures.denoiser)


def _other_peaks(choice: Choice, job: Job, *, kept: int) -> dict[str, int]:
    """Peaks outside the step. `kept`: what stays beside a preview or a save; its gradients are gone by then. A card holds the VAE
    alone while pictures are encoded; the machine's memory holds the whole base."""
    facts, resolution = job.facts, job.resolution
    base = facts.vae * FP32 + (0 if job.gpu else _base_bytes(choice, facts, with_text=True))
    peaks = {
        "peak: encoding": base + round(_picture(VAE_ENCODE, facts, resolution)),
        "peak: saving": kept + LARGEST_TENSOR if _width(facts) == 1 else kept,
    }
    if job.asked.sample_every:
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
        facts.vae * FP32 + _picture(VAE_DECODE, facts, resolution),
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
    value = in_4_bits if choice.quantized else size
    return round(facts.denoiser * value + (sum(facts.text_encoders) * size if with_text else 0))


def _drawing(facts: BaseFacts, resolution: int, *, pictures: int) -> int:
    """Drawing pictures as one batch: the denoiser's rows with and without the prompt, then decoding one after the other."""
    return round(max(2 * pictures * _row(facts, resolution), _picture(VAE_DECODE, facts, resolution)))


def _row(facts: BaseFacts, resolution: int) -> float:
    """One row of the denoiser without gradients."""
    pixels = (resolution / facts.family.figures.side) ** 2
    return facts.family.figures.drawing * pixels * _width(facts) * 1e9


def _picture(figure: float, facts: BaseFacts, resolution: int) -> float:
    return figure * 1e9 * (resolution / 512) ** 2 * min(1.0, sqrt(facts.vae / VAE_PARAMETERS))


def _value_bytes(precision: Precision) -> int:
    return FP32 if precision == "fp32" else HALF


def _device(gpu: Gpu | None) -> Device:
    if gpu is None:
        return "cpu"
    return "mps" if gpu.kind == "mps" else "cuda"  # ROCm's torch says cuda too


def _training_precision(gpu: Gpu | None, resolution: int) -> Precision:
    if gpu is None and resolution >= CPU_BF16_RESOLUTION and multiplies_bf16():
        return "bf16"
    return _auto_precision(gpu)


def _auto_precision(gpu: Gpu | None) -> Precision:
    if gpu is None or gpu.kind == "mps" or NAN_IN_FP16 in gpu.name:
        return "fp32"
    return "fp16" if gpu.capability is not None and gpu.capability < BF16_CAPABILITY else "bf16"


def _means(choice: Choice) -> tuple[str, ...]:
    """The means in words; those that change the arithmetic say how."""
    words = {
        EIGHT_BIT_ADAM: choice.optimizer == "adamw8bit",
        "gradient checkpointing": choice.gradient_checkpointing,
        "rows in turn": choice.rows_in_turn,
        "bf16 weights rounded stochastically": choice.weights == "bf16",
        "steps inside backward (no clipping)": choice.inside_backward,
        "optimizer state off the card": choice.off_card,
        FOUR_BIT_BASE: choice.quantized,
    }
    return tuple(word for word, is_taken in words.items() if is_taken)


def _why(plan: Plan, facts: BaseFacts) -> str:
    if plan.free is not None:
        return _takes(plan, facts)
    words, about = _words(plan, encoders=len(facts.text_encoders)), "" if is_counted(facts) else "about "
    return f"no GPU: {words}, on the CPU; needs {about}{_gb(plan.ram_needed)} GB of the machine's memory"


def _takes(plan: Plan, facts: BaseFacts) -> str:
    """What a plan needs, and of what: `needs 11.1 of 12.0 GB free: full fine-tuning...`."""
    words, about = _words(plan, encoders=len(facts.text_encoders)), "" if is_counted(facts) else "about "
    if plan.free is None:
        return f"needs {about}{_gb(plan.ram_needed)} GB of the machine's memory: {words}"
    if plan.needed > plan.free:
        return f"needs {about}{_gb(plan.needed)} GB, more than the {_gb(plan.free)} GB free: {words}"
    short = "" if plan.fits else f"; and {about}{_gb(plan.ram_needed)} GB of the machine's memory, more than it has"
    return f"needs {about}{_gb(plan.needed)} of {_gb(plan.free)} GB free: {words}{short}"


def _words(plan: Plan, *, encoders: int = 1) -> str:
    method = "full fine-tuning" if plan.method == "full" else "LoRA"
    text = f" with the text encoder{'s' if encoders > 1 else ''}" if plan.train_text_encoder else ""
    return ", ".join([method + text, plan.precision, *plan.means])


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}"


def _find_remedy(job: Job) -> str:
    """The nearest thing that would fit: the 8-bit extra, a flag to drop, more of the card, a smaller size, another base."""
    facts, asked, gpu = job.facts, job.asked, job.gpu
    flags = _stated_flags(asked)
    if not job.has_8bit and gpu is not None and gpu.kind != "mps" and (plan := _best_plan(replace(job, has_8bit=True))).fits:
        # all that was asked for stays as it is
        return f"install the 8bit extra ({INSTALL_8BIT}): it then {_takes(plan, facts)}"
    for dropped in [[setting] for setting in flags] + ([list(flags)] if len(flags) > 1 else []):
        if (plan := _best_plan(replace(job, asked=_without(asked, dropped)))).fits:
            return f"drop {' and '.join(flags[setting] for setting in dropped)}: it then {_takes(plan, facts)}"
    most = round(gpu.total * (1 - TAKEN)) if gpu is not None else 0
    if gpu is not None and gpu.free < most and (plan := _best_plan(replace(job, gpu=replace(gpu, free=most)))).fits:
        return (
            f"close other programs that use the GPU, {_gb(gpu.total - gpu.free)} GB of it are taken: it then {plan.why}"
        )
    relaxed = _without(asked, list(flags))
    for side in range(job.resolution - 64, facts.resolution // 2 - 1, -64):
        if (plan := _best_plan(replace(job, asked=relaxed, resolution=side))).fits:
            also = f"drop {' and '.join(flags.values())} and " if flags else ""
            return f"{also}use --resolution {side}: it then {_takes(plan, facts)}"
    return _smaller_base(job)


def _smaller_base(job: Job) -> str:
    for entry in CATALOG:
        if entry.facts.denoiser < job.facts.denoiser and entry.repository:
            plan = _best_plan(job_of(entry, job.gpu, has_8bit=job.has_8bit))
            if plan.fits:
                return f"use --model {entry.name}: it {_takes(plan, entry.facts)}"
    where = "machine" if job.gpu is None else "GPU"
    return f"no base model of the catalogue fits this {where}; see `dreambooth models`"


def _stated_flags(asked: TrainSettings) -> dict[str, str]:
    """The settings that size a run and were not left at their default: name -> as it is spelled on the command line."""
    stated = {item.name: getattr(asked, item.name) for item in fields(asked) if item.metadata["sizes"]}
    return {name: _spelled(name, value) for name, value in stated.items() if value != default_of(TrainSettings, name)}


def _spelled(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag_of(name) if value else flag_of(name).replace("--", "--no-", 1)
    return f"{flag_of(name)} {value}"


def _without(asked: TrainSettings, names: list[str]) -> TrainSettings:
    return replace(asked, **{name: default_of(TrainSettings, name) for name in names})
