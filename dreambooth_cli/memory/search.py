"""The search for a plan: the best one that fits, the next one down after memory ran out, or what would make one fit."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from math import inf
from typing import Any

from ..bases.catalog import CATALOG, BaseFacts
from ..errors import DoesNotFit, ModelUnavailable, UsageError
from ..families.family import Family, Rates
from ..gpu import TAKEN, Gpu, multiplies_bf16
from ..machine import free_memory, machine_memory, resident_memory
from ..settings import AUTO, TrainSettings, default_of, flag_of
from .ledger import PEAK, PINNED, STEP, count_bytes, count_disk, count_ram, takes_turns
from .plan import INSTALL_8BIT, Choice, Device, Job, Method, Plan, Precision, job_of
from .words import gb, means_of, needs_of, why_of, words_of

BF16_CAPABILITY = (8, 0)  # from this compute capability (Ampere) on, NVIDIA's cards compute in bf16
NAN_IN_FP16 = "GTX 16"  # with Stable Diffusion, fp16 convolutions on these cards give NaN, as many of their owners report
# On a CPU that multiplies bf16, it pays only with large pictures: 0.5 to 0.8 times the steps a second at 64 and 128 px, 1.0 to 1.8 at 256.
CPU_BF16_RESOLUTION = 256
ROOM = 0.95  # of a card's free memory that a plan counts on: other programs there take a little more or less as time goes by


def make_plan(job: Job) -> Plan:
    """The best plan that fits the GPU's free memory and the machine, or the one that misses by least (`fits` False). What the user stated
    is never changed.

    Without a GPU the plan is for the CPU: the best that fits the machine's free memory, else the smallest. Whether that fits is decided
    by the machine's total memory, since what is free comes and goes. Raises UsageError for a setting that does not work here or with this
    family, ModelUnavailable for a distilled base.
    """
    _check_optimizer(job)
    check_trainable(job.facts, job.asked)
    plan = _best_plan(job)
    return plan if plan.fits else replace(plan, remedy=_find_remedy(job))


def check_fits(plan: Plan, asked: TrainSettings) -> None:
    """Before any work: raise DoesNotFit if a plan does not fit, naming what would fit or which flag to drop."""
    if plan.fits:
        return
    flags = " ".join(_stated_flags(asked).values())
    what = f"{words_of(plan)}{f' (asked: {flags})' if flags else ''}"
    again = "run the same command with --replan, to go on under a new plan"
    if plan.free is not None and plan.needed > plan.free:
        raise DoesNotFit(
            f"{plan.name} does not fit in the GPU's memory: {what} needs {gb(plan.needed)} GB, but only {gb(plan.free)} GB are free",
            plan.remedy or f"close other programs that use the GPU, or {again}",
        )
    raise DoesNotFit(
        f"{plan.name} does not fit in this machine's memory: {what} needs {gb(plan.ram_needed)} GB of it, but there are "
        f"only {gb(machine_memory())} GB in all",
        plan.remedy or again,
    )


def step_down(
    plan: Plan, facts: BaseFacts, asked: TrainSettings, *, gpu: Gpu | None, drawing_class_images: bool = False
) -> Plan | None:
    """After memory ran out: the plan with one means more. Only means that leave the saved state's form as it is are tried, and only if
    by the ledger a step then needs less, at its peak or in activations (which have evidently taken more than was counted). None if there
    is none. If memory ran out while class images were drawn, they are drawn one at a time by networks in turn; nothing else helps."""
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
    """The bytes at the peak of a step, and those of its activations."""
    return plan.ledger[STEP], plan.ledger["activations"]


def calm_down(plan: Plan, facts: BaseFacts, asked: TrainSettings, *, gpu: Gpu | None) -> Plan:
    """The plan to go on with after numbers that were not finite: bf16 or fp32 instead of fp16, whose range is too small; otherwise half
    the learning rate."""
    if plan.precision != "fp16":
        text_rate = plan.text_encoder_learning_rate / 2
        return replace(plan, learning_rate=plan.learning_rate / 2, text_encoder_learning_rate=text_rate)
    wider: Precision = "bf16" if _auto_precision(gpu, facts.family) == "bf16" else "fp32"
    further = replace(plan.choice, precision=wider)
    return at_rates_of(plan, _plan_of(further, _job_again(plan, facts, asked, gpu)))


def _job_again(plan: Plan, facts: BaseFacts, asked: TrainSettings, gpu: Gpu | None) -> Job:
    """The job for a later plan of the same run. Its means are given, so that whether bitsandbytes is installed does not matter."""
    if asked.sample_every == AUTO:
        asked = replace(asked, sample_every=int(plan.samples_on_the_way))
    return Job(facts, asked, resolution=plan.resolution, gpu=gpu, has_8bit=False, name=plan.name, largest=plan.largest)


def at_rates_of(plan: Plan, further: Plan) -> Plan:
    """A later plan of the same run, but with the learning rates and the end of the text encoder's training of the plan so far."""
    return replace(
        further,
        learning_rate=plan.learning_rate,
        text_encoder_learning_rate=plan.text_encoder_learning_rate,
        text_encoder_stop=plan.text_encoder_stop,
    )


