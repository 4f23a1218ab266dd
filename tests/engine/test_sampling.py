"""Pictures equal plain diffusers'; each image has its own seed; a VAE that overflows is helped."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from dreambooth_cli import stopping
from dreambooth_cli.engine.loading import load_family
from dreambooth_cli.engine.sampling import SCHEDULERS, Drawing, draw, use_scheduler
from dreambooth_cli.errors import Interrupted
from tests.engine.plans import base_of

DRAWING = Drawing(steps=3, guidance_scale=5.0, width=64, height=48)


def load(folder, dtype=torch.float32):
    return load_family(base_of(folder), dtype=dtype, device=torch.device("cpu")).pipe


def test_a_picture_is_plain_diffusers(sd1):
    (ours,) = draw(load(sd1), ["a sks dog"], [3], DRAWING, negative_prompt="blurry")
    plain = StableDiffusionPipeline.from_pretrained(sd1, safety_checker=None, feature_extractor=None)
    plain.set_progress_bar_config(disable=True)
    theirs = plain(
        "a sks dog",
        negative_prompt="blurry",
        num_inference_steps=3,
        guidance_scale=5.0,
        width=64,
        height=48,
        generator=torch.Generator().manual_seed(3),
    ).images[0]
    assert ours.size == (64, 48)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_any_single_picture_can_be_made_again_alone(sd1):
    """The same noise whatever the batch; the pixels equal up to the rounding of the kernels."""
    pipe = load(sd1)
    together = draw(pipe, ["a dog"] * 3, [5, 6, 7], DRAWING)
    (alone,) = draw(pipe, ["a dog"], [6], DRAWING)
    difference = np.abs(np.asarray(together[1], dtype=int) - np.asarray(alone, dtype=int))
    assert difference.max() <= 1
    assert not np.array_equal(np.asarray(together[0]), np.asarray(together[1]))


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_every_scheduler_draws_and_keeps_the_prediction_type(name, sd2):
    pipe = load(sd2)
    use_scheduler(pipe, name)
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    (picture,) = draw(pipe, ["a dog"], [0], DRAWING)
    assert max(high for _, high in picture.getextrema()) > 8


def test_a_vae_that_overflows_in_half_precision_decodes_in_float32(sd1):
    pipe = load(sd1)
    (expected,) = draw(pipe, ["a dog"], [0], DRAWING)
    pipe.vae.to(torch.float16)
    with torch.no_grad():
        # past 65,504, fp16's largest number, inside the decoder; the next layer takes it back
        pipe.vae.decoder.conv_in.weight.data = pipe.vae.decoder.conv_in.weight.float().mul(1).half()
        pipe.vae.decoder.conv_in.bias.fill_(60000.0)
        pipe.vae.post_quant_conv.weight.mul_(30000.0)
    (picture,) = draw(pipe, ["a dog"], [0], DRAWING)
    assert pipe.vae.dtype == torch.float32
    assert picture.size == expected.size


def test_a_signal_is_seen_between_denoising_steps(sd1):
    stopping._received.append(2)
    with pytest.raises(Interrupted):
        draw(load(sd1), ["a dog"], [0], DRAWING)
