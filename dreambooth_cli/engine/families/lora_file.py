"""A LoRA file, whoever wrote it: which layer of which network each of its tensors belongs to, and how it gets into those layers.

The naming schemes of diffusers, peft and kohya's scripts are read. Every tensor is accounted for before anything is changed: its kind is
known, its layer found, its shape fits that layer, its partner is there, its scale is known. Only safetensors files are ever opened,
whatever a file is called.
"""

import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from torch import Tensor, nn

from ...bases.metadata import read_header, read_json
from ...bases.weights import check_is_safetensors
from ...errors import ModelUnavailable
from ...families.family import VAE
from ...families.known import denoiser_names
from ...text import shortened
from ..refusal import refused
from .loading import parts_of
from .parts import axes

NAMES = ("pytorch_lora_weights", "adapter_model")  # diffusers' and peft's
MOST_RANK = 4096
MOST_ALPHA = 1e6
MOST_CONFIG = 1_000_000  # bytes of an adapter_config.json
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
RIGHT_BASE = "check that it was trained on this base, or name the right one: --model sd15 (or sdxl, klein, z-image, or a base's folder)"
OTHER_PROGRAM = "name a plain LoRA, such as `dreambooth train --method lora` makes, or draw with a program that reads these"
DAMAGED = "it is damaged: fetch it again, or make it again"

