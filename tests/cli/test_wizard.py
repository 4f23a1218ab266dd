"""The interview, with answers typed into a pipe."""

import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from dreambooth_cli.bases.catalog import CATALOG
from dreambooth_cli.cli import asking, wizard
from dreambooth_cli.cli import init as init_module
from dreambooth_cli.cli import train as train_module
from dreambooth_cli.config import Asked
from dreambooth_cli.errors import ModelUnavailable, PhotoError, UsageError
from dreambooth_cli.gpu import Gpu, sold_as
from dreambooth_cli.identifier import identifier_remarks, invented_words
from dreambooth_cli.memory.duration import predict, time_line
from dreambooth_cli.oddity import english_nouns, find_oddity, known_nouns
from dreambooth_cli.order import Order, understand
from dreambooth_cli.paths import projects_folder
from dreambooth_cli.project import Project, list_projects
from dreambooth_cli.prompts import check_class_prompt
from dreambooth_cli.settings import PrepSettings, SubjectSettings, TrainSettings, parse_value
from dreambooth_cli.workflows.plan import plan_run

from .conftest import Dreambooth

DOWN, ENTER, CTRL_C, CTRL_D, CTRL_E, CLEAR, ESC, BACK = "\x1b[B", "\r", "\x03", "\x04", "\x05", "\x15", "\x1b", "<"
LEFT = "\x1b[D"
Keys = Callable[[str], None]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keys]:
    """A person at the keyboard."""
    monkeypatch.setattr(init_module, "can_ask", lambda: True)
    monkeypatch.setattr(init_module, "find_gpu", lambda: sold_as(24))
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe.send_text


def pasted(text: str | Path) -> str:
    """Text as a terminal sends it when something was dragged into it."""
    return f"\x1b[200~{text}\x1b[201~"


def test_every_question_answered(keys: Keys, photos: Path, dreambooth: Dreambooth) -> None:
    keys(DOWN + ENTER)  # the second model
    keys(pasted(f"'{photos}'") + ENTER + "a red dog" + ENTER)
    keys(CLEAR + "sks" + ENTER + CLEAR + "sks" + ENTER)  # it is a rifle; kept all the same
    keys(DOWN + DOWN + ENTER)  # LoRA
    keys(CLEAR + "300" + ENTER + CLEAR + "rex" + ENTER + ENTER)
    done = dreambooth("init")
    assert (done.code, done.out) == (0, f"{projects_folder() / 'rex'}\n"), done.err
    settings = Project(projects_folder() / "rex").settings()
    assert settings["subject"] == {
        "photos": photos.resolve(),
        "class_prompt": "a red dog",
        "identifier": "sks",
        "model": "sd14",
    }
    assert settings["train"] == {"method": "lora", "steps": 300}
    assert f"5 photos in {photos}" in done.err
    assert 'read as: the noun "red dog", in the frame "a ..."' in done.err
    assert 'your photos will be called "a sks red dog"' in done.err
    assert 'all others of their kind "a red dog"' in done.err
    assert "sks is also a rifle" in done.err
    assert 'Enter takes "ront"; to keep yours, type it again.' in done.err
    assert [line[:6] for line in done.err.splitlines() if " of 7. " in line] == [f"{number} of 7" for number in range(1, 8)]
    assert "next: dreambooth prep rex, and look at its contact sheet; then dreambooth train rex" in done.err


@pytest.mark.parametrize("model", ["pocket", "sd15", "sd21", "sdxl", "klein"])
def test_a_default_word_is_one_that_nothing_is_said_of(model: str, keys: Keys, photos: Path, dreambooth: Dreambooth) -> None:
    keys(pasted(photos) + ENTER + "a dog" + ENTER + ENTER * 5)
    done = dreambooth("init", "--model", model)
    assert done.code == 0, done.err
    word = Project(projects_folder() / "dog").settings()["subject"]["identifier"]
    tokenizer, by_rarity = wizard.vocabulary_of(model)
    assert identifier_remarks(word, tokenizer, by_rarity=by_rarity) == []
    assert f'your photos will be called "a {word} dog"' in done.err
    assert word == {"pocket": "tms", "klein": invented_words()[0]}.get(model, "ront")
    assert ("knows only its drawn world" in done.err) == (model == "pocket")


