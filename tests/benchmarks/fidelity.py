"""The proof on the pocket model: the questions of the DreamBooth paper, asked with its metrics over drawn subjects.

    python -m tests.benchmarks.fidelity --work FOLDER [--rows main|sweeps|photos] [--minutes 60]
    python -m tests.benchmarks.fidelity --quick

Every run's measurements are kept in FOLDER, so a stopped table goes on where it was. Subject k is `draw_subject(k)` of the
world, which neither the base nor the judge has seen; its five photos stand in two places, the ten prompts ask for the ten
others, each with two seeds. Same seeds and prompts before and after training, and in every row.

Subject fidelity S is scaled: 0 is the base's pictures of the class, 1 the world's own drawings of the subject in the asked
places. Retrieval: of 21 galleries, the subject's photos and those of 20 look-alikes with one attribute changed, the nearest.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from dreambooth_cli.base import ask_for_base
from dreambooth_cli.catalog import advice_of
from dreambooth_cli.config import merge
from dreambooth_cli.engine import evaluation
from dreambooth_cli.engine.examples import Examples, encode_pictures, stack
from dreambooth_cli.engine.hub import obtain
from dreambooth_cli.engine.loading import load_family, load_lora
from dreambooth_cli.engine.sampling import Drawing, draw, use_scheduler
from dreambooth_cli.events import Event, ModelSaved
from dreambooth_cli.photos.crop import square_box
from dreambooth_cli.photos.files import find_photos, read_photo, training_picture
from dreambooth_cli.pocket import world
from dreambooth_cli.project import Project, Run, projects_folder
from dreambooth_cli.prompts import instance_prompt
from dreambooth_cli.settings import PrepSettings, SubjectSettings, TrainSettings
from dreambooth_cli.workflows.initialise import initialise
from dreambooth_cli.workflows.prepare import prepared_photos
from dreambooth_cli.workflows.train import train

BASE = "pocket"
IDENTIFIER = "sks"
SUBJECTS = 12
PHOTOS = Path(__file__).parents[2].parent / "shared" / "subjects"
SWEPT = 4  # subjects of the sweeps
PLACES = tuple(world.PLACES)
DRAWING = Drawing(steps=25, guidance_scale=7.5, width=64, height=64)
LOOK_ALIKES = 20


@dataclass(frozen=True)
class Variant:
    """A way to train: the settings that differ from the pocket's own defaults; `noun` replaces the class noun ("" for none)."""

    name: str
    train: dict[str, Any] = field(default_factory=dict)
    noun: str | None = None


@dataclass(frozen=True)
class Measured:
    """One subject under one variant. S, the floor and the ceiling are mean cosines; shares are 0..1; losses at fixed noises."""

    fidelity: float
    floor: float
    ceiling: float
    retrieved: float
    place: float
    base_place: float
    class_right: float
    base_class_right: float
    clip_text: float
    base_clip_text: float
    preservation: float
    base_preservation: float
    diversity: float
    base_diversity: float
    copied: float
    base_copied: float
    identifier_loss: tuple[float, ...]
    unrelated_loss: tuple[float, ...]
    seconds: float

    @property
    def scaled(self) -> float:
        """S between floor and ceiling."""
        return (self.fidelity - self.floor) / (self.ceiling - self.floor)


MAIN = (
    Variant("default"),
    Variant("no prior", {"class_images": 0}),
    Variant("no prior, no noun", {"class_images": 0}, noun=""),
    Variant("no prior, wrong noun", {"class_images": 0}, noun="wrong"),
)
PASTED = Variant("a photo pasted")
CONTROLS = (PASTED, Variant("undertrained", {"steps": 20}), Variant("overtrained", {"steps": 1500}))
SWEEPS = (
    *(Variant(f"steps {steps}", {"steps": steps}) for steps in (50, 100, 200, 400, 700, 1000)),
    Variant("text encoder", {"train_text_encoder": True}),
    Variant("text encoder frozen", {"train_text_encoder": False}),
    Variant("LoRA", {"method": "lora", "learning_rate": 2e-3}),
    Variant("LoRA + text encoder", {"method": "lora", "learning_rate": 2e-3, "train_text_encoder": True}),
    *(Variant(f"rate {rate:g}", {"learning_rate": rate}) for rate in (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3)),
    Variant("min-SNR 5", {"snr_gamma": 5.0}),
    *(Variant(f"lambda {weight:g}", {"prior_loss_weight": weight}) for weight in (0.1, 0.3, 3.0)),
    Variant("EMA 0.99", {"ema": True, "ema_decay": 0.99}),
    *(Variant(f"batch {size}", {"batch_size": size}) for size in (2, 5)),
)
WRONG = dict(zip(world.CLASSES, [*list(world.CLASSES)[5:], *list(world.CLASSES)[:5]], strict=True))


