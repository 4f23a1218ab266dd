"""What was tried to have a LoRA come near full fine-tuning, and the word hold in any sentence: arms on the pocket, side by side.

    python -m tests.benchmarks.recipe --work FOLDER [--arm NAME ...] [--subjects 0-11] [--training-seeds 0,1] [--json] [--write]

Each subject is trained once under an arm, or once from each of several seeds, and measured as in `fidelity`; what was measured is kept
in FOLDER, so that a stopped table goes on where it was. Every difference is paired: the same subjects, prompts and seeds. Any frame: the
same places asked for in sentences that no training uses. Subject 19 is the built-in example. `--write` puts what is kept, of any subject
up to 199, into `recipe.md`.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from dreambooth_cli.engine import evaluation
from dreambooth_cli.settings import AUTO
from tests.machine import machine

from .bench import Bench, Measured, Variant, measured_of
from .subjects import EXAMPLE, drawn_study, name_of


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


BEFORE, FULL, LORA = "full, one sentence", "full", "LoRA"
FULL_FEWER = "full, 40 class images of 25 steps"
FULL_GUIDED, LORA_GUIDED = "full, 84 class images with guidance", "LoRA, 40 class images with guidance"
GUIDED: dict[str, Any] = {"class_guidance_scale": 5.0}
FEWER: dict[str, Any] = {"class_images": 40, "class_image_steps": 25, "class_place_every": 3, **GUIDED}
OF_FEWER: dict[str, Any] = {**FEWER, "method": "full"}
OF_LORA: dict[str, Any] = {**FEWER, "method": "lora", "class_image_steps": 12, "caption_dropout": 0.5}
OWN: dict[str, Any] = {"frames": "own", "rank": 16, "class_batch_size": AUTO, "caption_dropout": 0.1}
FULL_OWN: dict[str, Any] = {**OWN, **FEWER, "method": "full", "steps": 300}
ATTENTION: dict[str, Any] = {**OWN, **FEWER, "method": "lora", "lora_layers": "attention", "steps": 300}
ALL: dict[str, Any] = {**OF_LORA, **OWN, "lora_layers": "all", "steps": 228}
LONG: dict[str, Any] = {**ALL, "steps": 300, "class_image_steps": 25}


def rates(unet: float, text: float) -> dict[str, float]:
    """Two rates as settings."""
    return {"learning_rate": unet, "text_encoder_learning_rate": text}


BEST_OF_ATTENTION, ALL_OWN = "LoRA of attention", "LoRA of all layers, one sentence"
ARMS = (
    Arm(Variant(BEFORE, FULL_OWN), BEFORE, "as 0.2 stood", "the default until now"),
    Arm(Variant(FULL, {"method": "full"}), BEFORE, "beside 84 with guidance: S + .01, class less burnt", "**the default**"),
    Arm(
        Variant(FULL_GUIDED, {"method": "full", "class_images": 84, **GUIDED}),
        BEFORE,
        "beside one of three at a place: S + .03, place - .04",
        "dropped",
    ),
    Arm(
        Variant("full, 80 class images with guidance", {"method": "full", "class_images": 80, **GUIDED}),
        BEFORE,
        "the same",
        "LoRA had 70.3% of its passes",
    ),
    Arm(Variant(FULL_FEWER, OF_FEWER), BEFORE, "place + .1, copied - .1, S as before", "dropped"),
    Arm(Variant(LORA, {"method": "lora"}), FULL, "beside guided ones and dropout .5: retrieved + .05", "**the default**"),
    Arm(Variant(LORA_GUIDED, OF_LORA), FULL, "S + .05 by twice the rank", "dropped"),
    Arm(Variant("LoRA, rank 16", {**OF_LORA, "rank": 16}), LORA_GUIDED, "S - .05", "dropped"),
    Arm(Variant("LoRA, text encoder at 5e-4", {**OF_LORA, **rates(2.5e-3, 5e-4)}), LORA_GUIDED, "place + .03", "dropped"),
    Arm(Variant("LoRA, dropout .25", {**OF_LORA, "caption_dropout": 0.25}), LORA_GUIDED, "place + .03", "dropped"),
    Arm(Variant("full, captions", OF_FEWER, captioned=True), FULL_FEWER, "as the told places: 65 of 65 were right"),
    Arm(Variant("LoRA, captions", OF_LORA, captioned=True), LORA_GUIDED, "the same"),
    Arm(Variant("full, captions in every row", {**OF_FEWER, "caption_dropout": 0.0}, captioned=True), FULL_FEWER, "place + .02, S - .02"),
    Arm(Variant("full, captions, 3 of 10 rows without", {**OF_FEWER, "caption_dropout": 0.3}, captioned=True), FULL_FEWER, "place - .03"),
    Arm(Variant("full, one sentence, captions", FULL_OWN, captioned=True), BEFORE, "place + .05, copied - .05, S - .05"),
    Arm(Variant("LoRA of all layers, one sentence, captions", {**ALL, **rates(2.5e-3, 1e-3)}, captioned=True), ALL_OWN, "the same"),
    Arm(Variant("full, text encoder frozen", {**FULL_OWN, "train_text_encoder": False}), BEFORE, "any frame mended, S lower", "dropped"),
    Arm(Variant("full, text encoder at 2e-5", {**FULL_OWN, **rates(5e-4, 2e-5)}), BEFORE, "any frame mended in part", "dropped"),
    Arm(Variant("full, text encoder until step 120", {**FULL_OWN, "text_encoder_stop": 120}), BEFORE, "the same", "dropped"),
    Arm(Variant("full at 3e-4, text encoder at 5e-4", {**FULL_OWN, **rates(3e-4, 5e-4)}), BEFORE, "learned by the encoder", "dropped"),
    Arm(Variant("full, lambda 1", {**FULL_OWN, "prior_loss_weight": 1.0}), BEFORE, "place + .05, S - .05", "dropped"),
    Arm(Variant("LoRA as 0.2 stood", {**ATTENTION, **rates(5e-4, 1e-4)}), BEFORE, "S .57", "as 0.2 stood"),
    Arm(Variant("LoRA of attention, 2.5e-3, 1e-3", {**ATTENTION, **rates(2.5e-3, 1e-3)}), BEFORE, "S .6", "dropped"),
    Arm(Variant(BEST_OF_ATTENTION, {**ATTENTION, **rates(5e-3, 1e-3)}), BEFORE, "S .65", "attention's own best"),
    Arm(Variant("LoRA of attention, 5e-3, 2e-3", {**ATTENTION, **rates(5e-3, 2e-3)}), BEST_OF_ATTENTION, "S + .05", "dropped"),
    Arm(
        Variant("all layers, 300 steps, 2e-3, 5e-4", {**LONG, **rates(2e-3, 5e-4)}),
        BEST_OF_ATTENTION,
        "S + .2 (pilot: .67 to .90)",
        "kept, shorter",
    ),
    Arm(
        Variant("all layers, 450 steps of 2 + 2, 2e-3, 5e-4", {**ALL, **rates(2e-3, 5e-4), "batch_size": 2, "steps": 450}),
        ALL_OWN,
        "as four at a time",
        "dropped: longer on a clock",
    ),
    Arm(Variant("all layers, 2.5e-3, 5e-4", {**ALL, **rates(2.5e-3, 5e-4)}), ALL_OWN, "as the longer one", "dropped"),
    Arm(Variant(ALL_OWN, {**ALL, **rates(2.5e-3, 1e-3)}), BEFORE, "S within .05 of full", "any frame: .51 on the example"),
    Arm(Variant("all layers, 5e-3, 1e-3", {**ALL, **rates(5e-3, 1e-3)}), ALL_OWN, "S + .03", "dropped"),
    Arm(Variant("all layers, rank 32, 2.5e-3, 5e-4", {**ALL, **rates(2.5e-3, 5e-4), "rank": 32}), ALL_OWN, "S + .03", "dropped"),
)
MAIN = (BEFORE, FULL, LORA)
TRAINING_SEEDS = range(2)
LOOKED_AT = 200  # subjects from here on are kept to check with
TABLE, MARK = Path(__file__).with_name("recipe.md"), "<!-- arms -->"
# All that was measured, by its settings. Not by the code: take out what a change of the code has made untrue.
KEPT = TABLE.with_suffix(".json")
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
    parser.add_argument("--arm", action="append", choices=[arm.name for arm in ARMS], help=f"by default {', '.join(MAIN)}")
    parser.add_argument("--subjects", type=numbers, default=numbers("0-11,19"), help="such as 200-203 or 0,4,19")
    parser.add_argument("--training-seeds", type=numbers, default=[0], help="each subject is trained from each; its figures are the means")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} of what is kept, and measure nothing")
    asked = parser.parse_args()
    bench = Bench(asked.work.resolve())
    if asked.write:
        write(bench)
        return
    found: dict[str, dict[int, Measured]] = {}
    for arm in (arm for arm in ARMS if arm.name in (asked.arm or MAIN)):
        found[arm.name] = {}
        for number in asked.subjects:
            study = drawn_study(number, bench.individuals, bench.seeds, bench.class_seeds)
            found[arm.name][number] = mean_of([bench.measure(study, seeded(arm.variant, seed)) for seed in asked.training_seeds])
        if asked.json:
            print(json.dumps({"arm": arm.name, "subjects": asked.subjects, **told(list(found[arm.name].values()))}), flush=True)
        else:
            print(row_of(arm, found), flush=True)
    if not asked.json:
        print("\n".join([f"\n{machine()}\n", *HEAD, *(row_of(arm, found) for arm in ARMS if arm.name in found)]))


def seeded(variant: Variant, seed: int) -> Variant:
    """The same training from another seed."""
    return replace(variant, train={**variant.train, "seed": seed})


def mean_of(trainings: Sequence[Measured]) -> Measured:
    """One subject's measurements, each the mean over several trainings of it."""
    first, *_ = values = [asdict(one) for one in trainings]

    def mean(name: str) -> Any:
        found = [one[name] for one in values]
        return [statistics.mean(part) for part in zip(*found, strict=True)] if name.endswith("_loss") else statistics.mean(found)

    return measured_of({name: mean(name) for name in first})


