"""The scores compared with their formulas written out by hand, and on pictures whose answer is known."""

import json
import math
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from dreambooth_cli.engine import evaluation
from dreambooth_cli.pocket import world
from dreambooth_cli.pocket.judge import cut_out

from .. import small_models


class Colours:
    """An eye that sees a picture's mean colour and reads the names of three colours."""

    def see(self, pictures):
        rows = [np.asarray(picture.convert("RGB"), dtype=np.float32).mean((0, 1)) for picture in pictures]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(rows)), dim=1)

    def read(self, texts):
        return torch.eye(3)[[("red", "green", "blue").index(text) for text in texts]]


def plain(*rgb):
    return Image.new("RGB", (8, 8), rgb)


RED, GREEN, YELLOW = plain(200, 0, 0), plain(0, 100, 0), plain(90, 90, 0)


def test_subject_fidelity_is_the_mean_cosine_over_all_pairs():
    found = evaluation.subject_fidelity(Colours(), [RED, YELLOW], [RED, GREEN, YELLOW])
    half = math.sqrt(0.5)
    assert found == pytest.approx((1 + 0 + half + half + half + 1) / 6)


def test_prompt_fidelity_is_the_mean_cosine_of_each_picture_and_its_own_prompt():
    found = evaluation.prompt_fidelity(Colours(), [RED, YELLOW, GREEN], ["red", "green", "blue"])
    assert found == pytest.approx((1 + math.sqrt(0.5) + 0) / 3)


def test_diversity_is_the_mean_distance_of_different_pictures():
    assert evaluation.diversity(Colours(), [RED, RED, GREEN]) == pytest.approx((0 + 1 + 1) / 3, abs=1e-6)
    assert evaluation.diversity(Colours(), [RED, RED]) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="two pictures"):
        evaluation.diversity(Colours(), [RED])


def test_the_closest_gallery_is_that_of_the_nearest_mean():
    gallery = [[GREEN, GREEN], [RED, plain(200, 20, 0)], [plain(0, 0, 90)]]
    assert evaluation.closest(Colours(), [plain(250, 30, 10), plain(0, 80, 10)], gallery) == [1, 0]


def test_a_copy_is_seen_whatever_its_brightness_and_side():
    photos = [world.render(world.draw_scene(Random(seed))) for seed in range(3)]
    darker = photos[1].point(lambda value: value * 0.7)
    mirrored = photos[2].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    others = [world.render(world.draw_scene(Random(seed))) for seed in range(10, 14)]
    scores = evaluation.copy_scores([photos[0], darker, mirrored, *others], photos)
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert min(scores[1:3]) > 0.99
    assert max(scores[3:]) < 0.95


def test_the_nearest_photo_is_the_one_that_an_eye_finds_most_alike():
    photos = [RED, plain(0, 0, 90)]
    found = evaluation.nearest_cosines(Colours(), [RED, GREEN, plain(0, 30, 90)], photos)
    assert found == pytest.approx([1.0, 0.0, 3 / 10**0.5], abs=1e-5)


def test_the_interval_of_a_mean_resamples_its_subjects():
    values = list(np.random.default_rng(0).normal(2.0, 1.0, size=100))
    found = evaluation.bootstrap(values)
    error = np.std(values, ddof=1) / 10
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.2 * error)
    assert evaluation.bootstrap([3.0, 3.0]) == evaluation.Interval(3.0, 3.0, 3.0)
    assert evaluation.bootstrap(values) == found


def test_a_cut_out_is_the_same_wherever_the_thing_stands():
    crops = []
    for left, top in ((4, 10), (30, 25)):
        pixels, mask = torch.full((1, 3, 64, 64), 0.8), torch.zeros(1, 64, 64)
        pixels[0, :, top : top + 20, left : left + 16] = -0.5
        pixels[0, 0, top : top + 10, left : left + 16] = 0.5
        mask[0, top : top + 20, left : left + 16] = 1
        crops.append(cut_out(pixels, mask))
    assert torch.allclose(crops[0], crops[1], atol=1e-5)
    assert crops[0][0, :, 0, 0].abs().max() == 0  # gray around it
    assert crops[0][0, 0, 16, 32] == pytest.approx(0.5, abs=1e-4)
    empty = cut_out(torch.full((1, 3, 64, 64), 0.8), torch.zeros(1, 64, 64))
    assert empty.abs().max() == 0


def test_clip_from_a_folder_gives_the_cosines_of_transformers(tmp_path):
    """A CLIP with random weights: our own resizing and normalising, on a picture that needs neither cropping nor scaling."""
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path / "clip"
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    vocabulary = small_models.write_tokenizer(folder, pad="<|endoftext|>")
    torch.manual_seed(0)
    text = {**size, "vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config={**size, "patch_size": 56}, projection_dim=16)).eval()
    model.save_pretrained(folder)
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    clip = evaluation.Clip(folder)
    mean, deviation = np.array(evaluation.CLIP_LOOK[0]), np.array(evaluation.CLIP_LOOK[1])
    pixels = torch.from_numpy(((noise / 255 - mean) / deviation).transpose(2, 0, 1)[None]).float()
    tokens = clip.tokenizer(["a photo of a dog"], return_tensors="pt")
    with torch.no_grad():
        expected = model(pixel_values=pixels, **tokens).logits_per_image / model.logit_scale.exp()
    picture = Image.fromarray(noise)
    assert evaluation.prompt_fidelity(clip, [picture], ["a photo of a dog"]) == pytest.approx(expected.item(), abs=1e-4)


def test_dino_from_a_folder_gives_the_class_token(tmp_path):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, patch_size=56)
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    wide = Image.effect_noise((300, 224), 80).convert("RGB")
    square = wide.crop((38, 0, 262, 224))
    seen = evaluation.Dino(tmp_path).see([wide, square])
    assert json.loads((tmp_path / "config.json").read_text())["hidden_size"] == seen.shape[1]
    assert torch.allclose(seen.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(seen[0], seen[1], atol=1e-5)
