"""The picture that stable-diffusion.cpp draws with a single file, by its Python binding, which is not a dependency of ours. Run by
`python -m tests.benchmarks.others`, in a process of its own: `cpp FOLDER OUT [LORA]`."""

import sys
from pathlib import Path

from stable_diffusion_cpp import StableDiffusion

from .asked import GUIDANCE, NEGATIVE, PROMPT, SEED, SIDE, SINGLE, STEPS


def draw(folder: Path, out: Path, lora: Path | None) -> None:
    """Draw with diffusers' noise, from a CPU generator, by Euler's method over the model's own timesteps."""
    model = StableDiffusion(
        model_path=str(folder / SINGLE),
        lora_model_dir=str(folder),
        rng_type="cpu",
        sampler_rng_type="cpu",
        n_threads=1,
        verbose=True,
    )
    (picture,) = model.generate_image(
        prompt=f"{PROMPT}<lora:{lora.stem}:1>" if lora else PROMPT,
        negative_prompt=NEGATIVE,
        width=SIDE,
        height=SIDE,
        sample_steps=STEPS,
        cfg_scale=GUIDANCE,
        seed=SEED,
        sample_method="euler",
        scheduler="discrete",
    )
    picture.save(out)


if __name__ == "__main__":
    folder, out, *lora = map(Path, sys.argv[1:])
    draw(folder, out, lora[0] if lora else None)
