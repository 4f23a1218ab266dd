"""`project.toml`: read it, write it with each help text as a comment, and merge default < file < flag, keeping each value's source."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import tomlkit

from .bases.catalog import advice_of
from .disk import disk_errors, write_whole
from .errors import ProjectError, UsageError
from .paths import expanded
from .photo_table import SECTION as PHOTOS
from .photo_table import read_photo_table
from .record import Continued
from .schemas import SCHEMA, SCHEMAS, check_schema
from .settings import (
    AUTO,
    SECTIONS,
    PrepSettings,
    Settings,
    SubjectSettings,
    TrainSettings,
    annotation,
    as_before,
    check_name,
    flag_of,
    scalar_of,
    shaping,
)

S = TypeVar("S", bound=Settings)
OF_A_PHOTO = f'a table [{PHOTOS}."IMG_3.jpg"] at the end of this file, with box = [left, top, right, bottom] or caption = "in the snow"'


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """Settings of one stage and where each value came from: `default`, the base model, `project.toml` or the flag's spelling."""

    values: S
    sources: Mapping[str, str]

    def describe(self, name: str) -> str:
        """`steps 1200 (project.toml)`."""
        return f"{name.replace('_', ' ')} {getattr(self.values, name)} ({self.sources[name]})"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a run: the settings of three stages; `sources`: where each setting that is not a default came from, by stage and
    name; `continues`: the finished run whose weights it starts from."""

    subject: SubjectSettings
    prep: PrepSettings
    train: TrainSettings
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    continues: Continued | None = None

    def shaping(self, version: str = "") -> dict[str, Any]:
        """The settings that shape a run's weights, as this version or an earlier one records them, and the run that it continues."""
        told = [as_before(one, version) if version else shaping(one) for one in (self.subject, self.train)]
        return {**told[0], **told[1], **({"continues": self.continues.id} if self.continues else {})}

    def with_train(self, settings: TrainSettings) -> "Asked":
        """The same with other training settings; their sources are kept."""
        return replace(self, train=settings)

    def with_class_prompt(self, class_prompt: str) -> "Asked":
        """The same with another class prompt, as if given by a flag."""
        told = {**self.sources.get("subject", {}), "class_prompt": flag_of("class_prompt")}
        subject = replace(self.subject, class_prompt=class_prompt)
        return replace(self, subject=subject, sources={**self.sources, "subject": told})

    def record(self) -> dict[str, dict[str, Any]]:
        """The values as plain JSON, by stage."""
        stages = {"subject": self.subject, "prep": self.prep, "train": self.train}
        return {stage: {key: _plain(value) for key, value in asdict(found).items()} for stage, found in stages.items()}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


Told = Mapping[type[Settings], Mapping[str, Any]]  # stage -> setting -> value: what was said, no defaults


def ask(stored: Mapping[str, Mapping[str, Any]], told: Told = MappingProxyType({})) -> Asked:
    """What is asked of a run: what was given in this call takes precedence over project.toml, and that over what the base advises. Raises
    UsageError."""
    subject = merge(SubjectSettings, stored.get("subject", {}), told.get(SubjectSettings, {}))
    prep = merge(PrepSettings, stored.get("prep", {}), told.get(PrepSettings, {}))
    kept, said_now = stored.get("train", {}), told.get(TrainSettings, {})
    method = said_now.get("method") or kept.get("method", AUTO)
    train = merge(TrainSettings, kept, said_now, advised=advice_of(subject.values.model, "train", str(method)))
    sources = {"subject": subject.sources, "prep": prep.sources, "train": train.sources}
    said = {stage: {name: where for name, where in found.items() if where != "default"} for stage, found in sources.items()}
    return Asked(subject=subject.values, prep=prep.values, train=train.values, sources=said)


def merge(
    owner: type[S],
    stored: Mapping[str, Any],
    flags: Mapping[str, Any],
    *,
    advised: Mapping[str, Any] = MappingProxyType({}),
) -> Resolved[S]:
    """Settings from the defaults, the base model's advice, the project's file and the flags of this call, each overriding the one before;
    a flag that is None was not given.

    Raises UsageError for an unknown key or a value out of bounds.
    """
    for name in stored:
        check_name(owner, name, "project.toml")
    given = {name: value for name, value in flags.items() if value is not None}
    sources = {item.name: "default" for item in fields(owner)}
    sources |= (
        {name: "the base model" for name in advised}
        | {name: "project.toml" for name in stored}
        | {name: flag_of(name) for name in given}
    )
    return Resolved(owner(**{**advised, **stored, **given}), sources)


