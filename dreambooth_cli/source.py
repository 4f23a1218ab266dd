"""What one call of `generate` draws with, and what it draws: a project's run, a step of it, or a model on disk; its card, and the prompts.
All this is found out before torch is loaded, so that anything impossible is refused at once."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .bases.catalog import find_entry
from .bases.metadata import read_header
from .disk import check_folder, read_text, system_errors
from .errors import ModelUnavailable, ProjectError, UsageError
from .events import Noted, Yielding
from .families.family import Family
from .families.known import FAMILIES
from .model_card import Card, card_of_run, read_card, read_card_of_file
from .project import Project
from .prompts import PLACEHOLDER, check_identifier, check_placeholder, fill, prompt_remarks, understood
from .run import CARD, LORA_FILE, Run
from .settings import GenerateSettings, check_text

DRAWN = Path("generated")  # where pictures go if there is no project
ANOTHER_FOLDER = "name another folder: --output-dir ./pictures"
MOST_BYTES = 10_000_000  # of a file of prompts


@dataclass(frozen=True)
class Source:
    """What to draw with: a model's folder or LoRA file, or a run's folder and its step (None: its finished model). `base` of a LoRA and
    `identifier`: as the user named them; if None, they come from the model's card."""

    path: Path
    base: str | None = None
    identifier: str | None = None
    step: int | None = None

    @property
    def run(self) -> Run | None:
        """The run to draw with, or None if it is a model without a run."""
        return Run(self.path) if is_run(self.path) else None


def find_source(where: Project | Path, run: int | None, step: int | None = None) -> tuple[Path, Mapping[str, Any], Path]:
    """What to draw with: the path of a project's run (None: its newest finished one, or the newest that has the step), or a given path;
    then the settings in project.toml, and where the pictures go. Raises UsageError, ProjectError."""
    if isinstance(where, Project):
        found = where.finished_run(run) if step is None else where.run_with_step(run, step)
        return found.path, where.settings()["generate"], where.images
    if run is not None:
        raise UsageError("--run is for a project", "name the project, or leave --run out")
    if step is not None:
        if not is_run(where):
            raise UsageError("--step is for a run", "name the project and the run: dreambooth generate my-dog --run 1 --step 500")
        check_step(Run(where), step)
    return where, {}, DRAWN


def check_step(run: Run, step: int) -> None:
    """Raises ProjectError if a run does not have the weights of a step."""
    if step not in (has := run.steps()):
        told = ", ".join(map(str, has)) or "none"
        raise ProjectError(f"run {run.number} has no weights of step {step}", f"the steps that were kept: {told}")


def check_source(source: Source, prompts: Sequence[str], settings: GenerateSettings, output_dir: Path) -> None:
    """Refuse what can be refused without torch: no model there, a prompt that can't be filled in, a folder that can't be written.
    Raises UsageError, ModelUnavailable, ProjectError."""
    card = card_for(source)
    if card is not None or source.identifier is not None:
        for text in (*prompts, settings.negative_prompt):
            with_identifier(text, word_of(card, source))
    check_folder(output_dir, ANOTHER_FOLDER)


def read_prompts(file: Path) -> list[str]:
    """The prompts in a text file, one per line; empty lines and those beginning with # are skipped. Raises UsageError."""
    try:
        if file.is_file() and file.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES // 10**6} MB")
        lines = [line.strip() for line in read_text(file).splitlines()]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"--prompts: {file} can't be read: {why}", "name a text file with one prompt per line") from error
    if not (found := [line for line in lines if line and not line.startswith("#")]):
        raise UsageError(f"--prompts: there is no prompt in {file}", "write one per line")
    return found


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a run."""
    return Run(path).plan.is_file()


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a whole model and not a LoRA."""
    return (folder / "model_index.json").is_file() or is_whole_file(folder)


def is_whole_file(path: Path) -> bool:
    """Whether a file is a whole model in the layout of the original checkpoints, or a family's denoiser alone."""
    if not path.is_file() or path.suffix.lower() not in (".safetensors", ".sft"):
        return False
    starts = tuple(layout.starts[family.denoiser] for family in FAMILIES if (layout := family.single_file) is not None)
    starts += tuple(alone.mark for family in FAMILIES if (alone := family.denoiser_file) is not None)
    with suppress(ModelUnavailable):  # what it is instead is reported where it is read
        return any(name.startswith(starts) for name in read_header(path))
    return False


