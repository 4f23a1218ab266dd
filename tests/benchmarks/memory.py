"""The memory plan compared with what a step really holds.

    python -m tests.benchmarks.memory [--quick]

Without a GPU: the full-size networks are built from their configs without data (torch's fake tensors), one step is run in the
form that the plan says, and the bytes in use are counted at every operation; weights, gradients and optimizer state come from
the tensors themselves. The ledger must agree within 3%. Norms run in float32, as under autocast on CUDA.
"""

import argparse
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPTextModel

from dreambooth_cli.bases.catalog import BaseFacts, find_entry
from dreambooth_cli.engine.families.random_base import text_config
from dreambooth_cli.engine.training.working_copies import WorkingCopies
from dreambooth_cli.families.stable_diffusion import STABLE_DIFFUSION
from dreambooth_cli.gpu import sold_as
from dreambooth_cli.memory.ledger import ADAMW_8BIT_STATE, ADAMW_STATE, count_bytes, works_on_copies
from dreambooth_cli.memory.plan import Choice, Job
from dreambooth_cli.settings import TrainSettings

from .bases import CONFIGS

TOLERANCE = 0.03
VOCABULARY, TOKENS = 49_408, 77


class Alive(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, and the most there have been."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.sizes: dict[int, int] = {}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.see(tensor)
        return result

    def see(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is gone."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, storage._cdata)

    def _gone(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


class Lora(nn.Module):
    """A linear layer with a LoRA of rank 16 beside it, as peft computes it."""

    def __init__(self, base: nn.Linear, rank: int = 16) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, states: Tensor, *_: Any) -> Tensor:
        """The base's answer and the LoRA's."""
        added: Tensor = self.base(states) + self.up(self.down(states.to(self.down.weight.dtype))) * 1.0
        return added


@dataclass(frozen=True)
class Case:
    """One row: a base, a choice of means, a size and a batch."""

    base: str
    choice: Choice
    resolution: int
    batch_size: int = 1

    @property
    def words(self) -> str:
        """The row's name."""
        one = self.choice
        means = {
            "text": one.train_text_encoder,
            "checkpointing": one.gradient_checkpointing,
            "in turn": one.rows_in_turn,
            "8-bit": one.optimizer == "adamw8bit",
            "bf16 weights": one.weights == "bf16",
            "inside": one.inside_backward,
            "off card": one.off_card,
        }
        said = ", ".join(name for name, is_so in means.items() if is_so)
        return f"{self.base} {one.method} {self.resolution} px, {self.batch_size}+{self.batch_size}, {one.precision}: {said}"


def choice_of(method: Any = "full", precision: Any = "bf16", **means: Any) -> Choice:
    """A choice with these means."""
    plain: dict[str, Any] = {"train_text_encoder": False, "gradient_checkpointing": False, "optimizer": "adamw"}
    return Choice(method=method, precision=precision, **(plain | means))


LEAN = {"gradient_checkpointing": True, "optimizer": "adamw8bit", "weights": "bf16", "inside_backward": True}
QUICK = (
    Case("sd15", choice_of(train_text_encoder=True, gradient_checkpointing=True), 512),
    Case("sd15", choice_of(train_text_encoder=True, **LEAN), 512),
)
CASES = (
    *QUICK,
    *(
        Case("sd15", choice_of(gradient_checkpointing=checkpointed), resolution, batch)
        for checkpointed in (False, True)
        for resolution, batch in ((512, 1), (512, 2), (768, 1))
    ),
    Case("sd15", choice_of(precision="fp32"), 512),
    Case("sd15", choice_of("lora"), 512),
    Case("sd15", choice_of("lora", gradient_checkpointing=True), 512),
    Case("sd21", choice_of(train_text_encoder=True, **LEAN), 768),
    Case("sd21", choice_of(), 768),
    Case("sdxl", choice_of(train_text_encoder=True, **LEAN, off_card=True), 1024),
    Case("sdxl", choice_of("lora", gradient_checkpointing=True, rows_in_turn=True), 1024),
    *(
        Case("half as wide as sd15", choice_of(gradient_checkpointing=checkpointed), 512)
        for checkpointed in (False, True)
    ),
)


def facts(name: str) -> BaseFacts:
    """What the plan knows about a base; for one that is not in the catalogue, what its weights' headers would say."""
    entry = find_entry(name)
    if entry is not None:
        return entry.facts
    config, encoders, _ = CONFIGS[name]
    with torch.device("meta"):
        unet = count(UNet2DConditionModel(**config))
        text = tuple(count(CLIPTextModel(text_config(one, VOCABULARY))) for one in encoders)
    return BaseFacts(
        family=STABLE_DIFFUSION, prediction_type="epsilon", resolution=512, denoiser=unet, text_encoders=text, vae=83_653_863
    )


def count(module: Any) -> int:
    """A network's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def measure(case: Case) -> int:
    """The most bytes in use during one step: counted, except the optimizer state, which follows from the trained parameters."""
    choice = case.choice
    with FakeTensorMode(allow_non_fake_inputs=True), norms_in_float32():
        networks = make_networks(case.base, choice)
        trained = [p for network in networks.values() for p in network.parameters() if p.requires_grad]
        copies = WorkingCopies(networks.values(), torch.bfloat16) if works_on_copies(choice, 1) else None
        alive = Alive()
        for network in networks.values():
            for tensor in (*trained, *network.parameters(), *network.buffers()):
                alive.see(tensor)
        if choice.inside_backward:
            for parameter in trained:
                parameter.register_post_accumulate_grad_hook(lambda one: setattr(one, "grad", None))
        with alive:
            run_step(case, networks)
            if copies:
                let_gradients_go(copies, trained)
        values = sum(parameter.numel() for parameter in trained)
    state = ADAMW_STATE if choice.optimizer == "adamw" else ADAMW_8BIT_STATE
    return round(alive.most + (0 if choice.off_card else values * state))


def let_gradients_go(copies: WorkingCopies, trained: list[nn.Parameter]) -> None:
    """Take the gradients to float32 as the update does, a piece after the other."""
    for piece in copies.pieces(trained):
        copies.take_gradients(piece)
        for weight in piece:
            weight.grad = None


def make_networks(name: str, choice: Choice) -> dict[str, nn.Module]:
    """The UNet and, where they are trained, the text encoders: in the weights' number format, what is trained unfrozen."""
    config, encoders, _ = CONFIGS[name]
    half = choice.weights == "bf16" or (choice.method == "lora" and choice.precision == "bf16")
    torch.set_default_dtype(torch.bfloat16 if half else torch.float32)
    try:
        unet: Any = UNet2DConditionModel(**config)
        networks = {"unet": unet}
        if choice.train_text_encoder:
            networks |= {
                f"text {place}": CLIPTextModel(text_config(one, VOCABULARY)) for place, one in enumerate(encoders)
            }
    finally:
        torch.set_default_dtype(torch.float32)
    if choice.method == "lora":
        unet.requires_grad_(False)
        add_loras(unet)
    if choice.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        for part in networks.values():
            if part is not unet:
                part.activation_checkpointing_enable()
            part.train()
    return networks


def add_loras(unet: nn.Module) -> None:
    """LoRA beside every projection of the attention."""
    for module in list(unet.modules()):
        for name in ("to_q", "to_k", "to_v"):
            if isinstance(getattr(module, name, None), nn.Linear):
                setattr(module, name, Lora(getattr(module, name)))
        if isinstance(getattr(module, "to_out", None), nn.ModuleList):
            module.to_out[0] = Lora(module.to_out[0])  # type: ignore[index,operator,assignment,arg-type]  # a ModuleList


def run_step(case: Case, networks: dict[str, nn.Module]) -> None:
    """Forward and backward of one step, in one pass or one kind of rows after the other."""
    passes, kinds = (2, 1) if case.choice.rows_in_turn else (1, 2)
    config, _, _ = CONFIGS[case.base]
    rows, side = case.batch_size * kinds, case.resolution // 8
    for _ in range(passes):
        latents = torch.randn(rows, 4, side, side)
        timesteps = torch.ones(rows, dtype=torch.long)
        states = torch.randn(kinds, TOKENS, config["cross_attention_dim"])
        added = None
        if "addition_embed_type" in config:
            added = {"text_embeds": torch.randn(rows, 1280), "time_ids": torch.randn(rows, 6)}
        half = case.choice.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            encoded = [
                network(torch.ones(kinds, TOKENS, dtype=torch.long))[0]
                for name, network in networks.items()
                if name != "unet"
            ]
            states = torch.cat(encoded, -1) if encoded else states
            index = torch.arange(rows) % kinds
            predicted = networks["unet"](latents, timesteps, states[index], added_cond_kwargs=added).sample
        loss = (predicted.float() - latents).square().mean()
        del predicted, encoded, states
        loss.backward()


@contextmanager
def norms_in_float32() -> Iterator[None]:
    """Group and layer norms as CUDA's autocast computes them; the CPU's leaves them in bfloat16."""

    def upcast(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not torch.is_autocast_enabled("cpu"):
                return norm(states, *args, **kwargs)
            with torch.autocast("cpu", enabled=False):
                args = tuple(one.float() if isinstance(one, Tensor) else one for one in args)
                kwargs = {name: one.float() if isinstance(one, Tensor) else one for name, one in kwargs.items()}
                return norm(states.float(), *args, **kwargs)

        return run

    kept = F.group_norm, F.layer_norm
    F.group_norm, F.layer_norm = upcast(kept[0]), upcast(kept[1])
    try:
        yield
    finally:
        F.group_norm, F.layer_norm = kept


def predict(case: Case) -> int:
    """The ledger's peak of the step."""
    settings = TrainSettings(batch_size=case.batch_size)
    job = Job(facts(case.base), settings, resolution=case.resolution, gpu=sold_as(24), has_8bit=True, name=case.base)
    ledger, _ = count_bytes(case.choice, job)
    return ledger["peak: step"]


def main() -> int:
    """Print the table. Returns 1 if the ledger is off by more than the tolerance."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory")
    parser.add_argument("--quick", action="store_true", help="two rows")
    asked = parser.parse_args()
    print(f"torch {torch.__version__}; GB of 1e9 bytes; the step's peak, without context and slack\n")
    print("| run | ledger | counted | ledger / counted |\n|---|---|---|---|")
    worst = 0.0
    for case in QUICK if asked.quick else CASES:
        predicted, counted = predict(case), measure(case)
        worst = max(worst, abs(predicted / counted - 1))
        print(f"| {case.words} | {predicted / 1e9:.2f} | {counted / 1e9:.2f} | {predicted / counted:.3f} |", flush=True)
    print(f"\nThe largest error is {worst:.1%} (allowed: {TOLERANCE:.0%})")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
