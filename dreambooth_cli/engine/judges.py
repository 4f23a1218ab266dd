"""Judges of pictures: how much they resemble the subject's photos, how well they follow the prompt, how close they come to one photo."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from .evaluation import Clip, Dino, Eye, ReadingEye, copies_of, diversity
from .families.parts import quiet

LEAST = 0.01  # smallest distance between the ends of a scale, so that nothing is divided by zero


class Judge(Protocol):
    """What looks at pictures and scores them."""

    name: str

    @property
    def eye(self) -> Eye:
        """The network that recognises the subject."""
        ...

    def follow(self, pictures: Sequence[Image.Image], asked: Sequence[str], base: Sequence[Image.Image]) -> list[float]:
        """How well each picture follows its prompt in `asked` (0: not at all, 1: as well as the base model does); `base` holds what the
        base model drew for the same prompts."""
        ...


class ByEyes:
    """The paper's measurements: DINO sees the subject, CLIP reads the prompt."""

    def __init__(self, name: str, eye: Eye, reader: ReadingEye) -> None:
        self.name, self.eye, self.reader = name, eye, reader

    def follow(self, pictures: Sequence[Image.Image], asked: Sequence[str], base: Sequence[Image.Image]) -> list[float]:
        """CLIP's cosines, on a scale from what the base's pictures score against prompts that are not theirs (0) to what they score
        against their own (1)."""
        texts = self.reader.read(asked)
        cosines = self.reader.see(base) @ texts.T
        own = cosines.diagonal().mean().item()
        different = [row for row, text in enumerate(asked) if text != asked[0]]
        others = (cosines.sum() - cosines.diagonal().sum()).item() / max(1, len(asked) ** 2 - len(asked)) if different else 0.0
        found = (self.reader.see(pictures) * texts).sum(1).tolist()
        return [on_scale(one, others, own) for one in found]


def by_clip_and_dino(clip: Path, dino: Path) -> ByEyes:
    """The judge that sees by CLIP and DINO, from their folders. Raises OSError or ValueError if they can't be loaded."""
    with quiet():
        return ByEyes("DINO and CLIP", Dino(dino), Clip(clip))


def likeness(judge: Judge, pictures: Sequence[Image.Image], photos: Sequence[Image.Image], base: Sequence[Image.Image]) -> list[float]:
    """How much each picture resembles the subject: 0 like the base's pictures of the class, 1 like the photos resemble each other."""
    known = judge.eye.see(photos)
    floor = (judge.eye.see(base) @ known.T).mean().item()
    ceiling = 1 - diversity(judge.eye, photos) if len(photos) > 1 else 1.0
    found = (judge.eye.see(pictures) @ known.T).mean(1).tolist()
    return [on_scale(one, floor, ceiling) for one in found]


def on_scale(value: float, low: float, high: float) -> float:
    """Where a value lies between `low` (0) and `high` (1); what lies outside is clipped."""
    return min(1.0, max(0.0, (value - low) / max(high - low, LEAST)))


def nearest_copy(pictures: Sequence[Image.Image], photos: Sequence[Image.Image]) -> tuple[float, int]:
    """The largest correlation of any picture with any photo, and the number of that photo."""
    return max(copies_of(pictures, photos))