def kept(bench: Bench) -> dict[int, dict[str, dict[int, Measured]]]:
    """What was measured from each training seed of each arm, by the subject's number: in the folder, or before, as KEPT has it; KEPT then
    has all of it."""
    before: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    found: dict[int, dict[str, dict[int, Measured]]] = {seed: {arm.name: {} for arm in ARMS} for seed in TRAINING_SEEDS}
    for seed, arm, number in product(TRAINING_SEEDS, ARMS, range(LOOKED_AT)):
        path = bench.path_of(name_of(number), seeded(arm.variant, seed))
        name = f"{path.parent.name}/{path.name}"
        measured = bench.kept(path) or (measured_of(before[name]) if name in before else None)
        if measured is not None:
            found[seed][arm.name][number] = measured
            before[name] = asdict(measured)
    KEPT.write_text(json.dumps(dict(sorted(before.items())), indent=0) + "\n", encoding="utf-8")
    return {seed: {name: measured for name, measured in arms.items() if measured} for seed, arms in found.items()}


def trained_twice(found: dict[int, dict[str, dict[int, Measured]]], subjects: Sequence[int]) -> dict[str, dict[int, Measured]]:
    """The means over all training seeds, of the subjects and arms that were trained from each."""
    first, *others = found.values()
    means = {
        name: {
            number: mean_of([one, *(other[name][number] for other in others)])
            for number, one in measured.items()
            if number in subjects and all(number in other.get(name, {}) for other in others)
        }
        for name, measured in first.items()
    }
    return {name: measured for name, measured in means.items() if measured}


