"""Small base models of the real architectures with random weights, written in the layout of the hub's repositories: text encoder keys
under `text_model.`, vocab.json and merges.txt, the old attention names in SD 1's VAE, safetensors.

Every kind counts as a 64 px base: latents are 16x16, and the VAE's factor is 4 (not 8, so that a hard-coded 8 is noticed).
"""

import gzip
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreambooth_cli.identifier import rare_tokens

CLIP_FILE = "shared/clip/bpe_simple_vocab_16e6.txt.gz"
CLIP_MERGES = 49_152 - 256 - 2  # CLIP uses only so many lines of the file, the first ones
WORDS = ("dog", "cat", "photo", "of", "sks")
VAE_OLD_NAMES = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}


def build(kind: str, folder: Path, *, seed: int = 0, width: int = 32) -> Path:
    """Write a base of `kind` (sd1, sd2, sdxl) to `folder` and return it.

    `width` is the UNet's first level; a multiple of 32. SD 1 then has 0.8 M at 32, 10 M at 112, 50 M at 256.
    """
    import torch

    writer = {"sd1": _write_sd1, "sd2": _write_sd2, "sdxl": _write_sdxl}[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        writer(folder, width)
    return folder


def build_vae(folder: Path, *, seed: int = 0) -> Path:
    """Write a VAE alone, laid out like the repository of SDXL's fp16-safe one, and return the folder."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _vae(0.13025, force_upcast=False).save_pretrained(folder)
    return folder


def build_eyes(folder: Path) -> Path:
    """Write what judges a run's steps, a CLIP and a DINO of random weights, to `clip` and `dino` in a folder. Returns it."""
    import torch
    from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    torch.manual_seed(0)
    vocabulary = write_tokenizer(folder / "clip", pad="<|endoftext|>")
    text = {**size, "vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    CLIPModel(CLIPConfig(text_config=text, vision_config={**size, "patch_size": 56}, projection_dim=16)).save_pretrained(folder / "clip")
    ViTModel(ViTConfig(**size, patch_size=56), add_pooling_layer=False).save_pretrained(folder / "dino")
    return folder


def _write_sd1(folder: Path, width: int) -> None:
    from diffusers import PNDMScheduler

    vocabulary = write_tokenizer(folder / "tokenizer", pad="<|endoftext|>")
    _write_text_encoder(folder / "text_encoder", vocabulary, hidden=32, act="quick_gelu")
    _unet(width, cross_attention_dim=32, attention_head_dim=4, levels=("CrossAttn", "")).save_pretrained(
        folder / "unet"
    )
    _vae(0.18215).save_pretrained(folder / "vae")
    _rename_vae_attention(folder / "vae" / "diffusion_pytorch_model.safetensors")
    PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **BETAS).save_pretrained(folder / "scheduler")
    _write_index(
        folder,
        "StableDiffusionPipeline",
        scheduler="PNDMScheduler",
        # The hub's repositories name a checker and its extractor; what training fetches leaves both out.
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )


def _write_sd2(folder: Path, width: int) -> None:
    from diffusers import DDIMScheduler

    vocabulary = write_tokenizer(folder / "tokenizer", pad="!")
    _write_text_encoder(folder / "text_encoder", vocabulary, hidden=32, act="gelu")
    _unet(
        width,
        cross_attention_dim=32,
        attention_head_dim=(2, 4),
        levels=("CrossAttn", ""),
        use_linear_projection=True,
        upcast_attention=True,
    ).save_pretrained(folder / "unet")
    _vae(0.18215).save_pretrained(folder / "vae")
    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, **BETAS)
    scheduler.save_pretrained(folder / "scheduler")
    _write_index(
        folder,
        "StableDiffusionPipeline",
        scheduler="DDIMScheduler",
        safety_checker=[None, None],
        feature_extractor=[None, None],
    )


def _write_sdxl(folder: Path, width: int) -> None:
    from diffusers import EulerDiscreteScheduler

    vocabulary = write_tokenizer(folder / "tokenizer", pad="<|endoftext|>")
    write_tokenizer(folder / "tokenizer_2", pad="!")
    # The two widths differ, as SDXL's do: single-file loading tells the encoders apart by them.
    _write_text_encoder(folder / "text_encoder", vocabulary, hidden=32, act="quick_gelu")
    _write_text_encoder(folder / "text_encoder_2", vocabulary, hidden=48, act="gelu", projection=40)
    _unet(
        width,
        cross_attention_dim=32 + 48,
        attention_head_dim=(2, 4),
        levels=("", "CrossAttn"),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=40 + 6 * 8,
    ).save_pretrained(folder / "unet")
    _vae(0.13025, force_upcast=True).save_pretrained(folder / "vae")
    scheduler = EulerDiscreteScheduler(timestep_spacing="leading", interpolation_type="linear", **BETAS)
    scheduler.save_pretrained(folder / "scheduler")
    _write_index(
        folder,
        "StableDiffusionXLPipeline",
        scheduler="EulerDiscreteScheduler",
        text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
        tokenizer_2=["transformers", "CLIPTokenizer"],
        force_zeros_for_empty_prompt=True,
        add_watermarker=None,
    )


