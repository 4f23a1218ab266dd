"""Everything else that the tool does with a base, done with one run for each family on a base fetched from a hub on loopback."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from torch.testing import assert_close

from dreambooth_cli.bases.catalog import CatalogEntry, find_entry
from dreambooth_cli.cli.app import run as run_command
from dreambooth_cli.config import ask, write_config
from dreambooth_cli.disk import OURS
from dreambooth_cli.engine.hub.eyes import CLIPS, DINOS
from dreambooth_cli.errors import UsageError
from dreambooth_cli.events import (
    Exported,
    GridSaved,
    ImageSaved,
    Noted,
    PageWritten,
    PhotosPrepared,
    Pushed,
    Rehearsed,
    RunEnded,
    RunJudged,
    SampleSaved,
    StepDone,
    StepJudged,
    VerdictTold,
)
from dreambooth_cli.export_order import Export, order_export
from dreambooth_cli.formats import Format
from dreambooth_cli.memory.plan import Job
from dreambooth_cli.memory.search import make_plan
from dreambooth_cli.model_card import read_card
from dreambooth_cli.order import continue_from
from dreambooth_cli.paths import cache_folder
from dreambooth_cli.project import Project
from dreambooth_cli.settings import GenerateSettings, SubjectSettings
from dreambooth_cli.source import Source
from dreambooth_cli.workflows import judging, rehearsal
from dreambooth_cli.workflows.compare import compare
from dreambooth_cli.workflows.export import export
from dreambooth_cli.workflows.generate import generate
from dreambooth_cli.workflows.prepare import prepared_photos
from dreambooth_cli.workflows.pull import pull
from dreambooth_cli.workflows.push import push
from dreambooth_cli.workflows.train import train
from tests import small_models
from tests.hub_server import HubServer, serve_hub, use_hub
from tests.small_flow import KINDS, build
from tests.workflows.projects import asked_of, make_project, model_of, of_kind, run

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FOUR = {"steps": 4, "checkpoint_every": 2, "sample_every": 2, "sample_steps": 1, "batch_size": 2, "identifier": "zibo"}
DOUBLE = "flux-2-klein-base-4b.safetensors"  # the transformer once more, as its makers' own programs read it


@dataclass(frozen=True)
class Whole:
    """A run on a catalogue base, its events, and the hub that the base comes from."""

    entry: CatalogEntry
    project: Project
    events: list[Any]
    hub: HubServer
    folder: Path


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory, drawn_photos):
    """The run, on photos of several sizes, one with a caption, one with a mask. All tests of it share its home folders."""
    folder, entry = tmp_path_factory.mktemp(request.param), find_entry(request.param)
    assert entry is not None
    photos = Path(shutil.copytree(drawn_photos, folder / "photos"))
    (photos / "one.txt").write_text("in the snow")
    with Image.open(photos / "two.jpg") as photo:
        Image.new("L", photo.size, 255).save(photos / "two.mask.png")
    base = Path(shutil.copytree(request.getfixturevalue(request.param.replace("-", "_")), folder / "base"))
    shutil.copyfile(base / "transformer" / "diffusion_pytorch_model.safetensors", base / DOUBLE)
    with pytest.MonkeyPatch.context() as patch, serve_hub() as hub:
        homes(folder, patch)
        use_hub(hub, patch)
        patch.setattr(rehearsal, "FROM", 4)
        patch.setattr(judging, "FEW_STEPS", 1)
        patch.setattr(judging, "MOST_PICTURES", 3)
        hub.add(entry.repository, base, COMMIT)
        eyes = small_models.build_eyes(folder / "eyes")
        hub.add(CLIPS[0], eyes / "clip", "c" * 40)
        hub.add(DINOS[0], eyes / "dino", "d" * 40)
        list(pull(entry.name))
        project = make_project(photos, entry.name, name="whole", **FOUR)
        write_config(project.config, {"prep": {"crop": "none"}})
        yield Whole(entry, project, run(project), hub, folder)


def homes(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """The folders of the run's project and its base."""
    patch.setenv("DREAMBOOTH_HOME", str(folder / "data"))
    patch.setenv("HF_HOME", str(folder / "hf"))