def test_the_demo_is_offered_first_where_there_is_no_gpu(
    keys: Keys, photos: Path, dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init_module, "find_gpu", lambda: None)
    shown: list[str] = []
    monkeypatch.setattr(init_module, "run_demo", lambda: shown.append("the demo"))
    keys(ENTER)
    done = dreambooth("init")
    assert (done.code, shown, list_projects()) == (0, ["the demo"], [])
    assert "hours or days" in done.err
    assert "recommended" not in done.err
    keys(DOWN + ENTER + pasted(photos) + ENTER + "a dog" + ENTER + ENTER * 5)
    done = dreambooth("init")
    assert done.code == 0
    assert re.search(r"Time: about \d+ (hours|days), predicted from \d+ cores?;", done.err)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("500", "500"),
        (pasted("600"), "600"),
        (LEFT + "7", "3070"),
        (CTRL_E + "0", "3000"),
        ("\x7f" + "180", "180"),
        ("0" + ENTER + "250", "250"),  # what was refused is there to be corrected
        (BACK + ENTER + ENTER, "300"),
    ],
)
def test_what_is_filled_in_gives_way_to_the_first_key(typed: str, kept: str, keys: Keys) -> None:
    given: wizard.Told = {"model": "sd15", "method": "full", "steps": 300}
    keys(typed + ENTER)
    with suppress(asking.Back):
        assert wizard.ask_steps(given, None) == int(kept)
        return
    assert typed.startswith(BACK)
    assert wizard.ask_steps(given, None) == int(kept)


def test_back_to_an_answer(keys: Keys, photos: Path, dreambooth: Dreambooth) -> None:
    keys(ESC)  # there is none before the first
    keys(ENTER + pasted(photos) + ENTER + "a cat" + ENTER)
    keys(BACK + ENTER + CLEAR + "a dog" + ENTER)  # from the identifier to the class prompt
    keys(ENTER + BACK + ENTER + ENTER + ENTER)  # from the method to the identifier, in a list
    keys(ENTER + DOWN + DOWN + ENTER)  # the name; then "change an answer"
    keys(CLEAR + "rex" + ENTER + ENTER)
    done = dreambooth("init")
    assert done.code == 0, done.err
    assert Project(projects_folder() / "rex").settings()["subject"]["class_prompt"] == "a dog"


def test_flags_are_not_asked_for(keys: Keys, photos: Path, sd1: Path, dreambooth: Dreambooth) -> None:
    keys("a mug" + ENTER + DOWN * 3 + ENTER)
    words = ["--photos", photos, "--identifier", "zwx", "--model", sd1, "--method", "full", "--steps", "5"]
    done = dreambooth("init", "cup", *words)
    assert (done.code, done.err.splitlines()[-1]) == (130, "Stopped: nothing was made")
    assert "1 of 1. " in done.err
    command = f"dreambooth init cup --photos {photos} --class-prompt 'a mug' --identifier zwx --model {sd1} --method full --steps 5 --yes"
    assert command in done.err
    assert list_projects() == []


def test_the_command_of_the_plan_makes_the_same_project(keys: Keys, photos: Path, dreambooth: Dreambooth) -> None:
    keys(ENTER + pasted(photos) + ENTER + "a photo of a dog" + ENTER + ENTER * 5)
    done = dreambooth("init", "--crop", "top", "--strict")
    first = Project(projects_folder() / "dog").settings()
    (command,) = [line.strip() for line in done.err.splitlines() if line.startswith("  dreambooth init dog")]
    assert dreambooth(*shlex.split(command.replace("init dog", "init other"))[1:]).code == 0
    assert Project(projects_folder() / "other").settings() == first


def test_a_wrong_answer_is_asked_again(keys: Keys, photos: Path, tmp_path: Path, dreambooth: Dreambooth) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (projects_folder() / "taken").mkdir(parents=True)
    keys(ENTER + pasted(tmp_path / "nowhere") + ENTER + CLEAR + pasted(empty) + ENTER + CLEAR + pasted(photos / "one.jpg.txt") + ENTER)
    keys(CLEAR + pasted(photos) + ENTER + ENTER + "a dog" + ENTER + CLEAR + "two words" + ENTER + CLEAR + "dog" + ENTER)
    keys(CLEAR + "[identifier]" + ENTER + CLEAR + "zwx" + ENTER + CLEAR + "zwx" + ENTER + ENTER)
    keys(CLEAR + "none" + ENTER + CLEAR + "0" + ENTER + CLEAR + "7" + ENTER + CLEAR + "7" + ENTER)
    keys(CLEAR + "a/b" + ENTER + CLEAR + "taken" + ENTER + CLEAR + "free" + ENTER + ENTER)
    done = dreambooth("init")
    assert done.code == 0, done.err
    asked = done.err.partition("The same as a command:")[0]
    assert "--" not in asked, "an error speaks of flags"
    assert "7 steps are few: most people take about 1,000" in done.err
    project = Project(projects_folder() / "free")
    assert project.settings()["subject"]["class_prompt"] == "a dog"
    assert project.settings()["train"]["steps"] == 7


