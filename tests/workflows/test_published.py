"""What leaves a project contains, in all its bytes, no path and no user's or machine's name; a LoRA finds its base all the same."""

import getpass
import json
import shutil
import signal
import socket
from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub.utils._xet import abort_xet_session
from PIL import Image

from dreambooth_cli import stopping
from dreambooth_cli.bases.catalog import CATALOG, find_entry
from dreambooth_cli.bases.metadata import read_header
from dreambooth_cli.bases.places import known_places
from dreambooth_cli.disk import sha256_of
from dreambooth_cli.engine.exports.proof import Proof
from dreambooth_cli.engine.hub.upload import upload
from dreambooth_cli.engine.saving import forget_places
from dreambooth_cli.errors import DiskError, ExportDiffers, Interrupted, ModelUnavailable, UsageError
from dreambooth_cli.events import Exported, ImageSaved, Noted, Pushed, SampleSaved, Warned
from dreambooth_cli.export_order import Export, order_export
from dreambooth_cli.model_card import read_card
from dreambooth_cli.model_readme import HUB_LICENCES, Shown, write_words
from dreambooth_cli.photos.picture import read_picture
from dreambooth_cli.project import open_project
from dreambooth_cli.push_order import order_push, shows_a_person
from dreambooth_cli.run import LORA_FILE, Run
from dreambooth_cli.settings import GenerateSettings, TrainSettings
from dreambooth_cli.source import Source
from dreambooth_cli.workflows.deliver import deliver
from dreambooth_cli.workflows.export import deliver as hand_over
from dreambooth_cli.workflows.export import export
from dreambooth_cli.workflows.generate import generate
from dreambooth_cli.workflows.push import push
from tests.cli import conftest as command_line
from tests.conftest import draw_photo
from tests.engine.plans import base_of
from tests.hub_server import serve_hub, use_hub
from tests.workflows.projects import make_project, of_kind, run

USER = "jane-unmistakable"
dreambooth = command_line.dreambooth  # the fixture


@pytest.fixture(scope="module")
def published(tmp_path_factory, sd1):
    """A full run and a LoRA by a user whose name is in every path: what was delivered, and the home. Read only."""
    patch = pytest.MonkeyPatch()
    home = tmp_path_factory.mktemp("homes") / USER
    (home / "photos").mkdir(parents=True)
    for name, value in (("HOME", home), ("DREAMBOOTH_HOME", home / "data"), ("USER", USER), ("HOSTNAME", f"{USER}-pc")):
        patch.setenv(name, str(value))
    for number in range(3):
        draw_photo(home / "photos" / f"{number}.png", (80, 80), seed=number)
    base = shutil.copytree(sd1, home / "my-base")
    shutil.copytree(home / "photos", home / "dogs")
    # as many bases on the hub are: the configs name where somebody made them
    for file in base.rglob("*.json"):
        if file.name not in ("vocab.json", "model_index.json"):
            added = {"_name_or_path": f"/home/{USER}/made/here", "special_tokens_map_file": f"/home/{USER}", "run_name": f"{USER}-7"}
            told = json.loads(file.read_text()) | added | {"of": {"who": USER}, "list": [USER]}
            file.write_text(json.dumps(told))
    with_samples = {"steps": 2, "checkpoint_every": 1, "keep": "all", "sample_every": 1, "sample_steps": 1, "class_data_dir": home / "dogs"}
    for method in ("full", "lora"):
        project = make_project(home / "photos", base, name=method, method=method, train_text_encoder=True, **with_samples)
        events = run(project, output_dir=home / f"out-{method}")
        assert of_kind(events, SampleSaved)
        pictures(home / f"out-{method}", home / f"pictures-{method}", grid=True)
        pictures(project.runs()[0].path, project.images)
    yield home
    patch.undo()


