"""What kind of model a base is, by its pipeline, its parts, its channels and its noise: one that can be trained here, or another, which
an error names.

A base that is not what it seems would train without an error, on noise that its network was never made for.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelUnavailable
from ..families.family import VAE, Family
from ..families.known import families_of
from ..families.part_config import FLOW_SCHEDULER, SCHEDULER, checked_config
from ..families.schedulers import BETA_SIGMAS_NEED, KEEP_ZERO_SNR, NEEDS, NOT_TRAINED, TRAINED, Noise
from ..libraries import installed
from ..text import shortened

USE = "use a Stable Diffusion 1, 2 or XL base, for example sd15 or sdxl; inpainting and refiner models can't be trained"
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "v_prediction")
ACTS_ON = {5: "a depth model", 7: "an upscaler", 8: "an InstructPix2Pix model, which edits pictures", 9: "an inpainting model"}
NAMED_AS_DISTILLED = ("turbo", "lightning", "lcm", "hyper-sd")


def refuse(where: Path, what: str, hint: str = USE) -> ModelUnavailable:
    """The error that says what a base is instead of one that can be trained."""
    return ModelUnavailable(f"{where} is not a base that can be trained: {what}", hint)


def check_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Raise ModelUnavailable if a model_index.json does not have the parts of a text-to-image base that can be trained here."""
    families = families_of(index)
    if not families:
        raise refuse(folder, f"it is made for {shortened(str(index['_class_name']), 80)}")
    if index.get("requires_aesthetics_score") is True:
        raise refuse(folder, "it is a refiner")
    left_out = {name for family in families for name in family.left_out}
    for name, part in index.items():
        if not (isinstance(part, list) and len(part) == 2 and all(isinstance(each, str) for each in part)):
            continue
        classes = [known for family in families if name in family.parts for known in family.parts[name].classes]
        if classes and part[1] not in classes:
            raise refuse(folder, f"its {name} is of the class {shortened(part[1], 80)}")
        if not classes and name not in (*left_out, "scheduler") and not name.startswith("_"):
            raise refuse(folder, f"it has an extra part, {shortened(name, 80)} ({shortened(part[1], 80)})")


def check_denoiser(where: Path, config: Mapping[str, Any], families: Sequence[Family]) -> None:
    """Raise ModelUnavailable if a denoiser's config is not that of one of these families, which share the denoiser's class."""
    name = families[0].denoiser
    part = families[0].parts[name]
    channels = config.get("in_channels", 4)
    given = config.get("out_channels", 4) if "out_channels" in part.config else channels
    if config.get("_class_name", part.classes[0]) not in part.classes or channels != given:
        kind = shortened(str(config.get("_class_name", "unknown")), 80)
        told = ACTS_ON.get(channels, "") if isinstance(channels, int) else ""
        words = f"its network is a {kind} with {shortened(str(channels), 80)} channels in{', like that of ' + told if told else ''}"
        raise refuse(where, f"{words} ({name}/config.json: _class_name, in_channels, out_channels)")
    for key, words in part.refused.items():
        if config.get(key) is not None and config[key] is not False:
            raise refuse(where, f"its network {words} ({name}/config.json: {key})")
    for key in {key: None for family in families for key in family.marks}:
        if config.get(key) not in (None, *(family.marks.get(key) for family in families)):
            told = shortened(str(config[key]), 80)
            raise refuse(where, f"its network is told {told} besides the prompt ({name}/config.json: {key})")


