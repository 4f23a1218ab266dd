"""The interview of `init`, with the settings' own questions. Nothing is written here: Ctrl-C at any question leaves nothing behind."""

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from prompt_toolkit.application import get_app  # noqa: TID253 - the wizard itself is imported only to ask
from prompt_toolkit.completion import PathCompleter  # noqa: TID253 - the wizard itself is imported only to ask
from prompt_toolkit.styles import Style  # noqa: TID253 - the wizard itself is imported only to ask

from ..bases.base import ask_for_base
from ..bases.cache import find_cached
from ..bases.catalog import BaseFacts, advice_of, find_entry
from ..errors import DreamboothError, Interrupted, ModelUnavailable, PhotoError, UsageError
from ..gpu import Gpu, describe
from ..identifier import FALLBACK, candidates, clip_tokenizer, identifier_remarks, load_tokenizer
from ..memory.duration import predict, time_line, words_of_time
from ..memory.plan import Plan
from ..memory.search import check_trainable
from ..memory.survey import NO_GPU, Row, recommended, survey
from ..oddity import frame_of
from ..paths import expanded, projects_folder
from ..phrase import agree, read_phrase
from ..project import check_new_name, free_name, suggest_name
from ..prompts import (
    PLACEHOLDER,
    check_class_prompt,
    class_noun,
    instance_prompt,
    oddity_of,
    plain_class_prompt,
    proposal,
)
from ..settings import AUTO, PrepSettings, Settings, SubjectSettings, TrainSettings, default_of, flag_of, parse_value
from ..text import shortened
from .asking import BACK, Back, Doubt, ask_line, choose, of_the_answer, say_why
from .console import between_words, messages, say
from .options import Flags
from .views import format_bytes, format_models, format_plan

DEMO, OTHER = "demo", "other"
METHODS = {
    "auto": "choose for me: full if it fits",
    "full": "full: all layers, the closest likeness",
    "lora": "LoRA: small added layers, for small GPUs",
}
MANY = 50  # pictures in a folder: more than anybody takes of one subject
LISTED = 20  # folders to choose from, at most
FEW = 10  # a number of steps is odd if it is this many times smaller or larger than advised
QUIET = Style([("bottom-toolbar", "noreverse"), ("bottom-toolbar.text", "fg:ansiyellow")])
NAME_WHY = "You will type this name from now on: dreambooth train NAME. Most people take the noun."
INTRODUCTION = "Enter takes what is filled in, typing replaces it. Esc (or <) goes back, Ctrl-C quits; nothing is saved before the end."
Told = dict[str, Any]  # the answers so far and what flags said, by the setting's name, and `name` and `only`


@dataclass(frozen=True)
class Answers:
    """What a new project is made from: its name and the settings of each section; `only`: the names of the photos to take, None for all."""

    name: str
    subject: dict[str, Any]
    prep: dict[str, Any]
    train: dict[str, Any]
    only: frozenset[str] | None = None


@dataclass(frozen=True)
class Question:
    """One question: the setting that it fills, why it is asked and what most people answer, and the function that asks it."""

    key: str
    why: str
    ask: Callable[[Told, Gpu | None], Any]


def interview(name: str | None, flags: Flags, gpu: Gpu | None) -> Answers | None:
    """Ask for what the flags left open, show the plan, and ask whether to save. Returns None if the user wants the demo first. Raises
    Interrupted if the answer is no."""
    told: Told = {**flags[SubjectSettings], **flags[PrepSettings], **flags[TrainSettings], **({"name": name} if name else {})}
    try:
        return _interview(told, gpu)
    except (KeyboardInterrupt, EOFError) as stop:
        raise Interrupted("nothing was made") from stop


