"""What a step of a flow family's full-size transformer holds of a card, counted on the fake card, beside the memory plan's ledger.

    python -m tests.benchmarks.flow_memory [--only klein]

`Training` takes two steps of a LoRA of rank 16 on one photo, on networks without values (a CUDA build of PyTorch, no driver); the most that
is held in the second is counted. The rows are in memory.md, and in tests/memory/test_plan.py. Returns 1 if the ledger is off by more
than 3%.
"""

import argparse
import sys
from dataclasses import replace
from typing import Any

import torch

from dreambooth_cli.bases.catalog import find_entry
from dreambooth_cli.engine.families.latent_diffusion import LatentDiffusion, LatentDistribution, alive
from dreambooth_cli.engine.families.loading import let_go, place
from dreambooth_cli.engine.families.lora import quantize, store_in_8_bits
from dreambooth_cli.engine.training.examples import Example
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.gpu import sold_as
from dreambooth_cli.memory.ledger import count_bytes
from dreambooth_cli.memory.plan import Plan, job_of
from dreambooth_cli.memory.search import make_plan
from dreambooth_cli.settings import TrainSettings
from tests.fake_card.card import fake_card
from tests.fake_card.context import why_not
from tests.fake_card.counting import count_second_step

from .flow_bases import BASES, conditions, latent_shape, make_pipe
from .kernels import LARGE, TOLERANCE, UNBOUNDED

STEP = "peak: step"
# pixels a side, and what differs from bf16 with gradient checkpointing
AT_1024: tuple[dict[str, Any], ...] = ({}, {"gradient_checkpointing": False}, {"fp8": True}, {"quantized": True})
FORMS: dict[str, list[tuple[int, dict[str, Any]]]] = {
    "klein": [*((1024, means) for means in AT_1024), (768, {}), (512, {})],
    "z-image": [*((1024, means) for means in AT_1024), (512, {})],
}


def plan_of(name: str, side: int, means: dict[str, Any]) -> Plan:
    """A plan with these means, whether or not a card would need them, and what its ledger says."""
    entry = find_entry(name)
    assert entry is not None
    job = replace(job_of(entry, sold_as(UNBOUNDED), has_8bit=True), asked=settings_of(name), resolution=side)
    plan = replace(make_plan(job), **{"gradient_checkpointing": True} | means)
    ledger, _ = count_bytes(plan.choice, job)
    return replace(plan, ledger=ledger)


def settings_of(name: str) -> TrainSettings:
    """The family's own settings, at rank 16 and with the photo alone in a step."""
    entry = find_entry(name)
    assert entry is not None
    return TrainSettings(rank=16, prior="none", class_images=0).of_family(entry.facts.family)


def live_base(name: str, plan: Plan) -> LatentDiffusion:
    """A base without values on the card, its transformer in the format of the plan."""
    entry = find_entry(name)
    assert entry is not None
    pipe = make_pipe(name)
    pipe.transformer.requires_grad_(False).eval()
    for value in (*pipe.transformer.parameters(), *pipe.transformer.buffers()):
        if value.is_floating_point():
            value.data = value.data.to(torch.bfloat16)
    family = alive(entry.facts.family, pipe)
    if plan.quantized:
        quantize(pipe.transformer, torch.bfloat16)
    elif plan.fp8:
        store_in_8_bits(pipe.transformer, family.record.parts["transformer"], torch.bfloat16)
    let_go(pipe, ["vae"])
    place(pipe, ["transformer"], torch.device("cuda"))
    return family


def count(name: str, plan: Plan) -> tuple[int, int]:
    """Bytes of the base on the card, and the most in the second step."""
    with fake_card(fake_above=LARGE) as card:
        family = live_base(name, plan)
        base = card.now
        latents = torch.zeros(1, *latent_shape(name, plan.resolution))
        training = Training(
            family,
            plan,
            settings_of(name),
            device=torch.device("cuda"),
            examples={"instance": [Example(LatentDistribution(latents, latents), (0,))]},
            prompts=["a photo of a sks dog"],
            conditioning=conditions(name, 1, torch.bfloat16),
        )
        return base, count_second_step(card, training).peak


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.flow_memory")
    parser.add_argument("--only", choices=sorted(BASES), action="append")
    asked = parser.parse_args()
    if reason := why_not():
        print(f"no fake card: {reason}", file=sys.stderr)
        return 2
    print(f"torch {torch.__version__}\n\n| base | size, form | base, GB | peak, GB | ledger / peak |\n|---|---|---|---|---|", flush=True)
    worst = 0.0
    for name in asked.only or FORMS:
        for side, means in FORMS[name]:
            plan = plan_of(name, side, means)
            base, peak = count(name, plan)
            ratio = plan.ledger[STEP] / peak
            worst = max(worst, abs(ratio - 1))
            form = "4 bits" if plan.quantized else "fp8" if plan.fp8 else "bf16"
            words = f"{side} px, {form}{', checkpointing' if plan.gradient_checkpointing else ''}"
            print(f"| {name} | {words} | {base / 1e9:.2f} | {peak / 1e9:.2f} | {ratio:.3f} |", flush=True)
    print(f"the ledger's largest error is {worst:.1%} (allowed: {TOLERANCE:.0%})", file=sys.stderr)
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
