"""`generate`: from every kind of model, with a record in each picture of how it was made, and nothing overwritten."""

import gc
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from dreambooth_cli.cli.interactive import HELP, draw_by_hand
from dreambooth_cli.disk import temporary
from dreambooth_cli.errors import DoesNotFit, DreamboothError, ModelUnavailable, ProjectError, UsageError
from dreambooth_cli.events import GridSaved, ImageSaved, Noted, PageWritten, PhaseStarted, Warned
from dreambooth_cli.identifier import load_tokenizer, unread_part
from dreambooth_cli.paths import projects_folder
from dreambooth_cli.photos.picture import MOST_GRID, Grid
from dreambooth_cli.project import KEPT, clear_up, keep, list_projects, open_project, project_of, remove_project
from dreambooth_cli.settings import GenerateSettings, TrainSettings
from dreambooth_cli.source import Source
from dreambooth_cli.text import shortened
from dreambooth_cli.workflows.compare import compare, differences, prompts_of
from dreambooth_cli.workflows.deliver import deliver
from dreambooth_cli.workflows.generate import draw_one, generate
from tests.forked import forks, run_forked
from tests.workflows.projects import make_project, of_kind, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, sd1):
    """A finished full run and a finished LoRA run: their projects. Made once, read only."""
    from tests.conftest import draw_photo

    patch = pytest.MonkeyPatch()
    home = tmp_path_factory.mktemp("home")
    patch.setenv("DREAMBOOTH_HOME", str(home))
    photos = home / "photos"
    photos.mkdir()
    for number in range(3):
        draw_photo(photos / f"{number}.png", (80, 80), seed=number)
    full, lora = (make_project(photos, sd1, name=method, method=method, steps=1) for method in ("full", "lora"))
    run(full), run(lora)
    yield full, lora
    patch.undo()


def make(path, prompt="a [identifier] dog", *, base=None, identifier=None, folder, grid=False, **settings):
    values = GenerateSettings(**({"seed": 1, "steps": 2} | settings))
    return list(generate(Source(path, base, identifier), prompt, values, output_dir=folder, grid=grid))


def pictures(events):
    return [event.path for event in of_kind(events, ImageSaved)]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_picture_tells_how_it_was_made(trained, tmp_path):
    (path,) = pictures(make(trained[0].runs()[0].model, folder=tmp_path, negative_prompt="blurry [red]"))
    with Image.open(path) as image:
        text = image.text
    assert text["prompt"] == "a sks dog"
    assert text["negative_prompt"] == "blurry [red]"
    assert text["seed"] == "1"
    assert text["steps"] == "2"
    assert text["scheduler"] == "PNDMScheduler"
    assert text["size"] == "64x64"
    assert text["model"] == "model"


def test_a_picture_of_a_project_names_project_and_run(trained, tmp_path):
    (path,) = pictures(make(trained[0].runs()[0].path, folder=tmp_path))
    with Image.open(path) as image:
        assert image.text["model"] == "full run 1"


def test_image_i_uses_seed_plus_i(trained, tmp_path):
    model = trained[0].runs()[0].model
    events = make(model, folder=tmp_path, num_images=3, seed=7)
    assert [event.seed for event in of_kind(events, ImageSaved)] == [7, 8, 9]
    (alone,) = pictures(make(model, folder=tmp_path / "alone", seed=8))
    assert np.array_equal(pixels(pictures(events)[1]), pixels(alone))


def test_a_batch_gives_the_same_pictures_up_to_rounding(trained, tmp_path):
    model = trained[0].runs()[0].model
    one = pictures(make(model, folder=tmp_path / "one", num_images=3))
    three = pictures(make(model, folder=tmp_path / "three", num_images=3, batch_size=2))
    for first, second in zip(one, three, strict=True):
        assert np.abs(pixels(first).astype(int) - pixels(second).astype(int)).max() <= 1


def test_nothing_is_overwritten(trained, tmp_path):
    model = trained[0].runs()[0].model
    first, second = pictures(make(model, folder=tmp_path)), pictures(make(model, folder=tmp_path))
    assert first != second
    assert first[0].read_bytes() == second[0].read_bytes()


