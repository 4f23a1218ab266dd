"""Which networks of a base are in memory before a run's first step, in which format, and where."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext

from ..bases.base import Base
from ..engine.families.latent_diffusion import LatentDiffusion, autocast, denoiser_of
from ..engine.families.loading import (
    DTYPES,
    alone,
    bring_back,
    find_device,
    let_go,
    load_family,
    load_for_turns,
    parts_of,
    place,
)
from ..engine.families.lora import quantize, store_in_8_bits
from ..engine.images.sampling import AtWork
from ..families.family import VAE
from ..memory.ledger import takes_turns
from ..memory.plan import Plan, weights_of


def load_base(base: Base, plan: Plan) -> LatentDiffusion:
    """The base in the machine's memory, in the number format that its weights have in training, ready to draw and encode; if its networks
    take turns in memory, ready only to encode pictures."""
    find_device(plan.device)  # fails now, not after minutes of loading
    if takes_turns(base.facts):
        return load_for_turns(base)
    family = load_family(base, dtype=DTYPES[weights_of(plan)], device=find_device("cpu"))
    shrink(family, plan)
    if DTYPES[weights_of(plan)] != DTYPES["fp32"]:
        # the VAE encodes only once, so half precision is not worth its errors
        let_go(family.pipe, [VAE])
        bring_back(family.pipe, base, dtype=DTYPES["fp32"], device=find_device("cpu"))
    return family


def bring(family: LatentDiffusion, base: Base, plan: Plan, names: Collection[str]) -> None:
    """Load those of these networks that are not in the machine's memory, in the format that they have in training."""
    if family.record.denoiser in bring_back(family.pipe, base, dtype=DTYPES[weights_of(plan)], device=find_device("cpu"), only=names):
        shrink(family, plan)


def shrink(family: LatentDiffusion, plan: Plan) -> None:
    """Store a denoiser that is not trained in 4 bits or fp8, if the plan says so."""
    denoiser = denoiser_of(family)
    if plan.quantized:
        quantize(denoiser, DTYPES[plan.precision])
        # quantized always on this device, so always with the same result
        place(family.pipe, [family.record.denoiser], find_device(plan.device))
    elif plan.fp8:
        store_in_8_bits(denoiser, family.record.parts[family.record.denoiser], DTYPES[plan.precision])


def networks_of(family: LatentDiffusion, plan: Plan, *, in_parts: bool) -> AtWork:
    """A context manager that has the networks ready for drawing with the base: all together on the device, or (`in_parts`) only those at
    work."""
    device = find_device(plan.device)
    if not in_parts:
        place(family.pipe, family.record.networks, device)

    @contextmanager
    def at_work(names: Collection[str]) -> Iterator[None]:
        turn = alone(family.pipe, names, device) if in_parts else nullcontext()
        with turn, autocast(plan.precision, device):
            yield

    return at_work


def networks_in_turn(family: LatentDiffusion, base: Base, plan: Plan) -> AtWork:
    """The same for a base whose networks take turns in memory: text encoders are there only while they work; the denoiser is loaded when
    its turn comes, and stays beside the VAE until it is let go."""
    device = find_device(plan.device)

    @contextmanager
    def at_work(names: Collection[str]) -> Iterator[None]:
        bring(family, base, plan, names)
        is_text = set(names) <= set(family.record.text_encoders)
        if not (is_text or plan.class_images_in_parts):
            place(family.pipe, parts_of(family.pipe), device)
        where = find_device("cpu") if is_text and plan.text_off_card else device
        turn = alone(family.pipe, names, where) if is_text or plan.class_images_in_parts else nullcontext()
        with turn, autocast(plan.precision, device):
            yield
        if is_text:
            let_go(family.pipe, list(names))

    return at_work
