"""`generate` with damaged and hostile LoRA files: `python -m tests.faults.loras [COUNT [PROCESSES]]`.

Each mutant has a random generator of its own, so that any one can be made again: `make(kind, number, folder)`. Each must either be refused
in words or read correctly: every matrix beside a layer afterwards is compared with the file's own, as plain safetensors reads it, and
whatever was left out must have been mentioned. COUNT of each kind are tried in this process, PROCESSES of each in real processes.
"""

import contextlib
import json
import os
import pickle
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from dreambooth_cli.cli.app import in_words
from dreambooth_cli.errors import ModelUnavailable
from dreambooth_cli.model_card import Card, write_card
from dreambooth_cli.record import BaseRecord

from . import trials
from .documents import CODES, HEAD, result_of, whole_card, workplace
from .row import Row
from .trials import ANY, READ, REFUSED

FULL, PROCESSES = 300, 30
LONGEST = 120  # seconds for a process, most of them for imports on a busy machine
LAYERS = (
    ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"),
    ("unet", "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"),
    ("unet", "up_blocks.1.attentions.1.proj_in"),
    ("unet", "down_blocks.0.resnets.0.conv1"),
    ("text_encoder", "encoder.layers.0.self_attn.q_proj"),
    ("text_encoder", "encoder.layers.1.mlp.fc1"),
)
ODD: tuple[Any, ...] = (None, "x", -1, 0, [], {}, "", 10**30, 1e308, True, "nan", -0.5, ["a"], {"a": 1}, {"(a+)+$": 2}, 3, 2.5)
Maker = Callable[[random.Random, Path], "Mutant"]


@dataclass(frozen=True)
class Mutant:
    """A LoRA that was made: the `--model-path`, what must become of it, and whether its card names the base."""

    path: Path
    must: str = ANY
    has_card: bool = False


def names_of(layout: str, network: str, layer: str) -> tuple[str, str]:
    """The names of a layer's two matrices in a layout."""
    nested = layer if network == "unet" else f"text_model.{layer}"
    if layout == "kohya":
        stem = f"{'lora_unet' if network == 'unet' else 'lora_te'}_{nested.replace('.', '_')}"
        return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight"
    if layout == "get_peft_model":
        return f"base_model.model.{layer}.lora_A.weight", f"base_model.model.{layer}.lora_B.weight"
    if layout == "peft":
        return f"{network}.{layer}.lora_A.weight", f"{network}.{layer}.lora_B.weight"
    middle = "lora" if network == "unet" else "lora_linear_layer"
    return f"{network}.{nested}.{middle}.down.weight", f"{network}.{nested}.{middle}.up.weight"


LAYOUTS = ("diffusers", "peft", "kohya", "get_peft_model")


@cache
def matrices() -> dict[tuple[str, str], tuple[Any, Any]]:
    """Rank 4 matrices for a few layers of the small base."""
    import torch

    generator = torch.Generator().manual_seed(0)
    found = {}
    for network, layer in LAYERS:
        out, inner, *kernel = networks()[network].get_submodule(layer).weight.shape
        ones = (1, 1) if kernel else ()
        down = torch.randn(4, inner, *kernel, generator=generator)
        found[network, layer] = (down, torch.randn(out, 4, *ones, generator=generator))
    return found


def tensors_in(layout: str) -> dict[str, Any]:
    """The tensors of a whole file."""
    named = ((names_of(layout, *place), pair) for place, pair in matrices().items())
    return {name: tensor for names, pair in named for name, tensor in zip(names, pair, strict=True)}


