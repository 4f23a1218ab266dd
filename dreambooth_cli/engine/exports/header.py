"""What the header of a file says about its model: Stability's ModelSpec (github.com/Stability-AI/ModelSpec), which ComfyUI, A1111, Forge
and InvokeAI show in their lists, and kohya's name for the base."""

from collections.abc import Mapping

from ...model_card import Card
from .original import is_openclip
from .weights import Weights

# of the two families that share a name: of OpenAI's text encoder, of OpenCLIP's
ARCHITECTURES = {"sd": ("stable-diffusion-v1", "stable-diffusion-v2"), "sdxl": ("stable-diffusion-xl-v1-base",) * 2}
KOHYAS = {"sd": ("sd_v1", "sd_v2"), "sdxl": ("sdxl_base_v1-0",) * 2}
IMPLEMENTATIONS = {
    "sd": ("https://github.com/CompVis/stable-diffusion", "https://github.com/Stability-AI/stablediffusion"),
    "sdxl": ("https://github.com/Stability-AI/generative-models",) * 2,
}
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


def is_second(weights: Weights) -> bool:
    """Whether a model is of Stable Diffusion's second line."""
    family = weights.base.facts.family
    return family.name in ARCHITECTURES and is_openclip(weights.networks[family.text_encoders[0]])


def modelspec(weights: Weights, card: Card | None, *, title: str, licence: str, of_lora: bool) -> dict[str, str]:
    """The header's texts. Without a card there is no trigger phrase, and the resolution is the base's."""
    facts, second = weights.base.facts, is_second(weights)
    name = ARCHITECTURES.get(facts.family.name, (facts.family.name,) * 2)[second]
    if name == "stable-diffusion-v2":
        name += "-768-v" if facts.prediction_type == "v_prediction" else "-512"
    side = card.resolution if card else facts.resolution
    told = {
        "sai_model_spec": "1.0.0",
        "architecture": f"{name}/lora" if of_lora else name,
        "implementation": "diffusers" if of_lora else IMPLEMENTATIONS.get(facts.family.name, ("diffusers",) * 2)[second],
        "title": title,
        "resolution": f"{side}x{side}",
        "prediction_type": PREDICTIONS.get(facts.prediction_type, facts.prediction_type),
        "license": licence,
    }
    if card is not None:
        told |= {"trigger_phrase": card.instance_prompt, "usage_hint": f'in prompts, "{card.identifier}" stands for the subject'}
        told["description"] = f"{card.class_prompt}: one subject, learned from a few photos with DreamBooth"
    return {f"modelspec.{key}": value for key, value in told.items() if value}


def kohyas(weights: Weights) -> Mapping[str, str]:
    """What kohya's scripts write about a LoRA's base."""
    facts, second = weights.base.facts, is_second(weights)
    told = {"ss_base_model_version": KOHYAS[facts.family.name][second], "ss_v2": str(second)}
    return told | ({"ss_v_parameterization": "True"} if facts.prediction_type == "v_prediction" else {})
