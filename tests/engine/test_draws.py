"""Draws follow from (seed, step, row) alone."""

import torch

from dreambooth_cli.engine.draws import example_at, generator_of, seed_of
from dreambooth_cli.engine.examples import draw_row
from dreambooth_cli.engine.loading import load_family
from tests.engine.plans import base_of


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


def test_accumulation_changes_no_draw(sd1):
    """Two batches of one row draw what one batch of two rows draws."""
    family = load_family(base_of(sd1), dtype=torch.float32, device=torch.device("cpu"))

    def row(number):
        return draw_row(
            family, seed=0, step=4, row=number, rows=2, kind="class", count=7, mirror=True, shape=torch.Size([4, 3, 3])
        )

    first, again, second = row(0), row(0), row(1)
    assert (first.example, first.time, first.mirrored) == (again.example, again.time, again.mirrored)
    assert torch.equal(first.noise, again.noise)
    assert not torch.equal(first.noise, second.noise)
    assert not torch.equal(first.noise, first.latent_noise)


def test_the_steps_go_through_all_examples(sd1):
    """Three steps of two rows each see every one of six examples once."""
    family = load_family(base_of(sd1), dtype=torch.float32, device=torch.device("cpu"))
    shape = torch.Size([4, 3, 3])
    seen = [
        draw_row(
            family, seed=0, step=step, row=row, rows=2, kind="instance", count=6, mirror=False, shape=shape
        ).example
        for step in range(3)
        for row in range(2)
    ]
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]
