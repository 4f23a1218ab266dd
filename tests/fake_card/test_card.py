"""The fake card itself: it does what a card does, refuses what a card refuses, and notices each wait."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from dreambooth_cli.engine.images.sampling import Drawing, draw
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.engine.training.optimizers import Update
from dreambooth_cli.events import ImageSaved
from dreambooth_cli.settings import GenerateSettings
from dreambooth_cli.source import Source
from dreambooth_cli.workflows.generate import generate
from tests.workflows.projects import make_project, of_kind

from .card import NotOneDevice, NotOneFormat, fake_card, is_on_card
from .runs import a_card_is_here, odd_waits, run_on_card

QUICK = {"train_text_encoder": False, "class_images": 0}


@pytest.fixture
def card():
    with fake_card() as card:
        yield card


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_is_the_cards_own(card, dtype):
    linear, norm = nn.Linear(4, 4).to("cuda"), nn.LayerNorm(4).to("cuda")
    with torch.autocast("cuda", dtype):
        product = linear(torch.randn(2, 4, device="cuda"))
        assert product.dtype == dtype
        assert norm(product).dtype == torch.float32  # a CPU's autocast leaves it in half precision
    product.float().sum().backward()
    assert is_on_card(linear.weight.grad)
    assert linear.weight.grad.dtype == torch.float32


def test_the_scaler_scales_and_steps(card):
    seen = []
    card.seen.append(lambda func, *rest: seen.append(func))
    weight = nn.Parameter(torch.ones(4, device="cuda"))
    update = Update(
        [{"weight": weight}], kind="adamw", weight_decay=0.0, max_grad_norm=1.0, scaled=True, device=torch.device("cuda")
    )
    assert update.scaler.is_enabled()
    update.begin([1e-3])
    update.backward((weight * 2).sum())
    update.step()
    aten = torch.ops.aten
    assert aten._amp_foreach_non_finite_check_and_unscale_.default in seen
    assert aten._fused_adamw_.default in seen
    assert aten._amp_update_scale_.default in seen
    assert not card.waits


def test_the_scaler_steps_what_can_not_leave_a_step_out_by_itself(card):
    """It asks how many gradients are not finite, and waits for the answer."""
    weight = nn.Parameter(torch.ones(4, device="cuda"))
    groups, device = [{"weight": weight}], torch.device("cuda")
    update = Update(groups, kind="adamw", weight_decay=0.0, max_grad_norm=0.0, scaled=True, off_card=True, device=device)
    update.begin([1e-3])
    update.backward((weight * 2).sum())
    update.step()
    assert update.optimizer.state[weight]["step"] == 1
    assert [wait.place for wait in card.waits if wait.place.endswith(":step")]


def test_attention_is_fused(card):
    seen = []
    card.seen.append(lambda func, *rest: seen.append(str(func)))
    query = torch.randn(1, 2, 8, 5, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16):
        scaled_dot_product_attention(query, query, query).sum().backward()
    mask = torch.zeros(1, 1, 8, 8, device="cuda")
    scaled_dot_product_attention(query, query, query, attn_mask=mask).sum().backward()
    for kind in ("flash", "efficient"):
        assert f"aten._scaled_dot_product_{kind}_attention.default" in seen
        assert f"aten._scaled_dot_product_{kind}_attention_backward.default" in seen
    assert query.grad.shape == query.shape


def test_memory_is_counted(card):
    kept = torch.empty(1000, device="cuda")
    more = torch.empty(500, device="cuda")
    assert (card.now, card.most) == (6000, 6000)
    assert kept.view(10, 100).untyped_storage().nbytes() == 4000
    del more
    assert (card.now, card.most) == (4000, 6000)
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_reserved() == 4000


REFUSED = {
    "weights left on the CPU": (NotOneDevice, lambda: nn.Linear(4, 4)(torch.randn(2, 4, device="cuda"))),
    "an input left on the CPU": (NotOneDevice, lambda: nn.Linear(4, 4, device="cuda")(torch.randn(2, 4))),
    "a sum over two devices": (NotOneDevice, lambda: torch.randn(4) + torch.randn(4, device="cuda")),
    "a generator of the CPU's": (RuntimeError, lambda: torch.randn(4, device="cuda", generator=torch.Generator())),
    "a product of two formats": (NotOneFormat, lambda: nn.Linear(4, 4, device="cuda")(torch.ones(4, device="cuda").half())),
    "a convolution of two formats": (
        RuntimeError,  # torch's own
        lambda: nn.Conv2d(4, 4, 3, device="cuda")(torch.ones(2, 4, 8, 8, device="cuda").half()),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_card_refuses(card, what):
    error, call = REFUSED[what]
    with pytest.raises(error):
        call()


WAITS = {
    "item": lambda: torch.ones(1, device="cuda").item(),
    "tolist": lambda: torch.ones(2, device="cuda").tolist(),
    "truth": lambda: bool(torch.ones(1, device="cuda") > 0),
    "nonzero": lambda: torch.ones(2, device="cuda").nonzero(),
    "equal": lambda: torch.equal(torch.ones(2, device="cuda"), torch.ones(2, device="cuda")),
    "to the machine": lambda: torch.ones(2, device="cuda").cpu(),
    "into the machine": lambda: torch.empty(2).copy_(torch.ones(2, device="cuda"), non_blocking=True),
    "to the card": lambda: torch.ones(2).to("cuda"),
    "to the card, not pinned": lambda: torch.ones(2).to("cuda", non_blocking=True),
    "to the card, blocking": lambda: torch.ones(2).pin_memory().to("cuda"),
    "a list becomes a tensor": lambda: torch.tensor([1, 2], device="cuda"),
    "a list as indices": lambda: torch.ones(2, device="cuda")[[0, 1]],
    "synchronize": lambda: torch.cuda.synchronize(),
}
NO_WAITS = {
    "pinned to the card": lambda: torch.ones(2).pin_memory().to("cuda", non_blocking=True),
    "to pinned memory": lambda: torch.empty(2, pin_memory=True).copy_(torch.ones(2, device="cuda"), non_blocking=True),
    "without waiting": lambda: torch.ones(2, device="cuda").to("cpu", non_blocking=True),
    "filled there": lambda: torch.full((2,), 3.0, device="cuda"),
    "a number of Python's": lambda: torch.ones(2, device="cuda") * 3 + torch.tensor(2.0),
}


@pytest.mark.parametrize("what", WAITS)
def test_each_wait_is_seen(card, what):
    WAITS[what]()
    assert len(card.waits) == 1


@pytest.mark.parametrize("what", NO_WAITS)
def test_what_does_not_wait(card, what):
    NO_WAITS[what]()
    assert not card.waits


def test_weights_left_on_the_cpu_fail_a_run(sd1, two_photos, monkeypatch):
    """Teeth: nothing comes along."""
    for name in ("assemble", "networks"):
        monkeypatch.setattr(f"dreambooth_cli.workflows.{name}.place", lambda pipe, names, device: None)
    project = make_project(two_photos, sd1)
    with a_card_is_here() as card, pytest.raises(NotOneDevice):
        run_on_card(card, project, **QUICK)


def test_a_draw_that_is_not_brought_over_fails_a_run(sd1, two_photos, monkeypatch):
    """Teeth."""
    monkeypatch.setattr(Training, "bring", lambda training, drawn: drawn)
    project = make_project(two_photos, sd1)
    with a_card_is_here() as card, pytest.raises(NotOneDevice):
        run_on_card(card, project, **QUICK)


def test_a_read_and_a_blocking_draw_in_the_step_are_seen(sd1, two_photos, monkeypatch):
    """Teeth: a loss that is read at once, draws that are not pinned."""
    own = Training.batch_loss

    def read(training, *args):
        loss = own(training, *args)
        loss.item()
        return loss

    monkeypatch.setattr(Training, "batch_loss", read)
    monkeypatch.setattr(Training, "bring", lambda training, drawn: drawn.to(training.device))
    project = make_project(two_photos, sd1)
    with a_card_is_here() as card:
        _, waits = run_on_card(card, project, **QUICK)
    places = {(wait.place, wait.what.partition(":")[0]) for wait in odd_waits(waits)}
    assert places == {
        ("engine/training/loop.py:train_step", "aten._local_scalar_dense.default"),
        ("engine/training/loop.py:noised", "aten._to_copy.default"),
    }


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "klein", "z_image"])
def test_generate_draws(kind, request, tmp_path):
    settings = GenerateSettings(num_images=2, steps=2, batch_size=1, negative_prompt="gray")
    with a_card_is_here() as card:
        source = Source(request.getfixturevalue(kind))
        events = list(generate(source, "a dog", settings, output_dir=tmp_path, grid=True))
    assert len(of_kind(events, ImageSaved)) == 2
    assert card.most > 0


def test_drawing_waits_for_few_things(sd1):
    """A denoising step of class images reads nothing back except what the sampler's first step looks up."""
    from dreambooth_cli.engine.families.loading import load_family
    from dreambooth_cli.engine.images.sampling import use_scheduler
    from tests.engine.plans import base_of

    found = []
    with fake_card() as card:
        family = load_family(base_of(sd1), dtype=torch.bfloat16, device=torch.device("cuda"))
        use_scheduler(family.pipe, "dpm++")
        for steps in (2, 3):
            known = len(card.waits)
            draw(family, ["a dog"], [1], Drawing(steps=steps, guidance_scale=7.5, width=64, height=64))
            found.append(len(card.waits) - known)
    assert found[1] - found[0] <= 8, "waits of a further denoising step"