# what follows a layer's name, in any of the naming schemes
_IS_A, _IS_B = (
    rf"(?:\.lora_{letter}(?:\.\w+)?|\.lora_{word}|[._]lora\.{word}|\.lora_linear_layer\.{word})\.weight"
    for letter, word in (("A", "down"), ("B", "up"))
)
ROLES = {
    "down": re.compile(rf"(.+?){_IS_A}"),
    "up": re.compile(rf"(.+?){_IS_B}"),
    "alpha": re.compile(r"(.+)\.alpha"),
    "magnitude": re.compile(r"(.+?)\.lora_magnitude_vector(?:\.\w+)?(?:\.weight)?"),
    "dora_scale": re.compile(r"(.+)\.dora_scale"),
}
# what precedes a layer's name, and the network that this stands for; a base's denoiser is a UNet or a transformer, whatever a file calls it
DENOISER = "denoiser"
PREFIXES = {
    "base_model.model.": None,
    "unet.": DENOISER,
    "transformer.": DENOISER,
    "diffusion_model.": DENOISER,
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoders.clip_l.transformer.": "text_encoder",  # ComfyUI's
    "text_encoders.clip_h.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "lora_unet_": DENOISER,
    "lora_transformer_": DENOISER,
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
# other kinds of files, recognised by a pattern in a tensor's name
OTHERS = {
    r"\.hada_": "a LoHa, whose weights are products of four matrices",
    r"\.lokr_": "a LoKr, whose weights are Kronecker products",
    r"\.lora_mid\.": "a LoCon in Tucker form, of three matrices a layer",
    r"\.b?oft_|\.oft_diag|\.hra_": "an OFT, whose weights are rotations",
    r"\.[ab][12]\.weight$": "a GLoRA, of four matrices a layer",
    r"\.ia3_|\.on_input$": "an IA3, which scales activations",
    r"\.diff(_b)?$|\.[wb]_norm$|\.norm_[wb]$": "a LyCORIS file of whole differences, not of pairs of matrices",
    r"\.vera_lambda|fourierft|\.lora_embedding_": "an adapter of peft's that is no LoRA of linear layers and convolutions",
    r"lora_[BA](\.default)?\.bias$|lora_(up|down)\.bias$": "a LoRA with biases",
    r"^lora_controlnet$|controlnet|^input_hint_block": "a ControlNet or a Control-LoRA",
    r"temporal_transformer|motion_module": "a motion LoRA, for video",
    r"^emb_params$|^string_to_|^clip_[lg]$": "a textual inversion, which is word embeddings",
    r"ip_adapter|image_proj\.": "an IP-Adapter",
    r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\.": "a whole base model in one file, such as --model takes",
    r"^(?!.*lora)(encoder|decoder)\.(conv|mid|down|up)": "a VAE",
    r"^(?!.*lora)(down_blocks|mid_block|up_blocks|conv_in)\.": "the weights of a whole UNet",
    r"^(?!.*lora)(text_model\.)?(encoder\.layers|embeddings)\.": "the weights of a whole text encoder",
}
TRANSFORMER = "transformer"
FOR_A_TRANSFORMER = r"^transformer\.|^lora_transformer_|^lora_te3_|double_blocks|single_blocks|joint_blocks|^diffusion_model\.layers\."
BUNDLED = "bundle_emb."  # word embeddings that come with the LoRA
# initialisations that also change the base's own weights: the pairs alone are only half of what was learned
CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")

SGM = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
SGM_RESNET = {
    "norm1": "in_layers.0",
    "norm2": "out_layers.0",
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
TO_OLD = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file says before its tensors are read: their shapes and dtypes by name, and the texts in its header."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    texts: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)  # peft's adapter_config.json beside it


@dataclass(frozen=True)
class Found:
    """The names of one layer's tensors by their role (see ROLES), and the layer as the file calls it; `network` is None if the file does
    not say which it is."""

    network: str | None
    called: str
    tensors: Mapping[str, str]
    is_peft: bool


@dataclass(frozen=True)
class Pair:
    """Two matrices whose product, times `scale`, is added to a layer's weights: the network, the layer's name in it, the tensors' names
    by role, and the rank."""

    network: str
    layer: str
    tensors: Mapping[str, str]
    rank: int
    scale: float


@dataclass(frozen=True)
class Stated:
    """What a header states about a network's LoRA: alpha and rank, those of single layers that differ, and whether alpha is divided by
    the square root of the rank (rsLoRA) instead of the rank."""

    alpha: float
    rank: int | None
    alphas: Mapping[str, float]
    ranks: Mapping[str, float]
    by_root: bool


def find_lora(path: Path) -> Path:
    """The LoRA file that a path stands for: itself, or the one in a folder. Its contents are checked later. Raises ModelUnavailable."""
    if not path.is_dir():
        return path
    try:
        files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".")]
    except OSError as error:
        raise ModelUnavailable(f"{path} can't be read: {error.strerror}", "check the folder and who may read it") from error
    by_name = {file.name: file for file in files}
    for kind in ((".safetensors", ".sft"), (".bin", ".pt", ".ckpt", ".pth")):
        mine = [file for file in files if file.suffix.lower() in kind]
        known = [by_name[f"{name}{end}"] for name in NAMES for end in kind if f"{name}{end}" in by_name]
        if known or len(mine) == 1:
            return (known or mine)[0]
        if mine:
            raise ModelUnavailable(
                f"{path} holds several weight files and no model: {shortened(', '.join(file.name for file in mine))}",
                "name the LoRA's file itself",
            )
    raise ModelUnavailable(
        f"{path} holds neither a diffusers model nor a LoRA", "name the folder that `dreambooth train` wrote"
    )


def load_lora(pipe: Any, path: Path) -> list[str]:
    """Put a LoRA, a file or a folder, into a pipeline's networks. Returns remarks for the user, such as which layers found no place.

    Raises ModelUnavailable if it is not a LoRA that can be read, is damaged, or does not belong to this base.
    """
    with refused(f"the LoRA {path} can't be read", DAMAGED):
        return _load(parts_of(pipe), read_lora(find_lora(path)))


def check_lora(path: Path) -> None:
    """Check what can be checked of a LoRA, a file or a folder, before its base is fetched and loaded. Raises ModelUnavailable."""
    with refused(f"the LoRA {path} can't be read", DAMAGED):
        for _ in layers_in(read_lora(find_lora(path))):
            pass


def _load(networks: Mapping[str, Any], file: LoraFile) -> list[str]:
    """Match the whole file, then put it in: nothing is changed if it does not fit."""
    pairs, remarks = pairs_of(networks, file)
    if not put_in(networks, file, pairs):
        remarks.append(f"{file.path.name} changes nothing: its matrices are all zeros")
    return remarks