def metadata_of(**values: Any) -> dict[str, Any]:
    """What diffusers writes about peft's config, for both networks."""
    told = {"r": 4, "lora_alpha": 6, "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False, "use_dora": False}
    told |= {"peft_type": "LORA", "target_modules": ["to_q"], "init_lora_weights": True, "lora_bias": False, "bias": "none"}
    return {f"{network}.{key}": value for network in ("unet", "text_encoder") for key, value in (told | values).items()}


def write(path: Path, tensors: dict[str, Any], texts: dict[str, str] | None = None) -> Path:
    """A safetensors file."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, texts)
    return path


# ---- kinds


def bytes_damaged(rng: random.Random, folder: Path) -> Mutant:
    """Bits flipped in the header or anywhere, bytes inserted, or the end cut off."""
    path = write(folder / "x.safetensors", tensors_in(rng.choice(LAYOUTS)), {"lora_adapter_metadata": json.dumps(metadata_of())})
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:HEAD])
    for _ in range(rng.choice((1, 1, 3, 40))):
        place = rng.randrange(rng.choice((HEAD, length + HEAD, len(data))))
        match rng.randrange(5):
            case 0 | 1:
                data[place] ^= 1 << rng.randrange(8)
            case 2:
                data[place:place] = rng.choice((b"\0", b'"', b"}", b"[" * 5000, b"9" * 5000, rng.randbytes(9)))
            case 3:
                data[place] = rng.choice(b'0123456789"{}[],:abcz')
            case _ if rng.random() < 0.4:
                del data[place:]
                data += bytes(HEAD)
            case _:
                del data[place : place + rng.randrange(1, 9)]
        if len(data) <= HEAD:
            break
        length = min(length, max(1, len(data) - HEAD))
    path.write_bytes(data)
    return Mutant(path)


def tensors_damaged(rng: random.Random, folder: Path) -> Mutant:
    """Tensors that are missing, renamed, reshaped, of other dtypes, not finite, or superfluous."""
    import torch

    tensors = dict(tensors_in(rng.choice(LAYOUTS)))
    for _ in range(rng.choice((1, 1, 2, 5))):
        name = rng.choice(sorted(tensors))
        old = tensors[name]
        match rng.randrange(10):
            case 0:
                del tensors[name]
            case 9:  # layers that this base does not have
                tensors = {re.sub(r"(blocks.)0", r"\g<1>7", key): value for key, value in tensors.items()}
            case 1:
                letter = rng.randrange(len(name))
                tensors[name[:letter] + rng.choice("._0x") + name[letter + rng.randrange(2) :]] = tensors.pop(name)
            case 2:
                tensors[name] = old.transpose(0, 1)
            case 3:
                tensors[name] = old.reshape(-1) if rng.random() < 0.5 else old[: rng.randrange(len(old))]
            case 4:
                tensors[name] = old.to(rng.choice((torch.int8, torch.int64, torch.bool, torch.float16, torch.bfloat16)))
            case 5:
                tensors[name] = old * rng.choice((float("nan"), float("inf"), 0.0))
            case 6:
                tail = rng.choice(("alpha", "dora_scale", "hada_w1_a", "lokr_w1", "lora_mid.weight", "diff", "x", "lora_A.weight"))
                tensors[f"{name.split('.lora')[0]}.{tail}"] = torch.ones(rng.choice(((), (1,), (32,), (4, 4))))
            case 7:
                tensors[rng.choice(("emb_params", "a", "model.diffusion_model.out.2.weight", "bundle_emb.a.b"))] = torch.ones(2, 2)
            case _:
                prefix = rng.choice(("base_model.model.", "text_encoder_2.", "transformer.", "lora_te2_", "../", "\x1b[2J"))
                tensors = {f"{prefix}{key}": value for key, value in tensors.items()}
        if not tensors:
            break
    return Mutant(write(folder / "x.safetensors", tensors))


def metadata_damaged(rng: random.Random, folder: Path) -> Mutant:
    """A header with impossible values, with damaged JSON, or of many megabytes."""
    layout, texts = rng.choice(LAYOUTS), {}
    if layout == "get_peft_model":
        return config_damaged(rng, folder)
    match rng.randrange(8):
        case 0:
            texts["lora_adapter_metadata"] = rng.choice(("", "{", "[]", "null", "3", '"x"', "[" * 100_000, '{"unet.r": NaN}'))
        case 1:
            texts["ss_network_alpha"] = rng.choice(("None", "Dynamic", "x", "-1", "0", "nan", "inf", "1e999", "2", "9" * 5000))
        case 2 if rng.random() < 0.2:
            big = rng.choice((1, 8, 20, 90)) * 10**6
            texts["ss_tag_frequency"] = "x" * big
            return Mutant(write(folder / "x.safetensors", tensors_in(layout), texts), READ if big < 9 * 10**6 else REFUSED)
        case 3 if rng.random() < 0.1:
            return Mutant(many_tensors(rng, folder / "x.safetensors"), REFUSED)
        case _:
            told = metadata_of()
            for _ in range(rng.choice((1, 1, 3))):
                key = rng.choice(sorted(told))
                if rng.random() < 0.15:
                    told.pop(key)
                else:
                    told[key] = rng.choice(ODD)
            texts["lora_adapter_metadata"] = json.dumps(told)
    return Mutant(write(folder / "x.safetensors", tensors_in(layout), texts))


def config_damaged(rng: random.Random, folder: Path) -> Mutant:
    """The same for peft's adapter_config.json beside the file."""
    told = {key.removeprefix("unet."): value for key, value in metadata_of().items()}
    told[rng.choice(sorted(told))] = rng.choice(ODD)
    text = json.dumps(told)
    if rng.random() < 0.3:
        text = rng.choice(("", "{", "[]", "[" * 100_000, '"x"', text[:40], text + " " * 2_000_000))
    (folder / "adapter_config.json").write_text(text)
    write(folder / "adapter_model.safetensors", tensors_in("get_peft_model"))
    return Mutant(folder)


def many_tensors(rng: random.Random, path: Path) -> Path:
    """A header of very many empty tensors."""
    entry = ',"{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    text = "{" + "".join(entry.format(number) for number in range(rng.choice((1000, 100_000, 1_500_000))))[1:] + "}"
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode())
    return path