ODD = [
    ("my dog", "a dog"),
    ("My dog", "a dog"),
    ("a photo of our old cat", "a photo of an old cat"),
    ("Anna's mug", "a mug"),
    ("the backpack", "a backpack"),
    ("dogs", "a dog"),
    ("two puppies", "a puppy"),
    ("children", "a child"),
    ("robot_toy", "a robot toy"),
    ("robotToy", "a robot toy"),
    ("dog.jpg", "a dog"),
    ("my_dog", "a dog"),
    ("my dog.png", "a dog"),
    ("robot_toy on a table", "robot toy"),
    ("a photo of Rex the dog at the beach", "a photo of a dog"),
    ("a dog of mine", "a dog"),
    ("a dog next to a car", "a dog"),
    ("a dog by the sea", "a dog"),
    ("Rex the dog", "a dog"),
    ("my dog Rex", "a dog"),
    ("a dog named Rex", "a dog"),
    ("Rex, my dog", "a dog"),
    ("Max, a golden retriever", "a golden retriever"),
    ("this is my dog", "a dog"),
    ("my dog is here", "a dog"),
    ("my dog Rex is cute", "a dog"),
    ("ein Hund", "a dog"),
    ("mein Hund", "a dog"),
    ("un perro", "a dog"),
    ("一只狗", "a dog"),
    ("我的小狗在海滩上", "a puppy"),
    ("一隻貓的照片", "a cat"),
    ("玩具车", "a toy car"),
    ("a kot", "a cat"),
    ("собака на траве", "a dog"),
    ("a dog on the beach", "a dog"),
    ("a photo of a dog sitting on a sofa", "a photo of a dog"),
    ("a woman with a hat in Paris", "a woman with a hat"),
]
PLAIN = ["a dog", "dog", "a photo of dog", "glasses", "a pair of shoes", "a dress", "a German shepherd", "a Siamese cat", "a bus"]
PLAIN += ["a toy robot", "a backpack with a patch", "a red vase", "a painting of a dog", "a teddy bear", "a cup of coffee"]
PLAIN += ["a photo of a [identifier] dog", "a daisy", "a photo of a lily", "a lady", "captain", "King Charles spaniel", "a bag by Gucci"]
PLAIN += ["a Shih Tzu", "a labradoodle", "a Shiba Inu", "a funko pop", "a t-shirt", "a coffee-cup", "an axolotl", "a smartphone", "a logo"]
PLAIN += ["a blonde woman", "a baby", "a 3D printer", "a T-Rex", "a PS5", "an SUV", "a mountain bike", "a pair of sunglasses", "a bouquet"]


@pytest.mark.parametrize(("text", "offer"), ODD)
def test_an_odd_class_prompt_is_asked_about(text: str, offer: str) -> None:
    doubt = wizard.judge_class_prompt(text, "auto")
    assert doubt is not None
    assert doubt.offer == offer
    assert wizard.judge_class_prompt(offer, "auto") is None


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_class_prompt_is_not_asked_about(text: str) -> None:
    assert wizard.judge_class_prompt(text, "auto") is None


NAMED = ["Rex", "Luna", "a photo of Anna", "Mr Whiskers", "Dr. Who", "Taylor Swift", "Barack Obama", "a Honda Civic", "Katarzyna"]
NAMED += ["Donald Trump", "Big Ben", "Mickey Mouse"]
FOREIGN = ["a kociak", "a kissa", "a koirat", "a photo of a szczeniak", "tava", "a red valp", "a photo of a villahegy"]


@pytest.mark.parametrize("text", [*NAMED, *FOREIGN, "a dog and a cat", "my dog and my cat"])
def test_what_is_odd_and_has_no_other_words_is_asked_about_too(text: str) -> None:
    assert wizard.judge_class_prompt(text, "auto") is not None


