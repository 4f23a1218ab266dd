"""The run that version 0.1.0 left half way goes on and ends where 0.1.0 would have ended it; a LoRA is drawn with and trained as then."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from dreambooth_cli.cli.app import run

pytestmark = pytest.mark.slow

# the command that was stopped, but for where things lie
HALF = ["--class-prompt", "a photo of a dog", "--class-images", "2", "--class-image-steps", "2", "--learning-rate", "1e-3"]
HALF += ["--checkpoint-every", "4", "--keep-checkpoints", "1", "--identifier", "sks", "--seed", "3", "--steps", "8"]

def test_the_run_stopped_half_way_goes_on_to_the_weights_it_would_have_had(
    kept_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in (kept_home / "dreambooth/projects/full/runs").iterdir()}
    kept = kept_home / "dreambooth/projects/full/runs/2/checkpoints"
    other = kept_home / "dreambooth/projects/lora/runs/1/checkpoints/step-000004"
    for name in ("step-000006", "step-000004-backup"):
        shutil.copytree(other, kept / name)
    manifest = (kept / "step-000006/checkpoint.json").read_text()
    (kept / "step-000006/checkpoint.json").write_text(manifest.replace('"step": 4', '"step": 6'))
    places = ["--model", kept_home / "base", "--photos", kept_home / "photos", "--output-dir", kept_home / "out-half"]
    words = [str(word) for word in ("train", *HALF, *places)]
    assert run([*words, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any("step-000006 does not belong to this run" in line["message"] for line in lines if line["event"] == "warning")
    assert {path.name for path in kept.iterdir()} == {"step-000008", "step-000004-backup", "damaged-step-000006"}
    assert [line for line in lines if line["event"] == "class_image"] == []
    assert any("was begun by dreambooth 0.1" in line["message"] for line in lines if line["event"] == "note")
    (opened,) = [line for line in lines if line["event"] == "run"]
    assert (opened["number"], opened["step"]) == (2, 4)
    assert {path.name for path in (kept_home / "dreambooth/projects/full/runs").iterdir()} == before
    for part in ("unet", "text_encoder"):
        (ours,) = (kept_home / "out-half" / part).glob("*.safetensors")
        # equal to the bit where it was made; another processor has other kernels
        assert_close(load_file(ours), load_file(kept_home / "expected" / f"{part}.safetensors"), rtol=1e-3, atol=1e-4)
    assert run(words) == 0  # finished: it is known by this version's name now
    assert {path.name for path in (kept_home / "dreambooth/projects/full/runs").iterdir()} == before


def test_a_lora_of_unet_and_text_encoder_comes_out_as_it_did(kept_home: Path) -> None:
    asked = ["--method", "lora", "--rank", "2", "--steps", "4", "--train-text-encoder", "--keep-checkpoints", "1"]
    asked += ["--class-images", "2", "--class-image-steps", "2", "--learning-rate", "1e-3", "--checkpoint-every", "4"]
    asked += ["--text-encoder-learning-rate", "1e-3"]  # 0.1 took the other's
    out = kept_home / "out-again"
    assert run(["train", "lora", *asked, "--identifier", "sks", "--seed", "3", "--restart", "--output-dir", str(out)]) == 0
    ours, theirs = (load_file(folder / "pytorch_lora_weights.safetensors") for folder in (out, kept_home / "out-lora"))
    # 0.1 left `text_model.` out of the names, which other readers need
    theirs = {name.replace("text_encoder.encoder.", "text_encoder.text_model.encoder."): theirs[name] for name in theirs}
    assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