def _unet(width: int, *, levels: tuple[str, str], **config: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(width, 2 * width),
        norm_num_groups=8,
        down_block_types=tuple(f"{level}DownBlock2D" for level in levels),
        up_block_types=tuple(f"{level}UpBlock2D" if level else "UpBlock2D" for level in reversed(levels)),
        **config,
    )


def _vae(scaling_factor: float, **config: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=64,
        scaling_factor=scaling_factor,
        block_out_channels=(16, 16, 32),
        norm_num_groups=8,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        **config,
    )


def _write_text_encoder(folder: Path, vocabulary: int, *, hidden: int, act: str, projection: int | None = None) -> None:
    """A CLIP text encoder as on the hub: every key under `text_model.`, including the `position_ids` of earlier versions."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=projection or hidden,
        hidden_act=act,
        bos_token_id=0,
        eos_token_id=2,  # as every hub repository has it: the pooled token is then the one with the highest id
        pad_token_id=1,
    )
    encoder = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    state = {_nested(name): value for name, value in encoder.state_dict().items()}
    encoder.save_pretrained(folder, state_dict=state)
    written = folder / "model.safetensors"
    _save(written, {**_load(written), "text_model.embeddings.position_ids": torch.arange(77)[None]})


def _nested(name: str) -> str:
    return name if name.startswith(("text_model.", "text_projection.")) else "text_model." + name


def _rename_vae_attention(file: Path) -> None:
    state = _load(file)
    for new, old in VAE_OLD_NAMES.items():
        state = {name.replace(new, old): value for name, value in state.items()}
    _save(file, state)


def _write_index(folder: Path, pipeline: str, *, scheduler: str, **more: Any) -> None:
    index = {
        "_class_name": pipeline,
        "_diffusers_version": "0.21.4",
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        **more,
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


# The tokenizer


def clip_vocabulary_file() -> Path | None:
    """CLIP's own vocabulary, if it is in or beside the checkout; else None."""
    checkout = Path(__file__).parents[1]
    return next((root / CLIP_FILE for root in (checkout, checkout.parent) if (root / CLIP_FILE).is_file()), None)


def write_tokenizer(folder: Path, *, pad: str) -> int:
    """Write a CLIP tokenizer in the files that the hub has (no tokenizer.json) and return its number of tokens: CLIP's own if its
    vocabulary is at hand, else a small one that splits everything into letters except a few words and rare tokens."""
    merges = _clip_merges() or list(_small_merges())
    letters = _byte_letters()
    tokens = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *map("".join, merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    specials = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": pad,
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(specials))
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        **specials,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


def _clip_merges() -> list[tuple[str, str]] | None:
    file = clip_vocabulary_file()
    if file is None:
        return None
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").splitlines()[1 : CLIP_MERGES + 1]
    return [(left, right) for left, right in (line.split() for line in lines)]


def _small_merges() -> Iterator[tuple[str, str]]:
    """Merges that make each of WORDS and most of the package's rare tokens one token, each pair once; the rarest, which the package lists
    first, get the highest numbers, as in CLIP's."""
    seen = set()
    for word in (*WORDS, *reversed(rare_tokens())):
        pieces = [*word[:-1], word[-1] + "</w>"]
        for place in range(1, len(pieces)):
            pair = ("".join(pieces[:place]), pieces[place])
            if pair not in seen:
                seen.add(pair)
                yield pair


