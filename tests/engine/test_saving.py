"""What the disk refuses while a model is saved is told as such, whichever library says it."""

import pytest

from dreambooth_cli.engine.loading import load_pipeline
from dreambooth_cli.engine.saving import _written
from dreambooth_cli.errors import DiskError
from tests.engine.plans import base_of


def test_a_tokenizer_that_can_not_be_written_is_a_disk_error(sd1, tmp_path):
    """The tokenizers library raises a bare Exception."""
    import torch

    pipe = load_pipeline(base_of(sd1), dtype=torch.float32)
    gone = tmp_path / "gone"
    with pytest.raises(DiskError) as caught, _written(gone):
        pipe.tokenizer.backend_tokenizer.model.save(str(gone))
    assert str(gone) in caught.value.message
    assert caught.value.exit_code == 6


def test_a_bug_while_saving_stays_a_bug(tmp_path):
    with pytest.raises(ZeroDivisionError), _written(tmp_path):
        raise ZeroDivisionError
