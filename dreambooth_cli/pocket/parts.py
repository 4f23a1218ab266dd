"""The parts of the pocket model and what each of them learns: a tokenizer, a VAE, both halves of CLIP, a UNet."""

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from ..identifier import rare_tokens
from . import world
from .judge import Reading

Network = Any  # a module of diffusers or transformers, which are not typed
LATENT_CHANNELS = 4
LATENT_SIZE = world.SIZE // 4
WIDTH = 128  # of both CLIP halves
KL_WEIGHT = 2e-4
INSIDE = 3.0  # the weight of a pixel of the individual in the pictures' loss; a pixel of its place has 1
RARE_WORDS = 24
EXTRA_WORDS = ("the", "and", "my", "one", "two", "small", "big", "old", "new", "toy", "person", "style")
START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path) -> Network:
    """Write a CLIP tokenizer in which every word of the world is one token, and so are some rare words without a meaning, which come
    last. Returns it."""
    vocabulary, merges = _vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    specials = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(specials, indent=2) + "\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "model_max_length": 77, **specials}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def tokenize(tokenizer: Network, captions: list[str]) -> Tensor:
    """Token ids, int64 [captions, 77], padded as Stable Diffusion pads them."""
    tokens: Tensor = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return tokens


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    return _merge([*world.words(), *EXTRA_WORDS, *_rare_words()])


def _rare_words() -> list[str]:
    known = {*world.words(), *EXTRA_WORDS}
    return [word for word in dict.fromkeys((*rare_tokens(), "sks")) if word not in known][-RARE_WORDS:]


def _merge(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level tokenizer in which each word is one token. New merges rank after the earlier ones, so they
    never split an earlier word differently."""
    letters = _byte_letters()
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        for pair in merges:
            pieces = _apply(pair, pieces)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = _apply(merges[-1], pieces)
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges), START, END]
    return {token: number for number, token in enumerate(tokens)}, merges


def _apply(pair: tuple[str, str], pieces: list[str]) -> list[str]:
    merged, place = [], 0
    while place < len(pieces):
        both = tuple(pieces[place : place + 2]) == pair
        merged.append("".join(pair) if both else pieces[place])
        place += 2 if both else 1
    return merged


def _byte_letters() -> list[str]:
    """The 256 letters that stand for bytes, in CLIP's order: printable bytes stand for themselves, the others are U+0100 and on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]


def make_vae() -> Network:
    """An AutoencoderKL with factor 4: latents [rows, 4, 16, 16]. With factor 8 it blurred the individual, however many channels it
    had."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        sample_size=world.SIZE,
        block_out_channels=(16, 32, 96),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        scaling_factor=1.0,
        force_upcast=False,
    )


def vae_loss(vae: Network, pixels: Tensor, inside: Tensor) -> Tensor:
    """The pictures' loss, plus a light pull of the latents towards N(0, 1)."""
    posterior = vae.encode(pixels).latent_dist
    mean, std = posterior.mean, posterior.std
    drawn = vae.decode(mean + std * torch.randn_like(std)).sample
    kl = 0.5 * (mean.float().square() + std.float().square() - 1 - 2 * std.float().log()).mean()
    loss: Tensor = picture_loss(drawn, pixels, inside) + KL_WEIGHT * kl
    return loss


def picture_loss(drawn: Tensor, pixels: Tensor, inside: Tensor) -> Tensor:
    """Absolute and squared error, and the error in the differences between neighbours (edges). `inside` [rows, 1, 64, 64] is the mask
    of the individual, where errors count more: it is a fifth of the picture but has most of the detail."""
    weights = 1 + (INSIDE - 1) * inside
    error = drawn.float() - pixels
    across, down = error.diff(dim=-1).abs() * weights[..., 1:], error.diff(dim=-2).abs() * weights[..., 1:, :]
    whole = (error.abs() + 2 * error.square()) * weights
    loss: Tensor = (whole.mean() + (across.mean() + down.mean()) / 2) / weights.mean()
    return loss


class Clip(nn.Module):
    """CLIP's two halves and its temperature, learned together (Radford et al. 2021, arXiv 2103.00020)."""

    def __init__(self, vocabulary: int, end: int) -> None:
        super().__init__()
        self.text = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=77,
                projection_dim=WIDTH,
                bos_token_id=end - 1,
                eos_token_id=end,
                pad_token_id=end,
            )
        )
        self.image = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=3,
                num_attention_heads=4,
                image_size=world.SIZE,
                patch_size=8,
                projection_dim=WIDTH,
            )
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.patterns = nn.Linear(WIDTH, len(world.PATTERNS), bias=False)


def make_clip() -> Clip:
    """CLIP with the world's own vocabulary, untrained."""
    vocabulary, _ = _vocabulary()
    return Clip(len(vocabulary), vocabulary[END])


def clip_loss(clip: Network, pixels: Tensor, tokens: Tensor, patterns: Tensor, told: Tensor) -> Tensor:
    """Each picture must find its own caption among the batch's, and each caption its picture; and both must tell the pattern.

    `patterns` int64 [rows]: the pictures' patterns; `told` bool [rows]: whether the caption names it. Without this second task the text
    half has no need to tell dotted from zigzag, which matters little among so many pictures, and the UNet would never learn of it.
    """
    images = F.normalize(clip.image(pixels).image_embeds.float(), dim=1)
    texts = F.normalize(clip.text(tokens).text_embeds.float(), dim=1)
    scale = clip.log_scale.exp().clamp(max=100)
    likeness = scale * images @ texts.T
    right = torch.arange(len(pixels), device=pixels.device)
    matched = (F.cross_entropy(likeness, right) + F.cross_entropy(likeness.T, right)) / 2
    named = F.cross_entropy(scale * clip.patterns(texts[told]).float(), patterns[told])
    return matched + (named + F.cross_entropy(scale * clip.patterns(images).float(), patterns)) / 2


def make_unet() -> Network:
    """A UNet2DConditionModel with three levels and cross-attention at 8 x 8 and 4 x 4; at 16 x 16 it would double the time."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(64, 128, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # diffusers' name for the number of heads
    )


def reader_loss(reading: Reading, labels: dict[str, Tensor], masks: Tensor, gray: Tensor) -> Tensor:
    """The cross-entropy of every question (of colours only where the picture has any) and of the mask [rows, 64, 64]; `gray` bool [rows]:
    which pictures are gray."""
    loss = F.binary_cross_entropy_with_logits(reading.mask, masks)
    for name, label in labels.items():
        each = F.cross_entropy(reading.logits[name], label, reduction="none")
        loss = loss + (each * ~gray if name in ("body", "trim") else each).mean()
    return loss
