"""What a base is, a folder or a single file, read from its own configs and headers and never guessed from its name."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import ModelUnavailable
from ..families.family import VAE, Family, Part, SingleFile
from ..families.known import denoiser_names, families_of, family_of_file, family_told, text_encoder_names
from ..families.part_config import checked_config
from ..families.schedulers import Noise
from ..settings import LARGEST_SIDE
from ..text import shortened
from .catalog import BaseFacts
from .folder import files_in, index_of, missing_parts, network_parts, weight_files
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
from .metadata import MOST_AXES, REFETCH, count_parameters, is_count, read_header, read_json
from .weights import PICKLES

DECODER_LAYER = re.compile(r"(?:model\.)?layers\.(\d{1,4})\.")
HEAD = "lm_head."  # of a language model
TEXT_LAYER = re.compile(r"(?:text_model\.)?encoder\.layers\.(\d{1,4})\.")


def read_facts(path: Path) -> BaseFacts:
    """What a base is, from a diffusers folder's configs and headers or a single file's header.

    Raises ModelUnavailable for anything but a base that can be trained here.
    """
    return _facts_of_folder(path) if path.is_dir() else _facts_of_file(path)


def _what_it_is(folder: Path) -> str:
    """What to do about a folder that is not a whole base, as a hint."""
    parts = [folder, *(folder / part for part in (*denoiser_names(), VAE, *text_encoder_names()))]
    if any(file.suffix.lower() in PICKLES for part in parts for file in files_in(part)):
        return "its weights are pickles, which are never loaded: load it with diffusers and save_pretrained() it as safetensors"
    if os.path.isfile(folder.parent / "model_index.json"):
        return f"it is a part of one: --model {folder.parent}"
    if (name := re.fullmatch("models--(.+?)--(.+)", folder.name)) is not None:
        return f"name it as the hub does: --model {name[1]}/{name[2]}"
    alone = [file for file in files_in(folder) if file.suffix.lower() in (".safetensors", ".sft")]
    if "model_index.json" not in os.listdir(folder) and len(alone) == 1:
        return f"if it is a single-file base, name the file: --model {alone[0]}; if a LoRA, draw with it: generate --model-path {folder}"
    return "fetch it again, or name another base (see `dreambooth models`)"


def _facts_of_folder(folder: Path) -> BaseFacts:
    if (folder / "model_index.json").is_file():  # first, so that another kind of model is not said to lack our parts
        check_index(folder, read_json(folder / "model_index.json"))
    _check_whole(folder, missing_parts(folder))
    facts, configs = _facts_of_configs(folder)
    name, _, *encoders = configs
    parts = facts.family.parts
    headers = {part: [read_header(file) for file in weight_files(folder / part)] for part in configs}
    counts = {part: sum(count_parameters(_read_of(parts[part], each)) for each in found) for part, found in headers.items()}
    unread = {part: unread_layers(configs[part], {*chain(*headers[part])}) for part in encoders}
    said = tuple(f"its {part}'s config leaves out the last {_layers(count)} of the weights" for part, count in unread.items() if count)
    return replace(
        facts,
        denoiser=counts[name],
        text_encoders=tuple(counts[part] for part in encoders),
        vae=counts[VAE],
        remarks=(*facts.remarks, *said),
    )


def facts_without_weights(folder: Path) -> BaseFacts:
    """What a diffusers folder is that has no weights yet: its networks have 0 parameters. Raises ModelUnavailable for anything but a base
    that can be trained here."""
    _check_whole(folder, [name for name in missing_parts(folder) if not name.endswith(".safetensors")])
    return _facts_of_configs(folder)[0]


def _check_whole(folder: Path, missing: Sequence[str]) -> None:
    if missing:
        raise ModelUnavailable(f"{folder} is not a whole base model: {', '.join(missing)} missing", _what_it_is(folder))


def _facts_of_configs(folder: Path) -> tuple[BaseFacts, dict[str, dict[str, Any]]]:
    """What a folder's configs say it is, without the numbers of parameters; and the checked config of each network, the denoiser's and
    the VAE's first."""
    families = families_of(index_of(folder))
    configs = {part: architecture_of(folder / part, part, families) for part in network_parts(folder)}
    name, _, *encoders = configs
    denoiser, vae = configs[name], configs[VAE]
    family = family_told(families, denoiser)
    if family is None:
        raise refuse(folder, f"its network belongs to no family that is known here ({name}/config.json)")
    check_latents(folder, family, denoiser, vae)
    _, schedule = schedule_of(folder)
    check_encoders(folder, family, denoiser, encoders, configs[encoders[-1]].get("projection_dim", 512))
    facts = BaseFacts(
        family=family,
        prediction_type="flow" if family.noise == "flow" else schedule.get("prediction_type", "epsilon"),
        resolution=_resolution(family, denoiser, vae),
        denoiser=0,
        text_encoders=(0,) * len(encoders),
        vae=0,
        zero_snr=bool(schedule.get("rescale_betas_zero_snr")),
        distilled=_is_distilled(family, index_of(folder), schedule),
        remarks=(*remarks_on(schedule), *remarks_on_drawing(*_scheduler_of(folder))),
    )
    return facts, configs