def find_pairs(networks: Mapping[str, Any], path: Path) -> tuple[LoraFile, list[Pair], list[str]]:
    """A LoRA, a file or a folder, with its pairs of matrices and their places in these networks, which may be on the meta device; and
    remarks for the user. Raises ModelUnavailable as `load_lora` does."""
    with refused(f"the LoRA {path} can't be read", DAMAGED):
        file = read_lora(find_lora(path))
        return file, *pairs_of(networks, file)


def pairs_of(networks: Mapping[str, Any], file: LoraFile) -> tuple[list[Pair], list[str]]:
    """The pairs of a file with their places in the networks, and remarks for the user, such as on what has no place. Raises
    ModelUnavailable."""
    if TRANSFORMER not in networks and any(re.search(FOR_A_TRANSFORMER, name) for name in file.shapes):
        raise ModelUnavailable(f"{file.path} is a LoRA for a transformer, and this base has a UNet", RIGHT_BASE)
    found = list(layers_in(file))
    if not found:
        raise ModelUnavailable(f"{file.path} holds no LoRA: there is no pair of matrices in it", DAMAGED)
    pairs, homeless = match(file, found, networks)
    remarks = []
    if homeless:
        remarks.append(
            f"{file.path.name} is only partly used: this base lacks {len(homeless)} of the {len(found)} layers that it is for, "
            f"such as {shortened(homeless[0])}"
        )
    if bundled := [name for name in file.shapes if name.startswith(BUNDLED)]:
        remarks.append(f"the word embeddings bundled with {file.path.name} are left out, such as {shortened(bundled[0])}")
    if any(each.is_peft for each in found) and not (file.config or _adapter_metadata(file)):
        remarks.append(f"{file.path.name} does not say its alpha: it is taken to be its rank")
    silent = {pair.network for pair in pairs if "alpha" not in pair.tensors and stated_of(file, pair.network) is None}
    if silent and _adapter_metadata(file):
        remarks.append(f"the header of {file.path.name} gives no alpha for {', '.join(sorted(silent))}: it is taken to be the rank")
    return pairs, remarks


def read_pair(file: LoraFile, pair: Pair) -> dict[str, Tensor]:
    """The tensors of a pair by their role, in float32. Raises ModelUnavailable if a value is not finite."""
    with safe_open(file.path, framework="pt") as opened:
        tensors = {role: opened.get_tensor(name).float() for role, name in pair.tensors.items()}
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelUnavailable(f"{file.path} holds numbers that are not finite, at {pair.layer}", DAMAGED)
    return tensors


def changed(weight: Tensor, tensors: Mapping[str, Tensor], scale: float) -> Tensor:
    """A layer's weight plus a pair's product, `scale` * B A, in float32; with a DoRA, each output's weights are scaled to its magnitude
    (Liu et al. 2024, arXiv 2402.09353, eq. 5)."""
    product = tensors["up"].flatten(1) @ tensors["down"].flatten(1)
    made: Tensor = weight.float() + scale * product.reshape(weight.shape)
    magnitude = tensors.get("magnitude", tensors.get("dora_scale"))
    if magnitude is None:
        return made
    ones = (1,) * (weight.ndim - 1)
    norm: Tensor = torch.linalg.vector_norm(made.flatten(1), dim=1).reshape(-1, *ones)
    brought: Tensor = made * (magnitude.reshape(-1, *ones) / norm)
    return brought


# ---- what the file says


def read_lora(path: Path) -> LoraFile:
    """The header of a LoRA file. Raises ModelUnavailable if it is not a safetensors file, or if its tensors are those of another kind of
    file."""
    check_is_safetensors(path)
    header = read_header(path)
    texts = header.pop("__metadata__", {})
    shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
    dtypes = {name: str(entry.get("dtype")) for name, entry in header.items()}
    for mark, what in OTHERS.items():
        if any(re.search(mark, name) for name in shapes):
            raise ModelUnavailable(f"{path} is {what}; only LoRA, LoCon and DoRA files are read", OTHER_PROGRAM)
    with safe_open(path, framework="pt"):  # has the library check the offsets
        pass
    return LoraFile(path, shapes, dtypes, texts, _config_beside(path))


