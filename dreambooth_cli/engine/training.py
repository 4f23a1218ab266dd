"""The loop, and the one thing here that has a life: `Training`.

Traps of a generator loop, each measured: never `yield` inside `no_grad`, `autocast` or `accumulate`, the mode leaks into
the caller; close the generator explicitly (`contextlib.closing`).
"""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from diffusers import ModelMixin
from PIL import Image
from torch import Tensor, nn

from ..errors import TrainingFailed
from ..machine import give_back, resident_memory
from ..memory import CONTEXT, Plan, works_on_copies
from ..settings import TrainSettings
from .adamw import round_stochastically
from .checkpoint import ForeignCheckpoint, State
from .draws import Draw, seed_of
from .effect import Answer, loss_at_fixed_noises, sketch
from .ema import Average
from .examples import Examples, draw_row
from .families.latent_diffusion import Conditioning, LatentDiffusion, autocast, denoiser_of, encode_frozen
from .loading import DTYPES, text_encoders_of
from .lora import add_lora
from .objective import dreambooth_loss
from .optimizers import Update, rates_of
from .sampling import Drawing, draw
from .tensor_file import shapes_of
from .working_copies import WorkingCopies, widen_norms

MOST_SKIPPED = 20  # steps in a row whose gradients are not finite; fewer are the fp16 scaler's normal work


class NotFinite(TrainingFailed):
    """A loss, gradients or weights that are not finite: to go on otherwise from the last good checkpoint may help."""


@dataclass(frozen=True)
class Step:
    """One optimizer step, counted from 1. `loss` is the mean over its batches (on a GPU that of the step before, but for the first
    and the last); `seconds` its wall time."""

    number: int
    loss: float
    learning_rate: float
    seconds: float


class Reading:
    """Numbers on their way from the device. Read later, they don't wait for work that was sent after them: the copy is sent at once,
    right behind what it copies."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.arrived = values, None
        if values.device.type == "cuda":
            self.values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def wait(self) -> list[float]:
        """The numbers, when they are there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.values.tolist()