@pytest.mark.parametrize(
    ("slip", "offer"),
    [
        ("a backpak", "a backpack"), ("a dgo", "a dog"), ("a photo of my red teapto", "a photo of a red teapot"),
        ("a robott", "a robot"), ("a kissa", ""), ("a red valp", ""), ("a kociak", ""),
    ],
)  # fmt: skip
def test_a_slip_of_the_finger_is_not_taken_for_another_language(slip: str, offer: str) -> None:
    doubt = wizard.judge_class_prompt(slip, "auto")
    assert doubt is not None
    assert doubt.offer == offer


@pytest.mark.parametrize("text", NAMED)
def test_a_name_is_not_offered_as_what_it_is(text: str) -> None:
    doubt = wizard.judge_class_prompt(text, "auto")
    assert doubt is not None
    assert doubt.offer == ""


@pytest.mark.parametrize("text", ["сковорода", "ein Vogelhaus", "μια γάτα"])
def test_another_language_is_not_offered_with_the_identifier(text: str) -> None:
    doubt = wizard.judge_class_prompt(text, "auto")
    assert doubt is not None
    assert (doubt.firm, doubt.offer) == (True, "")
    assert "only English" in doubt.words
    with pytest.raises(UsageError) as refused:
        check_class_prompt(text, "auto")
    assert refused.value.hint.startswith('say it in English, as in --class-prompt "a dog"; or mark')


def test_no_noun_of_another_language_is_english() -> None:
    borrowed = {"lapin", "poulet", "mouton", "mariposa", "mensch", "hombre", "fille", "camion", "autobus", "tasse", "chapeau", "bota"}
    borrowed |= {"collier", "tableau"}  # in the dictionary, but it is the other language's word that is meant
    assert english_nouns() & known_nouns().keys() == borrowed


def test_every_english_class_prompt_of_the_table_is_plain() -> None:
    assert [text for text in known_nouns().values() if find_oddity(text)] == []


def test_an_odd_class_prompt_is_kept_where_it_is_typed_again(keys: Keys, photos: Path, dreambooth: Dreambooth) -> None:
    words = ["--photos", photos, "--model", "sd15", "--identifier", "ront", "--method", "full", "--steps", "500"]
    keys('"my dog"' + ENTER + CLEAR + "my dog" + ENTER + ENTER)
    assert dreambooth("init", "mine", *words).code == 0
    assert Project(projects_folder() / "mine").settings()["subject"]["class_prompt"] == "my dog"
    keys("一只狗" + ENTER + CLEAR + "一只狗" + ENTER + ENTER + ENTER)  # what the base can't read is not kept
    done = dreambooth("init", "other", *words)
    assert done.code == 0, done.err
    assert 'Enter takes "a dog"; or put it another way.' in done.err
    assert Project(projects_folder() / "other").settings()["subject"]["class_prompt"] == "a dog"


def test_a_class_prompt_in_doubt_is_asked_about(keys: Keys, photos: Path, sd1: Path, dreambooth: Dreambooth) -> None:
    stop = DOWN * 3 + ENTER
    keys("un perro" + ENTER + CLEAR + "a dog and a cat" + ENTER + CLEAR + "a [identifer] dog" + ENTER)
    keys(CLEAR + "a photo of <Identifier> perro" + ENTER + CLEAR + "ront" + ENTER + stop)
    words = ["--photos", photos, "--model", sd1, "--method", "full", "--steps", "500"]
    done = dreambooth("init", "cup", *words)
    assert done.code == 130, done.err
    assert '"un perro" is not English' in done.err
    assert 'your photos will be called "a photo of ront perro"' in done.err
    assert 'all others of their kind "a photo of perro"' in done.err
    # a flag is asked about in the same way; what is proposed is taken with Enter
    keys(ENTER + CLEAR + "ront" + ENTER + stop)
    done = dreambooth("init", "cup", *words, "--class-prompt", "a dog and a cat")
    assert 'your photos will be called "a ront dog and a cat"' in done.err


