"""The straight path between picture and noise, compared with the equations and with the schedulers that pipelines draw with."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch.testing import assert_close

from dreambooth_cli.engine.families.latent_diffusion import denoiser_of
from dreambooth_cli.engine.families.loading import load_family
from dreambooth_cli.engine.families.noising import RectifiedFlow, shifted
from tests.engine.plans import base_of


def test_it_is_the_same_by_hand():
    """(1 - sigma) z + sigma eps, whose derivative by sigma is the target; a network that predicts it exactly leads back to z."""
    noising, generator = RectifiedFlow(lambda shape: 3.0), torch.Generator().manual_seed(0)
    z, eps = (torch.randn(2, 4, 6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    sigmas = torch.tensor([0.25, 0.9], dtype=torch.float64, requires_grad=True)
    noisy = noising.add_noise(z, eps, sigmas)
    (slope,) = torch.autograd.grad(noisy[0, 0, 0, 0], sigmas)
    target = noising.target(z, eps, sigmas)
    assert_close(slope[0], target[0, 0, 0, 0])
    assert_close(noisy.detach() - sigmas.detach()[:, None, None, None] * target, z)
    drawn = noising.sketch(eps[:1].float(), lambda noisy, sigma: (eps[:1] - z[:1]).float(), steps=7)
    assert_close(drawn, z[:1].float())
    assert float(shifted(torch.tensor(0.5), 3.0)) == 0.75


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
def test_it_is_the_noise_of_the_scheduler_that_draws(shift):
    """At each of the scheduler's sigmas, the noisy latents equal its own, and its step back along the target gives the clean ones."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(9)
    noising, generator = RectifiedFlow(lambda shape: shift), torch.Generator().manual_seed(1)
    z, eps = torch.randn(1, 4, 6, 6, generator=generator), torch.randn(1, 4, 6, 6, generator=generator)
    scheduler.set_begin_index(0)
    for place, (sigma, timestep) in enumerate(zip(scheduler.sigmas[:-1], scheduler.timesteps, strict=True)):
        assert_close(sigma * 1000, timestep)
        noisy = noising.add_noise(z, eps, sigma[None])
        assert_close(noisy, scheduler.scale_noise(z, timestep[None], eps))
        stepped = scheduler.step(noising.target(z, eps, sigma[None]), timestep, noisy).prev_sample
        assert_close(stepped, noising.add_noise(z, eps, scheduler.sigmas[place + 1][None]))
    straight = torch.linspace(1, 0, 9 + 1)[:-1]
    ours = FlowMatchEulerDiscreteScheduler(shift=shift)
    ours.set_timesteps(sigmas=straight.tolist())
    assert_close(ours.sigmas[:-1], shifted(straight, shift))


# the shift of the family's own training by the tokens' rows and columns: FLUX.1's for klein at 512, 768, 1024 and 512 x 1024 px
SHIFTS = {"klein": {(32, 32): 1.88, (48, 48): 2.33, (64, 64): 3.16, (32, 64): 2.23}, "z-image": {(64, 64): 1.0, (128, 128): 1.0}}


@pytest.mark.parametrize("kind", SHIFTS)
def test_each_family_has_its_own_shift_and_its_scheduler_s_noise(kind, request):
    family = load_family(base_of(request.getfixturevalue(kind.replace("-", "_"))), dtype=torch.float32, device=torch.device("cpu"))
    scheduler, straight = family.pipe.scheduler, torch.linspace(1, 0, 9 + 1)[:-1]
    for (height, width), shift in SHIFTS[kind].items():
        generator, shape = torch.Generator().manual_seed(2), torch.Size([denoiser_of(family).config.in_channels, height, width])
        own = family.noising.shift(shape)
        assert own == pytest.approx(shift, abs=0.005)
        plain = torch.randn((), generator=torch.Generator().manual_seed(2), dtype=torch.float64).sigmoid()
        assert family.noising.random_time(generator, shape) == own * plain / (1 + (own - 1) * plain)
        scheduler.set_timesteps(sigmas=straight.tolist(), mu=calculate_shift(height * width))
        assert_close(scheduler.sigmas[:-1], shifted(straight, own if kind == "klein" else 6.0))  # Z-Image's 6 is for drawing
    z, eps = (torch.randn(1, *shape, generator=generator) for _ in range(2))
    for sigma, timestep in zip(scheduler.sigmas[:-1], scheduler.timesteps, strict=True):
        assert_close(family.noising.add_noise(z, eps, sigma[None]), scheduler.scale_noise(z, timestep[None], eps))


def sigmas(shift):
    """Many random sigmas, float64."""
    noising, shape = RectifiedFlow(lambda shape: shift), torch.Size([4, 8, 8])
    drawn = [noising.random_time(torch.Generator().manual_seed(seed), shape) for seed in range(2000)]
    return torch.tensor(drawn, dtype=torch.float64)


def test_sigmas_are_drawn_continuously_and_shifted():
    plain, far = sigmas(1.0), sigmas(3.0)
    assert len(plain.unique()) == 2000
    assert bool((plain > 0).all() and (plain < 1).all())
    assert plain.median().item() == pytest.approx(0.5, abs=0.02)
    assert far.median().item() == pytest.approx(0.75, abs=0.02)
    assert plain.logit().std().item() == pytest.approx(1.0, abs=0.05)
