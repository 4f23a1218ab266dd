"""A safetensors file, written and read one tensor at a time: it equals the library's to the byte, and takes the memory of one tensor."""

import json
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreambooth_cli.disk import sha256_of
from dreambooth_cli.engine.tensor_file import WORDS, TensorFile, shapes_of, write_tensors


def some_tensors():
    """Tensors of every number format, scalars, an empty one, one that is not contiguous, and names that JSON must escape."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(), (3, 2), (0, 4), (5,)]
    found = {
        f'{number:02d} "é"\\{dtype}': torch.randint(0, 2, shapes[number % 4], generator=generator).to(dtype)
        for number, dtype in enumerate([*WORDS, *reversed(WORDS)])
    }
    return found | {"turned": torch.randn(4, 5, generator=generator).T}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_it_is_what_the_library_writes(metadata, tmp_path):
    tensors = some_tensors()
    digest = write_tensors(tmp_path / "ours", tensors, metadata=metadata)
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "theirs", metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert digest == sha256_of(tmp_path / "theirs")
    write_tensors(tmp_path / "nothing", {})
    assert load_file(tmp_path / "nothing") == {}


def test_only_what_has_a_fraction_changes_its_format(tmp_path):
    write_tensors(tmp_path / "file", {"a": torch.tensor([1.1]), "b": torch.tensor([3])}, dtype=torch.bfloat16)
    found = load_file(tmp_path / "file")
    assert found["a"].item() == torch.tensor(1.1).bfloat16().item()
    assert (found["a"].dtype, found["b"].dtype) == (torch.bfloat16, torch.int64)


def test_each_tensor_is_read_when_it_is_asked_for(tmp_path):
    tensors = some_tensors()
    write_tensors(tmp_path / "file", tensors)
    found = TensorFile(tmp_path / "file")
    assert found.keys() == tensors.keys()
    assert shapes_of(found) == shapes_of(tensors)
    for name, value in tensors.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=lambda told, name=name: f"{name}: {told}")
    found["turned"].zero_()
    assert found["turned"].any()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_of_a_rehearsal_some_tensors_of_every_form_are_written_and_the_room_of_the_others_is_taken(dtype, tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {f"{number:02d}": torch.randn(300, 10 + number, generator=generator) for number in range(20)}
    tensors |= {"bias": torch.randn(30), "step": torch.tensor(3.0), "codes": torch.ones(500, 10, dtype=torch.uint8)}
    write_tensors(tmp_path / "whole", tensors, dtype=dtype)
    digest = write_tensors(tmp_path / "some", tensors, dtype=dtype, at_most=60_000)
    assert digest == sha256_of(tmp_path / "some")
    found = TensorFile(tmp_path / "some")
    assert {"19", "bias", "step", "codes"} < found.keys()
    for name, value in found.items():
        wanted = value if name == "codes" else tensors[name].to(dtype or torch.float32)
        torch.testing.assert_close(value, wanted, rtol=0, atol=0, msg=lambda told, name=name: f"{name}: {told}")
    data = {name: (tmp_path / name).stat().st_size - TensorFile(tmp_path / name).start for name in ("whole", "some")}
    assert 50_000 < data["some"] <= 60_000
    room = (tmp_path / "some.room").stat()
    assert room.st_size == data["whole"] - data["some"]
    if sys.platform.startswith("linux"):
        assert room.st_blocks * 512 >= room.st_size


def test_a_rehearsal_of_a_small_file_writes_it_whole(tmp_path):
    write_tensors(tmp_path / "whole", some_tensors())
    write_tensors(tmp_path / "rehearsed", some_tensors(), at_most=10_000)
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "rehearsed"}
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "rehearsed").read_bytes()


def with_header(**entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 8


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BROKEN = {
    "nothing": b"",
    "half a length": b"\x08\0\0",
    "a header longer than the file": struct.pack("<Q", 2**60) + b"{}",
    "no JSON": struct.pack("<Q", 2) + b"{]",
    "a list": struct.pack("<Q", 2) + b"[]",
    "too long": with_header(a=ENTRY) + b"\0",
    "cut": with_header(a=ENTRY)[:-1],
    "another shape": with_header(a=ENTRY | {"shape": [3]}),
    "a shape that is none": with_header(a=ENTRY | {"shape": ["x"]}),
    "before its beginning": with_header(a=ENTRY, b=ENTRY | {"data_offsets": [-8, 0]}),
    "an unknown format": with_header(a=ENTRY | {"dtype": "F8_E5M2", "shape": [8]}),
    "an entry that is none": with_header(a=[]),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_no_such_file_is_refused_before_anything_is_read(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        TensorFile(tmp_path / "file")


def test_a_large_file_takes_the_memory_of_one_tensor():
    """A process writes 200 MB of one weight, converted from float32 to half precision, and reads it again: it holds at most 25 MB more,
    apart from what the libraries take when they are first used."""
    script = """
import sys, tempfile, torch
from pathlib import Path
from tests.faults.peak import forget_peak, peak_of_memory
from dreambooth_cli.engine.tensor_file import TensorFile, write_tensors
torch.set_num_threads(1)
weight = torch.ones(1 << 20)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "file"
    write_tensors(path.with_name("first"), {"a": weight[:9], "b": weight[:9]}, dtype=torch.float16)
    assert all(value.sum() == 9 for value in TensorFile(path.with_name("first")).values())
    before = forget_peak()
    write_tensors(path, {f"{number:03d}": weight for number in range(100)}, dtype=torch.float16)
    assert all(value.sum() == 1 << 20 for value in TensorFile(path).values())
    print(path.stat().st_size, peak_of_memory() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    size, more = map(int, done.stdout.split())
    assert size > 200e6
    assert more < 25e6
