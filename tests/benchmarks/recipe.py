"""What was tried to have a LoRA come near full fine-tuning, and the word hold in any sentence: arms on the pocket, side by side.

    python -m tests.benchmarks.recipe --work FOLDER [--arm NAME ...] [--subjects 0-11] [--json] [--write]

Each subject is trained once under an arm and measured as in `fidelity`; what was measured is kept in FOLDER, so that a stopped table
goes on where it was. Every difference is paired: the same subjects, prompts and seeds. Any frame: the same places asked for in
sentences that no training uses.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreambooth_cli.engine import evaluation
from tests.machine import machine

from .bench import Bench, Measured, Variant
from .subjects import drawn_study


@dataclass(frozen=True)
class Arm:
    """A way to train, the arm that it is held against, what was predicted of it, and what became of it."""

    variant: Variant
    beside: str
    predicted: str
    verdict: str = ""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.variant.name


FULL, LORA = "full, one sentence", "LoRA, attention"
OWN = {"frames": "own"}
LORA_BEFORE = {**OWN, "method": "lora", "lora_layers": "attention", "learning_rate": 2e-3, "text_encoder_learning_rate": 5e-4}
ARMS = (
    Arm(Variant(FULL, {**OWN, "method": "full"}), FULL, "as 0.2 stood"),
    Arm(Variant("full, text encoder frozen", {**OWN, "train_text_encoder": False}), FULL, "any frame mended, S lower"),
    Arm(Variant("full, text encoder at a fifth", {**OWN, "text_encoder_learning_rate": 2e-5}), FULL, "any frame mended in part"),
    Arm(Variant("full, UNet at 2e-4", {**OWN, "learning_rate": 2e-4}), FULL, "any frame as before, S lower"),
    Arm(Variant("full, varied frames", {"frames": "varied", "method": "full"}), FULL, "any frame 0.95 of the trained one, S as before"),
    Arm(Variant(LORA, LORA_BEFORE), FULL, "as 0.2 stood"),
    Arm(Variant("LoRA, attention, varied frames", {**LORA_BEFORE, "frames": "varied"}), LORA, "any frame mended"),
    Arm(Variant("LoRA, all layers", {**LORA_BEFORE, "lora_layers": "all"}), LORA, "S + .2 (pilot: .67 to .90)"),
    Arm(Variant("LoRA, all layers, varied frames", {**LORA_BEFORE, "lora_layers": "all", "frames": "varied"}), LORA, "both gains"),
)
NUMBERS: dict[str, Callable[[Measured], float]] = {
    "S": lambda one: one.scaled,
    "retrieved": lambda one: one.retrieved,
    "place": lambda one: one.place,
    "copied": lambda one: one.copied,
    "S_any_frame": lambda one: one.any_frame_scaled,
    "retrieved_any_frame": lambda one: one.any_frame_retrieved,
    "place_any_frame": lambda one: one.any_frame_place,
    "any_frame_share": lambda one: one.any_frame_share,
}


def main() -> None:
    """Measure arms and tell them, as a table or as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.recipe")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the measurements")
    parser.add_argument("--arm", action="append", choices=[arm.name for arm in ARMS])
    parser.add_argument("--subjects", type=numbers, default=numbers("0-11"), help="such as 200-203 or 0,4,19")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    bench = Bench(asked.work.resolve())
    found: dict[str, list[Measured]] = {}
    for arm in (arm for arm in ARMS if asked.arm is None or arm.name in asked.arm):
        found[arm.name] = []
        for number in asked.subjects:
            found[arm.name].append(bench.measure(drawn_study(number, bench.individuals, bench.seeds, bench.class_seeds), arm.variant))
        if asked.json:
            print(json.dumps({"arm": arm.name, "subjects": asked.subjects, **told(found[arm.name])}), flush=True)
        else:
            print(row_of(arm, found), flush=True)
    if not asked.json:
        print("\n".join([f"\n{machine()}", *HEAD, *(row_of(arm, found) for arm in ARMS if arm.name in found)]))


def numbers(text: str) -> list[int]:
    """`0-3,7` -> 0, 1, 2, 3, 7."""
    parts = [part.split("-") for part in text.split(",")]
    return [number for part in parts for number in range(int(part[0]), int(part[-1]) + 1)]


def told(measured: Sequence[Measured]) -> dict[str, object]:
    """Each number's mean over the subjects, and its interval."""
    rows: dict[str, object] = {}
    for name, number in NUMBERS.items():
        interval = evaluation.bootstrap([number(one) for one in measured])
        rows[name] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return rows | {"passes": statistics.mean(one.passes for one in measured), "seconds": statistics.median(one.seconds for one in measured)}


HEAD = (
    "",
    "| arm | n | S | dS | retrieved (d) | place (d) | copied (d) | S in any frame, of the trained one | least | thousand passes | s |",
    "|---" * 11 + "|",
)


def row_of(arm: Arm, found: dict[str, list[Measured]]) -> str:
    """An arm's line: means, and paired differences with what it is held against where that was measured too."""
    measured, other = found[arm.name], found.get(arm.beside)

    def mean(name: str) -> float:
        return statistics.mean(NUMBERS[name](one) for one in measured)

    def change(name: str) -> str:
        if other is None or arm.beside == arm.name or len(other) != len(measured):
            return "–"
        pairs = zip(measured, other, strict=True)
        interval = evaluation.bootstrap([NUMBERS[name](one) - NUMBERS[name](before) for one, before in pairs])
        return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"

    cells = [
        arm.name,
        str(len(measured)),
        f"{mean('S'):.3f}",
        change("S"),
        *(f"{mean(name):.3f} ({change(name)})" for name in ("retrieved", "place", "copied")),
        f"{mean('any_frame_share'):.3f}",
        f"{min(NUMBERS['any_frame_share'](one) for one in measured):.3f}",
        f"{statistics.mean(one.passes for one in measured) / 1000:.1f}",
        f"{statistics.median(one.seconds for one in measured):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
