"""The names of the original checkpoints, which ComfyUI, A1111, Forge, InvokeAI and stable-diffusion.cpp read: which
weights of a diffusers folder each of their tensors is made from, and how.

CompVis/stable-diffusion (1), Stability-AI/stablediffusion (2: OpenCLIP's text encoder), Stability-AI/generative-models (XL); for the
families whose denoiser alone is in such a file, their records have the names.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from ...bases.facts import layout_of
from ...families.family import DenoiserFile, Family
from ..families.lora_file import sgm_name
from ..families.parts import nested

Change = Callable[[list[Tensor]], Tensor]
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPENCLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
OPENCLIP_LAYER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


@dataclass(frozen=True)
class Made:
    """A tensor of the file: which weights of which network it is made from, and how."""

    network: str
    sources: tuple[str, ...]
    change: Change


def first(tensors: list[Tensor]) -> Tensor:
    """A weight as it is."""
    return tensors[0]


def layout(family: Family, networks: Mapping[str, Any]) -> dict[str, Made]:
    """The tensors of the single file of a model with these networks, which may be on the meta device, by their names in it; for a
    family that has none, those of its denoiser's own file."""
    if family.single_file is None and family.denoiser_file is not None:
        return denoiser_layout(family.denoiser, family.denoiser_file, networks[family.denoiser].state_dict())
    starts, found = layout_of(family).starts, {}
    for part, network in networks.items():
        for name, sources, change in _names_for(network, list(nested(network, network.state_dict()))):
            found[starts[part] + name] = Made(part, sources, change)
    return found


def denoiser_layout(denoiser: str, file: DenoiserFile, weights: Iterable[str]) -> dict[str, Made]:
    """The tensors of a file of a denoiser alone, by their names in it."""
    sources: dict[str, list[str]] = {}
    for name in weights:
        sources.setdefault(name_in(file, name), []).append(name)
    return {
        name: Made(denoiser, tuple(sorted(found, key=projection)), _turned if name in file.turned else torch.cat if found[1:] else first)
        for name, found in sources.items()
    }


def name_in(file: DenoiserFile, name: str) -> str:
    """What a file of a denoiser alone calls a weight."""
    return next((found.expand(new) for old, new in file.names.items() if (found := re.fullmatch(old, name)) is not None), name)


def projection(name: str) -> int:
    """The place of attention's projections in one matrix: query, key, value; of any other weight 0."""
    found = re.search(r"\.(?:to|add)_([qkv])(?:_proj)?\.", name)
    return "qkv".index(found[1]) if found is not None else 0


def _turned(tensors: list[Tensor]) -> Tensor:
    return torch.cat(tensors[0].chunk(2)[::-1])


def _names_for(network: Any, names: list[str]) -> Iterator[tuple[str, tuple[str, ...], Change]]:
    is_unet, is_vae = isinstance(network, UNet2DConditionModel), isinstance(network, AutoencoderKL)
    if is_unet:
        for name in names:
            layer, _, kind = name.rpartition(".")
            yield f"{sgm_name(layer, network)}.{kind}", (name,), first
    elif is_vae:
        levels = len(network.config["block_out_channels"])
        for name in names:
            new = vae_name(name, levels)
            # attention's linear layers were 1x1 convolutions
            is_convolution = ".attn_1." in new and ".norm." not in new and new.endswith(".weight")
            yield new, (name,), _as_convolution if is_convolution else first
    elif is_openclip(network):
        yield from (("model." + new, sources, change) for new, sources, change in openclip_names(names))
    else:
        positions = network.config.max_position_embeddings
        yield from (("transformer." + name, (name,), first) for name in names)
        yield "transformer.text_model.embeddings.position_ids", (), lambda _: torch.arange(positions)[None]


def is_openclip(encoder: Any) -> bool:
    """Whether a CLIP text encoder is one of OpenCLIP's, as 2's and XL's second are: OpenAI's own have another activation."""
    return bool(encoder.config.hidden_act != "quick_gelu")


def _as_convolution(tensors: list[Tensor]) -> Tensor:
    return tensors[0][:, :, None, None]


def vae_name(name: str, levels: int) -> str:
    """What the original calls a weight of the VAE, of so many levels."""
    name = name.replace(".conv_norm_out.", ".norm_out.").replace(".conv_shortcut.", ".nin_shortcut.")
    name = re.sub(r"\.mid_block\.resnets\.(\d)", lambda found: f".mid.block_{int(found[1]) + 1}", name)
    if (found := re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)\.(\w+)", name)) is not None:
        return f"{found[1]}.mid.attn_1.{VAE_ATTENTION[found[2]]}.{found[3]}"
    name = re.sub(r"\.down_blocks\.(\d+)", r".down.\1", name)
    name = re.sub(r"\.up_blocks\.(\d+)", lambda found: f".up.{levels - 1 - int(found[1])}", name)
    return name.replace(".resnets.", ".block.").replace("samplers.0.", "sample.")


def openclip_names(names: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...], Change]]:
    """OpenCLIP's names of a text encoder's weights: its three projections of attention are one matrix, the last one is transposed."""
    for full in names:
        name = full.removeprefix("text_model.")
        if name in OPENCLIP:
            yield OPENCLIP[name], (full,), first
        elif name == "text_projection.weight":
            yield "text_projection", (full,), lambda tensors: tensors[0].T.contiguous()
        elif (found := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)) is not None:
            number, layer, kind = found.groups()
            block = f"transformer.resblocks.{number}"
            if layer in OPENCLIP_LAYER:
                yield f"{block}.{OPENCLIP_LAYER[layer]}.{kind}", (full,), first
            elif layer == "self_attn.q_proj":
                yield f"{block}.attn.in_proj_{kind}", tuple(full.replace(".q_proj.", f".{each}_proj.") for each in "qkv"), torch.cat
        else:
            raise KeyError(f"no place in an OpenCLIP checkpoint for {full}")
