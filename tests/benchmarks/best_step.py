"""Is the step that a run keeps as its best really the best? All judged steps of pocket's runs are scored on other pictures.

    python -m tests.benchmarks.best_step --work FOLDER [--times 1|4] [--subjects 0-11] [--write]

The judge draws with another sentence and other seeds; the score is S x place with the prompts of `fidelity`. It draws all of its pictures,
however long that takes here, so that a busy machine measures the same. Measurements are kept in FOLDER, so that a table that was stopped
can go on. `--write` puts what is kept there, or was before, between the marks of `best_step.md`, and measures nothing.
"""

import argparse
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any
from unittest import mock

import torch

from dreambooth_cli.engine import evaluation
from dreambooth_cli.engine.families.loading import load_family
from dreambooth_cli.engine.images.sampling import use_scheduler
from dreambooth_cli.engine.training.trained import add_trained, fill_trained
from dreambooth_cli.judged import due_steps, read_judged
from dreambooth_cli.run import Run
from tests.machine import machine

from .bench import Bench, Variant, agreement, settings_of
from .recipe import numbers
from .subjects import Study, drawn_study, name_of

TABLE, MARK = Path(__file__).with_name("best_step.md"), "<!-- steps -->"
# As pocket's defaults were when the table was measured; since then there are more class images, drawn in fewer steps and without guidance.
CLASS_IMAGES = {"class_images": 40, "class_image_steps": 25, "class_guidance_scale": 5.0, "class_place_every": 3}
DEFAULT = settings_of(Variant("default", CLASS_IMAGES), {}).values
# Of the scored pictures, for runs of so many times the default's steps. The longer ones are judged at eight steps instead of four, and the
# best of more figures is further above its true value: these have less noise.
SEEDS = {1: range(2), 4: range(6)}
KEPT = TABLE.with_suffix(".json")  # all that was measured, by its settings
SUBJECTS = 12
MOST_REGRET, LEAST_GAIN = 0.03, -0.01
HOURS = 1e6  # seconds for the judge, so that it draws all of its pictures


@dataclass(frozen=True)
class Scored:
    """A run's judged steps, which one the judge chose, and for each step S (a mean cosine) and the share of right places."""

    steps: tuple[int, ...]
    chosen: int
    fidelity: tuple[float, ...]
    place: tuple[float, ...]

    @property
    def scores(self) -> list[float]:
        """S x place of each step."""
        return [one * other for one, other in zip(self.fidelity, self.place, strict=True)]

    @property
    def score(self) -> float:
        """The score of the chosen step."""
        return self.scores[self.steps.index(self.chosen)]

    @property
    def regret(self) -> float:
        """How far the chosen step is below the best one. The best of several noisy figures is too high, and so is this."""
        return max(self.scores) - self.score

    @property
    def gain(self) -> float:
        """How far the chosen step is above the last one."""
        return self.score - self.scores[-1]


def variant_of(times: int) -> Variant:
    """The default with `times` as many steps; all steps that such a run judges keep their weights."""
    longer = replace(DEFAULT, steps=DEFAULT.steps * times, keep="best", judge="auto")
    every, *_ = due_steps(longer)
    return Variant(f"{times} times", {**CLASS_IMAGES, "steps": longer.steps, "checkpoint_every": every, "keep": "all", "judge": "auto"})


def path_of(bench: Bench, number: int, times: int) -> Path:
    """Where a subject's scores are kept: for these weights and settings alone."""
    path = bench.path_of(name_of(number), variant_of(times))
    return path.with_name(f"best step {path.name}")


