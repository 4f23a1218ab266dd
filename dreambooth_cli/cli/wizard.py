"""The interview of `init`: the settings' own questions. Nothing is written here: Ctrl-C at any question leaves nothing behind."""

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import questionary  # noqa: TID253 - the wizard itself is imported only to ask
from questionary import Choice  # noqa: TID253

from ..bases.base import ask_for_base
from ..bases.cache import find_cached
from ..bases.catalog import advice_of
from ..errors import DreamboothError, Interrupted, ModelUnavailable, PhotoError, UsageError
from ..gpu import Gpu, describe
from ..identifier import choose_identifier, identifier_remarks, load_tokenizer
from ..memory.survey import recommended, survey
from ..paths import expanded
from ..project import check_new_name, free_name, suggest_name
from ..prompts import PLACEHOLDER, check_class_prompt, class_noun, instance_prompt, plain_class_prompt, proposal
from ..settings import AUTO, PrepSettings, Settings, SubjectSettings, TrainSettings, default_of, parse_value
from .console import messages, say
from .options import Flags
from .views import format_models, format_plan

OTHER = "other"
METHODS = {
    "auto": "choose for me: full wherever it fits",
    "full": "full: all layers, the closest likeness",
    "lora": "LoRA: small added layers, for small GPUs",
}


@dataclass(frozen=True)
class Answers:
    """What a new project is made from: its name, and section -> setting -> value."""

    name: str
    subject: dict[str, Any]
    prep: dict[str, Any]
    train: dict[str, Any]


def interview(name: str | None, flags: Flags, gpu: Gpu | None) -> Answers:
    """Ask for what the flags left open, show the plan, and ask whether to save. Raises Interrupted where the answer is no."""
    try:
        return _interview(name, flags, gpu)
    except (KeyboardInterrupt, EOFError) as stop:
        raise Interrupted("nothing was made") from stop


def _interview(name: str | None, flags: Flags, gpu: Gpu | None) -> Answers:
    subject, prep, train = dict(flags[SubjectSettings]), dict(flags[PrepSettings]), dict(flags[TrainSettings])
    if "photos" not in subject:
        subject["photos"] = ask_photos()
    if "class_prompt" not in subject:
        subject["class_prompt"] = ask_class_prompt()
    subject["class_prompt"] = make_clear(subject["class_prompt"], subject.get("identifier", AUTO))
    if "identifier" not in subject:
        subject["identifier"] = ask_identifier(subject["class_prompt"], folder_of_base(subject.get("model")))
    show_prompts(subject["class_prompt"], subject["identifier"])
    if "model" not in subject:
        subject["model"] = ask_model(gpu)
    subject["identifier"] = suit_identifier(subject)
    if "method" not in train:
        train["method"] = ask_method()
    if "steps" not in train:
        train["steps"] = ask_setting(TrainSettings, "steps", advice_of(subject["model"], "train", train["method"]))
    chosen = name or ask_name(subject["class_prompt"], subject["identifier"])
    show_plan(subject["model"], prep, train, gpu)
    if not questionary.confirm(f"Save the project {chosen}?", default=True).unsafe_ask():
        raise Interrupted("nothing was made")
    return Answers(chosen, subject, prep, train)


def question_of(owner: type[Settings], name: str) -> str:
    """The question that a setting declares."""
    return next(str(item.metadata["ask"]) for item in fields(owner) if item.name == name)


def is_valid(check: Callable[[str], Any]) -> Callable[[str], bool | str]:
    """A check that raises DreamboothError, as questionary wants it: True, or the words to show under the question."""

    def validate(text: str) -> bool | str:
        try:
            check(text.strip())
        except DreamboothError as error:
            return f"{error.message}: {error.hint}" if error.hint else error.message
        return True

    return validate


def ask_text(question: str, check: Callable[[str], Any], default: str = "") -> str:
    """A line of text; asked again, with the reason, until it passes."""
    asked = questionary.text(question, default=default, validate=is_valid(check), validate_while_typing=False)
    return str(asked.unsafe_ask()).strip()


def ask_setting(owner: type[Settings], name: str, advised: Mapping[str, Any]) -> Any:
    """A setting's own question, what the base advises or else its default filled in."""

    def parse(text: str) -> Any:
        value = parse_value(owner, name, text)
        owner(**{name: value})
        return value

    return parse(ask_text(question_of(owner, name), parse, str(advised.get(name, default_of(owner, name)))))


def ask_photos() -> Path:
    """The photo folder, with path completion (Tab)."""
    question = questionary.path(
        question_of(SubjectSettings, "photos"),
        only_directories=True,
        validate=is_valid(lambda text: check_photos(read_path(text))),
        validate_while_typing=False,
        complete_while_typing=False,
    )
    folder = read_path(str(question.unsafe_ask()))
    say(messages(), f"  {check_photos(folder)} photos in {folder}")
    return folder


def check_photos(folder: Path) -> int:
    """How many pictures a folder has. Raises PhotoError where it has none."""
    from ..photos.files import count_photos

    count = count_photos(folder)
    if not count:
        raise PhotoError(f"there are no photos in {folder}", "name the folder that holds them")
    return count


