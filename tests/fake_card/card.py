"""A CUDA card without a card: what is on it are torch's fake tensors, with only shapes and number formats; what is in the machine's memory
is real, and so are files and pictures.

It has what a card has: CUDA's own autocast and gradient scaler, fused attention, pinned memory. What a card would refuse fails (tensors on
two devices or of two number formats in one operation, a generator of the other device), and each time that the host would wait for the
card is recorded as a `Wait`. There are no values: what is read back comes from VALUES. Which waits are allowed is up to the tests.
"""

import gc
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import safetensors.torch
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

import dreambooth_cli
from dreambooth_cli.engine.training import adamw

from .context import primary_context

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
GENERATOR = torch.Generator
PROPERTIES = SimpleNamespace(name="a fake card", major=8, minor=6, total_memory=24 * 10**9, is_integrated=False)
PACKAGE = str(Path(dreambooth_cli.__file__).parent) + "/"
# What reading from the card gives: a gray picture, not a black one; a finite loss and finite weights; "all are finite".
VALUES = {True: 0.5, False: 0}  # for floating-point formats, and for others; a bool is True
ONE_FORMAT = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten.convolution_backward.default,
    aten.native_group_norm.default,
    aten.native_layer_norm.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._unsafe_index.Tensor,
    aten._index_put_impl_.default,
}
FOUR_BITS = ("blocksize", "compress_statistics", "quant_type", "quant_storage")  # what a parameter of bitsandbytes' says of itself
NEW = (aten.empty.memory_format, aten.zeros.default)  # tensors that are made in the machine's memory
# Their result's size, or its value, is known to the card alone.
READS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


@dataclass(frozen=True)
class Wait:
    """The host waits for the card: by which operation, and at which place in the package, such as `engine/training/loop.py:read_losses`.
    `phase` is the outermost running function of those named to `Card.during`, "" outside of them."""

    what: str
    place: str
    phase: str


class NotOneDevice(RuntimeError):
    """Tensors on the card and in the machine's memory in one operation."""


class NotOneFormat(RuntimeError):
    """Tensors of several number formats in an operation whose kernels take only one."""


class FakeMode(FakeTensorMode):
    """torch's fake tensors, which must not ask the driver although CUDA is said to be there."""

    avoid_device_init = True


