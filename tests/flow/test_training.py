"""One whole step compared with plain code, the prior that compares a LoRA with its base, networks that take turns, a base in 8 bits."""

import copy
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from dreambooth_cli.engine.families.latent_diffusion import LatentDistribution, denoiser_of, encode_frozen
from dreambooth_cli.engine.families.loading import bring_back, load_family, load_for_turns, parts_of
from dreambooth_cli.engine.families.lora import add_lora, lora_layers_of, store_in_8_bits
from dreambooth_cli.engine.images import class_cache
from dreambooth_cli.engine.training.examples import Example
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.engine.training.trained import checkpoint_gradients
from dreambooth_cli.errors import UsageError
from dreambooth_cli.events import ClassImageMade, StepDone
from dreambooth_cli.settings import TrainSettings
from dreambooth_cli.workflows import assemble
from dreambooth_cli.workflows.networks import shrink
from tests.engine.plans import base_of, plan_for
from tests.small_flow import KINDS
from tests.workflows.projects import make_project, of_kind, run

CPU = torch.device("cpu")
PROMPTS = ["a photo of a zibo dog", "a photo of a dog"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def base(kind, request):
    return request.getfixturevalue(kind.replace("-", "_"))


def load(base):
    return load_family(base_of(base), dtype=torch.float32, device=CPU)


def a_run(family, *, checkpointed=False, **settings):
    """A LoRA's training on one picture, with up matrices that are not zero."""
    prompts = encode_frozen(family, PROMPTS)
    latents = torch.randn(1, denoiser_of(family).config.in_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    training = Training(
        family,
        plan_for(method="lora", gradient_checkpointing=checkpointed),
        TrainSettings(rank=4, class_images=0, prior="base", prior_every=1, prior_loss_weight=0.5, **settings),
        device=CPU,
        examples={"instance": [Example(LatentDistribution(latents, torch.zeros_like(latents)), (0,))]},
        prompts=PROMPTS,
        conditioning=prompts,
        plain=[1, 1],
    )
    for number, (name, weight) in enumerate(training.trained.items()):
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(number))
    return training, prompts


def answer(kind, transformer, noisy, sigma, prompts, row):
    """eps - z by plain diffusers."""
    if kind == "z-image":
        said = transformer(list(noisy.unsqueeze(2)), 1 - sigma, [prompts.embeddings[row][: prompts.lengths[row]]], return_dict=False)[0]
        return -torch.stack(said).squeeze(2)
    height, width = noisy.shape[-2:]
    places = torch.cartesian_prod(torch.arange(1), torch.arange(height), torch.arange(width), torch.arange(1))
    words = torch.cartesian_prod(torch.arange(1), torch.arange(1), torch.arange(1), torch.arange(512))
    said = transformer(
        noisy.flatten(2).permute(0, 2, 1),
        encoder_hidden_states=prompts.embeddings[row : row + 1],
        timestep=sigma,
        img_ids=places,
        txt_ids=words,
        return_dict=False,
    )[0]
    return said.permute(0, 2, 1).reshape(noisy.shape)


def test_the_objective_and_the_gradient_of_a_whole_step_are_those_by_hand(kind, base):
    family = load(base)
    plain = copy.deepcopy(denoiser_of(family))
    training, prompts = a_run(family)
    (batch,) = training.batches(0, 0)
    loss, beside = training.batch_loss(batch), training.loss_of_base_prior(batch)
    training.update.backward(loss)
    training.update.backward(beside)
    ours = {name: weight.grad.clone() for name, weight in training.trained.items()}
    for weight in training.trained.values():
        weight.grad = None

    transformer, sigma = denoiser_of(family), batch.times
    z = family.sample_latents(training.examples["instance"][0].latents, torch.zeros(1))
    noisy = (1 - sigma)[:, None, None, None] * z + sigma[:, None, None, None] * batch.noise
    by_hand = (answer(kind, transformer, noisy, sigma, prompts, 0) - (batch.noise - z)).square().mean()
    with torch.no_grad():
        target = answer(kind, plain, noisy, sigma, prompts, 1)
    held = 0.5 * (answer(kind, transformer, noisy, sigma, prompts, 1) - target).square().mean()
    assert_close(loss, by_hand, rtol=1e-6, atol=1e-6)
    assert_close(beside, held, rtol=1e-6, atol=1e-6)
    assert held > 0
    (by_hand + held).backward()
    for name, weight in training.trained.items():
        assert_close(ours[name], weight.grad, rtol=1e-5, atol=1e-5 * float(weight.grad.abs().max()) + 1e-8, msg=name)


def test_the_lora_is_on_again_where_checkpointed_blocks_are_computed_once_more(base):
    found = []
    for checkpointed in (False, True):
        training, _ = a_run(load(base), checkpointed=checkpointed)
        (batch,) = training.batches(0, 0)
        training.update.backward(training.loss_of_base_prior(batch))
        found.append({name: weight.grad for name, weight in training.trained.items()})
    assert all(bool(gradient.any()) for gradient in found[0].values())
    for name, gradient in found[0].items():
        assert_close(found[1][name], gradient, msg=name)


def test_every_so_many_steps_it_is_held_against_its_base(base):
    training, _ = a_run(load(base), steps=6)
    training.settings = TrainSettings(rank=4, class_images=0, prior="base", prior_every=3, steps=6)
    own, asked = training.loss_of_base_prior, []
    training.loss_of_base_prior = lambda batch: asked.append(training.step) or own(batch)
    list(training.steps())
    assert asked == [2, 5]  # steps 3 and 6


def test_class_images_are_drawn_where_they_are_asked_for(klein, photos):
    project = make_project(photos, klein, steps=2, identifier="zibo", class_images=2, class_image_steps=2)
    assert len(of_kind(run(project, prior="class-images"), ClassImageMade)) == 2
    assert not of_kind(run(project, prior="none"), ClassImageMade)


def test_a_lora_of_stable_diffusion_may_be_held_against_its_base_too(sd1, photos):
    project = make_project(photos, sd1, steps=3, prior="base", method="lora", train_text_encoder=True)
    events = run(project)
    assert len(of_kind(events, StepDone)) == 3
    assert not of_kind(events, ClassImageMade)
    with pytest.raises(UsageError, match="--method full changes the base itself"):
        run(project, method="full")


@pytest.mark.parametrize("prior", ["base", "class-images"])
def test_networks_are_in_memory_one_at_a_time(prior, base, photos, monkeypatch):
    """Also while class images are drawn, but for the VAE, which is small beside a transformer."""
    seen = defaultdict(set)

    def looked_at(module, name):
        own = getattr(module, name)

        def look(family, *args, **options):
            seen[name] |= {" ".join(sorted(parts_of(family.pipe)))}
            return own(family, *args, **options)

        monkeypatch.setattr(module, name, look)

    in_training, of_class = ("encode_pictures", "encode_frozen", "Training"), ("embed", "draw_latents", "decode")
    for module, names in ((assemble, in_training), (class_cache, of_class)):
        for name in names:
            looked_at(module, name)
    settings = {"class_images": 2, "class_image_steps": 2, "sample_every": 1, "sample_steps": 1}
    run(make_project(photos, base, steps=1, identifier="zibo", **settings), prior=prior)
    there = {"encode_pictures": {"vae"}, "encode_frozen": {"text_encoder"}, "Training": {"transformer"}}
    together = {"embed": {"text_encoder"}, "draw_latents": {"transformer vae"}, "decode": {"transformer vae"}}
    assert seen == there | (together if prior == "class-images" else {})


class Held(TorchDispatchMode):
    """The bytes that tensors made in the machine's memory hold, and the most that they ever held; those mapped from a file hold none."""

    def __init__(self):
        super().__init__()
        self.held, self.most = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.device == CPU:
            given = {each.untyped_storage()._cdata for each in args if isinstance(each, torch.Tensor)}
            if (storage := made.untyped_storage())._cdata not in given:
                self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.held = {key: each for key, each in self.held.items() if not each[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.held.values()))
        return made


@pytest.mark.parametrize(("stored", "fp8", "most"), [(torch.float32, False, 2), (torch.bfloat16, False, 0), (torch.bfloat16, True, 1)])
def test_weights_are_never_in_memory_twice_while_they_are_read(stored, fp8, most, base, tmp_path):
    """Each is cast by itself: `most` bytes a value besides the mapped file, and what one layer takes."""
    base = Path(shutil.copytree(base, tmp_path / "base"))
    (file,) = (base / "transformer").glob("*.safetensors")
    save_file({name: weight.to(stored) for name, weight in load_file(file).items()}, file)
    family = load_for_turns(base_of(base))
    with Held() as held:
        bring_back(family.pipe, base_of(base), dtype=torch.bfloat16, device=CPU, only=["transformer"])
        shrink(family, plan_for(method="lora", precision="bf16", fp8=fp8))
    count = sum(weight.numel() for weight in denoiser_of(family).parameters())
    assert most * count / 10 < held.most <= (most + 0.1) * count


def test_a_base_in_8_bits_keeps_what_is_precise_and_its_lora_has_gradients(kind, base):
    family = load(base)
    part, transformer = family.record.parts["transformer"], denoiser_of(family)
    store_in_8_bits(transformer, part, torch.float32)
    formats = {name: weight.dtype for name, weight in transformer.named_parameters()}
    small = {name for name, dtype in formats.items() if dtype == torch.float8_e4m3fn}
    assert len(small) > len(formats) / 3
    assert not [name for name in small if any(mark in name for mark in part.precise)]
    assert not [name for name in small if "embed" in name or "norm" in name or "final" in name or "modulation" in name]
    add_lora(transformer, layers=lora_layers_of(transformer, part, "all"), rank=4, alpha=4.0, seed=0)
    checkpoint_gradients(transformer)
    prompts = encode_frozen(family, PROMPTS[:1])
    noisy = torch.randn(1, transformer.config.in_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    family.predict(noisy, torch.full((1,), 0.5), prompts).square().mean().backward()
    dead = [name for name, weight in transformer.named_parameters() if weight.requires_grad and "lora_B" in name and not weight.grad.any()]
    assert not dead
    assert not [name for name, weight in transformer.named_parameters() if "lora" in name and weight.dtype != torch.float32]
