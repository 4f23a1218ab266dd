"""Examples with their own prompt, size and mask: if sizes differ, a step takes several passes, and its gradients are those of the whole."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dreambooth_cli.engine.families.latent_diffusion import LatentDistribution, encode_frozen
from dreambooth_cli.engine.families.loading import load_family
from dreambooth_cli.engine.seeds import Place
from dreambooth_cli.engine.training.batches import Row, batches_of
from dreambooth_cli.engine.training.examples import Example, randomness_of
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.engine.training.objective import dreambooth_loss, row_losses
from dreambooth_cli.settings import TrainSettings
from tests.engine.plans import base_of, plan_for

PROMPTS = ["a photo of a sks dog", "a photo of a dog", "a sks dog on a red rug"]
SQUARE, WIDE = (16, 16), (8, 24)


def picture(seed, size, prompt, mask=None):
    """One example whose latents are noise."""
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.randn(1, 4, *size, generator=generator), torch.rand(1, 4, *size, generator=generator)
    return Example(LatentDistribution(mean, std), (prompt,), mask=mask)


def start(folder, photos, class_images, *, plan=None, **settings):
    """A run on these examples, with two rows of each kind in a step."""
    family = load_family(base_of(folder), dtype=torch.float32, device=torch.device("cpu"))
    plan = plan or plan_for(train_text_encoder=True)
    return Training(
        family,
        plan,
        TrainSettings(steps=4, batch_size=2, prior_loss_weight=0.7, snr_gamma=5.0, **settings),
        device=torch.device("cpu"),
        examples={"instance": photos, "class": class_images},
        prompts=PROMPTS,
        conditioning=None if plan.train_text_encoder else encode_frozen(family, PROMPTS),
    )


def by_hand(training, class_rows=2):
    """The gradient of step 0's loss, added up row by row: each with its prompt, noise and weight, and its share of its kind's term."""
    family, total = training.family, torch.zeros(())
    for kind, weight, rows in (("instance", 1.0, 2), ("class", 0.7, class_rows)):
        for number in range(rows):
            examples = training.examples[kind]
            one = randomness_of(family.noising, examples, Place(0, 0, kind, number, rows))
            example = examples[one.example]
            latents, time = family.sample_latents(example.latents, one.latent_noise[None]), torch.tensor([one.time])
            noisy = family.noising.add_noise(latents, one.noise[None], time)
            said = family.predict(noisy, time, family.encode_prompts([PROMPTS[one.prompt]]))
            loss = row_losses(said, one.noise[None], example.mask) * family.noising.loss_weights(time, 5.0)
            total = total + weight * loss.sum() / rows
    total.backward()
    return total.detach(), gradients(training)


def gradients(training):
    found = {name: value.grad.clone() for name, value in training.trained.items() if value.grad is not None}
    for value in training.trained.values():
        value.grad = None
    return found


def of_passes(training):
    """The loss and gradients of step 0, pass by pass, and how many passes."""
    losses = []
    for batch in training.batches(0, 0):
        losses.append(training.batch_loss(batch))
        losses[-1].backward()
    return torch.stack(losses).sum().detach(), gradients(training), len(losses)


CASES = {
    "one size": ([picture(1, SQUARE, 0), picture(2, SQUARE, 0)], [picture(3, SQUARE, 1)], 1),
    "captions": ([picture(1, SQUARE, 0), picture(2, SQUARE, 2)], [picture(3, SQUARE, 1)], 1),
    "class images of another size": ([picture(1, WIDE, 0), picture(2, WIDE, 2)], [picture(3, SQUARE, 1)], 2),
    "photos of two sizes": ([picture(1, WIDE, 0), picture(2, SQUARE, 2)], [picture(3, SQUARE, 1)], 2),
    "a mask": ([picture(1, SQUARE, 0, torch.eye(16)[None, None]), picture(2, SQUARE, 0)], [picture(3, SQUARE, 1)], 1),
}


@pytest.mark.parametrize("case", CASES)
def test_the_passes_of_a_step_add_up_to_the_loss_of_its_rows(case, sd1):
    photos, class_images, passes = CASES[case]
    training = start(sd1, photos, class_images)
    loss, found, count = of_passes(training)
    wanted, expected = by_hand(training)
    assert count == passes
    assert_close(loss, wanted)
    assert found.keys() == expected.keys()
    assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("class_rows", [1, 3])
def test_there_may_be_fewer_class_images_in_a_batch_or_more(class_rows, sd1):
    photos, class_images, _ = CASES["captions"]
    training = start(sd1, photos, [*class_images, picture(4, SQUARE, 1)], class_batch_size=class_rows)
    assert [len(batch.times) for batch in training.batches(0, 0)] == [2 + class_rows]
    loss, found, _ = of_passes(training)
    wanted, expected = by_hand(training, class_rows)
    assert_close(loss, wanted)
    assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_run_on_several_sizes_goes_on_to_the_bit(sd1):
    photos, class_images, _ = CASES["photos of two sizes"]
    plan = plan_for(method="lora")
    whole, parts, rest = (start(sd1, photos, class_images, plan=plan) for _ in range(3))
    list(whole.steps())
    steps = parts.steps()
    next(steps), next(steps)
    rest.load(parts.state())
    steps.close()
    list(rest.steps())
    assert_close(rest.state().weights, whole.state().weights, rtol=0, atol=0)
    assert_close(rest.state().optimizer, whole.state().optimizer, rtol=0, atol=0)


def test_steps_inside_backward_are_for_one_size(sd1):
    photos, class_images, _ = CASES["class images of another size"]
    with pytest.raises(ValueError, match="2 sizes"):
        start(sd1, photos, class_images, plan=plan_for(inside_backward=True))


def test_a_mirrored_row_has_its_mask_mirrored(sd1):
    family = load_family(base_of(sd1), dtype=torch.float32, device=torch.device("cpu"))
    plain = picture(1, SQUARE, 0, torch.linspace(0, 1, 16).expand(1, 1, 16, 16))
    twin = LatentDistribution(plain.latents.mean.flip(-1), plain.latents.std.flip(-1))
    examples = [replace(plain, mirrored=twin)]
    for row in range(8):
        one = randomness_of(family.noising, examples, Place(0, 0, "instance", row, 8))
        (batch,) = batches_of(family, [Row(True, examples[0], one)], of=(1, 0))
        source = twin if one.mirrored else plain.latents
        assert_close(batch.latents, family.sample_latents(source, one.latent_noise[None]), rtol=0, atol=0)
        assert_close(batch.mask, plain.mask.flip(-1) if one.mirrored else plain.mask, rtol=0, atol=0)


def test_a_part_of_a_batch_has_its_share_of_the_loss():
    losses = torch.tensor([1.0, 2.0, 3.0, 5.0])
    whole = dreambooth_loss(losses, instance_rows=2, prior_loss_weight=0.5, of=(2, 2))
    first = dreambooth_loss(losses[:1], instance_rows=1, prior_loss_weight=0.5, of=(2, 2))
    others = dreambooth_loss(losses[1:], instance_rows=1, prior_loss_weight=0.5, of=(2, 2))
    assert float(whole) == 1.5 + 0.5 * 4
    assert float(first + others) == float(whole)
    assert float(dreambooth_loss(losses, instance_rows=3, prior_loss_weight=0.5, of=(3, 1))) == 2 + 0.5 * 5
    assert float(dreambooth_loss(losses, instance_rows=2, prior_loss_weight=0.5)) == 1.5 + 0.5 * 4


def test_only_what_the_mask_lets_count_is_in_a_row_s_loss():
    prediction, mask = torch.zeros(2, 4, 2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]).expand(2, 1, 2, 2)
    target = torch.full((2, 4, 2, 2), 9.0)
    target[0, :, 0, 0], target[1, :, 0, 0] = 1.0, 2.0
    assert row_losses(prediction, target, mask).tolist() == [1.0, 4.0]