class Training:
    """A run under way: the networks, the optimizer, the step number."""

    def __init__(
        self,
        family: LatentDiffusion,
        plan: Plan,
        settings: TrainSettings,
        *,
        device: torch.device,
        instance: Examples,
        prior: Examples | None,
        prompts: list[str],
        conditioning: Conditioning | None,
    ) -> None:
        """`prompts` are the instance prompt and, with a prior, the class prompt; `conditioning` holds their embeddings, a row
        each, or is None where the text encoder is trained and they change with every step."""
        self.family, self.plan, self.settings = family, plan, settings
        self.examples = {"instance": instance} if prior is None else {"instance": instance, "class": prior}
        self.kinds = tuple(self.examples)
        self.prompts, self.conditioning = prompts, conditioning
        self.device = device
        self.reads_late = self.device.type == "cuda"
        self.unread: list[tuple[int, Reading]] = []  # steps and their losses
        self.last_read: float | None = None
        self.step = 0
        denoiser, text = make_trainable(family, plan, settings)
        self.text_parameters = list(text.values())
        self.trained = {**denoiser, **text}
        if plan.precision != "fp32" and device.type == "cuda":  # a CPU's autocast computes norms in half precision
            widen_norms([denoiser_of(family), *text_encoders_of(family.pipe).values()])
        self.copies = make_copies(family, plan, settings)
        self.update = make_update((denoiser, text), plan, settings, self.device, self.copies)
        self.rate = rates_of(settings.lr_schedule, warmup_steps=settings.warmup_steps, steps=settings.steps)
        self.ema = Average(self.trained, settings.ema_decay) if settings.ema else None
        self.before = few_of(self.trained)

    def steps(self) -> Generator[Step, None, None]:
        """Train from the step reached to the last; a `Step` after each, when the state is whole.

        Raises NotFinite where a loss is not. Without a GPU the weights are then still those of the step before; with
        one it is known a step late, and the last checkpoint counts.
        """
        while self.step < self.settings.steps:
            began = time.perf_counter()
            self.unread.append((self.step + 1, Reading(self.train_step(self.step))))
            self.step += 1
            # on a GPU, waiting for this step's loss would have it idle until the next step's work is sent
            is_late = self.reads_late and self.last_read is not None and self.step < self.settings.steps
            self.read_losses(leave=1 if is_late else 0)
            assert self.last_read is not None
            rate = self.plan.learning_rate * self.rate(self.step - 1)
            yield Step(self.step, self.last_read, rate, time.perf_counter() - began)

    def train_step(self, step: int) -> Tensor:
        """One optimizer step over all batches of step `step` (from 0). Returns [mean loss, steps skipped in a row], on the device."""
        if 0 < self.plan.text_encoder_stop <= step and self.conditioning is None:
            self.stop_text_encoder()
        factor = self.rate(step)
        self.update.begin([self.plan.learning_rate * factor, self.plan.text_encoder_learning_rate * factor])
        batches = self.settings.gradient_accumulation
        losses = []
        for batch in range(batches):
            for kinds in [(kind,) for kind in self.kinds] if self.plan.rows_in_turn else [self.kinds]:
                loss = self.batch_loss(step, batch, kinds)
                self.update.backward(loss / batches)
                losses.append(loss.detach())
        mean = torch.stack(losses).sum() / batches
        if not self.reads_late:
            check_loss(float(mean), step + 1)
        self.update.step()
        if self.ema:
            self.ema.update(step)
        return torch.stack([mean, self.update.skipped])

    def stop_text_encoder(self) -> None:
        """Leave the text encoders as they are from now on; their embeddings of the prompts are then computed once."""
        for parameter in self.text_parameters:
            parameter.requires_grad_(False)
        if self.copies:
            self.copies.freeze(self.text_parameters)
        with autocast(self.plan.precision, self.device):
            self.conditioning = encode_frozen(self.family, self.prompts)

    def read_losses(self, *, leave: int = 0) -> None:
        """Wait for the losses that are not read yet, but for the last `leave`.

        Raises NotFinite where one is not finite, or too many steps in a row had gradients that were not.
        """
        while len(self.unread) > leave:
            step, read = self.unread.pop(0)
            self.last_read, skipped = read.wait()
            check_loss(self.last_read, step)
            if skipped >= MOST_SKIPPED:
                raise NotFinite(f"the gradients were not finite {MOST_SKIPPED} steps in a row, up to step {step}")

    def batch_loss(self, step: int, batch: int, kinds: Sequence[str] | None = None) -> Tensor:
        """The DreamBooth loss of one batch, or of its rows of some kinds alone; one forward pass."""
        kinds = kinds or self.kinds
        draws, latents = self.draw_batch(step, batch, kinds)
        times = self.bring(torch.tensor([draw.time for draw in draws]))
        noise = self.bring(torch.stack([draw.noise for draw in draws]))
        latents = self.bring(latents)
        noisy = self.family.noising.add_noise(latents, noise, times)
        with autocast(self.plan.precision, self.device):
            rows = [place for place in range(len(kinds)) for _ in range(self.settings.batch_size)]
            prediction = self.family.predict(noisy, times, self.encode(kinds).rows(rows))
        return dreambooth_loss(
            prediction,
            self.family.noising.target(latents, noise, times),
            weights=self.family.noising.loss_weights(times, self.settings.snr_gamma),
            instance_rows=self.settings.batch_size if "instance" in kinds else 0,
            prior_loss_weight=self.settings.prior_loss_weight,
        )

    def bring(self, drawn: Tensor) -> Tensor:
        """What was drawn on the CPU, on the training device; the way to a GPU does not wait for the work before it."""
        return drawn.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else drawn

    def draw_batch(self, step: int, batch: int, kinds: Sequence[str] | None = None) -> tuple[list[Draw], Tensor]:
        """The draws of a batch's rows, of all kinds or of some, and their latents [rows, c, h, w], on the CPU;
        instance rows first."""
        draws, latents, size = [], [], self.settings.batch_size
        for kind in kinds or self.kinds:
            examples = self.examples[kind]
            found = [
                draw_row(
                    self.family,
                    seed=self.settings.seed,
                    step=step,
                    row=row,
                    rows=size * self.settings.gradient_accumulation,
                    kind=kind,
                    count=len(examples),
                    mirror=examples.mirrored is not None,
                    shape=examples.distribution.mean.shape[1:],
                )
                for row in range(batch * size, (batch + 1) * size)
            ]
            draws += found
            latents.append(examples.sample(self.family, found))
        return draws, torch.cat(latents)

    def encode(self, kinds: Sequence[str]) -> Conditioning:
        """The embeddings of the prompts of some kinds, a row each: kept ones, or the trained text encoder's of this very step."""
        places = [self.kinds.index(kind) for kind in kinds]
        if self.conditioning is not None:
            return self.conditioning.rows(places)
        return self.family.encode_prompts([self.prompts[place] for place in places])

    def draw(self, prompt: str, seed: int, drawing: Drawing) -> Image.Image:
        """A sample picture with the weights as they stand (their average, where one is kept)."""
        with autocast(self.plan.precision, self.device), self.averaged():
            return draw(self.family, [prompt], [seed], drawing)[0]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """For the time of a sample: the average of the weights in their place, where one is kept."""
        with self.ema.in_place() if self.ema else nullcontext():
            self.refresh_copies()
            yield
        self.refresh_copies()

    def refresh_copies(self) -> None:
        """Have the passes read what the weights are now."""
        if self.copies:
            self.copies.refresh()

    def is_finite(self) -> bool:
        """Whether every trained weight is finite: a state that is not is no good checkpoint."""
        found = [parameter.isfinite().all() for parameter in self.trained.values()]
        return bool(torch.stack(found).all())  # one read, not one of each

    def check_finite(self) -> None:
        """Before a checkpoint: read every loss up to its step. Raises NotFinite where one, or a trained weight, is not finite."""
        self.read_losses()
        if not self.is_finite():
            raise NotFinite(f"the weights are not finite after step {self.step}")

    def is_good(self) -> bool:
        """Whether the state may become a checkpoint."""
        try:
            self.check_finite()
        except NotFinite:
            return False
        return True

    def answer(self) -> Answer:
        """What the model makes of the instance prompt as it stands, for `effect.compare`."""
        examples = self.examples["instance"]
        with torch.no_grad(), autocast(self.plan.precision, self.device):
            prompt = self.encode(("instance",))
            loss = loss_at_fixed_noises(self.family, examples, prompt, draws=16, batch=self.settings.batch_size)
            return Answer(loss, sketch(self.family, prompt, examples.distribution.mean.shape[1:]))

    def check_learned(self) -> None:
        """At the end. Raises TrainingFailed where the weights are not finite or are still the base's own."""
        self.check_finite()
        if all(torch.equal(value, self.trained[name]) for name, value in self.before.items()):
            raise TrainingFailed(
                "no weight changed: the model is still the base model",
                "use a higher --learning-rate, or --precision bf16",
            )

    def finish(self) -> None:
        """At the end: let the average, where one is kept, be the weights, and the networks hold them in their own format."""
        if self.ema:
            self.ema.take()
        if self.copies:
            self.copies.leave()

    def let_state_go(self) -> None:
        """At the end: have what only a further step needs leave memory, the optimizer's state and the average."""
        self.update.forget()
        self.ema = None
        give_back()

    def state(self) -> State:
        """All that the next step depends on."""
        weights = {name: parameter.detach() for name, parameter in self.trained.items()}
        return State(self.step, weights, self.update.state(), self.ema.state() if self.ema else {})

    def load(self, state: State) -> None:
        """Go on from a checkpoint's state. Raises ForeignCheckpoint, before anything is changed, where it is not of this run."""
        check_belongs(state, self.trained, steps=self.settings.steps, averaged=self.ema is not None)
        with torch.no_grad():
            for name, parameter in self.trained.items():
                value = state.weights[name]
                if parameter.dtype == torch.bfloat16 and value.dtype == torch.float32:
                    # a new plan's form: to nearest, all the small movements since the base would be lost
                    seed = seed_of(self.settings.seed, state.step, "loading", name)
                    value = round_stochastically(value, torch.Generator().manual_seed(seed))
                parameter.copy_(value)
        self.refresh_copies()
        self.update.load(state.optimizer)
        if self.ema:
            self.ema.load(state.ema)
        self.step = state.step


