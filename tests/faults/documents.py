"""Damaged documents given to the code that reads them: `python -m tests.faults.documents [COUNT]`.

Each is a real document with some values exchanged, removed or added, or with its bytes mutated; hypothesis draws them, always the
same ones. Prompts and project names with any characters are tried here too.
"""

import io
import json
import math
import os
import shutil
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.cli.app import in_words, run
from dreambooth_cli.cli.console import visible
from dreambooth_cli.cli.views import format_event
from dreambooth_cli.config import ask, read_config, write_config
from dreambooth_cli.errors import DreamboothError, ProjectError
from dreambooth_cli.events import Event
from dreambooth_cli.identifier import length_remarks, load_tokenizer, unread_part
from dreambooth_cli.model_card import Card, write_card
from dreambooth_cli.paths import projects_folder
from dreambooth_cli.photos.picture import save_new, stem_of
from dreambooth_cli.project import Project, check_name, free_name, open_project, suggest_name
from dreambooth_cli.prompts import class_noun, instance_prompt, plain_class_prompt
from dreambooth_cli.record import BaseRecord, Prompts
from dreambooth_cli.settings import SECTIONS, SubjectSettings, TrainSettings
from dreambooth_cli.workflows.initialise import initialise

from .mutants import picture
from .peak import MOST_MEMORY, forget_peak, peak_of_memory
from .row import Row

FULL = 7000
HANG = 10.0  # seconds of CPU for one answer
CODES = {2, 3, 4, 5, 6}  # exit codes that are an answer to a damaged document
HEAD = 8  # bytes before a safetensors header

SENTENCES = (
    "",
    "auto",
    "~",
    "~nobody/x",
    "..",
    "/",
    "a\0b",
    "\ud800",
    "x" * 5000,
    "[red]",
    "a/b/c",
    "nan",
    "\x1b[2J",
    "é\u202e",
)
NUMBERS = (0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**400), 10**400, 3, 64, 0.5, 1e308, math.inf, -math.inf, math.nan)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(SENTENCES),
    st.sampled_from(NUMBERS),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@dataclass(frozen=True)
class Trial:
    """A kind of document: how one is drawn, and what must read it and give an answer; `share`: its part of all that are tried."""

    draw: Callable[[], st.SearchStrategy[Any]]
    read: Callable[[Any], None]
    share: int


