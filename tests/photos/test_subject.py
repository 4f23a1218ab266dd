"""Where a subject seems to lie, in drawn pictures of which it is known."""

import time

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from dreambooth_cli.photos.crop import square_box
from dreambooth_cli.photos.pixels import Photo
from dreambooth_cli.photos.subject import cut_share, find_subject, square_of


def photo_of(size, box, ground="plain"):
    """A striped red ball in a box, before plain paper, a soft meadow or fine gravel."""
    random = np.random.default_rng(3)
    if ground == "plain":
        image = Image.new("RGB", size, (205, 200, 190))
    else:
        grains = random.integers(60, 200, (size[1], size[0], 3), dtype=np.uint8)
        grains[..., 0] //= 3
        image = Image.fromarray(grains).filter(ImageFilter.GaussianBlur(12 if ground == "soft" else 2))
    draw = ImageDraw.Draw(image)
    draw.ellipse(box, fill=(190, 30, 40))
    for x in range(box[0] + 12, box[2] - 12, 16):
        draw.line((x, (box[1] + 3 * box[3]) // 4, x + 6, (3 * box[1] + box[3]) // 4), fill=(250, 240, 120), width=5)
    return Photo(image, size)


@pytest.mark.parametrize("ground", ["plain", "soft", "gravel"])
@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((600, 400), (20, 60, 280, 320)),
        ((600, 400), (330, 100, 590, 360)),
        ((400, 600), (70, 10, 330, 270)),
        ((400, 600), (70, 330, 330, 590)),
        ((711, 400), (440, 0, 700, 260)),
        ((300, 1200), (60, 900, 240, 1080)),
    ],
)
def test_the_square_holds_a_subject_that_the_middle_cuts(size, box, ground):
    photo = photo_of(size, box, ground)
    subject = find_subject(photo)
    square, middle = square_of(subject, size), square_box(size, "center")
    assert all(low <= edge for low, edge in zip(square[:2], box[:2], strict=True))
    assert all(high >= edge for high, edge in zip(square[2:], box[2:], strict=True))
    assert not (middle[0] <= box[0] and middle[1] <= box[1] and middle[2] >= box[2] and middle[3] >= box[3])
    assert cut_share(subject, square, size) < 0.1 < cut_share(subject, middle, size)
    width, height = (min(box[end + 2], subject.box[end + 2]) - max(box[end], subject.box[end]) for end in (0, 1))
    assert width * height > 0.5 * (box[2] - box[0]) * (box[3] - box[1])


def test_what_a_map_is():
    subject = find_subject(photo_of((600, 400), (20, 60, 280, 320)))
    assert (subject.weight.shape, subject.weight.dtype) == ((43, 64), np.float32)
    assert subject.weight.sum() == pytest.approx(1, abs=1e-4)
    assert (subject.weight > 0).all()
    assert cut_share(subject, (0, 0, 600, 400), (600, 400)) == pytest.approx(0, abs=1e-5)
    assert cut_share(subject, (300, 0, 600, 400), (600, 400)) > 0.95
    left, right = (cut_share(subject, box, (600, 400)) for box in ((150, 0, 600, 400), (0, 0, 150, 400)))
    assert left + right == pytest.approx(1, abs=1e-5)
    assert 0.3 < left < 0.7


def flat(size):
    return Image.new("RGB", size, (90, 120, 60))


def noise(size):
    grains = np.random.default_rng(0).normal(120, 5, (size[1], size[0], 3))
    return Image.fromarray(grains.astype(np.uint8))


@pytest.mark.parametrize("drawn", [flat, noise])
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (640, 360)])
def test_where_nothing_stands_out_the_middle_is_kept(drawn, size):
    assert square_of(find_subject(Photo(drawn(size), size)), size) == square_box(size, "center")


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 900), (1000, 3), (64, 64), (5, 64)])
def test_pictures_of_any_size(size):
    subject = find_subject(Photo(noise(size), size))
    left, top, right, bottom = square_of(subject, size)
    assert right - left == bottom - top == min(size)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert 0 <= subject.box[0] < subject.box[2] <= size[0]
    assert 0 <= subject.box[1] < subject.box[3] <= size[1]


def test_a_photo_that_was_decoded_smaller_has_its_square_in_its_own_pixels():
    photo = photo_of((600, 400), (330, 100, 590, 360))
    large = find_subject(Photo(photo.image, (4800, 3200)))
    left, top, right, bottom = square_of(large, (4800, 3200))
    assert (right - left, top, bottom) == (3200, 0, 3200)
    assert left <= 330 * 8 and right >= 590 * 8  # noqa: PT018


def test_the_same_photo_has_the_same_map_and_it_is_quick():
    photo = photo_of((1500, 1000), (100, 200, 500, 600), "gravel")
    first = find_subject(photo)
    began = time.process_time()
    for _ in range(5):
        assert np.array_equal(find_subject(photo).weight, first.weight)
    assert (time.process_time() - began) / 5 < 0.2  # 300 photos in a minute, on a machine that is slow and busy
