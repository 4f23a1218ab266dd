"""The defaults of the settings on the base model in question, in words, for the help."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import Field
from typing import Any

from ..bases.catalog import find_entry, guidance_of
from ..config import ask, merge
from ..errors import DreamboothError
from ..families.family import Rates
from ..project import choose_project
from ..settings import AUTO, GenerateSettings, PrepSettings, Settings, SubjectSettings, TrainSettings, default_of
from ..text import plain_number

# a setting's name -> the stage it belongs to and its declaration
Declared = Mapping[str, tuple[type[Settings], Field[Any]]]
Stored = Mapping[str, Mapping[str, Any]]  # what project.toml says: section -> key -> value


def defaults_here(declared: Declared, typed: Mapping[str, Any]) -> tuple[Mapping[str, str], str]:
    """The defaults that differ from those declared, and a line that says whose they are; nothing if that can't be found out.

    The base is the one that was typed, else that of the project that was typed or is the only one, else the usual one.
    """
    if not any(owner in (TrainSettings, GenerateSettings) for owner, _ in declared.values()):
        return {}, ""
    name, stored = stored_of(typed)
    model = str(typed.get("model") or stored.get("subject", {}).get("model") or default_of(SubjectSettings, "model"))
    whose = f"Defaults shown are for the project {name}, on {model}." if name else f"Defaults shown are for the base model {model}."
    with suppress(DreamboothError):
        return {key: words for key, (owner, _) in declared.items() if (words := default_on(model, stored, owner, key))}, whose
    return {}, ""


def stored_of(typed: Mapping[str, Any]) -> tuple[str, Stored]:
    """The name of the project that was typed, or of the only one, and what its file says; nothing if there is none."""
    if typed.get("photos") is None and typed.get("model_path") is None and "project" in typed:
        with suppress(DreamboothError, OSError):
            project = choose_project(typed["project"])
            return project.name, project.settings()
    return "", {}


def default_on(model: str, stored: Stored, owner: type[Settings], name: str) -> str:
    """The default of a setting on a base, in words; "" if it is as declared. Raises UsageError."""
    entry = find_entry(model)
    if owner is GenerateSettings:
        value = getattr(merge(GenerateSettings, stored.get("generate", {}), {}).values, name)
        if name == "guidance_scale" and value == AUTO and entry:
            return in_words(guidance_of(model, entry.facts.family))
        return in_words(value) if value != default_of(owner, name) else ""
    here, lora = value_on(model, stored, owner, name), value_on(model, stored, owner, name, method="lora")
    if name == "resolution" and here == AUTO and entry:
        return str(entry.facts.resolution)
    if name == "learning_rate" and here == AUTO and entry:
        return rates_in_words(entry.facts.family.rates)
    if here == lora or name == "method":
        return in_words(here) if here != default_of(owner, name) else ""
    return f"{in_words(here)}; for LoRA {in_words(lora)}"


def value_on(model: str, stored: Stored, owner: type[Settings], name: str, **train: Any) -> Any:
    """The value of a setting on a base if nothing else is asked for. Raises UsageError."""
    asked = ask(stored, {SubjectSettings: {"model": model}, TrainSettings: train})
    values: Mapping[type[Settings], Settings] = {SubjectSettings: asked.subject, PrepSettings: asked.prep, TrainSettings: asked.train}
    return getattr(values[owner], name)


def rates_in_words(rates: Rates) -> str:
    """`2e-6 with the text encoder, else 5e-6; for LoRA 1e-4`."""
    full, text, lora = map(in_words, (rates.full, rates.full_with_text, rates.lora))
    return f"{text} with the text encoder, else {full}; for LoRA {lora}" if rates.trains_text else f"{full}; for LoRA {lora}"


def in_words(value: Any) -> str:
    """A default as the help shows it; "" if there is none."""
    match value:
        case None | "":
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return plain_number(value)
    return str(value)