@pytest.fixture(autouse=True)
def its_homes(whole, monkeypatch):
    homes(whole.folder, monkeypatch)


def test_what_is_fetched_is_what_is_read(whole):
    fetched = whole.hub.fetched()
    assert {"model_index.json", "transformer/diffusion_pytorch_model.safetensors"} <= fetched
    assert DOUBLE not in fetched


def test_its_photos_keep_their_sizes_captions_and_masks(whole):
    (ready,) = of_kind(whole.events, PhotosPrepared)
    photos = {photo.name: photo for photo in prepared_photos(whole.project)}
    assert {photo.into for photo in photos.values()} == set(ready.sizes)
    assert len(ready.sizes) > 2
    assert photos["one.jpg"].caption == "in the snow"
    assert photos["two.jpg"].mask is not None
    card = read_card(model_of(whole.events))
    assert sum(photo["mask"] for photo in card.photos) == 1
    assert [photo["caption"] for photo in card.photos if photo["caption"]] == ["in the snow"]


def test_it_is_rehearsed_sampled_judged_told_and_on_a_page(whole):
    (told,) = of_kind(whole.events, Rehearsed)
    assert told.step_seconds > 0
    assert [event.step for event in of_kind(whole.events, StepDone)] == [1, 2, 3, 4]
    assert {event.step for event in of_kind(whole.events, SampleSaved)} == {2, 4}
    assert [event.step for event in of_kind(whole.events, StepJudged)] == [2, 4]
    (judged,) = of_kind(whole.events, RunJudged)
    assert judged.best in (2, 4)
    (verdict,) = of_kind(whole.events, VerdictTold)
    assert verdict.of_class in ("kept", "drifting")
    (ended,) = of_kind(whole.events, RunEnded)
    page = ended.report.read_text(encoding="utf-8")
    assert whole.entry.title in page
    assert verdict.sentences[0] in page


def test_its_card_names_base_revision_and_twin(whole):
    card = read_card(model_of(whole.events))
    assert (card.base.repository, card.base.identity) == (whole.entry.repository, COMMIT)
    assert card.twin == whole.entry.twin
    assert (card.plan["rank"], card.settings["train"]["rank"]) == (4, 4)


def test_another_run_goes_on_from_it_and_both_are_compared(whole):
    asked = asked_of(whole.project.settings(), train={"steps": 1, "learning_rate": 1e-6, "weight_decay": 0.0, "sample_every": 0})
    events = list(train(whole.project, continue_from(whole.project, asked, 1)))
    assert "begins with the weights of run 1 after step" in " ".join(event.message for event in of_kind(events, Noted))
    first, second = (load_file(each.model / "pytorch_lora_weights.safetensors") for each in whole.project.runs())
    assert_close(second, first, rtol=0, atol=1e-5)
    compared = list(compare(whole.project, whole.project.runs(), ["a photo of a [identifier] dog"], GenerateSettings(steps=1)))
    assert of_kind(compared, GridSaved)
    (page,) = of_kind(compared, PageWritten)
    assert "learning rate" in page.path.read_text(encoding="utf-8")


@pytest.mark.parametrize("to", ["lora", "merged", "single-file"])
def test_it_is_exported_and_draws_the_same(whole, to: Format, tmp_path):
    source = Source(whole.project.runs()[0].path)
    (done,) = of_kind(list(export(source, order_export(Export(to, tmp_path / to)))), Exported)
    assert done.largest_difference < 1e-4
    asked = GenerateSettings(steps=1, seed=4)
    drawn = []
    for name, model in (("ours", source), ("exported", Source(done.path))):
        (saved,) = of_kind(list(generate(model, "a photo of a zibo dog", asked, output_dir=tmp_path / name)), ImageSaved)
        drawn.append(np.asarray(Image.open(saved.path), dtype=float))
    assert abs(drawn[0] - drawn[1]).max() <= 1


