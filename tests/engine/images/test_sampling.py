"""Pictures equal plain diffusers'; each has its own seed; a VAE that overflows decodes in float32."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from dreambooth_cli import stopping
from dreambooth_cli.engine.families.loading import load_family
from dreambooth_cli.engine.images.sampling import Drawing, check_steps, draw, use_scheduler
from dreambooth_cli.errors import Interrupted, LibraryRefused, UsageError
from dreambooth_cli.families.schedulers import SCHEDULERS
from tests import small_models
from tests.engine.plans import base_of

DRAWING = Drawing(steps=3, guidance_scale=5.0, width=64, height=48)


def load(folder, dtype=torch.float32):
    return load_family(base_of(folder), dtype=dtype, device=torch.device("cpu"))


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
    """The noise is the same whatever the batch, and the pixels are equal up to the rounding of the kernels."""
    family = load(sd1)
    together = draw(family, ["a dog"] * 3, [5, 6, 7], DRAWING)
    (alone,) = draw(family, ["a dog"], [6], DRAWING)
    difference = np.abs(np.asarray(together[1], dtype=int) - np.asarray(alone, dtype=int))
    assert difference.max() <= 1
    assert not np.array_equal(np.asarray(together[0]), np.asarray(together[1]))


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_every_scheduler_draws_and_keeps_the_prediction_type(name, sd2):
    family = load(sd2)
    use_scheduler(family.pipe, name)
    assert family.pipe.scheduler.config.prediction_type == "v_prediction"
    (picture,) = draw(family, ["a dog"], [0], DRAWING)
    assert max(high for _, high in picture.getextrema()) > 8


def use_schedule(folder, place, name, **values):
    """A copy of a base with another scheduler."""
    shutil.copytree(folder, place)
    path, index = place / "scheduler" / "scheduler_config.json", place / "model_index.json"
    path.write_text(json.dumps({"_class_name": name, **small_models.BETAS, **values}))
    index.write_text(json.dumps(json.loads(index.read_text()) | {"scheduler": ["diffusers", name]}))
    return place


# as community bases have them: what one solver is told, another does not know
SOLVERS = {
    "DEISMultistepScheduler": {"algorithm_type": "deis", "solver_type": "logrho", "lower_order_final": True},
    "UniPCMultistepScheduler": {"solver_type": "bh2", "disable_corrector": [], "solver_p": None, "final_sigmas_type": "zero"},
    "DPMSolverMultistepScheduler": {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True, "lambda_min_clipped": float("-inf")},
    "DDPMScheduler": {"variance_type": "fixed_small"},
}


@pytest.mark.parametrize("named", SOLVERS)
def test_every_scheduler_can_take_the_place_of_any_bases_own_and_none_cuts_latents_off(named, sdxl, tmp_path):
    family = load(use_schedule(sdxl, tmp_path / "base", named, **SOLVERS[named]))
    for name in ("auto", *SCHEDULERS):
        use_scheduler(family.pipe, name)
        check_steps(family.pipe, 4, "--steps")
        assert family.pipe.scheduler.config.get("clip_sample") is False
    with pytest.raises(UsageError, match="more than the 1000 timesteps"):
        check_steps(family.pipe, 10**6, "--steps")


def test_the_kind_of_a_dpm_solver_is_kept_by_that_solver_alone(sd1, tmp_path):
    family = load(use_schedule(sd1, tmp_path / "base", "DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"))
    use_scheduler(family.pipe, "dpm++")
    assert family.pipe.scheduler.config.algorithm_type == "sde-dpmsolver++"


def test_a_library_that_refuses_another_is_no_wrong_scheduler_and_no_wrong_number_of_steps(sd1, monkeypatch):
    family = load(sd1)

    def refuse(*_, **__):
        raise ImportError("DDIMScheduler requires the scipy library. You can install it with pip: `pip install scipy`")

    monkeypatch.setattr(type(family.pipe.scheduler), "set_timesteps", refuse)
    with pytest.raises(LibraryRefused):
        check_steps(family.pipe, 4, "--steps")
    monkeypatch.setattr("diffusers.DDIMScheduler.from_config", refuse)
    with pytest.raises(LibraryRefused):
        use_scheduler(family.pipe, "ddim")


def test_a_vae_that_overflows_in_half_precision_decodes_in_float32(sd1):
    family = load(sd1)
    (expected,) = draw(family, ["a dog"], [0], DRAWING)
    family.pipe.vae.to(torch.float16)
    with torch.no_grad():
        # past 65,504, fp16's largest number, inside the decoder; the next layer takes it back
        family.pipe.vae.decoder.conv_in.weight.data = family.pipe.vae.decoder.conv_in.weight.float().mul(1).half()
        family.pipe.vae.decoder.conv_in.bias.fill_(60000.0)
        family.pipe.vae.post_quant_conv.weight.mul_(30000.0)
    (picture,) = draw(family, ["a dog"], [0], DRAWING)
    assert family.pipe.vae.dtype == torch.float32
    assert picture.size == expected.size


def test_a_signal_is_seen_between_denoising_steps(sd1):
    stopping._received.append(2)
    with pytest.raises(Interrupted):
        draw(load(sd1), ["a dog"], [0], DRAWING)