def check_belongs(state: State, trained: Mapping[str, Tensor], *, steps: int, averaged: bool) -> None:
    """Hold a checkpoint's tensors against what a run trains: their names and shapes. Raises ForeignCheckpoint."""
    if state.step > steps:
        raise ForeignCheckpoint(f"it was saved after step {state.step}, and the run has {steps}")
    wanted = shapes_of(trained)
    for kind, held in (("weights", state.weights), ("average", state.ema)):
        shapes, found = wanted if kind == "weights" or averaged else {}, shapes_of(held)
        if odd := sorted(found.keys() ^ shapes.keys()):
            raise ForeignCheckpoint(f"its {kind} and the run's are not the same: {odd[0]}")
        for name, shape in shapes.items():
            if found[name] != shape:
                raise ForeignCheckpoint(f"{name} is {found[name]} in its {kind}, and {shape} in the run")
    for key, shape in shapes_of(state.optimizer).items():
        name, _, slot = key.rpartition("|")
        if name != "scaler" and name not in wanted:
            raise ForeignCheckpoint(f"its optimizer knows a weight that the run does not train: {name}")
        if slot in ("exp_avg", "exp_avg_sq") and shape != wanted[name]:
            raise ForeignCheckpoint(f"{name} is {shape} in its optimizer, and {wanted[name]} in the run")


