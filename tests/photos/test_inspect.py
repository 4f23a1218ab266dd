"""What is said of sizes and numbers of photos."""

import pytest

from dreambooth_cli.photos.inspect import judge_count, judge_size


@pytest.mark.parametrize(
    ("size", "status", "reason"),
    [
        ((512, 900), "kept", ""),
        ((900, 511), "warned", "small: its shorter side has 511 pixels, so it is enlarged to 512"),
        ((256, 900), "warned", "small: its shorter side has 256 pixels, so it is enlarged to 512"),
        ((900, 255), "refused", "too small: its shorter side has 255 pixels, under half of the 512 to train with"),
    ],
)
def test_sizes(size, status, reason):
    assert judge_size(size, 512) == (status, reason)


def test_an_odd_half_is_not_rounded():
    assert judge_size((52, 52), 104)[0] == "warned"
    assert judge_size((51, 52), 104)[0] == "refused"


@pytest.mark.parametrize(
    ("count", "remark"),
    [
        (1, "1 photo is little to learn from: 3 to 5, from several sides, are better"),
        (2, "2 photos are little to learn from: 3 to 5, from several sides, are better"),
        (3, None),
        (20, None),
        (21, "21 photos are many: 3 to 5 good ones usually do better, and each photo is seen less often"),
    ],
)
def test_numbers(count, remark):
    assert judge_count(count) == remark
