"""The guide's own two commands, spelled as the guide spells them, as processes, offline.

Only the last flags are added: a thousand steps and two hundred class images take an evening, too long for a test.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.bases.cache import hub_cache
from dreambooth_cli.project import list_projects
from tests import small_models
from tests.conftest import draw_photo

pytestmark = pytest.mark.slow

TRAIN = [
    "train",
    "--model_name",
    "runwayml/stable-diffusion-v1-5",
    "--instance_data_dir",
    "./instance_images",
    "--class_prompt",
    "a dog",
    "--steps",
    "1000",
    "--train_text_encoder",
]
GENERATE = ["generate", "--model_path", "./output", "--prompt", "a [identifier] dog on the moon", "--num_images", "4"]


def as_a_process(*words, folder):
    """Run the command in a folder; its standard output and error."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-m", "dreambooth_cli", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def place(photos, tmp_path):
    """A user's working folder with `instance_images` in it."""
    folder = tmp_path / "a user's folder"
    folder.mkdir()
    shutil.copytree(photos, folder / "instance_images")
    return folder


@pytest.mark.slow
def test_the_guides_two_commands(sd1, place, dreambooth, monkeypatch):
    request = ask_for_base("runwayml/stable-diffusion-v1-5")
    small_models.lay_out_hub_cache(sd1, hub_cache(), request.repository, request.revision)
    quick = ["--steps", "3", "--class_images", "2", "--class-image-steps", "2"]
    _, said = as_a_process(*TRAIN, *quick, folder=place)
    assert "runwayml/stable-diffusion-v1-5 is gone from the hub" in " ".join(said.split())
    card = json.loads((place / "output" / "dreambooth.json").read_text())
    assert card["base"]["identity"] == request.revision
    assert card["settings"]["train"]["train_text_encoder"] is True
    assert (place / "output" / "model_index.json").is_file()
    (project,) = list_projects()
    assert project.name == "dog"
    printed, _ = as_a_process(*GENERATE, "--steps", "2", folder=place)
    images = sorted(path for path in (place / "generated").glob("*.png") if not path.name.startswith("grid-"))
    assert len(images) == 4
    assert all(str(image.name) in printed for image in images)
    with Image.open(images[0]) as image:
        assert image.text["prompt"] == f"a {card['identifier']} dog on the moon"
    # the same command again finds its run: it is finished, and the model lies where it should
    monkeypatch.chdir(place)
    again = dreambooth(*TRAIN, *quick)
    assert again.code == 0
    assert "finished already" in again.err


def test_without_the_model_and_without_a_network(place, dreambooth, monkeypatch):
    for number, photo in enumerate(sorted((place / "instance_images").iterdir())):
        photo.unlink()
        draw_photo(place / "instance_images" / f"{number}.jpg", (600, 520), seed=number)
    monkeypatch.chdir(place)
    done = dreambooth(*TRAIN)
    assert done.code == 5
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5" in done.err
    assert "dreambooth models pull" in done.err
    assert not (place / "output").exists()