def test_the_grid_holds_all_of_them(trained, tmp_path):
    events = make(trained[0].runs()[0].model, folder=tmp_path, num_images=3, grid=True)
    (grid,) = of_kind(events, GridSaved)
    with Image.open(grid.path) as sheet:
        assert sheet.size == (192 * 2 + 4, (192 + 42) * 2 + 4)  # three times as large, with two lines beneath
        shown = np.asarray(sheet)
        assert np.array_equal(shown[1:192:3, 1:192:3], pixels(pictures(events)[0]))
        assert (shown[192:234, :192] < 128).any()
        assert (shown[192 + 234 + 4 :, 196:] == 255).all()  # there is no fourth


def test_a_seed_is_drawn_and_said(trained, tmp_path):
    events = make(trained[0].runs()[0].model, folder=tmp_path, seed="auto")
    (image,) = of_kind(events, ImageSaved)
    assert any(f"--seed {image.seed}" in event.message for event in of_kind(events, Noted))


@pytest.mark.parametrize("name", ["ddim", "euler-a", "dpm++"])
def test_schedulers_by_name(name, trained, tmp_path):
    (path,) = pictures(make(trained[0].runs()[0].model, folder=tmp_path, scheduler=name))
    with Image.open(path) as image:
        assert (
            image.text["scheduler"]
            .lower()
            .startswith({"ddim": "ddim", "euler-a": "eulerancestral", "dpm++": "dpmsolver"}[name])
        )


def test_size_is_the_trained_one_or_as_asked(trained, tmp_path):
    (path,) = pictures(make(trained[0].runs()[0].model, folder=tmp_path, width=96, height=48))
    assert pixels(path).shape == (48, 96, 3)


@pytest.mark.parametrize("place", ["run", "model", "lora file", "lora folder", "base"])
def test_every_kind_of_model_draws(place, trained, sd1, tmp_path):
    full, lora = (project.runs()[0] for project in trained)
    path = {
        "run": full.path,
        "model": full.model,
        "lora folder": lora.model,
        "base": sd1,
        "lora file": lora.model / "pytorch_lora_weights.safetensors",
    }[place]
    base = str(sd1) if place == "lora file" else None
    identifier = "sks" if place in ("base", "lora file") else None
    assert len(pictures(make(path, folder=tmp_path, base=base, identifier=identifier))) == 1


def test_prompts_that_forget_the_subject_are_drawn_with_a_word(trained, tmp_path):
    events = make(trained[0].runs()[0].model, "the moon", folder=tmp_path)
    assert len(pictures(events)) == 1
    said = " ".join(event.message for event in of_kind(events, Noted))
    assert "[identifier]" in said
    assert "dog" in said


def test_the_placeholder_without_a_card_is_refused(sd1, tmp_path):
    with pytest.raises(UsageError) as caught:
        make(sd1, folder=tmp_path)
    assert caught.value.exit_code == 2
    assert "--identifier" in caught.value.hint


def test_a_lora_without_a_card_needs_its_base(trained, tmp_path):
    file = shutil.copy(trained[1].runs()[0].model / "pytorch_lora_weights.safetensors", tmp_path / "my.safetensors")
    with pytest.raises(UsageError) as caught:
        make(tmp_path / "my.safetensors", "a dog", folder=tmp_path)
    assert "--model" in caught.value.hint
    assert file


def test_a_lora_file_with_its_card_beside_it_needs_nothing_more(trained, tmp_path):
    assert len(pictures(make(trained[1].runs()[0].model / "pytorch_lora_weights.safetensors", folder=tmp_path))) == 1


def test_a_picture_that_no_memory_holds_is_refused_before_it_is_drawn(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("dreambooth_cli.engine.images.sampling.free_memory", lambda: 10**9)
    settings = GenerateSettings(seed=0, steps=1, width=16384, height=16384)
    drawn = generate(Source(trained[0].runs()[0].model), "a dog", settings, output_dir=tmp_path)
    with pytest.raises(DoesNotFit, match="16384 x 16384") as caught:
        list(drawn)
    assert "--width" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@forks
def test_memory_that_runs_out_is_said(trained, tmp_path):
    """In a process whose address space is limited before it draws a picture of 4096 x 4096 pixels."""
    settings = GenerateSettings(seed=0, steps=1, width=4096, height=4096)

    def work():
        from resource import RLIMIT_AS, setrlimit

        try:
            for event in generate(Source(trained[0].runs()[0].model), "a dog", settings, output_dir=tmp_path):
                if isinstance(event, PhaseStarted) and event.name == "drawing":
                    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
                    setrlimit(RLIMIT_AS, (used + 200_000_000,) * 2)
        except DreamboothError as error:
            print(error.hint)
            return error.exit_code
        return 0

    code, printed = run_forked(work, tmp_path / "printed")
    assert code == 4, printed
    assert "--batch-size 1" in printed


def test_a_lora_for_another_family_is_refused_in_words(trained, sdxl, tmp_path):
    file = trained[1].runs()[0].model / "pytorch_lora_weights.safetensors"
    with pytest.raises(ModelUnavailable) as caught:
        make(file, "a dog", base=str(sdxl), folder=tmp_path)
    assert "trained on this base" in caught.value.hint


def test_no_model_there(tmp_path):
    with pytest.raises(ModelUnavailable) as caught:
        make(tmp_path / "nowhere", folder=tmp_path)
    assert "--model-path" in caught.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelUnavailable) as caught:
        make(tmp_path / "empty", "a dog", folder=tmp_path)
    assert "neither" in caught.value.message


