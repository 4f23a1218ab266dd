"""`train --continue N`: a run of its own that begins with the weights of a finished one."""

from dataclasses import replace

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from dreambooth_cli.errors import ProjectError, UsageError
from dreambooth_cli.events import Noted, RunOpened, StepDone
from dreambooth_cli.order import check_output, continue_from
from dreambooth_cli.project import Project
from dreambooth_cli.record import Continued
from dreambooth_cli.workflows.train import train
from tests.workflows.projects import asked_of, make_project, of_kind, run

STILL = {"learning_rate": 1e-6, "weight_decay": 0.0}  # so slow that the weights stay nearly what they were


def begin(project: Project, number: int, **flags: object) -> list[object]:
    """All events of a run that continues another."""
    return list(train(project, continue_from(project, asked_of(project.settings(), train=flags), number)))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_begins_with_the_weights_of_the_other_and_says_so(method, sd1, photos):
    project = make_project(photos, sd1, method=method, steps=2, class_images=0, learning_rate=1e-3)
    run(project)
    events = begin(project, 1, steps=3, **STILL)
    assert [(event.number, event.step, event.steps) for event in of_kind(events, RunOpened)] == [(2, 0, 3)]
    assert "begins with the weights of run 1 after step 2" in " ".join(event.message for event in of_kind(events, Noted))
    first, second = project.runs()
    assert second.record().continues == Continued(1, first.id, 2)
    file = "unet/diffusion_pytorch_model.safetensors" if method == "full" else "pytorch_lora_weights.safetensors"
    assert_close(load_file(second.model / file), load_file(first.model / file), rtol=0, atol=1e-5)
    # the same command finds it; without --continue it is another run
    assert of_kind(begin(project, 1, steps=3, **STILL), StepDone) == []
    assert len(project.runs()) == 2
    assert project.runs()[1].record().asked["subject"]["identifier"] == "sks"


def test_what_does_not_go_together_is_refused_before_any_work(sd1, photos, tmp_path):
    project = make_project(photos, sd1, method="lora", rank=4, steps=1, class_images=0)
    asked = asked_of(project.settings())
    with pytest.raises(ProjectError, match="no finished run 1"):
        continue_from(project, asked, 1)
    with pytest.raises(UsageError, match="--continue is for a project"):
        continue_from(None, asked, 1)
    run(project)
    for flags, words in (({"rank": 8}, "--rank 8 is not what run 1 was trained with"), ({"method": "full"}, "--method full")):
        with pytest.raises(UsageError, match=words):
            continue_from(project, asked_of(project.settings(), train=flags), 1)
    longer = continue_from(project, asked_of(project.settings(), train={"steps": 5}), 1)
    assert longer.shaping() != replace(longer, continues=None).shaping()
    out = tmp_path / "output"
    run(project, output_dir=out)
    check_output(out, project, asked_of(project.settings()))
    with pytest.raises(UsageError, match="is not this run's model"):
        check_output(out, project, longer)  # another run's model lies there
    checkpoint = project.runs()[0].checkpoint(1)
    (checkpoint / "weights.safetensors").unlink()
    with pytest.raises(ProjectError, match="has no weights"):
        continue_from(project, asked, 1)
