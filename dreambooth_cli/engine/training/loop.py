"""The loop, and `Training`, the one object here with state of its own.

Traps of a loop that is a generator, each of them tried: never `yield` inside `no_grad`, `autocast` or `accumulate`, because the mode
leaks into the caller; and close the generator explicitly (`contextlib.closing`).
"""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import isfinite
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...errors import TrainingFailed
from ...machine import give_back
from ...memory.ledger import works_on_copies
from ...memory.plan import Plan
from ...settings import TrainSettings
from ..families.latent_diffusion import Conditioning, LatentDiffusion, autocast, denoiser_of, encode_frozen
from ..families.loading import DTYPES, alone, text_encoders_of
from ..images.sampling import Drawing, Embedded, decode, draw, draw_in_turn, draw_latents
from ..seeds import Place, part_of, seed_of
from .adamw import round_stochastically
from .batches import Batch, Row, batches_of
from .checkpoint import State, check_belongs
from .effect import Answer, loss_at_fixed_noises, sketch
from .ema import Average
from .examples import Example, randomness_of
from .objective import dreambooth_loss, row_losses
from .optimizers import Update, rates_of
from .trained import make_trainable, without_lora
from .working_copies import WorkingCopies, widen_norms

MUST_BE_REACHED = 2  # updates of a LoRA after which every one of its weights must have had a gradient
MOST_SKIPPED = 20  # steps in a row with gradients that are not finite; fewer than that are the fp16 scaler's normal work


class NotFinite(TrainingFailed):
    """A loss, gradients or weights that are not finite. Going on from the last good checkpoint under another plan may help."""


@dataclass(frozen=True)
class Step:
    """One optimizer step, counted from 1. `loss` is the mean over its batches (on a GPU it is that of the step before, except for the
    first and the last step); `seconds` is its wall time."""

    number: int
    loss: float
    learning_rate: float
    seconds: float


