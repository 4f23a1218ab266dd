"""Class images: kept by all that shapes them, made once, black ones drawn again."""

import os
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from dreambooth_cli.engine.families.loading import alone, load_family, parts_of
from dreambooth_cli.engine.images.class_cache import (
    adopt_images,
    cache_key,
    class_image_paths,
    is_usable,
    make_images,
    missing_batches,
)
from dreambooth_cli.engine.images.sampling import Drawing, draw, is_black, use_scheduler
from dreambooth_cli.engine.seeds import seed_of
from dreambooth_cli.errors import TrainingFailed
from tests.engine.plans import base_of

DRAWING = Drawing(steps=2, guidance_scale=7.5, width=64, height=64)
ASKED = {"base": "abc", "prompts": ["a dog"], "sampler": "dpm++", "drawing": DRAWING, "seed": 0, "dtype": "fp32"}


@pytest.fixture
def family(sd1):
    return load_family(base_of(sd1), dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize(
    "change",
    [
        {"base": "abd"},
        {"prompts": ["a cat"]},
        {"prompts": ["a dog", "a dog on the beach"]},
        {"seed": 1},
        {"sampler": "ddim"},
        {"dtype": "bf16"},
        {"drawing": Drawing(steps=3, guidance_scale=7.5, width=64, height=64)},
        {"drawing": Drawing(steps=2, guidance_scale=7.0, width=64, height=64)},
        {"drawing": Drawing(steps=2, guidance_scale=7.5, width=72, height=64)},
    ],
)
def test_whatever_shapes_an_image_is_in_its_key(change):
    assert cache_key(**ASKED) == cache_key(**ASKED)
    assert cache_key(**(ASKED | change)) != cache_key(**ASKED)


def make(family, folder, numbers, **options):
    together = {"at_work": lambda names: nullcontext()} | options
    return list(make_images(family, folder, [numbers], prompts=["a dog"], drawing=DRAWING, seed=0, **together))


@pytest.mark.parametrize("base", ["sd1", "sdxl"])
def test_in_turn_they_are_the_same_and_each_network_is_brought_once(base, request, tmp_path):
    """Five batches in turns of four pictures: the prompt is encoded once, and UNet and VAE are brought twice each."""
    family = load_family(base_of(request.getfixturevalue(base)), dtype=torch.float32, device=torch.device("cpu"))
    saved, brought = dict(family.pipe.config), []

    @contextmanager
    def at_work(names):
        with alone(family.pipe, names, torch.device("cpu")):
            brought.append(names)
            assert set(parts_of(family.pipe)) <= set(names)
            yield

    batches = [[number] for number in range(5)]
    in_turn = make_images(
        family, tmp_path / "in turn", batches, prompts=["a dog"], drawing=DRAWING, seed=0, at_work=at_work, turn=4
    )
    paths = list(in_turn)
    together = [path for numbers in batches for path in make(family, tmp_path / "together", numbers)]
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in together]
    assert brought == [family.record.text_encoders, ("unet",), ("vae",), ("unet",), ("vae",)]
    assert dict(family.pipe.config) == saved, "what is saved of the pipeline"


def test_class_images_are_drawn_as_the_pipeline_draws_the_prompt(family, tmp_path):
    """With the prompt encoded once and its rows repeated, the pictures are those of `draw`, up to rounding."""
    paths = make(family, tmp_path, [0, 1])
    use_scheduler(family.pipe, family.record.class_sampler)
    expected = draw(family, ["a dog"] * 2, [seed_of(0, "class image", number, 0) for number in (0, 1)], DRAWING)
    for path, picture in zip(paths, expected, strict=True):
        with Image.open(path) as made:
            assert np.abs(np.asarray(made, dtype=int) - np.asarray(picture, dtype=int)).max() <= 1


def test_each_class_image_is_of_its_prompt(family, tmp_path):
    """Prompts take turns within a batch, and each picture is the one that its own prompt gives alone."""
    together = {"drawing": DRAWING, "seed": 0, "at_work": lambda names: nullcontext()}
    mixed = list(make_images(family, tmp_path / "mixed", [[0, 1], [2, 3]], prompts=["a dog", "a dog", "a dog on the beach"], **together))
    for prompt, numbers in (("a dog", (0, 1, 3)), ("a dog on the beach", (2,))):
        alone = list(make_images(family, tmp_path / prompt, [[0, 1], [2, 3]], prompts=[prompt], **together))
        assert [mixed[number].read_bytes() for number in numbers] == [alone[number].read_bytes() for number in numbers]


def test_the_first_of_many_are_the_few(family, tmp_path):
    """Image i is the same however many are wanted, because batches are fixed."""
    for numbers in missing_batches(tmp_path / "few", 2, 2):
        make(family, tmp_path / "few", numbers)
    for numbers in missing_batches(tmp_path / "many", 5, 2):
        make(family, tmp_path / "many", numbers)
    few, many = class_image_paths(tmp_path / "few", 2), class_image_paths(tmp_path / "many", 6)
    assert [path.read_bytes() for path in few] == [path.read_bytes() for path in many[:2]]
    assert len({path.read_bytes() for path in many}) == 6
    assert missing_batches(tmp_path / "many", 6, 2) == []