def _byte_letters() -> list[str]:
    """The 256 letters that stand for bytes, in CLIP's order: printable bytes stand for themselves, the others are U+0100 and on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]


# One file in the layout of the original checkpoints


def single_file(folder: Path, path: Path) -> Path:
    """Write the base in `folder` as one .safetensors checkpoint in the original layout, and return its path."""
    unet_config = json.loads((folder / "unet" / "config.json").read_text())
    unet = _load(folder / "unet" / "diffusion_pytorch_model.safetensors")
    vae = _load(folder / "vae" / "diffusion_pytorch_model.safetensors")
    text = _load(folder / "text_encoder" / "model.safetensors")
    state = {f"model.diffusion_model.{_unet_name(name, unet, unet_config)}": value for name, value in unet.items()}
    state |= _single_vae(
        vae, levels=len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])
    )
    if (folder / "text_encoder_2").is_dir():
        state |= {f"conditioner.embedders.0.transformer.{name}": value for name, value in text.items()}
        state |= _openclip("conditioner.embedders.1.model.", _load(folder / "text_encoder_2" / "model.safetensors"))
    elif unet_config.get("use_linear_projection"):
        state |= _openclip("cond_stage_model.model.", text)
    else:
        state |= {f"cond_stage_model.transformer.{name}": value for name, value in text.items()}
    _save(path, state)
    return path


UNET_TOP = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
}
UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}
VAE_PARTS = {
    ".conv_norm_out.": ".norm_out.",
    ".mid_block.resnets.0.": ".mid.block_1.",
    ".mid_block.resnets.1.": ".mid.block_2.",
    ".mid_block.attentions.0.": ".mid.attn_1.",
    ".group_norm.": ".norm.",
    ".query.": ".q.",
    ".key.": ".k.",
    ".value.": ".v.",
    ".proj_attn.": ".proj_out.",
    ".conv_shortcut.": ".nin_shortcut.",
    ".resnets.": ".block.",
    ".downsamplers.0.": ".downsample.",
    ".upsamplers.0.": ".upsample.",
}
OPENCLIP_LAYER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def _unet_name(name: str, state: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    per_level = config["layers_per_block"] + 1
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    if found is None:
        new = _replace_start(name, UNET_TOP)
        head, _, tail = new.partition(".0." if new.startswith("middle_block.0.") else ".2.")
        return f"{head}.{new[len(head) + 1]}.{_replace_start(tail, UNET_RESNET)}" if head == "middle_block" else new
    side, level, part, place, tail = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if part == "downsamplers":
        return f"input_blocks.{(level + 1) * per_level}.0.{tail.replace('conv.', 'op.')}"
    if part == "upsamplers":
        after_attention = any(other.startswith(f"up_blocks.{level}.attentions.") for other in state)
        return f"output_blocks.{(level + 1) * per_level - 1}.{2 if after_attention else 1}.{tail}"
    block = (
        f"input_blocks.{1 + level * per_level + place}"
        if side == "down"
        else f"output_blocks.{level * per_level + place}"
    )
    return f"{block}.0.{_replace_start(tail, UNET_RESNET)}" if part == "resnets" else f"{block}.1.{tail}"


def _replace_start(name: str, starts: Mapping[str, str]) -> str:
    return next((new + name[len(old) :] for old, new in starts.items() if name.startswith(old)), name)


def _single_vae(state: Mapping[str, Any], *, levels: int) -> dict[str, Any]:
    single = {}
    for name, value in state.items():
        for new, old in VAE_OLD_NAMES.items():
            name = name.replace(new, old)
        for old, new in VAE_PARTS.items():
            name = name.replace(old, new)
        name = name.replace(".down_blocks.", ".down.")
        name = re.sub(r"\.up_blocks\.(\d+)", lambda found: f".up.{levels - 1 - int(found[1])}", name)
        # The original keeps the attention's matrices as 1x1 convolutions.
        single[f"first_stage_model.{name}"] = (
            value[:, :, None, None] if ".attn_1." in name and value.ndim == 2 else value
        )
    return single


def _openclip(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """A text encoder's weights under OpenCLIP's names, with query, key and value in one matrix."""
    import torch

    flat = {name.removeprefix("text_model."): value for name, value in state.items()}
    single = {
        "positional_embedding": flat["embeddings.position_embedding.weight"],
        "token_embedding.weight": flat["embeddings.token_embedding.weight"],
    }
    if "text_projection.weight" in flat:
        single["text_projection"] = flat["text_projection.weight"].T
    layers = sorted({int(found[1]) for name in flat if (found := re.match(r"encoder\.layers\.(\d+)\.", name))})
    for kind in ("weight", "bias"):
        single[f"ln_final.{kind}"] = flat[f"final_layer_norm.{kind}"]
        for layer in layers:
            old, new = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
            matrices = [flat[f"{old}self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            single[f"{new}attn.in_proj_{kind}"] = torch.cat(matrices)
            single |= {f"{new}{there}.{kind}": flat[f"{old}{here}.{kind}"] for here, there in OPENCLIP_LAYER.items()}
    return {prefix + name: value for name, value in single.items()}


def _load(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def _save(path: Path, state: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in state.items()}, path, metadata={"format": "pt"})


# The hub's cache


def lay_out_hub_cache(folder: Path, cache: Path, repository: str, revision: str) -> Path:
    """Put a base into a hub cache (`HF_HOME/hub`) as huggingface_hub does: blobs, a snapshot of links to them, refs/main.

    Returns the snapshot's folder. `revision` is a commit of 40 hex digits.
    """
    store = cache / ("models--" + repository.replace("/", "--"))
    snapshot = store / "snapshots" / revision
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            blob = store / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            if not blob.exists():
                shutil.copy(file, blob)
            link = snapshot / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    (store / "refs").mkdir(exist_ok=True)
    (store / "refs" / "main").write_text(revision)
    return snapshot
