"""Small bases of the flow families with random weights, in the layout of the hub's repositories. They count as bases of 32 px, since
their VAE's factor is 2."""

from pathlib import Path
from typing import Any

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
# what Qwen's own template makes of one message; it is a program, which plain diffusers runs and this tool does not
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
KINDS = ("z-image", "klein")


def build(kind: str, folder: Path, *, seed: int = 0, distilled: bool = False) -> Path:
    """Write a base of `kind`, or its distilled twin, to `folder` and return it."""
    import torch

    writer = {"z-image": _z_image, "klein": _klein}[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = writer(distilled)
        for weight in pipe.transformer.parameters():  # some are zero at first, which would hide what they do
            torch.nn.init.normal_(weight, std=0.2)
        pipe.save_pretrained(folder)
    return folder


def split_tokenizer(folder: Path) -> Path:
    """Put a base's tokenizer into two files with its marks beside them, as transformers 4 saved it, and return the base's folder."""
    import json

    tokenizer = folder / "tokenizer"
    words, added = _words(), {}
    for mark in SPECIALS:
        added[words.pop(mark)] = mark
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.json").write_text(json.dumps(words))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    (tokenizer / "added_tokens.json").write_text(json.dumps({mark: number for number, mark in added.items()}))
    ways = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "added_tokens_decoder": {str(number): {"content": mark, **ways} for number, mark in added.items()},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "chat_template": TEMPLATE,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def _z_image(distilled: bool) -> Any:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Model

    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[4, 6, 6],
        axes_lens=[600, 64, 64],
    )
    vae = AutoencoderKL(**_vae(), scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0 if distilled else 6.0)
    return ZImagePipeline(scheduler, vae, _qwen(Qwen3Model, layers=3), _tokenizer(), transformer)


def _klein(distilled: bool) -> Any:
    import torch
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3ForCausalLM

    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 32,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = AutoencoderKLFlux2(**_vae())
    vae.bn.running_mean.normal_(std=0.2)
    vae.bn.running_var.uniform_(0.5, 2.0)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        shift=3.0,  # as the real one says, without effect
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
        time_shift_type="exponential",
    )
    with torch.no_grad():
        encoder = _qwen(Qwen3ForCausalLM, layers=30)  # two more than are read
    return Flux2KleinPipeline(scheduler, vae, encoder, _tokenizer(), transformer, is_distilled=distilled)


def _vae() -> dict[str, Any]:
    return {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 32,
    }


def _qwen(kind: Any, *, layers: int) -> Any:
    from transformers import Qwen3Config

    config = Qwen3Config(
        vocab_size=len(_words()) + 8,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=1024,
        rope_theta=1_000_000,  # Qwen3's own, not the library's default
        tie_word_embeddings=True,
    )
    return kind(config).eval()


def _words() -> dict[str, int]:
    """A vocabulary without merges: every byte, and the marks."""
    from tokenizers.pre_tokenizers import ByteLevel

    return {token: number for number, token in enumerate([*sorted(ByteLevel.alphabet()), *SPECIALS])}


def _tokenizer() -> Any:
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(
        vocab=_words(),
        merges=[],
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer
