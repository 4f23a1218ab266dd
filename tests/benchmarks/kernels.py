"""What a step would demand of a card, counted without one, and the time that is predicted from that.

    python -m tests.benchmarks.kernels [--json] [--only sd15/8 ...] [--memory] [--peer PATH [--shim FOLDERS]]

The full-size networks are on the fake card (`tests/fake_card`: a CUDA build of PyTorch, no driver, no values), and `Training` takes
two steps under the plan for a card with so many GB; the second is counted. `--only sd15` counts all plans of a base, `sd15/8` one;
`--memory` counts means of the memory plan that no such plan uses, for memory.md. `--peer` counts diffusers' own scripts instead (in the
same folder as for `tests.benchmarks.speed`), each followed by our step with the same means. Returns 1 if the memory plan's ledger is off
by more than 3%.

Kernels: an operation counts as one, except views (none) and operations on lists, which torch launches in pieces. Bytes: what goes into the
kernels and comes out. The time is a roofline, the largest of arithmetic, bytes and launches: no step can be faster, and it is a
prediction, not a measurement.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from dreambooth_cli.bases.catalog import find_entry
from dreambooth_cli.bases.true_sizes import VAE
from dreambooth_cli.engine.families.latent_diffusion import Conditioning, LatentDistribution, alive
from dreambooth_cli.engine.families.loading import DTYPES, let_go, place, text_encoders_of
from dreambooth_cli.engine.families.lora import quantize
from dreambooth_cli.engine.families.random_base import make_vae, pipeline_of, text_config
from dreambooth_cli.engine.training.examples import Example
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.gpu import sold_as
from dreambooth_cli.memory.ledger import count_bytes
from dreambooth_cli.memory.plan import Choice, Plan, job_of
from dreambooth_cli.memory.search import make_plan
from dreambooth_cli.settings import TrainSettings
from tests import small_models
from tests.fake_card.card import fake_card
from tests.fake_card.context import why_not
from tests.fake_card.counting import StepCount, count_second_step

from .bases import CONFIGS
from .script_on_fake_card import SCRIPTS, count_script

BASES = ("sd15", "sd21", "sdxl")
CARDS_GB = (8, 12, 16, 24, None)  # None: a card without bounds
UNBOUNDED = 1000
PROMPTS = ["a photo of a sks dog", "a photo of a dog"]
VOCABULARY, TOKENS = 49_408, 77
LARGE = 1 << 20  # values; the optimizer's state off the card is not made
LORA = {"method": "lora", "train_text_encoder": False}
FROZEN = {"train_text_encoder": False}
CHECKPOINTED, IN_TURN = {"gradient_checkpointing": True}, {"rows_in_turn": True}
SMALLEST = LORA | CHECKPOINTED | IN_TURN | {"quantized": True}
LEAN = CHECKPOINTED | {"method": "full", "optimizer": "adamw8bit", "weights": "bf16"}
INSIDE = LEAN | {"inside_backward": True}
ALL_MEANS = INSIDE | {"train_text_encoder": True, "off_card": True}
ALONE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sd15", LORA),
    ("sd15", LORA | {"train_text_encoder": True}),
    ("sd15", LORA | {"quantized": True}),
    ("sd15", SMALLEST),
    ("sd15", FROZEN),
    ("sd15", FROZEN | {"inside_backward": True}),
    ("sd15", FROZEN | {"off_card": True}),
    ("sd15", FROZEN | INSIDE),
    ("sd15", ALL_MEANS),
    ("sd15", CHECKPOINTED | IN_TURN | {"train_text_encoder": True}),
    ("sd15", FROZEN | {"precision": "fp32"}),
    ("sd15", CHECKPOINTED | {"train_text_encoder": True, "optimizer": "adamw8bit", "precision": "fp16"}),
    ("sd21", LORA | {"quantized": True}),
    ("sd21", SMALLEST | {"train_text_encoder": True}),
    ("sd21", ALL_MEANS),
    ("sdxl", LORA),
    ("sdxl", LORA | CHECKPOINTED | IN_TURN),
    ("sdxl", LORA | {"quantized": True}),
    ("sdxl", SMALLEST | {"train_text_encoder": True}),
    ("sdxl", LEAN | {"train_text_encoder": True}),
    ("sdxl", ALL_MEANS),
)
TOLERANCE = 0.03  # of the ledger, by what is counted
LAUNCH = 4e-6  # seconds; what the host takes to send a kernel from Python


@dataclass(frozen=True)
class Peak:
    """A card's peaks: products in bf16 summed in float32 without sparsity and float32 products, operations a second; its memory's
    bytes a second."""

    half: float
    single: float
    memory: float


# NVIDIA's Ampere GA102 and Ada whitepapers and H100 data sheet (SXM). On GeForce cards the tensor cores do bf16 products summed in
# float32 at twice the float32 rate (GA102's: 59.5 of 29.8 for a 3080; Ada's: 165.2 of 82.6 for a 4090), so the 3060's and 4060's follow.
CARDS = {
    "RTX 3060": Peak(half=25.5e12, single=12.7e12, memory=360e9),
    "RTX 4060": Peak(half=30.2e12, single=15.1e12, memory=272e9),
    "RTX 4090": Peak(half=165.2e12, single=82.6e12, memory=1008e9),
    "H100": Peak(half=989.4e12, single=66.9e12, memory=3350e9),
}


@dataclass(frozen=True)
class Row:
    """A base on a card of so many GB (None: without bounds), its plan, and what is counted of its second step."""

    base: str
    plan_gb: int | None
    plan: Plan
    step: StepCount

    @property
    def ratio(self) -> float:
        """What the ledger says of the peak, as a part of what is counted."""
        return self.plan.ledger["peak: step"] / self.step.peak

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it; GB of 1e9 bytes, times in ms."""
        return {
            "family": self.base,
            "plan_gb": self.plan_gb,
            "method": self.plan.method,
            "train_text_encoder": self.plan.train_text_encoder,
            "means": list(self.plan.means),
            **told_of(self.step),
            "ledger_gb": round(self.plan.ledger["peak: step"] / 1e9, 2),
            "checkpoint_gb": round(self.step.checkpoint / 1e9, 2),
        }


