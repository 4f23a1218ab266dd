"""Checkpoints come back to the bit; damaged ones are seen; only whole ones count."""

import json

import pytest
import torch

from dreambooth_cli.engine.checkpoint import (
    State,
    checkpoints,
    is_whole,
    latest_checkpoint,
    load_checkpoint,
    put_damaged_aside,
    save_checkpoint,
)
from dreambooth_cli.errors import DiskError


def state(step):
    generator = torch.Generator().manual_seed(step)
    weights = {"unet.a": torch.randn(3, 4, generator=generator), "unet.b": torch.zeros(2, dtype=torch.bfloat16)}
    return State(
        step, weights, {"unet.a|exp_avg": torch.randn(3, 4, generator=generator), "unet.a|step": torch.tensor(3)}, {}
    )


def test_round_trip(tmp_path):
    saved = state(7)
    found = load_checkpoint(save_checkpoint(tmp_path, saved, keep=2))
    assert found.step == 7
    for before, after in ((saved.weights, found.weights), (saved.optimizer, found.optimizer), (saved.ema, found.ema)):
        assert before.keys() == after.keys()
        assert all(
            torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before
        )


def test_the_newest_are_kept_and_nothing_else_lies_about(tmp_path):
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, state(step), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000003", "step-000004"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000004"]


def test_the_newest_of_very_many_steps_is_kept(tmp_path):
    for step in (999_999, 1_000_000):
        save_checkpoint(tmp_path, state(step), keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-1000000"]


def flip(path):
    file = path / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut(path):
    file = path / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def unlink(path):
    (path / "ema.safetensors").unlink()


def scrawl(path):
    (path / "checkpoint.json").write_text("{")


def empty(path):
    (path / "checkpoint.json").write_text(json.dumps({"files": {"x": 3}}))


def name_nothing(path):
    (path / "checkpoint.json").write_text(json.dumps({"step": 2, "files": {}}))


@pytest.mark.parametrize("damage", [flip, cut, unlink, scrawl, empty, name_nothing])
def test_a_damaged_one_is_passed_over_and_kept_aside(tmp_path, damage):
    save_checkpoint(tmp_path, state(1), keep=2)
    newest = save_checkpoint(tmp_path, state(2), keep=2)
    damage(newest)
    assert not is_whole(newest)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "step-000001"
    assert put_damaged_aside(tmp_path) == [tmp_path / "damaged-step-000002"]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000001"]
    save_checkpoint(tmp_path, state(2), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000001", "step-000002"]
    assert (tmp_path / "damaged-step-000002").is_dir()


def test_a_half_written_one_is_not_seen(tmp_path):
    (tmp_path / ".step-000009.part").mkdir()
    assert latest_checkpoint(tmp_path) is None


def test_reading_a_damaged_one_says_so(tmp_path):
    path = save_checkpoint(tmp_path, state(1), keep=1)
    cut(path)
    with pytest.raises(DiskError) as caught:
        load_checkpoint(path)
    assert "step-000001" in caught.value.message
    assert caught.value.exit_code == 6


def test_a_place_that_can_not_be_written_is_a_disk_error(tmp_path):
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(DiskError) as caught:
        save_checkpoint(tmp_path / "runs", state(1), keep=1)
    assert "make room" in caught.value.hint
