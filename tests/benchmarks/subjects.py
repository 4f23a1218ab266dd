"""Subjects to measure training with: drawn ones from pocket's world, and folders of real photos at 64 px."""

from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from dreambooth_cli.engine import evaluation
from dreambooth_cli.photos.crop import square_box
from dreambooth_cli.photos.files import find_photos
from dreambooth_cli.photos.pixels import read_photo, training_picture
from dreambooth_cli.pocket import world
from dreambooth_cli.workflows import example

IDENTIFIER = "sks"
PLACES = tuple(world.PLACES)
LOOK_ALIKES = 20
EXAMPLE = 19  # the number that the built-in example was drawn by
# Whether the identifier works in any sentence is measured with these; none of them may be used in training (`dreambooth_cli.frames`).
UNSEEN_FRAMES = ("an image of a", "a drawing of a", "my", "the", "one")


@dataclass(frozen=True)
class Study:
    """One subject: its name, its class noun, its photos, the places that no photo shows and that the prompts ask for (each twice, for
    two seeds), the best possible pictures of it in those places (None: each photo is compared with the others), and galleries of others
    besides its photos; `shown`: the place of each photo, if it is known."""

    name: str
    noun: str
    photos: list[Image.Image]
    places: list[str]
    best: list[Image.Image] | None
    others: list[list[Image.Image]]
    eye: evaluation.Eye
    seeds: list[int]
    class_seeds: list[int]
    identifier: str = IDENTIFIER
    shown: tuple[str, ...] = ()

    @property
    def class_prompts(self) -> list[str]:
        """The prompts for the base, which are also the texts for CLIP-T."""
        return [f"a photo of a {self.noun} {place}" for place in self.places]

    @property
    def plain_prompts(self) -> list[str]:
        """The class prompt, once for each of the class's seeds."""
        return [f"a photo of a {self.noun}"] * len(self.class_seeds)

    def named_prompts(self, noun: str) -> list[str]:
        """The same as `class_prompts`, but with the identifier and this noun."""
        named = f"{self.identifier} {noun}".strip()
        return [f"a photo of a {named} {place}" for place in self.places]

    def framed_prompts(self, subject: str) -> list[str]:
        """Prompts for the same places, each in a frame that no training uses; both seeds of a place have the same frame."""
        several = len(self.places) // len(set(self.places))
        frames = [UNSEEN_FRAMES[number // several % len(UNSEEN_FRAMES)] for number in range(len(self.places))]
        return [f"{frame} {subject} {place}" for frame, place in zip(frames, self.places, strict=True)]


def drawn_study(number: int, eye: evaluation.Eye, seeds: list[int], class_seeds: list[int]) -> Study:
    """Drawn subject `number`, each place asked for once with each seed; EXAMPLE is the built-in example, as `demo` trains it."""
    if number == EXAMPLE:
        return example_study(eye, seeds, class_seeds)
    subject, places = world.draw_subject(number), places_of(number)
    asked = [place for place in places[2:] for _ in seeds]
    return Study(
        name=name_of(number),
        noun=subject.class_name,
        photos=[draw_one(subject, places[k % 2], f"photo {number} {k}") for k in range(5)],
        places=asked,
        best=[draw_one(subject, place, f"best {number} {k}") for k, place in enumerate(asked)],
        others=[
            [draw_one(other, places[k % 2], f"other {number} {n} {k}") for k in range(5)]
            for n, other in enumerate(world.draw_look_alikes(subject, LOOK_ALIKES, seed=number))
        ],
        eye=eye,
        seeds=seeds * len(places[2:]),
        class_seeds=class_seeds,
        shown=tuple(places[k % 2] for k in range(5)),
    )


def name_of(number: int) -> str:
    """What a drawn subject is called."""
    return "example" if number == EXAMPLE else f"subject-{number:02d}"


def example_study(eye: evaluation.Eye, seeds: list[int], class_seeds: list[int]) -> Study:
    """The built-in example with the identifier that is chosen for it, in the places that none of its photos shows."""
    asked = [place for place in PLACES if place not in example.PLACES for _ in seeds]
    return Study(
        name=name_of(EXAMPLE),
        noun=example.SUBJECT.class_name,
        photos=example.photos_of_example(),
        places=asked,
        best=[draw_one(example.SUBJECT, place, f"best {EXAMPLE} {k}") for k, place in enumerate(asked)],
        others=[
            [draw_one(other, place, f"other {EXAMPLE} {n} {k}") for k, place in enumerate(example.PLACES)]
            for n, other in enumerate(world.draw_look_alikes(example.SUBJECT, LOOK_ALIKES, seed=EXAMPLE))
        ],
        eye=eye,
        seeds=seeds * (len(asked) // len(seeds)),
        class_seeds=class_seeds,
        identifier="tms",
        shown=example.PLACES,
    )


def real_studies(folder: Path, eye: evaluation.Eye, seeds: list[int], class_seeds: list[int]) -> list[Study]:
    """The subjects of a folder of real photos, a folder each, at 64 px; the eye is CLIP's: the recogniser knows
    only drawings."""
    lines = (folder / "prompts_and_classes.txt").read_text().splitlines()
    nouns = dict(line.split(",") for line in lines if line.count(",") == 1 and " " not in line.split(",")[0])
    photos = {one.name: real_photos(one) for one in sorted(folder.iterdir()) if one.is_dir()}
    places = [place for place in PLACES[:10] for _ in seeds]
    return [
        Study(
            name=f"real-{name}",
            noun=nouns[name],
            photos=mine,
            places=places,
            best=None,
            others=[others for other, others in photos.items() if other != name],
            eye=eye,
            seeds=seeds * 10,
            class_seeds=class_seeds,
        )
        for name, mine in photos.items()
    ]


def draw_one(individual: world.Individual, place: str, seed: str) -> Image.Image:
    """A picture of an individual at a place, in a pose that follows from the seed."""
    return world.render(world.draw_scene(Random(seed), individual, place))


def real_photos(folder: Path) -> list[Image.Image]:
    """The first five photos of a folder, as `prep` crops them, at 64 px."""
    looks = [look for look in find_photos(folder) if look.status == "ok"][:5]
    photos = [read_photo(look.path, 64) for look in looks]
    return [training_picture(photo, square_box(photo.image.size, "center"), (64, 64)) for photo in photos]


def places_of(number: int) -> list[str]:
    """The world's places, the two of the subject's photos first."""
    start = 2 * number % len(PLACES)
    return [*PLACES[start:], *PLACES[:start]]


def ceiling_of(study: Study) -> float:
    """Subject fidelity of the best possible pictures; if there are none, that of each photo compared with the others."""
    if study.best is not None:
        return evaluation.subject_fidelity(study.eye, study.best, study.photos)
    return 1 - evaluation.diversity(study.eye, study.photos)
