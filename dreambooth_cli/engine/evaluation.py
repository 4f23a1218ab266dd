"""How well a subject was learned: the measurements of the DreamBooth paper (Ruiz et al. 2022, sections 4.1 and 4.3).

An `Eye` turns pictures and texts into unit vectors; the scores are means of their cosines:

- subject fidelity (the paper's DINO and CLIP-I): generated pictures against real ones of the subject;
- prompt fidelity (CLIP-T): each picture against its prompt, the identifier left out;
- PRES: pictures of the class prompt against real ones of the subject: high where the class has become the subject;
- DIV: how far pictures of the class prompt lie from each other: low where they all look the same.

CLIP and DINO come from a folder on disk; the pocket base has eyes of its own (`pocket/eyes.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, ViTModel

# The mean and deviation of colours that each network was trained with, and the side of its pictures in px.
CLIP_LOOK = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), 224)
DINO_LOOK = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)


class Eye(Protocol):
    """Sees pictures."""

    def see(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit vectors, float32 [pictures, d]."""
        ...


class ReadingEye(Eye, Protocol):
    """Sees pictures and reads texts, into one space."""

    def read(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 [texts, d]."""
        ...


# The scores


def subject_fidelity(eye: Eye, generated: Sequence[Image.Image], real: Sequence[Image.Image]) -> float:
    """Mean cosine over all pairs of a generated and a real picture; this is PRES where the generated ones are of the class prompt."""
    return (eye.see(generated) @ eye.see(real).T).mean().item()


def prompt_fidelity(eye: ReadingEye, generated: Sequence[Image.Image], prompts: Sequence[str]) -> float:
    """Mean cosine of each picture with its own prompt. Leave the identifier out of the prompts: CLIP does not know what it means."""
    return (eye.see(generated) * eye.read(prompts)).sum(1).mean().item()


def diversity(eye: Eye, generated: Sequence[Image.Image]) -> float:
    """Mean of 1 - cosine over all pairs of different pictures. The paper uses LPIPS, which needs weights of its own."""
    seen = eye.see(generated)
    count = len(seen)
    if count < 2:
        raise ValueError("diversity needs at least two pictures")
    return (1 - ((seen @ seen.T).sum() - seen.square().sum()) / (count * (count - 1))).item()


def closest(eye: Eye, generated: Sequence[Image.Image], gallery: Sequence[Sequence[Image.Image]]) -> list[int]:
    """For each generated picture, the number of the gallery entry that it resembles most. An entry is several pictures of one thing,
    compared by the mean of their vectors."""
    entries = torch.stack([F.normalize(eye.see(pictures).mean(0), dim=0) for pictures in gallery])
    places: list[int] = (eye.see(generated) @ entries.T).argmax(1).tolist()
    return places


def copy_scores(generated: Sequence[Image.Image], photos: Sequence[Image.Image]) -> list[float]:
    """For each generated picture, the correlation of its pixels with those of the nearest photo, mirrored or not: 1 for a copy.

    Both are scaled to 32 x 32 px and their mean is subtracted, so that equal brightness alone makes no copy.
    """
    return [score for score, _ in copies_of(generated, photos)]


def copies_of(generated: Sequence[Image.Image], photos: Sequence[Image.Image]) -> list[tuple[float, int]]:
    """For each generated picture, its score as in `copy_scores` and the number of the nearest photo."""
    ours = _flat(generated)
    theirs = torch.cat([_flat(photos), _flat([photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for photo in photos])])
    scores, places = (ours @ theirs.T).max(1)
    return [(score, place % len(photos)) for score, place in zip(scores.tolist(), places.tolist(), strict=True)]


def nearest_cosines(eye: Eye, generated: Sequence[Image.Image], photos: Sequence[Image.Image]) -> list[float]:
    """For each generated picture, its cosine with the nearest photo, both seen whole by an eye: another measure of copying."""
    nearest: list[float] = (eye.see(generated) @ eye.see(photos).T).amax(1).tolist()
    return nearest


def _flat(pictures: Sequence[Image.Image]) -> Tensor:
    small = [picture.convert("RGB").resize((32, 32), Image.Resampling.BOX) for picture in pictures]
    rows = torch.stack([torch.from_numpy(np.asarray(picture, dtype=np.float32)).flatten() for picture in small])
    return F.normalize(rows - rows.mean(1, keepdim=True), dim=1)


# Intervals


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds that contain 95% of its resamplings."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float], *, seed: int = 0, resamplings: int = 10_000) -> Interval:
    """The mean of one value per subject, and its 95% interval: subjects are resampled with replacement (percentile bootstrap)."""
    array = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(len(array), size=(resamplings, len(array)))
    low, high = np.percentile(array[picks].mean(1), (2.5, 97.5))
    return Interval(float(array.mean()), float(low), float(high))


# Eyes


class Clip:
    """CLIP from a folder in transformers' layout (the paper's CLIP-I and CLIP-T use ViT-B/32)."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval().requires_grad_(False)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    def see(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit vectors of whole pictures."""
        return F.normalize(_vectors(self.model.get_image_features(normalised(pictures, CLIP_LOOK))), dim=1)

    def read(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return F.normalize(_vectors(self.model.get_text_features(**tokens)), dim=1)


class Dino:
    """DINO from a folder in transformers' layout (the paper uses ViT-S/16); the class token is the vector."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = ViTModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, add_pooling_layer=False)
        self.model.eval().requires_grad_(False)

    def see(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit vectors of whole pictures."""
        return F.normalize(self.model(normalised(pictures, DINO_LOOK)).last_hidden_state[:, 0], dim=1)


def _vectors(found: Any) -> Tensor:
    """The features out of what transformers returns: a tensor, or since version 5 an output that has them as its pooled state."""
    vectors: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return vectors


def to_pixels(pictures: Sequence[Image.Image], side: int) -> Tensor:
    """Float32 [pictures, 3, side, side] in -1..1."""
    scaled = [picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
    rows = np.stack([np.asarray(picture, dtype=np.float32) for picture in scaled])
    return torch.from_numpy(rows).permute(0, 3, 1, 2).div(127.5).sub(1)


def normalised(pictures: Sequence[Image.Image], look: tuple[tuple[float, ...], tuple[float, ...], int]) -> Tensor:
    """Pictures as a network wants them, float32 [pictures, 3, side, side]: the middle square, scaled to its size and normalised by its
    mean and deviation. `look` is (mean, deviation, side in px)."""
    mean, deviation, side = look
    squares = []
    for picture in pictures:
        short = min(picture.size)
        left, top = (picture.width - short) // 2, (picture.height - short) // 2
        squares.append(picture.crop((left, top, left + short, top + short)))
    pixels = to_pixels(squares, side).add(1).div(2)
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