def _is_distilled(family: Family, index: Mapping[str, Any], schedule: Mapping[str, Any]) -> bool:
    """Whether a base's index and schedule say what its family's distilled ones do."""
    said = ((family.distilled_index, index), (family.distilled_schedule, schedule))
    return any(marks for marks, _ in said) and all(told.get(key, False) == value for marks, told in said for key, value in marks.items())


def _read_of(part: Part, header: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a weight file's header for the weights that its family reads."""
    return {name: entry for name, entry in header.items() if is_read(part, name)}


def is_read(part: Part, name: str) -> bool:
    """Whether the weight of this name is read: not if only a body is built and the weight belongs to the head, or to a layer beyond those
    that are read."""
    if not part.built or name == "__metadata__":
        return True
    layer = DECODER_LAYER.match(name)
    return not name.startswith(HEAD) and not (part.layers and layer and int(layer[1]) >= part.layers)


def unread_layers(config: Mapping[str, Any], names: Iterable[str]) -> int:
    """How many of a text encoder's last layers in the file its config leaves out, as in bases that are meant for clip skip."""
    found = [int(match[1]) + 1 for name in names if (match := TEXT_LAYER.match(name))]
    return max(0, max(found, default=0) - int(config.get("num_hidden_layers", 12)))


def _layers(count: int) -> str:
    return "layer" if count == 1 else f"{count} layers"


def architecture_of(folder: Path, part: str, families: Sequence[Family]) -> dict[str, Any]:
    """The checked config of a network, from its own folder; the base belongs to one of these families. Raises ModelUnavailable if it can't
    be trained."""
    file = folder / "config.json"
    config = read_json(file)
    check_quantization(file, config)
    if part == families[0].denoiser:
        check_denoiser(folder.parent, config, families)
    elif part == VAE:
        check_vae(file, config, families[0])
    elif isinstance(config.get("text_config"), dict):  # the config is that of a whole CLIP
        config = config["text_config"]
    bounds = next(family.parts[part].config for family in families if part in family.parts)
    return checked_config(bounds, config, file)


def schedule_of(folder: Path) -> tuple[str, dict[str, Any]]:
    """The class of the scheduler that draws with a diffusers folder, and its checked config. Raises ModelUnavailable if it has a kind of
    noise that is not trained here."""
    named, config = _scheduler_of(folder)
    file = folder / "scheduler" / "scheduler_config.json"
    if _noise_of(folder) == "flow":
        return named, checked_flow_schedule(config, file)
    schedule = checked_schedule(config, file)
    return scheduler_that_draws(named, zero_snr=bool(schedule.get("rescale_betas_zero_snr"))), schedule


def _scheduler_of(folder: Path) -> tuple[str, dict[str, Any]]:
    """The class of scheduler that a diffusers folder names, and its config as it is."""
    file = folder / "scheduler" / "scheduler_config.json"
    config = read_json(file)
    return scheduler_named(read_json(folder / "model_index.json"), config, file, _noise_of(folder)), config


def _noise_of(folder: Path) -> Noise:
    families = families_of(index_of(folder))
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
    """How a family's single files are laid out. Raises ModelUnavailable for a family that is not read from single files."""
    if family.single_file is None:
        raise ModelUnavailable(f"{family.title} is not read from a single file", "name a folder in diffusers' layout")
    return family.single_file


def stated_prediction(path: Path, header: Mapping[str, Any] | None = None) -> str | None:
    """The prediction type that a single-file checkpoint states: in its header, by marks that trainers of velocity models leave, or in the
    scheduler config of the folder beside it. None if it is not stated; other values than `epsilon` and `v_prediction` are passed on."""
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
    """The resolution by the configs in the folder beside a single file, or None if there are none."""
    files = [path.with_suffix("") / part / "config.json" for part in (family.denoiser, VAE)]
    return _resolution(family, *map(read_json, files)) if all(file.is_file() for file in files) else None


def _resolution(family: Family, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    """The side in pixels: that of the denoiser's latents times the VAE's factor."""
    levels, side = vae.get("block_out_channels", [0] * 4), denoiser.get("sample_size")
    if not isinstance(levels, list) or not 1 <= len(levels) <= MOST_AXES:
        raise ModelUnavailable(f"a VAE can't have block_out_channels {shortened(repr(levels))}", REFETCH)
    factor: int = 2 ** (len(levels) - 1)
    if side is None and "sample_size" not in family.parts[family.denoiser].config and is_count(vae.get("sample_size")):
        return min(int(vae["sample_size"]), LARGEST_SIDE)  # a transformer takes any size; only the VAE states one
    if side is None:
        side = family.latent_side
    if not is_count(side) or not 1 <= side <= LARGEST_SIDE:
        raise ModelUnavailable(f"a {family.denoiser_title} can't have sample_size {shortened(repr(side))}", REFETCH)
    return int(side) * factor
