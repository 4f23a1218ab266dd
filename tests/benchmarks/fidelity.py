"""The proof on the pocket model: the DreamBooth paper's questions, answered with its metrics on drawn subjects.

    python -m tests.benchmarks.fidelity --work FOLDER [--rows main|controls|sweeps|photos] [--write]
    python -m tests.benchmarks.fidelity --quick

Every run's measurements are kept in FOLDER, so that a table that was stopped can go on. Subject k is `draw_subject(k)` of the
world, which neither the base nor the judge has seen; its five photos show two places, and the ten prompts ask for the ten
others, each with two seeds. Seeds and prompts are the same before and after training, and in every row.

Subject fidelity S is scaled: 0 is the base's pictures of the class, 1 the world's own drawings of the subject in the places asked for.
Retrieval: which of 21 galleries is nearest, the subject's photos or those of one of 20 look-alikes with one attribute changed.
"""

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dreambooth_cli.engine import evaluation
from tests.machine import machine

from .bench import DRAWING, PASTED, Bench, Measured, Variant, settings_of
from .subjects import Study, drawn_study, real_studies

SUBJECTS = 12
PHOTOS = Path(__file__).parents[2].parent / "shared" / "subjects"
SWEPT = 4  # subjects of the sweeps
COPY = 0.95  # from this correlation of pixels on, a picture is a photo again to the eye


MAIN = (
    Variant("default"),
    Variant("no prior", {"class_images": 0}),
    Variant("no prior, no noun", {"class_images": 0}, noun=""),
    Variant("no prior, wrong noun", {"class_images": 0}, noun="wrong"),
)
CONTROLS = (PASTED, Variant("undertrained", {"steps": 20}), Variant("overtrained", {"steps": 1500}))
SWEEPS = (
    MAIN[0],
    *(Variant(f"steps {steps}", {"steps": steps}) for steps in (50, 100, 200, 400, 600, 1000)),
    *(Variant(f"rate {rate:g}", {"learning_rate": rate}) for rate in (1e-4, 2e-4, 1e-3)),
    Variant("text encoder frozen", {"train_text_encoder": False}),
    Variant("text encoder's rate 5e-4", {"text_encoder_learning_rate": 5e-4}),
    Variant("LoRA", {"method": "lora", "learning_rate": 2e-3, "train_text_encoder": False}),
    Variant("LoRA + text encoder", {"method": "lora", "learning_rate": 2e-3, "text_encoder_learning_rate": 5e-4}),
    *(Variant(f"lambda {weight:g}", {"prior_loss_weight": weight}) for weight in (0.1, 1.0, 3.0)),
    *(Variant(f"batch {size}", {"batch_size": size}) for size in (1, 2)),
    Variant("min-SNR 5", {"snr_gamma": 5.0}),
    Variant("EMA 0.99", {"ema": True, "ema_decay": 0.99}),
    Variant("mirrored photos too", {"mirror": True}),
)


# The tables

COLUMNS = ("S", "scaled", "retrieved", "place", "class", "CLIP-T", "PRES", "DIV", "copied", "nearest")


def numbers_of(one: Measured) -> tuple[float, ...]:
    """One subject's numbers, in the table's order."""
    return (
        one.fidelity,
        one.scaled,
        one.retrieved,
        one.place,
        one.class_right,
        one.clip_text,
        one.preservation,
        one.diversity,
        one.copied,
        one.nearest,
    )


def numbers_of_base(one: Measured) -> tuple[float | None, ...]:
    """The same of the base as it came, asked for the class; None where nothing is measured."""
    return (
        one.floor,
        0.0,
        None,
        one.base_place,
        one.base_class_right,
        one.base_clip_text,
        one.base_preservation,
        one.base_diversity,
        one.base_copied,
        one.base_nearest,
    )


def row_of(name: str, numbers: Iterable[Sequence[float | None]]) -> str:
    """Means over the subjects, a line of numbers each, with their 95% intervals."""
    cells = []
    for values in zip(*numbers, strict=True):
        known = [value for value in values if value is not None]
        found = evaluation.bootstrap(known) if known else None
        cells.append(f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]" if found else "–")
    return f"| {name} | {' | '.join(cells)} |"


def table_of(rows: dict[str, list[Measured]]) -> str:
    """Variants beneath each other, as Markdown; the untrained base above them."""
    first = next(iter(rows.values()))
    return "\n".join(
        [
            f"| | {' | '.join(COLUMNS)} |",
            "|---" * (len(COLUMNS) + 1) + "|",
            row_of("the base, untrained", map(numbers_of_base, first)),
            *(row_of(name, map(numbers_of, measured)) for name, measured in rows.items()),
            f"\nS of the best possible pictures: {statistics.mean(one.ceiling for one in first):.3f}.",
        ]
    )