class Reading:
    """Numbers on their way from the device. The copy is queued at once, right behind what computes them, so that reading them later does
    not wait for work that was queued after them."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.arrived = values, None
        if values.device.type == "cuda":
            self.values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def wait(self) -> list[float]:
        """The numbers, once they have arrived."""
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
        examples: Mapping[str, Sequence[Example]],
        prompts: list[str],
        conditioning: Conditioning | None,
        plain: Sequence[int] = (),
        embedded: Mapping[str, Embedded] = MappingProxyType({}),
    ) -> None:
        """`examples`: the photos (`instance`) and, with prior preservation, the class images (`class`). `prompts`: the run's prompts, the
        instance prompt first, which the examples refer to by number. `conditioning`: the prompts' embeddings, a row each, or None if the
        text encoder is trained, so that they change with every step. `plain`, where a LoRA is compared with its base: for each prompt,
        the number of the same prompt without the identifier. `embedded`: the prompts of samples that have been encoded already. Raises
        ValueError if the plan steps inside backward and the pictures have several sizes, which takes several passes."""
        self.family, self.plan, self.settings = family, plan, settings
        self.examples = dict(examples)
        self.kinds = tuple(self.examples)
        self.prompts, self.plain = prompts, plain
        self.conditioning = self.of_base = conditioning  # they differ once a text encoder has been trained for a while
        self.embedded = embedded
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
        encoders = text_encoders_of(family.pipe).values() if plan.train_text_encoder else ()
        self.trained_networks = [denoiser_of(family), *encoders]
        self.copies = make_copies(family, plan, settings)
        sizes = {example.shape for kind in self.examples.values() for example in kind}
        if len(sizes) > 1 and plan.inside_backward:
            raise ValueError(f"a step inside backward is one pass, and these pictures have {len(sizes)} sizes")
        self.update = make_update((denoiser, text), plan, settings, self.device, self.copies, one_size=len(sizes) == 1)
        self.rate = rates_of(settings.lr_schedule, warmup_steps=settings.warmup_steps, steps=settings.steps)
        self.ema = Average(self.trained, settings.ema_decay) if settings.ema else None
        self.before = few_of(self.trained)
        self.updates = 0  # of a LoRA, at a rate above zero; counted up to MUST_BE_REACHED

    def steps(self) -> Generator[Step, None, None]:
        """Train from the step reached to the last, and yield a `Step` after each, when the state is consistent.

        Raises NotFinite if a loss is not finite. On a CPU the weights are then still those of the step before; on a GPU it is noticed
        one step late, and the run must go back to the last checkpoint.
        """
        while self.step < self.settings.steps:
            began = time.perf_counter()
            self.unread.append((self.step + 1, Reading(self.train_step(self.step))))
            self.step += 1
            # a GPU would be idle if this step's loss were waited for before the next step's work is queued
            is_late = self.reads_late and self.last_read is not None and self.step < self.settings.steps
            self.read_losses(leave=1 if is_late else 0)
            assert self.last_read is not None
            if self.plan.method == "lora" and self.updates < MUST_BE_REACHED:
                self.check_reached()
            rate = self.plan.learning_rate * self.rate(self.step - 1)
            yield Step(self.step, self.last_read, rate, time.perf_counter() - began)

    def train_step(self, step: int) -> Tensor:
        """One optimizer step over all batches of step `step` (from 0). Returns [mean loss, steps skipped in a row], on the device. The
        loss does not include the term that, in some steps, keeps a LoRA close to its base."""
        if 0 < self.plan.text_encoder_stop <= step and self.conditioning is None:
            self.stop_text_encoder()
        factor = self.rate(step)
        self.update.begin([self.plan.learning_rate * factor, self.plan.text_encoder_learning_rate * factor])
        batches = self.settings.gradient_accumulation
        held = self.settings.with_base_prior and (step + 1) % self.settings.prior_every == 0
        losses, beside = [], []
        for number in range(batches):
            for batch in self.batches(step, number):
                losses.append(self.backward(self.batch_loss(batch) / batches))
                if held:
                    beside.append(self.backward(self.loss_of_base_prior(batch) / batches))
        mean = torch.stack(losses).sum()
        if not self.reads_late:
            for loss in (mean, *beside):
                check_loss(float(loss), step + 1)
        self.update.step()
        if self.ema:
            self.ema.update(step)
        return torch.stack([mean, self.update.skipped])

    def backward(self, loss: Tensor) -> Tensor:
        """Add the gradients of a part of a step's loss. Returns the loss without its graph, which is freed before the next one is made."""
        self.update.backward(loss)
        return loss.detach()

    def check_reached(self) -> None:
        """Check, after a LoRA's first updates at a rate above zero, that all its weights have had a gradient. The up matrices start at
        zero, so the down matrices get a gradient only from the second update on. Raises TrainingFailed, naming a weight that the loss
        does not reach."""
        if self.rate(self.step - 1) == 0 or self.update.skipped > 0:  # this waits for the GPU, but only in the first steps
            return
        self.updates += 1
        if self.updates == MUST_BE_REACHED and (dead := self.update.without_gradient()):
            raise TrainingFailed(
                f"{len(dead)} of {len(self.trained)} LoRA weights have had no gradient after {self.updates} updates: {dead[0]}",
                "this is a bug in dreambooth or in a version of a library: please report it, with the line above",
            )

    def stop_text_encoder(self) -> None:
        """Stop training the text encoders; the prompts' embeddings are now computed once and for all."""
        for parameter in self.text_parameters:
            parameter.requires_grad_(False)
        if self.copies:
            self.copies.freeze(self.text_parameters)
        with autocast(self.plan.precision, self.device):
            self.conditioning = encode_frozen(self.family, self.prompts)
            if self.settings.with_base_prior:
                with without_lora(self.trained_networks):
                    self.of_base = encode_frozen(self.family, self.prompts)

    def read_losses(self, *, leave: int = 0) -> None:
        """Wait for the losses that have not been read yet, except the last `leave`.

        Raises NotFinite if one is not finite, or if too many steps in a row had gradients that were not.
        """
        while len(self.unread) > leave:
            step, read = self.unread.pop(0)
            self.last_read, skipped = read.wait()
            check_loss(self.last_read, step)
            if skipped >= MOST_SKIPPED:
                raise NotFinite(f"the gradients were not finite for {MOST_SKIPPED} steps in a row, up to step {step}")

    def batches(self, step: int, number: int) -> Iterator[Batch]:
        """The passes that batch `number` of step `step` is split into: one for each size of picture, photos first; and where the plan
        takes rows in turn, photos and class images separately."""
        for kinds in [(kind,) for kind in self.kinds] if self.plan.rows_in_turn else [self.kinds]:
            rows = [row for kind in kinds for row in self.rows(step, number, kind)]
            yield from batches_of(self.family, rows, of=self.settings.rows)

    def rows(self, step: int, number: int, kind: str) -> Iterator[Row]:
        """The rows of one kind in batch `number` of step `step`: its part of the whole step's rows."""
        settings, examples = self.settings, self.examples[kind]
        photos, beside = settings.rows
        rows = (photos if kind == "instance" else beside) * settings.gradient_accumulation
        for row in part_of(rows, settings.gradient_accumulation, number):
            random = randomness_of(self.family.noising, examples, Place(settings.seed, step, kind, row, rows))
            yield Row(kind == "instance", examples[random.example], random)

    def batch_loss(self, batch: Batch) -> Tensor:
        """The DreamBooth loss of a batch; one forward pass."""
        noisy, times, target, mask = self.noised(batch)
        losses = row_losses(self.predict(noisy, times, batch, batch.prompts, kept=self.conditioning), target, mask)
        return dreambooth_loss(
            self.family.noising.loss_weights(times, self.settings.snr_gamma) * losses,
            instance_rows=batch.photos,
            prior_loss_weight=self.settings.prior_loss_weight,
            of=batch.of,
        )

    def loss_of_base_prior(self, batch: Batch) -> Tensor:
        """How far the LoRA's prediction for these noisy photos is from the base's own, both with the identifier left out of the prompt:
        this preserves what the base knows of the class. Two forward passes, one of them without gradients. The LoRA is on again when this
        returns, and so it is in backward, where checkpointed blocks are computed once more."""
        noisy, times, _, _ = self.noised(batch)
        prompts = [self.plain[row] for row in batch.prompts]
        with torch.no_grad(), without_lora(self.trained_networks):
            target = self.predict(noisy, times, batch, prompts, kept=self.of_base)
        losses = row_losses(self.predict(noisy, times, batch, prompts, kept=self.conditioning), target)
        weighed = self.family.noising.loss_weights(times, self.settings.snr_gamma) * losses
        return self.settings.prior_loss_weight * weighed.sum() / batch.of[0]

    def noised(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """A batch's noisy latents, their times, the target to predict, and the mask of how much each place counts, on the training
        device."""
        times, noise, latents = self.bring(batch.times), self.bring(batch.noise), self.bring(batch.latents)
        noising, mask = self.family.noising, None if batch.mask is None else self.bring(batch.mask)
        return noising.add_noise(latents, noise, times), times, noising.target(latents, noise, times), mask

    def predict(
        self, noisy: Tensor, times: Tensor, batch: Batch, prompts: Sequence[int], *, kept: Conditioning | None
    ) -> Tensor:
        """The network's prediction for a batch under the prompts of these numbers; `kept`: their embeddings, unless the text encoder is
        trained."""
        sizes = None if batch.sizes is None else self.bring(batch.sizes)
        with autocast(self.plan.precision, self.device):
            return self.family.predict(noisy, times, replace(self.encode(prompts, kept), sizes=sizes))

    def bring(self, made: Tensor) -> Tensor:
        """A CPU tensor, copied to the training device; the copy does not wait for a GPU's earlier work."""
        return made.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else made

    def encode(self, prompts: Sequence[int], kept: Conditioning | None) -> Conditioning:
        """The embeddings of the prompts of these numbers: those that were kept, or what the text encoder makes of them in this step."""
        if kept is not None:
            return kept.rows(list(prompts))
        read = list(dict.fromkeys(prompts))
        found = self.family.encode_prompts([self.prompts[row] for row in read])
        return found.rows([read.index(row) for row in prompts])

    def draw(self, prompt: str, seed: int, drawing: Drawing, *, in_parts: bool = False) -> Image.Image:
        """A sample picture with the weights as they are now (their average, if one is kept). `in_parts`: the networks take turns on the
        device."""
        read = self.embedded.get(prompt)
        with autocast(self.plan.precision, self.device), self.averaged():
            if in_parts:
                return draw_in_turn(
                    self.family, prompt, seed, drawing, lambda names: alone(self.family.pipe, names, self.device), read=read
                )
            if read is not None:
                return decode(self.family, draw_latents(self.family, [read], [seed], drawing))[0]
            return draw(self.family, [prompt], [seed], drawing)[0]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the average of the weights in their place inside a `with` block, if one is kept."""
        with self.ema.in_place() if self.ema else nullcontext():
            self.refresh_copies()
            yield
        self.refresh_copies()

    def refresh_copies(self) -> None:
        """Bring the half-precision copies, which the passes read, up to date with the weights."""
        if self.copies:
            self.copies.refresh()

    def is_finite(self) -> bool:
        """Whether every trained weight is finite; otherwise the state must not become a checkpoint."""
        found = [parameter.isfinite().all() for parameter in self.trained.values()]
        return bool(torch.stack(found).all())  # read from the device once, not once per weight

    def check_finite(self) -> None:
        """Before a checkpoint: read every loss up to its step. Raises NotFinite if a loss or a trained weight is not finite."""
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

    def losses(self, prompts: Sequence[str], *, rows: int) -> list[float]:
        """The loss of the photos under each of these prompts of the run, at `rows` fixed noises, with the weights as they are now (their
        average, if one is kept)."""
        with torch.no_grad(), autocast(self.plan.precision, self.device), self.averaged():
            read, photos = [self.encode([self.prompts.index(prompt)], self.conditioning) for prompt in prompts], self.examples["instance"]
            return [loss_at_fixed_noises(self.family, photos, one, rows=rows, batch=self.settings.batch_size) for one in read]

    def answer(self, prompts: tuple[str, str], *, rows: int, steps: int) -> Answer:
        """What the model now makes of `prompts`, the instance prompt and the class prompt, for `effect.compare`: losses at `rows` fixed
        noises, and a picture in `steps` denoising steps."""
        (loss, class_loss), shape = self.losses(prompts, rows=rows), self.examples["instance"][0].shape
        with torch.no_grad(), autocast(self.plan.precision, self.device), self.averaged():
            own, of_class = (
                sketch(self.family, self.encode([self.prompts.index(prompt)], self.conditioning), shape, steps=steps) for prompt in prompts
            )
        return Answer(loss, class_loss, own, of_class)

    def check_learned(self) -> None:
        """At the end of a run. Raises TrainingFailed if the weights are not finite or are still those that it began with."""
        self.check_finite()
        if all(torch.equal(value, self.trained[name]) for name, value in self.before.items()):
            raise TrainingFailed(
                "no weight changed: the model is still the base model",
                "use a higher --learning-rate, or --precision bf16",
            )

    def finish(self) -> None:
        """At the end of a run: make the average, if one is kept, the weights, and have the networks hold the weights, not copies."""
        if self.ema:
            self.ema.take()
        if self.copies:
            self.copies.leave()

    def let_state_go(self) -> None:
        """At the end of a run: free what only another step would need, the optimizer state and the average."""
        self.update.forget()
        self.ema = None
        give_back()

    def state(self) -> State:
        """All that the next step depends on."""
        weights = {name: parameter.detach() for name, parameter in self.trained.items()}
        return State(self.step, weights, self.update.state(), self.ema.state() if self.ema else {})

    def load(self, state: State) -> None:
        """Go on from a checkpoint's state. Raises ForeignCheckpoint, before anything is changed, if it does not fit this run."""
        check_belongs(state, self.trained, steps=self.settings.steps, averaged=self.ema is not None)
        self._take(state.weights, state.step)
        self.update.load(state.optimizer)
        if self.ema:
            self.ema.load(state.ema)
        self.step = state.step

    def begin_with(self, state: State) -> None:
        """Begin at step 0 with another run's weights, or with their average if that run kept one. Raises ForeignCheckpoint, before
        anything is changed, if their names or shapes differ."""
        check_belongs(state, self.trained, steps=state.step, averaged=bool(state.ema))
        self._take(state.ema or state.weights, state.step)
        self.before = few_of(self.trained)
        if self.ema:
            self.ema = Average(self.trained, self.settings.ema_decay)

    def _take(self, weights: Mapping[str, Tensor], step: int) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.items():
                value = weights[name]
                if parameter.dtype == torch.bfloat16 and value.dtype == torch.float32:
                    # the plan has changed to bf16 weights; rounding to nearest would lose all small movements since the base
                    seed = seed_of(self.settings.seed, step, "loading", name)
                    value = round_stochastically(value, torch.Generator().manual_seed(seed))
                parameter.copy_(value)
        self.refresh_copies()


def check_loss(loss: float, step: int) -> None:
    """Raise NotFinite if a loss is not finite."""
    if not isfinite(loss):
        raise NotFinite(f"the loss is not finite at step {step}")


def few_of(trained: Mapping[str, Tensor], count: int = 64) -> dict[str, Tensor]:
    """Copies of the `count` smallest weights, to see later whether anything was learned: every optimizer step moves all weights."""
    smallest = sorted(trained, key=lambda name: trained[name].numel())[:count]
    return {name: trained[name].detach().clone() for name in smallest}


def make_copies(family: LatentDiffusion, plan: Plan, settings: TrainSettings) -> WorkingCopies | None:
    """Half-precision working copies of the trained weights, if the plan has them."""
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
    one_size: bool = True,
) -> Update:
    """The optimizer of the parameters that `make_trainable` returned; `one_size`: whether all pictures have the same size. Raises
    UsageError if it needs bitsandbytes and that is missing."""
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
        adds_up=plan.rows_in_turn or settings.gradient_accumulation > 1 or not one_size or settings.with_base_prior,
    )