def _config_beside(path: Path) -> dict[str, Any]:
    """peft's adapter_config.json beside the file, if the file has the name that peft gives."""
    config = path.with_name("adapter_config.json")
    if path.stem != "adapter_model" or not config.is_file():
        return {}
    if config.stat().st_size > MOST_CONFIG:
        raise ModelUnavailable(f"{config} has {config.stat().st_size:,} bytes, more than any real one", DAMAGED)
    return read_json(config)


def layers_in(file: LoraFile) -> Iterator[Found]:
    """The layers that a file's tensors are for. Raises ModelUnavailable for a tensor of an unknown kind, or one without its partner."""
    layers: dict[str, dict[str, str]] = {}
    for name in sorted(file.shapes):
        if name.startswith(BUNDLED):
            continue
        for role, form in ROLES.items():
            if matched := form.fullmatch(name):
                roles = layers.setdefault(matched[1].replace(".processor", ""), {})
                if role in roles:
                    raise ModelUnavailable(f"{file.path} holds {role} twice for {shortened(matched[1])}", DAMAGED)
                roles[role] = name
                break
        else:
            raise ModelUnavailable(
                f"{file.path} holds a tensor of an unknown kind: {shortened(repr(name))}", OTHER_PROGRAM
            )
    for layer, roles in layers.items():
        for role in ("down", "up"):
            if role not in roles:
                raise ModelUnavailable(f"{file.path} lacks the {role} matrix of {shortened(repr(layer))}", DAMAGED)
        network, called = None, layer
        while prefix := next((each for each in PREFIXES if called.startswith(each)), ""):
            network, called = network or PREFIXES[prefix], called.removeprefix(prefix)
        yield Found(network, called, roles, "base_model.model." in layer)


def _adapter_metadata(file: LoraFile) -> dict[str, Any]:
    """peft's config as diffusers writes it into the header."""
    text = file.texts.get("lora_adapter_metadata")
    value = json.loads(text) if text is not None else {}
    if not isinstance(value, dict):
        raise ValueError("its header's lora_adapter_metadata is not a JSON object")
    return value


def stated_of(file: LoraFile, network: str) -> Stated | None:
    """What the header, or peft's config beside the file, states about a network; None if neither says anything.

    Raises ModelUnavailable for anything but a plain LoRA, ValueError for impossible values.
    """
    prefix = f"{network}."
    told = {key.removeprefix(prefix): value for key, value in _adapter_metadata(file).items() if key.startswith(prefix)}
    told = told or file.config
    if not told:
        return None
    kind, made = told.get("peft_type", "LORA"), told.get("init_lora_weights")
    if kind != "LORA" or (isinstance(made, str) and made.lower().startswith(CHANGES_THE_BASE)):
        what = made if kind == "LORA" else kind
        raise ModelUnavailable(f"{file.path} is an adapter of another kind: {shortened(repr(what))}", OTHER_PROGRAM)
    by_root = told.get("use_rslora") or False
    if not isinstance(by_root, bool):
        raise ValueError(f"its header's use_rslora can't be {shortened(repr(by_root))}")
    if told.get("use_dora") not in (None, True, False):
        raise ValueError(f"its header's use_dora can't be {shortened(repr(told['use_dora']))}")
    if told.get("use_dora") and not any("magnitude" in name or "dora_scale" in name for name in file.shapes):
        raise ModelUnavailable(f"{file.path} is a DoRA whose scale is missing", DAMAGED)
    return Stated(
        _positive(told.get("lora_alpha"), "alpha"),
        int(_positive(told.get("r"), "rank")),
        _by_layer(told, "alpha_pattern"),
        _by_layer(told, "rank_pattern"),
        by_root,
    )