def verdicts(rows: dict[str, list[Measured]]) -> list[tuple[str, bool]]:
    """What the first four rows must show, in words with figures, and whether they do."""
    default, bare = rows["default"], rows["no prior"]
    scaled, retrieved, place = (
        evaluation.bootstrap([getattr(one, name) for one in default]) for name in ("scaled", "retrieved", "place")
    )
    ceiling = statistics.mean(one.base_place for one in default)
    learned = [falls(one.identifier_loss) > falls(one.unrelated_loss) for one in default]
    pres = evaluation.bootstrap(
        [one.preservation - other.preservation for one, other in zip(default, bare, strict=True)]
    )
    cost = evaluation.bootstrap([one.fidelity - other.fidelity for one, other in zip(default, bare, strict=True)])
    div = evaluation.bootstrap([one.diversity - other.diversity for one, other in zip(default, bare, strict=True)])
    nouns = [statistics.mean(one.fidelity for one in rows[name]) for name in NOUNS]
    return [
        (f"subject fidelity {scaled.mean:.2f} of the way (at least 0.85)", scaled.mean >= 0.85),
        (f"the individual is retrieved in {retrieved.mean:.0%} (at least 80%)", retrieved.mean >= 0.8),
        (f"the identifier's loss falls more than another prompt's on {sum(learned)} of {len(learned)}", all(learned)),
        (f"the place is right in {place.mean:.0%} (at least 80%; the base {ceiling:.0%})", place.mean >= 0.8),
        (f"prior preservation lowers PRES: {told(pres)}", pres.high < 0),
        (f"prior preservation raises DIV: {told(div)}", div.low > 0),
        (f"prior preservation does not raise S: {told(cost)} (in the paper -0.028)", cost.low <= 0),
        (f"noun right {nouns[0]:.3f} > wrong {nouns[1]:.3f} > none {nouns[2]:.3f}", nouns == sorted(nouns)[::-1]),
    ]


NOUNS = ("no prior", "no prior, wrong noun", "no prior, no noun")


def falls(before_and_after: Sequence[float]) -> float:
    """How much a loss has fallen, as a share of what it was."""
    before, after = before_and_after
    return (before - after) / before


def control_verdicts(default: list[Measured], rows: dict[str, list[Measured]]) -> list[tuple[str, bool]]:
    """What the metrics must tell apart before they may be believed."""

    def mean(name: str, measured: list[Measured]) -> float:
        return float(statistics.mean(getattr(one, name) for one in measured))

    pasted, under, over = (rows[variant.name] for variant in CONTROLS)
    default = default[: len(pasted)]
    return [
        (
            f"a pasted photo is a copy ({mean('copied', pasted):.2f}, learned {mean('copied', default):.2f}) "
            f"in the wrong place ({mean('place', pasted):.0%} right, learned {mean('place', default):.0%})",
            mean("copied", pasted) > 0.99 > mean("copied", default)
            and mean("place", pasted) < mean("place", default) / 2,
        ),
        (
            f"an undertrained run has learned less ({mean('scaled', under):.2f}, learned {mean('scaled', default):.2f})",
            mean("scaled", under) < mean("scaled", default) - 0.2,
        ),
        (
            f"an overtrained run has lost more of the class (PRES {mean('preservation', over):.3f}, "
            f"learned {mean('preservation', default):.3f}) or of the prompt (place {mean('place', over):.0%})",
            mean("preservation", over) > mean("preservation", default) or mean("place", over) < mean("place", default),
        ),
    ]


def told(found: evaluation.Interval) -> str:
    """A mean and its interval in words."""
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


FEW: dict[str, Any] = {"steps": 100, "class_images": 24, "class_image_steps": 10, "rehearsal": False}
QUICK = Variant("quick", {**FEW, "learning_rate": 8e-4})
QUICK_LORA = Variant("quick LoRA", {**FEW, "steps": 60, "method": "lora", "rank": 16, "learning_rate": 4e-3})


