"""Which step is best, and why, by plain arithmetic; and which steps are kept."""

from dataclasses import replace
from pathlib import Path

import pytest

from dreambooth_cli.judged import Judged, JudgedStep, best_of, due_steps, read_judged, reason_for, write_judged
from dreambooth_cli.settings import TrainSettings


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, [250, 500, 750, 1000]),
        ({"keep": "last"}, [1000]),
        ({"judge": "none"}, [1000]),
        ({"judge": "none", "keep": "all", "steps": 600}, [250, 500, 600]),
        ({"checkpoint_every": 0}, [1000]),
        ({"checkpoint_every": 50}, [150, 300, 450, 600, 750, 900, 1000]),
        ({"checkpoint_every": 400, "keep": "all"}, [400, 800, 1000]),
    ],
)
def test_the_steps_whose_weights_outlive_newer_checkpoints(settings: dict[str, object], steps: list[int]) -> None:
    assert due_steps(TrainSettings(**settings)) == steps  # type: ignore[arg-type]


def test_the_best_is_the_last_unless_another_is_better_by_more_than_chance() -> None:
    assert best_of([[0.5, 0.6, 0.7]]) == 0
    assert best_of([[0.9, 0.8, 0.9], [0.5, 0.6, 0.5]]) == 0
    assert best_of([[0.9, 0.1, 0.9], [0.5, 0.9, 0.4]]) == 1  # one picture's luck
    assert best_of([[0.9, 0.6, 0.6, 0.8], [0.5, 0.7, 0.7, 0.6]]) == 1  # 0.8 standard errors
    assert best_of([[0.9, 0.7, 0.6, 0.8], [0.5, 0.7, 0.7, 0.6]]) == 0  # 1.1
    assert best_of([[0.5, 0.5], [0.9, 0.8], [0.8, 0.7], [0.2, 0.3]]) == 1
    assert best_of([[0.5, 0.5], [0.5, 0.5]]) == 1


A_STEP = JudgedStep(step=600, subject=0.8, prompt=0.9, copied=0.7)


@pytest.mark.parametrize(
    ("later", "words"),
    [
        ({"copied": 0.97, "nearest": "IMG_2.jpg"}, "step 600: after it pictures begin to copy IMG_2.jpg"),
        ({"prompt": 0.5}, "step 600: after it the prompt is followed less (90%, at the end 50%)"),
        ({"subject": 0.5}, "step 600: after it the subject is less like the photos (80%, at the end 50%)"),
        ({"subject": 0.78}, "step 600: after it likeness and prompt together are a little worse (0.72, at the end 0.70)"),
    ],
)
def test_why_in_words(later: dict[str, object], words: str) -> None:
    end = replace(A_STEP, step=1000, **later)  # type: ignore[arg-type]
    assert reason_for([replace(A_STEP, step=200), A_STEP, end], 1) == words
    assert reason_for([A_STEP, end], 1).startswith("step 1000, the last")


def test_what_was_judged_is_read_again(tmp_path: Path) -> None:
    judged = Judged(judge="somebody", steps=(A_STEP, replace(A_STEP, step=1000, nearest="IMG_2.jpg")), best=600, reason="why")
    write_judged(tmp_path / "judged.json", judged)
    assert read_judged(tmp_path / "judged.json") == judged
    (tmp_path / "judged.json").write_text('{"judge": "somebody", "steps": [{}], "best": 1, "reason": ""}')
    assert read_judged(tmp_path / "judged.json") is None
    assert read_judged(tmp_path / "nothing.json") is None
