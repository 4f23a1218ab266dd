"""One part of a base -> a live network, tokenizer or scheduler: built from its checked config, compared with its weights, then filled.

This is the only place where a base's weights are read: only from safetensors, only from files that `bases.folder` has chosen, and with no
code but the libraries' own. Missing weights are never made up: a network is built without any, and an error names each that is missing.
"""

import codecs
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CLIPPreTrainedModel, CLIPTokenizer, PreTrainedModel

from ...bases.base import Base
from ...bases.facts import TEXT_LAYER, architecture_of, is_read, layout_of, schedule_of, unread_layers
from ...bases.fingerprint import MOST_VOCABULARY
from ...bases.folder import TOKENIZER_FILES, weight_files
from ...bases.kind import scheduler_that_draws
from ...bases.metadata import read_header, read_json
from ...disk import read_text
from ...errors import ModelUnavailable
from ...families.family import VAE, tokenizer_of
from ...text import shortened
from ..refusal import DAMAGED, refused
from ..tensor_file import let_pages_go

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
# what files hold besides a text encoder's own weights: a buffer of earlier versions, the scale of CLIP's loss, its projection
NOT_USED = ("position_ids", "logit_scale", "text_projection.weight", "text_projection")
MOST_UNREAD = 2  # last layers of a text encoder that its config may leave out
LEFT_BY_TRAINING = ("loss.", "model_ema.")  # found besides a VAE's own weights in single files
COUNTER = ".num_batches_tracked"  # of a batch norm: a whole number that only training reads
OTHER_HALF = ("vision_model.", "visual_projection.")
TOKENIZER_CONFIG, TOKENIZER_MAP = "tokenizer_config.json", "special_tokens_map.json"
TOKENIZER_KEYS = (
    *("bos_token", "eos_token", "unk_token", "pad_token", "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"),
    "padding_side",  # some text encoders read the padding too
)
TOKEN_FIELDS = ("__type", "content", "lstrip", "normalized", "rstrip", "single_word", "special")


@dataclass(frozen=True)
class PartFiles:
    """What a network is made from: its name, its class and config, its weight files with those entries of their headers that belong to
    it, and the prefix of its tensors' names in a single file ("" in one of the denoiser alone, None in a folder). `where` is what error
    messages name."""

    part: str
    kind: type[Any]
    config: dict[str, Any]
    config_file: Path
    weights: tuple[tuple[Path, dict[str, Any]], ...]
    start: str | None
    where: str


def find_files(base: Base, part: str, place: Path | None = None) -> PartFiles:
    """The files of a base's network, or of the one in the folder `place` instead. Raises ModelUnavailable."""
    folder = place or folder_of(base) / part
    config, kind, told = architecture_of(folder, part, [base.facts.family]), _class_of(base, part), base.facts.family.parts[part]
    if told.layers:
        config["num_hidden_layers"] = min(told.layers, int(config.get("num_hidden_layers", told.layers)))
    if base.is_single_file and place is None:
        start = layout_of(base.facts.family).starts[part]
        left = tuple(start + each for each in LEFT_BY_TRAINING)
        entries = {name: entry for name, entry in _tensors(base.path).items() if name.startswith(start) and not name.startswith(left)}
        return PartFiles(part, kind, config, folder / "config.json", ((base.path, entries),), start, f"{base.path} ({part})")
    if base.denoiser_path is not None and part == base.facts.family.denoiser:
        file = base.denoiser_path
        return PartFiles(part, kind, config, folder / "config.json", ((file, _tensors(file)),), "", str(file))
    files = tuple(
        (file, {name: entry for name, entry in _tensors(file).items() if is_read(told, name)}) for file in weight_files(folder)
    )
    where = files[0][0] if len(files) == 1 else folder
    return PartFiles(part, kind, config, folder / "config.json", files, None, str(where))


def build(files: PartFiles) -> nn.Module:
    """A network without weights, on torch's meta device, after checking that its files fit it. Raises ModelUnavailable."""
    with refused(f"no {files.part} can be built as {files.config_file} says"), torch.device("meta"), quiet():
        is_text = issubclass(files.kind, PreTrainedModel)
        network: nn.Module = files.kind(files.kind.config_class(**files.config)) if is_text else files.kind(**files.config)
    headers = {name: entry for _, entries in files.weights for name, entry in entries.items()}
    if len(headers) < sum(len(entries) for _, entries in files.weights):
        count = Counter(name for _, entries in files.weights for name in entries)
        raise ModelUnavailable(f"{files.where} holds {_some([name for name in count if count[name] > 1])} in two files", DAMAGED)
    for name, entry in headers.items():
        if entry.get("dtype") not in DTYPES and not (_is_known_extra(name) or name.endswith(COUNTER)):
            raise ModelUnavailable(
                f"{files.where}: {name} is {shortened(str(entry.get('dtype')), 40)}, a quantized number format, which can't be trained",
                "use the base in fp32, fp16 or bf16",
            )
    with refused(f"{files.where} does not hold what {files.config_file} says"):
        shapes = {name: torch.empty(entry["shape"], device="meta") for name, entry in headers.items()}
    state = _renamed(files, network, shapes)
    if is_text and 0 < unread_layers(files.config, state) <= MOST_UNREAD:
        read = int(files.config.get("num_hidden_layers", 12))
        state = {name: each for name, each in state.items() if not ((layer := TEXT_LAYER.match(name)) and int(layer[1]) >= read)}
    check_fit(network, state, files.where)
    return network