def _by_layer(told: Mapping[str, Any], key: str) -> dict[str, float]:
    """A pattern's values by the ends of layers' names. peft would use the names as regular expressions, which could run for ever."""
    pattern = told.get(key) or {}
    if not isinstance(pattern, dict):
        raise ValueError(f"its header's {key} can't be {shortened(repr(pattern))}")
    plain = {name.removeprefix("^").replace("\\.", "."): _positive(value, key) for name, value in pattern.items()}
    if odd := next((name for name in plain if not re.fullmatch(r"[\w.]+", name)), None):
        raise ValueError(f"its header's {key} has an impossible layer name, {shortened(repr(odd))}")
    return plain


def _positive(value: Any, what: str) -> float:
    """The value as a number, checked to be above zero and not impossibly large. Raises ValueError."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and 0 < value <= MOST_ALPHA):
        raise ValueError(f"its {what} can't be {shortened(repr(value))}")
    return float(value)


def _for_layer(values: Mapping[str, float], names: tuple[str, str], otherwise: float | None) -> float | None:
    """The value whose key is a layer's name or its end; `otherwise` if there is none."""
    found = (value for key, value in values.items() if any(f".{name}".endswith(f".{key}") for name in names))
    return next(found, otherwise)


# ---- what the base has


def names_in(module: nn.Module) -> dict[str, str]:
    """The layers of a network that a LoRA may be for: every name that a file may give one, with underscores for dots -> the layer's own
    name."""
    layers = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    others = sgm_name if isinstance(module, UNet2DConditionModel) else old_name
    names: dict[str, str] = {}
    for own in layers:
        short = own.removeprefix("text_model.")
        for name in (own, short, f"text_model.{short}", own.removesuffix(".0"), others(own, module)):
            names.setdefault(name.replace(".", "_"), own)
    return names


def old_name(layer: str, encoder: nn.Module) -> str:
    """What diffusers' first LoRAs called a layer of a text encoder's attention."""
    head, last = layer.removeprefix("text_model.").rpartition(".")[::2]
    return f"text_model.{head}.{TO_OLD.get(last, last)}"


def sgm_name(layer: str, unet: Any) -> str:
    """What Stability AI's own code, and so kohya's scripts for SDXL, call a layer of the UNet."""
    if layer in SGM:
        return SGM[layer]
    part = re.fullmatch(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", layer)
    if part is None:
        return layer
    side, level, kind, place, tail = part[1], int(part[2] or 0), part[3], int(part[4]), part[5]
    per_level = len(unet.down_blocks[0].resnets) + 1
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * per_level}.0.op"
    if kind == "upsamplers":
        after = 2 if getattr(unet.up_blocks[level], "attentions", None) else 1
        return f"output_blocks.{(level + 1) * per_level - 1}.{after}.{tail}"
    if kind == "resnets":
        tail = SGM_RESNET.get(tail, tail)
    if side is None:
        return f"middle_block.{2 * place if kind == 'resnets' else 1}.{tail}"
    number = level * per_level + place
    block = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
    return f"{block}.{0 if kind == 'resnets' else 1}.{tail}"


def match(file: LoraFile, found: list[Found], networks: Mapping[str, Any]) -> tuple[list[Pair], list[str]]:
    """The pairs of the file that have a place in the networks, and the layers that have none, by the file's own names.

    Raises ModelUnavailable if nothing has a place, or if a shape does not fit the layer.
    """
    check_alike(file, found)
    names = {network: names_in(module) for network, module in networks.items() if network != VAE}
    stated = {network: stated_of(file, network) for network in names}
    pairs: dict[tuple[str, str], Pair] = {}
    homeless = []
    for each in found:
        place = place_of(file, each, names)
        if place is None:
            homeless.append(each.called)
            continue
        if place in pairs:
            raise ModelUnavailable(f"{file.path} holds two pairs for {place[0]}'s {place[1]}", DAMAGED)
        network, layer = place
        rank = rank_of(file, each, networks[network].get_submodule(layer))
        pairs[place] = Pair(network, layer, each.tensors, rank, scale_of(file, each, layer, rank, stated[network]))
    if not pairs:
        raise ModelUnavailable(
            f"nothing in {file.path} fits this base: it is for layers such as {shortened(found[0].called)}", RIGHT_BASE
        )
    return list(pairs.values()), homeless