class Card(TorchDispatchMode):
    """The card: what it holds and how often it was waited for. `seen` are functions that are called with each operation. `fake_above`:
    new tensors with more values than this are fake in the machine's memory too."""

    def __init__(self, *, fake_above: float = float("inf")) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.fake_above = fake_above
        self.fake = FakeMode()
        self.waits: list[Wait] = []
        self.now = self.most = 0  # bytes of all storages on it, and the most there have been
        self.phases: dict[str, str] = {}
        self.seen: list[Callable[[Any, Any, Any, Any], None]] = []
        self._sizes: dict[int, int] = {}
        self._pinned: set[int] = set()
        self._generators: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return args[0].fake_device
        tensors = list(tensors_in((*args, *kwargs.values())))
        on_card = [one for one in tensors if is_on_card(one)]
        device = kwargs.get("device")
        goes = device is not None and torch.device(device).type == "cuda"
        if not on_card and not goes:
            return self._on_host(func, args, kwargs)
        if func in (aten._to_copy.default, aten.copy_.default):
            return self._copy(func, args, kwargs)
        if func is aten.is_pinned.default:
            return False
        if func in INDEXING:
            self._look_at_indices(func, tensors)
            if func is aten.index.Tensor:
                args = (args[0], [as_numbers(one) for one in args[1]], *args[2:])
                tensors = list(tensors_in(args))
        elif any(tag in func.tags for tag in READS):
            return self._read(func, tensors)
        self._check_generator(kwargs.get("generator"))
        check_devices(func, tensors)
        check_formats(func, tensors)
        if "generator" in kwargs:
            kwargs = kwargs | {"generator": None}
        if len(on_card) < len(tensors):
            args, kwargs = tree_map_only(Tensor, self._as_fake, (args, kwargs))
        result = func(*args, **kwargs)
        self._told(func, args, kwargs, result)
        return result

    def _as_fake(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        with unset_fake_temporarily():
            plain = tensor.detach()
        return self.fake.from_tensor(plain, static_shapes=True)

    def _told(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        for tensor in tensors_in((result,)):
            if is_on_card(tensor):
                self._hold(tensor)
        for see in self.seen:
            see(func, args, kwargs, result)

    def _on_host(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is aten.is_pinned.default:
            return self.is_pinned(args[0])
        with unset_fake_temporarily() if not self._is_large(func, args, kwargs) else nullcontext():
            if func is aten._pin_memory.default:
                return self._pin(args[0].clone())
            if kwargs.get("pin_memory"):
                return self._pin(func(*args, **kwargs | {"pin_memory": False}))
            return func(*args, **kwargs)

    def _is_large(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Whether a new tensor in the machine's memory would be too large: then it is fake too."""
        is_new = func in NEW and torch.device(kwargs.get("device") or "cpu").type == "cpu"
        return is_new and prod(args[0]) > self.fake_above

    def _copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A copy within the card, to it or from it: without a wait only from or to pinned memory."""
        source = args[0] if func is aten._to_copy.default else args[1]
        at_once = kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2])
        if func is aten._to_copy.default:
            to_card = torch.device(kwargs.get("device") or source.device).type == "cuda"
        else:
            to_card = is_on_card(args[0])
        if to_card and is_on_card(source):
            result = func(*args, **kwargs)
            self._told(func, args, kwargs, result)
            return result
        if to_card:
            if not (at_once and self.is_pinned(source)) and source.numel():
                self.wait(f"{func}: to the card, " + ("not pinned" if at_once else "blocking"))
            if func is aten.copy_.default:
                result = args[0]
            else:
                result = torch.empty_strided(
                    source.shape, source.stride(), dtype=kwargs.get("dtype") or source.dtype, device=CUDA
                )
            self._told(func, args, kwargs, result)
            return result
        if func is aten.copy_.default:
            if not (at_once and self.is_pinned(args[0])):
                self.wait(f"{func}: from the card, " + ("not pinned" if at_once else "blocking"))
            with unset_fake_temporarily():
                return args[0].fill_(value_of(args[0].dtype))
        if not at_once:
            self.wait(f"{func}: from the card")
        dtype = kwargs.get("dtype") or source.dtype
        with unset_fake_temporarily():
            result = torch.full(tuple(source.shape), value_of(dtype), dtype=dtype)
            return self._pin(result) if at_once else result  # torch pins what it copies to without waiting

    def _read(self, func: Any, tensors: list[Tensor]) -> Any:
        self.wait(str(func))
        if func is aten._local_scalar_dense.default:
            return 0.0 if is_of_scaler() else value_of(tensors[0].dtype)
        if func is aten.equal.default:
            return False
        if func is aten.nonzero.default:  # a scheduler that looks up a timestep: there is one
            return torch.empty(1, tensors[0].ndim, dtype=torch.int64, device=CUDA)
        raise NotImplementedError(f"{func} on a card: how much comes out is known to the card alone")

    def _look_at_indices(self, func: Any, tensors: list[Tensor]) -> None:
        """Indices in the machine's memory are copied, and only the card knows how many are True."""
        if any(not is_on_card(one) for one in tensors):
            self.wait(f"{func} by numbers of the machine's memory")
        masks = [one for one in tensors[1:] if one.dtype in (torch.bool, torch.uint8)]
        if masks and (func is not aten.index.Tensor or any(one.ndim > 1 for one in masks)):
            self._read(func, tensors)
        for _ in masks:
            self.wait(f"{func} by a mask")

    def make_generator(self, device: Any = "cpu") -> torch.Generator:
        """A generator of the device's; one of the card's draws nothing."""
        if torch.device(device).type != "cuda":
            return GENERATOR(device)
        made = GENERATOR()
        key = made._cdata  # type: ignore[attr-defined]
        self._generators.add(key)
        weakref.finalize(made, self._generators.discard, key)
        return made

    def _check_generator(self, generator: Any) -> None:
        if generator is not None and generator._cdata not in self._generators:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")

    def wait(self, what: str) -> None:
        """Record that the host waits."""
        names = list(own_frames())
        phase = next((self.phases[name] for name in reversed(names) if name in self.phases), "")
        self.waits.append(Wait(what, names[0] if names else "", phase))

    def _pin(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._pinned.add(storage._cdata)
        weakref.finalize(storage, self._pinned.discard, storage._cdata)
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        """Whether a tensor is in pinned memory of the machine."""
        return tensor.untyped_storage()._cdata in self._pinned

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

    def forget_most(self) -> None:
        """Like `torch.cuda.reset_peak_memory_stats`."""
        self.most = self.now


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operation's arguments or results, single or in lists. torch's own general walk would take a tenth of a run."""
    for one in values:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (list, tuple)):
            yield from tensors_in(one)


def is_on_card(tensor: Tensor) -> bool:
    """Whether a tensor is on the card."""
    return isinstance(tensor, FakeTensor) and tensor.fake_device.type == "cuda"


def value_of(dtype: torch.dtype) -> Any:
    """What reading from the card gives."""
    return True if dtype == torch.bool else VALUES[dtype.is_floating_point]


def as_numbers(index: Tensor | None) -> Tensor | None:
    """A mask [n] as the numbers that it picks: all of them."""
    return torch.arange(len(index), device=CUDA) if index is not None and index.dtype == torch.bool else index


def is_of_scaler() -> bool:
    """Whether torch's gradient scaler is reading how many gradients are not finite: the answer is none, or no step would be taken."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith("grad_scaler.py"):
            return True
        frame = frame.f_back
    return False


def own_frames() -> Iterator[str]:
    """The package's running functions, the innermost first: `engine/training/loop.py:train_step`."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE):
            yield f"{code.co_filename[len(PACKAGE):]}:{code.co_name}"
        frame = frame.f_back


def generator_class(card: Card) -> type:
    """In place of `torch.Generator`, which would ask the driver."""

    class Kind(type(GENERATOR)):  # type: ignore[misc]
        def __instancecheck__(cls, one: object) -> bool:
            return isinstance(one, GENERATOR)

    class Generator(GENERATOR, metaclass=Kind):
        def __new__(cls, device: Any = "cpu") -> Any:
            return card.make_generator(device)

    return Generator


def check_devices(func: Any, tensors: list[Tensor]) -> None:
    """Raise NotOneDevice if devices are mixed. A single number in the machine's memory may go along, and indices are copied."""
    odd = [one for one in tensors if one.ndim and not is_on_card(one)]
    if odd and func not in INDEXING:
        shapes = ", ".join(f"{tuple(one.shape)} on {one.device}" for one in tensors)
        raise NotOneDevice(f"{func} of tensors of two devices: {shapes}")


def check_formats(func: Any, tensors: list[Tensor]) -> None:
    """Raise NotOneFormat if a card has no kernel for these number formats together."""
    if func in ONE_FORMAT:
        formats = {one.dtype for one in tensors if one.is_floating_point()}
        if len(formats) > 1:
            raise NotOneFormat(f"{func} of {', '.join(sorted(map(str, formats)))}")


def move(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """In place of `nn.Module._apply`, which can't replace a real tensor by a fake one or the reverse: here they become new ones."""
    for child in module.children() if recurse else ():
        child._apply(fn)
    for name, held in module._parameters.items():
        if held is None:
            continue
        with torch.no_grad():
            applied = fn(held)
        is_fake = isinstance(held, FakeTensor) or isinstance(applied, FakeTensor)
        if not is_fake and torch._has_compatible_shallow_copy_type(held, applied):
            held.data = applied
        elif applied is not held:
            module._parameters[name] = carry_4_bits(held, applied)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = fn(buffer)
    return module


def carry_4_bits(held: Any, applied: Any) -> nn.Parameter:
    """A new parameter from a moved tensor, with bitsandbytes' scales if it is in 4 bits."""
    state = getattr(applied, "quant_state", None) or getattr(held, "quant_state", None)
    moved = nn.Parameter(applied, requires_grad=held.requires_grad)
    if state is not None:
        state.to(applied.device)
        vars(moved).update({name: getattr(held, name) for name in FOUR_BITS} | {"quant_state": state})
    return moved


def quantize_on_card(quantize: Callable[..., Any]) -> Callable[..., Any]:
    """In place of bitsandbytes' `Params4bit._quantize`, which puts the 4 bits into the same parameter: here into a new one on the card."""

    def run(parameter: Any, device: Any) -> Any:
        if torch.device(device).type != "cuda":
            return quantize(parameter, device)
        from bitsandbytes.functional import quantize_4bit

        packed, state = quantize_4bit(
            parameter.data.contiguous().to(device),
            blocksize=parameter.blocksize,
            compress_statistics=parameter.compress_statistics,
            quant_type=parameter.quant_type,
            quant_storage=parameter.quant_storage,
        )
        vars(packed)["quant_state"] = state
        return packed

    return run


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention as a card computes it: flash in half precision without a mask, else memory-efficient. torch would ask the driver which."""
    if enable_gqa:  # a card's kernels read each head of key and value several times
        key, value = (one.repeat_interleave(query.shape[-3] // one.shape[-3], dim=-3) for one in (key, value))
    if attn_mask is None and query.dtype != torch.float32:
        side = query.shape[-1]
        padded = [nn.functional.pad(one, (0, -side % 8)) if side % 8 else one for one in (query, key, value)]
        scale = side**-0.5 if scale is None else scale
        answer: Tensor = aten._scaled_dot_product_flash_attention(*padded, dropout_p, is_causal, scale=scale)[0]
        return answer[..., :side] if side % 8 else answer
    keep = torch.is_grad_enabled() and any(one.requires_grad for one in (query, key, value))
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    answer = aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, keep, dropout_p, is_causal, scale=scale
    )[0]
    return answer


def asleep(*args: Any, **kwargs: Any) -> None:
    """In place of what would start the driver."""
    raise AssertionError("the driver was asked: the fake card has no answer to this")


def answers(card: Card) -> dict[str, Callable[..., Any]]:
    """What `torch.cuda` answers while the fake card is there."""
    return {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_capability": lambda device=None: (PROPERTIES.major, PROPERTIES.minor),
        "get_device_name": lambda device=None: PROPERTIES.name,
        "get_device_properties": lambda device=None: PROPERTIES,
        "mem_get_info": lambda device=None: (PROPERTIES.total_memory - card.now, PROPERTIES.total_memory),
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: card.wait("torch.cuda.synchronize"),
        "Event": lambda: SimpleNamespace(record=lambda: None, synchronize=lambda: card.wait("torch.cuda.Event.synchronize")),
        "reset_peak_memory_stats": lambda device=None: card.forget_most(),
        "max_memory_reserved": lambda device=None: card.most,
        "max_memory_allocated": lambda device=None: card.most,
        "memory_reserved": lambda device=None: card.now,
        "memory_allocated": lambda device=None: card.now,
        "_lazy_init": asleep,
    }


@contextmanager
def fake_card(*, fake_above: float = float("inf")) -> Iterator[Card]:
    """A fake card for as long as the block runs. Libraries that look for a card when they are imported must be imported before."""
    for name in ("bitsandbytes.nn.modules", "bitsandbytes.functional"):
        try:
            __import__(name)
        except ImportError:
            break
    card = Card(fake_above=fake_above)
    attention = torch.library.Library("aten", "IMPL")
    with ExitStack() as stack:
        stack.enter_context(primary_context())
        stack.callback(attention._destroy)
        attention.impl("scaled_dot_product_attention", attend, "AutogradCUDA")
        for name, answer in answers(card).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch, "Generator", generator_class(card)))
        stack.enter_context(mock.patch.object(nn.Module, "_apply", move))
        stack.enter_context(mock.patch.object(FakeTensor, "tolist", lambda tensor: tensor.cpu().tolist()))
        if (four_bits := sys.modules.get("bitsandbytes.nn.modules")) is not None:
            own = four_bits.Params4bit._quantize
            stack.enter_context(mock.patch.object(four_bits.Params4bit, "_quantize", quantize_on_card(own)))
        # whether two tensors share their memory: fake ones have no address
        own_place = safetensors.torch.storage_ptr
        stack.enter_context(
            mock.patch.object(
                safetensors.torch,
                "storage_ptr",
                lambda one: one.untyped_storage()._cdata if isinstance(one, FakeTensor) else own_place(one),
            )
        )
        # torch takes its kernels for lists of tensors by the tensors' very class
        for name in ("torch.optim.optimizer", "torch.utils._foreach_utils"):
            lists = import_module(name)
            kinds = [*lists._foreach_supported_types, FakeTensor]
            stack.enter_context(mock.patch.object(lists, "_foreach_supported_types", kinds))
        # The program collects often; what the libraries hold need not be looked through each time. It stays so: to thaw it would
        # thaw what was put aside before, too.
        gc.collect()
        gc.freeze()
        # a kernel is held against its plain form by values, of which there are none here
        stack.enter_context(mock.patch.object(adamw, "difference_of_forms", return_value=""))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(card.fake)
        stack.enter_context(card)
        yield card