@pytest.fixture(scope="module")
def exported(published):
    """Exports of the two: their places and events."""
    made = {}
    for name, source, order in (
        ("whole", "full", Export("single-file", published / "exports" / "whole.safetensors", "fp16")),
        ("made", "full", Export("kohya", published / "exports" / "made.safetensors", rank=64)),
        ("lora", "lora", Export("lora", published / "exports" / "lora")),
        ("merged", "lora", Export("merged", published / "exports" / "merged", strength=0.5)),
    ):
        (published / "exports").mkdir(exist_ok=True)
        run = published / "data" / "projects" / source / "runs" / "1"
        made[name] = list(export(Source(run), order_export(order)))
    return made


def test_an_export_says_what_it_is_and_how_it_differs(exported, published):
    for name, events in exported.items():
        (done,) = of_kind(events, Exported)
        assert done.path.stem == name
        assert done.largest_difference < (0.02 if name == "whole" else 1e-4)
        if done.path.is_file():
            assert done.sha256 == sha256_of(done.path)
    assert {file.name for file in (published / "exports" / "merged").iterdir()} > {"README.md", "NOTICE", "dreambooth.json", "unet"}
    assert any("keeps 1" in event.message or "keeps 9" in event.message for event in of_kind(exported["made"], Noted))
    told = read_header(published / "exports" / "whole.safetensors")["__metadata__"]
    assert told["modelspec.thumbnail"].startswith("data:image/")
    assert (told["modelspec.trigger_phrase"], told["modelspec.resolution"]) == ("a photo of a sks dog", "64x64")
    assert (told["modelspec.architecture"], told["modelspec.prediction_type"]) == ("stable-diffusion-v1", "epsilon")
    assert "Its weights were changed" in told["notice"]
    with pytest.raises(UsageError, match="exists"):
        order_export(Export("single-file", published / "exports" / "whole"))


@pytest.mark.parametrize(("name", "of"), [("lora", "lora"), ("merged", "lora")])
def test_its_card_shows_what_the_run_has_drawn_and_its_verdict(name, of, exported, published):
    folder, run = published / "exports" / name, Run(published / "data" / "projects" / of / "runs" / "1")
    text = (folder / "README.md").read_text(encoding="utf-8")
    drawn = sorted(run.samples.glob("step-000002-*.png"))
    copies = sorted((folder / "samples").iterdir())
    assert [path.name for path in copies] == ["1.png", "2.png", "3.png"]
    for theirs, ours in zip(drawn, copies, strict=True):
        assert read_picture(ours).tobytes() == read_picture(theirs).tobytes()
        with Image.open(ours) as picture:
            assert picture.info.keys() == {"prompt", "seed", "step", "XML:com.adobe.xmp", "xmp"}
            assert f"| ![](samples/{ours.name}) | {picture.info['prompt']} |" in text
    assert all(sentence in text for sentence in run.record().sentences)
    (widget,) = [line for line in text.splitlines() if line.startswith("widget: ")]
    assert json.loads(widget.removeprefix("widget: "))[0] == {"text": "a photo of a sks dog", "output": {"url": "samples/1.png"}}


def test_of_a_step_the_card_shows_its_own_pictures_and_of_a_model_without_a_run_none(published, tmp_path):
    run = published / "data" / "projects" / "lora" / "runs" / "1"
    list(export(Source(run, step=1), Export("lora", tmp_path / "step")))
    assert read_picture(tmp_path / "step/samples/1.png").tobytes() == read_picture(run / "samples/step-000001-1.png").tobytes()
    assert "What it has learned" not in (tmp_path / "step/README.md").read_text()
    list(export(Source(published / "out-lora"), Export("lora", tmp_path / "alone")))
    assert not (tmp_path / "alone/samples").exists()
    assert "Samples" not in (tmp_path / "alone/README.md").read_text()