def _interview(told: Told, gpu: Gpu | None) -> Answers | None:
    asked = [one for one in QUESTIONS if one.key not in told or (one.key == "class_prompt" and is_unclear(told))]
    say(messages(), INTRODUCTION)
    if "model" in told:
        show_limits(told["model"])
    place = 0
    while True:
        try:
            if place == len(asked):
                settle(told, gpu)
                return answers_of(told)
            one = asked[place]
            say(messages(), f"\n{place + 1} of {len(asked)}. {one.why}")
            told[one.key] = one.ask(told, gpu)
            if told.get("model") == DEMO:
                return None
            place += 1
        except Back:
            place = max(0, place - 1)


def answers_of(told: Told) -> Answers:
    """The answers by section."""

    def section(owner: type[Settings]) -> dict[str, Any]:
        return {item.name: told[item.name] for item in fields(owner) if item.name in told}

    return Answers(told["name"], section(SubjectSettings), section(PrepSettings), section(TrainSettings), told.get("only"))


def question_of(owner: type[Settings], name: str) -> tuple[str, str]:
    """The question that a setting declares, and why it is asked."""
    return next((str(item.metadata["ask"]), str(item.metadata["why"])) for item in fields(owner) if item.name == name)


# the base model


def ask_model(told: Told, gpu: Gpu | None) -> str:
    """Ask for the base model: show the table with its verdicts, then the choice, with the cursor on the recommended one, or on the demo if
    there is no GPU."""
    rows = survey(gpu)
    say(messages(), f"\nGPU: {describe(gpu)}\n")
    messages().print(format_models(rows))
    say(messages(), "")
    best = recommended(rows).entry.name
    choices = [(row.entry.name, f"{row.entry.title}: {verdict_of(row, gpu)}") for row in rows]
    if gpu is None:
        say(messages(), NO_GPU)
        choices = [(DEMO, "the demo first: a built-in example on Pocket, in a few minutes"), *choices]
        best = DEMO
    choices.append((OTHER, "another: a path or a hub repository"))
    chosen = str(choose("Which base model?", choices, told.get("model") if told.get("model") in dict(choices) else best))
    if chosen == OTHER:
        text = ask_line("Which one?", lambda text: judge_model(text, allow_distilled=told.get("allow_distilled", False)))
        chosen = str(read_path(text)) if read_path(text).exists() else text
    show_limits(chosen)
    return chosen


def verdict_of(row: Row, gpu: Gpu | None) -> str:
    """A row's verdict, with the predicted time of a run where anything is known about it."""
    if row.entry.folder is not None:
        return "minutes, but only for its drawn world"
    if not row.plan.fits:
        return row.verdict
    found = predict(row.plan, row.entry.facts, TrainSettings(), gpu)
    time = f"{words_of_time(found.seconds)} (predicted)" if found else ""
    return time if gpu is None else ", ".join(filter(None, [row.verdict, time]))


def judge_model(text: str, *, allow_distilled: bool = False) -> None:
    """Accept what may be a base model that can be trained. Raises ModelUnavailable."""
    from ..workflows.plan import known_facts

    facts = known_facts(ask_for_base(text or "?"))
    if facts is not None:
        check_trainable(facts, TrainSettings(allow_distilled=allow_distilled))


def show_limits(model: str) -> None:
    """Say right away what a base that knows little can't do."""
    entry = find_entry(model)
    if entry is not None and entry.limits:
        say_why(f"{entry.limits}.")


def folder_of_base(model: str | None) -> Path | None:
    """The folder of a base model, None if it is not on disk yet."""
    if model is None:
        return None
    request = ask_for_base(model)
    return request.path or find_cached(request)


# the photos


def ask_photos(told: Told, gpu: Gpu | None) -> Path:
    """Ask for the photo folder, with path completion (Tab). For dragged files: their folder, and their names in `only`."""
    told.pop("only", None)
    earlier = str(told.get("photos", ""))
    completer = PathCompleter(only_directories=True, expanduser=True)
    question = question_of(SubjectSettings, "photos")[0]
    while True:
        text = ask_line(question, judge_photos, earlier, completer=completer, complete_while_typing=False)
        paths = read_paths(text)
        folder = paths[0] if paths[0].is_dir() else paths[0].parent
        only = frozenset(path.name for path in paths if path != folder)
        try:
            if not only and not pictures_in(folder):
                folder = choose(f"There are no photos in {folder.name} itself. Which folder?", folders_with_photos(folder))
            elif only:
                only = choose_which(folder, only)
        except Back:
            earlier = text
            continue
        count = len(only) or check_photos(folder)
        say(messages(), f"  {count} photo{'s' * (count != 1)} in {folder}")
        if only:
            told["only"] = only
        return folder


