"""The judge of the pocket world: it tells what is in a small picture, where it is, and which individual it is.

Two small networks, trained only on renders and never on what a diffusion model drew. The *reader* tells class, place,
body colour, trim colour and pattern, and the individual's mask. The *recogniser* turns a crop without background into a unit vector;
those of two pictures of one individual are close, those of look-alikes are apart, as DINO's vectors are used in the DreamBooth paper.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from .world import CLASSES, COLOURS, PATTERNS, PLACES, SIZE

QUESTIONS = {
    "class": tuple(CLASSES),
    "place": tuple(PLACES),
    "body": tuple(COLOURS),
    "trim": tuple(COLOURS),
    "pattern": PATTERNS,
}
EMBEDDING = 128


@dataclass(frozen=True)
class Reading:
    """Logits over each question's answers, [rows, answers], and those of the mask, [rows, 64, 64]."""

    logits: dict[str, Tensor]
    mask: Tensor

    def answers(self, question: str) -> list[str]:
        """The most likely answer for each row."""
        return [QUESTIONS[question][place] for place in self.logits[question].argmax(1).tolist()]


class Reader(nn.Module):
    """Tells the attributes and the mask of pictures. Features are averaged inside and outside the mask, so that the individual and its
    place can be told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_conv(3, 24), _conv(24, 48, stride=2), _conv(48, 48))  # 32 x 32
        self.middle = nn.Sequential(_conv(48, 96, stride=2), _conv(96, 96))  # 16 x 16
        self.coarse = nn.Sequential(_conv(96, 128, stride=2), _conv(128, 128))  # 8 x 8
        self.spread = _conv(128 + 96, 64)
        self.mask = nn.Sequential(_conv(64 + 48, 32), nn.Conv2d(32, 1, 1))
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(2 * (48 + 96 + 128), 128), nn.SiLU(), nn.Linear(128, len(answers)))
                for name, answers in QUESTIONS.items()
            }
        )

    def forward(self, pixels: Tensor) -> Reading:
        """Read pixels, float [rows, 3, 64, 64] in -1..1."""
        fine = self.fine(pixels)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        spread = self.spread(torch.cat([_double(coarse), middle], 1))
        mask = self.mask(torch.cat([_double(spread), fine], 1))  # [rows, 1, 32, 32]
        inside = mask.float().sigmoid()
        pooled = [_pool(features, inside) for features in (fine, middle, coarse)]
        features = torch.cat([part for pair in pooled for part in pair], 1)
        logits = {name: head(features).float() for name, head in self.heads.items()}
        large = F.interpolate(mask.float(), size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        return Reading(logits, large[:, 0])


class Recogniser(nn.Module):
    """Turns crops, float [rows, 3, 64, 64] in -1..1 (see `cut_out`), into unit vectors [rows, 128]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv(3, 24), _conv(24, 48, stride=2), _conv(48, 96, stride=2), _conv(96, 96), _conv(96, 128, stride=2)
        )
        self.layout = nn.Sequential(nn.Conv2d(128, 32, 1), nn.Flatten())
        self.head = nn.Linear(32 * 64 + 2 * 128, EMBEDDING)

    def forward(self, crops: Tensor) -> Tensor:
        """The unit vectors of crops."""
        features = self.features(crops)
        whole = [features.mean((2, 3)), features.amax((2, 3))]
        return F.normalize(self.head(torch.cat([self.layout(features), *whole], 1)).float(), dim=1)


class Judge(nn.Module):
    """Both networks, in evaluation mode once loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = Reader()
        self.recogniser = Recogniser()

    @torch.no_grad()
    def read(self, pixels: Tensor) -> Reading:
        """Read pixels, float [rows, 3, 64, 64] in -1..1."""
        reading: Reading = self.reader(pixels)
        return reading

    @torch.no_grad()
    def recognise(self, pixels: Tensor) -> Tensor:
        """Unit vectors [rows, 128] of the individuals in pixels, float [rows, 3, 64, 64] in -1..1, cut out by the reader's mask."""
        embedding: Tensor = self.recogniser(cut_out(pixels, self.read(pixels).mask.sigmoid()))
        return embedding


def load_judge(folder: Path) -> Judge:
    """The judge whose weights are in a folder's `reader.safetensors` and `recogniser.safetensors`, in float32 on the CPU."""
    judge = Judge()
    for name, network in judge.named_children():
        weights = load_file(folder / f"{name}.safetensors")
        network.load_state_dict({key: value.float() for key, value in weights.items()})
    return judge.eval().requires_grad_(False)


def cut_out(pixels: Tensor, masks: Tensor) -> Tensor:
    """Crops [rows, 3, 64, 64] of pixels [rows, 3, 64, 64]: gray where the mask [rows, 64, 64], in 0..1, is low; the mask's square bounding
    box, a tenth larger, fills the crop."""
    alone = pixels * masks[:, None]
    centres, halves = zip(*(_bounds(mask) for mask in masks), strict=True)
    centre, half = torch.stack(centres), torch.stack(halves)
    theta = torch.zeros(len(pixels), 2, 3, device=pixels.device)
    theta[:, 0, 0] = theta[:, 1, 1] = half
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta, [len(pixels), 3, SIZE, SIZE], align_corners=False)
    return F.grid_sample(alone.float(), grid, align_corners=False)


def _bounds(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (x, y) and half the side of a mask's square bounding box, where the picture is -1..1; the whole picture if the mask is
    empty."""
    inside = mask > 0.5
    if not inside.any():
        return torch.zeros(2, device=mask.device), torch.ones((), device=mask.device)
    rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
    low = torch.stack([columns.min(), rows.min()]) / SIZE * 2 - 1
    high = (torch.stack([columns.max(), rows.max()]) + 1) / SIZE * 2 - 1
    return (low + high) / 2, 1.1 * (high - low).max() / 2


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU()
    )


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


def _pool(features: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """The means [rows, channels] of features inside and outside a mask [rows, 1, height, width], which may be of another size."""
    weight = F.adaptive_avg_pool2d(inside, (features.shape[2], features.shape[3]))
    within = (features * weight).sum((2, 3)) / (weight.sum((2, 3)) + 1e-3)
    without = (features * (1 - weight)).sum((2, 3)) / ((1 - weight).sum((2, 3)) + 1e-3)
    return within, without