@dataclass(frozen=True)
class Study:
    """One subject: its name, its class noun, its photos, the places that no photo shows and every prompt asks for (twice, for
    two seeds), pictures of it in those places that nothing can better (None: each photo against the others), and galleries of
    others beside its photos."""

    name: str
    noun: str
    photos: list[Image.Image]
    places: list[str]
    best: list[Image.Image] | None
    others: list[list[Image.Image]]
    eye: evaluation.Eye
    seeds: list[int]
    class_seeds: list[int]

    @property
    def class_prompts(self) -> list[str]:
        """What is asked of the base, and what the texts of CLIP-T are."""
        return [f"a photo of a {self.noun} {place}" for place in self.places]

    @property
    def plain_prompts(self) -> list[str]:
        """The class prompt, once for each of the class's seeds."""
        return [f"a photo of a {self.noun}"] * len(self.class_seeds)

    def named_prompts(self, noun: str) -> list[str]:
        """The same as `class_prompts`, of the identifier with this noun."""
        named = f"{IDENTIFIER} {noun}".strip()
        return [f"a photo of a {named} {place}" for place in self.places]


@dataclass(frozen=True)
class Made:
    """What a variant made of a subject: pictures of the identifier's prompts and of the class prompt, and the losses of the photos
    at fixed noises, before and after."""

    drawn: list[Image.Image]
    of_class: list[Image.Image]
    identifier_loss: tuple[float, ...]
    unrelated_loss: tuple[float, ...]


