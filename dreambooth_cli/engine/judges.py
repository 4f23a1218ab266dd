"""Judges of pictures: how like the subject's photos, how true to what was asked, how near to a single photo."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from .evaluation import Clip, Dino, Eye, ReadingEye, copies_of, diversity
from .families.parts import quiet

LEAST = 0.01  # between the two ends of a scale: networks that see no difference give no figures


class Judge(Protocol):
    """Somebody who looks at pictures."""

    name: str

    @property
    def eye(self) -> Eye:
        """What sees the subject."""
        ...

    def follow(self, pictures: Sequence[Image.Image], asked: Sequence[str], base: Sequence[Image.Image]) -> list[float]:
        """How true each picture is to what was asked of it (0: not at all, 1: as it can be); `base`: what the base drew of the same."""
        ...


class ByEyes:
    """The paper's measurements: DINO sees the subject, CLIP reads the prompt."""

    def __init__(self, name: str, eye: Eye, reader: ReadingEye) -> None:
        self.name, self.eye, self.reader = name, eye, reader

    def follow(self, pictures: Sequence[Image.Image], asked: Sequence[str], base: Sequence[Image.Image]) -> list[float]:
        """Between what the base's pictures have in common with other prompts than their own (0) and with their own (1)."""
        texts = self.reader.read(asked)
        cosines = self.reader.see(base) @ texts.T
        own = cosines.diagonal().mean().item()
        different = [row for row, text in enumerate(asked) if text != asked[0]]
        others = (cosines.sum() - cosines.diagonal().sum()).item() / max(1, len(asked) ** 2 - len(asked)) if different else 0.0
        found = (self.reader.see(pictures) * texts).sum(1).tolist()
        return [on_scale(one, others, own) for one in found]


def by_clip_and_dino(clip: Path, dino: Path) -> ByEyes:
    """The judge of CLIP and DINO, from their folders. Raises OSError, ValueError where they can't be loaded."""
    with quiet():
        return ByEyes("DINO and CLIP", Dino(dino), Clip(clip))


def likeness(judge: Judge, pictures: Sequence[Image.Image], photos: Sequence[Image.Image], base: Sequence[Image.Image]) -> list[float]:
    """How like the subject each picture is: 0 as the base's pictures of the class, 1 as the photos are each other."""
    known = judge.eye.see(photos)
    floor = (judge.eye.see(base) @ known.T).mean().item()
    ceiling = 1 - diversity(judge.eye, photos) if len(photos) > 1 else 1.0
    found = (judge.eye.see(pictures) @ known.T).mean(1).tolist()
    return [on_scale(one, floor, ceiling) for one in found]


def on_scale(value: float, low: float, high: float) -> float:
    """Where a value stands between two ends, 0 to 1."""
    return min(1.0, max(0.0, (value - low) / max(high - low, LEAST)))


def nearest_copy(pictures: Sequence[Image.Image], photos: Sequence[Image.Image]) -> tuple[float, int]:
    """The largest correlation of any picture with any photo, and which photo that is."""
    return max(copies_of(pictures, photos))