def denoiser_family(path: Path) -> Family | None:
    """The family of which a file is the denoiser alone, or None. Raises ModelUnavailable where it can't be read."""
    names = read_header(path) if path.is_file() and path.suffix.lower() in (".safetensors", ".sft") else {}
    marks = {alone.mark: family for family in FAMILIES if (alone := family.denoiser_file) is not None}
    return next((family for mark, family in marks.items() if any(name.startswith(mark) for name in names)), None)


def model_folder(path: Path) -> Path:
    """The model that a path means: one of our run folders, a model's folder or a LoRA file. Raises ModelUnavailable."""
    if path.name in ("model_index.json", CARD) and path.is_file():
        return path.parent
    if Project(path).config.is_file():
        raise ModelUnavailable(f"{path} is a project's folder", f'name the project: dreambooth generate {path.name} "a {PLACEHOLDER} dog"')
    if is_run(path):
        if not (path / "model").is_dir():
            raise ModelUnavailable(f"the run {path} has no finished model", "run its train command again to finish it")
        return path / "model"
    if not path.exists():
        raise ModelUnavailable(f"there is no model at {path}", _where_models_are(path))
    return path


def _where_models_are(path: Path) -> str:
    """What to do if there is no model at a path: a base on the hub, or an address, may be meant."""
    words = str(path)
    if (address := re.match(r"file:/+(?:localhost/+)?(.+)", words)) is not None:
        return f"give the path itself: --model-path '/{unquote(address[1])}'"
    if words.startswith(("https:/", "http:/", "hf:/")):
        return "models are not fetched from addresses here: download it, then name the file or folder"
    if find_entry(words):
        return f"{words} is a base: fetch it with `dreambooth models pull {words}`, then name the folder that is printed"
    return "name a model's folder: --model-path ./output, or a project"


def card_of(model: Path) -> Card | None:
    """The card in a model's folder, or beside a LoRA file that still has our file name, or in an exported file's header."""
    if model.is_dir():
        return read_card(model)
    return read_card(model.parent) if model.name == LORA_FILE else read_card_of_file(model)


def card_for(source: Source) -> Card | None:
    """The card of what to draw with; for a run's step, the card it would have. Raises ModelUnavailable, ProjectError."""
    if source.step is not None:
        return card_of_run(Run(source.path).record())
    with system_errors(ModelUnavailable, f"the model {source.path} can't be read", source.path):
        return card_of(model_folder(source.path))


def word_of(card: Card | None, source: Source) -> str | None:
    """The subject's word: as the user named it, or as the card does."""
    return source.identifier or (card.identifier if card else None)


def fill_prompt(prompt: str, card: Card | None, identifier: str | None) -> Yielding[str]:
    """The prompt with its identifier, and a note for anything that seems forgotten. Raises UsageError if the identifier is unknown."""
    check_text("the prompt", prompt)
    check_text("--identifier", identifier or "")
    check_identifier(identifier or "")
    word = identifier or (card.identifier if card else None)
    text = with_identifier(prompt, word)
    if word is not None:
        for remark in prompt_remarks(prompt, word, card.class_prompt if card else ""):
            yield Noted(message=remark)
    return text


def fill_negative(prompt: str, card: Card | None, identifier: str | None) -> str:
    """The negative prompt with its identifier. Raises UsageError if the identifier is unknown."""
    return with_identifier(prompt, identifier or (card.identifier if card else None))


def with_identifier(prompt: str, word: str | None) -> str:
    """A prompt as the model reads it. Raises UsageError for a misspelled placeholder, or if the identifier is unknown."""
    check_text("the prompt", prompt)
    check_placeholder(prompt)
    text = understood(prompt)
    if word is None and PLACEHOLDER in text:
        raise UsageError(
            f"the model has no dreambooth.json, so {PLACEHOLDER} stands for nothing", "give the word: --identifier sks"
        )
    return text if word is None else fill(text, word)
