"""The proof of an export: what was written is opened by a reader that is not ours, its weights are what was written, and it draws the
picture that the model draws from the same seed."""

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks import HookRegistry
from diffusers.hooks.layerwise_casting import LayerwiseCastingHook
from torch import Tensor, nn

from ...families.family import VAE, Family
from ..families.latent_diffusion import LatentDiffusion, alive
from ..families.loading import parts_of
from ..images.sampling import Drawing, draw_latents, embed
from ..tensor_file import let_pages_go
from .weights import Weights, tokenizers_of

PROMPT, SEED, STEPS, GUIDANCE = "a photo of a dog on the moon", 0, 2, 3.0
LATENTS = 16  # the side of the picture's latents: weights are told apart by a small picture as well
# The largest difference that a channel of any pixel may have, of a range of 1: weights that are the same draw the same but for the
# rounding of sums in another order. Of rounded ones up to 0.056 was measured in bf16 (Pocket, which is trained, and the same with every
# weight changed by 5%, four prompts and seeds each; 0.009 on random weights, 0.0012 in fp16: tests/benchmarks/export_matrix.md); the bound
# leaves room to two and a half times that, and fp16, which rounds an eighth as far, has an eighth of it.
BOUNDS = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.15}

# names of networks -> a pipeline with these, and whatever of the others it likes
Open = Callable[[Sequence[str]], Any]


@dataclass(frozen=True)
class Proof:
    """The result: the largest difference between the two pictures, of a channel's range of 0 to 1, and in words what differs, "" if the
    export is proved."""

    largest_difference: float
    differs: str = ""


def prove(weights: Weights, ours: Open, read: Open, look: Callable[[Any], str], written: torch.dtype) -> Proof:
    """Open what was written with `read`, have `look` say which of its weights differ, and compare the picture that it draws with that of
    the model, which `ours` opens.

    Both are drawn in float32 and with the model's scheduler, one network in memory at a time where the reader can do that.
    """
    differs: list[str] = []

    def opened(names: Sequence[str]) -> Any:
        pipe = read(names)
        differs.append(look(pipe))
        return pipe

    theirs = picture(weights, opened)
    told = "; ".join(filter(None, dict.fromkeys(differs)))
    if told:
        return Proof(1.0, told)
    largest = float((theirs - picture(weights, ours)).abs().max())
    bound = BOUNDS[written]
    if not largest <= bound:  # true for NaN as well
        told = f"{largest:.2g} of a channel's range, where {bound:g} is the bound"
        return Proof(largest, f"from the same seed it draws another picture: {told}")
    return Proof(largest)


@torch.no_grad()
def picture(weights: Weights, opened: Open) -> Tensor:
    """The pixels [1, 3, H, W] in 0..1 that a model draws, its networks opened one after the other."""
    record = weights.base.facts.family
    embedded = embed(_family(weights, opened(record.text_encoders)), PROMPT, guidance_scale=GUIDANCE)
    weights.let_go()
    # FLUX.2's pipeline scales its latents by statistics that are its VAE's buffers; others' have none, and come when it is their turn
    decoder = _family(weights, opened([VAE])) if any(True for _ in weights.networks[VAE].buffers()) else None
    family = _family(weights, opened([record.denoiser]))
    if decoder is not None:
        family.pipe.register_modules(**{VAE: decoder.pipe.vae})
    side = LATENTS * family.pipe.vae_scale_factor
    latents = draw_latents(family, [embedded], [SEED], Drawing(steps=STEPS, guidance_scale=GUIDANCE, width=side, height=side))
    del family
    weights.let_go()
    pixels = (decoder or _family(weights, opened([VAE]))).decode(latents)
    weights.let_go()
    return (pixels.float() / 2 + 0.5).clamp(0, 1)


def _family(weights: Weights, pipe: Any) -> LatentDiffusion:
    """A pipeline as what its family does, its networks computing in float32; what is not opened it knows by its config alone."""
    record: Family = weights.base.facts.family
    there = parts_of(pipe)
    for network in there.values():
        compute_in_float32(network.requires_grad_(False).eval())
    absent = {name: network for name, network in weights.networks.items() if name not in there}
    pipe.register_modules(scheduler=deepcopy(weights.empty.scheduler), **tokenizers_of(weights.empty), **absent)
    family = alive(record, pipe)
    pipe.register_modules(**dict.fromkeys(absent))
    pipe.set_progress_bar_config(disable=True)
    return family


class Widened(LayerwiseCastingHook):  # type: ignore[misc]
    """Has a layer compute in float32, its weights kept as they are and where they are: diffusers' own hook rounds them back into new
    memory, beside the file that they were read from."""

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Widen the weights for one call; those of the file leave memory."""
        self.kept = {name: parameter.data for name, parameter in module.named_parameters(recurse=False)}
        given = super().pre_forward(module, *args, **kwargs)
        for weight in self.kept.values():
            let_pages_go(weight)
        return given

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """Take back those that were kept."""
        for name, parameter in module.named_parameters(recurse=False):
            parameter.data = self.kept[name]
        return output


def compute_in_float32(network: nn.Module) -> None:
    """Have a network compute in float32 whatever its weights are kept in: those of its large layers are widened only while they are
    used. Those that the network itself looks at, by the names that its class has for them, are widened for good."""
    kept = next(network.parameters()).dtype
    if kept == torch.float32:
        return
    looked_at = tuple(getattr(network, "_skip_layerwise_casting_patterns", None) or ())
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not any(re.search(pattern, name) for pattern in looked_at):
            hook = Widened(kept, torch.float32, non_blocking=False)
            HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, "layerwise_casting")  # by which diffusers knows it
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()
