"""Which of a hub repository's files training needs."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...bases.base import BaseRequest
from ...bases.folder import VARIANTS, variant_of
from ...bases.kind import refuse
from ...bases.weights import PICKLES
from ...errors import ModelUnavailable
from ...families.family import VAE, tokenizer_of
from ...families.known import FAMILIES, denoiser_names, text_encoder_names

OTHER_TRANSFORMER = "it has a transformer in place of a UNet, as Flux and Stable Diffusion 3 do"


def choose_files(names: Iterable[str]) -> list[str]:
    """The files of a diffusers repository that training needs, configs first; weights only as safetensors, in one number format."""
    names = sorted(names)
    chosen = [name for name in names if name == "model_index.json"]
    weights: list[str] = []
    for part in ("scheduler", *map(tokenizer_of, text_encoder_names()), *text_encoder_names(), *denoiser_names(), VAE):
        mine = [name for name in names if name.startswith(f"{part}/") and name.count("/") == 1]
        chosen += [name for name in mine if _is_config(part, name)]
        for variant in VARIANTS:
            ours = [name for name in mine if variant_of(name.rpartition("/")[2]) == variant]
            if any(name.endswith(".safetensors") for name in ours):
                weights += ours
                break
    return chosen + weights


def choose_config_files(names: Iterable[str]) -> list[str]:
    """The files of a diffusers repository that say what it is, without weights: a few MB of JSON and text."""
    return [name for name in choose_files(names) if not is_weight(name)]


def choose_vae_files(names: Iterable[str]) -> list[str]:
    """The files to fetch of a repository that holds a VAE alone."""
    there = set(names)
    return [name for name in ("config.json", "diffusion_pytorch_model.safetensors") if name in there]


def _is_config(part: str, name: str) -> bool:
    if part.startswith("tokenizer"):
        return name.endswith((".json", ".txt"))
    return name.removeprefix(f"{part}/") in ("config.json", "scheduler_config.json")


def is_weight(name: str) -> bool:
    """Whether a file of a repository holds weights, or is the index of several such files."""
    return variant_of(name.rpartition("/")[2]) is not None


def checked_choice(request: BaseRequest, names: list[str]) -> list[str]:
    """The files to fetch of a repository with these names. Raises ModelUnavailable if they would not make a whole base."""
    repository = request.repository
    if "model_index.json" not in names:
        single = [name for name in names if "/" not in name and name.endswith(".safetensors")]
        hint = f"download {single[0]} and give its path" if single else "see `dreambooth models` for bases that work"
        raise ModelUnavailable(f"{repository} is not a base model in diffusers' layout: it has no model_index.json", hint)
    chosen = choose_files(names)
    denoiser, *_ = _parts_there(denoiser_names(), names)
    families = [family for family in FAMILIES if family.denoiser == denoiser]
    encoders = _parts_there(text_encoder_names(), names)
    if not any(set(encoders) <= set(family.text_encoders) for family in families):
        raise refuse(Path(str(repository)), OTHER_TRANSFORMER)
    lacking = [
        part
        for part in (denoiser, VAE, *_parts_there(text_encoder_names(), names))
        if not any(name.startswith(f"{part}/") and name.endswith(".safetensors") for name in chosen)
    ]
    if not lacking:
        return chosen
    if any(name.startswith(f"{part}/") and name.endswith(PICKLES) for part in lacking for name in names):
        raise ModelUnavailable(
            f"{repository} has weights only as pickles ({', '.join(lacking)}), which are never loaded: they could run any program",
            "on a machine you can spare, open it with diffusers, save_pretrained() it as safetensors, and give that folder's path",
        )
    if denoiser in lacking and any(name.startswith("transformer/") for name in names):
        raise refuse(Path(str(repository)), OTHER_TRANSFORMER)
    raise ModelUnavailable(
        f"{repository} is not a whole base model: it has no weights for {', '.join(lacking)}", "see `dreambooth models`"
    )


def _parts_there(parts: Sequence[str], names: list[str]) -> list[str]:
    """Those of these parts that a repository has a folder for; the first one if it has none of them."""
    return [part for part in parts if any(name.startswith(f"{part}/") for name in names)] or [parts[0]]
