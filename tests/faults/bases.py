"""Damaged, foreign and hostile bases against the real loading: `python -m tests.faults.bases [COUNT [PROCESSES]]`.

Each mutant has a random generator of its own, so that any one can be made again: `make(kind, number, folder)`. Each must either be refused
in words or work; if it works, it draws a picture, and every weight that it draws with is one of the file's. COUNT of each kind are tried
in this process, PROCESSES of each in real processes, `generate` and `train` in turn.
"""

import json
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from dreambooth_cli.cli.app import in_words

from . import trials
from .documents import CODES, HEAD, result_of, workplace
from .loras import ODD, Trap, bind
from .row import Row
from .trials import ANY, READ, REFUSED

FULL, PROCESSES = 300, 30
LONGEST = 180  # seconds for a process, most of them for imports on a busy machine
HUGE = (3 * 10**7, 2**31 - 1, 2**62, 1e300)
FAMILIES = ("sd1", "sdxl")
# keys that name code to fetch: a base with them is read as if they were not there
CODE = {
    "attn_implementation": "nobody/kernel",
    "_attn_implementation": "nobody/kernel",
    "_attn_implementation_internal": "nobody/kernel",
    "auto_map": {"AutoModel": "nobody/x--model.Model"},
    "trust_remote_code": True,
    "custom_pipeline": "nobody/pipeline",
    "use_kernels": True,
    "_name_or_path": "nobody/model",
    "experts_implementation": "nobody/kernel",
}
Maker = Callable[[random.Random, Path], "Mutant"]


@dataclass(frozen=True)
class Mutant:
    """A base that was made, its family, and what must become of it."""

    path: Path
    family: str
    must: str = ANY


def copied(family: str, folder: Path) -> Path:
    """A copy of a base to be damaged; files in it are replaced, never written into."""
    return Path(shutil.copytree(bases() / family, folder, copy_function=os.link))


@cache
def bases() -> Path:
    """The folders of the undamaged bases."""
    from tests import small_models

    place = Path(os.environ["FAULTS_BASE"]).parent / "whole"
    for family in FAMILIES:
        small_models.build(family, place / family)
        small_models.single_file(place / family, place / f"{family}.safetensors")
    return place


def replace(path: Path, data: bytes) -> None:
    """Put other bytes under the same name; other links to the old ones stay."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def edit(path: Path, rng: random.Random, keys: list[str] | None = None) -> None:
    """Exchange, remove or add one to three values of a JSON file."""
    values = json.loads(path.read_text())
    for _ in range(rng.choice((1, 1, 3))):
        key = rng.choice(keys or sorted(values) or ["x"])
        match rng.randrange(6):
            case 0:
                values.pop(key, None)
            case 1:
                values[key] = rng.choice(HUGE)
            case 2 if isinstance(values.get(key), list) and values[key]:
                values[key] = [*values[key]]
                values[key][rng.randrange(len(values[key]))] = rng.choice((*ODD, *HUGE))
            case 3 if rng.random() < 0.3:
                values[key] = [rng.choice(ODD)] * rng.choice((2, 5000))
            case _:
                values[key] = rng.choice(ODD)
    replace(path, json.dumps(values).encode())


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes with bits flipped, bytes inserted, or the end cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3))):
        place = rng.randrange(max(1, min(len(changed), rng.choice((HEAD, 3000, len(data))))))
        match rng.randrange(4):
            case 0 if changed:
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                changed[place:place] = rng.choice((b"\0", b'"', b"}", b"[" * 50_000, b"9" * 5000, rng.randbytes(9)))
            case 2:
                del changed[place : place + rng.randrange(1, 9)]
            case _:
                del changed[place:]
    return bytes(changed)


# ---- kinds


def configs(rng: random.Random, folder: Path) -> Mutant:
    """A network's config with impossible values, with keys that name code, or with damaged bytes."""
    family = rng.choice(FAMILIES)
    base = copied(family, folder / "base")
    parts = ["unet", "vae", "text_encoder", *(["text_encoder_2"] if family == "sdxl" else [])]
    path = base / rng.choice(parts) / "config.json"
    match rng.randrange(8):
        case 0:
            values = json.loads(path.read_text()) | dict(rng.sample(sorted(CODE.items(), key=str), 3))
            replace(path, json.dumps(values).encode())
            return Mutant(base, family, READ)
        case 1:
            methods: tuple[Any, ...] = ({"quant_method": "bitsandbytes", "load_in_4bit": True}, {"quant_method": "gguf"}, "x", -1, {}, [])
            replace(path, json.dumps(json.loads(path.read_text()) | {"quantization_config": rng.choice(methods)}).encode())
            return Mutant(base, family, REFUSED)
        case 2:
            replace(path, damaged(path.read_bytes(), rng))
        case _:
            edit(path, rng)
    return Mutant(base, family)