def check_loss(loss: float, step: int) -> None:
    """Raises NotFinite where a loss is not."""
    if not isfinite(loss):
        raise NotFinite(f"the loss is not finite at step {step}")


def few_of(trained: Mapping[str, Tensor], count: int = 64) -> dict[str, Tensor]:
    """Copies of the smallest weights, by which it is told whether anything was learned: every optimizer step moves them all."""
    smallest = sorted(trained, key=lambda name: trained[name].numel())[:count]
    return {name: trained[name].detach().clone() for name in smallest}


def make_trainable(
    family: LatentDiffusion, plan: Plan, settings: TrainSettings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Unfreeze, or add LoRA to, what the plan trains. Returns the trained parameters by name: the denoiser's, the text encoders'."""
    record = family.record
    trained = {record.denoiser: denoiser_of(family), **(text_encoders_of(family.pipe) if plan.train_text_encoder else {})}
    found: dict[str, dict[str, nn.Parameter]] = {}
    for name, module in trained.items():
        if plan.method == "lora":
            add_lora(module, name, layers=record.parts[name].lora, rank=settings.rank, alpha=plan.alpha, seed=settings.seed)
        else:
            module.requires_grad_(True)
        if plan.gradient_checkpointing:
            checkpoint_gradients(module)
        found[name] = {f"{name}.{key}": value for key, value in module.named_parameters() if value.requires_grad}
    text = {key: value for name, group in found.items() if name != record.denoiser for key, value in group.items()}
    return found[record.denoiser], text


def make_copies(family: LatentDiffusion, plan: Plan, settings: TrainSettings) -> WorkingCopies | None:
    """Working copies of the trained weights, where the plan has them."""
    if not works_on_copies(plan, settings.gradient_accumulation):
        return None
    encoders = text_encoders_of(family.pipe) if plan.train_text_encoder else {}
    return WorkingCopies([denoiser_of(family), *encoders.values()], DTYPES[plan.precision])


def make_update(
    groups: tuple[dict[str, Any], dict[str, Any]],
    plan: Plan,
    settings: TrainSettings,
    device: torch.device,
    copies: WorkingCopies | None,
) -> Update:
    """The optimizer of what `make_trainable` returned. Raises UsageError without bitsandbytes."""
    return Update(
        [*groups],
        kind=plan.optimizer,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        scaled=plan.precision == "fp16",
        device=device,
        inside_backward=plan.inside_backward,
        off_card=plan.off_card,
        seed=settings.seed,
        copies=copies,
        adds_up=plan.rows_in_turn or settings.gradient_accumulation > 1,
    )


def checkpoint_gradients(module: Any) -> None:
    """Have a network compute its activations again in backward. Text encoders look at their mode: train, they have no dropout."""
    if isinstance(module, ModelMixin):  # diffusers'
        module.enable_gradient_checkpointing()
    else:
        module.activation_checkpointing_enable()
    module.train()


def held_memory(device: torch.device) -> int:
    """Bytes that this process holds: on a GPU the most that its allocator has had, and the driver's context as the plan counts
    it; without one what is resident, the program and its libraries with it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) + CONTEXT
    return resident_memory()


def peak_memory_gb(device: torch.device) -> float | None:
    """The most GPU memory that this process has held so far, in GB of 1e9 bytes; None on a CPU."""
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else None
