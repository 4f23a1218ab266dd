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
SEEDS = (0, 1)
CLASS_SEEDS = tuple(range(100, 120))
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
    identifier_loss: tuple[float, float]
    unrelated_loss: tuple[float, float]
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

    @property
    def class_prompts(self) -> list[str]:
        """What is asked of the base, and what the texts of CLIP-T are."""
        return [f"a photo of a {self.noun} {place}" for place in self.places]

    @property
    def seeds(self) -> list[int]:
        """A seed for each prompt: places come in pairs."""
        return [SEEDS[place % len(SEEDS)] for place in range(len(self.places))]


class Bench:
    """What all runs share: the eyes, the base's own pictures, each subject's project. Everything lies in `work`."""

    def __init__(self, work: Path) -> None:
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
        path = self.work / "results" / f"{study.name} {variant.name}.json"
        if path.exists():
            found = json.loads(path.read_text())
            found |= {name: tuple(found[name]) for name in ("identifier_loss", "unrelated_loss")}
            return Measured(**found)
        began = time.monotonic()
        project = self.project(study)
        noun = {None: study.noun, "wrong": WRONG.get(study.noun, "teapot")}.get(variant.noun, "")
        run = self.train(project, noun, variant)
        measured = self.score(study, project, noun, run, began)
        shutil.rmtree(run.path)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(measured)))
        return measured

    def score(self, study: Study, project: Project, noun: str, run: Run, began: float) -> Measured:
        """What a finished run draws, measured."""
        family = load_family(self.base, dtype=torch.float32, device=torch.device("cpu"))
        use_scheduler(family.pipe, "dpm++")
        load_trained(family.pipe, run)
        asked, seeds = study.class_prompts, study.seeds
        named = [prompt.replace(study.noun, f"{IDENTIFIER} {noun}".strip(), 1) for prompt in asked]
        plain, plain_seeds = [f"a photo of a {study.noun}"] * len(CLASS_SEEDS), list(CLASS_SEEDS)
        drawn, of_class = draw_in_batches(family.pipe, named, seeds), draw_in_batches(family.pipe, plain, plain_seeds)
        base_drawn, base_class = self.base_pictures(asked, seeds), self.base_pictures(plain, plain_seeds)
        reading, base_reading = (self.judge.read(evaluation.to_pixels(one, 64)) for one in (drawn, base_drawn))
        examples = Examples(stack(list(encode_pictures(self.family, [path for path, _ in prepared_photos(project)]))))
        mine = instance_prompt(f"a photo of a {noun}".strip(), IDENTIFIER)
        other = f"a photo of a {WRONG.get(study.noun, 'teapot')}"
        losses = {
            prompt: tuple(evaluation.loss_at_fixed_noises(one, examples, prompt) for one in (self.family, family))
            for prompt in (mine, other)
        }
        eye, photos = study.eye, study.photos
        return Measured(
            fidelity=evaluation.subject_fidelity(eye, drawn, photos),
            floor=evaluation.subject_fidelity(eye, base_drawn, photos),
            ceiling=ceiling_of(study),
            retrieved=share(evaluation.closest(eye, drawn, [photos, *study.others]), 0),
            place=agreement(reading.answers("place"), study.places),
            base_place=agreement(base_reading.answers("place"), study.places),
            class_right=share(reading.answers("class"), study.noun),
            base_class_right=share(base_reading.answers("class"), study.noun),
            clip_text=evaluation.prompt_fidelity(self.clip, drawn, asked),
            base_clip_text=evaluation.prompt_fidelity(self.clip, base_drawn, asked),
            preservation=evaluation.subject_fidelity(eye, of_class, photos),
            base_preservation=evaluation.subject_fidelity(eye, base_class, photos),
            diversity=evaluation.diversity(eye, of_class),
            base_diversity=evaluation.diversity(eye, base_class),
            copied=max(evaluation.copy_scores(drawn, photos)),
            base_copied=max(evaluation.copy_scores(self.base_pictures(named, seeds), photos)),
            identifier_loss=losses[mine],
            unrelated_loss=losses[other],
            seconds=time.monotonic() - began,
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
        asked = [place for place in places[2:] for _ in SEEDS]
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
        )

    def real_studies(self, folder: Path) -> list[Study]:
        """The subjects of a folder of real photos, a folder each, at 64 px; seen by CLIP, for the recogniser knows only drawings."""
        lines = (folder / "prompts_and_classes.txt").read_text().splitlines()
        nouns = dict(line.split(",") for line in lines if line.count(",") == 1 and " " not in line.split(",")[0])
        photos = {one.name: real_photos(one) for one in sorted(folder.iterdir()) if one.is_dir()}
        places = [place for place in PLACES[:10] for _ in SEEDS]
        return [
            Study(
                name=f"real-{name}",
                noun=nouns[name],
                photos=mine,
                places=places,
                best=None,
                others=[others for other, others in photos.items() if other != name],
                eye=self.clip,
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


def told(found: evaluation.Interval) -> str:
    """A mean and its interval in words."""
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


QUICK = Variant("quick", {"steps": 120, "class_images": 16})


def quick(work: Path) -> list[tuple[str, bool]]:
    """Three subjects, few steps: subject fidelity up, the class kept, the prompt obeyed."""
    bench = Bench(work)
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
    parser.add_argument("--rows", choices=("main", "sweeps", "photos"), default="main")
    parser.add_argument("--subjects", type=int, help="how many (12, for the sweeps 4)")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of folders of real photos")
    asked = parser.parse_args()
    if asked.quick:
        with TemporaryDirectory() as folder:
            return tell(quick(Path(folder)))
    if asked.work is None:
        parser.error("--work names the folder that keeps the measurements")
    bench, rows = Bench(asked.work.resolve()), {}
    if asked.rows == "photos":
        variants, studies = MAIN[:2], bench.real_studies(asked.photos)
    else:
        variants, count = (MAIN, SUBJECTS) if asked.rows == "main" else (SWEEPS, SWEPT)
        studies = [bench.study(number) for number in range(asked.subjects or count)]
    for variant in variants:
        rows[variant.name] = [bench.measure(study, variant) for study in studies]
        print(row_of(variant.name, rows[variant.name]), flush=True)
    print(table_of(rows))
    return tell(verdicts(rows)) if asked.rows == "main" else 0


def tell(found: list[tuple[str, bool]]) -> int:
    """Print what was asked for and whether it is so."""
    for words, is_so in found:
        print(f"{'yes' if is_so else 'NO '}  {words}")
    return 0 if all(is_so for _, is_so in found) else 1


if __name__ == "__main__":
    sys.exit(main())