def choose_which(folder: Path, only: frozenset[str]) -> frozenset[str]:
    """Ask whether only the dragged photos are meant or all in their folder. Returns the names, none for all. Raises Back."""
    every = check_photos(folder)
    if every <= len(only):
        return frozenset()
    alone = "this one photo" if len(only) == 1 else f"these {len(only)} photos"
    picked: frozenset[str] = choose(f"{folder.name} holds {every} photos.", [(only, f"only {alone}"), (frozenset(), "all of them")])
    return picked


def judge_photos(text: str) -> Doubt | None:
    """Accept a folder with photos, a folder of such folders, or several photos of one folder. Raises PhotoError for anything else."""
    from ..photos.files import is_likely_photo

    paths = read_paths(text)
    if len(paths) == 1 and not paths[0].is_file():
        folder = paths[0]
        if (count := pictures_in(folder)) > MANY:
            return Doubt(f"{folder} holds {count:,} pictures, but 3 to 5 of one subject are enough.")
        if not count and not folders_with_photos(folder):
            raise PhotoError(f"there are no photos in {folder} or in the folders inside it", "name the folder that holds them")
        if count:
            check_photos(folder)
        return None
    if len({path.parent for path in paths}) > 1:
        raise PhotoError("these photos are in several folders", "put them into one folder, or name one of the folders")
    for path in paths:
        if not is_likely_photo(path):
            raise PhotoError(f"{path.name} is not a photo", "drag photos, or their folder")
    return None


def check_photos(folder: Path) -> int:
    """How many photos a folder has. Raises PhotoError if it has none."""
    from ..photos.files import count_photos

    count = count_photos(folder)
    if not count:
        raise PhotoError(f"there are no photos in {folder}", "name the folder that holds them")
    return count


def pictures_in(folder: Path) -> int:
    """How many files in a folder are pictures, judging by their first bytes."""
    from ..photos.files import count_likely

    return count_likely(folder)


def folders_with_photos(folder: Path) -> list[tuple[Path, str]]:
    """The first few folders with photos, one level down or else two, each with its words in the list."""
    for pattern in ("*/", "*/*/"):
        inner = sorted(each for each in islice(folder.glob(pattern), 500) if not each.name.startswith("."))
        found = [(each, pictures_in(each)) for each in inner]
        listed = [(each, f"{each.relative_to(folder)}: {count} photo{'s' * (count != 1)}") for each, count in found if count]
        if listed:
            return listed[:LISTED]
    return []


def read_paths(text: str) -> list[Path]:
    """The paths in an answer: one, or several that were dragged together."""
    whole = read_path(text)
    if whole.exists():
        return [whole]
    if text.strip().startswith("file://"):  # addresses have no spaces, and quotes mean nothing in them
        several = [read_path(word) for word in text.split()]
        return several if all(path.exists() for path in several) else [whole]
    try:
        words = [word.strip("\"'") for word in shlex.split(text, posix=False)] if os.name == "nt" else shlex.split(text)
    except ValueError:
        return [whole]
    several = [read_path(word) for word in words]
    return several if len(several) > 1 and all(path.exists() for path in several) else [whole]


def read_path(text: str) -> Path:
    """A path from what was typed or dragged into the terminal: quoted, with escaped spaces, or a file:// address."""
    text = text.strip()
    if not text.startswith("file://") and not os.path.exists(expanded(text)):
        text = _unquoted(text)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
        text = text.lstrip("/") if re.match("/[A-Za-z]:", text) else text  # file:///C:/Users
    return expanded(text).absolute()


