"""A base model on disk: where it lies, what it is (read from its own configs, not guessed from its name), its identity.

No torch: configs are JSON, and a safetensors header is JSON behind an 8-byte length.
"""

import hashlib
import json
import math
import os
import re
import stat
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import filelock

from ..address import read_address
from ..digests import remembered_digest
from ..errors import DiskError, ModelUnavailable
from ..families.family import VAE, Family, Noise, SingleFile, tokenizer_of
from ..families.known import denoiser_names, families_of, family_of_file, family_told, text_encoder_names
from ..families.part_config import checked_config
from ..paths import expanded, in_home, real_path
from ..settings import LARGEST_SEED, LARGEST_SIDE
from ..text import shortened
from .catalog import BaseFacts, CatalogEntry, find_entry, nearest_name
from .kind import (
    PREDICTIONS,
    check_denoiser,
    check_encoders,
    check_index,
    check_latents,
    check_quantization,
    check_single_file,
    check_vae,
    checked_flow_schedule,
    checked_schedule,
    refuse,
    remarks_on,
    remarks_on_drawing,
    scheduler_named,
    scheduler_that_draws,
)
from .weights import PICKLES, check_is_safetensors

REFETCH = "fetch the base model again"
MOST_AXES = 8  # of a tensor
TEXT_LAYER = re.compile(r"(?:text_model\.)?encoder\.layers\.(\d{1,4})\.")
COMMIT = re.compile("[0-9a-f]{40}")
# What may become a path in the hub's cache, whoever names it: no `..`, no separator, nothing that a system reserves.
REPOSITORY = re.compile(r"(?!.*(--|\.\.))\w([\w.-]{0,94}\w)?/\w([\w.-]{0,94}\w)?", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)\w([\w.-]*\w)?(/\w([\w.-]*\w)?)*", re.ASCII)
LONGEST_REVISION = 200  # characters
MOST_JSON = 10_000_000  # bytes of a config or an index; true ones have some thousand
MOST_FILES = 1000  # of a part's folder that are looked at
# the same weights in one number format or another, the first that is there is loaded; other variants (ema, non_ema) are other weights
VARIANTS = ("", "fp32", "fp16", "bf16")
_VARIANT = r"(?:\.(fp32|fp16|bf16))?"
# a part's weights as the libraries name them: whole or a shard, and the index of shards
WEIGHTS = re.compile(
    rf"(diffusion_pytorch_model|model){_VARIANT}(-(\d{{1,5}})-of-(\d{{1,5}}))?{_VARIANT}\.(safetensors|sft)", re.IGNORECASE
)
INDEX = re.compile(rf".*?{_VARIANT}\.safetensors\.index{_VARIANT}\.json", re.IGNORECASE)


