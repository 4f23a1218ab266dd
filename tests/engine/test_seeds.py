"""Random numbers depend only on (seed, step, row)."""

import pytest
import torch
from diffusers import DDPMScheduler

from dreambooth_cli.engine.families.latent_diffusion import LatentDistribution
from dreambooth_cli.engine.families.noising import Diffusion
from dreambooth_cli.engine.seeds import Place, example_at, generator_of, part_of, seed_of
from dreambooth_cli.engine.training.examples import Example, randomness_of


@pytest.fixture
def noising():
    return Diffusion(DDPMScheduler())


def test_seeds_of_neighbours_do_not_meet():
    seeds = {seed_of(seed, step, row) for seed in range(20) for step in range(20) for row in range(20)}
    assert len(seeds) == 8000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generator_is_the_same_each_time():
    assert torch.equal(torch.randn(5, generator=generator_of(1, 2)), torch.randn(5, generator=generator_of(1, 2)))


def test_every_epoch_holds_every_example_once_and_orders_differ():
    epochs = [[example_at(0, "instance", epoch * 5 + place, 5) for place in range(5)] for epoch in range(6)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def examples(count, *, mirrored, prompts=(0,)):
    """Examples of noise, `count` of them."""
    encoded = [LatentDistribution(*torch.randn(2, 1, 4, 3, 3, generator=generator_of("picture", number))) for number in range(count)]
    return [Example(one, prompts, one if mirrored else None) for one in encoded]


def test_accumulation_changes_nothing_random(noising):
    """Two batches of one row get what one batch of two rows gets."""
    pictures = examples(7, mirrored=True)

    def row(number):
        return randomness_of(noising, pictures, Place(seed=0, step=4, kind="class", row=number, rows=2))

    first, again, second = row(0), row(0), row(1)
    assert (first.example, first.time, first.mirrored) == (again.example, again.time, again.mirrored)
    assert torch.equal(first.noise, again.noise)
    assert not torch.equal(first.noise, second.noise)
    assert not torch.equal(first.noise, first.latent_noise)


def test_the_steps_go_through_all_examples(noising):
    """Three steps of two rows see each of six examples once."""
    pictures = examples(6, mirrored=False)
    seen = [
        randomness_of(noising, pictures, Place(seed=0, step=step, kind="instance", row=row, rows=2)).example
        for step in range(3)
        for row in range(2)
    ]
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]


def test_each_row_has_one_of_its_example_s_prompts_and_all_else_as_with_one(noising):
    few, many = examples(3, mirrored=True), examples(3, mirrored=True, prompts=(4, 5, 6))
    counts = dict.fromkeys((4, 5, 6), 0)
    for step in range(300):
        place = Place(seed=0, step=step, kind="instance", row=1, rows=4)
        one, other = randomness_of(noising, few, place), randomness_of(noising, many, place)
        counts[other.prompt] += 1
        assert one.prompt == 0
        assert (one.example, one.mirrored, one.time) == (other.example, other.mirrored, other.time)
        assert torch.equal(one.noise, other.noise)
        assert torch.equal(one.latent_noise, other.latent_noise)
    assert all(70 < count < 130 for count in counts.values())


def test_the_parts_of_a_global_batch_are_its_rows_in_order():
    """The share of each process, and within it that of each pass: together they are all rows, each once."""
    whole = range(24)
    of_processes = [whole[part.start : part.stop] for part in (part_of(24, 3, process) for process in range(3))]
    assert of_processes == [range(0, 8), range(8, 16), range(16, 24)]
    of_passes = [rows[part.start : part.stop] for rows in of_processes for part in (part_of(8, 4, number) for number in range(4))]
    assert [row for rows in of_passes for row in rows] == list(whole)