def inference_precision(gpu: Gpu | None, family: Family) -> tuple[Device, Precision]:
    """The device and the number format for drawing pictures with a family."""
    return device_of(gpu), _auto_precision(gpu, family)


def _check_optimizer(job: Job) -> None:
    if job.asked.optimizer != "adamw8bit":
        return
    if not job.has_8bit:
        raise UsageError("--optimizer adamw8bit needs bitsandbytes", f"install it: {INSTALL_8BIT}")
    if job.gpu is not None and job.gpu.kind == "mps":
        raise UsageError("--optimizer adamw8bit does not run on an Apple GPU", "drop it, or use --optimizer adamw")


def check_trainable(facts: BaseFacts, asked: TrainSettings) -> None:
    """Before any work: raise UsageError for a setting that does not work with a base's family, ModelUnavailable for a distilled base
    unless it is allowed."""
    check_family(facts.family, asked)
    if facts.distilled and not asked.allow_distilled:
        raise ModelUnavailable(
            f"this {facts.family.title} is distilled to draw in a few steps, which training undoes",
            f"train the base that it was made from: --model {facts.family.name}; or train it all the same: --allow-distilled",
        )


def check_family(family: Family, asked: TrainSettings) -> None:
    """Raise UsageError for a setting that does not work with a family."""
    if asked.method not in (AUTO, *family.methods):
        told = f"--method {asked.method} does not work with {family.title}: only a LoRA on its {family.denoiser_title} is trained"
        raise UsageError(told, f"use --method {family.methods[0]}, or leave it out")
    if asked.train_text_encoder is True and not family.may_train_text:
        told = f"the text encoder of {family.title} is never trained: it reads the prompts once, before training, and is then freed"
        raise UsageError(told, "leave out --train-text-encoder")
    if asked.method == "full" and asked.with_base_prior:
        told = "--prior base compares a LoRA with the base beneath it, but --method full changes the base itself"
        raise UsageError(told, "use --prior class-images")
    if asked.precision == "fp16" and not family.fits_fp16:
        raise UsageError(f"--precision fp16 has too small a range for {family.title}", "use --precision bf16 or fp32, or leave it out")
    if asked.snr_gamma and family.noise == "flow":
        raise UsageError(f"--snr-gamma weighs the timesteps of diffusion, but {family.title} is trained by flow matching", "leave it out")


def _best_plan(job: Job) -> Plan:
    """The best plan. Samples that nobody asked for are included if they fit without changing anything else; otherwise they wait for the
    end of the run."""
    if job.asked.sample_every != AUTO:
        return _best_of_ladder(job)
    plan = _best_of_ladder(_with_samples(job, 0))
    sampled = _plan_of(replace(plan.choice, class_images_in_parts=False), _with_samples(job, 1))
    return sampled if _lacking(plan, job.gpu) == _lacking(sampled, job.gpu) == 0 else plan


def _with_samples(job: Job, every: int) -> Job:
    return replace(job, asked=replace(job.asked, sample_every=every))


def _lacking(plan: Plan, gpu: Gpu | None) -> float:
    """How many bytes of the card's and the machine's memory a plan lacks; 0 if it fits."""
    room, machine = _room(gpu)
    return max(0, plan.needed - room) + max(0, plan.ram_needed - machine)


def _best_of_ladder(job: Job) -> Plan:
    """The first plan that fits with a little to spare, or the one that lacks least. A means that would not help is skipped."""
    plans = []

    def lacking(plan: Plan) -> float:
        return _lacking(plan, job.gpu)

    for choice in _choices(job):
        plan, before = _plan_of(choice, job), None
        while before != choice:  # a means that did not help may do so after a later one: another moment is the highest then
            before = choice
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
    """Bytes of the card's and of the machine's memory that a plan may use: without a GPU, what is free of the machine's."""
    if gpu is None:
        return inf, min(machine_memory(), free_memory() + resident_memory())
    return ROOM * gpu.free, _machine(gpu)


