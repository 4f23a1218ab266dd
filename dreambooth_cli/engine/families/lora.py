"""LoRA (Hu et al. 2021): small trained matrices beside frozen layers. Layers, files and metadata are peft's and diffusers'."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from torch import nn
from transformers import CLIPPreTrainedModel

from ...disk import write_whole
from ...errors import UsageError
from ...families.family import LoraLayers, Part
from ...memory.plan import INSTALL_8BIT
from ...run import LORA_FILE
from .lora_file import Pair
from .parts import nested


def lora_layers_of(module: Any, part: Part, which: LoraLayers) -> list[str]:
    """The layers of a network that get a LoRA, for peft's `target_modules`: the ends of their names, or every layer's whole name where
    blocks that nothing reads are left out, or where a module that is not a layer has such a name too, which peft would refuse."""
    ends = part.layers_for(which)
    found = [(name, layer) for name, layer in module.named_modules() if name.endswith(tuple(f".{end}" for end in ends))]
    layers = [name for name, layer in found if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not part.unread and len(layers) == len(found):
        return list(ends)
    unread = tuple(f"layers.{module.config.num_hidden_layers - 1 - place}" for place in range(part.unread))
    return [name for name in layers if not any(f".{block}." in name for block in unread)]


def add_lora(module: Any, *, layers: Sequence[str], rank: int, alpha: float, seed: int) -> None:
    """Add LoRA layers to a network, at the layers whose names end like these: float32, trainable, initialised by the seed."""
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # peft only divides it by the rank: it need not be whole
        init_lora_weights="gaussian",
        target_modules=list(layers),
    )
    # peft draws from the global generator: seed it only for this
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # not the module's own `add_adapter`: that of transformers refuses any peft older than the one it was written for
        inject_adapter_in_model(config, module)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def quantize(denoiser: Any, dtype: torch.dtype) -> None:
    """Store a frozen denoiser's linear layers in 4 bits (NF4: Dettmers et al. 2023, arXiv 2305.14314); they compute in `dtype`.

    The layers are bitsandbytes'; they are quantized when they are next moved to a device. Raises UsageError if it is missing.
    """
    try:
        from bitsandbytes.nn import modules
    except ImportError as error:
        raise UsageError("a base in 4 bits needs bitsandbytes", f"install it: {INSTALL_8BIT}") from error

    class Linear4bit(modules.Linear4bit):
        """Returns the number format that it computes in, as a linear layer does under autocast. bitsandbytes' own layer returns the format
        of its input, so that everything between a norm and the next layer would be kept in float32."""

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = super().forward(states.to(dtype))
            return answer

    for module in list(denoiser.modules()):
        for name, child in list(module.named_children()):
            if type(child) is not nn.Linear:
                continue
            has_bias = child.bias is not None
            small = Linear4bit(  # type: ignore[no-untyped-call]  # bitsandbytes'
                child.in_features, child.out_features, has_bias, compute_dtype=dtype, quant_type="nf4", device="meta"
            )
            small.weight = modules.Params4bit(
                child.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=False
            )
            small.bias = child.bias
            setattr(module, name, small)
    denoiser.is_loaded_in_4bit = True  # tells peft which kind of LoRA layer to put beside them


def store_in_8_bits(denoiser: Any, part: Part, dtype: torch.dtype) -> None:
    """Store a frozen denoiser's weights in 8 bits, each cast to `dtype` while its layer computes: diffusers' layerwise casting. The names
    that are passed replace the library's default list of layers to leave alone, so that list is passed too; the network's class adds its
    own."""
    stay = (*DEFAULT_SKIP_MODULES_PATTERN, *part.precise)
    denoiser.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype, skip_modules_pattern=stay)


def in_first_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of an attention-only LoRA under the names of diffusers' first LoRAs, which even the oldest programs read. One with more
    layers keeps peft's names: in a file with both kinds of names, diffusers reads only one kind."""
    renamed: dict[str, torch.Tensor] = convert_state_dict_to_diffusers(weights)
    return weights if any(".lora_A." in name for name in renamed) else renamed


def save_lora(pipeline: type[Any], folder: Path, modules: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Write `pytorch_lora_weights.safetensors` with the rank in its header, so that `load_lora_weights` gives the same model.

    The up matrices are multiplied by alpha / rank, and the header says that alpha equals the rank: programs that don't read the header
    assume just that.
    """
    layers: dict[str, Any] = {}
    for name, module in modules.items():
        config = module.peft_config["default"].to_dict()
        scale = config["lora_alpha"] / config["r"]
        weights = {
            key: (value * scale if "lora_B" in key else value).to(dtype)
            for key, value in get_peft_model_state_dict(module).items()
        }
        # programs find CLIP's layers only by their nested names, and skip those that they don't find
        weights = nested(module, weights)
        is_first = isinstance(module, UNet2DConditionModel | CLIPPreTrainedModel)  # diffusers' first LoRAs were for these networks
        layers[f"{name}_lora_layers"] = in_first_names(weights) if is_first else weights
        layers[f"{name}_lora_adapter_metadata"] = config | {"lora_alpha": config["r"]}
    pipeline.save_lora_weights(folder, **layers)
    file = folder / LORA_FILE
    write_whole(file, file.read_bytes())  # safetensors creates files that only their owner can read; this one follows the umask


def lora_metadata(pairs: Sequence[Pair]) -> dict[str, str]:
    """The header of a LoRA with these pairs, whose scales are already in their up matrices: the usual rank of each network's layers, the
    ranks of layers that differ, and that alpha equals the rank."""
    told: dict[str, Any] = {}
    for network in dict.fromkeys(pair.network for pair in pairs):
        mine = [pair for pair in pairs if pair.network == network]
        ((usual, _),) = Counter(pair.rank for pair in mine).most_common(1)
        others = {pair.layer: pair.rank for pair in mine if pair.rank != usual}
        config = {"r": usual, "lora_alpha": usual, "rank_pattern": others, "alpha_pattern": others}
        config |= {"target_modules": sorted({pair.layer for pair in mine}), "peft_type": "LORA"}
        config["use_dora"] = bool(mine[0].tensors.keys() & {"magnitude", "dora_scale"})
        told |= {f"{network}.{key}": value for key, value in config.items()}
    return {LORA_ADAPTER_METADATA_KEY: json.dumps(told, indent=2, sort_keys=True)}
