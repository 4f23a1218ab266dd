"""`train --verify-resume`: tried on the true command's workflow, and on an optimizer that forgets."""

import pytest

from dreambooth_cli.config import merge
from dreambooth_cli.engine.optimizers import Update
from dreambooth_cli.errors import TrainingFailed
from dreambooth_cli.events import Noted, StepDone
from dreambooth_cli.settings import PrepSettings, SubjectSettings, TrainSettings
from dreambooth_cli.workflows.verify import verify_resume
from tests.workflows.projects import make_project, of_kind


def verify(project):
    stored = project.settings()
    return list(
        verify_resume(
            project,
            subject=merge(SubjectSettings, stored["subject"], {}),
            prep=merge(PrepSettings, stored["prep"], {}),
            settings=merge(TrainSettings, stored["train"], {}),
        )
    )


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
