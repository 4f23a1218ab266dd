"""The weights that come in the box: a plain diffusers folder, small, drawing on a CPU; a judge that reads the world."""

import json
from random import Random

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.bases.catalog import find_entry
from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.engine.evaluation import closest, to_pixels
from dreambooth_cli.identifier import choose_identifier, load_tokenizer, single_token
from dreambooth_cli.pocket import world
from dreambooth_cli.pocket.build import JUDGE, MODEL, measure_judge, measure_vae
from dreambooth_cli.pocket.card import asked_scenes
from dreambooth_cli.pocket.eyes import PocketClip, PocketIndividuals, pocket_judge

pytestmark = pytest.mark.slow

WEIGHTS = sorted([*MODEL.rglob("*.safetensors"), *JUDGE.rglob("*.safetensors")])


@pytest.fixture(scope="module")
def judge():
    return pocket_judge()


def test_all_its_files_take_30_mb_at_most():
    files = [path for folder in (MODEL, JUDGE) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30e6


def test_its_weights_are_float16_safetensors_without_a_variant():
    assert len(WEIGHTS) == 7
    for path in WEIGHTS:
        assert ".fp16" not in path.name
        with safe_open(path, "pt") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys() if file.get_slice(name).get_shape()}  # noqa: SIM118
        assert kinds == {"F16"}, path


def test_the_catalogue_says_what_lies_there():
    entry = find_entry("pocket")
    assert ask_for_base("pocket").path == MODEL == entry.folder
    assert entry.facts == read_facts(MODEL)


def test_plain_diffusers_loads_it_with_no_argument_and_draws_on_a_cpu():
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(str(MODEL))
    pipe.set_progress_bar_config(disable=True)
    picture = pipe("a photo of a red dog on the moon", num_inference_steps=4).images[0]
    assert picture.size == (64, 64)
    assert np.asarray(picture).std() > 20


def test_every_word_of_the_world_is_one_token_and_rare_words_are_the_rarest():
    tokenizer = load_tokenizer(MODEL)
    assert [word for word in world.words() if single_token(tokenizer, word) is None] == []
    assert single_token(tokenizer, "sks") >= 0.9 * tokenizer.get_vocab_size()
    word, note = choose_identifier(tokenizer)
    assert note is None
    assert single_token(tokenizer, word) is not None
    assert word not in world.words()


def test_the_recipe_is_kept_with_its_curves():
    recipe = json.loads((MODEL.parent / "recipe.json").read_text())
    for name in ("vae", "clip", "reader", "recogniser", "unet"):
        steps, losses = zip(*recipe["parts"][name]["losses"], strict=True)
        assert steps[-1] == recipe["parts"][name]["steps_done"]
        assert losses[-1] < losses[0]


def test_the_judge_reads_fresh_renders(judge):
    right = measure_judge(judge, asked_scenes(250, "test"))
    assert min(right[name] for name in ("class", "place", "body", "pattern")) >= 0.98
    assert right["class in gray"] >= 0.95
    assert right["mask"] >= 0.9


def test_the_vae_gives_renders_back():
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(MODEL / "vae", dtype=torch.float32)
    assert measure_vae(vae, asked_scenes(100, "test"), torch.device("cpu")) >= 28


def test_the_judge_tells_an_individual_from_its_look_alikes(judge):
    eye, right = PocketIndividuals(judge), []
    for number in range(6):
        subject = world.draw_subject(number)
        everyone = [subject, *world.draw_look_alikes(subject, 20)]
        gallery = [[render(one, number, place) for place in range(5)] for one in everyone]
        right += [
            found == 0 for found in closest(eye, [render(subject, number, place) for place in range(10, 20)], gallery)
        ]
    assert sum(right) / len(right) >= 0.9


def render(one, number, place):
    return world.render(world.draw_scene(Random(f"{one} {number} {place}"), one))


def test_clip_finds_each_picture_its_caption():
    scenes = asked_scenes(64, "captions")
    clip = PocketClip()
    likeness = (
        clip.see([world.render(scene) for scene in scenes]) @ clip.read([world.describe(scene) for scene in scenes]).T
    )
    assert (likeness.argmax(1) == torch.arange(64)).float().mean() >= 0.9


def test_the_judge_sees_what_the_model_draws(judge):
    """A few prompts of each class, drawn as users draw: the whole measurement stands in the model card."""
    from dreambooth_cli.pocket.card import draw_all, judge_pictures

    scenes = asked_scenes(20, "suite")
    drawn = draw_all(scenes)
    right = judge_pictures(judge, scenes, drawn)
    assert right["class"] >= 0.85
    assert right["place"] >= 0.85
    assert right["body"] >= 0.75
    assert to_pixels(drawn[:1], 64).shape == (1, 3, 64, 64)