@pytest.mark.parametrize(
    ("project", "step", "to", "name"),
    [("full", 1, "single-file", "of-one"), ("lora", 1, "merged", "step"), ("lora", 2, "lora", "of-two"), ("full", 1, "kohya", "extracted")],
)
def test_the_command_exports_a_run_as_it_was_after_a_step(project, step, to, name, published, dreambooth, tmp_path, monkeypatch):
    """The event has what scripts read, and the export draws the same picture as the step."""
    monkeypatch.setenv("DREAMBOOTH_HOME", str(published / "data"))
    done = dreambooth("export", project, "--to", to, "-o", tmp_path / name, "--step", str(step), "--json")
    assert (done.code, done.err) == (0, "")
    told = done.lines[-1]
    place = tmp_path / (f"{name}.safetensors" if to in ("single-file", "kohya") else name)
    assert {key: told[key] for key in ("event", "path", "format")} == {"event": "exported", "path": str(place), "format": to}
    assert (told["largest_difference"] < 1e-4, len(told["sha256"])) == (True, 64)
    if place.is_file():
        assert told["sha256"] == sha256_of(place)
    assert [path.name for path in tmp_path.iterdir()] == [place.name], "nothing else is left"
    run = published / "data" / "projects" / project / "runs" / "1"
    (made,) = of_kind(pictures(place, tmp_path / "made"), ImageSaved)
    (wanted,) = of_kind(pictures(run, tmp_path / "wanted", step=step), ImageSaved)
    ours, theirs = (np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (made.path, wanted.path))
    assert abs(ours - theirs).max() <= (8 if to == "kohya" else 1)


