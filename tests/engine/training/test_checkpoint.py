"""Checkpoints come back to the bit; damaged ones are noticed; only whole ones count."""

import json
import shutil

import pytest
import torch

from dreambooth_cli.engine.training.checkpoint import (
    State,
    checkpoints,
    has_weights,
    is_whole,
    keep_weights,
    last_weights,
    latest_checkpoint,
    load_checkpoint,
    load_weights,
    prune,
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


def test_the_weights_of_some_steps_outlive_newer_ones(tmp_path):
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, state(step), keep=None, run="ours")
        prune(tmp_path, 1, saved=step, outlive=[2, 4])
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000002", "step-000004"]
    light = tmp_path / "step-000002"
    assert not (light / "optimizer.safetensors").exists()
    assert has_weights(light, "ours")
    assert not has_weights(light, "another's")
    assert not is_whole(light)  # nothing goes on from it
    assert torch.equal(load_weights(light).weights["unet.a"], state(2).weights["unet.a"])
    assert put_damaged_aside(tmp_path, "ours") == []
    assert latest_checkpoint(tmp_path, "ours").name == "step-000004"
    keep_weights(tmp_path, [4])
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000004"]
    assert latest_checkpoint(tmp_path, "ours") is None
    last = last_weights(tmp_path, 4, "ours")
    assert load_checkpoint(last).optimizer == {}
    assert torch.equal(load_checkpoint(last).weights["unet.a"], state(4).weights["unet.a"])
    flip(last)
    assert (last_weights(tmp_path, 4, "ours"), has_weights(last)) == (None, False)


def test_the_newest_of_very_many_steps_is_kept(tmp_path):
    for step in (999_999, 1_000_000):
        save_checkpoint(tmp_path, state(step), keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-1000000"]


def test_a_folder_of_a_later_step_takes_no_place(tmp_path):
    (tmp_path / "step-000099").mkdir()  # put there while the run is at work
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step), keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000099"]


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


def rewrite(path, **values):
    manifest = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps(manifest | values))


def say_another_step(path):
    rewrite(path, step=9)


def say_a_step_that_is_none(path):
    rewrite(path, step="2")


def say_a_list(path):
    (path / "checkpoint.json").write_text("[]")


def list_fewer(path):
    manifest = json.loads((path / "checkpoint.json").read_text())
    rewrite(path, files={name: entry for name, entry in manifest["files"].items() if name != "optimizer.safetensors"})


DAMAGES = [flip, cut, unlink, scrawl, empty, name_nothing]
DAMAGES += [say_another_step, say_a_step_that_is_none, say_a_list, list_fewer]


@pytest.mark.parametrize("damage", DAMAGES)
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


@pytest.mark.parametrize("run", ["", "mine"])
def test_what_only_looks_like_ours_is_left_alone(tmp_path, run):
    """A checkpoint is called `step-` and digits; a copy under another name is never loaded, counted, renamed or removed."""
    save_checkpoint(tmp_path, state(10), keep=2, run=run)
    others = ["step-000010-backup", "step-abc", "step-10 (copy)", "step-", "step-٣", "my-step-000020", "step-000020.bak", "STEP-20"]
    for name in others:
        shutil.copytree(tmp_path / "step-000010", tmp_path / name)
    (tmp_path / "step-000099").write_text("a file")
    (tmp_path / "step-000098").symlink_to(tmp_path / "step-abc")
    assert latest_checkpoint(tmp_path, run) == tmp_path / "step-000010"
    for step in (11, 12):
        assert save_checkpoint(tmp_path, state(step), keep=1, run=run).is_dir()
    assert put_damaged_aside(tmp_path, run) == []
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*others, "step-000099", "step-000098", "step-000012"}


def test_they_are_ordered_by_number(tmp_path):
    for name in ("step-9", "step-000010", "step-0000000002"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-0000000002", "step-9", "step-000010"]


def test_another_run_s_is_passed_over(tmp_path):
    save_checkpoint(tmp_path, state(1), keep=2, run="mine")
    save_checkpoint(tmp_path / "other", state(2), keep=2, run="other")
    shutil.copytree(tmp_path / "other" / "step-000002", tmp_path / "step-000002")
    assert latest_checkpoint(tmp_path, "mine") == tmp_path / "step-000001"
    assert put_damaged_aside(tmp_path, "mine") == [tmp_path / "damaged-step-000002"]


def test_one_of_0_1_names_no_run(tmp_path):
    path = save_checkpoint(tmp_path, state(1), keep=2, run="mine")
    manifest = json.loads((path / "checkpoint.json").read_text())
    del manifest["run"]
    (path / "checkpoint.json").write_text(json.dumps(manifest))
    assert latest_checkpoint(tmp_path, "mine") == path


def test_what_was_put_aside_before_stays(tmp_path):
    for _ in range(3):
        cut(save_checkpoint(tmp_path, state(1), keep=2))
        put_damaged_aside(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"damaged-step-000001{end}" for end in ("", "-2", "-3")}


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
