"""The finished model on disk: it is what the libraries would write, and what the disk refuses is reported as that, whichever library
raises it."""

import json

import pytest
import torch
from safetensors.torch import load_file

from dreambooth_cli.engine.families.loading import DTYPES, let_go, load_pipeline
from dreambooth_cli.engine.saving import save_full, written
from dreambooth_cli.errors import DiskError
from tests.engine.plans import base_of


def test_a_tokenizer_that_can_not_be_written_is_a_disk_error(sd1, tmp_path):
    """The tokenizers library raises a bare Exception."""
    pipe = load_pipeline(base_of(sd1), dtype=torch.float32)
    gone = tmp_path / "gone"
    with pytest.raises(DiskError) as caught, written(gone):
        pipe.tokenizer.backend_tokenizer.model.save(str(gone))
    assert str(gone) in caught.value.message
    assert caught.value.exit_code == 6


def test_a_bug_while_saving_stays_a_bug(tmp_path):
    with pytest.raises(ZeroDivisionError), written(tmp_path):
        raise ZeroDivisionError


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_the_folder_is_what_the_library_writes(kind, dtype, request, tmp_path):
    """Written one tensor at a time, including a network that had been freed: the same files as `save_pretrained`'s, to the byte."""
    base = base_of(request.getfixturevalue(kind))
    theirs = load_pipeline(base, dtype=DTYPES[dtype])
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_pipeline(base, dtype=torch.float32)
    let_go(ours, ["vae"])
    save_full(ours, base, tmp_path / "ours", dtype=DTYPES[dtype])
    assert not any(weight.device.type != "meta" for weight in ours.unet.parameters())
    files = {path.relative_to(tmp_path / "theirs") for path in (tmp_path / "theirs").rglob("*") if path.is_file()}
    weights = {file for file in files if file.suffix == ".safetensors"}
    assert len(weights) == (4 if kind == "sdxl" else 3)
    for file in files:
        mine = (tmp_path / "ours" / file).read_bytes()
        if file in weights and file.parts[0].startswith("text_encoder"):  # theirs have no nested names under transformers >= 5.6
            named = {name.removeprefix("text_model."): value for name, value in load_file(tmp_path / "ours" / file).items()}
            torch.testing.assert_close(
                named,
                {name.removeprefix("text_model."): value for name, value in load_file(tmp_path / "theirs" / file).items()},
                rtol=0,
                atol=0,
            )
        elif file.name == "config.json" and file.parts[0].startswith("text_encoder"):
            told = json.loads((tmp_path / "theirs" / file).read_text())
            told.pop("_name_or_path", None)
            assert json.loads(mine) == told | {"dtype": "float32"}
        elif file.suffix == ".safetensors":
            assert mine == (tmp_path / "theirs" / file).read_bytes(), file