def test_train_asks_about_a_class_prompt_in_doubt(
    keys: Keys, photos: Path, sd1: Path, dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "can_ask", lambda: True)
    words = ["train", "--photos", photos, "--model", sd1, "--class-prompt", "my dog is here", "--dry-run"]
    for stop in (CTRL_C, CLEAR + CTRL_D):
        keys(stop)
        done = dreambooth(*words)
        assert (done.code, done.err.splitlines()[-1]) == (130, "Stopped: nothing was started")
    keys(ENTER)
    assert dreambooth(*words).code == 0
    done = dreambooth(*words, "--json")
    assert (done.code, done.lines[-1]["hint"].split(": ", 1)[1]) == (2, '--class-prompt "my [identifier] dog is here"')


def test_train_asks_about_an_odd_class_prompt_and_finds_the_answer_s_project(
    keys: Keys, photos: Path, sd1: Path, dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "can_ask", lambda: True)
    orders: list[Order] = []
    monkeypatch.setattr(train_module, "check_order", lambda order, asked: orders.append(order))
    monkeypatch.setattr("dreambooth_cli.workflows.direct.carry_out", lambda order, asked, **more: iter_of(asked))
    prompts: list[str | None] = []

    def iter_of(asked: Asked) -> Iterator[Any]:
        prompts.append(asked.subject.class_prompt)
        yield from ()

    assert dreambooth("init", "dog", "--photos", photos, "--model", sd1, "--class-prompt", "a dog", "--yes").code == 0
    keys(ENTER)
    words = ["train", "--photos", photos, "--model", sd1, "--class-prompt", "un perro"]
    done = dreambooth(*words)
    assert done.code == 0, done.err
    assert 'Enter takes "a dog"' in done.err
    keys(CLEAR + "our dog" + ENTER)  # typed again, it is kept at once
    assert dreambooth(*words[:-1], "our dog").code == 0
    assert prompts == ["a dog", "our dog"]
    assert [(order.project is not None, order.odd) for order in orders] == [(True, ""), (True, "")]


def test_where_nobody_is_asked_an_odd_class_prompt_is_warned_of(photos: Path, dreambooth: Dreambooth) -> None:
    done = dreambooth("init", "mine", "--photos", photos, "--class-prompt", "my dog", "--json")
    assert done.code == 0, done.err
    said = 'the class prompt "my dog" says whose it is, which is true only of this one; is "a dog" meant?'
    assert [line["message"] for line in done.lines if line["event"] == "warning"] == [said]
    told = {SubjectSettings: {"photos": photos, "class_prompt": "my cat"}}
    assert understand(None, told)[0].odd == said.replace("dog", "cat")
    told = {SubjectSettings: {"photos": photos, "class_prompt": "my [identifier] cat"}}
    assert understand(None, told)[0].odd == ""


def test_where_nobody_is_asked_a_subject_that_pocket_has_never_seen_is_warned_of(photos: Path, dreambooth: Dreambooth) -> None:
    words = ["init", "--photos", photos, "--model", "pocket", "--json", "--class-prompt"]
    warned = [[line["message"] for line in dreambooth(*words, noun).lines if line["event"] == "warning"] for noun in ("an owl", "a dog")]
    assert warned[0][0].startswith("pocket has never seen an owl: it knows only its drawn world of 64 pixels (dog, cat,")
    assert (len(warned[0]), warned[1]) == (1, [])


def test_another_base_than_the_catalogues(keys: Keys, photos: Path, sd1: Path, dreambooth: Dreambooth) -> None:
    up = "\x1b[A"
    keys(up + ENTER + "nosuch" + ENTER + CLEAR + pasted(sd1) + ENTER + "a dog" + ENTER)
    keys(CLEAR + "sks" + ENTER + CLEAR + "sks" + ENTER + ENTER + ENTER + ENTER + DOWN + ENTER + ENTER)
    done = dreambooth("init", "--photos", photos)
    assert done.code == 0, done.err
    assert Project(projects_folder() / "dog").settings()["subject"]["model"] == str(sd1)
    assert "64 px" in done.err
    assert "method " in done.err


@pytest.mark.parametrize("answers", range(8))
@pytest.mark.parametrize("stop", [CTRL_C, CTRL_D])
def test_stopping_at_any_question_leaves_nothing(
    answers: int, stop: str, keys: Keys, photos: Path, dreambooth: Dreambooth
) -> None:
    given = [ENTER, pasted(photos) + ENTER, "a dog" + ENTER, ENTER, ENTER, ENTER, ENTER]
    clear = CLEAR if stop == CTRL_D else ""  # Ctrl-D is the end of an empty line
    keys("".join(given[:answers]) + clear + stop)
    done = dreambooth("init")
    assert (done.code, done.err.splitlines()[-1]) == (130, "Stopped: nothing was made")
    home = projects_folder().parent
    assert not home.exists() or [path for path in home.rglob("*") if path.is_file()] == []