class Bench:
    """What all runs share: the eyes, the base's own pictures, each subject's project. Everything lies in `work`."""

    def __init__(
        self, work: Path, *, seeds: Sequence[int] = (0, 1), class_seeds: Sequence[int] = range(100, 120)
    ) -> None:
        self.seeds, self.class_seeds = list(seeds), list(class_seeds)
        os.environ["DREAMBOOTH_HOME"] = str(work)
        self.work = work
        self.judge = evaluation.pocket_judge()
        self.individuals = evaluation.PocketIndividuals(self.judge)
        self.clip = evaluation.PocketClip()
        self.base = _last(obtain(ask_for_base(BASE)))
        self.family = load_family(self.base, dtype=torch.float32, device=torch.device("cpu"))
        use_scheduler(self.family.pipe, "dpm++")
        self._base_pictures: dict[str, list[Image.Image]] = {}

    def measure(self, study: Study, variant: Variant) -> Measured:
        """A subject under a variant, from the kept file or by training and drawing now."""
        path = self.path_of(study, variant)
        if path.exists():
            found = json.loads(path.read_text())
            found |= {name: tuple(found[name]) for name in ("identifier_loss", "unrelated_loss")}
            return Measured(**found)
        began = time.monotonic()
        made = self.paste(study) if variant is PASTED else self.train_and_draw(study, variant)
        measured = self.score(study, made, time.monotonic() - began)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(measured)))
        return measured

    def path_of(self, study: Study, variant: Variant) -> Path:
        """Where its measurements are kept."""
        return self.work / "results" / f"{study.name} {variant.name}.json"

    def train_and_draw(self, study: Study, variant: Variant) -> Made:
        """Train a subject under a variant and draw what is asked."""
        project = self.project(study)
        noun = {None: study.noun, "wrong": WRONG.get(study.noun, "teapot")}.get(variant.noun, "")
        run = self.train(project, noun, variant)
        family = load_family(self.base, dtype=torch.float32, device=torch.device("cpu"))
        use_scheduler(family.pipe, "dpm++")
        load_trained(family.pipe, run)
        shutil.rmtree(run.path)
        named = study.named_prompts(noun)
        examples = Examples(stack(list(encode_pictures(self.family, [path for path, _ in prepared_photos(project)]))))

        def losses(prompt: str) -> tuple[float, ...]:
            return tuple(evaluation.loss_at_fixed_noises(one, examples, prompt) for one in (self.family, family))

        return Made(
            drawn=draw_in_batches(family.pipe, named, study.seeds),
            of_class=draw_in_batches(family.pipe, study.plain_prompts, study.class_seeds),
            identifier_loss=losses(instance_prompt(f"a photo of a {noun}".strip(), IDENTIFIER)),
            unrelated_loss=losses(f"a photo of a {WRONG.get(study.noun, 'teapot')}"),
        )

    def paste(self, study: Study) -> Made:
        """The control that copies: a training photo in answer to every prompt, the class left as it was."""
        drawn = [study.photos[place % len(study.photos)] for place in range(len(study.places))]
        return Made(drawn, self.base_pictures(study.plain_prompts, study.class_seeds), (1.0, 1.0), (1.0, 1.0))

    def score(self, study: Study, made: Made, seconds: float) -> Measured:
        """The measurements of what was made, beside the base's own from the same prompts and seeds."""
        eye, photos, asked = study.eye, study.photos, study.class_prompts
        base_drawn = self.base_pictures(asked, study.seeds)
        base_class = self.base_pictures(study.plain_prompts, study.class_seeds)
        base_named = self.base_pictures(study.named_prompts(study.noun), study.seeds)
        reading, base_reading = (self.judge.read(evaluation.to_pixels(one, 64)) for one in (made.drawn, base_drawn))
        return Measured(
            fidelity=evaluation.subject_fidelity(eye, made.drawn, photos),
            floor=evaluation.subject_fidelity(eye, base_drawn, photos),
            ceiling=ceiling_of(study),
            retrieved=share(evaluation.closest(eye, made.drawn, [photos, *study.others]), 0),
            place=agreement(reading.answers("place"), study.places),
            base_place=agreement(base_reading.answers("place"), study.places),
            class_right=share(reading.answers("class"), study.noun),
            base_class_right=share(base_reading.answers("class"), study.noun),
            clip_text=evaluation.prompt_fidelity(self.clip, made.drawn, asked),
            base_clip_text=evaluation.prompt_fidelity(self.clip, base_drawn, asked),
            preservation=evaluation.subject_fidelity(eye, made.of_class, photos),
            base_preservation=evaluation.subject_fidelity(eye, base_class, photos),
            diversity=evaluation.diversity(eye, made.of_class),
            base_diversity=evaluation.diversity(eye, base_class),
            copied=max(evaluation.copy_scores(made.drawn, photos)),
            base_copied=max(evaluation.copy_scores(base_named, photos)),
            identifier_loss=made.identifier_loss,
            unrelated_loss=made.unrelated_loss,
            seconds=seconds,
        )

    def project(self, study: Study) -> Project:
        """The subject's project, with its photos."""
        project = Project(projects_folder() / study.name)
        if not project.config.is_file():
            folder = self.work / "photos" / study.name
            folder.mkdir(parents=True, exist_ok=True)
            for place, photo in enumerate(study.photos):
                photo.save(folder / f"{place}.png")
            prompt = f"a photo of a {study.noun}"
            subject = SubjectSettings(photos=folder, class_prompt=prompt, identifier=IDENTIFIER, model=BASE)
            list(initialise(project.name, subject=subject, prep={}, train={"checkpoint_every": 0}))
        return project

    def train(self, project: Project, noun: str, variant: Variant) -> Run:
        """Train the project under a variant, as the command does."""
        stored = project.settings()
        words = f"a photo of a {noun}" if noun else "a photo of a [identifier]"
        events = train(
            project,
            subject=merge(SubjectSettings, stored["subject"], {"class_prompt": words}),
            prep=merge(PrepSettings, stored["prep"], {}),
            settings=merge(TrainSettings, stored["train"], variant.train, advised=advice_of(BASE, "train")),
        )
        saved = [event for event in events if isinstance(event, ModelSaved)]
        return Run(saved[-1].path.parent)

    def study(self, number: int) -> Study:
        """Drawn subject `number`."""
        subject, places = world.draw_subject(number), places_of(number)
        asked = [place for place in places[2:] for _ in self.seeds]
        return Study(
            name=f"subject-{number:02d}",
            noun=subject.class_name,
            photos=[draw_one(subject, places[k % 2], f"photo {number} {k}") for k in range(5)],
            places=asked,
            best=[draw_one(subject, place, f"best {number} {k}") for k, place in enumerate(asked)],
            others=[
                [draw_one(other, places[k % 2], f"other {number} {n} {k}") for k in range(5)]
                for n, other in enumerate(world.draw_look_alikes(subject, LOOK_ALIKES, seed=number))
            ],
            eye=self.individuals,
            seeds=self.seeds * len(places[2:]),
            class_seeds=self.class_seeds,
        )

    def real_studies(self, folder: Path) -> list[Study]:
        """The subjects of a folder of real photos, a folder each, at 64 px; seen by CLIP, for the recogniser knows only drawings."""
        lines = (folder / "prompts_and_classes.txt").read_text().splitlines()
        nouns = dict(line.split(",") for line in lines if line.count(",") == 1 and " " not in line.split(",")[0])
        photos = {one.name: real_photos(one) for one in sorted(folder.iterdir()) if one.is_dir()}
        places = [place for place in PLACES[:10] for _ in self.seeds]
        return [
            Study(
                name=f"real-{name}",
                noun=nouns[name],
                photos=mine,
                places=places,
                best=None,
                others=[others for other, others in photos.items() if other != name],
                eye=self.clip,
                seeds=self.seeds * 10,
                class_seeds=self.class_seeds,
            )
            for name, mine in photos.items()
        ]

    def base_pictures(self, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        """What the base draws; kept, since every variant asks for the same."""
        key = json.dumps([prompts, seeds])
        if key not in self._base_pictures:
            self._base_pictures[key] = draw_in_batches(self.family.pipe, prompts, seeds)
        return self._base_pictures[key]


def draw_one(individual: world.Individual, place: str, seed: str) -> Image.Image:
    """A picture of an individual at a place, in a pose that follows from the seed."""
    return world.render(world.draw_scene(Random(seed), individual, place))


def real_photos(folder: Path) -> list[Image.Image]:
    """The first five photos of a folder, as `prep` crops them, at 64 px."""
    looks = [look for look in find_photos(folder) if look.status == "ok"][:5]
    photos = [read_photo(look.path, 64) for look in looks]
    return [training_picture(photo, square_box(photo.image.size, "center"), 64) for photo in photos]


def places_of(number: int) -> list[str]:
    """The world's places, the two of the subject's photos first."""
    start = 2 * number % len(PLACES)
    return [*PLACES[start:], *PLACES[:start]]


def ceiling_of(study: Study) -> float:
    """Subject fidelity of the best pictures there can be; with none at hand, of each photo against the others."""
    if study.best is not None:
        return evaluation.subject_fidelity(study.eye, study.best, study.photos)
    return 1 - evaluation.diversity(study.eye, study.photos)


def draw_in_batches(pipe: Any, prompts: list[str], seeds: list[int], batch: int = 10) -> list[Image.Image]:
    """One picture for each prompt and seed."""
    return [
        picture
        for start in range(0, len(prompts), batch)
        for picture in draw(pipe, prompts[start : start + batch], seeds[start : start + batch], DRAWING)
    ]


def load_trained(pipe: Any, run: Run) -> None:
    """Put a run's weights into the base's pipeline."""
    if (run.model / "pytorch_lora_weights.safetensors").is_file():
        load_lora(pipe, run.model)
        return
    for name in ("unet", "text_encoder"):
        part = getattr(pipe, name)
        fresh = type(part).from_pretrained(run.model / name)
        part.load_state_dict(fresh.state_dict())


def share(found: Sequence[Any], wanted: Any) -> float:
    """How much of what was found is what was wanted."""
    return sum(one == wanted for one in found) / len(found)


def agreement(found: Sequence[str], wanted: Sequence[str]) -> float:
    """How often two lists say the same."""
    return sum(one == other for one, other in zip(found, wanted, strict=True)) / len(wanted)


def _last(events: Iterator[Event]) -> Any:
    try:
        while True:
            next(events)
    except StopIteration as stop:
        return stop.value


# The tables

COLUMNS = ("S", "scaled", "retrieved", "place", "class", "CLIP-T", "PRES", "DIV", "copied")


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
    )