@dataclass(frozen=True)
class BaseRequest:
    """What the user named: a local path, or a hub repository with a revision, and the catalogue's entry if it has one."""

    asked: str
    path: Path | None
    repository: str | None
    revision: str
    entry: CatalogEntry | None


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base model that lies on disk. `path` is a diffusers folder or a single .safetensors file; `identity` is its hub
    revision, or `sha256:...` of its files."""

    name: str
    path: Path
    repository: str | None
    identity: str
    facts: BaseFacts
    vae_path: Path | None = None
    config_path: Path | None = None

    @property
    def is_single_file(self) -> bool:
        """Whether it is one .safetensors checkpoint, not a folder."""
        return self.path.is_file()

    @property
    def vocabulary(self) -> Path | None:
        """The folder with its tokenizers; None for a single file without configs."""
        return self.config_path if self.is_single_file else self.path


def ask_for_base(model: str) -> BaseRequest:
    """What a model name means: a path on disk, a name of the catalogue (or the guide's), or a hub repository, also by the address
    of its page or with a revision.

    Raises ModelUnavailable where it can be none of these.
    """
    model = model.strip()
    model = unquote(re.sub("^file://[^/]*", "", model)) if model.startswith("file://") else model
    path = expanded(model)
    if path.name == "model_index.json" and os.path.isfile(path):  # of a whole base
        model, path = str(path.parent), path.parent
    entry = find_entry(model)
    if entry is None and model and os.path.exists(path):
        # a file by the name that was given: behind it may lie a blob of the hub's cache, and its configs lie beside the name
        return BaseRequest(model, real_path(path) if path.is_dir() else path.absolute(), None, "", None)
    entry = entry or find_entry(model.rstrip("/"))
    if entry is not None:
        return BaseRequest(model.rstrip("/"), entry.folder, entry.repository, entry.revision, entry)
    is_address = "://" in model or "@" in model or model.lower().startswith(("huggingface.co/", "hf.co/", "www.", "git@"))
    if not is_address:
        _check_may_be_repository(model, path)
    found = read_address(model)
    entry = find_entry(found.repository)
    if entry is not None and found.revision in ("", "main", entry.revision):
        return BaseRequest(found.repository, entry.folder, entry.repository, entry.revision, entry)
    repository = entry.repository if entry and entry.repository else found.repository
    asked = f"{repository}@{found.revision}" if found.revision else repository
    return BaseRequest(asked, None, repository, found.revision or "main", None)


def _check_may_be_repository(model: str, path: Path) -> None:
    """Raises ModelUnavailable for what was meant for a path, or for a name of the catalogue."""
    parts = model.rstrip("/").split("/")
    is_path = model.startswith((".", "/", "~")) or "\\" in model or len(parts) > 2
    if is_path or path.suffix.lower() in (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf"):
        raise ModelUnavailable(f"there is no model at {model}", "check the path, or see `dreambooth models`")
    if len(parts) != 2 or not all(parts):
        near = nearest_name(model)
        hint = f"did you mean {near}?" if near else "see `dreambooth models`, or name a hub repository as owner/name"
        raise ModelUnavailable(f"there is no base model called {model!r}", hint)


def hub_cache() -> Path:
    """Where huggingface_hub keeps its downloads; its own environment variables are obeyed. Raises UsageError where this user has
    no home."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return in_home(os.path.expandvars(named))


def repository_folder(repository: str) -> Path:
    """Where the hub's cache keeps a repository. Raises ModelUnavailable for what can't be a repository's name."""
    if not REPOSITORY.fullmatch(repository):
        raise ModelUnavailable(f"{repository!r} can't be a hub repository's name", "write it as owner/name")
    return hub_cache() / ("models--" + repository.replace("/", "--"))


def is_revision(revision: str) -> bool:
    """Whether this can be the name of a branch, a tag or a commit, and so of a file in the hub's cache."""
    return len(revision) <= LONGEST_REVISION and REVISION.fullmatch(revision) is not None


def check_inside(root: Path, path: Path) -> None:
    """Raise DiskError where a link below `root` would lead what is written to `path` out of it. `root` may be a link."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise DiskError(f"{path} leads out of {root} by a link; nothing is written there", "remove that link")


def take_download(repository: str) -> AbstractContextManager[object] | None:
    """Take a repository's downloads for this process, so that no two write to one half-fetched file.

    Leaving the context lets them go. None while another process has them. Raises DiskError where the lock is a link out of the cache.
    """
    path = hub_cache() / ".locks" / repository_folder(repository).name / "dreambooth.lock"
    check_inside(hub_cache(), path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return filelock.FileLock(path, blocking=False).acquire()
    except filelock.Timeout:
        return None


def find_snapshot(repository: str, revision: str) -> Path | None:
    """The folder of a hub repository's revision in the hub's cache, or None."""
    if not REPOSITORY.fullmatch(repository) or not is_revision(revision):
        return None
    folder = repository_folder(repository)
    commit = revision if COMMIT.fullmatch(revision) else _commit_of(folder / "refs" / revision)
    snapshot = folder / "snapshots" / commit if commit else None
    return snapshot if snapshot and os.path.isdir(snapshot) else None


def _commit_of(reference: Path) -> str | None:
    """The commit that the cache's note of a branch names; None where there is no note, or it holds anything else."""
    try:
        if not reference.is_file():
            return None
        with reference.open("rb") as opened:
            noted = opened.read(64).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return noted if COMMIT.fullmatch(noted) else None


def find_cached(request: BaseRequest) -> Path | None:
    """The folder of a requested hub base where it lies whole in the hub's cache, or None.

    The same revision from a repository that is gone by now, but was fetched when it was there, serves as well.
    """
    if request.repository is None:
        return None
    for repository in (request.repository, *(request.entry.aliases if request.entry else ())):
        snapshot = find_snapshot(repository, request.revision)
        if snapshot and not missing_parts(snapshot):
            return snapshot
    return None


def missing_parts(folder: Path) -> list[str]:
    """The parts of a diffusers folder that training needs and that are not there."""
    needed = ["model_index.json", "scheduler/scheduler_config.json"]
    missing = [name for name in needed if not (folder / name).is_file()]
    for part in network_parts(folder):
        if not (folder / part / "config.json").is_file():
            missing.append(f"{part}/config.json")
        missing += [f"{part}/{name}" for name in missing_weights(folder / part)]
    for part in text_encoder_parts(folder):
        tokenizer = folder / tokenizer_of(part)
        if not (tokenizer / "tokenizer.json").is_file():
            missing += [
                f"{tokenizer.name}/{name}" for name in ("vocab.json", "merges.txt") if not (tokenizer / name).is_file()
            ]
    return missing


def missing_weights(folder: Path) -> list[str]:
    """The weight files of one part that are not there: a shard that its index or the other shards tell of, or all."""
    files, named = weight_files(folder), set(_shards(folder))
    if not files:
        return sorted(named) or ["*.safetensors"]
    there = {file.name for file in files}
    found = [WEIGHTS.fullmatch(name) for name in sorted(there)]
    if not all(match and match[3] for match in found):
        # one whole file; an index that does not name it is left over from when the weights were in shards
        return sorted(name for name in named if not (folder / name).is_file()) if named & there else []
    first = found[0]
    assert first is not None
    count = int(first[5])
    if count > MOST_FILES:
        raise ModelUnavailable(f"{folder} says that its weights are in {count:,} files", REFETCH)
    before, after = (f".{variant}" if variant else "" for variant in (first[2], first[6]))
    width, before, after = len(first[4]), f"{first[1]}{before}", f"{after}.{first[7]}"
    counted = {f"{before}-{number:0{width}}-of-{first[5]}{after}" for number in range(1, count + 1)}
    return sorted((counted | named) - there)


def _shards(folder: Path) -> list[str]:
    """The files that a part's index names, where its weights are split over several."""
    indexes = [file for file in _files_in(folder) if variant_of(file.name) == "" and INDEX.fullmatch(file.name)]
    maps = [read_json(index).get("weight_map", {}) for index in indexes]
    if not all(isinstance(each, dict) and all(_is_file_name(name) for name in each.values()) for each in maps):
        raise ModelUnavailable(f"the index of the weights in {folder} can't be read", REFETCH)
    return sorted({name for each in maps for name in each.values()})


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) < 200 and re.fullmatch(r"[\w.\-]+", name) is not None


