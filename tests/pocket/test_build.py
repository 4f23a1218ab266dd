"""The recipe: a stopped part goes on as if it had not been stopped; what it writes can be read back."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dreambooth_cli.pocket import build, parts, pictures

CPU = torch.device("cpu")


@pytest.fixture
def short(monkeypatch):
    """Four steps of a few rows for each part."""
    stages = {name: replace(stage, steps=4, batch=4) for name, stage in build.STAGES.items()}
    monkeypatch.setattr(build, "STAGES", stages)
    monkeypatch.setattr(build, "RECIPE", build.RECIPE.with_name("none.json"))


def few(folder):
    folder.mkdir()
    return pictures.Pictures(folder, 24)


def test_a_picture_file_that_was_cut_short_is_drawn_on(tmp_path):
    whole = few(tmp_path / "whole").pixels()
    part = few(tmp_path / "part")
    half = np.memmap(tmp_path / "part" / "pixels.u8", np.uint8, "w+", shape=whole.shape)
    half[:10] = whole[:10]
    half.flush()
    (tmp_path / "part" / "pixels.u8.drawn").write_text("10")
    assert np.array_equal(part.pixels(), whole)
    assert len(np.unique(whole.reshape(24, -1), axis=0)) == 24


@pytest.mark.parametrize("name", [pytest.param("vae", marks=pytest.mark.long), "clip", "reader"])
def test_a_stopped_part_goes_on_as_if_it_had_not_been(short, tmp_path, name):
    """Stopped after every step (the clock says so at once), it ends with the weights of one that ran through."""
    found = few(tmp_path / "pictures")
    tokenizer = parts.write_tokenizer(tmp_path / "tokenizer")

    def train(work, until):
        sitting = build.Sitting(work, until, CPU)
        match name:
            case "vae":
                build.train_vae(found, sitting)
            case "clip":
                build.train_clip(found, tokenizer, sitting)
            case "reader":
                build.train_reader(found, sitting)

    through, stopped = tmp_path / "through", tmp_path / "stopped"
    for folder in (through, stopped):
        folder.mkdir()
    train(through, time.time() + 600)
    for _ in range(6):  # more often than there are steps: what is finished is left alone
        train(stopped, 0.0)
    first, second = (build.load_part(name, folder).state_dict() for folder in (through, stopped))
    assert_close(dict(first), dict(second), rtol=0, atol=0)


def test_a_part_without_a_state_starts_from_the_package(tmp_path):
    kept = build.load_part("unet", tmp_path).state_dict()
    fresh = build.make_part("unet").state_dict()
    assert any(not torch.equal(kept[key], fresh[key]) for key in fresh)