def quick(work: Path) -> list[tuple[str, bool]]:
    """Three subjects, few steps, one with a LoRA: subject fidelity rises, the class is kept, the prompt is followed, in any frame."""
    bench = Bench(work, seeds=(0,), class_seeds=range(100, 104), drawing=replace(DRAWING, steps=8))
    studies = [in_few_places(study, 5) for study in studies_of(bench, "quick", 3, PHOTOS)]
    measured = [bench.measure(study, variant) for study, variant in zip(studies, (QUICK, QUICK_LORA, QUICK), strict=True)]
    print(table_of({"quick": measured}))
    scaled, place, right = (
        statistics.mean(getattr(one, name) for one in measured) for name in ("scaled", "place", "class_right")
    )
    kept = statistics.mean(one.diversity / one.base_diversity for one in measured)
    fallen = statistics.mean(falls(one.identifier_loss) for one in measured)
    framed = statistics.mean(one.any_frame_scaled for one in measured)
    lora = measured[1].scaled
    return [
        (f"subject fidelity rose by {scaled:.2f} of the way (at least 0.4)", scaled >= 0.4),
        (f"the LoRA's own by {lora:.2f} (at least 0.4)", lora >= 0.4),
        (f"in frames that no training uses by {framed:.2f} (at least 0.3)", framed >= 0.3),
        (f"the place asked for is there in {place:.0%} (at least 70%)", place >= 0.7),
        (f"the class is right in {right:.0%} (at least 80%)", right >= 0.8),
        # without prior preservation about a fifth of it is left
        (f"class pictures keep {kept:.0%} of their diversity (at least 50%)", kept >= 0.5),
        (f"the identifier's loss fell by {fallen:.0%} (at least 40%)", fallen >= 0.4),
    ]


def in_few_places(study: Study, count: int) -> Study:
    """The same subject, asked for in the first places alone."""
    return replace(study, places=study.places[:count], seeds=study.seeds[:count], best=study.best and study.best[:count])


def main() -> int:
    """The whole table, or the quick one. Returns 1 where it falls short."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fidelity")
    parser.add_argument("--work", type=Path, help="folder that keeps the measurements")
    parser.add_argument("--quick", action="store_true", help="three subjects, a few minutes")
    parser.add_argument("--rows", choices=("main", "controls", "sweeps", "photos"), action="append")
    parser.add_argument("--subjects", type=int, help="how many (12, for controls and sweeps 4)")
    parser.add_argument("--write", action="store_true", help=f"write {REPORT.name} of what is measured")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of folders of real photos")
    asked = parser.parse_args()
    if asked.quick:
        with TemporaryDirectory() as folder:
            return tell(quick(Path(folder)))
    if asked.work is None:
        parser.error("--work names the folder that keeps the measurements")
    bench = Bench(asked.work.resolve())
    if asked.write:
        write_report(bench, asked.photos)
        return 0
    return max(measure_rows(bench, name, asked.subjects, asked.photos) for name in asked.rows or ["main"])


REPORT = Path(__file__).with_name("fidelity.md")
LEGEND = (
    "In brackets: the 95% interval, by resampling subjects. Each figure covers all pictures from a subject's prompts, or from the class "
    "prompt:",
    "",
    "- S: mean cosine with the five photos in the recogniser's space, without backgrounds; scaled: 0 is the base's pictures of the class, "
    "1 the world's own drawings of the subject in the places asked for (with real photos: the other photos);",
    "- retrieved: the subject's photos are nearer than those of 20 look-alikes; place, class: the reader sees what was asked for;",
    "- CLIP-T: cosine with the prompt without the identifier; PRES: S of the class prompt's pictures; DIV: their mean distance;",
    "- copied, nearest: of the picture that is most like a photo, the correlation of its pixels and its cosine in CLIP's space.",
)
CARRIES = """\
## What carries over to the large models

The numbers do not: a network of nine million weights that knows a drawn world needs a hundred times Stable Diffusion's learning
rate, a third of its steps and a smaller lambda. So only `pocket` takes its defaults from these tables; the large models keep the
paper's and those that are common for them. The directions may be expected to carry over, and only where the paper or others have
seen the same with large models:

- More steps, or a higher learning rate, gain likeness slowly and lose the prompt quickly: the place is lost, and the photos themselves
  reappear, well before likeness stops growing. It pays to look at samples and to stop early.
- Prior preservation keeps the class and its diversity. A larger lambda keeps them better but learns the subject less.
- The class noun helps, even a wrong one.
- Training the text encoder adds likeness. At the UNet's own learning rate it was too much here: the place was lost. The paper trains
  both at one rate; this does not show whether a lower rate suits a large text encoder too.
