"""The flow families learn, in miniature, and a LoRA that is compared with its base while it trains keeps the class closer to it. A shorter
form of `python -m tests.benchmarks.flow_learns`, which has the figures."""

import pytest

from tests.benchmarks.flow_learns import learn_in_miniature

pytestmark = pytest.mark.slow

# Measured: the loss falls by at least 4%, and the drift with the prior is 0.71 (Z-Image) and 0.42 (klein) of that without it.
LEAST_FALL, MOST_DRIFT = 0.015, 0.85


@pytest.mark.parametrize("kind", ["klein", pytest.param("z-image", marks=pytest.mark.long)])
def test_a_subject_is_learned_and_its_class_drifts_less_with_the_prior(kind, request):
    base = request.getfixturevalue(kind.replace("-", "_"))
    found = learn_in_miniature(base, base_steps=200, steps=50, rate=1e-2)
    for before, after, _ in found.values():
        assert after < (1 - LEAST_FALL) * before
    assert found["base"][2] < MOST_DRIFT * found["none"][2]