OTHER_SCHEDULERS = (
    "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler",
    "LCMScheduler", "TCDScheduler", "CMStochasticIterativeScheduler", "ScoreSdeVeScheduler", "KarrasVeScheduler", "IPNDMScheduler",
)  # fmt: skip


def indexes_and_schedulers(rng: random.Random, folder: Path) -> Mutant:
    """model_index.json, the scheduler's config or a tokenizer's files with impossible values, or from another kind of base."""
    family = rng.choice(FAMILIES)
    base, kind = copied(family, folder / "base"), rng.randrange(9)
    index, scheduler = base / "model_index.json", base / "scheduler" / "scheduler_config.json"
    if kind < 2:
        edit(index, rng)
    elif kind == 2:
        told = json.loads(index.read_text())
        told[rng.choice(("controlnet", "prior", "transformer", "unet", "vae", "x"))] = ["diffusers", rng.choice(("ControlNetModel", "X"))]
        told |= rng.choice(({}, CODE))
        replace(index, json.dumps(told).encode())
        return Mutant(base, family, REFUSED)
    elif kind < 5:
        edit(scheduler, rng)
    elif kind == 5:
        name = rng.choice(OTHER_SCHEDULERS)
        for path, key, value in ((index, "scheduler", ["diffusers", name]), (scheduler, "_class_name", name)):
            if path == scheduler or rng.random() < 0.5:
                replace(path, json.dumps(json.loads(path.read_text()) | {key: value}).encode())
        return Mutant(base, family, REFUSED)
    elif kind == 6:
        flags = ({"use_flow_sigmas": True}, {"sigma_max": 80.0}, {"timestep_type": "continuous"}, {"prediction_type": "sample"})
        odd = rng.choice((*flags, {"prediction_type": "flow_prediction"}, {"beta_schedule": "sigmoid"}))
        replace(scheduler, json.dumps(json.loads(scheduler.read_text()) | odd).encode())
        return Mutant(base, family, REFUSED)
    else:
        files = sorted((base / "tokenizer").iterdir())
        path = files[rng.randrange(len(files))]
        match rng.randrange(4):
            case 0:
                path.unlink()
            case 1 if path.suffix == ".json" and path.name != "vocab.json":
                edit(path, rng, [*json.loads(path.read_text()), "model_max_length"])
            case 2:
                os.unlink(path)
                rng.choice((os.mkfifo, os.mkdir))(path)
            case _:
                replace(path, damaged(path.read_bytes(), rng))
    return Mutant(base, family)