def told_of(step: StepCount) -> dict[str, Any]:
    """What is counted of a step, whosever it is, as `--json` prints it."""
    return {
        "kernels": step.kernels,
        "optimizer_kernels": step.optimizer.kernels,
        "optimizer_bytes_per_value": round(step.optimizer.moved / step.values, 1),
        "moved_gb": round(step.moved / 1e9, 2),
        "tflop": round(sum(step.passes.flop.values()) / 1e12, 2),
        "waits": len(step.waits),
        "peak_gb": round(step.peak / 1e9, 2),
        "predicted_ms": {name: round(1000 * max(predict(step, card).values())) for name, card in CARDS.items()},
    }


def predict(step: StepCount, card: Peak) -> dict[str, float]:
    """Seconds of a step on a card by what bounds it."""
    flop = step.passes.flop
    half = sum(count for dtype, count in flop.items() if dtype != torch.float32)
    arithmetic = half / card.half + flop[torch.float32] / card.single
    return {"arithmetic": arithmetic, "bytes": step.moved / card.memory, "launches": step.kernels * LAUNCH}


def names() -> Iterator[tuple[str, str, int | None]]:
    """Every row's name, base and card."""
    for base in BASES:
        for gb in CARDS_GB:
            yield f"{base}/{gb or 'unbounded'}", base, gb


def plan_of(base: str, gb: int | None) -> Plan:
    """The plan that a card of so many GB would have, with the settings left as they are."""
    entry = find_entry(base)
    assert entry is not None
    return make_plan(job_of(entry, sold_as(gb or UNBOUNDED), has_8bit=True))


def plan_with(base: str, **means: Any) -> Plan:
    """A plan with these means, whether or not a card would need them."""
    entry, plain = find_entry(base), plan_of(base, None)
    assert entry is not None
    told = replace(plain, **means)
    ledger, _ = count_bytes(told.choice, job_of(entry, sold_as(UNBOUNDED), has_8bit=True))
    return replace(told, means=means_of(told), ledger=ledger)