- A LoRA learned less in the same number of steps; its learning rate was not tuned as long as that of full fine-tuning.
- Min-SNR weighting, an average of the weights and mirrored photos differ from the default by less than four subjects can show.\
"""
TITLES = {
    "main": "The paper's questions",
    "controls": "Controls: what the metrics must tell apart",
    "sweeps": "One setting changed at a time",
    "photos": "Real photos at 64 px: this shows the method, not beauty",
}
ROWS = {"main": MAIN, "controls": CONTROLS, "sweeps": SWEEPS, "photos": MAIN[:2]}


def measure_rows(bench: Bench, name: str, count: int | None, photos: Path) -> int:
    """Measure and print one part of the table. Returns 1 where it falls short."""
    studies = studies_of(bench, name, count, photos)
    rows: dict[str, list[Measured]] = {}
    for variant in ROWS[name]:
        rows[variant.name] = [bench.measure(study, variant) for study in studies]
        print(row_of(variant.name, map(numbers_of, rows[variant.name])), flush=True)
    print(table_of(rows))
    return tell(verdicts_of(bench, name, studies, rows))


def studies_of(bench: Bench, name: str, count: int | None, photos: Path) -> list[Study]:
    """The subjects of one part of the table."""
    if name == "photos":
        return real_studies(photos, bench.clip, bench.seeds, bench.class_seeds)
    count = count or (SUBJECTS if name == "main" else SWEPT)
    return [drawn_study(number, bench.individuals, bench.seeds, bench.class_seeds) for number in range(count)]


def copying(rows: dict[str, list[Measured]]) -> tuple[str, bool]:
    """The number of steps from which, on average over the subjects, the most copied picture is closer to a photo than COPY."""
    steps = {int(variant.train["steps"]): rows[variant.name] for variant in SWEEPS[1:] if "steps" in variant.train}
    steps[settings_of(MAIN[0], {}).values.steps] = rows[MAIN[0].name]
    told = {count: statistics.mean(one.copied for one in steps[count]) for count in sorted(steps)}
    begun = next((count for count, score in told.items() if score > COPY), None)
    scores = ", ".join(f"{score:.2f} after {count}" for count, score in told.items())
    return f"copying (pixels' correlation above {COPY}) starts at {begun or 'none of these'} steps: {scores}", True


def verdicts_of(
    bench: Bench, name: str, studies: list[Study], rows: dict[str, list[Measured]]
) -> list[tuple[str, bool]]:
    """What one part of the table must show; empty for one without targets."""
    if name == "main":
        return verdicts(rows)
    if name == "controls":
        return control_verdicts([bench.measure(study, MAIN[0]) for study in studies], rows)
    if name == "sweeps":
        return [copying(rows)]
    return []


def write_report(bench: Bench, photos: Path) -> None:
    """Write everything that has been measured to `fidelity.md` beside this file. Nothing is trained: incomplete parts are left out."""
    settings = settings_of(MAIN[0], {}).values
    lines = [
        "# Does it learn? The pocket model's fidelity table",
        "",
        f"Written on {datetime.now(UTC):%Y-%m-%d} by `python -m tests.benchmarks.fidelity --work FOLDER --write`; "
        f"{machine()}; {torch.get_num_threads()} thread(s), float32; weights `{bench.weights}`.",
        "",
        f"The default: {settings.steps} steps, learning rate {settings.learning_rate:g}, {settings.class_images} class images, "
        f"lambda {settings.prior_loss_weight:g}, batch {settings.batch_size}, text encoder "
        f"{'trained' if settings.train_text_encoder else 'frozen'}. Drawn with DPM++ 2M, {DRAWING.steps} steps, "
        f"guidance {DRAWING.guidance_scale:g}.",
    ]
    lines += ["", *LEGEND]
    for name, variants in ROWS.items():
        studies = studies_of(bench, name, None, photos)
        if all(bench.path_of(study.name, variant).exists() for study in studies for variant in variants):
            rows = {variant.name: [bench.measure(study, variant) for study in studies] for variant in variants}
            seconds = statistics.median(one.seconds for measured in rows.values() for one in measured)
            said = [
                f"- {'yes' if is_so else 'NO'}: {words}" for words, is_so in verdicts_of(bench, name, studies, rows)
            ]
            head = f"{len(studies)} subjects; the median of training and drawing one: {seconds:.0f} s."
            lines += ["", f"## {TITLES[name]}", "", head, "", table_of(rows), "", *said]
    lines += ["", CARRIES]
    REPORT.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def tell(found: list[tuple[str, bool]]) -> int:
    """Print what was asked for and whether it is so."""
    for words, is_so in found:
        print(f"{'yes' if is_so else 'NO '}  {words}")
    return 0 if all(is_so for _, is_so in found) else 1


if __name__ == "__main__":
    sys.exit(main())
