"""The picture that others' are compared with: drawn by plain diffusers from the exported single file. Run by
`python -m tests.benchmarks.others` in a process of its own: `picture FOLDER OUT [LORA]`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

from dreambooth_cli.engine.exports.proof import compute_in_float32
from dreambooth_cli.engine.families.parts import quiet
from tests.small_models import BETAS

from .asked import GUIDANCE, NEGATIVE, PROMPT, SEED, SIDE, SINGLE, STEPS


def draw(folder: Path, lora: Path | None) -> Any:
    """The pixels [H, W, 3] in 0..255, float32, of a base's single file, a LoRA's file over it; weights as they are stored, arithmetic in
    float32."""
    pipeline = StableDiffusionXLPipeline if folder.name == "sdxl" else StableDiffusionPipeline
    with quiet():
        pipe: Any = pipeline.from_single_file(str(folder / SINGLE), config=str(folder / "base"), local_files_only=True, dtype=torch.float16)
    if (second := getattr(pipe, "text_encoder_2", None)) is not None:  # as stable-diffusion.cpp 0.4.7 has it: see others.md
        second.text_projection.weight.data = second.text_projection.weight.data.T.contiguous()
    for network in (pipe.unet, pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)):
        if network is not None:
            compute_in_float32(network.requires_grad_(False).eval())
    if lora is not None:
        with quiet():
            pipe.load_lora_weights(str(lora.parent), weight_name=lora.name)
    pipe.scheduler = EulerDiscreteScheduler(timestep_spacing="linspace", **BETAS)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(SEED)
    latents = torch.randn(1, 4, SIDE // 8, SIDE // 8, generator=generator)
    drawn = pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        width=SIDE,
        height=SIDE,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        latents=latents,
        output_type="np",
    )
    return drawn.images[0] * 255


if __name__ == "__main__":
    folder, out, *lora = map(Path, sys.argv[1:])
    with torch.no_grad():
        np.save(out, draw(folder, lora[0] if lora else None))
