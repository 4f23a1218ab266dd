"""A run of the real command together with its `Training`, and models compared to the bit."""

from pathlib import Path

from safetensors.torch import load_file
from torch.testing import assert_close

from dreambooth_cli.workflows import train as train_workflow
from tests.workflows.projects import run


def trained(project, monkeypatch, **options):
    """The events of a run, and its `Training` at the end."""
    kept = []

    def keep(recipe, **others):
        kept.append((yield from make(recipe, **others)))
        return kept[-1]

    make = train_workflow.make_training
    with monkeypatch.context() as patch:
        patch.setattr(train_workflow, "make_training", keep)
        events = run(project, **options)
    return events, kept[-1]


def assert_same(model: Path, other: Path) -> None:
    """Two models have the same weights to the bit."""
    names = sorted(path.relative_to(model) for path in model.rglob("*.safetensors"))
    assert names
    for name in names:
        assert_close(load_file(model / name), load_file(other / name), rtol=0, atol=0)