def test_what_a_killed_process_left_in_the_cache_goes_with_the_next_command(whole, tmp_path):
    source, left = Source(whole.project.runs()[0].path), cache_folder() / "digests" / f"{OURS}{'0' * 32}.lock"
    left.parent.mkdir(parents=True, exist_ok=True)
    for command in (
        lambda: generate(source, "a zibo dog", GenerateSettings(steps=1), output_dir=tmp_path / "drawn"),
        lambda: export(source, order_export(Export("lora", tmp_path / "lora"))),
    ):
        left.touch()
        list(command())
        assert not left.exists()


@pytest.mark.parametrize("to", ["kohya"])
def test_a_form_that_it_has_not_is_refused_before_any_work(whole, to: Format, tmp_path, capsys):
    source = Source(whole.project.runs()[0].path)
    with pytest.raises(UsageError, match="no kohya layout is known"):
        list(export(source, order_export(Export(to, tmp_path / "out" / "model"))))
    assert not list(tmp_path.glob("out/*"))
    runs = len(whole.project.runs())
    assert run_command(["train", whole.project.name, "--steps", "1", "--export", to]) == 2
    assert "no kohya layout is known" in capsys.readouterr().err
    assert len(whole.project.runs()) == runs


def test_it_is_pushed_with_its_licence(whole, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_unmistakable")
    known = len(whole.hub.commits)
    (done,) = of_kind(list(push(Source(whole.project.runs()[0].path), "me/dog", is_whole=False)), Pushed)
    assert done.address.endswith("me/dog")
    (files,) = whole.hub.commits[known:]
    assert f'license: "apache-2.0"\nbase_model: "{whole.entry.repository}"\n' in files["README.md"].decode()


def test_the_twin_that_its_card_names_draws_with_it(whole, tmp_path):
    asked = GenerateSettings(seed=5, fast=True)
    source = Source(whole.project.runs()[0].path)
    if whole.entry.twin is None:
        with pytest.raises(UsageError, match="no distilled twin of Z-Image is known to draw with a LoRA of its base"):
            list(generate(source, "a dog", asked, output_dir=tmp_path))
        return
    twin = build(whole.entry.name, whole.folder / "twin", seed=1, distilled=True)
    whole.hub.add(whole.entry.twin, twin, "e" * 40)
    (fetched,) = of_kind(list(generate(source, "a zibo dog", asked, output_dir=tmp_path / "fetched")), ImageSaved)
    (named,) = of_kind(list(generate(Source(source.path, str(twin)), "a zibo dog", asked, output_dir=tmp_path / "named")), ImageSaved)
    assert np.array_equal(np.asarray(Image.open(fetched.path)), np.asarray(Image.open(named.path)))


def test_a_folder_of_it_is_trained_as_the_catalogue_s_name_is(whole):
    """A family's defaults hold for its base wherever that is."""
    named, local = (ask({}, {SubjectSettings: {"model": model}}).train for model in (whole.entry.name, str(whole.folder / "base")))
    assert named == local
    facts = whole.entry.facts
    settings = local.of_family(facts.family)
    plan = make_plan(Job(facts, settings, resolution=512, gpu=None, has_8bit=False, name="it"))
    assert (plan.rank, plan.alpha, plan.learning_rate) == (32, 32.0, facts.family.rates.lora)
    assert settings.prior == "base"


def test_the_dry_run_says_what_the_run_did(whole, capsys):
    assert run_command(["train", whole.project.name, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])["plan"]
    was = whole.project.runs()[0].record().plan
    assert {key: plan[key] for key in ("method", "resolution", "largest", "rank", "learning_rate", "precision")} == {
        key: getattr(was, key) for key in ("method", "resolution", "largest", "rank", "learning_rate", "precision")
    }
