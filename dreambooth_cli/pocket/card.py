"""The pocket model's card: what the judge says of it, how it was trained, a sheet of its pictures.

    python -m dreambooth_cli.pocket.card

draws 600 pictures from random prompts with the package's weights (a few minutes on two cores) and writes `README.md`,
`contact-sheet.png` and `losses.png` beside this file.
"""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image, ImageDraw

from ..bases.catalog import guidance_of
from ..engine.evaluation import to_pixels
from ..families.stable_diffusion import STABLE_DIFFUSION
from . import world
from .build import JUDGE, MODEL, RECIPE, measure_judge, measure_vae
from .eyes import pocket_judge
from .judge import Judge

CARD = Path(__file__).with_name("README.md")
COUNT = 600
STEPS, GUIDANCE = 25, guidance_of("pocket", STABLE_DIFFUSION)
MARKS = {"class": 0.92, "place": 0.92, "body": 0.85, "pattern": 0.75}  # the share of right pictures that is asked for
FRESH = 1_000  # how many renders that no part was trained on
SHOWN = 100
COLOURS = ("#3465a4", "#cc4125", "#4e9a06", "#75507b", "#c17d11", "#2e8b8b")


def asked_scenes(count: int, seed: str) -> list[world.Scene]:
    """Scenes from seeds that the recipe does not use."""
    return [world.draw_scene(Random(f"{seed} {number}")) for number in range(count)]


def prompt_of(scene: world.Scene) -> str:
    """A prompt whose every word the judge can check: class, body colour, pattern, place."""
    one = scene.individual
    return f"a photo of a {one.body} {one.pattern} {one.class_name} {scene.place}"


def draw_all(scenes: list[world.Scene], batch: int = 20) -> list[Image.Image]:
    """A picture for each scene's prompt by the plain diffusers pipeline, with seed i for picture i."""
    pipe: Any = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pictures: list[Image.Image] = []
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        generators = [torch.Generator().manual_seed(start + place) for place in range(len(part))]
        prompts = [prompt_of(scene) for scene in part]
        drawn = pipe(prompts, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generators)
        pictures += drawn.images
    return pictures


def judge_pictures(judge: Judge, scenes: list[world.Scene], pictures: list[Image.Image]) -> dict[str, float]:
    """The share of pictures that show what their prompt asked for, by question."""
    wanted = {
        "class": [scene.individual.class_name for scene in scenes],
        "place": [scene.place for scene in scenes],
        "body": [scene.individual.body for scene in scenes],
        "pattern": [scene.individual.pattern for scene in scenes],
    }
    reading = judge.read(to_pixels(pictures, world.SIZE))
    return {
        name: sum(one == other for one, other in zip(reading.answers(name), words, strict=True)) / len(words)
        for name, words in wanted.items()
    }


def sheet_of(pictures: list[Image.Image], columns: int = 10) -> Image.Image:
    """The pictures side by side, at one and a half times their size."""
    side = world.SIZE * 3 // 2
    sheet = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * side))
    for place, picture in enumerate(pictures):
        large = picture.resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(large, (place % columns * side, place // columns * side))
    return sheet


def plot_losses(parts: dict[str, Any], width: int = 900, height: int = 260) -> Image.Image:
    """A chart of every part's loss over its steps, each scaled from its own lowest to its own highest value."""
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    for place, (name, part) in enumerate(parts.items()):
        points, colour = part["losses"], COLOURS[place % len(COLOURS)]
        last, values = points[-1][0], [loss for _, loss in points]
        low, high = min(values), max(values)
        line = [
            (20 + (width - 40) * step / last, 40 + (height - 60) * (high - loss) / (high - low or 1))
            for step, loss in points
        ]
        pen.line(line, fill=colour, width=2)
        words = f"{name}: {last:,} steps, {high:.3g} to {values[-1]:.3g}"
        pen.text((20 + place % 3 * 290, 4 + place // 3 * 16), words, fill=colour)
    return image


def write_card(judge: Judge) -> None:
    """Measure, draw and write everything."""
    recipe = json.loads(RECIPE.read_text())
    vae = AutoencoderKL.from_pretrained(MODEL / "vae", dtype=torch.float32, use_safetensors=True)
    fresh = asked_scenes(FRESH, "fresh")
    psnr = measure_vae(vae, fresh[:200], torch.device("cpu"))
    on_renders = measure_judge(judge, fresh)
    scenes = asked_scenes(COUNT, "asked")
    pictures = draw_all(scenes)
    right = judge_pictures(judge, scenes, pictures)
    sheet_of(pictures[:SHOWN]).quantize(192).save(CARD.with_name("contact-sheet.png"), optimize=True)
    plot_losses(recipe["parts"]).quantize(32).save(CARD.with_name("losses.png"), optimize=True)
    CARD.write_text(card_text(recipe, psnr, on_renders, right), encoding="utf-8")


def card_text(recipe: dict[str, Any], psnr: float, on_renders: dict[str, float], right: dict[str, float]) -> str:
    """The card, in Markdown."""
    size = sum(path.stat().st_size for folder in (MODEL, JUDGE) for path in folder.rglob("*") if path.is_file())
    rows = [f"| {name} | {on_renders[name]:.1%} | {right[name]:.1%} | {mark:.0%} |" for name, mark in MARKS.items()]
    settings = [
        f"| {name} | {part['steps_done']:,} of {part['steps']:,} | {part['batch']} | {part['rate']:g} | "
        f"{part['steps_done'] * part['batch']:,} | {part['losses'][-1][1]:.4f} |"
        for name, part in recipe["parts"].items()
    ]
    return "\n".join(
        [
            "# Pocket",
            "",
            "A latent diffusion model with Stable Diffusion 1's architecture, small enough to come with the package, trained from",
            "scratch on a world of drawn scenes (`world.py`). It shows how DreamBooth works; its pictures have 64 x 64 pixels.",
            f"All its files together: {size / 1e6:.1f} MB.",
            "",
            f"Measured on {datetime.now(UTC):%Y-%m-%d} with torch {torch.__version__}, diffusers {diffusers.__version__}, "
            f"Python {platform.python_version()}, by `python -m dreambooth_cli.pocket.card`:",
            "",
            f"| what the judge reads | right on {FRESH:,} fresh renders | right on {COUNT} generated pictures | asked for |",
            "|---|---|---|---|",
            *rows,
            "",
            f"The class in gray renders: {on_renders['class in gray']:.1%}. The trim's colour in renders: {on_renders['trim']:.1%}. "
            f"The mask's intersection over union: {on_renders['mask']:.3f}.",
            f"The VAE reproduces renders with a PSNR of {psnr:.1f} dB.",
            f"Generated from prompts such as `{prompt_of(asked_scenes(1, 'asked')[0])}`, with DPM++ 2M, {STEPS} steps, "
            f"guidance scale {GUIDANCE:g}, seeds 0 to {COUNT - 1}.",
            "",
            f"The first {SHOWN} of them, not selected:",
            "",
            "![generated pictures](contact-sheet.png)",
            "",
            "## How it was trained",
            "",
            f"`python -m dreambooth_cli.pocket.build --work FOLDER`, seed {recipe['seed']:,}, {recipe['pictures']:,} pictures, "
            "AdamW under bfloat16 autocast,",
            "its learning rate along a cosine; the average of the weights is kept, in float16.",
            "",
            "| part | steps | rows a step | learning rate | rows in all | last loss |",
            "|---|---|---|---|---|---|",
            *settings,
            "",
            "![losses](losses.png)",
            "",
        ]
    )


if __name__ == "__main__":
    write_card(pocket_judge())
