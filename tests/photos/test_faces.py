"""Faces, drawn ones: where they are found, and what they do to the square that is kept."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from dreambooth_cli.photos import faces
from dreambooth_cli.photos.faces import find_faces
from dreambooth_cli.photos.looked import keep, look_at, recall
from dreambooth_cli.photos.pixels import Photo
from dreambooth_cli.photos.subject import cut_share, find_subject, square_of

WALL = (60, 80, 110)


def drawn_face(width):
    """A face from the front before a wall, with hair, brows, eyes, a nose and a mouth."""
    image = Image.new("RGB", (640, 800), WALL)
    pen = ImageDraw.Draw(image)
    skin, shade, hair = (214, 170, 140), (167, 133, 109), (50, 35, 25)
    pen.ellipse((72, 32, 568, 600), fill=hair)
    pen.ellipse((112, 112, 528, 720), fill=skin)
    for x in (220, 420):
        pen.ellipse((x - 80, 288, x + 80, 392), fill=shade)
        pen.ellipse((x - 52, 320, x + 52, 376), fill=(245, 240, 235))
        pen.ellipse((x - 28, 320, x + 28, 376), fill=(40, 25, 20))
        pen.line([x - 72, 296, x, 268, x + 72, 296], fill=hair, width=24)
    pen.polygon([320, 380, 272, 488, 368, 488], fill=(193, 153, 126))
    pen.ellipse((264, 464, 376, 504), fill=shade)
    pen.ellipse((224, 544, 416, 624), fill=(150, 60, 60))
    pen.line([224, 584, 416, 584], fill=(70, 20, 20), width=12)
    return image.filter(ImageFilter.GaussianBlur(8)).resize((width, width * 5 // 4), Image.Resampling.LANCZOS)


def person(size, at, width):
    """A photo of this size with a face of this width at a place."""
    image = Image.new("RGB", size, WALL)
    image.paste(drawn_face(width), at)
    return image


def clad(image, box):
    """The same with a coat in stripes, which stands out more than any face."""
    pen = ImageDraw.Draw(image)
    pen.rectangle(box, fill=(200, 30, 40))
    for y in range(box[1] + 8, box[3], 16):
        pen.line((box[0], y, box[2], y), fill=(250, 240, 120), width=5)
    return image


@pytest.mark.parametrize(
    ("size", "at", "width"), [((400, 600), (100, 30), 160), ((1600, 2400), (600, 200), 500), ((512, 300), (300, 20), 150)]
)
def test_a_face_is_found_where_it_is(size, at, width):
    ((left, top, right, bottom),) = find_faces(person(size, at, width))
    across, down = (left + right) / 2 - at[0], (top + bottom) / 2 - at[1]
    assert across == pytest.approx(width / 2, abs=0.1 * width)
    assert down == pytest.approx(width * 0.55, abs=0.15 * width)
    assert 0.6 * width < right - left < 1.2 * width
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]


def test_a_face_in_a_mirror_is_one_too_and_what_is_none_is_not_found():
    assert len(find_faces(person((400, 400), (120, 60), 160).transpose(Image.Transpose.FLIP_LEFT_RIGHT))) == 1
    assert find_faces(Image.new("RGB", (400, 300), WALL)) == ()
    assert find_faces(Image.new("RGB", (3, 2), WALL)) == ()
    grains = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    assert find_faces(Image.fromarray(grains).filter(ImageFilter.GaussianBlur(3))) == ()
    assert find_faces(clad(Image.new("RGB", (400, 400), WALL), (100, 100, 300, 300))) == ()


def test_the_square_keeps_a_face_that_stands_out_less_than_a_coat():
    size = (400, 800)
    image = clad(person(size, (110, 20), 180), (80, 260, 320, 780))
    subject = find_subject(Photo(image, size))
    (head,) = subject.faces
    blind = find_subject(Photo(clad(Image.new("RGB", size, WALL), (80, 260, 320, 780)), size))
    assert square_of(blind, size)[1] > head[3] - 40  # the coat alone draws the square down
    assert square_of(subject, size)[1] < head[1] + 4
    without, with_it = (cut_share(subject, box, size) for box in ((0, 400, 400, 800), (0, 0, 400, 400)))
    assert with_it < without
    assert without > 0.4


def test_a_face_in_a_photo_that_was_decoded_smaller_is_in_its_own_pixels():
    image = person((400, 600), (100, 30), 160)
    (small,), (large,) = find_subject(Photo(image, (400, 600))).faces, find_subject(Photo(image, (1200, 1800))).faces
    assert large == tuple(3 * edge for edge in small)


def test_faces_are_kept_with_the_look(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMBOOTH_HOME", str(tmp_path))
    looked = look_at(Photo(person((400, 600), (100, 30), 160), (400, 600)), None)
    keep("a", looked)
    again = recall("a")
    assert len(looked.subject.faces) == 1
    assert again is not None
    assert again.subject.faces == looked.subject.faces


def test_where_the_library_is_not_there_no_face_is_looked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    faces._detector.cache_clear()
    try:
        assert find_faces(person((400, 600), (100, 30), 160)) == ()
    finally:
        faces._detector.cache_clear()
