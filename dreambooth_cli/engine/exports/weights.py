"""The weights of a model that is exported: one network in memory at a time, a LoRA baked in, each weight known by its hash."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...bases.base import Base
from ...machine import give_back
from ..families.loading import formats_of, load_empty, load_pipeline, parts_of
from ..families.lora_file import LoraFile, Pair, changed, find_pairs, read_pair
from ..families.parts import nested
from ..tensor_file import bytes_of, let_pages_go

LARGE = 30_000_000  # values of a network: smaller ones are not worth the second that looking for them takes


@dataclass(frozen=True)
class Model:
    """What is exported: a whole model, or a base and the LoRA, a file or folder, that belongs to it, at a strength."""

    base: Base
    lora: Path | None = None
    strength: float = 1.0


class Weights:
    """The weights of a model by network and name, as a diffusers folder calls them, in the number format that is written.

    `empty` is its pipeline without weights, `formats` the number format of each network, `remarks` what the user should know of the LoRA.
    """

    def __init__(self, model: Model, dtype: torch.dtype | None) -> None:
        """In `dtype`, or as they are stored. Raises ModelUnavailable."""
        self.base = replace(model.base, vae_path=None)  # the base's own VAE, whatever it is drawn with
        self.strength = model.strength
        stored = formats_of(self.base)
        self.formats = {name: dtype or kind for name, kind in stored.items()}
        self.loaded = {name: torch.promote_types(kind, self.formats[name]) for name, kind in stored.items()}
        self.empty = load_empty(self.base)
        networks = parts_of(self.empty)
        self.networks = {name: networks[name] for name in self.base.facts.family.networks}
        self.file: LoraFile | None = None
        self.pairs: list[Pair] = []
        self.remarks: list[str] = []
        if model.lora is not None:
            self.file, self.pairs, self.remarks = find_pairs(self.networks, model.lora)
        self.digests: dict[tuple[str, str], str] = {}
        self._held: tuple[str, dict[str, Tensor]] = ("", {})
        self._read: Tensor | None = None

    def outline(self, network: str) -> dict[str, Tensor]:
        """The names, shapes and number formats of a network's weights, on the meta device."""
        state = nested(self.networks[network], self.networks[network].state_dict())
        return {name: value.to(self.formats[network]) if value.is_floating_point() else value for name, value in state.items()}

    def read(self, network: str, name: str) -> Tensor:
        """A weight, in its number format. Raises ModelUnavailable, MemoryError."""
        if self._held[0] != network:
            self.let_go()
            live = self.load([network])[network]
            self._held = (network, nested(live, live.state_dict()))
        if self._read is not None:
            let_pages_go(self._read)  # it is written
        self._read = weight = self._held[1][name]
        weight = weight.to(self.formats[network]) if weight.is_floating_point() else weight
        self.digests[network, name] = digest_of(weight)
        return weight

    def let_go(self) -> None:
        """Let the network that was read last leave memory, and whatever else has been let go."""
        self._held, self._read = ("", {}), None
        if max(sum(value.numel() for value in network.parameters()) for network in self.networks.values()) > LARGE:
            give_back()

    def load(self, names: Collection[str]) -> dict[str, nn.Module]:
        """Some of the networks, with the LoRA baked in, in the number format that holds what is stored and what is written. Raises
        ModelUnavailable, MemoryError."""
        live = {name: parts_of(load_pipeline(self.base, dtype=self.loaded[name], only=[name], lean=True))[name] for name in names}
        with torch.no_grad():
            for pair in self.pairs:
                if self.file is not None and pair.network in live:
                    weight = live[pair.network].get_submodule(pair.layer).weight
                    made = changed(weight, read_pair(self.file, pair), pair.scale)
                    # at a strength, so much of the way: for a plain LoRA the same as so much of its product
                    weight.copy_(made if self.strength == 1 else torch.lerp(weight.float(), made, self.strength))
        return live

    def open(self, names: Collection[str]) -> Any:
        """A pipeline with some of the networks, as they were before they were written."""
        pipe = load_pipeline(self.base, dtype=torch.float32, only=[])
        pipe.register_modules(**tokenizers_of(self.empty), **self.load(names))
        return pipe


def tokenizers_of(pipe: Any) -> dict[str, Any]:
    """The tokenizers of a pipeline, by their names in it."""
    return {name: part for name, part in pipe.components.items() if name.startswith("tokenizer")}


def digest_of(weight: Tensor) -> str:
    """A hash of a tensor's bytes, number format and shape."""
    return hashlib.blake2b(bytes_of(weight), key=f"{weight.dtype} {list(weight.shape)}".encode()[:64], digest_size=16).hexdigest()


def differing(network: str, live: nn.Module, written: Mapping[tuple[str, str], str]) -> str:
    """In words, how a network that was read differs from what was written; "" if it doesn't."""
    wanted = {name: digest for (owner, name), digest in written.items() if owner == network}
    state = nested(live, live.state_dict())
    found = {}
    for name, value in state.items():
        found[name] = digest_of(value)
        let_pages_go(value)
    lacking, other = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    wrong = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    told = [(lacking, "not read"), (other, "not written"), (wrong, "read with other values")]
    return "; ".join(f"{len(names)} of {network}'s weights are {what}, such as {names[0]}" for names, what in told if names)