@st.composite
def edited(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """A document with one to three values exchanged, removed or added, at any depth."""
    changed = deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        place: Any = changed
        while True:
            keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and draw(st.booleans()):
                place = place[key]
                continue
            match draw(st.integers(0, 3)):
                case 0:
                    del place[key]
                case 1 if isinstance(place, dict):
                    place[draw(st.text(max_size=8))] = draw(values)
                case _:
                    place[key] = draw(values)
            break
    return changed


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes that are flipped, cut off, inserted or repeated."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(changed) - 1)))
        match draw(st.integers(0, 4)):
            case 0 if changed:
                changed[place] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del changed[place:]
            case 2:
                changed[place:place] = draw(st.binary(max_size=12))
            case 3:
                changed[place:place] = draw(
                    st.sampled_from((b"[" * 20_000, b'{"a":' * 20_000, b"9" * 5000, b"\0", b"\xff"))
                )
            case _:
                changed[place : place + 20] = changed[place : place + 20] * 2
    return bytes(changed)


def of_json(document: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A JSON file with damaged values or damaged bytes."""
    by_value = st.one_of(edited(document), values).map(lambda changed: dumps(changed).encode())
    return st.one_of(by_value, by_value, mutated(dumps(document).encode()))


def dumps(value: Any) -> str:
    """JSON with any numbers, however long."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value)
    finally:
        sys.set_int_max_str_digits(before)


# ---- project.toml


def tomls() -> st.SearchStrategy[bytes]:
    """A project.toml with any values for its settings, or with mutated bytes."""
    known = {section: [item.name for item in fields(owner)] for section, owner in SECTIONS.items()}
    sections = st.fixed_dictionaries(
        {},
        optional={
            section: st.dictionaries(st.one_of(st.sampled_from(names), st.text(max_size=8)), values, max_size=4)
            for section, names in known.items()
        },
    )
    whole = toml_of(
        {"subject": {"photos": "photos", "class_prompt": "a dog", "model": "pocket"}, "train": {"steps": 7}}
    )
    by_value = sections.map(lambda drawn: toml_of(with_subject(drawn)))
    return st.one_of(by_value, by_value, mutated(whole))


def with_subject(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The sections with a subject that is complete except for what was drawn."""
    return {
        **sections,
        "subject": {"photos": "photos", "class_prompt": "a dog", "model": "pocket"} | sections.get("subject", {}),
    }


def toml_of(sections: dict[str, dict[str, Any]]) -> bytes:
    """TOML text, whether or not it is valid."""
    lines: list[str] = []
    for section, pairs in sections.items():
        lines += [f"[{section}]", *(f"{json.dumps(key)} = {toml_value(value)}" for key, value in pairs.items())]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return dumps(value)


def read_toml(data: bytes) -> None:
    """`projects`, `train --dry-run` and `prep` of a project with this file."""
    project = Project(projects_folder() / "dog")
    project.config.write_bytes(data)
    for words in (["projects"], ["projects", "--json"], ["train", "dog", "--dry-run"], ["prep", "dog", "--json"]):
        call(words, may_fail=words[0] != "projects")
    project.config.write_bytes(data)
    call(["prep", "dog", "--resolution", "64", "--json"])
    try:
        read_config(project.config)
    except DreamboothError:
        return
    assert read_config(project.config)["prep"]["resolution"] == 64, "the flag was not written"


def call(words: list[str], *, may_fail: bool = True) -> None:
    """Run a command line in this process. Raises AssertionError for anything but an answer."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(words)
    told = f"{words}: exit code {code}: {err.getvalue()[-1500:]}{out.getvalue()[-300:]}"
    assert "Traceback" not in err.getvalue(), told
    assert code == 0 or (may_fail and code in CODES), told
    if code and "--json" in words:
        assert json.loads(out.getvalue().splitlines()[-1])["hint"], told


# ---- dreambooth.json


def cards() -> st.SearchStrategy[bytes]:
    """A damaged card."""
    folder = Path(os.environ["DREAMBOOTH_HOME"]) / "whole-card"
    folder.mkdir(exist_ok=True)
    write_card(whole_card(), folder)
    return of_json(json.loads((folder / "dreambooth.json").read_text()))


def whole_card() -> Card:
    """The card of a LoRA on the small base."""
    asked, base, plan = whole_run()
    return Card(
        identifier="sks",
        class_prompt="a dog",
        instance_prompt="a sks dog",
        method="lora",
        resolution=64,
        steps=7,
        base=BaseRecord(name="small", repository=None, path=str(base), identity="sha256:0"),
        run="0",
        settings=asked.record(),
        plan=plan.to_json(),
        versions={"torch": "2"},
    )


def read_a_card(data: bytes) -> None:
    """What `generate` and the end of `train` do with a model's folder, up to loading its weights."""
    from dreambooth_cli.settings import GenerateSettings
    from dreambooth_cli.source import card_of, fill_prompt
    from dreambooth_cli.workflows.deliver import deliver
    from dreambooth_cli.workflows.generate import choose_drawing, find_model

    folder = Path(os.environ["DREAMBOOTH_HOME"]) / "model"
    folder.mkdir(exist_ok=True)
    lora = folder / "pytorch_lora_weights.safetensors"
    if not lora.exists():  # what can be seen of it before its base is known
        save_file({f"unet.a.lora_{letter}.weight": np.zeros((1, 1), np.float32) for letter in "AB"}, lora)
    (folder / "dreambooth.json").write_bytes(data)

    def use() -> None:
        card = card_of(folder)
        text = result_of(fill_prompt("a [identifier] dog", card, None))
        base = result_of(find_model(folder, card, None))
        choose_drawing(GenerateSettings(), base, card)
        save_new(Image.new("RGB", (8, 8)), folder / "images", stem_of(text, 0), {"prompt": text})

    answered(use)
    run_folder = Path(os.environ["DREAMBOOTH_HOME"]) / "delivered" / "runs" / "1"
    (run_folder / "model").mkdir(parents=True, exist_ok=True)
    (run_folder / "model" / "dreambooth.json").write_bytes(data)
    from dreambooth_cli.run import Run

    answered(lambda: tell(deliver(Run(run_folder), None, TrainSettings())))


# ---- plan.json


def whole_run() -> Any:
    """What was asked, the small base's folder, and the plan."""
    from dreambooth_cli.workflows.plan import plan_run

    base = Path(os.environ["FAULTS_BASE"])
    subject = {"class_prompt": "a dog", "identifier": "sks", "model": str(base)}
    asked = ask({}, {SubjectSettings: subject, TrainSettings: {"steps": 7, "method": "lora"}})
    return asked, base, plan_run(str(base), asked.prep, asked.train, gpu=None)


SHAPE: dict[str, Any] = {"asked": {"steps": 7}, "photos": ["0" * 64], "class_photos": [], "base": "sha256:0"}


def plans() -> st.SearchStrategy[bytes]:
    """A damaged plan.json."""
    from dreambooth_cli.engine.hub.bases import obtain
    from dreambooth_cli.workflows.freeze import new_record
    from dreambooth_cli.workflows.recipe import Ingredients, with_plan

    asked, base, plan = whole_run()
    found = result_of(obtain(ask_for_base(str(base))))
    made_of = Ingredients(asked=asked, base=found, photos=(), own_class_images=())
    return of_json(new_record(with_plan(made_of, plan, Prompts("sks", "a sks dog", "a dog")), SHAPE).written())


def read_a_plan(data: bytes) -> None:
    """What `projects`, `train` and `train --replan` do with a run."""
    from dreambooth_cli.engine.hub.bases import obtain
    from dreambooth_cli.workflows.freeze import find_run, freeze_plan
    from dreambooth_cli.workflows.recipe import Ingredients

    project = Project(projects_folder() / "dog")
    folder = project.path / "runs" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_bytes(data)
    asked, base, _ = whole_run()
    found = result_of(obtain(ask_for_base(str(base))))
    made_of = Ingredients(asked=asked, base=found, photos=(), own_class_images=())

    def use(replan: bool) -> None:
        kept = find_run(project, made_of, SHAPE)
        tell(freeze_plan(project, kept, made_of, SHAPE, replan=replan))

    try:
        call(["projects", "--json"], may_fail=False)
        answered(lambda: use(False))
        answered(lambda: use(True))
    finally:
        shutil.rmtree(project.path / "runs")


# ---- safetensors headers


def headers() -> st.SearchStrategy[bytes]:
    """A safetensors file whose header is damaged: its length, its JSON or what that says."""
    whole = (Path(os.environ["FAULTS_BASE"]) / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", whole[:HEAD])
    header, rest = json.loads(whole[HEAD : HEAD + length]), whole[HEAD + length :]
    few = {f"model.diffusion_model.{name}": entry for name, entry in list(header.items())[:6] if name != "__metadata__"}
    few["model.diffusion_model.transformer_blocks.0.attn2.to_k.weight"] = {
        "dtype": "F32",
        "shape": [4, 4],
        "data_offsets": [0, 64],
    }
    few["__metadata__"] = {"format": "pt", "modelspec.prediction_type": "epsilon"}

    def file_of(text: bytes, length: int | None = None) -> bytes:
        return struct.pack("<Q", len(text) if length is None else length % 2**64) + text + rest

    damaged = st.one_of(of_json(few), of_json(header)).map(file_of)
    lengths = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 300)).map(
        lambda number: file_of(dumps(few).encode(), number)
    )
    return st.one_of(damaged, damaged, damaged, lengths, st.binary(max_size=30))


def read_a_header(data: bytes) -> None:
    """Read a file as a single-file base, as a part of a base's folder, and, if its header is small, as a LoRA."""
    from dreambooth_cli.engine.training.checkpoint import is_whole, load_checkpoint

    place = Path(os.environ["DREAMBOOTH_HOME"])
    single, folder, checkpoint = place / "single.safetensors", place / "folder", place / "step-000001"
    single.write_bytes(data)
    if not folder.exists():
        shutil.copytree(os.environ["FAULTS_BASE"], folder)
        checkpoint.mkdir()
        (checkpoint / "checkpoint.json").write_text('{"step": 1, "files": {}}')
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(data)
    for name in ("weights", "optimizer", "ema"):
        (checkpoint / f"{name}.safetensors").write_bytes(data)
    answered(lambda: read_facts(single))
    answered(lambda: read_facts(folder))
    answered(lambda: load_checkpoint(checkpoint))
    assert is_whole(checkpoint) in (True, False)


# ---- prompts and names

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
ODD = st.sampled_from(
    (
        "[red]a dog[/red]",
        "a dog \x1b[2J\x1b]0;gone\x07\r\x08",
        "\u05db\u05dc\u05d1 \u0641\u064a \u0627\u0644\u0628\u062d\u0631",
        "\u202egnp.exe\u2066 a dog",
        "a dog\nError: all is lost",
        "../../../etc/passwd",
        "con",
        "a dog 🐕‍🦺 の写真",
        "a\0dog",
        "'; rm -rf ~; '",
        "\u0301\u0301",
    )
)
prompts = st.one_of(
    ODD,
    st.text(st.characters(codec="utf-8"), max_size=300),
    st.lists(WORDS, min_size=1, max_size=5).map(lambda words: " ".join(words * 2000)),
)


def read_a_prompt(prompt: str) -> None:
    """Take a prompt everywhere it goes: into names, a PNG, the terminal, JSON, project.toml, and to the model."""
    place, base = Path(os.environ["DREAMBOOTH_HOME"]) / "pictures", Path(os.environ["FAULTS_BASE"])
    path = save_new(Image.new("RGB", (8, 8)), place, stem_of(prompt, 3), {"prompt": prompt})
    assert path.parent == place, path
    assert path.resolve().parent == place.resolve(), path
    with Image.open(path) as image:
        image.load()
        assert image.text["prompt"] == prompt, "the PNG holds another prompt"  # type: ignore[attr-defined]
    path.unlink()
    for text in (visible(prompt), visible(prompt, keep="\n\t")):
        assert not any((ord(letter) < 32 and letter not in "\n\t") or 127 <= ord(letter) < 160 for letter in text), (
            repr(text)
        )
    tokenizer = load_tokenizer(base)
    assert tokenizer is not None
    part = unread_part(prompt, tokenizer)
    assert prompt.endswith(part)
    assert bool(part) == (len(tokenizer.encode(prompt, add_special_tokens=False).ids) > 75)
    assert all(len(line) < 500 for line in length_remarks([prompt], load_tokenizer(base)))
    if prompt.strip():
        config = place / "project.toml"
        write_config(config, {"subject": {"class_prompt": prompt}})
        assert read_config(config)["subject"]["class_prompt"] == prompt
        config.unlink()
        plain_class_prompt(instance_prompt(prompt, "sks"))
        check_name(suggest_name(class_noun(prompt)))


names = st.one_of(
    st.text(max_size=80),
    ODD,
    st.sampled_from(
        (
            "..",
            ".",
            "",
            "/",
            "a/b",
            "..\\x",
            "a\\b",
            "~",
            "~root",
            "-rf",
            "nul",
            "con.txt",
            "LPT1",
            "a.",
            "a" * 65,
            "𐌰" * 64,
        )
    ),
    st.lists(st.sampled_from(("..", ".", "/", "\\", "a", "~", "\0", "\n", " ", "C:", "%2e")), max_size=6).map("".join),
)


def read_a_name(name: str) -> None:
    """A name that is accepted stays within the projects' folder and can be made and opened; a suggested name is accepted."""
    folder = projects_folder()
    assert check_name(free_name(suggest_name(name)))
    answered(lambda: open_project(name))
    try:
        check_name(name)
    except ProjectError:
        return
    made = folder / name
    assert made.parent == folder, made
    assert made.resolve().parent == folder.resolve(), made
    if not made.exists():
        made.mkdir()
        made.rmdir()


# ---- the trials

TRIALS = {
    "project.toml": Trial(tomls, read_toml, 12),
    "dreambooth.json": Trial(cards, read_a_card, 15),
    "plan.json": Trial(plans, read_a_plan, 10),
    "safetensors headers": Trial(headers, read_a_header, 13),
    "prompts": Trial(lambda: prompts, read_a_prompt, 3),
    "names of projects": Trial(lambda: names, read_a_name, 10),
}


def rows(count: int = FULL) -> Iterator[Row]:
    """A row for each kind of document; `count` documents in all."""
    with workplace():
        for what, trial in TRIALS.items():
            yield try_all(what, trial, max(1, count * trial.share // sum(each.share for each in TRIALS.values())))


def try_all(what: str, trial: Trial, count: int) -> Row:
    """Draw `count` documents of a kind and have each read."""
    tried, slowest, most, failures = 0, 0.0, 0, []

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(trial.draw())
    def read(document: Any) -> None:
        nonlocal tried, slowest, most
        tried += 1
        held = forget_peak()  # hypothesis keeps what it draws: the growth counts
        moment = time.process_time()
        try:
            trial.read(document)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            failures.append(
                f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[-700:]}: {document!r:.300}"
            )
        slowest = max(slowest, time.process_time() - moment)
        if time.process_time() - moment > HANG:
            failures.append(f"{time.process_time() - moment:.1f} s: {document!r:.300}")
        most = max(most, peak_of_memory() - held)
        if peak_of_memory() - held > MOST_MEMORY:
            failures.append(f"{(peak_of_memory() - held) / 1e6:.0f} MB: {document!r:.300}")

    read()
    remarks = [*failures, f"at most {most / 1e6:.0f} MB for one"]
    return Row(f"documents: {what}", tried, lost=len(failures), slowest=slowest, remarks=remarks)


@contextmanager
def workplace() -> Iterator[None]:
    """A home with a small base and a project with one photo, without a network; the environment is restored afterwards."""
    import random

    before, place = dict(os.environ), Path(tempfile.mkdtemp(prefix="dreambooth-faults-"))
    os.environ |= {
        "DREAMBOOTH_HOME": str(place / "home"),
        "HF_HOME": str(place / "hf"),
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
    }
    os.environ |= {"FAULTS_BASE": str(place / "base"), "TOKENIZERS_PARALLELISM": "false"}
    try:
        from tests import small_models

        small_models.build("sd1", place / "base")
        (place / "photos").mkdir()
        picture(random.Random(0), size=(96, 96)).save(place / "photos" / "one.png")
        subject = SubjectSettings(photos=place / "photos", class_prompt="a dog", model="pocket")
        for _ in initialise("dog", subject=subject, prep={}, train={}):
            pass
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(place)


def answered(use: Callable[[], object]) -> None:
    """Do something with a document; an error that is worded for people counts as an answer, any other is raised."""
    try:
        use()
    except Exception as error:
        words = in_words(error)
        if words is None:
            raise
        assert words.hint, f"no hint: {words.message}"
        assert words.exit_code in CODES, words.message
        assert len(words.message) < 2010, f"a message of {len(words.message)} characters"


def tell(events: Any) -> Any:
    """Go through events as a view does, and return what they return."""
    with closing(events):
        while True:
            try:
                event: Event = next(events)
            except StopIteration as end:
                return end.value
            format_event(event)


def result_of(events: Any) -> Any:
    """What a part of a workflow returns."""
    return tell(events)


if __name__ == "__main__":
    from .photos import show

    found = []
    for one in rows(int(sys.argv[1]) if len(sys.argv) > 1 else FULL):
        show(one)
        found.append(one)
    print(f"{'all':52} {sum(row.tried for row in found):6} {sum(row.lost for row in found):5}")
    sys.exit(any(row.lost for row in found))