class Trap:
    """What a pickle can do: leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


NAMES = (
    "lora.bin", "lora.safetensors", "lora.pt", "lora.ckpt", "lora", "LORA.SAFETENSORS", "lora.sft", "lora.pkl", "lora.png",
    "pytorch_lora_weights.bin", "pytorch_lora_weights.safetensors", "adapter_model.bin", "adapter_model.safetensors", "-x.bin",
)  # fmt: skip
IN_A_FOLDER = {"pytorch_lora_weights.bin", "pytorch_lora_weights.safetensors", "adapter_model.bin", "adapter_model.safetensors"}


def other_files(rng: random.Random, folder: Path) -> Mutant:
    """Pickles with a trap, fifos, devices, sockets, LFS pointers, web pages, under any name; whole files under any name, behind links."""
    import torch

    name = rng.choice(NAMES)
    path, trap = folder / name, {"a": Trap(folder / "sprung")}
    must, kind = REFUSED, rng.randrange(11)
    if kind in (0, 1):
        torch.save(trap, path, _use_new_zipfile_serialization=kind == 0)
    elif kind == 2:
        path.write_bytes(pickle.dumps(trap, rng.randrange(6)))
    elif kind == 3:
        os.mkfifo(path)
    elif kind == 4:
        path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/random", "/proc/self/mem", "nowhere", name, "/")))
    elif kind == 5:
        starts = (b"", b"x", b"version https://git-lfs.github.com/spec/v1", b"<!DOCTYPE html>", b"GGUF", b"\x89PNG", b"\x89HDF", b"PK")
        path.write_bytes(rng.choice(starts) + rng.randbytes(rng.choice((0, 3, 400))))
    elif kind == 6:
        bind(path)
    elif kind == 7:
        with path.open("wb") as file:  # a hole of gigabytes
            file.truncate(rng.choice((10**9, 10**11)))
    elif kind == 8:
        must = READ
        path.symlink_to(write(folder / "0a1b2c3d", tensors_in(rng.choice(LAYOUTS))))
    elif kind == 9:
        must = READ
        write(path, tensors_in(rng.choice(LAYOUTS)))
        (folder / "._lora.safetensors").write_bytes(rng.randbytes(50))
        if name.endswith("s"):  # a decoy beside a safetensors file of a known name
            (folder / "pytorch_lora_weights.bin").write_bytes(pickle.dumps(trap))
    else:
        (path / "x").mkdir(parents=True)
    is_folder = name in IN_A_FOLDER and kind != 8 and rng.random() < 0.5
    return Mutant(folder if is_folder else path, must)


def bind(path: Path) -> None:
    """A socket at a path, which may have 107 bytes."""
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(before)


def cards_damaged(rng: random.Random, folder: Path) -> Mutant:
    """A whole LoRA whose card has exchanged or missing values or damaged bytes; or whose base is elsewhere."""
    write(folder / "pytorch_lora_weights.safetensors", tensors_in("diffusers"))
    write_card(true_card(), folder)
    path = folder / "dreambooth.json"
    if rng.random() < 0.25:
        data = bytearray(path.read_bytes())
        for _ in range(rng.choice((1, 5))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        return Mutant(folder, has_card=True)
    told = json.loads(path.read_text())
    place = rng.choice((told, told["base"], told["base"], told["settings"], told["settings"]["train"]))
    key = rng.choice(sorted(place))
    place[key] = rng.choice((*ODD, "/", "~", "..", "/dev/zero", "a/b", "x" * 5000, "\ud800", "\x1b[2J", "https://x/y", "pocket"))
    path.write_text(json.dumps(told))
    return Mutant(folder, has_card=True)


def true_card() -> Card:
    """The card of a LoRA on the small base, which is remembered."""
    from dataclasses import replace

    return replace(whole_card(), base=BaseRecord(name="base", repository=None, path=None, identity=identity()))


@cache
def identity() -> str:
    """The small base's identity; this machine remembers where the base is."""
    from dreambooth_cli.bases.fingerprint import identify
    from dreambooth_cli.bases.places import remember_place

    base = Path(os.environ["FAULTS_BASE"])
    found = identify(base)
    remember_place(found, base)
    return found


