"""If steps suddenly take three times as long, that is said once; what happens only now and then is not mentioned."""

from dreambooth_cli.cli.views import format_event
from dreambooth_cli.events import StepsSlowed
from dreambooth_cli.workflows.pace import Pace


def told(seconds):
    """At which step it was said."""
    pace = Pace()
    return [step for step, each in enumerate(seconds, 1) if pace.is_lost(each)]


def test_it_is_told_once_at_the_third_slow_step():
    assert told([1.0] * 12 + [3.0] * 50) == [15]
    assert told([1.0] * 12 + [10.0] * 5 + [1.0] * 30 + [10.0] * 5) == [15]


def test_what_is_slow_does_not_become_usual():
    pace = Pace()
    for seconds in [1.0] * 12 + [4.0] * 100:
        pace.is_lost(seconds)
    assert pace.usual == 1.0


def test_what_is_not_told():
    assert told([1.0] * 12 + [5.0, 5.0, 1.0] * 10) == []  # a checkpoint, a preview
    assert told([1.0] * 12 + [2.9] * 50) == []
    assert told([9.0] * 3 + [1.0] * 50) == []  # the first ones of a run
    assert told([1.0] * 9 + [9.0] * 2 + [1.0] * 10) == []  # before anything is usual
    assert told([0.01] * 12 + [0.2] * 50) == []  # a moment


def test_it_is_a_line():
    event = StepsSlowed(step=40, seconds=4.21, usual=0.402, cause="the GPU's memory is full")
    assert format_event(event) == "step 40 took 4.2 s, earlier ones 0.4 s: the GPU's memory is full"
