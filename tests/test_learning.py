"""The suite's most important test: DreamBooth works. Three subjects of the pocket world are learned from five pictures each: the subject is
recognised, the class is preserved, the prompt is followed. It fails if learning stops working, whatever else still runs."""

import pytest

from .benchmarks.fidelity import quick

pytestmark = pytest.mark.slow


def test_three_subjects_are_learned_the_class_stays_the_prompt_is_obeyed(tmp_path):
    assert [words for words, is_so in quick(tmp_path) if not is_so] == []
