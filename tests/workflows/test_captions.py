"""Captions: what varies in a photo is said only in its own prompts, and what can't be said is refused with a reason."""

import codecs
from contextlib import closing
from pathlib import Path

import pytest

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.cli.app import run as run_command
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.errors import PhotoError
from dreambooth_cli.events import CheckpointSaved, Noted, PhaseStarted, PhotoLooked, PhotoRead, Warned
from dreambooth_cli.frames import other_frames
from dreambooth_cli.identifier import load_tokenizer, unread_part
from dreambooth_cli.prompts import instance_prompt
from dreambooth_cli.workflows.initialise import add_photos
from dreambooth_cli.workflows.prepare import prepared_photos
from tests.workflows.kept_training import assert_same, trained
from tests.workflows.projects import begin, make_project, model_of, of_kind, run, start
from tests.workflows.test_places import draw_scenes

CAPTIONS = {"one.jpg": "in the snow, seen from behind", "four.png": "on a beach"}


@pytest.fixture
def captioned(photos):
    """The five photos, two of them with captions."""
    for name, caption in CAPTIONS.items():
        (photos / name).with_suffix(".txt").write_text(caption)
    return photos


def prompts_by_photo(training: Training) -> list[dict[str, int]]:
    """How often each photo has each prompt."""
    found = []
    for example in training.examples["instance"]:
        rows = [training.prompts[row] for row in example.prompts]
        found.append({prompt: rows.count(prompt) for prompt in rows})
    return found


def captions_of(project):
    """The captions of the prepared photos, by their names."""
    return {photo.name: photo.caption for photo in prepared_photos(project) if photo.caption}


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_caption_is_said_after_the_sentence_of_its_photo(kind, captioned, request, monkeypatch):
    base = request.getfixturevalue(kind)
    project = make_project(captioned, base, method="lora", caption_dropout=0.2)
    _, training = trained(project, monkeypatch)
    own = "a photo of a sks dog"
    assert [photo.name for photo in prepared_photos(project)] == ["five.webp", "four.png", "one.jpg", "three.jpg", "two.jpg"]
    assert prompts_by_photo(training) == [
        {own: 100},
        {own: 20, f"{own} on a beach": 80},
        {own: 20, f"{own} in the snow, seen from behind": 80},
        {own: 100},
        {own: 100},
    ]
    (alone,) = training.examples["class"][0].prompts
    assert training.prompts[alone] == "a photo of a dog"
    snow = load_tokenizer(base).encode("snow", add_special_tokens=False).ids
    if training.family.pipe.text_encoder is not None:  # of a frozen one the tokens are kept
        training.family.encode_prompts([f"{own} in the snow, seen from behind"])
    (read,) = training.family.tokens["text_encoder", f"{own} in the snow, seen from behind"].tolist()
    assert any(read[place : place + len(snow)] == snow for place in range(len(read)))


def test_the_told_place_gives_way_to_a_caption(tmp_path, monkeypatch):
    folder = draw_scenes(tmp_path)
    (folder / "1.txt").write_text("upside down")
    project = make_project(folder, "pocket", class_prompt="a photo of a mug")
    events, training = trained(project, monkeypatch)
    said = [note.message for note in of_kind(events, Noted) if "that the base sees" in note.message]
    assert said == ["the photos' prompts will name the place that the base sees in each photo: in the snow (2)"]
    places = [{prompt.partition("mug ")[2] for prompt in one} for one in prompts_by_photo(training)]
    assert places == [{"", "in the snow"}, {"", "upside down"}, {"", "in the snow"}]


def test_a_place_that_makes_a_prompt_too_long_is_told(tmp_path):
    tokenizer, class_prompt = load_tokenizer(ask_for_base("pocket").path), "a photo of a mug"
    longest = ""
    while not unread_part(f"red {longest}", tokenizer):
        class_prompt = class_prompt.replace("mug", "red mug")
        own = instance_prompt(class_prompt, "sks")
        longest = max((own, *other_frames(own, "sks")), key=lambda prompt: len(tokenizer.encode(prompt).ids))
    project = make_project(draw_scenes(tmp_path), "pocket", class_prompt=class_prompt)
    told = [warning.message for warning in of_kind(begin(project), Warned) if "longer than the 77 tokens" in warning.message]
    assert told  # of places: without one every prompt is read to its end
    assert all("mug" not in message for message in told)


def test_project_toml_comes_before_the_file_beside_the_photo(captioned, sd1, monkeypatch):
    project = make_project(captioned, sd1, method="lora")
    with project.config.open("a") as file:
        file.write('\n[photos."one.jpg"]\ncaption = "at night"\n')
    run(project)
    assert captions_of(project) == {"one.jpg": "at night", "four.png": "on a beach"}
    (done,) = project.runs()
    assert [photo["caption"] for photo in done.record().photos] == ["", "on a beach", "at night", "", ""]


def test_another_caption_is_another_run_and_none_is_the_run_that_there_was(captioned, photos, sd1):
    project = make_project(captioned, sd1, method="lora")
    run(project)
    (project.photos / "one.txt").write_bytes(codecs.BOM_UTF8 + b"in the snow,\r\n  seen from behind\r\n\r\n")
    run(project)
    assert len(project.runs()) == 1
    (project.photos / "one.txt").write_text("in the rain")
    events = run(project)
    assert len(project.runs()) == 2
    (project.photos / "one.txt").unlink()
    run(project)
    assert len(project.runs()) == 3
    assert not any("captions" in note.message for note in of_kind(events, Noted))