def _unquoted(text: str) -> str:
    if os.name == "nt":
        return text.strip("\"'")
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    # several words: spaces that nobody escaped
    return words[0] if len(words) == 1 else text


# what the subject is


def ask_class_prompt(told: Told, gpu: Gpu | None) -> str:
    """Ask what the subject is and read it back as noun and frame; query it if it is odd."""
    earlier, identifier = told.get("class_prompt", ""), told.get("identifier", AUTO)
    entry = find_entry(told["model"])

    def judge(text: str) -> Doubt | None:
        return judge_class_prompt(bare(text), identifier, entry.knows if entry else ())

    text = ask_line(question_of(SubjectSettings, "class_prompt")[0], judge, earlier, judge(earlier) if earlier else None)
    show_reading(bare(text))
    return bare(text)


def bare(text: str) -> str:
    """An answer without quotes around it."""
    return text.strip().strip("\"“”").strip()


def judge_class_prompt(text: str, identifier: str, knows: tuple[str, ...] = (), *, with_class_images: bool = True) -> Doubt | None:
    """What is odd about a class prompt, with what may be meant instead. Raises UsageError for an empty one."""
    SubjectSettings(class_prompt=text)
    odd, refusal = oddity_of(text, identifier), ""
    try:
        check_class_prompt(text, identifier, with_class_images=with_class_images)
    except UsageError as error:
        refusal = error.message
    guess = proposal(text) if refusal and not read_phrase(text).is_foreign else ""
    if odd is not None:
        return Doubt(f'"{shortened(text)}" {odd.words}.', odd.offer or guess, firm=bool(refusal))
    if refusal:
        way = f"{PLACEHOLDER} marks where the rare word goes." if guess else "Most base models know only English."
        return Doubt(f"{refusal}. {way}", guess, firm=True)
    noun = class_noun(text, identifier)
    if knows and noun.split()[-1:] and noun.split()[-1].casefold() not in knows:
        return Doubt(f"This base has never seen {agree('a', noun)} {noun}: it knows only {', '.join(knows[:-1])} and {knows[-1]}.")
    return None


def is_unclear(told: Told) -> bool:
    """Whether the class prompt of a flag has to be asked about."""
    return judge_class_prompt(told["class_prompt"], told.get("identifier", AUTO)) is not None


def show_reading(class_prompt: str) -> None:
    """Read a class prompt back: its noun, and the frame around it."""
    noun, phrase = class_noun(class_prompt), read_phrase(class_prompt)
    if PLACEHOLDER not in class_prompt and noun:
        frame = frame_of(phrase)
        say(messages(), f'  read as: the noun "{noun}"' + (f', in the frame "{frame}"' if frame else ", without a frame"))


def make_clear(class_prompt: str, identifier: str, *, with_class_images: bool = True) -> str:
    """A class prompt, or the user's answer if it is odd or its subject is unclear."""

    def judge(text: str) -> Doubt | None:
        return judge_class_prompt(bare(text), identifier, with_class_images=with_class_images)

    doubt = judge(class_prompt)
    while doubt is not None:
        question = f"What should your photos be called? ({PLACEHOLDER} marks where the rare word goes)"
        try:
            return bare(ask_line(question, judge, class_prompt, doubt))
        except Back:
            continue  # there is no question before it
    return class_prompt


# the identifier