def network_parts(folder: Path) -> list[str]:
    """The names of a diffusers folder's networks, from its model_index.json: the denoiser, the VAE, its text encoders."""
    families = families_of(_index_of(folder))
    return [families[0].denoiser if families else denoiser_names()[0], VAE, *text_encoder_parts(folder)]


def text_encoder_parts(folder: Path) -> list[str]:
    """The names of a diffusers folder's text encoders, from its model_index.json."""
    names, index = text_encoder_names(), _index_of(folder)
    parts = {name: index.get(name) for name in names}
    return [name for name, part in parts.items() if isinstance(part, list) and part and part[0]] or [names[0]]


def _index_of(folder: Path) -> dict[str, Any]:
    return read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one part that are loaded: the whole file before shards, one number format of VARIANTS.

    Told by name, but a pickle is loaded under no name: `read_header` looks at what a file holds.
    """
    found = [(file, match) for file in _files_in(folder) if (match := WEIGHTS.fullmatch(file.name))]
    for variant in VARIANTS:
        ours = [(file, match) for file, match in found if variant_of(file.name) == variant]
        whole = [file for file, match in ours if not match[3]]
        if whole:
            return whole[:1]
        if ours:
            count = ours[0][1][5]
            return [file for file, match in ours if match[5] == count]
    return []


def variant_of(name: str) -> str | None:
    """Which of VARIANTS a file of weights or their index is; None for any other file."""
    if match := WEIGHTS.fullmatch(name):
        return (match[2] or match[6] or "").lower()
    match = INDEX.fullmatch(name)
    return (match[1] or match[2] or "").lower() if match else None


def _files_in(folder: Path) -> list[Path]:
    """The files of a part's folder, sorted, so many at most; not those that macOS puts beside each (`._name`)."""
    with suppress(OSError):
        return sorted(file for file in islice(folder.iterdir(), MOST_FILES) if file.name[:1] != "." and file.is_file())
    return []


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ModelUnavailable where it is missing, not JSON or not an object."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("it is not a file")
        if state.st_size > MOST_JSON:
            raise ValueError(f"{state.st_size:,} bytes are more than any config has")
        value = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows write a mark before the text
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnavailable(f"{path} can't be read: {error}", REFETCH) from error
    if not isinstance(value, dict):
        raise ModelUnavailable(f"{path} is not a JSON object", REFETCH)
    return value


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name -> dtype, shape, offsets. Raises ModelUnavailable where it is broken or
    the file is something else."""
    check_is_safetensors(path)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is not a JSON object")
        _check_header(header)
    except (OSError, ValueError, struct.error, RecursionError) as error:
        raise ModelUnavailable(f"{path} is not a whole safetensors file: {error}", "fetch it again") from error
    return header


def _check_header(header: Mapping[str, Any]) -> None:
    """Raises ValueError where an entry is no tensor with a shape."""
    for name, entry in header.items():
        if name == "__metadata__":
            if not isinstance(entry, dict):
                raise ValueError("its metadata is not a JSON object")
            continue
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(_is_count(axis) for axis in shape):
            raise ValueError(f"its header does not say what {shortened(repr(name))} is")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_SEED


def count_parameters(header: Mapping[str, Any], prefix: str = "") -> int:
    """The number of values in a safetensors header's tensors whose names begin with `prefix`."""
    return sum(
        math.prod(tensor["shape"])
        for name, tensor in header.items()
        if name != "__metadata__" and name.startswith(prefix) and not name.endswith("position_ids")
    )