def test_what_is_no_model_is_told_before_the_prompt_is_read(trained, sd1, tmp_path):
    project = trained[0]
    for path, words in (
        (sd1 / "unet" / "config.json", "config.json"),
        (sd1 / "tokenizer", "holds neither a diffusers model nor a LoRA"),
        (tmp_path, "holds neither a diffusers model nor a LoRA"),
        (project.path, "is a project's folder"),
        (Path(f"file:{sd1}"), "there is no model at"),
    ):
        with pytest.raises(ModelUnavailable, match=re.escape(words)) as caught:
            make(path, folder=tmp_path / "out")
        assert caught.value.hint
    assert f"--model-path '{sd1}'" in caught.value.hint


def test_a_base_for_a_whole_model_is_said_to_be_left_out(trained, tmp_path):
    model = trained[0].runs()[0].model
    events = make(model / "dreambooth.json", base="pocket", folder=tmp_path, seed=0, steps=1)
    assert of_kind(events, ImageSaved)
    assert any("--model pocket is ignored" in event.message for event in of_kind(events, Warned))


def test_an_unfinished_run_says_how_to_finish_it(trained, tmp_path):
    shutil.copytree(trained[0].runs()[0].path, tmp_path / "1", ignore=shutil.ignore_patterns("model"))
    with pytest.raises(ModelUnavailable) as caught:
        make(tmp_path / "1", folder=tmp_path)
    assert "no finished model" in caught.value.message


def test_a_damaged_card_is_told(trained, tmp_path):
    shutil.copytree(trained[0].runs()[0].model, tmp_path / "model")
    (tmp_path / "model" / "dreambooth.json").write_text('{"identifier": 3}')
    with pytest.raises(ProjectError) as caught:
        make(tmp_path / "model", folder=tmp_path)
    assert "dreambooth.json" in caught.value.message