KINDS: dict[str, Maker] = {
    "bytes": bytes_damaged,
    "tensors": tensors_damaged,
    "metadata": metadata_damaged,
    "other files and names": other_files,
    "cards": cards_damaged,
}


def make(kind: str, number: int, folder: Path) -> Mutant:
    """Write mutant `number` of a kind."""
    folder.mkdir()
    return KINDS[kind](random.Random(f"{kind}-{number}"), folder)


# ---- reading one


@cache
def pipeline() -> Any:
    """The small base, which every LoRA is put into and taken out of again."""
    import torch

    from dreambooth_cli.engine.families.loading import load_family
    from tests.engine.plans import base_of

    return load_family(base_of(Path(os.environ["FAULTS_BASE"])), dtype=torch.float32, device=torch.device("cpu")).pipe


def networks() -> dict[str, Any]:
    """The two that a LoRA may be for."""
    return {name: getattr(pipeline(), name) for name in ("unet", "text_encoder")}


def read(mutant: Mutant) -> None:
    """Put a mutant into the base and compare what is there with its file. Raises AssertionError if the answer is wrong."""
    from dreambooth_cli.engine.families.lora_file import find_lora, load_lora
    from dreambooth_cli.source import card_of, fill_prompt, model_folder
    from dreambooth_cli.workflows.generate import find_model

    try:
        folder = model_folder(mutant.path)
        card = card_of(folder)
        result_of(fill_prompt("a [identifier] dog", card, None if mutant.has_card else "sks"))
        result_of(find_model(folder, card, None if mutant.has_card else os.environ["FAULTS_BASE"]))
        told = load_lora(pipeline(), folder)
        hold_against(find_lora(folder), told)
    except Exception as error:
        words = in_words(error)
        if words is None or isinstance(error, AssertionError):
            raise
        assert words.hint, f"no hint: {words.message}"
        assert words.exit_code in (CODES if mutant.has_card else {ModelUnavailable.exit_code}), words.message
        assert len(words.message) < 2010, f"a message of {len(words.message)} characters"
        assert mutant.must != READ, f"refused: {words.message}"
    else:
        assert mutant.must != REFUSED, "read"
    finally:
        take_out()


def hold_against(file: Path, told: list[str]) -> None:
    """Check that what is beside the layers equals the file, times alpha / rank, except for what was mentioned."""
    import torch
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import load_file

    tensors, texts, config = load_file(file), header_of(file), file.with_name("adapter_config.json")
    stated = json.loads(config.read_text()) if config.exists() else None
    found: dict[tuple[str, str], Any] = {}
    for layout in LAYOUTS:
        for place in LAYERS:
            down, up = names_of(layout, *place)
            if down in tensors and up in tensors:
                stem = re.sub(r"\.lora.*", "", down)
                alpha = tensors.get(f"{stem}.alpha")
                rank = len(tensors[down])
                scale = stated_scale(texts, stated, place, rank) if alpha is None else float(alpha) / rank
                found[place] = scale * (tensors[up].float().flatten(1) @ tensors[down].float().flatten(1))
    placed: dict[tuple[str, str], Any] = {
        (network, name): layer
        for network, module in networks().items()
        for name, layer in module.named_modules()
        if isinstance(layer, LoraLayer)
    }
    is_all = 2 * len(placed) + sum(name.endswith((".alpha", ".dora_scale")) for name in tensors) == len(tensors)
    assert is_all or told, f"{len(placed)} layers of {len(tensors)} tensors, and nothing is told"
    for place, layer in placed.items():
        if place in found and "dora_scale" not in str(list(tensors)):
            ours = layer.get_delta_weight("default").flatten(1)
            assert torch.allclose(ours, found[place], rtol=1e-3, atol=1e-3), f"{place} lies there otherwise than in the file"