def test_a_broken_or_missing_image_brings_its_whole_batch_back(family, tmp_path):
    make(family, tmp_path, [0, 1])
    make(family, tmp_path, [2, 3])
    before = [path.read_bytes() for path in class_image_paths(tmp_path, 4)]
    (tmp_path / "000001.png").write_bytes(before[1][:100])
    (tmp_path / "000002.png").unlink()
    assert missing_batches(tmp_path, 4, 2) == [[0, 1], [2, 3]]
    for numbers in missing_batches(tmp_path, 4, 2):
        make(family, tmp_path, numbers)
    assert [path.read_bytes() for path in class_image_paths(tmp_path, 4)] == before


def paint(folder):
    Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / "000001.png")


def forget(folder):
    (folder / "images.json").write_text("")


def forget_and_paint(folder):
    forget(folder)
    paint(folder)


def say_nonsense(folder):
    (folder / "images.json").write_text('{"images": {"000000.png": 3, "000001.png": ["x"]}}')


def put_a_pipe(folder):
    (folder / "000001.png").unlink()
    os.mkfifo(folder / "000001.png")


@pytest.mark.parametrize("damage", [paint, forget, forget_and_paint, say_nonsense, put_a_pipe])
def test_an_image_that_is_not_known_as_it_is_is_made_again_to_the_same_bytes(damage, family, tmp_path):
    make(family, tmp_path, [0, 1])
    before = [path.read_bytes() for path in class_image_paths(tmp_path, 2)]
    assert missing_batches(tmp_path, 2, 2) == []
    damage(tmp_path)
    assert missing_batches(tmp_path, 2, 2) == [[0, 1]]
    make(family, tmp_path, [0, 1])
    assert [path.read_bytes() for path in class_image_paths(tmp_path, 2)] == before
    assert missing_batches(tmp_path, 2, 2) == []


def test_a_good_image_is_not_written_again_with_its_batch(family, tmp_path):
    """Another batch size may give other bits, and another run has already trained on these."""
    make(family, tmp_path, [0, 1])
    first, second = class_image_paths(tmp_path, 2)
    kept = first.stat().st_mtime_ns, first.stat().st_ino
    second.unlink()
    make(family, tmp_path, [0, 1])
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == kept


def test_images_without_a_record_are_version_0_1_s_and_taken_once(family, tmp_path):
    make(family, tmp_path, [0, 1])
    (tmp_path / "images.json").unlink()
    assert missing_batches(tmp_path, 2, 2) == []
    adopt_images(tmp_path)
    paint(tmp_path)
    assert missing_batches(tmp_path, 2, 2) == [[0, 1]]


def test_a_black_image_in_the_cache_is_not_usable(tmp_path):
    Image.new("RGB", (8, 8), (3, 3, 3)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), (3, 90, 3)).save(tmp_path / "b.png")
    assert not is_usable(tmp_path / "a.png")
    assert is_usable(tmp_path / "b.png")


def darken(family, bias):
    """Make a VAE's pictures darker by `bias`, so that the darker ones turn black."""
    with torch.no_grad():
        family.pipe.vae.decoder.conv_out.bias.fill_(bias)


def test_a_black_picture_is_drawn_again_from_another_seed(family, tmp_path):
    """The decoder is darkened until the first seed's picture is black and other seeds' are not."""
    brightest = []
    for number in range(6):
        (path,) = make(family, tmp_path / "bright", [number])
        with Image.open(path) as image:
            brightest.append(max(high for _, high in image.getextrema()))
    darkest = min(range(6), key=lambda number: brightest[number])
    spread = family.pipe.vae.decoder.conv_out.bias.detach().clone()
    family.pipe.vae.decoder.conv_out.bias.data -= (brightest[darkest] - 4) / 127.5
    (path,) = make(family, tmp_path / "dark", [darkest])
    assert is_usable(path)
    family.pipe.vae.decoder.conv_out.bias.data.copy_(spread)


def test_nothing_but_black_is_an_error_that_says_what_to_do(family, tmp_path):
    darken(family, -50.0)
    with pytest.raises(TrainingFailed) as caught:
        make(family, tmp_path / "images", [0])
    assert caught.value.exit_code == 7
    assert "--class-data-dir" in caught.value.hint
    assert not (tmp_path / "images").exists()


def test_numbers_that_are_not_finite_are_black_and_never_used(family, tmp_path):
    with torch.no_grad():
        family.pipe.unet.conv_out.weight.fill_(float("nan"))
    with pytest.raises(TrainingFailed):
        make(family, tmp_path, [0])
    assert is_black(Image.new("RGB", (4, 4)))