def test_a_black_picture_is_said_to_be_black(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(trained[0].runs()[0].model, tmp_path / "model")
    weights = tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["decoder.conv_out.bias"] -= 1e4
    weights.unlink()
    save_file(tensors, weights, metadata={"format": "pt"})
    events = make(tmp_path / "model", folder=tmp_path / "out")
    assert len(pictures(events)) == 1
    assert any("is black" in event.message for event in of_kind(events, Warned))


def test_a_model_whose_weights_are_not_finite_is_refused_by_name(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(trained[0].runs()[0].model, tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_out.weight"] = tensors["conv_out.weight"] * float("nan")
    weights.unlink()
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelUnavailable, match=r"conv_out\.weight holds numbers that are not finite"):
        make(tmp_path / "model", folder=tmp_path / "out")


def test_odd_prompts_come_through(trained, tmp_path):
    prompt = "a [identifier] dog [red]\x07 \u202eabc\u202c " + "very " * 200
    events = make(trained[0].runs()[0].model, prompt, folder=tmp_path)
    (path,) = pictures(events)
    assert len(path.name.encode()) < 255
    with Image.open(path) as image:
        assert image.text["prompt"].startswith("a sks dog [red]")


def test_what_is_said_to_be_cut_is_what_the_model_does_not_read(trained, tmp_path, sd1):
    from diffusers import StableDiffusionPipeline

    prompt = "a sks dog " + "of " * 120 + "zxq photo"  # a token a word, whichever the vocabulary
    events = make(trained[0].runs()[0].model, prompt, folder=tmp_path)
    (told,) = [event.message for event in of_kind(events, Warned) if "77 tokens" in event.message]
    cut = unread_part(prompt, load_tokenizer(sd1))
    assert cut.endswith("zxq photo")
    assert f'cut off: "{shortened(cut)}"' in told
    pipe = StableDiffusionPipeline.from_pretrained(sd1, safety_checker=None, feature_extractor=None)
    read, whole, less = (
        pipe.encode_prompt([text], "cpu", 1, False)[0]
        for text in (prompt[: -len(cut)], prompt, prompt[: -len(cut) - 5])
    )
    assert read.equal(whole)
    assert not less.equal(whole)


def test_a_negative_prompt_that_is_too_long_is_said_too(trained, tmp_path):
    events = make(trained[0].runs()[0].model, folder=tmp_path, negative_prompt="blurry " * 80)
    assert any('the prompt "blurry' in event.message for event in of_kind(events, Warned))


@pytest.mark.parametrize(("prompt", "identifier"), [("a dog \udcff", None), ("a [identifier] dog", "\udce9")])
def test_a_prompt_that_is_no_text_is_refused(prompt, identifier, trained, tmp_path):
    with pytest.raises(UsageError, match="not UTF-8"):
        make(trained[0].runs()[0].model, prompt, identifier=identifier, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


CARD_FAULTS = {
    "identifier": "\ud800",
    "class_prompt": None,
    "resolution": True,
    "settings": {},
    "base": {"name": "x", "repository": None, "path": None, "identity": ""},
    "steps": "7",
    "plan": [],
}


@pytest.mark.parametrize("name", CARD_FAULTS)
def test_a_card_with_a_value_of_the_wrong_kind_is_told(name, trained, tmp_path):
    shutil.copytree(trained[1].runs()[0].model, tmp_path / "model")
    card = tmp_path / "model" / "dreambooth.json"
    whole = json.loads(card.read_text())
    for damaged in (whole | {name: CARD_FAULTS[name]}, {key: value for key, value in whole.items() if key != name}):
        card.write_text(json.dumps(damaged))
        with pytest.raises(ProjectError) as caught:
            make(tmp_path / "model", folder=tmp_path)
        assert str(card) in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize("base", [{"identity": "../../../outside"}, {"name": 3}, {"repository": ["a/b"]}, {"repository": "~"}])
def test_a_card_can_name_no_place_outside(base, trained, tmp_path):
    shutil.copytree(trained[1].runs()[0].model, tmp_path / "model")
    card = tmp_path / "model" / "dreambooth.json"
    whole = json.loads(card.read_text())
    card.write_text(json.dumps(whole | {"base": whole["base"] | base}))
    with pytest.raises(ProjectError):
        make(tmp_path / "model", folder=tmp_path)


def test_a_place_that_cannot_be_written_is_told_before_the_model_is_loaded(trained, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    model = trained[0].runs()[0].model
    for place, why in (
        (tmp_path / "file", "is a file, not a folder"),
        (tmp_path / "link", "is a file, not a folder"),
        (tmp_path / "file" / "in" / "it", f"can't be written: {tmp_path}/file is a file"),
        (Path("/proc/pictures"), "can't be written"),
        (tmp_path / ("x" * 300), "can't be written: File name too long"),
    ):
        events = generate(Source(model), "a dog", GenerateSettings(), output_dir=place)
        seen = []
        with pytest.raises(UsageError) as caught:
            seen.extend(events)
        assert caught.value.message.startswith(f"{place} {why}")
        assert caught.value.hint == "name another folder: --output-dir ./pictures"
        assert of_kind(seen, PhaseStarted) == []
    assert (tmp_path / "file").read_text() == "mine"


CHECK = """
import os, sys
from pathlib import Path
from dreambooth_cli.disk import check_folder
from dreambooth_cli.errors import UsageError
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
for name in ("locked/pictures", "hidden/pictures/in"):
    try:
        check_folder(Path(sys.argv[1]) / name, "hint")
    except UsageError as error:
        print(error.message)
"""


def test_a_place_without_rights_is_told_before_the_model_is_loaded():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "locked").mkdir(mode=0o555)
        (folder / "hidden").mkdir(mode=0o000)
        done = subprocess.run([sys.executable, "-c", CHECK, name], capture_output=True, text=True, check=True)
        (folder / "hidden").chmod(0o755)
    assert done.stdout.splitlines() == [
        f"{folder}/locked/pictures can't be written: {folder}/locked does not allow it",
        f"{folder}/hidden/pictures/in can't be written: Permission denied",
    ]


@pytest.mark.slow
def test_pictures_are_not_kept_in_memory(trained, tmp_path):
    """Each is on disk and freed before the next one is drawn; the sheet has them all."""
    settings = GenerateSettings(seed=1, steps=1, num_images=6, width=256, height=256)
    source, alive = Source(trained[0].path / "runs/1"), []
    for event in generate(source, "a dog", settings, output_dir=tmp_path, grid=True):
        if isinstance(event, ImageSaved):
            assert event.path.is_file()
            alive.append(sum(issubclass(type(thing), Image.Image) and thing.size == (256, 256) for thing in gc.get_objects()))
    assert len(alive) == 6
    assert alive[-1] <= alive[0]


def test_a_sheet_stays_a_sheet():
    grid = Grid(5000, (1024, 1024))
    assert grid.sheet.width * grid.sheet.height <= MOST_GRID
    assert 100 < grid.tile[0] == grid.tile[1] < 113
    red = Image.new("RGB", grid.tile, "red")
    grid.add(Image.new("RGB", (1024, 1024), "blue"))
    for _ in range(4999):
        grid.add(red)
    assert grid.sheet.getpixel((0, 0)) == (0, 0, 255)
    assert grid.sheet.getpixel((grid.sheet.width - 1, 4)) == (255, 0, 0)
    assert Grid(60, (1024, 1024)).tile == (996, 996)
    assert Grid(49, (1024, 1024)).tile == (1024, 1024)
    wide = Grid(1000, (2048, 256))
    assert wide.sheet.width * wide.sheet.height <= MOST_GRID
    assert abs(wide.tile[0] / wide.tile[1] - 8) < 0.2
    with pytest.raises(UsageError, match="1,000,000 pictures are too many for one grid"):
        Grid(1_000_000, (512, 512))


def test_what_a_grid_makes_of_many_pictures_is_said_before_they_are_drawn(trained, tmp_path):
    settings = GenerateSettings(seed=1, steps=1, num_images=2000, width=1024, height=1024)
    source, said = Source(trained[0].path / "runs/1"), []
    for event in generate(source, "a dog", settings, output_dir=tmp_path, grid=True):
        said += [event.message] if isinstance(event, Noted) else []
        if isinstance(event, PhaseStarted):
            break
    assert any("each picture is shown there at" in line for line in said)


@pytest.fixture
def copied(trained, tmp_path, monkeypatch):
    """The full run's project in a home of its own with copies of the trained projects."""
    shutil.copytree(trained[0].path.parent.parent, tmp_path / "home")
    monkeypatch.setenv("DREAMBOOTH_HOME", str(tmp_path / "home"))
    return open_project("full")


DRAW = """
import sys
from pathlib import Path
from dreambooth_cli.project import Project, keep
with keep(Project(Path(sys.argv[1]))):
    print("drawing", flush=True)
    sys.stdin.readline()
"""


def test_a_project_is_not_removed_while_it_is_drawn_with(copied):
    events = generate(
        Source(copied.runs()[0].path),
        "a dog",
        GenerateSettings(seed=1, steps=1, num_images=2),
        output_dir=copied.images,
    )
    next(event for event in events if isinstance(event, ImageSaved))
    in_use = f"project full is in use by process {os.getpid()}, which draws pictures"
    with pytest.raises(ProjectError, match=in_use):
        remove_project(copied)
    # another drawing, and a run, go on beside it
    with copied.lock():
        make(copied.runs()[0].path, folder=copied.images)
    list(events)
    assert len(list(copied.images.glob("*.png"))) == 3
    assert list(copied.path.glob(f"{KEPT}*")) == []
    # by another process, which is killed then
    other = subprocess.Popen(
        [sys.executable, "-c", DRAW, str(copied.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "drawing\n"
    with pytest.raises(ProjectError) as caught:
        remove_project(copied)
    assert caught.value.message == f"project full is in use by process {other.pid}, which draws pictures"
    assert caught.value.exit_code == 3
    assert copied.config.is_file()
    other.kill()
    other.communicate()
    remove_project(copied)
    assert [project.name for project in list_projects()] == ["lora"]
    assert [path.name for path in projects_folder().iterdir()] == ["lora"]


def test_who_was_killed_while_drawing_leaves_nothing(copied):
    left = copied.path / f"{KEPT}999999-{'0' * 32}"
    left.touch()
    with keep(copied):
        assert left.exists()  # a young one may be about to be locked
    os.utime(left, (0, 0))
    with keep(copied):
        assert not left.exists()
    remove_project(copied)
    with pytest.raises(ProjectError, match="has just been removed"), keep(copied):
        pass
    assert not copied.path.exists()


def test_a_picture_says_its_run_and_its_step(trained, tmp_path):
    """In its name, in its text chunks, and in the form that other tools read."""
    for project in trained:
        run = project.runs()[0]
        (path,) = pictures(make(run.path, folder=tmp_path, seed=3, negative_prompt="fog"))
        assert path.name == f"a-sks-dog-run1-seed3{'' if project == trained[0] else '-2'}.png"
        with Image.open(path) as image:
            text = image.text
        assert (text["run"], text["model"]) == ("1", f"{project.name} run 1")
        said, negative, told = text["parameters"].splitlines()
        assert (said, negative) == ("a sks dog", "Negative prompt: fog")
        assert told == (
            f"Steps: 2, Sampler: PLMS, CFG scale: 7.5, Seed: 3, Size: 64x64, Model: {project.name} run 1, Version: dreambooth"
        )


def test_a_step_of_a_run_draws_as_its_model_did(trained, tmp_path):
    """The last checkpoint's weights, put into the base, are the finished model."""
    for project in trained:
        run = project.runs()[0]
        (whole,) = pictures(make(run.path, folder=tmp_path / project.name))
        events = list(
            generate(Source(run.path, step=1), "a [identifier] dog", GenerateSettings(seed=1, steps=2), output_dir=tmp_path / project.name)
        )
        (step,) = pictures(events)
        assert step.name == "a-sks-dog-run1-step1-seed1.png"
        assert np.array_equal(pixels(whole), pixels(step))
        (plain,) = pictures(make(Path(str(run.record().base.path)), "a sks dog", folder=tmp_path / "base"))
        assert not np.array_equal(pixels(plain), pixels(step))
        with Image.open(step) as image:
            assert (image.text["run"], image.text["run_step"]) == ("1", "1")


def test_by_hand_it_is_one_start_and_what_is_wrong_is_said(trained, tmp_path, monkeypatch, capsys):
    """`-i` with lines from a pipe: prompts, `:seed`, `:again`, and typing errors."""
    words = ":help\n:again\n:seed 7\na [identifier] dog\n\n:again\na [identifer] dog\n:nothing\n:seed x\n"
    words += "the [identifier] dog\n:quit\na dog\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(words))
    run = trained[0].runs()[0]
    settings = GenerateSettings(steps=1)
    draw_by_hand(Source(run.path), [], settings, partial(draw_one, output_dir=tmp_path, grid=None), json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    drawn = [(line["prompt"], line["seed"]) for line in lines if line["event"] == "image"]
    assert drawn == [("a sks dog", 7), ("a sks dog", 8), ("the sks dog", 7)]
    assert [line["name"] for line in lines if line["event"] == "phase"] == ["loading the model", "drawing", "drawing", "drawing"]
    wrong = " ".join(line["message"] for line in lines if line["event"] == "warning")
    for part in ("nothing has been drawn yet", "[identifer]", "there is no command :nothing", ":seed can't be 'x'"):
        assert part in wrong
    assert [line["message"] for line in lines if line["event"] == "note"].count(HELP) == 2


def test_runs_side_by_side_are_one_sheet_and_one_page(copied):
    run = copied.runs()[0]
    settings = GenerateSettings(seed=3, steps=1)
    events = list(compare(copied, [run, run], ["a [identifier] dog", "the [identifier] dog"], settings))
    (sheet,), (written,) = of_kind(events, GridSaved), of_kind(events, PageWritten)
    with Image.open(sheet.path) as image:
        assert image.size == (192 * 2 + 4, (192 + 42) * 2 + 4)
    text = written.path.read_text()
    assert text.count("<img ") == 4
    assert "http://" not in text and "https://" not in text  # noqa: PT018 - one question
    assert differences([run.record(), replace(run.record(), asked={"subject": {}, "train": {**run.record().asked["train"], "rank": 9}})])


def test_runs_are_compared_in_places_unless_their_prompt_names_one(copied):
    record = copied.runs()[0].record()
    boxed = replace(record.prompts, identifier="ox", instance="a photo of a ox box", class_="a photo of a box")
    assert prompts_of(replace(record, prompts=boxed))[::3] == ["a photo of a [identifier] box", "a photo of a [identifier] box on the moon"]
    placed = replace(boxed, instance="a photo of a ox box in the snow", class_="a photo of a box in the snow")
    assert prompts_of(replace(record, prompts=placed)) == ["a photo of a [identifier] box in the snow"]


def test_several_prompts_are_one_start_and_each_has_the_same_seeds(trained, tmp_path):
    run, settings = trained[0].runs()[0], GenerateSettings(seed=5, steps=2, num_images=2)
    events = list(generate(Source(run.path), ["a [identifier] dog", "the [identifier] dog"], settings, output_dir=tmp_path, grid=None))
    assert [(event.prompt, event.seed) for event in of_kind(events, ImageSaved)] == [
        ("a sks dog", 5), ("a sks dog", 6), ("the sks dog", 5), ("the sks dog", 6)
    ]  # fmt: skip
    assert [event.name for event in of_kind(events, PhaseStarted)] == ["loading the model", "drawing"]
    assert len(of_kind(events, GridSaved)) == 1
    with pytest.raises(UsageError, match="identifer"):
        list(generate(Source(run.path), ["a [identifier] dog", "a [identifer] dog"], settings, output_dir=tmp_path))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_is_delivered_and_drawn_follows_the_umask(method, trained, sd1, tmp_path):
    project = trained[method == "lora"]
    own = os.umask(0o027)
    try:
        list(deliver(project.runs()[0], tmp_path / "out", TrainSettings()))
        make(tmp_path / "out", base=str(sd1), folder=tmp_path / "pictures", num_images=2, grid=True)
    finally:
        os.umask(own)
    files = [path for folder in ("out", "pictures") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o640"}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_model_is_saved_as_the_umask_says(method, trained):
    files = [path for path in trained[method == "lora"].runs()[0].model.rglob("*") if path.is_file()]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o644"}
    assert oct(trained[0].path.parent.stat().st_mode & 0o777) == "0o700"


def test_nobody_s_files_in_the_folder_are_touched(trained, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    mine = [".video.999999.part", ".a-sks-dog-seed1.999999.part", ".dreambooth-notes", "a-sks-dog-seed1.png.part"]
    for name in mine:
        (folder / name).write_text("mine")
    (folder / "a-sks-dog-run1-seed1.png").symlink_to("nowhere")
    (folder / f".dreambooth-{'0' * 32}").write_text("ours, of a killed process")
    (drawn,) = pictures(make(trained[1].runs()[0].path, folder=folder))
    assert drawn.name == "a-sks-dog-run1-seed1-2.png"
    assert (folder / "a-sks-dog-run1-seed1.png").is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == sorted([*mine, drawn.name, "a-sks-dog-run1-seed1.png"])


def test_a_removal_that_was_killed_is_finished(copied):
    with temporary(projects_folder()) as name:
        half = name.with_name(f".dreambooth-{'0' * 32}")
        copied.path.rename(half)
        assert [project.name for project in list_projects()] == ["lora"]
        with FileLock(half.with_name(f"{half.name}.lock")):
            clear_up()  # it may still go on
            assert half.exists()
        clear_up()
        assert not half.exists()


def test_which_project_a_path_lies_in(copied, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for path in (copied.path, copied.images / "not" / "there", tmp_path / "link" / "projects" / "full" / "runs"):
        assert project_of(path).path.resolve() == copied.path.resolve()
    for path in (projects_folder(), tmp_path, projects_folder() / "nobody"):
        assert project_of(path) is None


@pytest.mark.parametrize("spelling", ["[Identifier]", "< identifier >"])
def test_the_placeholder_is_filled_in_however_it_is_spelled(spelling, trained, tmp_path):
    model = trained[0].runs()[0].model
    (path,) = pictures(make(model, f"a {spelling} dog", folder=tmp_path, negative_prompt=f"a {spelling} cat"))
    with Image.open(path) as image:
        assert (image.text["prompt"], image.text["negative_prompt"]) == ("a sks dog", "a sks cat")
    for words in ({"prompt": "an [identifer] dog"}, {"negative_prompt": "an [identifer] dog"}, {"identifier": spelling}):
        with pytest.raises(UsageError):
            make(model, folder=tmp_path, **words)
