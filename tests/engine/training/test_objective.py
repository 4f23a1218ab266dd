"""The objective compared with references written out by hand, and one whole step with plain autograd on plain diffusers."""

import math

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

from dreambooth_cli.engine.families.latent_diffusion import LatentDistribution
from dreambooth_cli.engine.families.loading import load_family
from dreambooth_cli.engine.training.examples import Example
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.engine.training.objective import dreambooth_loss, row_losses
from dreambooth_cli.settings import TrainSettings
from tests.engine.plans import base_of, plan_for


def alpha_bar(timestep):
    """The scaled-linear schedule of Stable Diffusion, multiplied out."""
    product = 1.0
    for index in range(timestep + 1):
        root = math.sqrt(0.00085) + (math.sqrt(0.012) - math.sqrt(0.00085)) * index / 999
        product *= 1 - root * root
    return product


def reference_loss(prediction, latents, noise, timesteps, *, velocity, gamma, instance_rows, prior_weight):
    """The paper's two terms, summed row by row in Python floats."""
    instance, prior = [], []
    for row, timestep in enumerate(timesteps):
        alpha = alpha_bar(timestep)
        target = math.sqrt(alpha) * noise[row] - math.sqrt(1 - alpha) * latents[row] if velocity else noise[row]
        error = ((prediction[row] - target).double() ** 2).mean().item()
        snr = alpha / (1 - alpha)
        weight = 1.0 if not gamma else min(snr, gamma) / (snr + 1 if velocity else snr)
        (instance if row < instance_rows else prior).append(weight * error)
    total = sum(instance) / len(instance)
    return total + prior_weight * sum(prior) / len(prior) if prior else total


@pytest.mark.parametrize("gamma", [0.0, 5.0])
@pytest.mark.parametrize("prior_rows", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_loss_is_the_reference(kind, batch, prior_rows, gamma, request):
    family = load_family(base_of(request.getfixturevalue(kind)), dtype=torch.float32, device=torch.device("cpu"))
    rows = batch * 2 if prior_rows else batch
    generator = torch.Generator().manual_seed(7)
    prediction, latents, noise = (torch.randn(rows, 4, 6, 5, generator=generator) for _ in range(3))
    timesteps = [3, 999, 500, 12, 711, 250][:rows]
    index = torch.tensor(timesteps)
    loss = dreambooth_loss(
        family.noising.loss_weights(index, gamma) * row_losses(prediction, family.noising.target(latents, noise, index)),
        instance_rows=batch,
        prior_loss_weight=0.7,
    )
    expected = reference_loss(
        prediction,
        latents,
        noise,
        timesteps,
        velocity=kind == "sd2",
        gamma=gamma,
        instance_rows=batch,
        prior_weight=0.7,
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_class_row_has_the_weight_of_its_own_timestep(sd1):
    """A fault of common training scripts: with one row of each kind, the class row's timestep decided the photo's weight."""
    family = load_family(base_of(sd1), dtype=torch.float32, device=torch.device("cpu"))
    weights = family.noising.loss_weights(torch.tensor([0, 999]), 5.0)
    prediction, target = torch.ones(2, 4, 2, 2), torch.zeros(2, 4, 2, 2)
    loss = dreambooth_loss(weights * row_losses(prediction, target), instance_rows=1, prior_loss_weight=0.0)
    assert loss.item() == pytest.approx(weights[0].item())
    assert weights[0] < 0.01 < weights[1]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_snr_weights_stay_finite_where_the_schedule_ends_in_no_signal(sd1, prediction_type):
    family = load_family(base_of(sd1), dtype=torch.float32, device=torch.device("cpu"))
    config = family.noising.scheduler.config
    family.noising.scheduler = DDPMScheduler.from_config(config, rescale_betas_zero_snr=True, prediction_type=prediction_type)
    assert family.noising.loss_weights(torch.tensor([999, 0]), 5.0).isfinite().all()


def plain_step_gradients(folder, kind, example, latent_noise, noise, timesteps):
    """One DreamBooth step on an instance row and a class row, written with plain diffusers modules and plain autograd."""
    cls = StableDiffusionXLPipeline if kind == "sdxl" else StableDiffusionPipeline
    options = {} if kind == "sdxl" else {"safety_checker": None, "feature_extractor": None}
    pipe = cls.from_pretrained(folder, **options)
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)

    def hidden(number, prompt):
        suffix = "" if number == 1 else f"_{number}"
        tokenizer, encoder = getattr(pipe, "tokenizer" + suffix), getattr(pipe, "text_encoder" + suffix)
        tokens = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        return encoder(tokens, output_hidden_states=True)

    prompts = ["a photo of a sks dog", "a photo of a dog"]
    latents = (example.mean + example.std * latent_noise) * pipe.vae.config.scaling_factor
    noisy = scheduler.add_noise(latents, noise, timesteps)
    if kind == "sdxl":
        first, second = hidden(1, prompts), hidden(2, prompts)
        embeddings = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
        prediction = pipe.unet(
            noisy, timesteps, embeddings, added_cond_kwargs={"text_embeds": second[0], "time_ids": sizes}
        ).sample
    else:
        prediction = pipe.unet(noisy, timesteps, hidden(1, prompts)[0]).sample
    target = scheduler.get_velocity(latents, noise, timesteps) if kind == "sd2" else noise
    instance, prior = ((prediction - target) ** 2)[0].mean(), ((prediction - target) ** 2)[1].mean()
    (instance + 0.5 * prior).backward()
    encoders = [name for name in ("text_encoder", "text_encoder_2") if getattr(pipe, name, None) is not None]
    parts = {"unet": pipe.unet, **{name: getattr(pipe, name) for name in encoders}}
    return {f"{name}.{key}": value.grad for name, part in parts.items() for key, value in part.named_parameters()}


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_gradient_of_one_whole_step(kind, request):
    folder = request.getfixturevalue(kind)
    generator = torch.Generator().manual_seed(3)
    mean, std = torch.randn(2, 4, 16, 16, generator=generator), torch.rand(2, 4, 16, 16, generator=generator)
    family = load_family(base_of(folder), dtype=torch.float32, device=torch.device("cpu"))
    training = Training(
        family,
        plan_for(train_text_encoder=True),
        TrainSettings(steps=1, prior_loss_weight=0.5, seed=5),
        device=torch.device("cpu"),
        examples={
            "instance": [Example(LatentDistribution(mean[:1], std[:1]), (0,))],
            "class": [Example(LatentDistribution(mean[1:], std[1:]), (1,))],
        },
        prompts=["a photo of a sks dog", "a photo of a dog"],
        conditioning=None,
    )
    randoms = [row.random for kind in ("instance", "class") for row in training.rows(0, 0, kind)]
    (batch,) = training.batches(0, 0)
    training.batch_loss(batch).backward()
    expected = plain_step_gradients(
        folder,
        kind,
        LatentDistribution(mean, std),
        torch.stack([one.latent_noise for one in randoms]),
        torch.stack([one.noise for one in randoms]),
        torch.tensor([one.time for one in randoms]),
    )
    compared = 0
    for name, parameter in training.trained.items():
        if parameter.grad is not None and parameter.grad.abs().max() > 0:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-5)
            compared += 1
    assert compared > 200