def _machine(gpu: Gpu | None) -> float:
    """The machine's total memory in bytes; unlimited if the question is only about a card."""
    return inf if gpu is not None and gpu.alone else machine_memory()


def _machine_holds_state(plan: Plan, gpu: Gpu | None) -> bool:
    """Whether the optimizer state, which is on the card so far, would fit into the machine's free memory."""
    if gpu is not None and gpu.alone:
        return True
    return PINNED * plan.ledger.get("optimizer state", 0) <= free_memory()


def _choices(job: Job) -> Iterator[Choice]:
    """What may be trained, the best first, with no means but those that were asked for."""
    asked, family = job.asked, job.facts.family
    possible: Sequence[Method] = ("lora",) if asked.with_base_prior else family.methods
    methods = possible if asked.method == AUTO else [asked.method]
    text_encoder = [bool(asked.train_text_encoder)]
    if asked.train_text_encoder == AUTO:
        text_encoder = [True, False] if family.may_train_text and family.rates.trains_text else [False]
    for method in methods:
        for with_text in text_encoder:
            yield Choice(
                method=method,
                train_text_encoder=with_text,
                gradient_checkpointing=asked.gradient_checkpointing is True,
                rows_in_turn=job.largest > 0,  # pictures of several sizes take several passes, whose gradients add up
                optimizer="adamw" if asked.optimizer == AUTO else asked.optimizer,
                precision=_training_precision(job.gpu, job.resolution, family) if asked.precision == AUTO else asked.precision,
            )


def _ladder(choice: Choice, job: Job) -> Iterator[dict[str, Any]]:
    """The means that may be taken, in order: first those that cost time, then those that cost exactness.

    A step inside backward can't clip gradients or add them up, so it is not for runs that were asked to.
    """
    asked, gpu, full = job.asked, job.gpu, choice.method == "full"
    card = gpu is not None and gpu.kind != "mps"
    half = full and card and choice.precision == "bf16"
    alone = asked.gradient_accumulation == 1 and asked.max_grad_norm == default_of(TrainSettings, "max_grad_norm")
    if asked.gradient_checkpointing == AUTO:
        yield {"gradient_checkpointing": True}
    if gpu is not None and asked.with_prior and not job.largest and not choice.inside_backward:
        yield {"rows_in_turn": True}
    # for a LoRA these would gain nothing: its own weights and state are small
    if full and card and job.has_8bit and asked.optimizer == AUTO:
        yield {"optimizer": "adamw8bit"}
    if half:
        yield {"weights": "bf16"}
    if half and alone and not job.largest:
        yield {"inside_backward": True, "rows_in_turn": False}
    if full and card and not (gpu is not None and gpu.shared):
        yield {"off_card": True}
    # a layer's 16-bit copy of its weights lives as long as its part of the graph: without checkpointing all of them would be kept
    if not full and card and job.facts.family.figures.fp8 and asked.gradient_checkpointing is not False:
        yield {"fp8": True, "gradient_checkpointing": True}
    if not full and card and job.has_8bit:
        yield {"quantized": True, "fp8": False}
    if card and not choice.train_text_encoder and takes_turns(job.facts):
        yield {"text_off_card": True}


def _plan_of(choice: Choice, job: Job) -> Plan:
    asked, rates = job.asked, job.facts.family.rates
    ledger, class_images = count_bytes(choice, job)
    ram = count_ram(choice, job, ledger, in_parts=class_images.in_parts)
    needed = max(value for group, value in ledger.items() if group.startswith(PEAK))
    needed += ledger.get("context", 0) + ledger.get("allocator slack", 0)
    rate = _rate(choice, rates) if asked.learning_rate == AUTO else asked.learning_rate
    text_rate, stop, rank = asked.text_encoder_learning_rate, asked.text_encoder_stop, asked.rank_for(job.facts.family)
    free = None if job.gpu is None else job.gpu.free
    plan = Plan(
        **asdict(replace(choice, class_images_in_parts=class_images.in_parts)),
        resolution=job.resolution,
        largest=job.largest,
        batch_size=asked.batch_size,
        learning_rate=rate,
        text_encoder_learning_rate=rate * rates.text_share if text_rate == AUTO else text_rate,
        text_encoder_stop=_text_stop(choice, rates, asked.steps) if stop == AUTO else stop,
        rank=rank,
        alpha=float(rank if asked.alpha == AUTO else asked.alpha),
        class_image_batch=class_images.batch,
        device=device_of(job.gpu),
        means=means_of(choice),
        ledger=ledger,
        needed=needed,
        free=free,
        fits=(free is None or needed <= free) and max(ram.values()) <= _machine(job.gpu),
        why="",
        name=job.name,
        disk=count_disk(choice, job),
        ram=ram,
    )
    return replace(plan, why=why_of(plan, job.facts))


