"""What kohya's scripts (kohya-ss/sd-scripts) make of a single file, and of a LoRA over it. Run by `python -m tests.benchmarks.others` in a
process of its own: `kohya CHECKOUT FOLDER`."""

import sys
from pathlib import Path
from typing import Any

import diffusers  # noqa: F401  # before the stand-ins: it asks what is installed
import torch
import transformers  # noqa: F401
from safetensors import safe_open
from torch import nn

from .absent import Absent
from .asked import KOHYA, MERGED, SINGLE
from .verdict import Calls, Verdict, name_of, of_rounding

WITHOUT = ("torchvision", "cv2")


def load(path: Path) -> tuple[Any, list[nn.Module], nn.Module]:
    """Their VAE, text encoders and UNet of a single file; of SDXL, the UNet stays in fp16: two in float32 would need 20 GB. They
    raise an error where a key is missing or unexpected."""
    if path.parent.name == "sdxl":
        from library.sdxl_model_util import MODEL_VERSION_SDXL_BASE_V1_0, load_models_from_sdxl_checkpoint

        first, second, vae, unet, *_ = load_models_from_sdxl_checkpoint(MODEL_VERSION_SDXL_BASE_V1_0, str(path), "cpu", torch.float16)
        return vae, [first, second], unet
    from library.model_util import load_models_from_stable_diffusion_checkpoint

    encoder, vae, unet = load_models_from_stable_diffusion_checkpoint(False, str(path))
    return vae, [encoder], unet


def single_file(path: Path) -> tuple[Any, list[nn.Module], nn.Module]:
    """What they read of a single file; prints the verdict. Every number of the file has to be in one of the networks."""
    calls = Calls()
    vae, encoders, unet = load(path)
    with safe_open(path, "pt") as file:
        sizes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  # it is no mapping
    there = sum(torch.Size(size).numel() for name, size in sizes.items() if not name.endswith("position_ids"))
    read = sum(parameter.numel() for network in (vae, *encoders, unet) for parameter in network.parameters())
    lost = [] if read == there else [f"{there - read:,} of {there:,} numbers"]
    Verdict(name_of(path), len(sizes), calls.missing, calls.unexpected + lost).tell()
    return vae, encoders, unet


def lora(path: Path, vae: Any, encoders: list[nn.Module], unet: nn.Module) -> None:
    """Lay a LoRA over their networks and print the verdict, comparing the weights that result with the single file it is baked into."""
    from networks.lora import create_network_from_weights

    given, calls = encoders if len(encoders) > 1 else encoders[0], Calls()
    network, tensors = create_network_from_weights(1.0, str(path), vae, given, unet, None, True)
    number = len(tensors)
    network.apply_to(given, unet)
    network.load_state_dict(tensors, strict=False)
    layers = {each.org_module_ref[0].weight: each for each in (*network.unet_loras, *network.text_encoder_loras)}
    _, theirs, other = load(path.with_name(MERGED))
    worst = 0.0
    for mine, merged in zip((unet, *encoders), (other, *theirs), strict=True):
        wanted = merged.state_dict()
        for name, value in mine.named_parameters():
            found = value.float() + layers[value].get_weight() if value in layers else value
            worst = max(worst, of_rounding(found, wanted[name]))
    Verdict(name_of(path), number, calls.missing, calls.unexpected, len(layers), worst).tell()


def main(checkout: Path, folder: Path) -> None:
    """Print what they make of a base's files."""
    Absent(WITHOUT)
    sys.path.insert(0, str(checkout))
    lora(folder / KOHYA, *single_file(folder / SINGLE))


if __name__ == "__main__":
    with torch.no_grad():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