def means_of(plan: Plan) -> tuple[str, ...]:
    """The means of a plan by their names, and a number format that is no card's first choice."""
    names = {
        "8-bit Adam": plan.optimizer == "adamw8bit",
        "bf16 weights": plan.weights == "bf16",
        plan.precision: plan.precision != "bf16",
        "gradient checkpointing": plan.gradient_checkpointing,
        "rows in turn": plan.rows_in_turn,
        "inside backward": plan.inside_backward,
        "off card": plan.off_card,
        "base in 4 bits": plan.quantized,
    }
    return tuple(name for name, is_taken in names.items() if is_taken)


def count(base: str, gb: int | None, plan: Plan) -> Row:
    """Take two steps on the fake card, and count the second."""
    with tempfile.TemporaryDirectory() as folder, fake_card(fake_above=LARGE) as card:
        training = start(base, plan, Path(folder))
        return Row(base, gb, plan, count_second_step(card, training))


def count_all(wanted: Iterable[tuple[str, int | None]]) -> Iterator[Row]:
    """The rows of bases on cards; cards with the same plan are counted once."""
    known: dict[tuple[str, Choice], Row] = {}
    for base, gb in wanted:
        plan = plan_of(base, gb)
        form = base, plan.choice
        if form not in known:
            known[form] = count(base, gb, plan)
        yield replace(known[form], plan_gb=gb, plan=plan)


