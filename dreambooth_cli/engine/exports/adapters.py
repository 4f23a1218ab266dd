"""A LoRA beside its base in one file, as diffusers and as kohya's scripts name its layers; read again by `load_lora_weights`, and where
that can't by our own reader.

Each layer keeps its two matrices; the factor of their product goes into the second matrix (diffusers, whose oldest readers know no alpha)
or into alpha (kohya).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from ...bases.metadata import read_header
from ...errors import ModelUnavailable
from ...families.family import Family
from ..families.loading import load_empty, load_pipeline, parts_of
from ..families.lora import in_first_names, lora_metadata
from ..families.lora_file import LoraFile, Pair, find_pairs, put_in, read_pair, sgm_name
from ..families.parts import nested_name, quiet
from ..tensor_file import write_stream
from .proof import Open, Proof, prove
from .weights import Weights

Tensors = dict[str, Tensor]
ROUNDING = 4.0  # by how many last digits of the number format that is written a product may be off


def write(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write a LoRA to a new file. Raises OSError."""
    write_stream(path, tensors, lambda name: tensors[name], {"format": "pt", **texts})


def format_of(weights: Weights, dtype: torch.dtype | None) -> torch.dtype:
    """The number format that a LoRA is written in: `dtype`, or without one the format that it is stored in."""
    assert weights.file is not None
    stored = {"F16": torch.float16, "BF16": torch.bfloat16}
    words = {weights.file.dtypes[pair.tensors["up"]] for pair in weights.pairs}
    return dtype or (stored.get(words.pop(), torch.float32) if len(words) == 1 else torch.float32)


def in_diffusers(weights: Weights, dtype: torch.dtype) -> tuple[Tensors, dict[str, str]]:
    """The tensors of a LoRA by diffusers' names, and its ranks for the header."""
    assert weights.file is not None
    found: Tensors = {}
    for network in dict.fromkeys(pair.network for pair in weights.pairs):
        mine: Tensors = {}
        for pair in (each for each in weights.pairs if each.network == network):
            tensors, layer = read_pair(weights.file, pair), nested_name(weights.networks[pair.network], pair.layer)
            mine[f"{layer}.lora_A.weight"] = tensors["down"]
            mine[f"{layer}.lora_B.weight"] = tensors["up"] * pair.scale
            if (magnitude := magnitude_of(tensors)) is not None:
                ones = (1,) * (tensors["down"].ndim - 2)
                mine[f"{layer}.lora_magnitude_vector.weight"] = magnitude.reshape(1, -1, *ones) if ones else magnitude.flatten()
        is_plain = not any("magnitude" in name for name in mine)
        found |= {f"{network}.{name}": value.to(dtype).contiguous() for name, value in (in_first_names(mine) if is_plain else mine).items()}
    return found, lora_metadata(weights.pairs)


def in_kohya(weights: Weights, dtype: torch.dtype) -> tuple[Tensors, dict[str, str]]:
    """The tensors of a LoRA by the names of kohya's scripts, which A1111 and ComfyUI took over, and their words for the header."""
    assert weights.file is not None
    family = weights.base.facts.family
    if not isinstance(weights.networks[family.denoiser], UNet2DConditionModel):
        raise ModelUnavailable(f"no kohya layout is known here for {family.title}", "say --to lora: ComfyUI and others read that")
    found: Tensors = {}
    # one alpha for all layers, though ranks differ: diffusers ignores that of a single attention layer
    ((alpha, _),) = Counter(pair.scale * pair.rank for pair in weights.pairs).most_common(1)
    for pair in weights.pairs:
        tensors, layer = read_pair(weights.file, pair), kohya_name(family, weights.networks, pair.network, pair.layer)
        found[f"{layer}.lora_down.weight"] = tensors["down"].to(dtype)
        found[f"{layer}.lora_up.weight"] = (tensors["up"] * (pair.scale * pair.rank / alpha)).to(dtype)
        found[f"{layer}.alpha"] = torch.tensor(alpha)
        if (magnitude := magnitude_of(tensors)) is not None:
            found[f"{layer}.dora_scale"] = magnitude.reshape(-1, *(1,) * (tensors["down"].ndim - 1)).to(dtype)
    ranks = {pair.rank for pair in weights.pairs}
    told = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": f"{alpha:g}",
    }
    return found, told


