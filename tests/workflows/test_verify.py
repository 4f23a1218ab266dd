"""`train --verify-resume`: tried on the real command's workflow, and on an optimizer that forgets its state."""

import warnings

import pytest
import torch

from dreambooth_cli.engine.training.optimizers import Update
from dreambooth_cli.engine.training.repeat import nearly_deterministic
from dreambooth_cli.errors import TrainingFailed
from dreambooth_cli.events import Noted, StepDone, Warned
from dreambooth_cli.workflows.verify import verify_resume
from tests.workflows.projects import asked_of, make_project, of_kind

pytestmark = pytest.mark.slow


def verify(project):
    return list(verify_resume(project, asked_of(project.settings())))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_stopped_run_goes_on_to_the_bit(method, sd1, photos):
    project = make_project(photos, sd1, method=method, steps=3)
    events = verify(project)
    assert [event.step for event in of_kind(events, StepDone)] == [1, 2, 3, 4, 3, 4]
    assert any("to the bit" in event.message for event in of_kind(events, Noted))
    assert project.runs() == []
    assert not (project.path / ".verify").exists()


def test_what_is_forgotten_is_found_and_named(sd1, photos, monkeypatch):
    whole = Update.load
    monkeypatch.setattr(
        Update, "load", lambda self, state: whole(self, {k: v for k, v in state.items() if "conv_out" not in k})
    )
    with pytest.raises(TrainingFailed) as caught:
        verify(make_project(photos, sd1, method="full"))
    assert "conv_out" in caught.value.message
    assert "differs by up to" in caught.value.message


def test_a_kernel_without_a_fixed_form_is_named_and_the_rest_is_held(sd1, photos, monkeypatch):
    """`put_` has none on any device: under the strict rule it raises, so the steps are tried again."""
    whole, places = Update.step, torch.tensor([0, 1])

    def step(self):
        torch.zeros(3).put_(places, torch.ones(2))
        whole(self)

    monkeypatch.setattr(Update, "step", step)
    events = verify(make_project(photos, sd1, method="full", steps=3))
    notes = [event.message for event in of_kind(events, Noted)]
    assert "put_ has no form that gives the same bits each time: trying again, allowing that one" in notes
    assert "to the bit" in notes[-1]
    assert not torch.are_deterministic_algorithms_enabled()

    monkeypatch.setattr(Update, "load", lambda self, state: None)
    events = verify(make_project(photos, sd1, method="full", steps=3, name="other"))
    (warned,) = [event.message for event in of_kind(events, Warned) if "after a stop" in event.message]
    assert "these kernels have no form that gives the same bits each time: put_" in warned


def test_torchs_words_for_attention_are_known():
    """When told to warn instead of raising, it words its warning differently."""
    flash = "Flash Attention defaults to a non-deterministic algorithm. To explicitly enable determinism call"
    efficient = "Memory Efficient attention defaults to a non-deterministic algorithm. To explicitly enable determinism call"
    with nearly_deterministic() as names:
        for words in (flash, efficient, "upsample_nearest2d_backward_out_cuda does not have a deterministic implementation, but", "x"):
            warnings.warn(words, stacklevel=1)
    assert names == {"Flash Attention", "Memory Efficient attention", "upsample_nearest2d_backward_out_cuda"}
