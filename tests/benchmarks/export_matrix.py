"""Every export that there is: family x method x format x number format, on small models of random weights and on Pocket, with how far the
picture that is drawn after reading it again differs, and how many tensors were written.

`python -m tests.benchmarks.export_matrix [FAMILY ...]` exports each by the workflow, which reads it again by another reader and compares,
and writes the rows that export_matrix.md has not: delete those that are to be measured again. No network, no GPU.
"""

import os
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file

from dreambooth_cli.bases.metadata import read_header
from dreambooth_cli.engine.families.loading import load_family, parts_of
from dreambooth_cli.engine.families.lora import lora_layers_of
from dreambooth_cli.errors import DreamboothError
from dreambooth_cli.events import Exported
from dreambooth_cli.export_order import ENDING, Export, Precision, check_format, order_export
from dreambooth_cli.formats import Format
from dreambooth_cli.source import Source
from dreambooth_cli.workflows.export import export
from tests import small_flow, small_models
from tests.engine.plans import base_of

TABLE = Path(__file__).with_suffix(".md")
POCKET = Path(__file__).parents[2] / "dreambooth_cli" / "pocket" / "model"
KINDS = ("pocket", "sd1", "sd2", "sdxl", *small_flow.KINDS)
# format and the ending of the place: `merged` is a folder or one file
PLACES: tuple[tuple[Format, str], ...] = (
    ("single-file", ""),
    ("lora", ""),
    ("kohya", ""),
    ("merged", ""),
    ("merged", ENDING),
    ("diffusers", ""),
)
DTYPES: tuple[Precision | None, ...] = (None, "fp32", "fp16", "bf16")
CHANGE = 0.05  # of a weight's own size: what fine-tuning has done
HEAD = """# Exports: how much the picture differs that is drawn after reading them again

The largest difference over all pixels, where a channel goes from 0 to 1; 0 is exactly the same picture. `n`: how many tensors the file, or
all files of a folder, have. Small models with random weights, stored in float32, and Pocket, which is trained, as it is stored; `full`:
every weight changed by 5% of its tensor's mean size, `lora`: a LoRA of rank 4 on every attention layer. By
`python -m tests.benchmarks.export_matrix`.

| base | method | format | as stored | fp32 | fp16 | bf16 | n |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def make(kind: str, folder: Path) -> Path:
    """A base of a kind on disk."""
    if kind == "pocket":
        return Path(shutil.copytree(POCKET, folder))
    return small_flow.build(kind, folder) if kind in small_flow.KINDS else small_models.build(kind, folder)


def tuned(base: Path, folder: Path) -> Path:
    """A copy of a base whose denoiser and text encoders have changed."""
    shutil.copytree(base, folder)
    record, generator = base_of(base).facts.family, torch.Generator().manual_seed(1)
    for name in (record.denoiser, *record.text_encoders):
        for file in (folder / name).glob(f"*{ENDING}"):
            tensors = load_file(file)
            for key, value in tensors.items():
                if value.is_floating_point():
                    noise = torch.randn(value.shape, generator=generator)
                    tensors[key] = (value.float() + CHANGE * value.float().abs().mean() * noise).to(value.dtype)
            save_file(tensors, file, {"format": "pt"})
    return folder


def adapted(base: Path, file: Path) -> Path:
    """A LoRA for a base, of rank 4 and alpha 2, by peft's names."""
    family = load_family(base_of(base), dtype=torch.float32, device=torch.device("cpu"))
    record, generator, tensors = base_of(base).facts.family, torch.Generator().manual_seed(2), {}
    for name in (record.denoiser, *(each for each in record.text_encoders if "full" in record.methods)):
        module = parts_of(family.pipe)[name]
        ends = tuple(f".{end}" for end in lora_layers_of(module, record.parts[name], "attention"))
        for layer, each in module.named_modules():
            if f".{layer}".endswith(ends) and isinstance(each, torch.nn.Linear):
                key = f"{name}.{layer}"
                tensors[f"{key}.lora_A.weight"] = torch.randn(4, each.in_features, generator=generator) * each.in_features**-0.5
                tensors[f"{key}.lora_B.weight"] = torch.randn(each.out_features, 4, generator=generator) * 0.02
                tensors[f"{key}.alpha"] = torch.tensor(2.0)
    save_file(tensors, file)
    return file


def rows_of(kind: str, folder: Path, there: Collection[str]) -> Iterator[str]:
    """The rows of a kind that are not there, by how they begin."""
    base = make(kind, folder / "base")
    sources = {"full": tuned(base, folder / "tuned"), "lora": adapted(base, folder / "lora.safetensors")}
    for method, path in sources.items():
        for to, ending in PLACES:
            start = f"| {kind} | {method} | {to}{ending} | "
            if start in there:
                continue
            cells, counts = [], set()
            for dtype in DTYPES:
                try:
                    order = order_export(Export(to, folder / f"{method}-{to}-{dtype}{ending}", dtype))
                    source = Source(path, str(base))
                    check_format(order, source)
                    (done,) = [event for event in export(source, order) if isinstance(event, Exported)]
                except DreamboothError as error:
                    cells.append(error.message.replace(str(path), "FOLDER"))
                    continue
                cells.append(f"{done.largest_difference:.2g}")
                counts.add(count_of(done.path))
            if counts:
                yield f"{start}{' | '.join(cells)} | {'/'.join(map(str, sorted(counts)))} |\n"
            else:
                yield f"{start}refused: {cells[0]} | | | | |\n"


def count_of(place: Path) -> int:
    """The tensors of a file or of a folder's files."""
    files = [place] if place.is_file() else sorted(place.rglob(f"*{ENDING}"))
    return sum(name != "__metadata__" for file in files for name in read_header(file))


def main(kinds: Sequence[str]) -> None:
    """Write the rows of these kinds that the table has not, each as soon as it is measured."""
    torch.set_num_threads(1)
    for kind in kinds:
        there = {" | ".join(line.split(" | ")[:3]) + " | " for line in lines()}
        with TemporaryDirectory(prefix="exports-") as made:
            os.environ["DREAMBOOTH_HOME"] = f"{made}/home"
            for row in rows_of(kind, Path(made), there):
                print(row, end="", flush=True)
                TABLE.write_text(HEAD + "".join(sorted([*lines(), row], key=place_of)), encoding="utf-8")


def lines() -> list[str]:
    """The rows of the table."""
    text = TABLE.read_text(encoding="utf-8") if TABLE.is_file() else HEAD
    return text.splitlines(True)[HEAD.count("\n") :]


def place_of(row: str) -> tuple[int, str, int]:
    """Where a row stands in the table."""
    kind, method, place = row.strip("| ").split(" | ")[:3]
    return KINDS.index(kind), method, [f"{to}{ending}" for to, ending in PLACES].index(place)


if __name__ == "__main__":
    main(sys.argv[1:] or KINDS)