def ask_identifier(told: Told, gpu: Gpu | None) -> str:
    """Ask for the rare word: three candidates of this base's own vocabulary, the rarest filled in; other words are judged as typed."""
    class_prompt = told["class_prompt"]
    tokenizer, by_rarity = vocabulary_of(told["model"])
    found = candidates(tokenizer, 3, avoid=class_prompt, by_rarity=by_rarity)
    for one in found:
        say(messages(), f"  {one.word:<8} {one.told}")
    best = found[0].word if found else FALLBACK
    earlier = str(told.get("identifier", best))
    suits = not identifier_remarks(earlier, tokenizer, by_rarity=by_rarity)

    def judge(text: str) -> Doubt | None:
        SubjectSettings(class_prompt=class_prompt, identifier=text)
        check_class_prompt(class_prompt, text)
        if text.casefold() in class_noun(class_prompt).casefold().split():
            noun = class_noun(class_prompt)
            raise UsageError(f"{text} is already in the class prompt, where it means any {noun}", f"take another word: {best}")
        remarks = identifier_remarks(text, tokenizer, by_rarity=by_rarity)
        return Doubt("; ".join(remarks) + ".", best if text != best else "") if remarks else None

    def verdict() -> str:
        return "\n".join(between_words(line, messages().width - 1) for line in judged(get_app().current_buffer.text.strip(), judge))

    question = question_of(SubjectSettings, "identifier")[0]
    word = ask_line(question, judge, earlier if suits else best, bottom_toolbar=verdict, style=QUIET)
    show_prompts(class_prompt, word)
    return word


def judged(text: str, judge: Callable[[str], Doubt | None]) -> list[str]:
    """What to say about an answer while it is being typed."""
    if not text or text.endswith(BACK):
        return [""]
    try:
        doubt = judge(text)
    except DreamboothError as error:
        return [of_the_answer(error)]
    return [doubt.words if doubt else f"{text}: good"]


def vocabulary_of(model: str) -> tuple[Any, bool]:
    """The tokenizer of a base, and whether its vocabulary says how rare a word is. For a base that is not on disk yet: CLIP's, which all
    bases with a CLIP text encoder share, and none if it has a language model instead."""
    from ..workflows.plan import known_facts

    facts, folder = known_facts(ask_for_base(model)), folder_of_base(model)
    by_rarity = facts is None or facts.family.rare_words
    tokenizer = load_tokenizer(folder) if folder is not None else None
    return tokenizer or (clip_tokenizer() if by_rarity else None), by_rarity


def show_prompts(class_prompt: str, word: str) -> None:
    """The two prompts that training will use."""
    say(messages(), f'  your photos will be called "{instance_prompt(class_prompt, word)}"')
    say(messages(), f'  and all others of their kind "{plain_class_prompt(class_prompt, word)}"')


# how it is trained, and its name


def ask_method(told: Told, gpu: Gpu | None) -> str:
    """Full or LoRA."""
    choices = [(method, words) for method, words in METHODS.items()]
    return str(choose(question_of(TrainSettings, "method")[0], choices, told.get("method", AUTO)))


def ask_steps(told: Told, gpu: Gpu | None) -> int:
    """Ask for the steps, with the number filled in that the base advises, or else the default."""
    advised = int(advice_of(told["model"], "train", told["method"]).get("steps", default_of(TrainSettings, "steps")))

    def judge(text: str) -> Doubt | None:
        steps = parse_value(TrainSettings, "steps", text)
        TrainSettings(steps=steps)
        if advised / FEW <= steps <= advised * FEW:
            return None
        return Doubt(f"{steps:,} steps are {'few' if steps < advised else 'many'}: most people take about {advised:,}.", str(advised))

    text = ask_line(question_of(TrainSettings, "steps")[0], judge, str(told.get("steps", advised)))
    return int(parse_value(TrainSettings, "steps", text))


def ask_name(told: Told, gpu: Gpu | None) -> str:
    """Ask for the project's name, with a free one filled in."""
    suggested = free_name(suggest_name(class_noun(told["class_prompt"], told.get("identifier", AUTO))))

    def judge(text: str) -> Doubt | None:
        check_new_name(text)
        return None

    return ask_line("What should the project be called?", judge, told.get("name", suggested))


# the plan