def test_train_exports_at_the_end_and_once(published, dreambooth, tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMBOOTH_HOME", str(published / "data"))
    words = ("train", "lora", "--output-dir", tmp_path / "out", "--export", "kohya", "--json")
    told, place = dreambooth(*words).lines[-1], tmp_path / "out-kohya.safetensors"
    assert (told["event"], told["path"], told["format"], told["sha256"]) == ("exported", str(place), "kohya", sha256_of(place))
    assert f"{place} already exists" in dreambooth(*words).lines[-1]["message"]


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (("full", "-o", "dog"), 2, "UsageError"),
        (("full", "--to", "single-file"), 2, "UsageError"),
        (("full", "--to", "merged", "-o", "dog"), 2, "UsageError"),
        (("full", "--to", "single-file", "-o", "there.safetensors"), 2, "UsageError"),
        (("full", "--to", "single-file", "-o", "dog", "--step", "9"), 3, "ProjectError"),
        (("--model-path", "nowhere", "--to", "single-file", "-o", "dog"), 5, "ModelUnavailable"),
    ],
)
def test_the_command_refuses_before_any_work(words, code, kind, published, dreambooth, tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMBOOTH_HOME", str(published / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.safetensors").touch()
    done = dreambooth("export", *words, "--json")
    assert (done.code, done.lines[-1]["event"], done.lines[-1]["kind"]) == (code, "error", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["there.safetensors"]


def test_one_that_differs_lies_under_another_name(tmp_path):
    order = Export("single-file", tmp_path / "dog.safetensors")
    for name in ("dog.failed.safetensors", "dog.failed1.safetensors"):
        (tmp_path / "written").write_bytes(b"weights")
        with pytest.raises(ExportDiffers, match="one weight is another") as caught:
            list(hand_over(order, tmp_path / "written", Proof(0.5, "one weight is another")))
        assert name in caught.value.hint
        assert (tmp_path / name).read_bytes() == b"weights"
    assert not order.place.exists()
    assert ExportDiffers.exit_code == 1


@pytest.mark.parametrize("name", ["whole.safetensors", "made.safetensors", "lora", "merged"])
def test_what_was_exported_is_read_back(name, exported, published, tmp_path, monkeypatch):
    """Without naming its base or its subject, since the card is inside. A LoRA of everything that was learned draws like the model."""
    monkeypatch.setenv("DREAMBOOTH_HOME", str(published / "data"))
    (made,) = of_kind(pictures(published / "exports" / name, tmp_path / "out"), ImageSaved)
    assert made.prompt == "a sks dog"
    if name == "made.safetensors":
        (own,) = of_kind(pictures(published / "data/projects/full/runs/1", tmp_path / "own"), ImageSaved)
        ours, theirs = (np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (made.path, own.path))
        assert abs(ours - theirs).max() < 8


def pictures(path, folder, *, base=None, step=None, grid=False):
    settings = GenerateSettings(seed=1, steps=1, num_images=1)
    return list(generate(Source(path, base, step=step), "a [identifier] dog", settings, output_dir=folder, grid=grid))


def test_no_file_that_leaves_the_project_names_a_place_or_a_person(published, exported):
    private = [USER, published.parent.name, "pytest-of-"]
    private += [name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 5]
    folders = [published / f"{kind}-{method}" for kind in ("out", "pictures") for method in ("full", "lora")]
    for method in ("full", "lora"):
        project = published / "data" / "projects" / method
        folders += [project / part for part in ("images", "runs/1/model", "runs/1/samples", "prepared/contact-sheet.jpg")]
    folders.append(published / "exports")
    files = [file for folder in folders for file in ([folder] if folder.is_file() else folder.rglob("*")) if file.is_file()]
    assert len(files) > 40
    told = [f"{file}: {name}" for file in files for name in private if name.encode() in file.read_bytes()]
    for file in files:
        if file.suffix == ".png":  # its text may be packed
            with Image.open(file) as image:
                told += [f"{file}: {name}" for name in private if name in str(image.info)]
    assert told == []


def test_a_card_names_its_base_by_its_last_name_and_what_it_holds(published):
    for method in ("full", "lora"):
        card = read_card(published / f"out-{method}")
        assert (card.base.name, card.base.path, card.base.repository) == ("my-base", None, None)
        assert card.base.identity.startswith("sha256:")
        assert (card.settings["subject"]["model"], card.settings["subject"]["photos"]) == ("my-base", None)
        assert card.settings["train"]["class_data_dir"] is None
        assert card.settings["train"]["sample_steps"] == 1
        assert card.plan["name"] == "my-base"


def test_configs_lose_places_alone(tmp_path):
    values = {"a": 3, "act": "gelu", "pad_token": "/", "repo": "owner/name", "tokenizer_class": "CLIPTokenizer"}
    gone = {"name_or_path": "x", "cache": "/home/x/y", "map": "~/x/y", "win": "C:\\Users\\x", "w": "c:/users/x"}
    gone |= {"h": "/home/x", "from": "./runs/x", "up": "../x0", "net": "\\\\server\\x", "url": "file:///home/x", "in": {"a": ["/home/x"]}}
    (tmp_path / "tokenizer").mkdir()
    for name in ("tokenizer/tokenizer_config.json", "model_index.json"):
        (tmp_path / name).write_text(json.dumps(values | gone))
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps(gone))
    forget_places(tmp_path)
    assert json.loads((tmp_path / "tokenizer/tokenizer_config.json").read_text()) == values
    assert json.loads((tmp_path / "model_index.json").read_text()) == values
    assert json.loads((tmp_path / "tokenizer/vocab.json").read_text()) == gone


@pytest.fixture
def hub(monkeypatch):
    """A hub on loopback, and a token for it."""
    with serve_hub() as served:
        use_hub(served, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", "hf_unmistakable")
        yield served


def test_a_push_sends_the_model_with_its_card_and_goes_on_after_a_cut(published, exported, hub, tmp_path, monkeypatch):
    """The weights go to a store in a folder, by the Xet library of the hub's own client: the next push sends no chunk again."""
    source = Source(published / "data/projects/lora/runs/1")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its own tries
    hub.xet, hub.cut_uploads = f"local://{tmp_path}", 99
    with pytest.raises(DiskError, match="was cut") as caught:
        list(push(source, "me/lora", is_whole=False))
    assert "hf_unmistakable" not in caught.value.message
    chunks = {path: path.stat().st_mtime_ns for path in (tmp_path / "xet/xorbs/xorbs").iterdir()}
    assert chunks
    hub.cut_uploads = 0
    (done,) = of_kind(list(push(source, "me/lora", is_whole=False)), Pushed)
    assert (done.address, done.public, hub.created) == (f"{hub.url}/me/lora", False, {"me/lora": True})
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "xet/xorbs/xorbs").iterdir()} == chunks
    (files,) = hub.commits
    assert {"README.md", "NOTICE", "dreambooth.json"} | {f"samples/{number}.png" for number in (1, 2, 3)} <= files.keys()
    assert not [name for name, content in files.items() if USER.encode() in content]
    # the title in the header is the repository's own name, as the exported folder's is
    assert hub.pointers == {LORA_FILE: sha256_of(published / "exports/lora" / LORA_FILE)}
    hub.answer = 403
    with pytest.raises(ModelUnavailable, match="refuses"):
        list(push(source, "me/lora", is_whole=False))
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UsageError, match="no token"):
        list(push(source, "me/lora", is_whole=False))