def magnitude_of(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """A DoRA's magnitudes among the tensors of a pair, whatever their file called them."""
    return tensors.get("magnitude", tensors.get("dora_scale"))


def kohya_name(family: Family, networks: Mapping[str, Any], network: str, layer: str) -> str:
    """`lora_unet_...`, `lora_te_...`; where there are two text encoders `lora_te1_...` and `lora_te2_...`, and the UNet's layers have the
    names of Stability's own code."""
    encoders, live = family.text_encoders, networks[network]
    layer = nested_name(live, layer)
    if isinstance(live, UNet2DConditionModel):
        prefix, layer = "lora_unet", sgm_name(layer, live) if len(encoders) > 1 else layer
    else:
        number = encoders.index(network) + 1 if len(encoders) > 1 else ""
        prefix = f"lora_te{number}"
    return f"{prefix}_{layer.replace('.', '_')}"


def check(weights: Weights, path: Path, dtype: torch.dtype) -> Proof:
    """Open the file `path` again with diffusers, beside its base, and compare it with the LoRA that it was made from."""
    ours, theirs = readers(weights, path)
    return prove(weights, ours, theirs, partial(differing_pairs, weights, dtype), dtype)


def readers(weights: Weights, path: Path) -> tuple[Open, Open]:
    """What opens some of the base's networks with the LoRA that is exported, and what opens them with the file `path`."""
    assert weights.file is not None
    ours = partial(open_ours, weights, weights.file, weights.pairs)
    if not not_for_diffusers(path):
        return ours, partial(open_theirs, weights, path)
    file, pairs, _ = find_pairs(weights.networks, path)
    return ours, partial(open_ours, weights, file, pairs)


def open_ours(weights: Weights, file: LoraFile, pairs: Sequence[Pair], names: Sequence[str]) -> Any:
    """Some of the base's networks with a LoRA's layers, by our own reader."""
    pipe = load_pipeline(weights.base, dtype=torch.float32, only=names, lean=True)
    networks = parts_of(pipe)
    put_in(networks, file, [pair for pair in pairs if pair.network in networks])
    return pipe


def open_theirs(weights: Weights, path: Path, names: Sequence[str]) -> Any:
    """Some of the base's networks with a LoRA's layers, by diffusers' reader. It wants all networks: the others have no values."""
    pipe = load_pipeline(weights.base, dtype=torch.float32, only=names, lean=True)
    absent = {name: network for name, network in parts_of(load_empty(weights.base)).items() if name not in parts_of(pipe)}
    pipe.register_modules(**absent)
    with quiet():
        pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    pipe.register_modules(**dict.fromkeys(absent))
    return pipe


def not_for_diffusers(path: Path) -> bool:
    """Whether diffusers would leave out a part of a LoRA: it does not read a DoRA's scales in kohya's layout."""
    return any(name.endswith(".dora_scale") for name in read_header(path))


def differing_pairs(weights: Weights, dtype: torch.dtype, pipe: Any) -> str:
    """In words, how a LoRA's layers in the networks that a reader has opened differ from what was written; "" if they don't."""
    assert weights.file is not None
    networks = parts_of(pipe)
    pairs = [pair for pair in weights.pairs if pair.network in networks]
    placed = sum(isinstance(layer, LoraLayer) for network in networks.values() for layer in network.modules())
    if placed != len(pairs):
        return f"{placed} of its {len(pairs)} layers were read"
    wrong = []
    for pair in pairs:
        tensors = read_pair(weights.file, pair)
        layer: Any = networks[pair.network].get_submodule(pair.layer)
        is_lora = isinstance(layer, LoraLayer)
        if not is_lora:
            return f"{pair.network}'s {pair.layer} was not read"
        (name,) = layer.lora_A.keys()
        found = layer.scaling[name] * (layer.lora_B[name].weight.flatten(1) @ layer.lora_A[name].weight.flatten(1))
        up, down = tensors["up"].flatten(1), tensors["down"].flatten(1)
        digits = ROUNDING * torch.finfo(dtype).eps + pair.rank * torch.finfo(torch.float32).eps  # of what is written, and of the sum
        bound = digits * pair.scale * float((up.abs() @ down.abs()).max())
        if not float((found - pair.scale * (up @ down)).abs().max()) <= bound:
            wrong.append(f"{pair.network}'s {pair.layer}")
    return f"{len(wrong)} of its {len(pairs)} layers were read with other values, such as {wrong[0]}" if wrong else ""