def test_a_run_with_captions_goes_on_to_the_bit(captioned, sd1):
    settings = {"method": "full", "train_text_encoder": True, "steps": 4, "checkpoint_every": 2, "mirror": True}
    whole = make_project(captioned, sd1, name="whole", **settings)
    run(whole)
    parts = make_project(captioned, sd1, name="parts", **settings)
    with closing(start(parts)) as events:
        next(event for event in events if isinstance(event, CheckpointSaved))
    again = run(parts)
    assert len(parts.runs()) == 1
    assert_same(model_of(again), whole.runs()[0].model)


def test_a_run_that_was_left_says_that_the_captions_are_others(captioned, sd1):
    project = make_project(captioned, sd1, method="lora", checkpoint_every=1)
    with closing(start(project)) as events:
        next(event for event in events if isinstance(event, CheckpointSaved))
    (project.photos / "one.txt").write_text("in the rain")
    told = [note.message for note in of_kind(run(project), Noted)]
    assert "run 1, which stopped at step 1, was begun with other captions or masks; this is a new run" in told


# ---- what can't be


REFUSED = {
    "one.txt": {
        b"": "an empty caption",
        b" \r\n\t\n": "an empty caption",
        b"\xff\xfei\0n\0 \0s\0n\0o\0w\0": "not in UTF-8",
        b"caf\xe9": "not in UTF-8",
        b"in\0snow": "characters that can't be read",
    },
    "ghost.txt": {b"in the snow": "a caption without its photo: there is no photo called ghost"},
    "ghost.mask.png": {b"x": "a mask without its photo: there is no photo called ghost"},
}
CASES = [(name, content, words) for name, found in REFUSED.items() for content, words in found.items()]


@pytest.mark.parametrize(("name", "content", "words"), CASES)
def test_what_can_not_be_used_is_refused_in_words(name, content, words, captioned, sd1, capsys):
    project = make_project(captioned, sd1)
    (project.photos / name).write_bytes(content)
    assert run_command(["prep", project.name, "--resolution", "64"]) == 3
    assert f"{name}: " in (told := " ".join(capsys.readouterr().err.split()))
    assert words in told
    (captioned / name).write_bytes(content)
    with pytest.raises(PhotoError, match=name):
        make_project(captioned, sd1, name="other")


def test_a_text_beside_photos_without_captions_stops_nothing(photos, sd1):
    (photos / "ghost.txt").write_text("in the snow")
    (photos / "README.txt").write_text("my photos")
    project = make_project(photos, sd1, method="lora")
    events = run(project)
    assert model_of(events)
    told = {Path(event.path).name: (event.status, event.reasons) for event in of_kind(events, PhotoLooked)}
    assert "ghost.txt" not in told  # it was told when the project was made, and left there


def test_a_caption_of_two_photos_asks_of_which(photos, sd1):
    (photos / "one.png").write_bytes((photos / "four.png").read_bytes()[:-1])
    (photos / "one.txt").write_text("in the snow")
    with pytest.raises(PhotoError, match=r"one.txt: a caption of which photo\? one.jpg and one.png are called alike"):
        make_project(photos, sd1)


def test_a_caption_that_is_too_long_is_refused_and_never_cut(captioned, sd1):
    (captioned / "one.txt").write_text("in the snow " * 30)
    project = make_project(captioned, sd1, method="lora")
    with pytest.raises(PhotoError) as caught:
        run(project)
    assert caught.value.message.startswith("the caption of one.jpg is too long: the model reads only 77 tokens of")
    assert 'of "a photo of a sks dog in the snow in the snow' in caught.value.message
    assert project.runs() == []


def test_the_longest_caption_that_is_read_whole_is_taken(captioned, sd1):
    tokenizer = load_tokenizer(sd1)
    room = 77 - 2 - len(tokenizer.encode("a photo of a sks dog", add_special_tokens=False).ids)
    (captioned / "one.txt").write_text("of " * room)
    run(make_project(captioned, sd1, name="fits", method="lora"))
    (captioned / "one.txt").write_text("of " * (room + 1))
    with pytest.raises(PhotoError):
        run(make_project(captioned, sd1, name="not", method="lora"))


def test_words_about_the_subject_and_the_identifier_are_warned_about(captioned, sd1):
    (captioned / "one.txt").write_text("a brown dog in the snow")
    (captioned / "four.txt").write_text("sks on a red rug")
    project = make_project(captioned, sd1, method="lora")
    told = [warning.message for warning in of_kind(run(project), Warned) if "caption" in warning.message]
    assert [message.partition(": ")[0] for message in told] == [
        'the caption of four.png, "sks on a red rug"',
        'the caption of one.jpg, "a brown dog in the snow"',
    ]
    assert "repeats sks" in told[0]
    assert "(dog, brown)" in told[1]


# ---- with a folder of photos


def test_captions_come_and_go_with_the_folder(captioned, sd1):
    project = make_project(captioned, sd1)
    assert (project.photos / "one.txt").read_text() == CAPTIONS["one.jpg"]
    (captioned / "one.txt").write_text("in the rain")
    (captioned / "four.txt").unlink()
    (captioned / "two.txt").write_text("at night")
    notes = [event.message for event in of_kind(list(add_photos(project, captioned)), Noted)]
    assert notes == [
        f"brought up to date in project {project.name}: one.txt, two.txt",
        f"no longer used in project {project.name}, but kept: four.txt",
    ]
    assert (project.photos / "four.txt").is_file()
    assert {type(event) for event in add_photos(project, captioned)} == {PhaseStarted, PhotoRead}  # nothing is said
    run(project, method="lora")
    assert captions_of(project) == {"one.jpg": "in the rain", "two.jpg": "at night"}
