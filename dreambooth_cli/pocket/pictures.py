"""The pictures that the pocket model is trained on: drawn from a seed and kept in a folder outside the package."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import world
from .judge import QUESTIONS

SEED = 20_240_826
FAMILIES, MEMBERS = 4_000, 6
FIRST_SUBJECT = 1_000  # subjects with smaller numbers are kept for measuring
Array = np.ndarray[Any, Any]
Network = Any  # a module of diffusers or transformers, which are not typed


@dataclass(frozen=True)
class Pictures:
    """The world's scenes from the seed, and their pixels in files that are drawn on first use."""

    folder: Path
    count: int

    def scene(self, number: int) -> world.Scene:
        """Scene `number`, from the seed."""
        return world.draw_scene(Random(f"{SEED} scene {number}"))

    def pixels(self) -> Array:
        """uint8 [count, 64, 64, 3]."""
        shape = (self.count, world.SIZE, world.SIZE, 3)
        return self._keep("pixels.u8", shape, lambda number: np.asarray(world.render(self.scene(number))))

    def masks(self) -> Array:
        """uint8 [count, 64, 64], 255 inside the individual."""
        shape = (self.count, world.SIZE, world.SIZE)
        return self._keep("masks.u8", shape, lambda number: np.asarray(world.render_mask(self.scene(number))))

    def families(self) -> Array:
        """uint8 [families, members, 2, 64, 64, 3]: two pictures each of a subject and of its look-alikes, one look-alike per attribute."""
        shape = (FAMILIES, MEMBERS, 2, world.SIZE, world.SIZE, 3)
        return self._keep("families.u8", shape, _draw_family)

    def latents(self, vae: Network, device: torch.device) -> Array:
        """float16 [count, 4, 16, 16]: the means of the VAE's posterior times its scaling factor."""
        path, pixels = self.folder / "latents.npy", self.pixels()
        if path.exists():
            kept: Array = np.load(path)
            return kept
        vae.to(device).eval()
        parts = []
        for start in range(0, self.count, 500):
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
                mean = vae.encode(to_tensor(pixels[start : start + 500]).to(device)).latent_dist.mean
            parts.append((mean.float() * vae.config.scaling_factor).half().cpu().numpy())
            if start % 10_000 == 0:
                print(f"encoded {start:,} of {self.count:,} pictures", flush=True)
        latents = np.concatenate(parts)
        np.save(path, latents)
        return latents

    def _keep(self, name: str, shape: tuple[int, ...], draw: Callable[[int], Array]) -> Array:
        """What `draw` gives for every number, in one file. Interrupted drawing goes on where it stopped."""
        path, mark = self.folder / name, self.folder / f"{name}.drawn"
        drawn = int(mark.read_text()) if mark.exists() else 0
        kept = np.memmap(path, np.uint8, "r+" if path.exists() else "w+", shape=shape)
        for number in range(drawn, shape[0]):
            kept[number] = draw(number)
            if (number + 1) % (shape[0] // 20 or 1) == 0 or number + 1 == shape[0]:
                kept.flush()
                mark.write_text(str(number + 1))
                print(f"{name}: drawn {number + 1:,} of {shape[0]:,}", flush=True)
        return kept


def _draw_family(number: int) -> Array:
    subject = world.draw_subject(FIRST_SUBJECT + number)
    random = Random(f"{SEED} family {number}")
    members = [subject, *world.draw_look_alikes(subject, MEMBERS - 1, seed=number)]
    pictures = [[np.asarray(world.render(world.draw_scene(random, one))) for _ in range(2)] for one in members]
    return np.asarray(pictures)


def to_tensor(pixels: Array) -> Tensor:
    """uint8 [rows, 64, 64, 3] -> float32 [rows, 3, 64, 64] in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def labels_of(scenes: list[world.Scene]) -> dict[str, Tensor]:
    """Each question's right answer as a number, int64 [scenes]."""
    answers = {
        "class": [scene.individual.class_name for scene in scenes],
        "place": [scene.place for scene in scenes],
        "body": [scene.individual.body for scene in scenes],
        "trim": [scene.individual.trim for scene in scenes],
        "pattern": [scene.individual.pattern for scene in scenes],
    }
    return {name: torch.tensor([QUESTIONS[name].index(word) for word in words]) for name, words in answers.items()}


def spoil(pixels: Tensor, random: Random, *, gray_share: float) -> tuple[Tensor, Tensor]:
    """The pictures with blur, noise and changed brightness, and a share of them gray; and which are gray, bool [rows]."""
    rows = len(pixels)
    generator = torch.Generator().manual_seed(random.getrandbits(32))
    gray = torch.rand(rows, generator=generator) < gray_share
    pixels = torch.where(gray[:, None, None, None], pixels.mean(1, keepdim=True), pixels)
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.rand(rows, 1, 1, 1, generator=generator) * (torch.rand(rows, 1, 1, 1, generator=generator) < 0.5)
    pixels = pixels.lerp(blurred, share)
    noise = torch.randn(pixels.shape, generator=generator) * 0.08 * torch.rand(rows, 1, 1, 1, generator=generator)
    light = 1 + 0.1 * torch.randn(rows, 1, 1, 1, generator=generator)
    return ((pixels + 1) * light - 1 + noise).clamp(-1, 1), gray