def read_facts(path: Path) -> BaseFacts:
    """What a base is, read from a diffusers folder's configs and headers or a single file's header.

    Raises ModelUnavailable for what is no Stable Diffusion 1, 2 or XL base that can be trained.
    """
    return _facts_of_folder(path) if path.is_dir() else _facts_of_file(path)


def _what_it_is(folder: Path) -> str:
    """What to do with a folder that is no whole base."""
    parts = [folder, *(folder / part for part in (*denoiser_names(), VAE, *text_encoder_names()))]
    if any(file.suffix.lower() in PICKLES for part in parts for file in _files_in(part)):
        return "its weights are pickles, which are never loaded: load it with diffusers and save_pretrained() it as safetensors"
    if os.path.isfile(folder.parent / "model_index.json"):
        return f"it is a part of one: --model {folder.parent}"
    if (name := re.fullmatch("models--(.+?)--(.+)", folder.name)) is not None:
        return f"name it as the hub does: --model {name[1]}/{name[2]}"
    alone = [file for file in _files_in(folder) if file.suffix.lower() in (".safetensors", ".sft")]
    if "model_index.json" not in os.listdir(folder) and len(alone) == 1:
        return f"a base of one file is named by the file: --model {alone[0]}; a LoRA is drawn with: generate --model-path {folder}"
    return "fetch it again, or name another base (see `dreambooth models`)"


def _facts_of_folder(folder: Path) -> BaseFacts:
    if (folder / "model_index.json").is_file():  # first: what is another kind of model does not lack our parts
        check_index(folder, read_json(folder / "model_index.json"))
    missing = missing_parts(folder)
    if missing:
        raise ModelUnavailable(f"{folder} is not a whole base model: {', '.join(missing)} missing", _what_it_is(folder))
    families = families_of(_index_of(folder))
    configs = {part: architecture_of(folder / part, part, families) for part in network_parts(folder)}
    name, _, *encoders = configs
    denoiser, vae = configs[name], configs[VAE]
    family = family_told(families, denoiser)
    if family is None:
        raise refuse(folder, f"its network is of no family that is known here ({name}/config.json)")
    check_latents(folder, family, denoiser, vae)
    _, schedule = schedule_of(folder)
    check_encoders(folder, family, denoiser, encoders, configs[encoders[-1]].get("projection_dim", 512))
    headers = {part: [read_header(file) for file in weight_files(folder / part)] for part in configs}
    counts = {part: sum(map(count_parameters, found)) for part, found in headers.items()}
    unread = {part: unread_layers(configs[part], {*chain(*headers[part])}) for part in encoders}
    return BaseFacts(
        family=family,
        prediction_type="flow" if family.noise == "flow" else schedule.get("prediction_type", "epsilon"),
        resolution=_resolution(family, denoiser, vae),
        denoiser=counts[name],
        text_encoders=tuple(counts[part] for part in encoders),
        vae=counts[VAE],
        zero_snr=bool(schedule.get("rescale_betas_zero_snr")),
        remarks=(
            *remarks_on(schedule),
            *remarks_on_drawing(*_scheduler_of(folder)),
            *(f"its {part}'s config leaves out the last {_layers(count)} of the weights" for part, count in unread.items() if count),
        ),
    )


