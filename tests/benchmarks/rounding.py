"""Whether bf16 weights rounded stochastically learn as float32 ones do if a step is a fraction of a weight's last digit.

    python -m tests.benchmarks.rounding [--steps 1000] [--rate 2e-5]

A subject of pocket's world is trained with the same random numbers in three forms: float32; bf16 rounded stochastically; bf16 rounded to
nearest, as a plain optimizer does it. The loss is that at fixed noises, before and after.
"""

import argparse
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import torch
from torch import Tensor

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.bases.catalog import find_entry
from dreambooth_cli.engine.families.latent_diffusion import autocast, encode_frozen
from dreambooth_cli.engine.families.loading import DTYPES, load_family
from dreambooth_cli.engine.hub.bases import obtain
from dreambooth_cli.engine.training.effect import loss_at_fixed_noises
from dreambooth_cli.engine.training.examples import Example, encode_pictures
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.memory.plan import Job, Plan, Weights
from dreambooth_cli.memory.search import make_plan
from dreambooth_cli.pocket import world
from dreambooth_cli.settings import TrainSettings

from .bench import last_of
from .subjects import IDENTIFIER, draw_one

TOLERANCE = 0.02  # of float32's loss
SUBJECT = 0
FORMS: dict[str, Weights] = {"float32": "fp32", "bf16, stochastic": "bf16", "bf16, to nearest": "bf16"}


def main() -> int:
    """Print the three losses. Returns 1 if stochastic rounding differs from float32 by more than the tolerance."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rounding")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=2e-5)
    asked = parser.parse_args()
    settings = TrainSettings(steps=asked.steps, learning_rate=asked.rate, class_images=0, train_text_encoder=False)
    losses = {}
    with TemporaryDirectory() as folder:
        photos = draw_photos(Path(folder))
        for name in FORMS:
            before, losses[name], moved, share = train_in(name, settings, photos)
            print(
                f"{name}: loss at fixed noises {before:.5f} -> {losses[name]:.5f}; {moved:.1%} of the weights moved; "
                f"a step is {share:.3f} of a bf16 unit (median)",
                flush=True,
            )
    off = losses["bf16, stochastic"] / losses["float32"] - 1
    print(f"stochastic against float32: {off:+.2%} (within {TOLERANCE:.0%})")
    return int(abs(off) > TOLERANCE)


def draw_photos(folder: Path) -> list[Path]:
    """Five photos of the subject."""
    subject, paths = world.draw_subject(SUBJECT), []
    for number, place in enumerate(list(world.PLACES)[:5]):
        paths.append(folder / f"{number}.png")
        draw_one(subject, place, f"rounding {number}").save(paths[-1])
    return paths


def train_in(name: str, settings: TrainSettings, photos: list[Path]) -> tuple[float, float, float, float]:
    """Losses before and after, the share of the weights that moved, and a step's size in bf16 units of its weight."""
    training = start(FORMS[name], settings, photos)
    first = {key: value.detach().float().clone() for key, value in training.trained.items()}
    before = loss_of(training)

    def to_nearest(values: Tensor, _: torch.Generator) -> Tensor:
        return values.to(torch.bfloat16)

    rounding = "dreambooth_cli.engine.training.adamw.round_stochastically"
    with mock.patch(rounding, to_nearest) if name == "bf16, to nearest" else nullcontext():
        for _ in training.steps():
            pass
    after = loss_of(training)
    moved = [(value.detach().float() != first[key]).float().mean() for key, value in training.trained.items()]
    weights = torch.cat([value.flatten() for value in first.values()]).abs()
    unit = 2.0 ** (torch.floor(torch.log2(weights.clamp_min(1e-12))) - 7)
    return before, after, torch.stack(moved).mean().item(), (float(settings.learning_rate) / unit).median().item()


def loss_of(training: Training) -> float:
    """The loss of the photos at fixed noises, in the format that the run computes in."""
    with torch.no_grad(), autocast(training.plan.precision, training.device):
        prompt = training.encode((0,), training.conditioning)
        return loss_at_fixed_noises(training.family, training.examples["instance"], prompt)


def start(weights: Weights, settings: TrainSettings, photos: list[Path]) -> Training:
    """A run on the pocket with its trained weights in this number format."""
    base = last_of(obtain(ask_for_base("pocket")))
    family = load_family(base, dtype=DTYPES[weights], device=torch.device("cpu"))
    family.pipe.vae.float()
    examples = [Example(one, (0,)) for one in encode_pictures(family, photos)]
    noun = world.draw_subject(SUBJECT).class_name
    prompts = [f"a photo of a {IDENTIFIER} {noun}"]
    plan = plan_of(settings, weights)
    return Training(
        family,
        plan,
        settings,
        device=torch.device("cpu"),
        examples={"instance": examples},
        prompts=prompts,
        conditioning=encode_frozen(family, prompts),
    )


def plan_of(settings: TrainSettings, weights: Weights) -> Plan:
    """A plan on the CPU, in this number format."""
    entry = find_entry("pocket")
    assert entry is not None
    plan = make_plan(Job(entry.facts, settings, resolution=64, gpu=None, has_8bit=False, name="pocket"))
    return replace(plan, method="full", weights=weights, precision=weights)


if __name__ == "__main__":
    sys.exit(main())