def fill(network: nn.Module, files: PartFiles, dtype: torch.dtype, *, lean: bool = False) -> None:
    """Give a network from `build` its weights, in `dtype` on the CPU. `lean`: the mapped pages of the files leave memory as soon as they
    have been read. Raises ModelUnavailable if a weight is not finite."""
    with ExitStack() as stack:
        with refused(f"{files.where} can't be read", DAMAGED):
            opened = [(stack.enter_context(safe_open(file, framework="pt")), names) for file, names in files.weights]
        state = _renamed(files, network, {name: reader.get_tensor(name) for reader, names in opened for name in names})
        needed = {name: state.pop(name) for name in network.state_dict()}
        del state
        for name in needed:
            stored = needed[name]
            needed[name] = _checked(stored, dtype, f"{files.where}: {name}")
            if lean:
                let_pages_go(stored)
    network.load_state_dict(needed, assign=True)
    _count_buffers(network)
    network.eval()


def stored_format(files: PartFiles) -> torch.dtype:
    """The widest number format among a network's stored floating-point weights."""
    words = {entry["dtype"] for _, entries in files.weights for entry in entries.values()}
    return reduce(torch.promote_types, [kind for word, kind in DTYPES.items() if word in words])


def check_fit(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Compare the tensors of a file with those that a network needs. Raises ModelUnavailable naming the first few that are missing,
    superfluous or of another shape, and how many there are."""
    needed = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing = [name for name in needed if name not in state]
    if missing:
        raise ModelUnavailable(f"{where} lacks {_some(missing)} of the {len(needed):,} weights that it needs", DAMAGED)
    other = [name for name in needed if tuple(state[name].shape) != needed[name]]
    if other:
        shapes = f"{axes(tuple(state[other[0]].shape))} where {axes(needed[other[0]])} is needed"
        raise ModelUnavailable(f"{where} has another architecture than its config says: {_some(other)} ({shapes})", DAMAGED)
    unknown = [name for name in state if name not in needed and not _is_known_extra(name)]
    if unknown:
        raise ModelUnavailable(
            f"{where} has another architecture than its config says: it holds {_some(unknown)}, which its config does not have",
            DAMAGED,
        )


def _some(names: list[str]) -> str:
    """The first few of these names, and how many there are."""
    told = ", ".join(shortened(name, 80) for name in names[:3])
    return f"{told} and {len(names) - 3:,} more" if len(names) > 3 else told


def axes(shape: tuple[int, ...]) -> str:
    """A shape in a message: `320x4x3x3`."""
    return "x".join(map(str, shape)) or "one number"


def _is_known_extra(name: str) -> bool:
    return name.rpartition(".")[2] == "position_ids" or name in NOT_USED or name.startswith(OTHER_HALF)


def folder_of(base: Base) -> Path:
    """The diffusers folder with a base's configs. Raises ModelUnavailable."""
    if base.vocabulary is None:
        raise ModelUnavailable(f"{base.path} has no configs", "put a diffusers folder of its kind beside it")
    return base.vocabulary


def _class_of(base: Base, part: str) -> type[Any]:
    """The class that a network or tokenizer is built as: the one of its family's classes that model_index.json names, or that of the bare
    body without a head, if the family uses only that."""
    told, record = read_json(folder_of(base) / "model_index.json").get(part), base.facts.family.parts[part]
    name = record.built or next((name for name in record.classes if isinstance(told, list) and name in told), record.classes[0])
    kind: type[Any] = getattr(diffusers, name, None) or getattr(transformers, name)
    return kind


def _tensors(file: Path) -> dict[str, Any]:
    return {name: entry for name, entry in read_header(file).items() if name != "__metadata__"}


def _renamed(files: PartFiles, network: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors, which may be on the meta device, under the names that the network has for them."""
    state = dict(tensors)
    with refused(f"{files.where} does not hold what {files.config_file} says"), quiet():
        if files.start is not None:
            state = _from_single_file(files.start, network, state)
        elif files.part == VAE:
            for old, new in OLD_ATTENTION.items():
                state = {name.replace(old, new) if ".attentions." in name else name: value for name, value in state.items()}
        if isinstance(network, CLIPPreTrainedModel):  # nested or flat, in the file as in transformers, whose releases differ
            own = network.state_dict().keys()
            forms = {name: (name, f"text_model.{name}", name.removeprefix("text_model.")) for name in state}
            state = {next((each for each in forms[name] if each in own), name): value for name, value in state.items()}
        elif isinstance(network, PreTrainedModel):  # a body in the file of one with a head
            own, start = network.state_dict().keys(), f"{network.base_model_prefix}."
            state = {name if name in own else name.removeprefix(start): value for name, value in state.items()}
    return state


def _from_single_file(start: str, network: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under diffusers' names, converted from the original ones by diffusers' own code."""
    if not start:
        loadable: dict[str, Any] = SINGLE_FILE_LOADABLE_CLASSES
        return dict(loadable[type(network).__name__]["checkpoint_mapping_fn"](checkpoint=tensors))
    is_unet, is_vae = isinstance(network, UNet2DConditionModel), isinstance(network, AutoencoderKL)
    if is_unet:
        return dict(convert_ldm_unet_checkpoint(tensors, network.config))
    if is_vae:
        return dict(convert_ldm_vae_checkpoint(tensors, network.config))
    if any(name.startswith(f"{start}model.") for name in tensors):
        inner = getattr(network, "text_model", network)
        return dict(convert_open_clip_checkpoint(inner, tensors, prefix=f"{start}model."))
    return dict(convert_ldm_clip_checkpoint(tensors))


def _checked(tensor: Tensor, dtype: torch.dtype, what: str) -> Tensor:
    """A weight in the number format that it has in the network. Raises ModelUnavailable if it is not finite in that format."""
    weight = tensor.to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
    low, high = (float(bound) for bound in weight.aminmax()) if weight.numel() else (0.0, 0.0)
    if not (abs(low) < float("inf") and abs(high) < float("inf")):  # false for NaN as well
        raise ModelUnavailable(f"{what} holds numbers that are not finite in {str(dtype).removeprefix('torch.')}", DAMAGED)
    return weight


def _count_buffers(network: nn.Module) -> None:
    """Compute the buffers that are in no file: CLIP's positions, a language model's rotary angles. Raises NotImplementedError for any
    other buffer without values."""
    for module in network.modules():
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.device.type == "meta":
                if name == "position_ids":
                    module._buffers[name] = torch.arange(buffer.shape[-1]).expand(buffer.shape)
                elif type(module).__name__.endswith("RotaryEmbedding"):
                    module._buffers[name] = type(module)(module.config).get_buffer(name)
                else:
                    raise NotImplementedError(f"{type(module).__name__}.{name} is not in the files")


def nested(network: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A network's weights under the names that every program knows: for CLIP's flat class of transformers >= 5.6 they begin with
    `text_model.`, as they always did before."""
    is_flat = isinstance(network, CLIPPreTrainedModel) and not hasattr(network, "text_model")
    return {f"text_model.{name}": value for name, value in weights.items()} if is_flat else weights


def nested_name(network: nn.Module, layer: str) -> str:
    """A layer's name as every program knows it."""
    return next(iter(nested(network, {layer: torch.empty(0)})))


def load_tokenizer(source: Path, Tokenizer: type[Any], positions: int) -> Any:
    """The tokenizer in a folder, of this class, with prompts of at most `positions` tokens. Raises ModelUnavailable.

    transformers is shown a temporary folder with only the vocabulary's files and, of the configs, only what `_special_tokens` keeps.
    """
    config = source / TOKENIZER_CONFIG
    with TemporaryDirectory(prefix="dreambooth-tokenizer-") as made, refused(f"the tokenizer in {source} can't be read"):
        values, tokens = _special_tokens(config), _special_tokens(source / TOKENIZER_MAP)
        there = {name for name in TOKENIZER_FILES if (source / name).is_file() and os.path.getsize(source / name) <= MOST_VOCABULARY}
        if "tokenizer.json" not in there and not {"vocab.json", "merges.txt"} <= there:
            raise ValueError("it has neither tokenizer.json nor vocab.json and merges.txt")  # transformers would make one up
        is_clip = issubclass(Tokenizer, CLIPTokenizer)
        if "tokenizer.json" not in there and is_clip:
            _check_merges(source)
        for name in there - {TOKENIZER_CONFIG, TOKENIZER_MAP}:
            Path(made, name).write_bytes((source / name).read_bytes().removeprefix(codecs.BOM_UTF8))
        Path(made, TOKENIZER_CONFIG).write_text(json.dumps({"tokenizer_class": Tokenizer.__name__, **values}))
        Path(made, TOKENIZER_MAP).write_text(json.dumps(tokens))
        with quiet():
            tokenizer = Tokenizer.from_pretrained(made, local_files_only=True)
        tokenizer.name_or_path = ""
        told = read_json(config).get("model_max_length") if config.is_file() else None
        tokenizer.model_max_length = min(told, positions) if isinstance(told, int) and told > 2 else positions
        ids = tokenizer("a photo", padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
        if len(ids) != tokenizer.model_max_length or (is_clip and tokenizer.eos_token_id not in ids):
            raise ValueError("it does not mark the end of a prompt")
        if tokenizer("a photo").input_ids[1] in (tokenizer.unk_token_id, tokenizer.eos_token_id):
            raise ValueError("it knows no word of a prompt")
    return tokenizer


def _special_tokens(file: Path) -> dict[str, Any]:
    """What a tokenizer's config says about its special tokens and where padding goes; anything else in it would end up in the saved
    model. Raises ModelUnavailable."""
    told = read_json(file) if file.is_file() else {}
    return {key: _token(value) for key, value in told.items() if key in TOKENIZER_KEYS}


def _token(value: Any) -> Any:
    """A token, or a list or table of tokens, without unknown fields, which the tokenizers library would print to stdout."""
    if isinstance(value, list):
        return [_token(each) for each in value]
    if isinstance(value, dict) and "content" in value:
        return {field: value[field] for field in TOKEN_FIELDS if field in value}
    return {key: _token(each) for key, each in value.items()} if isinstance(value, dict) else value


def _check_merges(source: Path) -> None:
    """Check that CLIP's merges are all there: every token is made by one, except the letters (256 within a word, 256 at its end) and the
    two marks of start and end.

    Raises ValueError if merges are missing: words would silently fall apart into letters.
    """
    tokens = len(json.loads(read_text(source / "vocab.json")))
    merges = sum(len(line.split()) == 2 for line in read_text(source / "merges.txt").split("\n") if not line.startswith("#version"))
    if merges < (needed := tokens - 2 * 256 - 2):
        raise ValueError(f"merges.txt has {merges:,} merges where vocab.json's {tokens:,} tokens need {needed:,}")


def load_scheduler(base: Base) -> Any:
    """The scheduler that a base draws with. Raises ModelUnavailable."""
    folder = folder_of(base)
    name, config = schedule_of(folder)
    is_flow = base.facts.family.noise == "flow"
    if base.is_single_file and not is_flow:
        # the configs are another model's; what the file itself says about its noise takes precedence
        config |= {"prediction_type": base.facts.prediction_type}
        if base.facts.zero_snr:
            config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
            name = scheduler_that_draws(name, zero_snr=True)
    if not is_flow:
        config["clip_sample"] = False  # true by default in some: it clips to -1..1, which suits pixels, not latents
    with refused(f"no scheduler can be made from {folder / 'scheduler' / 'scheduler_config.json'}"), quiet():
        scheduler = getattr(diffusers, name).from_config(config)
        scheduler.set_timesteps(5, **shift_for(scheduler))
    return scheduler


def shift_for(scheduler: Any) -> dict[str, float]:
    """What `set_timesteps` must be given by a schedule whose shift depends on the picture's size: some shift, to try it with."""
    return {"mu": 1.0} if scheduler.config.get("use_dynamic_shifting") else {}


def load_tokenizers(base: Base) -> dict[str, Any]:
    """The tokenizers of a base, by their names in a pipeline. Raises ModelUnavailable."""
    folder, family, found = folder_of(base), base.facts.family, {}
    for part in family.text_encoders:
        name, config = tokenizer_of(part), architecture_of(folder / part, part, [family])
        positions = min(family.prompt_length, int(config.get("max_position_embeddings", family.prompt_length)))
        found[name] = load_tokenizer(folder / name, _class_of(base, name), positions)
    return found


def flags_of(base: Base) -> dict[str, bool]:
    """The flags that a pipeline takes from model_index.json, such as SDXL's `force_zeros_for_empty_prompt`."""
    index = read_json(folder_of(base) / "model_index.json")
    return {name: told if isinstance(told := index.get(name), bool) else usual for name, usual in base.facts.family.pipeline_flags.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Inside a `with` block, silence the libraries' remarks and progress bars: what is wrong is raised, and told in our own words."""
    loggers = (diffusers.utils.logging, transformers.utils.logging)
    told = [(logger.get_verbosity(), logger.is_progress_bar_enabled()) for logger in loggers]
    for logger in loggers:
        logger.set_verbosity(logger.CRITICAL)
        logger.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, (level, has_bars) in zip(loggers, told, strict=True):
            logger.set_verbosity(level)
            if has_bars:
                logger.enable_progress_bar()