def single_files(rng: random.Random, folder: Path) -> Mutant:
    """A single file in the original layout that lacks a part or some tensors, is renamed, reshaped, of another kind, or damaged."""
    from safetensors.torch import load_file, save_file

    family, must, texts = rng.choice(FAMILIES), ANY, {"format": "pt"}
    folder.mkdir(exist_ok=True)
    copied(family, folder / "mine")
    path = folder / rng.choice(("mine.safetensors", "mine.SAFETENSORS", "mine.sft", "mine.bin"))
    whole = bases() / f"{family}.safetensors"
    kind = rng.randrange(8)
    if kind == 0:
        replace(path, damaged(whole.read_bytes(), rng))
        return Mutant(path, family)
    if kind == 1:
        path.symlink_to(whole)
        return Mutant(path, family, READ)
    tensors = load_file(whole)
    if kind == 2:
        start = rng.choice(("first_stage_model.", "cond_stage_model.", "model.diffusion_model.", "conditioner.embedders.1."))
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(start)}
        must = REFUSED if len(kept) < len(tensors) else READ
        tensors = kept
    elif kind == 3:
        for name in rng.sample(needed(tensors), rng.choice((1, 3, 50))):
            del tensors[name]
        must = REFUSED
    elif kind == 4:
        name = rng.choice(needed(tensors))
        tensors[name] = tensors[name].flatten()[: max(1, tensors[name].numel() // 2)].clone()
        must = REFUSED
    elif kind == 5:
        tensors[rng.choice(("edm_mean", "edm_vpred.sigma_max", "control_model.x.weight"))] = tensors[needed(tensors)[0]].clone()
        must = REFUSED
    elif kind == 6:
        texts["modelspec.prediction_type"] = rng.choice(("v", "epsilon", "x", "sample", "-1", ""))
        must = READ if texts["modelspec.prediction_type"] in ("v", "epsilon", "") else REFUSED
    else:
        config = folder / "mine" / rng.choice(("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"))
        edit(config, rng)
    save_file(tensors, path, texts)
    return Mutant(path, family, must)


def needed(tensors: dict[str, Any]) -> list[str]:
    """The tensors that no base can do without."""
    return sorted(name for name in tensors if "position_ids" not in name and "text_projection" not in name)


def weights(rng: random.Random, folder: Path) -> Mutant:
    """Weights that are missing, reshaped, of other dtypes, not finite, in pickles, fifos or devices, behind links, under other names."""
    import torch
    from safetensors.torch import load_file, save_file

    family = rng.choice(FAMILIES)
    base, must = copied(family, folder / "base"), REFUSED
    path = rng.choice(sorted(base.rglob("*.safetensors")))
    kind = rng.randrange(14)
    tensors = load_file(path) if kind < 7 else {}
    name = rng.choice(needed(tensors)) if tensors else ""
    match kind:
        case 0 | 1:
            for gone in rng.sample(needed(tensors), rng.choice((1, 2, len(needed(tensors)) - 2))):
                del tensors[gone]
        case 2:
            tensors[name] = torch.cat([tensors[name], tensors[name]])
        case 3:
            tensors[name] = tensors[name] * rng.choice((float("nan"), float("inf")))
        case 4:
            tensors[name] = tensors[name].to(rng.choice((torch.int8, torch.uint8, torch.float8_e4m3fn, torch.bool)))
        case 5:
            tensors[rng.choice(("conv_in.lora.up.weight", "x", "add_embedding.x.weight"))] = torch.ones(2)
        case 6:
            tensors, must = {key: value.to(rng.choice((torch.float16, torch.bfloat16))) for key, value in tensors.items()}, READ
        case 7:
            replace(path, damaged(path.read_bytes(), rng))
            must = ANY
        case 8:
            path.unlink()
            trap = {"a": Trap(folder / "sprung")}
            for ending in (".bin", ".fp16.bin"):
                torch.save(trap, path.with_suffix(ending))
            if rng.random() < 0.5:
                path.with_suffix(".fp16.safetensors").write_bytes(rng.choice((b"", b"\0" * 50, pickle.dumps(trap))))
        case 9:
            path.unlink()
            rng.choice((lambda: os.mkfifo(path), lambda: bind(path), lambda: path.symlink_to("/dev/zero"), path.mkdir))()
        case 10:
            must = READ
            (path.parent / f"._{path.name}").write_bytes(rng.randbytes(80))
            path.with_suffix(".bin").write_bytes(pickle.dumps({"a": Trap(folder / "sprung")}))
            (base / "._model_index.json").write_bytes(rng.randbytes(80))
        case 11:
            must = READ
            path.rename(folder / "0a1b2c3d")
            path.with_suffix(rng.choice((".safetensors", ".SAFETENSORS", ".sft", ".fp16.safetensors"))).symlink_to(folder / "0a1b2c3d")
        case 12:
            size = rng.choice((12, 90)) * 10**6
            data = struct.pack("<Q", size) + b"{" + b" " * (size - 2) + b"}"
            replace(path, data)
        case _:
            index = {"weight_map": {"a": rng.choice(("../x.safetensors", "/etc/passwd", "gone.safetensors"))}}
            path.rename(path.with_name(path.name.replace(".safetensors", "-00001-of-00002.safetensors")))
            path.with_name(f"{path.name}.index.json").write_text(json.dumps(index))
    if tensors:
        path.unlink()
        save_file(tensors, path, {"format": "pt"})
    return Mutant(base, family, must)


KINDS: dict[str, Maker] = {
    "configs": configs,
    "indexes, schedulers, tokenizers": indexes_and_schedulers,
    "single files": single_files,
    "weights": weights,
}


def make(kind: str, number: int, folder: Path) -> Mutant:
    """Write mutant `number` of a kind."""
    folder.mkdir()
    return KINDS[kind](random.Random(f"{kind}-{number}"), folder)


# ---- reading one


def read(mutant: Mutant) -> None:
    """Load a mutant as `train` and `generate` do, and draw with it. Raises AssertionError if the answer is wrong."""
    import torch

    from dreambooth_cli.bases.base import ask_for_base
    from dreambooth_cli.engine.families.loading import load_family
    from dreambooth_cli.engine.hub.bases import obtain
    from dreambooth_cli.engine.images.sampling import Drawing, check_steps, draw

    try:
        base = result_of(obtain(ask_for_base(str(mutant.path))))
        family = load_family(base, dtype=torch.float32, device=torch.device("cpu"))
        drawing = Drawing(steps=2, guidance_scale=2.0, width=32, height=32)
        check_steps(family.pipe, drawing.steps, "--steps")
        draw(family, ["a dog"], [0], drawing)
        assert all(str(part.device) == "cpu" for part in (family.pipe.unet, family.pipe.vae, family.pipe.text_encoder))
    except Exception as error:
        words = in_words(error)
        if words is None or isinstance(error, AssertionError):
            raise
        assert words.hint, f"no hint: {words.message}"
        assert words.exit_code in CODES, words.message
        assert len(words.message) < 2010, f"a message of {len(words.message)} characters"
        assert mutant.must != READ, f"refused: {words.message}"
    else:
        assert mutant.must != REFUSED, "read"


def run_process(mutant: Mutant, number: int, out: Path) -> None:
    """`generate` or `train` with a mutant in a process of its own. Raises AssertionError if the answer is wrong."""
    if number % 2 and mutant.path.is_dir():
        words = ["generate", "--model-path", str(mutant.path), "a dog", "--steps", "1", "--seed", "0", "--output-dir", str(out)]
    else:
        photos = str(Path(os.environ["FAULTS_BASE"]).parent / "photos")
        words = ["train", "--photos", photos, "--class-prompt", "a dog", "--identifier", "sks", "--model", str(mutant.path)]
        words += ["--steps", "1", "--class-images", "1", "--class-image-steps", "1", "--method", "lora", "--output-dir", str(out)]
    command = [sys.executable, "-m", "dreambooth_cli", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST, stdin=subprocess.DEVNULL)
    told = f"{words[0]}: exit code {done.returncode}: {done.stderr[-1500:]}{done.stdout[-500:]}"
    assert "Traceback" not in done.stderr, told
    if done.returncode == 0:
        assert mutant.must != REFUSED, "read"
        return
    assert mutant.must != READ, told
    assert done.returncode in CODES, told
    assert json.loads(done.stdout.splitlines()[-1])["hint"], told


# ---- rows


def rows(count: int = FULL, processes: int = PROCESSES) -> Iterator[Row]:
    """A row for each kind of mutant, in this process, and one for all of them in real processes."""
    with prepared() as place:
        for kind in KINDS:
            yield try_all(kind, count, place / kind)
        if processes:
            yield try_processes(processes, place / "processes")


@contextmanager
def prepared() -> Iterator[Path]:
    """A folder for the mutants, in a home of their own."""
    with workplace():
        bases()
        try:
            with tempfile.TemporaryDirectory(prefix="mutants-", dir=Path(os.environ["FAULTS_BASE"]).parent) as place:
                yield Path(place)
        finally:
            bases.cache_clear()


def try_all(kind: str, count: int, place: Path) -> Row:
    """Mutants 0 to `count` of a kind, each read in this process."""
    return trials.try_all(f"bases: {kind}", partial(make, kind), read, count, place)


def try_processes(count: int, place: Path) -> Row:
    """Mutants 0 to `count` of every kind, each given to a process."""
    return trials.try_processes("bases: as processes", [*KINDS], make, run_process, count, place)


if __name__ == "__main__":
    from .photos import show

    asked = [int(each) for each in sys.argv[1:3]]
    shown = []
    for one in rows(*asked):
        show(one)
        shown.append(one)
    sys.exit(any(row.lost for row in shown))
