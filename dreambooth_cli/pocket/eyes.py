"""The pocket base's own eyes for `engine/evaluation.py`: its judge's recogniser, and its CLIP."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from ..engine.evaluation import to_pixels
from .judge import QUESTIONS, Judge, load_judge

POCKET = Path(__file__).parent


class PocketIndividuals:
    """The pocket judge's recogniser as an eye: it sees which individual it is, whatever is behind it."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def see(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit vectors [pictures, 128] of the individuals, cut out of their surroundings."""
        return self.judge.recognise(to_pixels(pictures, 64))


class PocketClip:
    """The pocket base's own CLIP as an eye that reads: the base's text encoder and the judge's image encoder."""

    def __init__(self, folder: Path = POCKET) -> None:
        self.image: Any = CLIPVisionModelWithProjection.from_pretrained(
            folder / "judge" / "image_encoder", use_safetensors=True
        )
        self.text: Any = CLIPTextModel.from_pretrained(folder / "model" / "text_encoder", use_safetensors=True)
        self.projection = load_file(folder / "judge" / "text_projection.safetensors")["weight"].float()
        part: Any
        for part in (self.image, self.text):
            part.to(torch.float32).eval().requires_grad_(False)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "model" / "tokenizer")

    def see(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit vectors of whole pictures."""
        return F.normalize(self.image(to_pixels(pictures, 64)).image_embeds, dim=1)

    def read(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").input_ids
        return F.normalize(self.text(tokens).pooler_output @ self.projection.T, dim=1)


class PocketJudge:
    """Pocket's own judge of pictures: its recogniser sees the subject, its reader the place that the prompt asks for."""

    name = "pocket's own judge"

    def __init__(self) -> None:
        self.judge = pocket_judge()
        self.eye = PocketIndividuals(self.judge)

    def follow(self, pictures: Sequence[Image.Image], asked: Sequence[str], base: Sequence[Image.Image]) -> list[float]:
        """The probability of the place that each prompt ends with, by the reader; 1 if it names none."""
        shares = self.judge.read(to_pixels(pictures, 64)).logits["place"].softmax(1)
        known = QUESTIONS["place"]
        places = [next((number for number, place in enumerate(known) if text.endswith(place)), None) for text in asked]
        return [1.0 if place is None else row[place].item() for row, place in zip(shares, places, strict=True)]


def pocket_judge() -> Judge:
    """The pocket base's judge, from the package."""
    return load_judge(POCKET / "judge")
