"""What a step demands of a card must not grow: kernels, the bytes that they move, waits, the size of a checkpoint. 2% more fails.

The small bases stand for the large ones, whose figures are in tests/benchmarks/kernels.md: their networks have the same layers.
"""

import math

import pytest
import torch

from dreambooth_cli.engine.families.latent_diffusion import LatentDistribution, encode_frozen
from dreambooth_cli.engine.families.loading import DTYPES, let_go, load_family, place, text_encoders_of
from dreambooth_cli.engine.families.lora import quantize
from dreambooth_cli.engine.training.examples import Example
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.memory.plan import weights_of
from dreambooth_cli.settings import TrainSettings
from tests.benchmarks.kernels import ALL_MEANS, TOLERANCE, count, plan_with
from tests.engine.plans import base_of, plan_for

from .card import fake_card
from .counting import count_second_step, launches_of

pytestmark = pytest.mark.slow

MARGIN = 1.02
ON_CARD = {"device": "cuda", "precision": "bf16"}
LORA = ON_CARD | {"method": "lora"}
LEAN = ON_CARD | {"weights": "bf16", "optimizer": "adamw8bit", "gradient_checkpointing": True}
# base, plan; kernels of a step, those of the optimizer, bytes, waits, bytes of a checkpoint. Where the text encoder is trained, bytes
# follow the tokenizer's size, which is not the same everywhere: None.
CEILINGS = {
    "full": ("sd1", ON_CARD, (760, 17, 109_018_652, 1, 9_516_400)),
    "the plan for 8 GB": ("sd1", LEAN | {"train_text_encoder": True}, (1_576, 248, None, 1, None)),
    "lora": ("sd1", LORA, (935, 6, 76_018_316, 1, 120_064)),
    "SDXL, lora, base in 4 bits": ("sdxl", LORA | {"quantized": True, "rows_in_turn": True}, (3_401, 13, 95_830_690, 1, 406_016)),
}


def start(folder, plan):
    """A run of a small base on the card, as `train` has it when the steps begin."""
    family = load_family(base_of(folder), dtype=DTYPES[weights_of(plan)], device=torch.device("cpu"))
    pipe, device = family.pipe, torch.device("cuda")
    if plan.quantized:
        quantize(pipe.unet, torch.bfloat16)
        place(pipe, ["unet"], device)
    let_go(pipe, ["vae"])
    prompts, conditioning, encoders = ["a sks dog", "a dog"], None, list(text_encoders_of(pipe))
    if not plan.train_text_encoder:
        place(pipe, encoders, device)
        conditioning = encode_frozen(family, prompts)
        let_go(pipe, encoders)
    place(pipe, ["unet", *encoders], device)
    latents = torch.zeros(2, 4, 16, 16)
    encoded = [LatentDistribution(row, row) for row in latents.split(1)]
    return Training(
        family,
        plan,
        TrainSettings(rank=4),
        device=device,
        examples={kind: [Example(one, (row,)) for one in encoded] for row, kind in enumerate(["instance", "class"])},
        prompts=prompts,
        conditioning=conditioning,
    )


@pytest.mark.parametrize("name", CEILINGS)
def test_a_step_asks_no_more_of_a_card(name, request):
    kind, plan, ceilings = CEILINGS[name]
    if plan.get("quantized") or plan.get("optimizer") == "adamw8bit":
        pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    with fake_card() as card:
        step = count_second_step(card, start(request.getfixturevalue(kind), plan_for(**plan)))
    found = (step.kernels, step.optimizer.kernels, step.moved, len(step.waits), step.checkpoint)
    told = ("kernels", "kernels of the optimizer", "bytes moved", "waits", "bytes of a checkpoint")
    above = [
        f"{value:,} {what}, at most {ceiling:,}"
        for value, what, ceiling in zip(found, told, ceilings, strict=True)
        if ceiling is not None and value > math.floor(MARGIN * ceiling)
    ]
    assert not above, "; ".join(above)


FROZEN = {
    "lora": ("sd1", LORA),
    "lora, text encoder, fp16": ("sd1", LORA | {"train_text_encoder": True, "precision": "fp16"}),
    "lora, checkpointing, in turn": ("sdxl", LORA | {"gradient_checkpointing": True, "rows_in_turn": True}),
    "base in 4 bits": ("sd2", LORA | {"quantized": True}),
}


@pytest.mark.parametrize("name", FROZEN)
def test_no_frozen_weight_is_cast_in_a_step(name, request):
    kind, plan = FROZEN[name]
    if plan.get("quantized"):
        pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    cast: list[str] = []
    with fake_card() as card:
        training = start(request.getfixturevalue(kind), plan_for(**plan))
        networks = [training.family.pipe.unet, *text_encoders_of(training.family.pipe).values()]
        named = [each for network in networks for each in (*network.named_parameters(), *network.named_buffers())]
        frozen = {value.untyped_storage()._cdata: key for key, value in named if not value.requires_grad}
        assert len(frozen) > 100

        def look(func, args, kwargs, result):
            if func is torch.ops.aten._to_copy.default and (key := frozen.get(args[0].untyped_storage()._cdata)):
                cast.append(f"{key} from {args[0].dtype} to {result.dtype}")

        card.seen.append(look)
        count_second_step(card, training)
    assert not cast, f"{len(cast)} casts of weights that stay as they are, the first: {cast[0]}"


@pytest.mark.parametrize(
    ("base", "means"),
    [
        ("sd15", {"method": "lora", "train_text_encoder": False, "quantized": True}),
        pytest.param("sd21", ALL_MEANS, marks=pytest.mark.long),
    ],
    ids=["LoRA, base in 4 bits", "all means"],
)
def test_the_ledger_says_what_a_step_holds(base, means):
    """One at full size; `python -m tests.benchmarks.kernels --memory` has all the others."""
    pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    row = count(base, None, plan_with(base, **means))
    assert row.ratio == pytest.approx(1, abs=TOLERANCE), f"{row.plan.ledger['peak: step']:,} in the ledger, {row.step.peak:,} counted"


def test_a_kernel_more_for_each_weight_is_seen(sd1, monkeypatch):
    """Teeth."""
    own = torch.optim.AdamW.step

    def wasteful(optimizer):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(1)
        own(optimizer)

    counts = []
    for plant in (False, True):
        if plant:
            monkeypatch.setattr(torch.optim.AdamW, "step", wasteful)
        with fake_card() as card:
            counts.append(count_second_step(card, start(sd1, plan_for(**ON_CARD))))
    plain, more = counts
    weights = more.optimizer.kernels - plain.optimizer.kernels
    assert weights > 100
    assert more.optimizer.moved - plain.optimizer.moved == 2 * 4 * plain.values  # read and written


@pytest.mark.parametrize(
    ("values", "lists", "launches"),
    [([10], 4, 1), ([10] * 36, 4, 1), ([10] * 37, 4, 2), ([65_536 * 320], 4, 1), ([65_536 * 320 + 1], 4, 2), ([10] * 110, 1, 1)],
)
def test_lists_of_tensors_are_launched_in_pieces(values, lists, launches):
    assert launches_of([values] * lists) == launches