def read_path(text: str) -> Path:
    """A path as it was typed or dragged into the terminal: with quotes, escaped spaces or as a file:// address."""
    text = text.strip()
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    elif not os.path.exists(expanded(text)):
        text = _unquoted(text)
    return expanded(text).absolute()


def _unquoted(text: str) -> str:
    if os.name == "nt":
        return text.strip("\"'")
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    # more words than one: spaces that nobody escaped
    return words[0] if len(words) == 1 else text


def ask_class_prompt() -> str:
    """What the subject is."""
    return ask_text(question_of(SubjectSettings, "class_prompt"), lambda text: SubjectSettings(class_prompt=text))


def ask_identifier(class_prompt: str, base_folder: Path | None) -> str:
    """The rare word, a good one filled in."""
    suggested, note = choose_identifier(load_tokenizer(base_folder))
    if note:
        say(messages(), f"  {note}")

    def check(text: str) -> None:
        SubjectSettings(class_prompt=class_prompt, identifier=text)
        check_class_prompt(class_prompt, text)

    return ask_text(
        question_of(SubjectSettings, "identifier"),
        check,
        suggested,
    )


def make_clear(class_prompt: str, identifier: str, *, with_class_images: bool = True) -> str:
    """The class prompt, or what is answered where it is not certain what its subject is: asked again until it is."""

    def check(text: str) -> None:
        check_class_prompt(text, identifier, with_class_images=with_class_images)

    try:
        check(class_prompt)
    except UsageError as doubt:
        say(messages(), f"  {doubt.message}", "yellow")
        question = f"What shall your photos be called? ({PLACEHOLDER} is where the rare word goes)"
        return ask_text(question, check, proposal(class_prompt))
    return class_prompt


def folder_of_base(model: str | None) -> Path | None:
    """The folder of a base that is on disk."""
    if model is None:
        return None
    request = ask_for_base(model)
    return request.path or find_cached(request)


def show_prompts(class_prompt: str, identifier: str) -> None:
    """The two prompts that training will use."""
    word = choose_identifier(None)[0] if identifier == AUTO else identifier
    say(messages(), f'  your photos will be called "{instance_prompt(class_prompt, word)}"')
    say(messages(), f'  and all others of their kind "{plain_class_prompt(class_prompt, word)}"')


def suit_identifier(subject: dict[str, Any]) -> str:
    """The identifier, with what speaks against it on this base; the one that was suggested gives way to another where it does not suit."""
    from ..workflows.plan import known_facts

    identifier = str(subject["identifier"])
    facts = known_facts(ask_for_base(subject["model"]))
    by_rarity, tokenizer = facts is None or facts.family.rare_words, load_tokenizer(folder_of_base(subject["model"]))
    if not by_rarity and identifier == choose_identifier(None)[0]:
        other, _ = choose_identifier(tokenizer, by_rarity=False)
        say(messages(), f"  this base reads by a language model, to which no word is rare: {other} in place of {identifier}")
        return other
    for remark in identifier_remarks(identifier, tokenizer, by_rarity=by_rarity) if identifier != AUTO else ():
        say(messages(), f"  {remark}", "yellow")
    return identifier


def ask_model(gpu: Gpu | None) -> str:
    """The base model: the table with its verdicts, then the choice, the recommended one first under the cursor."""
    rows = survey(gpu)
    say(messages(), f"\nGPU: {describe(gpu)}\n")
    messages().print(format_models(rows))
    say(messages(), "")
    best = recommended(rows).entry.name
    choices = [
        Choice(f"{row.entry.title}: {row.verdict}{' (recommended)' * (row.entry.name == best)}", row.entry.name)
        for row in rows
    ]
    choices.append(Choice("another: a path, or a hub repository", OTHER))
    chosen = str(questionary.select(question_of(SubjectSettings, "model"), choices=choices, default=best).unsafe_ask())
    if chosen != OTHER:
        return chosen
    text = ask_text("Which one?", lambda text: ask_for_base(text) if text else ask_for_base("?"))
    return str(read_path(text)) if read_path(text).exists() else text


def ask_method() -> str:
    """Full or LoRA."""
    choices = [Choice(words, method) for method, words in METHODS.items()]
    return str(questionary.select(question_of(TrainSettings, "method"), choices=choices, default=AUTO).unsafe_ask())


def ask_name(class_prompt: str, identifier: str) -> str:
    """The project's name, a free one filled in."""
    suggested = free_name(suggest_name(class_noun(class_prompt, identifier)))
    return ask_text("What shall the project be called?", check_new_name, suggested)


def show_plan(model: str, prep: dict[str, Any], train: dict[str, Any], gpu: Gpu | None) -> None:
    """A last look at what a run would do and take, as far as it is known."""
    from ..workflows.plan import plan_run

    console = messages()
    try:
        settings = TrainSettings(**{**advice_of(model, "train", train.get("method", AUTO)), **train})
        plan = plan_run(model, PrepSettings(**prep), settings, gpu=gpu)
    except ModelUnavailable as error:
        say(console, f"\n{error.message}; the plan is made when it is there\n")
        return
    say(console, f"\n{format_plan(plan.to_json())}\n")