@pytest.mark.parametrize(
    ("store", "refusal", "error", "words"),
    [
        ("local://nowhere", 403, ModelUnavailable, "refuses me/dog"),
        ("http://127.0.0.1:9", None, DiskError, "was cut off"),
        ("http://127.0.0.1:9", "stop", Interrupted, "Ctrl-C"),
    ],
)
def test_a_store_that_takes_no_weights_is_told(store, refusal, error, words, hub, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(1_000_000))
    abort_xet_session()  # of the session before: a new one reads how often it may try
    if refusal == "stop":
        monkeypatch.setattr(stopping, "_received", [signal.SIGINT])
    else:
        monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
        hub.xet_refusal = refusal
    hub.xet = store
    with pytest.raises(error, match=words) as caught:
        upload(tmp_path / "model", "me/dog", public=False)
    assert "unmistakable" not in f"{caught.value}{caught.value.__dict__}"
    assert hub.commits == []


@pytest.mark.parametrize("name", [entry.name for entry in CATALOG])
def test_a_model_s_folder_has_the_licence_of_its_base_and_a_notice(name, published, sd1, tmp_path):
    entry, card = find_entry(name), read_card(published / "out-full")
    base = replace(card.base, name=entry.name, repository=entry.repository)
    write_words(base_of(sd1), replace(card, base=base), tmp_path, Shown(), of_lora=False)
    notice, licence, readme = ((tmp_path / file).read_text(encoding="utf-8") for file in ("NOTICE", "LICENSE", "README.md"))
    assert "Its weights were changed" in notice
    assert f"The licence of {entry.title}, {entry.licence}" in notice
    assert ("restrictions on use" in notice) == ("restrictions on use" in readme) == ("Attachment A" in licence)
    assert ("Apache License" in licence) == (entry.licence == "Apache-2.0")
    assert f"license: {json.dumps(HUB_LICENCES[entry.licence])}\n" in readme
    for text in (notice, readme):
        assert "No content filter runs" in text
        assert "only with their consent" in text


def test_a_finished_model_says_that_its_base_s_licence_is_not_known(published):
    for folder in (published / "out-full", published / "data/projects/lora/runs/1/model"):
        assert "The licence of my-base is not known here" in (folder / "NOTICE").read_text()
        assert "The licence of my-base is not known here" in (folder / "README.md").read_text()
        assert not (folder / "LICENSE").exists()


def test_what_has_no_known_licence_is_not_pushed_and_a_person_is_known_by_the_noun(published):
    with pytest.raises(UsageError, match="licence of my-base is not known"):
        order_push(Source(published / "out-full"), "me/dog")
    card = read_card(published / "out-full")
    for noun in ("a dog", "a snowman", "a woman's hat", "a statue of a king", "perro"):
        assert not shows_a_person(replace(card, class_prompt=noun)), noun
    for noun in ("a photo of an old man", "a man in a suit", "my girlfriend", "two toddlers", "ladies", "a young woman doctor", "mujer"):
        assert shows_a_person(replace(card, class_prompt=noun)), noun