def start(base: str, plan: Plan, folder: Path) -> Training:
    """A run of a full-size base on the fake card, as `train` has it when the steps begin."""
    device, entry = torch.device("cuda"), find_entry(base)
    assert entry is not None
    pipe = make_pipe(base, plan, folder)
    family = alive(entry.facts.family, pipe)
    if plan.quantized:
        quantize(pipe.unet, DTYPES[plan.precision])
    let_go(pipe, ["vae"])
    encoders = list(text_encoders_of(pipe))
    conditioning = None
    if not plan.train_text_encoder:
        conditioning = conditions(pipe)
        let_go(pipe, encoders)
        encoders = []
    place(pipe, ["unet", *encoders], device)
    latents = torch.zeros(2, 4, plan.resolution // 8, plan.resolution // 8)
    encoded = [LatentDistribution(row, row) for row in latents.split(1)]
    return Training(
        family,
        plan,
        TrainSettings(),
        device=device,
        examples={kind: [Example(one, (row,)) for one in encoded] for row, kind in enumerate(["instance", "class"])},
        prompts=PROMPTS,
        conditioning=conditioning,
    )


def make_pipe(base: str, plan: Plan, folder: Path) -> Any:
    """A base without values, in the number format that its weights have in training, frozen; it is to be moved to the card."""
    unet, encoders, _ = CONFIGS[base]
    small_models.write_tokenizer(folder / "tokenizer", pad="<|endoftext|>")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.model_max_length = TOKENS
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    with torch.device("meta"):
        texts: list[Any] = [
            kind(text_config(one, VOCABULARY)) for kind, one in zip(kinds, encoders, strict=False)
        ]
        parts: Mapping[str, Any] = {"unet": UNet2DConditionModel(**unet), "vae": make_vae(VAE), "text_encoder": texts[0]}
    dtype = DTYPES[plan.weights if plan.method == "full" else plan.precision]
    for part in (*parts.values(), *texts[1:]):
        part.requires_grad_(False).eval()
        for value in (*part.parameters(), *part.buffers()):
            if value.is_floating_point():
                value.data = value.data.to(dtype)
    return pipeline_of(base, dict(parts), texts, tokenizer)


def conditions(pipe: Any) -> Conditioning:
    """What frozen text encoders make of the prompts, on the card."""
    encoders = list(text_encoders_of(pipe).values())
    width = sum(encoder.config.hidden_size for encoder in encoders)
    dtype = encoders[-1].dtype
    pooled = torch.empty(len(PROMPTS), 1280, dtype=dtype, device="cuda") if len(encoders) > 1 else None
    return Conditioning(torch.empty(len(PROMPTS), TOKENS, width, dtype=dtype, device="cuda"), pooled)


def line_of(row: Row) -> str:
    """A row of the written table."""
    told = row.to_json()
    words = ", ".join([told["method"], *(["text encoder"] if told["train_text_encoder"] else []), *told["means"]])
    held = [f"{told['ledger_gb']:.2f}", f"{row.ratio:.3f}", f"{told['checkpoint_gb']:.2f}"]
    return table_line([row.base, told["plan_gb"] or "unbounded", words, *counted_cells(row.step), *held, *predicted_cells(row.step)])


def counted_cells(step: StepCount) -> list[Any]:
    """What is counted of a step, in the order of COUNTED."""
    told = told_of(step)
    kernels = [f"{told['kernels']:,}", f"{told['optimizer_kernels']:,}"]
    others = [told[name] for name in ("optimizer_bytes_per_value", "moved_gb", "tflop", "waits")]
    return [*kernels, *others, f"{told['peak_gb']:.2f}"]


def predicted_cells(step: StepCount) -> list[str]:
    """A step's predicted time on each card, in ms, and what bounds it."""
    cells = []
    for card in CARDS.values():
        seconds = predict(step, card)
        most = max(seconds, key=lambda what: seconds[what])
        cells.append(f"{1000 * seconds[most]:.0f} ({most})")
    return cells


def table_line(cells: Sequence[Any]) -> str:
    """A line of a written table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def print_heads(heads: Sequence[str]) -> None:
    """The first two lines of a written table."""
    print(f"torch {torch.__version__}; one step at the base's own size, 1+1 rows\n")
    print(table_line(heads) + "\n|" + "---|" * len(heads), flush=True)


COUNTED = ("kernels", "optimizer's", "its bytes a value", "GB moved", "TFLOP", "waits", "peak, GB")
PREDICTED = tuple(f"{name}, ms predicted" for name in CARDS)
HEADS = ("base", "card, GB", "plan", *COUNTED, "ledger", "ledger / peak", "checkpoint, GB", *PREDICTED)
BESIDE = ("base", "whose step", *COUNTED, *PREDICTED)


def count_scripts(peer: Path, shim: str | None, *, as_json: bool) -> int:
    """Print what diffusers' scripts ask of a card, each beside our step with the same means."""
    if not as_json:
        print_heads(BESIDE)
    rows = []
    for script in SCRIPTS:
        ours = count(script.base, None, plan_with(script.base, **script.ours))
        for whose, step in ((script.words, count_script(script, peer, shim)), ("ours", ours.step)):
            rows.append({"family": script.base, "whose": whose} | told_of(step))
            if not as_json:
                print(table_line([script.base, whose, *counted_cells(step), *predicted_cells(step)]), flush=True)
    if as_json:
        print(json.dumps({"scripts": rows}, indent=2))
    return 0


def main() -> int:
    """Print the table, or the rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.kernels")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--only", action="append", help="a base, or a base and a card: sd15/8, sdxl/unbounded")
    parser.add_argument("--memory", action="store_true", help="single means of the memory plan")
    parser.add_argument("--peer", type=Path, help="diffusers' examples/dreambooth: its scripts' steps beside ours")
    parser.add_argument("--shim", help="folders with the peer's torchvision, between colons")
    asked = parser.parse_args()
    if reason := why_not():
        print(f"no fake card: {reason}", file=sys.stderr)
        return 2
    if asked.peer:
        return count_scripts(asked.peer, asked.shim, as_json=asked.json)
    wanted = [(base, gb) for name, base, gb in names() if not asked.only or {name, base} & set(asked.only)]
    if not asked.json:
        print_heads(HEADS)
    rows = []
    alone = (count(base, None, plan_with(base, **means)) for base, means in ALONE if not asked.only or base in asked.only)
    for row in alone if asked.memory else count_all(wanted):
        rows.append(row)
        if not asked.json:
            print(line_of(row), flush=True)
    if asked.json:
        print(json.dumps({"rows": [row.to_json() for row in rows]}, indent=2))
    worst = max((abs(row.ratio - 1) for row in rows), default=0.0)
    print(f"the ledger's largest error is {worst:.1%} (allowed: {TOLERANCE:.0%})", file=sys.stderr)
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