def test_a_name_that_is_taken_is_told_before_a_question(keys: Keys, dreambooth: Dreambooth) -> None:
    (projects_folder() / "dog").mkdir(parents=True)
    done = dreambooth("init", "dog")
    assert (done.code, done.err.splitlines()[0]) == (3, "Error: there is already a project called dog")


@pytest.mark.parametrize("extra", [[], ["--yes"], ["--json"]])
def test_without_a_terminal_nothing_is_asked(extra: list[str], photos: Path, dreambooth: Dreambooth) -> None:
    for words, message, hint in (
        (["--class-prompt", "a dog"], "where are the photos?", "name their folder: --photos ./instance_images"),
        (["--photos", photos], "what is in the photos? the class prompt is missing", 'say it: --class-prompt "a dog"'),
    ):
        done = dreambooth("init", *words, *extra)
        assert done.code == 2
        if extra == ["--json"]:
            assert [line["event"] for line in done.lines] == ["start", "error"]
            assert (done.lines[1]["message"], done.lines[1]["hint"]) == (message, hint)
        else:
            assert done.err == f"Error: {message}\n  {hint}\n"
    assert list_projects() == []


def test_a_path_as_it_is_typed_or_dragged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my dog's photos"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    escaped = str(folder).replace("'", "\\'").replace(" ", "\\ ")
    for text in (
        str(folder),
        f" {folder} ",
        f'"{folder}"',
        escaped,
        f"file://{str(folder).replace(' ', '%20')}",
        "my dog's photos",
        "~/my dog's photos",
        f"{folder}/",
    ):
        assert wizard.read_path(text) == folder, text
    assert wizard.read_path("two words") == tmp_path / "two words"
    assert wizard.read_path("it's") == tmp_path / "it's"


def test_several_dragged_files(photos: Path, tmp_path: Path) -> None:
    folder = photos.rename(tmp_path / "my dog's photos")
    one, two = folder / "one.jpg", folder / "two.jpg"
    address = f"file://{str(one).replace(' ', '%20')} file://localhost{str(two).replace(' ', '%20')}"
    for text in (f'"{one}" "{two}"', f"{shlex.quote(str(one))} {shlex.quote(str(two))} ", address, f'"{one}"\n"{two}"'):
        assert wizard.read_paths(text) == [one, two], text
        assert wizard.judge_photos(text) is None
    assert wizard.read_paths(f'"{one}" and more') == [wizard.read_path(f'"{one}" and more')]
    (tmp_path / "elsewhere.jpg").write_bytes(one.read_bytes())
    with pytest.raises(PhotoError, match="several folders"):
        wizard.judge_photos(f'"{one}" "{tmp_path / "elsewhere.jpg"}"')
    (folder / "notes.txt").write_text("no picture")
    with pytest.raises(PhotoError, match=r"notes\.txt is not a photo"):
        wizard.judge_photos(str(folder / "notes.txt"))


def test_dragged_photos_alone_or_all_of_their_folder(keys: Keys, photos: Path, dreambooth: Dreambooth) -> None:
    words = ["--model", "sd15", "--class-prompt", "a dog", "--identifier", "ront", "--method", "full", "--steps", "500"]
    dragged = pasted(f"'{photos / 'one.jpg'}' '{photos / 'two.jpg'}'") + ENTER
    keys(dragged + ENTER + ENTER)
    done = dreambooth("init", "few", *words)
    assert done.code == 0, done.err
    assert f"2 photos in {photos}" in done.err
    assert "As a command it takes all photos in the folder" in done.err
    assert sorted(path.name for path in Project(projects_folder() / "few").photos.iterdir()) == ["one.jpg", "two.jpg"]
    keys(dragged + DOWN + ENTER + ENTER)
    done = dreambooth("init", "all", *words)
    assert f"5 photos in {photos}" in done.err
    assert "As a command it takes all" not in done.err
    assert len(list(Project(projects_folder() / "all").photos.iterdir())) == 5