def check_quantization(file: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelUnavailable if a part's config says that its weights are quantized."""
    said = config.get("quantization_config")
    if said is not None:
        method = said.get("quant_method") if isinstance(said, dict) else said
        raise ModelUnavailable(
            f"{file}: quantization_config says that these weights are quantized ({shortened(str(method), 80)}), which can't be trained",
            "use the base in fp32 or fp16; a run that is short of memory quantizes it to 4 bits itself",
        )


def check_encoders(folder: Path, family: Family, denoiser: Mapping[str, Any], encoders: list[str], pooled: Any) -> None:
    """Raise ModelUnavailable if a base's text encoders are not its family's; `pooled` is the width of the last one's projection."""
    had = ", ".join(encoders)
    if not family.size_numbers:
        if encoders != list(family.text_encoders):
            raise refuse(folder, f"its text encoders are {had}, and its {family.denoiser_title} is not an XL's")
        return
    first, second = family.text_encoders
    if encoders == [second]:
        raise refuse(folder, f"it has only the second text encoder (model_index.json: {first}): it is a refiner")
    if len(encoders) != 2:
        raise refuse(folder, f"an XL base has two text encoders, but this one has {had} (model_index.json: {second})")
    told, each = denoiser.get("projection_class_embeddings_input_dim"), denoiser.get("addition_time_embed_dim")
    if not (isinstance(told, int) and isinstance(each, int) and isinstance(pooled, int)):
        return  # the trial will notice
    if told != pooled + family.size_numbers * each:
        refiner = " (a refiner is told five)" if told == pooled + (family.size_numbers - 1) * each else ""
        raise refuse(folder, f"its network is not told the six numbers of a picture's size{refiner}")


def check_vae(file: Path, vae: Mapping[str, Any], family: Family) -> None:
    """Raise ModelUnavailable if a VAE's config is not one that can be used here."""
    classes = family.parts[VAE].classes
    if vae.get("_class_name", classes[0]) not in classes:
        raise refuse(file, f"its VAE is of the class {shortened(str(vae['_class_name']), 80)}")
    if vae.get("latents_mean") is not None or vae.get("latents_std") is not None:
        raise refuse(file, "its latents are scaled channel by channel (as Playground 2.5's are), not by one number")
    if (vae.get("in_channels", 3), vae.get("out_channels", 3)) != (3, 3):
        raise refuse(file, "its VAE does not make pictures of three colour channels")


def check_latents(folder: Path, family: Family, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    """Raise ModelUnavailable if a denoiser's channels do not match those of the VAE's latents."""
    theirs, ours = vae.get("latent_channels", 4), denoiser.get("in_channels", 4)
    if theirs * family.channels != ours:
        raise refuse(folder, f"its VAE's latents have {theirs} channels, and its {family.denoiser_title} works on {ours}")


def scheduler_named(index: Mapping[str, Any], config: Mapping[str, Any], file: Path, noise: Noise = "diffusion") -> str:
    """The class of a base's scheduler. Raises ModelUnavailable if its noise is not one that can be trained here."""
    entry = index.get("scheduler")
    named = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    names = [name for name in (named, config.get("_class_name")) if isinstance(name, str)]
    for name in names:
        if name not in TRAINED[noise]:
            why = next((words for start, words in NOT_TRAINED.items() if start in name), "its noise is of another kind")
            raise refuse(file, f"{why}; its scheduler is {shortened(name, 80)}")
    if not names:
        raise refuse(file, "neither it nor model_index.json names its scheduler", "fetch the base model again")
    return names[0]


def scheduler_that_draws(named: str, *, zero_snr: bool) -> str:
    """The class of scheduler that draws with a base whose own is `named`: another for the same noise, if that one can't be used."""
    if zero_snr and named not in KEEP_ZERO_SNR:
        return KEEP_ZERO_SNR[0]
    package, other = NEEDS.get(named, ("", ""))
    return other if package and installed(package) is None else named


def checked_flow_schedule(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The part of a rectified flow's scheduler config that is used: how sigmas are spread and shifted. Raises ModelUnavailable."""
    return _that_draws({key: value for key, value in checked_config(FLOW_SCHEDULER, config, file).items() if value is not None})


def _that_draws(schedule: dict[str, Any]) -> dict[str, Any]:
    """A schedule without what needs a package that is not installed."""
    without = "use_beta_sigmas" if installed(BETA_SIGMAS_NEED) is None else ""
    return {key: value for key, value in schedule.items() if key != without}


def checked_schedule(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The part of a diffusion scheduler's config that is used: the betas, what is predicted, how it draws. Raises ModelUnavailable if
    its noise is not one that can be trained here."""
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        raise refuse(file, "it was trained by flow matching")
    sigmas = [key for key in ("sigma_min", "sigma_max", "sigma_data") if config.get(key) is not None]
    if sigmas or config.get("timestep_type") == "continuous":
        raise refuse(file, f"it was trained on continuous noise ({', '.join(sigmas) or 'timestep_type'}), as EDM models are")
    checked = _that_draws({key: value for key, value in checked_config(SCHEDULER, config, file).items() if value is not None})
    predicted = checked.get("prediction_type", "epsilon")
    if predicted not in PREDICTIONS:
        raise refuse(
            file, f"it predicts {predicted!r}, which can't be trained here", "use a base that predicts epsilon or velocity, such as sd15"
        )
    if checked.get("trained_betas") is not None:
        if len(checked["trained_betas"]) != checked.get("num_train_timesteps", 1000):
            raise refuse(file, "it does not have as many trained_betas as timesteps", "fetch the base model again")
        return checked
    lacking = [key for key in ("beta_start", "beta_end", "beta_schedule") if key not in checked]
    if lacking:
        raise refuse(file, f"it does not say how noise is added: {', '.join(lacking)} missing", "fetch the base model again")
    if checked["beta_schedule"] not in BETA_SCHEDULES:
        raise refuse(file, f"its beta_schedule is {checked['beta_schedule']!r}, which is not known here")
    if checked["beta_start"] > checked["beta_end"]:
        raise refuse(file, "its noise shrinks over time (beta_start is above beta_end)", "fetch the base model again")
    return checked


def remarks_on_drawing(named: str, config: Mapping[str, Any]) -> Iterator[str]:
    """A remark on a scheduler that needs a package which is not installed. Only drawing needs it, not training."""
    package, other = NEEDS.get(named, ("", ""))
    if package and installed(package) is None:
        yield f"its scheduler {named} needs the package {package}, which is not installed: {other} draws in its place"
    elif config.get("use_beta_sigmas") and installed(BETA_SIGMAS_NEED) is None:
        yield (
            f"its scheduler's use_beta_sigmas needs the package {BETA_SIGMAS_NEED}, which is not installed: "
            f"{named} draws without it"
        )


def remarks_on(schedule: Mapping[str, Any], title: str = "") -> Iterator[str]:
    """Remarks that speak against training a base, though it can be done; `title` is what the base calls itself."""
    spaced = schedule.get("timestep_spacing") == "trailing" and not schedule.get("rescale_betas_zero_snr")
    if any(name in title.lower() for name in NAMED_AS_DISTILLED) or (
        spaced and schedule.get("prediction_type", "epsilon") == "epsilon"
    ):
        yield (
            "this base looks distilled to draw in a few steps (Turbo, Lightning, LCM): it can be trained, but loses that; "
            "the model that it was made from is the better base"
        )


# Single files

INPUT, OUTPUT = "input_blocks.0.0.weight", "out.2.weight"
CROSS_ATTENTION = "transformer_blocks.0.attn2.to_k.weight"
OTHER_FILES = {
    "double_blocks.": "a Flux model",
    "model.diffusion_model.double_blocks.": "a Flux model",
    "joint_blocks.": "a Stable Diffusion 3 model",
    "model.diffusion_model.joint_blocks.": "a Stable Diffusion 3 model",
    "ip_adapter.": "an IP-Adapter",
    "lora_": "a LoRA",
    ".lora_": "a LoRA",
    "control_model.": "a ControlNet",
    "input_hint_block.": "a ControlNet",
    "adapter.": "a T2I-Adapter",
    "body.0.rdb": "an upscaler",
    "body.0.resnets.": "a T2I-Adapter",
    "emb_params": "a textual inversion",
    "clip_g": "a textual inversion",
    "first_stage_model.": "a VAE without its base",
    "encoder.conv_in": "a VAE",
    "down_blocks.": "a UNet without its base",
    "input_blocks.": "a UNet without its base",
    "text_model.": "a text encoder without its base",
    "cond_stage_model.": "a text encoder without its base",
}
EDM_MARKS = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")


def check_single_file(path: Path, header: Mapping[str, Any], family: Family, starts: Mapping[str, str]) -> None:
    """Raise ModelUnavailable if a single file's tensors are not those of a base that can be trained here, saying what it is instead.
    `starts`: the prefix of each part's names."""
    unet, vae = starts[family.denoiser], starts[VAE]
    encoders = [starts[name] for name in family.text_encoders]
    second = any(name.startswith("conditioner.embedders.1.") for name in header)
    if not any(name.startswith(unet) and name.endswith(CROSS_ATTENTION) and len(_shape(header, name)) > 1 for name in header):
        what = next((words for mark, words in OTHER_FILES.items() if any(_marks(name, mark) for name in header)), "")
        told = f"it is {what}; it holds no UNet" if what else "it holds no UNet"
        raise ModelUnavailable(f"{path} is not a Stable Diffusion checkpoint: {told}", "name a base model, not a LoRA or a VAE")
    for mark in EDM_MARKS:
        if mark in header:
            raise refuse(path, f"it was trained on EDM's continuous noise, as Playground 2.5 and CosXL were ({mark})")
    if any(name.startswith(("control_model.", "adapter.")) for name in header):
        raise refuse(path, "it holds a ControlNet or adapter too")
    first, last = (_shape(header, unet + name) for name in (INPUT, OUTPUT))
    if len(first) == 4 and len(last) == 4 and first[1] != last[0]:
        told = ACTS_ON.get(first[1], "")
        raise refuse(path, f"its network takes {first[1]} channels in and gives {last[0]}{', like that of ' + told if told else ''}")
    if not second and any(name.startswith("conditioner.embedders.0.model.") for name in header):
        raise refuse(path, "it has only the second text encoder: it is a refiner")
    for part, start in (("VAE", vae), *(("text encoder", start) for start in encoders)):
        if not any(name.startswith(start) for name in header):
            raise ModelUnavailable(
                f"{path} is not a whole base: it holds no {part} ({start}...)",
                "name a checkpoint that holds UNet, text encoder and VAE",
            )
    if not second and any(name.startswith(f"{unet}label_emb.") for name in header):
        raise refuse(path, "its network has class embeddings, as unCLIP and upscalers do")


def _marks(name: str, mark: str) -> bool:
    return name.startswith(mark) or (mark.startswith(".") and mark in name)


def _shape(header: Mapping[str, Any], name: str) -> list[int]:
    return list(header.get(name, {}).get("shape", []))