def unread_layers(config: Mapping[str, Any], names: Iterable[str]) -> int:
    """How many of a text encoder's last layers its config leaves out, as bases do whose prompts are read with clip skip."""
    found = [int(match[1]) + 1 for name in names if (match := TEXT_LAYER.match(name))]
    return max(0, max(found, default=0) - int(config.get("num_hidden_layers", 12)))


def _layers(count: int) -> str:
    return "layer" if count == 1 else f"{count} layers"


def architecture_of(folder: Path, part: str, families: Sequence[Family]) -> dict[str, Any]:
    """The config of a network as it may be built, from its own folder; the base is of one of these families. Raises ModelUnavailable
    for what can't be trained."""
    file = folder / "config.json"
    config = read_json(file)
    check_quantization(file, config)
    if part == families[0].denoiser:
        check_denoiser(folder.parent, config, families)
    elif part == VAE:
        check_vae(file, config, families[0])
    elif isinstance(config.get("text_config"), dict):  # of a whole CLIP
        config = config["text_config"]
    bounds = next(family.parts[part].config for family in families if part in family.parts)
    return checked_config(bounds, config, file)


def schedule_of(folder: Path) -> tuple[str, dict[str, Any]]:
    """The class of the scheduler that draws with a diffusers folder, and its config. Raises ModelUnavailable for a noise that is not
    trained on."""
    named, config = _scheduler_of(folder)
    file = folder / "scheduler" / "scheduler_config.json"
    if _noise_of(folder) == "flow":
        return named, checked_flow_schedule(config, file)
    schedule = checked_schedule(config, file)
    return scheduler_that_draws(named, zero_snr=bool(schedule.get("rescale_betas_zero_snr"))), schedule


def _scheduler_of(folder: Path) -> tuple[str, dict[str, Any]]:
    """The class that a diffusers folder names, and its config as it is."""
    file = folder / "scheduler" / "scheduler_config.json"
    config = read_json(file)
    return scheduler_named(read_json(folder / "model_index.json"), config, file, _noise_of(folder)), config


def _noise_of(folder: Path) -> Noise:
    families = families_of(_index_of(folder))
    return families[0].noise if families else "diffusion"


def _facts_of_file(path: Path) -> BaseFacts:
    header = read_header(path)
    family = family_of_file(header)
    layout = layout_of(family)
    check_single_file(path, header, family, layout.starts)
    marked = layout.has_velocity_mark(header)
    prediction = stated_prediction(path, header)
    if prediction not in (None, *PREDICTIONS):
        raise refuse(path, f"it predicts {shortened(repr(prediction), 80)}", "use a base that predicts epsilon or velocity")
    velocity = prediction == "v_prediction" if prediction else marked
    title = header.get("__metadata__", {}).get("modelspec.title", "")
    resolution = layout.velocity_resolution if marked and velocity else layout.resolution
    return BaseFacts(
        family=family,
        prediction_type=prediction or ("v_prediction" if velocity else "epsilon"),
        resolution=_resolution_beside(path, family) or resolution,
        denoiser=count_parameters(header, layout.starts[family.denoiser]),
        text_encoders=tuple(count_parameters(header, layout.starts[name]) for name in family.text_encoders),
        vae=count_parameters(header, layout.starts[VAE]),
        zero_snr="ztsnr" in header,
        remarks=tuple(remarks_on({}, str(title))),
    )


def layout_of(family: Family) -> SingleFile:
    """How a family's single files are laid out. Raises ModelUnavailable for a family that is not read from one."""
    if family.single_file is None:
        raise ModelUnavailable(f"{family.title} is not read from a single file", "name a folder in diffusers' form")
    return family.single_file