def test_a_folder_of_folders_lists_those_that_hold_photos(keys: Keys, photos: Path, tmp_path: Path, dreambooth: Dreambooth) -> None:
    album = tmp_path / "album"
    for name in ("empty", "other", "zebra"):
        (album / name).mkdir(parents=True)
    photos = photos.rename(album / "my dog")
    (album / "zebra" / "z.jpg").write_bytes((photos / "one.jpg").read_bytes())
    assert [words for _, words in wizard.folders_with_photos(album)] == ["my dog: 5 photos", "zebra: 1 photo"]
    words = ["--model", "sd15", "--class-prompt", "a dog", "--identifier", "ront", "--method", "full", "--steps", "500"]
    keys(pasted(album) + ENTER + ENTER + ENTER)
    done = dreambooth("init", "mine", *words)
    assert done.code == 0, done.err
    assert Project(projects_folder() / "mine").settings()["subject"]["photos"] == photos.resolve()
    assert wizard.folders_with_photos(tmp_path)[0][0] == photos  # a level deeper
    with pytest.raises(PhotoError, match="or in the folders inside it"):
        wizard.judge_photos(str(album / "empty"))


def test_a_folder_of_many_pictures_is_asked_about(tmp_path: Path) -> None:
    for number in range(wizard.MANY + 1):
        (tmp_path / f"{number}.jpg").write_bytes(b"\xff\xd8\xff")
    doubt = wizard.judge_photos(str(tmp_path))
    assert doubt is not None
    assert "51 pictures, but 3 to 5 of one subject are enough" in doubt.words


def test_an_error_speaks_of_the_answer() -> None:
    for text in ("0", "none", "1e3", "2k", "-5"):
        with pytest.raises(UsageError) as caught:
            TrainSettings(steps=parse_value(TrainSettings, "steps", text))
        assert "--" in caught.value.message + caught.value.hint
        assert "--" not in asking.of_the_answer(caught.value)
    assert asking.of_the_answer(UsageError("--steps 0 is too small", "it must be at least 1")) == "0 is too small; it must be at least 1"


@pytest.mark.parametrize(
    ("gpu", "seconds"),
    [
        (Gpu(name="H100", kind="cuda", total=80 * 10**9, free=79 * 10**9, tflops=66.9), 0.242),
        (Gpu(name="a slower one", kind="cuda", total=24 * 10**9, free=23 * 10**9, tflops=66.9 / 4), 4 * 0.242),
        (Gpu(name="not seen", kind="cuda", total=24 * 10**9, free=23 * 10**9), None),
        (Gpu(name="AMD", kind="rocm", total=24 * 10**9, free=23 * 10**9), None),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_time_is_predicted_from_the_cards_figures(gpu: Gpu, seconds: float | None) -> None:
    facts = CATALOG[0].facts
    plan = plan_run("sd15", PrepSettings(), TrainSettings(gradient_checkpointing=False), gpu=gpu)
    found = predict(plan, facts, TrainSettings(), gpu)
    if seconds is None:
        assert found is None
        assert "not known" in time_line(found)
    else:
        assert found is not None
        assert found.step == pytest.approx(seconds, rel=1e-3)
        assert "predicted from the card's figures" in time_line(found)


def test_class_images_without_guidance_are_predicted_to_take_half_as_long() -> None:
    card = Gpu(name="H100", kind="cuda", total=80 * 10**9, free=79 * 10**9, tflops=66.9)
    plan = plan_run("sd15", PrepSettings(), TrainSettings(), gpu=card)
    guided, unguided = (
        predict(plan, CATALOG[0].facts, TrainSettings(class_guidance_scale=scale), card)
        for scale in ("auto", 1.0)
    )
    assert guided is not None
    assert unguided is not None
    training = guided.step * TrainSettings().steps
    assert guided.seconds - training == pytest.approx(2 * (unguided.seconds - training))


@pytest.mark.skipif(os.name == "nt", reason="a backslash parts folders there")
def test_a_folder_whose_name_has_a_backslash(tmp_path: Path) -> None:
    folder = tmp_path / "a\\ b"
    folder.mkdir()
    assert wizard.read_path(str(folder)) == folder


def test_the_checks_have_words() -> None:
    with pytest.raises(UsageError):
        wizard.judge_class_prompt(" ", "auto")
    with pytest.raises(ModelUnavailable):
        wizard.folder_of_base("nosuch")
    with pytest.raises(PhotoError, match="no folder"):
        wizard.check_photos(Path("/nowhere"))
    assert wizard.folder_of_base(None) is None
    with pytest.raises(UsageError):
        init_module.require({})