def _rate(choice: Choice, rates: Rates) -> float:
    if choice.method == "lora":
        return rates.lora
    return rates.full_with_text if choice.train_text_encoder else rates.full


def _text_stop(choice: Choice, rates: Rates, steps: int) -> int:
    """The step after which the text encoder is no longer trained; 0: never."""
    return round(rates.text_stop * steps) if choice.method == "full" and choice.train_text_encoder else 0


def device_of(gpu: Gpu | None) -> Device:
    """The name of torch's device for a GPU; the CPU if there is none."""
    if gpu is None:
        return "cpu"
    return "mps" if gpu.kind == "mps" else "cuda"  # ROCm's torch says cuda too


def _training_precision(gpu: Gpu | None, resolution: int, family: Family) -> Precision:
    if gpu is None and resolution >= CPU_BF16_RESOLUTION and multiplies_bf16():
        return "bf16"
    return _auto_precision(gpu, family)


def _auto_precision(gpu: Gpu | None, family: Family) -> Precision:
    if gpu is None or gpu.kind == "mps" or NAN_IN_FP16 in gpu.name:
        return "fp32"
    if gpu.capability is None or gpu.capability >= BF16_CAPABILITY:
        return "bf16"
    return "fp16" if family.fits_fp16 else "fp32"


def _find_remedy(job: Job) -> str:
    """The least change that would make a plan fit: the 8-bit extra, dropping a flag, freeing the card, a smaller size, another base."""
    facts, asked, gpu = job.facts, job.asked, job.gpu
    flags = _stated_flags(asked)
    if not job.has_8bit and gpu is not None and gpu.kind != "mps" and (plan := _best_plan(replace(job, has_8bit=True))).fits:
        # first, since everything that was asked for stays as it is
        return f"install the 8bit extra ({INSTALL_8BIT}): it then {needs_of(plan, facts)}"
    for dropped in [[setting] for setting in flags] + ([list(flags)] if len(flags) > 1 else []):
        if (plan := _best_plan(replace(job, asked=_without(asked, dropped)))).fits:
            return f"drop {' and '.join(flags[setting] for setting in dropped)}: it then {needs_of(plan, facts)}"
    most = round(gpu.total * (1 - TAKEN)) if gpu is not None else 0
    if gpu is not None and gpu.free < most and (plan := _best_plan(replace(job, gpu=replace(gpu, free=most)))).fits:
        return (
            f"close other programs that use the GPU ({gb(gpu.total - gpu.free)} GB of it are taken): it then {plan.why}"
        )
    relaxed = _without(asked, list(flags))
    for side in range(job.resolution - 64, facts.resolution // 2 - 1, -64):
        smaller = replace(job, asked=relaxed, resolution=side, largest=round(job.largest * (side / job.resolution) ** 2))
        if (plan := _best_plan(smaller)).fits:
            also = f"drop {' and '.join(flags.values())} and " if flags else ""
            return f"{also}use --resolution {side}: it then {needs_of(plan, facts)}"
    return _smaller_base(job)


def _smaller_base(job: Job) -> str:
    for entry in CATALOG:
        if entry.facts.denoiser < job.facts.denoiser and entry.repository:
            plan = _best_plan(job_of(entry, job.gpu, has_8bit=job.has_8bit))
            if plan.fits:
                return f"use --model {entry.name}: it {needs_of(plan, entry.facts)}"
    where = "machine" if job.gpu is None else "GPU"
    return f"no base model in the catalogue fits this {where}; see `dreambooth models`"


def _stated_flags(asked: TrainSettings) -> dict[str, str]:
    """The settings that decide a run's memory and are not at their default: name -> how the command line spells it."""
    stated = {item.name: getattr(asked, item.name) for item in fields(asked) if item.metadata["sizes"]}
    return {name: _spelled(name, value) for name, value in stated.items() if value != default_of(TrainSettings, name)}


def _spelled(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag_of(name) if value else flag_of(name).replace("--", "--no-", 1)
    return f"{flag_of(name)} {value}"


def _without(asked: TrainSettings, names: list[str]) -> TrainSettings:
    return replace(asked, **{name: default_of(TrainSettings, name) for name in names})
