"""Boxes in, boxes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_cli.photos.crop import scaled_box, square_box

SIDES = st.integers(1, 20_000)


@pytest.mark.parametrize(
    ("size", "crop", "box"),
    [
        ((100, 100), "center", (0, 0, 100, 100)),
        ((300, 100), "center", (100, 0, 200, 100)),
        ((300, 100), "top", (100, 0, 200, 100)),
        ((100, 300), "center", (0, 100, 100, 200)),
        ((100, 300), "top", (0, 0, 100, 100)),
        ((5, 2), "center", (1, 0, 3, 2)),
        ((1, 9), "center", (0, 4, 1, 5)),
    ],
)
def test_which_square_is_kept(size, crop, box):
    assert square_box(size, crop) == box


@given(width=SIDES, height=SIDES, crop=st.sampled_from(["center", "top"]), fraction=st.sampled_from([1, 2, 4, 8]))
def test_the_square_lies_within_the_picture_and_touches_two_edges(width, height, crop, fraction):
    left, top, right, bottom = square_box((width, height), crop)
    assert right - left == bottom - top == min(width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    scaled = (-(-width // fraction), -(-height // fraction))
    left, top, right, bottom = scaled_box((left, top, right, bottom), (width, height), scaled)
    assert 0 <= left < right <= scaled[0]
    assert 0 <= top < bottom <= scaled[1]