def check_alike(file: LoraFile, found: list[Found]) -> None:
    """Raise ModelUnavailable if only some layers of a file have an alpha, or only some a DoRA's scale: then a part of it is lost."""
    for what, roles in (("alpha", {"alpha"}), ("DoRA scale", {"magnitude", "dora_scale"})):
        have = sum(not roles.isdisjoint(each.tensors) for each in found)
        if 0 < have < len(found):
            raise ModelUnavailable(f"{file.path} lacks the {what} of {len(found) - have} of its {len(found)} layers", DAMAGED)


def place_of(file: LoraFile, found: Found, names: Mapping[str, Mapping[str, str]]) -> tuple[str, str] | None:
    """The network and the layer that a file's layer is for; None if there is no such layer. Raises ModelUnavailable if there are two."""
    flat = found.called.replace(".", "_")
    denoisers = set(denoiser_names())
    networks = [name for name in names if found.network in (None, name, DENOISER if name in denoisers else name)]
    places = [(network, names[network][flat]) for network in networks if flat in names.get(network, {})]
    if len(places) > 1:
        raise ModelUnavailable(
            f"{file.path} does not say which text encoder {shortened(found.called)} is for", OTHER_PROGRAM
        )
    return places[0] if places else None


def rank_of(file: LoraFile, found: Found, layer: nn.Linear | nn.Conv2d) -> int:
    """The rank of a pair, after checking that its shapes fit the layer. Raises ModelUnavailable."""
    down, up = (file.shapes[found.tensors[role]] for role in ("down", "up"))
    for tensor in found.tensors.values():
        if file.dtypes[tensor] not in FLOATS and tensor != found.tensors.get("alpha"):
            raise ModelUnavailable(f"{file.path}: {shortened(tensor)} is of dtype {file.dtypes[tensor]}", DAMAGED)
    rank = down[0] if down else 0
    if not 1 <= rank <= MOST_RANK:
        raise ModelUnavailable(f"{file.path}: the rank of {shortened(found.called)} can't be {rank}", DAMAGED)
    for shape, wanted in zip((down, up), shapes_for(layer, rank), strict=True):
        if without_ones(shape) != without_ones(wanted):
            raise ModelUnavailable(
                f"{file.path} was made for another base: its {shortened(found.called)} is {axes(shape)}, the base's needs {axes(wanted)}",
                RIGHT_BASE,
            )
    out = wanted[0]
    if (name := found.tensors.get("magnitude")) and math.prod(file.shapes[name]) != out:
        raise ModelUnavailable(f"{file.path}: the scale of {shortened(found.called)} is {axes(file.shapes[name])}", DAMAGED)
    if (name := found.tensors.get("dora_scale")) and without_ones(file.shapes[name]) not in ((out, 1), (out,)):
        raise ModelUnavailable(f"{file.path} is a DoRA scaled by its inputs; only those scaled by their outputs are read", OTHER_PROGRAM)
    return rank