def row_of(name: str, measured: Sequence[Measured]) -> str:
    """A variant's means over its subjects, with their 95% intervals where there are several."""
    cells = []
    for values in zip(*map(numbers_of, measured), strict=True):
        found = evaluation.bootstrap(values)
        cells.append(f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]")
    return f"| {name} | {' | '.join(cells)} |"


def table_of(rows: dict[str, list[Measured]]) -> str:
    """Variants beneath each other, as Markdown."""
    head = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    return "\n".join([*head, *(row_of(name, measured) for name, measured in rows.items())])


def verdicts(rows: dict[str, list[Measured]]) -> list[tuple[str, bool]]:
    """What the four first rows must show, in words with figures, and whether they do."""
    default, bare = rows["default"], rows["no prior"]
    scaled, retrieved, place = (
        evaluation.bootstrap([getattr(one, name) for one in default]) for name in ("scaled", "retrieved", "place")
    )
    ceiling = statistics.mean(one.base_place for one in default)
    learned = [falls(one.identifier_loss) > falls(one.unrelated_loss) for one in default]
    pres = evaluation.bootstrap(
        [one.preservation - other.preservation for one, other in zip(default, bare, strict=True)]
    )
    div = evaluation.bootstrap([one.diversity - other.diversity for one, other in zip(default, bare, strict=True)])
    nouns = [statistics.mean(one.fidelity for one in rows[name]) for name in NOUNS]
    return [
        (f"subject fidelity {scaled.mean:.2f} of the way (at least 0.85)", scaled.mean >= 0.85),
        (f"the individual is retrieved in {retrieved.mean:.0%} (at least 80%)", retrieved.mean >= 0.8),
        (f"the identifier's loss falls more than another prompt's on {sum(learned)} of {len(learned)}", all(learned)),
        (f"the place is right in {place.mean:.0%} (at least 80%; the base {ceiling:.0%})", place.mean >= 0.8),
        (f"prior preservation lowers PRES: {told(pres)}", pres.high < 0),
        (f"prior preservation raises DIV: {told(div)}", div.low > 0),
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
        return statistics.mean(getattr(one, name) for one in measured)

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


QUICK = Variant("quick", {"steps": 120, "class_images": 16})


def quick(work: Path) -> list[tuple[str, bool]]:
    """Three subjects, few steps: subject fidelity up, the class kept, the prompt obeyed."""
    bench = Bench(work, seeds=(0,), class_seeds=range(100, 110))
    measured = [bench.measure(bench.study(number), QUICK) for number in range(3)]
    print(table_of({"quick": measured}))
    scaled, place, right = (
        statistics.mean(getattr(one, name) for one in measured) for name in ("scaled", "place", "class_right")
    )
    kept = statistics.mean(one.diversity / one.base_diversity for one in measured)
    return [
        (f"subject fidelity rose by {scaled:.2f} of the way (at least 0.4)", scaled >= 0.4),
        (f"the place asked for is there in {place:.0%} (at least 70%)", place >= 0.7),
        (f"the class is right in {right:.0%} (at least 80%)", right >= 0.8),
        (f"class pictures keep {kept:.0%} of their diversity (at least 80%)", kept >= 0.8),
        (
            "the identifier's loss fell more than another prompt's on each",
            all(falls(one.identifier_loss) > falls(one.unrelated_loss) for one in measured),
        ),
    ]


def main() -> int:
    """The whole table, or the quick one. Returns 1 where it falls short."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fidelity")
    parser.add_argument("--work", type=Path, help="folder that keeps the measurements")
    parser.add_argument("--quick", action="store_true", help="three subjects, a few minutes")
    parser.add_argument("--rows", choices=("main", "controls", "sweeps", "photos"), action="append")
    parser.add_argument("--subjects", type=int, help="how many (12, for controls and sweeps 4)")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of folders of real photos")
    asked = parser.parse_args()
    if asked.quick:
        with TemporaryDirectory() as folder:
            return tell(quick(Path(folder)))
    if asked.work is None:
        parser.error("--work names the folder that keeps the measurements")
    bench = Bench(asked.work.resolve())
    return max(measure_rows(bench, name, asked.subjects, asked.photos) for name in asked.rows or ["main"])


ROWS = {"main": MAIN, "controls": CONTROLS, "sweeps": SWEEPS, "photos": MAIN[:2]}


def measure_rows(bench: Bench, name: str, count: int | None, photos: Path) -> int:
    """Measure and print one part of the table. Returns 1 where it falls short."""
    studies = (
        bench.real_studies(photos)
        if name == "photos"
        else [bench.study(number) for number in range(count or (SUBJECTS if name == "main" else SWEPT))]
    )
    rows: dict[str, list[Measured]] = {}
    for variant in ROWS[name]:
        rows[variant.name] = [bench.measure(study, variant) for study in studies]
        print(row_of(variant.name, rows[variant.name]), flush=True)
    print(table_of(rows))
    if name == "main":
        return tell(verdicts(rows))
    if name == "controls":
        return tell(control_verdicts([bench.measure(study, MAIN[0]) for study in studies], rows))
    return 0


def tell(found: list[tuple[str, bool]]) -> int:
    """Print what was asked for and whether it is so."""
    for words, is_so in found:
        print(f"{'yes' if is_so else 'NO '}  {words}")
    return 0 if all(is_so for _, is_so in found) else 1


if __name__ == "__main__":
    sys.exit(main())