def read_config(path: Path) -> dict[str, dict[str, Any]]:
    """The sections of a `project.toml`: section -> key -> value, with paths as `Path`; and `photos`: file name -> OwnWords.

    Raises ProjectError if it can't be read.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows put a byte order mark before the text
    except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8, a number with thousands of digits
        raise ProjectError(
            f"{path} is not valid TOML: {error}", "fix that line, or remove the file and run init"
        ) from error
    except OSError as error:
        raise ProjectError(
            f"{path} can't be read: {error.strerror}", "check the project with `dreambooth projects`"
        ) from error
    try:
        check_schema(path, document)
    except ValueError as error:
        raise ProjectError(f"{path}: {error}", f"fix that line: {SCHEMA} = {SCHEMAS[path.name]}") from error
    for name, section in document.items():
        if name in (SCHEMA, PHOTOS):
            continue
        if name not in SECTIONS:
            raise ProjectError(f"{path}: there is no section [{name}]", f"the sections are: {', '.join(SECTIONS)}")
        if not isinstance(section, dict):
            raise ProjectError(f"{path}: {name} must be a section", f"write it as [{name}]")
    photos = read_photo_table(path, document.get(PHOTOS, {}))
    return {name: _checked(path, name, document.get(name, {})) for name in SECTIONS} | {PHOTOS: photos}


def _checked(path: Path, section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    owner = SECTIONS[section]
    try:
        for name in values:
            check_name(owner, name, f"[{section}]")
        typed = {name: _typed(owner, name, value, path.parent) for name, value in values.items()}
        owner(**typed)
    except UsageError as error:
        raise ProjectError(f"{path}: {error.message}", error.hint) from error
    return typed


def _typed(owner: type[Settings], name: str, value: Any, folder: Path) -> Any:
    """A value of the file in the setting's type; relative paths start from the file's own folder."""
    if scalar_of(annotation(owner, name)) is Path and isinstance(value, str):
        return folder / expanded(value)
    return value


def write_config(path: Path, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Write values into a `project.toml`, keeping what a person wrote there, comments included; values that are None are left out.

    A new file lists every setting, as a comment if it is at its default; a value replaces that comment. Raises ProjectError, DiskError.
    """
    text, newline = _text_of(path) if path.exists() else (_template(), "\n")
    for section, values in sections.items():
        for name, value in values.items():
            if value is not None:
                text = _with_value(text, section, name, str(value) if isinstance(value, Path) else value)
    try:
        with disk_errors(path):
            write_whole(path, text.replace("\n", newline).encode())
    except UnicodeEncodeError as error:
        raise ProjectError(f"{path} can't hold a name that is not UTF-8: {error.object!r}", "rename it") from error


def _text_of(path: Path) -> tuple[str, str]:
    """The text of a file with plain line ends, and the line end that the file uses."""
    text = path.read_bytes().decode("utf-8-sig")
    return text.replace("\r\n", "\n"), "\r\n" if "\r\n" in text else "\n"


def _with_value(text: str, section: str, name: str, value: Any) -> str:
    """The document with one value set: where its key is, or in place of its commented default, or at the end of its section."""
    held, line = tomllib.loads(text), f"{name} = {tomlkit.item(value).as_string()}"
    values = held.get(section, {})
    if name in values and values[name] == value:
        return text
    if name not in values:
        wanted = held | {section: values | tomllib.loads(line)}
        for comment in re.finditer(rf"^#[ \t]*{re.escape(name)}[ \t]*=.*$", text, flags=re.MULTILINE):
            candidate = text[: comment.start()] + line + text[comment.end() :]
            # another section or a multi-line string may contain the same words
            if _is_document(candidate, wanted):
                return candidate
    document = tomlkit.parse(text)  # slow, but keeps what a person wrote
    document.setdefault(section, tomlkit.table())[name] = value
    return tomlkit.dumps(document)


def _is_document(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _template() -> str:
    """A `project.toml` that explains itself: help as a comment, then `# name = default`."""
    lines = ["# Settings of this project. A line that begins with '#' shows a default; remove the '#' to change it."]
    lines.append(f"{SCHEMA} = {SCHEMAS['project.toml']}  # version of this file's format, kept by dreambooth")
    for section, owner in SECTIONS.items():
        lines += ["", f"# {(owner.__doc__ or '').strip()}", f"[{section}]"]
        for item in fields(owner):
            default = item.default
            shown = (
                "..."
                if default is None
                else tomlkit.item(str(default) if isinstance(default, Path) else default).as_string()
            )
            lines += [f"# {item.metadata['help']}", f"# {item.name} = {shown}"]
    lines += ["", f"# For a single photo: {OF_A_PHOTO}."]
    return "\n".join(lines) + "\n"