def shapes_for(layer: nn.Linear | nn.Conv2d, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the two matrices beside a layer: [rank, in] and [out, rank]; for a convolution, the first with the layer's kernel and
    the second with 1x1."""
    if isinstance(layer, nn.Conv2d):
        return (rank, layer.in_channels, *layer.kernel_size), (layer.out_channels, rank, 1, 1)
    return (rank, layer.in_features), (layer.out_features, rank)


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without trailing axes of 1 after the second: a linear layer may be written as a 1x1 convolution, and the reverse."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def scale_of(file: LoraFile, found: Found, layer: str, rank: int, stated: Stated | None) -> float:
    """What a pair's product is multiplied by: alpha / rank. Alpha is a tensor in the file, or stated in a header, or else the rank
    itself. Raises ModelUnavailable, ValueError."""
    if name := found.tensors.get("alpha"):
        if math.prod(file.shapes[name]) != 1:
            raise ModelUnavailable(f"{file.path}: {shortened(name)} is not one number", DAMAGED)
        with safe_open(file.path, framework="pt") as opened:
            return _positive(float(opened.get_tensor(name)), "alpha") / rank
    if stated is not None:
        names = (layer, found.called)
        named = _for_layer(stated.ranks, names, stated.rank)
        if named != rank:
            raise ModelUnavailable(
                f"{file.path}: its header says rank {named:g} for {shortened(found.called)}, whose matrices have rank {rank}", DAMAGED
            )
        alpha = _for_layer(stated.alphas, names, stated.alpha) or stated.alpha
        return alpha / (math.sqrt(rank) if stated.by_root else rank)
    text = file.texts.get("ss_network_alpha")
    if text is None or text in ("None", "Dynamic"):
        return 1.0
    return _positive(float(text), "alpha") / rank


# ---- into the networks


def put_in(networks: Mapping[str, Any], file: LoraFile, pairs: list[Pair]) -> bool:
    """Put every pair beside its layer, in peft's own layers. Returns whether any of them changes anything.

    Raises ModelUnavailable if a value is not finite.
    """
    changes = False
    for network in {pair.network: None for pair in pairs}:
        mine = [pair for pair in pairs if pair.network == network]
        add_layers(networks[network], mine)
        with safe_open(file.path, framework="pt") as opened, torch.no_grad():
            for pair in mine:
                tensors = {role: opened.get_tensor(name) for role, name in pair.tensors.items()}
                if not all(torch.isfinite(tensor.float()).all() for tensor in tensors.values()):
                    raise ModelUnavailable(f"{file.path} holds numbers that are not finite, at {pair.layer}", DAMAGED)
                fill(networks[network].get_submodule(pair.layer), tensors, pair.scale)
                changes |= len(tensors.keys() & {"magnitude", "dora_scale"}) > 0
                changes |= bool(tensors["down"].float().any()) and bool(tensors["up"].float().any())
    placed = sum(isinstance(layer, LoraLayer) for network in networks.values() for layer in network.modules())
    if placed != len(pairs):
        raise ModelUnavailable(f"only {placed} of the {len(pairs)} layers of {file.path} could be put into this base", RIGHT_BASE)
    return changes


def add_layers(network: nn.Module, pairs: list[Pair]) -> None:
    """Add LoRA layers beside these layers of a network, each with its pair's rank; their values are filled in later."""
    ranks = Counter(pair.rank for pair in pairs)
    (usual, _), *others = ranks.most_common()
    patterns = {
        # one expression for each rank: peft tries them one after the other
        f"^(?:{'|'.join(re.escape(pair.layer) for pair in pairs if pair.rank == rank)})": rank
        for rank, _ in others
    }
    config = LoraConfig(
        r=usual,
        lora_alpha=usual,
        rank_pattern=patterns,
        target_modules=[pair.layer for pair in pairs],
        use_dora=bool(pairs[0].tensors.keys() & {"magnitude", "dora_scale"}),
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        # a state dict pins the exact layers: target_modules match by the ends of names, and might include one layer too many
        keys = {f"{pair.layer}.lora_A.weight": torch.empty(0) for pair in pairs}
        inject_adapter_in_model(config, network, state_dict=keys)


def fill(layer: Any, tensors: Mapping[str, Tensor], scale: float) -> None:
    """Give one of peft's LoRA layers its values and its scale."""
    name = "default"
    targets = {"down": layer.lora_A, "up": layer.lora_B}
    magnitude = tensors.get("magnitude", tensors.get("dora_scale"))
    given = {role: tensors[role] for role in targets}
    if magnitude is not None:
        targets["magnitude"], given["magnitude"] = layer.lora_magnitude_vector, magnitude
    for role, tensor in given.items():
        weight = targets[role][name].weight
        weight.copy_(tensor.reshape(weight.shape))
    layer.scaling[name] = scale