def score(bench: Bench, number: int, times: int) -> Scored:
    """A subject's scores, from the kept file or by training and drawing now."""
    path = path_of(bench, number, times)
    if not path.exists():
        study = drawn_study(number, bench.individuals, bench.seeds, bench.class_seeds)
        with mock.patch("dreambooth_cli.workflows.judging.PATIENCE", HOURS):
            run = bench.train(bench.project(study), study.noun, variant_of(times))
        found = draw_and_score(bench, study, run)
        shutil.rmtree(run.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return scored_of(json.loads(path.read_text(encoding="utf-8")))


def scored_of(found: dict[str, Any]) -> Scored:
    """What was scored before, from its JSON."""
    return Scored(tuple(found["steps"]), found["chosen"], tuple(found["fidelity"]), tuple(found["place"]))


def draw_and_score(bench: Bench, study: Study, run: Run) -> Scored:
    """S and place of every step that the run's judge looked at."""
    judged, record = read_judged(run.judged), run.record()
    if judged is None:
        raise RuntimeError(f"the steps of {run.path} were not judged")
    family = load_family(bench.base, dtype=torch.float32, device=torch.device("cpu"))
    use_scheduler(family.pipe, "dpm++")
    trained = add_trained(family, record.plan, record.train_settings())
    fidelity, place = [], []
    for step in judged.steps:
        fill_trained(trained, run.checkpoint(step.step), run.id)
        drawn = bench.draw(family, study.named_prompts(study.noun), study.seeds)
        fidelity.append(evaluation.subject_fidelity(study.eye, drawn, study.photos))
        place.append(agreement(bench.judge.read(evaluation.to_pixels(drawn, 64)).answers("place"), study.places))
    return Scored(tuple(step.step for step in judged.steps), judged.best, tuple(fidelity), tuple(place))


HEAD = ("| subject | chosen | the best | S x place of each judged step | regret | above the last |", "|---|---|---|---|---|---|")


def row_of(number: int, found: Scored) -> str:
    """A subject's line."""
    best = found.steps[found.scores.index(max(found.scores))]
    each = ", ".join(f"{step}: {one:.3f}" for step, one in zip(found.steps, found.scores, strict=True))
    return f"| {number} | {found.chosen} | {best} | {each} | {found.regret:.3f} | {found.gain:+.3f} |"


def verdict_of(found: list[Scored]) -> str:
    """The two targets, and whether they are met; an interval needs three subjects."""
    regret = mean(one.regret for one in found)
    said = f"Mean regret {regret:.3f} (at most {MOST_REGRET}): {'yes' if regret <= MOST_REGRET else 'NO'}."
    if len(found) < 3:
        return f"{said} Too few subjects for an interval of what is gained over the last."
    gain = evaluation.bootstrap([one.gain for one in found])
    above = f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    return f"{said} Above the last by {above} (above {LEAST_GAIN}): {'yes' if gain.low > LEAST_GAIN else 'NO'}."


def kept(work: Path, before: dict[str, Any]) -> dict[int, dict[int, Scored]]:
    """What was scored at each length, by the subject's number: in the folder, or before, which then has all of it."""
    found: dict[int, dict[int, Scored]] = {times: {} for times in SEEDS}
    for times in SEEDS:
        bench = Bench(work, seeds=SEEDS[times])
        for number in range(SUBJECTS):
            path = path_of(bench, number, times)
            name = f"{path.parent.name}/{path.name}"
            if path.exists():
                before[name] = json.loads(path.read_text(encoding="utf-8"))
            if name in before:
                found[times][number] = scored_of(before[name])
    return found


def write(work: Path) -> None:
    """Put what is kept between the page's marks, and what is missing."""
    before: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    lines = [f"{machine()}; float32."]
    for times, found in kept(work, before).items():
        missing = ", ".join(str(number) for number in range(SUBJECTS) if number not in found)
        steps, seeds = DEFAULT.steps * times, len(SEEDS[times])
        lines += ["", f"## {steps} steps{' (the default)' if times == 1 else ''}", ""]
        lines += [f"{len(found)} of {SUBJECTS} subjects{missing and f'; not measured: {missing}'}; {seeds} pictures of each place."]
        if found:
            lines += ["", *HEAD, *(row_of(number, one) for number, one in found.items()), "", verdict_of(list(found.values()))]
    page, _, after = TABLE.read_text(encoding="utf-8").split(MARK)
    TABLE.write_text(MARK.join((page, "\n" + "\n".join(lines) + "\n", after)), encoding="utf-8")
    KEPT.write_text(json.dumps(dict(sorted(before.items())), indent=0) + "\n", encoding="utf-8")


def main() -> None:
    """Measure subjects and tell them, or write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.best_step")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the measurements")
    parser.add_argument("--times", type=int, choices=SEEDS, default=1, help="times the default's steps")
    parser.add_argument("--subjects", type=numbers, default=numbers(f"0-{SUBJECTS - 1}"), help="such as 0-3 or 0,4")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} of what is kept, and measure nothing")
    asked = parser.parse_args()
    if asked.write:
        write(asked.work.resolve())
        return
    bench = Bench(asked.work.resolve(), seeds=SEEDS[asked.times])
    print("\n".join(HEAD), flush=True)
    found = []
    for number in asked.subjects:
        found.append(score(bench, number, asked.times))
        print(row_of(number, found[-1]), flush=True)
    print(f"\n{machine()}\n\n{verdict_of(found)}")


if __name__ == "__main__":
    main()
