"""How ComfyUI reads a single file, and a LoRA for it. Run by `python -m tests.benchmarks.others` in a process of its own:
`comfyui CHECKOUT FOLDER`."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers  # noqa: F401  # before the stand-ins: they ask what is installed
from diffusers.loaders.single_file_utils import (
    convert_flux2_transformer_checkpoint_to_diffusers,
    convert_z_image_transformer_checkpoint_to_diffusers,
)

from .absent import Absent
from .asked import BESIDE, KOHYA, MERGED, SINGLE
from .verdict import Calls, Verdict, Words, name_of, of_rounding

WITHOUT = ("torchvision", "torchaudio", "av")
NOT_LOADED = "lora key not loaded: "
NO_WEIGHT = "NOT LOADED "
# of its text encoders' own classes, which no checkpoint of these bases has: it passes over them too (comfy/sd.py, CLIP.load_sd)
NEVER_THERE = (".logit_scale", ".transformer.text_projection.weight")
COUNTED = ".position_ids"  # a row of numbers from 0 on, which the original's files have and nothing reads


def single_file(path: Path) -> tuple[Any, Any]:
    """Their model and text encoders from a single file; prints the verdict."""
    import comfy.sd
    import comfy.utils

    calls = Calls()
    tensors = comfy.utils.load_torch_file(str(path))
    number = len(tensors)
    model, clip, *_ = comfy.sd.load_state_dict_guess_config(tensors, model_options={"dtype": torch.float16})
    missing = [key for key in calls.missing if not key.endswith(NEVER_THERE)]
    # what they have read they have taken out
    Verdict(name_of(path), number, missing, [key for key in (*calls.unexpected, *tensors) if not key.endswith(COUNTED)]).tell()
    return model, clip


def patches_of(file: Path, model: Any, clip: Any) -> tuple[int, list[str], list[Any]]:
    """How many tensors a LoRA has, which found no place, and the patched model and text encoders."""
    import comfy.sd
    import comfy.utils

    words, tensors = Words((NOT_LOADED, NO_WEIGHT)), comfy.utils.load_torch_file(str(file))
    number = len(tensors)
    changed, changed_clip = comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)
    return number, words.heard, [changed, *([changed_clip.patcher] if clip else [])]


def lora_over(file: Path, model: Any, clip: Any) -> None:
    """Print how they read a LoRA, comparing their weights with the single file that it is baked into."""
    import comfy.lora
    import comfy.utils

    number, unexpected, patchers = patches_of(file, model, clip)
    merged = comfy.utils.load_torch_file(str(file.with_name(MERGED)))
    wanted = {name.removeprefix("model."): value for name, value in merged.items() if name.startswith("model.")}
    wanted |= model.model.model_config.process_clip_state_dict(merged)
    count, worst = 0, 0.0
    for each in patchers:
        state = each.model.state_dict()
        for key, patches in each.patches.items():
            found = comfy.lora.calculate_weight(patches, state[key].float(), key)
            worst, count = max(worst, of_rounding(found, wanted[key])), count + 1
    Verdict(name_of(file), number, [], unexpected, count, worst).tell()


def flow_model(kind: str, config: dict[str, Any]) -> Any:
    """Their model of a flow family as small as diffusers' config says, without weights: they tell true ones by their widths."""
    import comfy.model_patcher
    import comfy.supported_models

    same: dict[str, Any] = {"in_channels": config["in_channels"]}
    if kind == "klein":
        heads = config["num_attention_heads"]
        made = comfy.supported_models.Flux2({  # as comfy/model_detection.py, detect_unet_config, has it
            **same, "image_model": "flux2", "axes_dim": config["axes_dims_rope"], "num_heads": heads, "mlp_ratio": config["mlp_ratio"],
            "theta": 2000, "out_channels": config["in_channels"], "global_modulation": True, "mlp_silu_act": True, "qkv_bias": False,
            "ops_bias": False, "txt_ids_dims": [3], "patch_size": 1, "vec_in_dim": None, "guidance_embed": False,
            "hidden_size": heads * config["attention_head_dim"], "context_in_dim": config["joint_attention_dim"],
            "depth": config["num_layers"], "depth_single_blocks": config["num_single_layers"],
        })  # fmt: skip
    else:
        names = ("dim", "n_layers", "n_refiner_layers", "n_heads", "n_kv_heads", "cap_feat_dim", "axes_dims", "axes_lens")
        made = comfy.supported_models.ZImage({
            **same, **{name: config[name] for name in names}, "image_model": "lumina2", "patch_size": 2, "qk_norm": True,
            "rope_theta": 256.0, "multiple_of": 1, "ffn_dim_multiplier": 8.0 / 3.0, "z_image_modulation": True, "time_scale": 1000.0,
        })  # fmt: skip
    made.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(made.get_model({}, ""), load_device=cpu, offload_device=cpu)


def flow_lora(file: Path, base: Path) -> None:
    """Tell what they made of a flow family's LoRA: what they would add to each weight, brought to diffusers' names by diffusers' own reader
    of the original's files, compared with the product of the file's two matrices."""
    import comfy.lora
    import comfy.utils

    kind = base.parent.name
    model = flow_model(kind, json.loads((base / "transformer" / "config.json").read_text()))
    number, unexpected, (patcher,) = patches_of(file, model, None)
    state = patcher.model.state_dict()
    added = {
        key.removeprefix("diffusion_model."): comfy.lora.calculate_weight(patches, torch.zeros(state[key].shape), key)
        for key, patches in patcher.patches.items()
    }
    convert: Any = convert_z_image_transformer_checkpoint_to_diffusers
    if kind == "klein":
        convert = convert_flux2_transformer_checkpoint_to_diffusers
    found, tensors, worst = convert(added), comfy.utils.load_torch_file(str(file)), 0.0
    layers = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    for layer in layers:
        product = tensors[f"{layer}.lora_B.weight"].float() @ tensors[f"{layer}.lora_A.weight"].float()
        worst = max(worst, of_rounding(found.pop(f"{layer.removeprefix('transformer.')}.weight"), product))
    Verdict(f"{kind} {file.name}", number, [], [*unexpected, *found], len(layers), worst).tell()


def main(checkout: Path, folder: Path) -> None:
    """Tell what they make of a base's files."""
    Absent(WITHOUT)
    sys.path.insert(0, str(checkout))
    from comfy.cli_args import args

    args.cpu = True
    if (folder / SINGLE).is_file():
        lora_over(folder / KOHYA, *single_file(folder / SINGLE))
    else:
        (file,) = (folder / BESIDE).glob("*.safetensors")
        flow_lora(file, folder / "base")


if __name__ == "__main__":
    with torch.no_grad():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
