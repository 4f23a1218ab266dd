"""What a model's folder says to people: README.md, as the hub shows it, the base's licence and a notice. None names a path, a user or a
machine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .bases.base import Base
from .bases.catalog import CatalogEntry
from .families.family import Family
from .licence import LIKENESS, entry_of, notice_of, text_of
from .model_card import Card, write_card
from .run import LORA_FILE

HUB_LICENCES = {"CreativeML OpenRAIL-M": "creativeml-openrail-m", "OpenRAIL++": "openrail++", "Apache-2.0": "apache-2.0"}
TOLD = ("method", "resolution", "precision", "optimizer", "learning_rate", "text_encoder_learning_rate", "train_text_encoder", "batch_size")


@dataclass(frozen=True)
class Shown:
    """What a run has to show for its model: pictures by their names in the model's folder, each with its prompt; a verdict in sentences."""

    pictures: Mapping[str, str] = field(default_factory=dict)
    verdict: tuple[str, ...] = ()


def write_words(base: Base, card: Card | None, folder: Path, shown: Shown, *, of_lora: bool) -> None:
    """Write the base's licence and the notice into a model's folder, and with a card README.md and `dreambooth.json`. Raises OSError."""
    entry = entry_of(base, card)
    texts = {"NOTICE": notice_of(base, card), "LICENSE": text_of(entry)}
    if card is not None:
        texts["README.md"] = readme_of(card, entry, base.facts.family, shown, of_lora=of_lora)
        write_card(card, folder)
    for name, text in texts.items():
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")


def readme_of(card: Card, entry: CatalogEntry | None, family: Family, shown: Shown, *, of_lora: bool) -> str:
    """A model's README.md, with the fields that the hub reads at its top."""
    base = entry.title if entry else card.base.name
    repository = card.base.repository or (entry.repository if entry else None)
    head: dict[str, Any] = {
        "license": HUB_LICENCES.get(entry.licence, "other") if entry else "other",
        "base_model": repository,
        "instance_prompt": card.instance_prompt,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "dreambooth", *(["lora"] if of_lora else [])],
    }
    if shown.pictures:
        head["widget"] = [{"text": prompt, "output": {"url": name}} for name, prompt in shown.pictures.items()]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items() if value is not None]
    parts = [_about(card, base, repository, entry, of_lora), _shown(shown), _use(card, repository, family, of_lora), _training(card)]
    return "\n".join(["---", *lines, "---", "", *(line for part in parts for line in part), ""])


def _about(card: Card, base: str, repository: str | None, entry: CatalogEntry | None, of_lora: bool) -> list[str]:
    link = f"[{base}](https://huggingface.co/{repository})" if repository else f"`{base}`"
    what = f"A LoRA for {link}, trained" if of_lora else f"{link}, fine-tuned"
    licence = f"The licence of {base} is not known here: find it before you pass this model on."
    if entry is not None and text_of(entry) is not None:
        applies = ", and its restrictions on use apply" if "RAIL" in entry.licence else ", applies"
        licence = f"The licence of {base}, {entry.licence} ([LICENSE](LICENSE)){applies} to this model too."
    return [
        f"# {card.instance_prompt}",
        "",
        f"{what} on a few photos of one subject with DreamBooth (Ruiz et al. 2022). In prompts, `{card.identifier}` stands for",
        f"the subject: write `{card.instance_prompt}`, and then whatever else the picture should show.",
        "",
        f"{licence} [NOTICE](NOTICE) says what was changed.",
        "",
        LIKENESS,
        "",
    ]


def _shown(shown: Shown) -> list[str]:
    rows = [f"| ![]({name}) | {_in_cell(prompt)} |" for name, prompt in shown.pictures.items()]
    samples = ["## Samples", "", "| drawn after training | prompt |", "| --- | --- |", *rows, ""] if rows else []
    return [*samples, *(["## What it has learned", "", *shown.verdict, ""] if shown.verdict else [])]


def _in_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _use(card: Card, repository: str | None, family: Family, of_lora: bool) -> list[str]:
    return [
        "## Use it",
        "",
        "With diffusers:",
        "",
        "```python",
        *_code(card, repository, family.pipeline, of_lora),
        "```",
        "",
        *_elsewhere(family, of_lora),
        "",
    ]


def _elsewhere(family: Family, of_lora: bool) -> list[str]:
    """How other programs get to read it."""
    command = "`dreambooth export --model-path THIS-FOLDER --to"
    if family.single_file is None and of_lora:
        return [f"ComfyUI reads `{LORA_FILE}` as it is: put it in `models/loras`."]
    if family.single_file is None:
        written = f"writes the {family.denoiser_title} in one file, for ComfyUI's `models/diffusion_models`."
        return [f"{command} single-file -o my-model`", written] if family.denoiser_file else []
    return [
        f"ComfyUI and A1111 read single files: {command} {'kohya' if of_lora else 'single-file'} -o my-model`",
        f"writes one, for `{'models/loras' if of_lora else 'models/checkpoints'}` (A1111:",
        f"`{'models/Lora' if of_lora else 'models/Stable-diffusion'}`).",
    ]


def _training(card: Card) -> list[str]:
    return [
        "## How it was trained",
        "",
        "| setting | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in _settings(card).items()),
        "",
    ]


def _code(card: Card, repository: str | None, pipeline: str, of_lora: bool) -> list[str]:
    prompt = f"{card.instance_prompt} on the moon"
    opened = json.dumps(repository or "the-base") if of_lora else '"this-folder"'
    return [
        f"from diffusers import {pipeline}",
        "",
        f"pipe = {pipeline}.from_pretrained({opened})",
        *(['pipe.load_lora_weights("this-folder")'] if of_lora else []),
        f"pipe({json.dumps(prompt, ensure_ascii=False)}).images[0].save({json.dumps('picture.png')})",
    ]


def _settings(card: Card) -> Mapping[str, Any]:
    """What shaped the weights, and nothing of where it was done."""
    told = {key.replace("_", " "): card.plan[key] for key in TOLD if card.plan.get(key) is not None}
    told |= {"steps": card.steps, "class prompt": card.class_prompt, "photos": len(card.photos) or None}
    return {name: value for name, value in told.items() if value is not None}