@pytest.fixture
def lora(published, tmp_path, monkeypatch):
    """The delivered LoRA in a home of the test's own, which remembers a copy of the base."""
    monkeypatch.setenv("DREAMBOOTH_HOME", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    place = shutil.copytree(published / "my-base", tmp_path / "my-base")
    told = (published / "data" / "bases.json").read_text().replace(str(published / "my-base"), str(place))
    (tmp_path / "data" / "bases.json").write_text(told)
    return shutil.copytree(published / "out-lora", tmp_path / "out-lora")


def test_the_base_is_found_where_it_has_lain(lora, tmp_path):
    assert of_kind(pictures(lora, tmp_path / "out"), ImageSaved)


def test_a_base_that_has_moved_is_named_with_what_to_do(lora, tmp_path):
    moved = (tmp_path / "my-base").rename(tmp_path / "moved")
    with pytest.raises(ModelUnavailable) as caught:
        pictures(lora, tmp_path / "out")
    identity = read_card(lora).base.identity
    for words in ("my-base", identity[:19], "no longer at", str(tmp_path / "my-base")):
        assert words in caught.value.message
    assert "--model" in caught.value.hint
    # named once, it is known again
    assert of_kind(pictures(lora, tmp_path / "out", base=str(moved)), Warned) == []
    assert next(iter(known_places(identity))) == moved
    assert of_kind(pictures(lora, tmp_path / "out"), ImageSaved)


def test_a_base_that_has_changed_is_named_with_what_to_do(lora, tmp_path, sd2):
    shutil.rmtree(tmp_path / "my-base")
    shutil.copytree(sd2, tmp_path / "my-base")
    with pytest.raises(ModelUnavailable, match=r"my-base.*has changed") as caught:
        pictures(lora, tmp_path / "out")
    assert "--model" in caught.value.hint
    (tmp_path / "my-base" / "unet" / "config.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"my-base.*can't be used"):
        pictures(lora, tmp_path / "out")


def test_on_another_machine_the_base_is_named(lora, tmp_path):
    (tmp_path / "data" / "bases.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"my-base.*does not know where") as caught:
        pictures(lora, tmp_path / "out")
    assert "--model" in caught.value.hint


def test_another_base_is_drawn_with_and_said(lora, tmp_path, sd1):
    other = shutil.copytree(sd1, tmp_path / "other")
    (other / "scheduler" / "scheduler_config.json").write_text(
        (other / "scheduler" / "scheduler_config.json").read_text().replace("0.012", "0.013")
    )
    told = of_kind(pictures(lora, tmp_path / "out", base=str(other)), Warned)
    assert any("my-base" in event.message for event in told)


def test_a_run_in_its_project_knows_its_base_without_the_memory(published, tmp_path, monkeypatch):
    project = shutil.copytree(published / "data" / "projects" / "lora", tmp_path / "lora")
    monkeypatch.setenv("DREAMBOOTH_HOME", str(tmp_path / "empty"))
    assert of_kind(pictures(project / "runs" / "1", tmp_path / "out"), ImageSaved)


def test_the_card_of_version_0_1_names_the_place_itself(kept_home, tmp_path):
    assert of_kind(pictures(kept_home / "out-lora", tmp_path / "out"), ImageSaved)
    (kept_home / "base").rename(kept_home / "elsewhere")
    with pytest.raises(ModelUnavailable, match=r"base.*no longer at") as caught:
        pictures(kept_home / "out-lora", tmp_path / "out")
    assert "--model" in caught.value.hint
    pictures(kept_home / "out-lora", tmp_path / "out", base=str(kept_home / "elsewhere"))
    assert of_kind(pictures(kept_home / "out-lora", tmp_path / "out"), ImageSaved), "named once, it is known"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_version_0_1_made_names_no_place_once_it_is_delivered(method, kept_home, tmp_path):
    list(deliver(open_project(method).runs()[0], tmp_path / "out", TrainSettings(save_dtype="fp32")))
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert [file for file in files if str(kept_home).encode() in file.read_bytes() or b"/kept/" in file.read_bytes()] == []
    assert (tmp_path / "out" / "dreambooth.json") in files
    assert of_kind(pictures(tmp_path / "out", tmp_path / "pictures"), ImageSaved)