def chosen(found: dict[str, dict[int, Measured]], subjects: Sequence[int]) -> dict[str, dict[int, Measured]]:
    """Of what was measured these subjects."""
    some = {name: {number: one for number, one in measured.items() if number in subjects} for name, measured in found.items()}
    return {name: measured for name, measured in some.items() if measured}


def write(bench: Bench) -> None:
    """Put what is kept into the page, between its marks."""
    of_seeds = kept(bench)
    found = of_seeds[0]
    twelve = chosen(found, range(12))
    twice = trained_twice(of_seeds, range(12))
    example = chosen(found, [EXAMPLE])
    told_of = [
        "The subjects 0 to 11:\n",
        *HEAD,
        *(row_of(arm, twelve) for arm in ARMS if arm.name in twelve and arm.name in MAIN),
        "\nThe same, each subject trained twice, from the training seeds 0 and 1; its figures are the means of the two:\n",
        *HEAD,
        *(row_of(arm, twice) for arm in ARMS if arm.name in twice),
        "\nThe built-in example:\n",
        *HEAD,
        *(row_of(arm, example) for arm in ARMS if arm.name in example),
        "\nAll arms, each on the subjects that it was tried on, the example among them:\n",
        *HEAD,
        *(row_of(arm, found) for arm in ARMS if arm.name in found),
    ]
    page = TABLE.read_text(encoding="utf-8")
    begin, end = page.index(MARK) + len(MARK), page.index(MARK.replace("<!-- ", "<!-- /"))
    TABLE.write_text(f"{page[:begin]}\n" + "\n".join(told_of) + f"\n{page[end:]}", encoding="utf-8")


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
    "| arm | subjects | S | dS | retrieved (d) | place (d) | copied (d) | S in any frame, of the trained one's | the least | "
    "thousand passes | predicted | what became of it |",
    "|---" * 12 + "|",
)


def row_of(arm: Arm, found: dict[str, dict[int, Measured]]) -> str:
    """An arm's line: means, and paired differences with what it is held against on the subjects that both have."""
    mine, others = found[arm.name], found.get(arm.beside, {}) if arm.beside != arm.name else {}
    measured = list(mine.values())
    pairs = [(mine[number], others[number]) for number in mine if number in others]

    def mean(name: str) -> float:
        return statistics.mean(NUMBERS[name](one) for one in measured)

    def change(name: str) -> str:
        if not pairs:
            return "–"
        interval = evaluation.bootstrap([NUMBERS[name](one) - NUMBERS[name](before) for one, before in pairs])
        return f"{interval.mean:+.3f}" + (f" [{interval.low:+.3f}, {interval.high:+.3f}]" if len(pairs) > 2 else "")

    cells = [
        arm.name,
        f"{len(measured)}" + (f" (d: {len(pairs)})" if pairs and len(pairs) != len(measured) else ""),
        f"{mean('S'):.3f}",
        change("S"),
        *(f"{mean(name):.3f} ({change(name)})" for name in ("retrieved", "place", "copied")),
        f"{mean('any_frame_share'):.3f}",
        f"{min(NUMBERS['any_frame_share'](one) for one in measured):.3f}",
        f"{statistics.mean(one.passes for one in measured) / 1000:.1f}",
        arm.predicted,
        arm.verdict,
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
