"""Boxes in, boxes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_cli.photos.crop import scaled_box, size_of, square_box, square_round, within

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


@pytest.mark.parametrize(
    ("size", "crop", "box"),
    [
        ((300, 100), "left", (0, 0, 100, 100)),
        ((300, 100), "right", (200, 0, 300, 100)),
        ((300, 100), "bottom", (100, 0, 200, 100)),
        ((100, 300), "bottom", (0, 200, 100, 300)),
        ((100, 300), "right", (0, 100, 100, 200)),
        ((300, 100), "pad", (0, -100, 300, 200)),
        ((100, 300), "pad", (-100, 0, 200, 300)),
        ((80, 80), "pad", (0, 0, 80, 80)),
    ],
)
def test_a_side_and_a_border(size, crop, box):
    assert square_box(size, crop) == box


@pytest.mark.parametrize(
    ("box", "size", "square"),
    [
        ((10, 10, 50, 50), (300, 100), (10, 10, 50, 50)),
        ((100, 20, 140, 40), (300, 100), (100, 10, 140, 50)),  # central where there is room
        ((100, 0, 140, 10), (300, 100), (100, 0, 140, 40)),
        ((290, 0, 300, 80), (300, 100), (220, 0, 300, 80)),
        ((0, 0, 200, 50), (300, 100), (0, -50, 200, 150)),  # wider than the photo is high
    ],
)
def test_the_smallest_square_round_a_box(box, size, square):
    assert square_round(box, size) == square


SIZES = st.tuples(st.integers(1, 400), st.integers(1, 400))


@given(size=SIZES, data=st.data())
def test_a_square_round_a_box_holds_it_and_leaves_the_photo_only_where_it_must(size, data):
    left, top = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    box = left, top, data.draw(st.integers(left + 1, size[0])), data.draw(st.integers(top + 1, size[1]))
    square = square_round(box, size)
    side = max(size_of(box))
    assert size_of(square) == (side, side)
    assert within(box, size) == box
    assert square[0] <= box[0] and square[1] <= box[1] and square[2] >= box[2] and square[3] >= box[3]  # noqa: PT018
    if side <= min(size):
        assert within(square, size) == square
