"""The pocket base's own eyes for `engine/evaluation.py`: its judge's recogniser, and both halves of its CLIP."""

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
from .judge import Judge, load_judge

POCKET = Path(__file__).parent


class PocketIndividuals:
    """The pocket judge's recogniser: which individual it is, whatever stands behind it."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def see(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit vectors of the individuals, cut out of their places."""
        return self.judge.recognise(to_pixels(pictures, 64))


class PocketClip:
    """Both halves of the pocket base's own CLIP."""

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


def pocket_judge() -> Judge:
    """The pocket base's judge."""
    return load_judge(POCKET / "judge")