def settle(told: Told, gpu: Gpu | None) -> None:
    """Show the plan in four lines and the same as a command, then ask whether to save. Raises Back, Interrupted."""
    plan, facts = plan_of(told, gpu)
    console = messages()
    say(console, "\n" + "\n".join(plan_lines(told, plan, facts, gpu)))
    say(console, "\nThe same as a command:\n")
    console.print(f"  {command_of(told)}\n", soft_wrap=True)
    if told.get("only"):
        say_why("As a command it takes all photos in the folder; to use only those you picked, put them into a folder of their own.")
    choices = [("yes", "yes"), ("plan", "show the whole plan first"), ("back", "no, change an answer"), ("no", "no, leave nothing behind")]
    while True:
        match choose(f"Save the project {told['name']}?", choices if plan else [one for one in choices if one[0] != "plan"], "yes"):
            case "yes":
                return
            case "no":
                raise Interrupted("nothing was made")
            case "back":
                raise Back
            case "plan" if plan is not None:
                say(console, f"\n{format_plan(plan.to_json())}\n")


def plan_of(told: Told, gpu: Gpu | None) -> tuple[Plan | None, BaseFacts | None]:
    """What a run would do and need, and the facts of its base; None for both if nothing is known before the base is fetched."""
    from ..workflows.plan import known_facts, plan_run

    try:
        facts = known_facts(ask_for_base(told["model"]))
        return plan_run(told["model"], PrepSettings(**answers_of(told).prep), settings_of(told), gpu=gpu), facts
    except ModelUnavailable:
        return None, None


def settings_of(told: Told) -> TrainSettings:
    """The training settings as they will be."""
    return TrainSettings(**{**advice_of(told["model"], "train", told.get("method", AUTO)), **answers_of(told).train})


def plan_lines(told: Told, plan: Plan | None, facts: BaseFacts | None, gpu: Gpu | None) -> list[str]:
    """The plan in four plain lines: what is learned, how long it may take, memory and disk, what it leaves behind."""
    entry, settings = find_entry(told["model"]), settings_of(told)
    base = entry.title if entry else told["model"]
    called = instance_prompt(told["class_prompt"], told["identifier"])
    lines = [f'Learns: "{called}", from your photos, in {settings.steps:,} steps on {base}']
    if plan is None or facts is None:
        fetch = "Time, memory and disk: not known until the base is fetched; train shows them then."
        return [*lines, fetch, leaves(told, "")]
    lines[0] += f": {'all layers' if plan.method == 'full' else 'a LoRA'}{', the text encoder too' * plan.train_text_encoder}"
    disk = sum(size for size in plan.disk.values())
    fetched = f", and {entry.download_gb} GB to fetch first" if entry and entry.repository and folder_of_base(told["model"]) is None else ""
    memory = f"{plan.ram_needed / 1e9:.1f} GB of the machine's"
    if plan.free is not None:
        memory = f"{plan.needed / 1e9:.1f} of the GPU's {plan.free / 1e9:.1f} GB free"
    short = "" if plan.fits else f" It does not fit: {plan.remedy or plan.why}."
    return [
        *lines,
        time_line(predict(plan, facts, settings, gpu)),
        f"Memory: {memory}. Disk: up to {format_bytes(disk)} while it runs{fetched}.{short}",
        leaves(told, f" ({format_bytes(plan.disk['model'])})"),
    ]


def leaves(told: Told, size: str) -> str:
    """The line that says what will be there in the end."""
    return f"Leaves: the model{size} and copies of your photos, in {projects_folder() / told['name']}. Your own are not changed."


def command_of(told: Told) -> str:
    """The same project as a command line."""
    answers = answers_of(told)
    flags = {**answers.subject, **answers.prep, **answers.train}
    words = ["dreambooth", "init", answers.name]
    for name, value in flags.items():
        words += [flag_of(name)] if value is True else [flag_of(name), str(value)]
    words.append("--yes")
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _question(owner: type[Settings], key: str, ask: Callable[[Told, Gpu | None], Any]) -> Question:
    return Question(key, question_of(owner, key)[1], ask)


QUESTIONS = (
    _question(SubjectSettings, "model", ask_model),
    _question(SubjectSettings, "photos", ask_photos),
    _question(SubjectSettings, "class_prompt", ask_class_prompt),
    _question(SubjectSettings, "identifier", ask_identifier),
    _question(TrainSettings, "method", ask_method),
    _question(TrainSettings, "steps", ask_steps),
    Question("name", NAME_WHY, ask_name),
)