def stated_prediction(path: Path, header: Mapping[str, Any] | None = None) -> str | None:
    """The prediction type that a single-file checkpoint states: in its header, by the marks that trainers of velocity models
    leave, or in the scheduler config of the folder beside it; None where nothing says it."""
    header = read_header(path) if header is None else header
    texts = header.get("__metadata__", {})
    told = str(texts.get("modelspec.prediction_type") or texts.get("modelspec.predict_key") or "")  # the second is ComfyUI's
    if told:
        return {"v": "v_prediction", "vpred": "v_prediction", "vprediction": "v_prediction", "eps": "epsilon"}.get(
            re.sub(r"[\W_]", "", told.lower()), told.lower()
        )
    if "v_pred" in header:
        return "v_prediction"
    beside = path.with_suffix("") / "scheduler" / "scheduler_config.json"
    return str(read_json(beside).get("prediction_type", "epsilon")) if beside.is_file() else None


def _resolution_beside(path: Path, family: Family) -> int | None:
    """The resolution that the configs in the folder beside a single file say, or None."""
    files = [path.with_suffix("") / part / "config.json" for part in (family.denoiser, VAE)]
    return _resolution(family, *map(read_json, files)) if all(file.is_file() for file in files) else None


def _resolution(family: Family, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    """The side in pixels: the denoiser's latents times the VAE's factor."""
    levels, side = vae.get("block_out_channels", [0] * 4), denoiser.get("sample_size")
    if side is None:
        side = family.latent_side
    if not isinstance(levels, list) or not 1 <= len(levels) <= MOST_AXES:
        raise ModelUnavailable(f"a VAE can't have block_out_channels {shortened(repr(levels))}", REFETCH)
    if not _is_count(side) or not 1 <= side <= LARGEST_SIDE:
        raise ModelUnavailable(f"a {family.denoiser_title} can't have sample_size {shortened(repr(side))}", REFETCH)
    factor: int = 2 ** (len(levels) - 1)
    return int(side) * factor


MOST_VOCABULARY = 32_000_000  # bytes of a tokenizer's file; CLIP's have 2
TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)


def identify(path: Path) -> str:
    """`sha256:...` over the files that are read of a local base, wherever it lies, whatever its folder is called and what else lies
    there. Raises OSError, ModelUnavailable."""
    files = [path] if path.is_file() else files_read(path)
    check_lengths(files)
    return f"sha256:{remembered_digest(path)}" if path.is_file() else identify_files(path, files)


def identify_files(folder: Path, files: Iterable[Path]) -> str:
    """`sha256:...` over some files of a folder, by their names within it and their content. Raises OSError."""
    lines = [f"{file.relative_to(folder).as_posix()}\0{remembered_digest(file)}\n" for file in sorted(files)]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def check_lengths(files: Iterable[Path]) -> None:
    """Hold the lengths of a base's files against what they can be, before their content is read: one may have a hole of terabytes.

    Raises OSError, ModelUnavailable.
    """
    for file in files:
        size = file.stat().st_size
        if file.suffix in (".json", ".txt"):
            if size > (MOST_VOCABULARY if file.name in TOKENIZER_FILES else MOST_JSON):
                raise ModelUnavailable(f"{file} has {size:,} bytes, more than any true one", REFETCH)
        elif (told := _length_told(file)) not in (None, size):
            raise ModelUnavailable(f"{file} has {size:,} bytes, and by its header {told:,}", "fetch it again")


def _length_told(file: Path) -> int | None:
    """The bytes of a safetensors file by its header; None where it has none that says so."""
    try:
        ends = [entry["data_offsets"][1] for name, entry in read_header(file).items() if name != "__metadata__"]
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
        return 8 + int(length) + int(max(ends, default=0))
    except (ModelUnavailable, LookupError, TypeError, ValueError):
        return None  # told where it is loaded


def files_read(folder: Path) -> list[Path]:
    """The files of a diffusers folder that loading it reads. Raises ModelUnavailable."""
    return [*config_files(folder), *(file for part in network_parts(folder) for file in weight_files(folder / part))]


def config_files(folder: Path) -> list[Path]:
    """The files of a diffusers folder that say how it is built: configs, indexes of weights, tokenizers. Raises ModelUnavailable."""
    found = [folder / "model_index.json", folder / "scheduler" / "scheduler_config.json"]
    for part in network_parts(folder):
        variant = variant_of(next((file.name for file in weight_files(folder / part)), "")) or ""
        indexes = [file for file in _files_in(folder / part) if INDEX.fullmatch(file.name) and variant_of(file.name) == variant]
        found += [folder / part / "config.json", *indexes]
    for encoder in text_encoder_parts(folder):
        tokenizer = folder / tokenizer_of(encoder)
        found += [tokenizer / name for name in TOKENIZER_FILES]
    return [file for file in found if file.is_file()]
