"""Where an export is written, and what is refused before any work."""

import pytest

from dreambooth_cli.errors import UsageError
from dreambooth_cli.export_order import Export, order_export


@pytest.mark.parametrize(
    ("to", "given", "made"),
    [
        ("single-file", "dog", "dog.safetensors"),
        ("single-file", "dog.v2", "dog.v2.safetensors"),
        ("kohya", "dog.SAFETENSORS", "dog.safetensors"),
        ("merged", "dog", "dog"),
        ("merged", "dog.safetensors", "dog.safetensors"),
        ("lora", "dog", "dog"),
        ("lora", "dog.safetensors", "dog.safetensors"),
        ("diffusers", "dog", "dog"),
    ],
)
def test_a_place_gets_its_ending(to, given, made, tmp_path):
    assert order_export(Export(to, tmp_path / given)).place == tmp_path / made


@pytest.mark.parametrize(
    ("to", "name", "more", "words"),
    [
        ("diffusers", "dog.safetensors", {}, "is the name of a file"),
        ("kohya", "dog", {"strength": 0.5}, "--strength is for"),
        ("merged", "dog", {"strength": 0.0}, "can't be 0"),
        ("merged", "dog", {"strength": float("nan")}, "can't be nan"),
        ("merged", "dog", {"rank": 8}, "--rank is for"),
        ("single-file", "there", {}, r"there\.safetensors exists"),
        ("single-file", "yaml", {}, r"yaml\.yaml exists"),
        ("merged", "full", {}, "full exists"),
        ("lora", "link", {}, "link exists"),
        ("lora", "there.safetensors/dog", {}, "is a file"),
    ],
)
def test_what_can_not_be_is_refused(to, name, more, words, tmp_path):
    (tmp_path / "there.safetensors").touch()
    (tmp_path / "yaml.yaml").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=words):
        order_export(Export(to, tmp_path / name, **more))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "dog").mkdir()
    assert order_export(Export("merged", tmp_path / "dog")).place == tmp_path / "dog"
    (tmp_path / "dog" / "mine.txt").touch()
    with pytest.raises(UsageError, match="dog exists"):
        order_export(Export("merged", tmp_path / "dog"))