def header_of(file: Path) -> dict[str, str]:
    """The texts of a header, as plain safetensors gives them."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return opened.metadata() or {}


def stated_scale(texts: dict[str, str], config: dict[str, Any] | None, place: tuple[str, str], rank: int) -> float:
    """alpha / rank as stated by a header or by the config beside the file."""
    network, layer = place
    told = json.loads(texts.get("lora_adapter_metadata", "{}"))
    told = {key.removeprefix(f"{network}."): value for key, value in told.items() if key.startswith(f"{network}.")}
    told = told or config or {}
    if not told:
        alpha = texts.get("ss_network_alpha", "None")
        return 1.0 if alpha in ("None", "Dynamic") else float(alpha) / rank
    patterns = told.get("alpha_pattern") or {}
    alpha = next((value for key, value in patterns.items() if f".{layer}".endswith(f".{key}")), told["lora_alpha"])
    return float(alpha) / (rank**0.5 if told.get("use_rslora") else rank)


def take_out() -> None:
    """Make the base as it was."""
    from diffusers.utils import recurse_remove_peft_layers

    for module in networks().values():
        recurse_remove_peft_layers(module)
        if hasattr(module, "peft_config"):
            del module.peft_config


def run_process(mutant: Mutant, number: int, out: Path) -> None:
    """`generate` with a mutant in a process of its own. Raises AssertionError if the answer is wrong."""
    words = ["generate", "--model-path", str(mutant.path), "a [identifier] dog", "--steps", "1", "--seed", "0", "--json"]
    words += ["--output-dir", str(out)]
    words += [] if mutant.has_card else ["--model", os.environ["FAULTS_BASE"], "--identifier", "sks"]
    command = [sys.executable, "-m", "dreambooth_cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST)
    told = f"exit code {done.returncode}: {done.stderr[-1500:]}{done.stdout[-500:]}"
    assert "Traceback" not in done.stderr, told
    if done.returncode == 0:
        assert mutant.must != REFUSED, "read"
        assert len(list(out.glob("*.png"))) == 1, told
        return
    assert mutant.must != READ, told
    assert done.returncode in (CODES if mutant.has_card else {ModelUnavailable.exit_code}), told
    assert json.loads(done.stdout.splitlines()[-1])["hint"], told


# ---- rows


def rows(count: int = FULL, processes: int = PROCESSES) -> Iterator[Row]:
    """A row for each kind of mutant, in this process, and one for all of them in real processes."""
    with prepared() as place:
        for kind in KINDS:
            yield try_all(kind, count, place / kind)
        if processes:
            yield try_processes(processes, place / "processes")


@contextlib.contextmanager
def prepared() -> Iterator[Path]:
    """A folder for the mutants, in a home that remembers the small base."""
    with workplace(), tempfile.TemporaryDirectory(prefix="dreambooth-loras-") as place:
        networks(), identity()
        try:
            yield Path(place)
        finally:
            for cached in (pipeline, matrices, identity):
                cached.cache_clear()


def try_all(kind: str, count: int, place: Path) -> Row:
    """Mutants 0 to `count` of a kind, each read in this process."""
    return trials.try_all(f"loras: {kind}", partial(make, kind), read, count, place)


def try_processes(count: int, place: Path) -> Row:
    """Mutants 0 to `count` of every kind, each given to a process."""
    return trials.try_processes("loras: as processes", [*KINDS], make, run_process, count, place)


if __name__ == "__main__":
    from .photos import show

    asked = [int(word) for word in sys.argv[1:3]]
    shown = []
    for one in rows(*asked):
        show(one)
        shown.append(one)
    sys.exit(any(row.lost for row in shown))
