"""How long `prep` takes for 300 photos of 12 megapixels, and again where nothing or one photo has changed: `python -m
tests.benchmarks.photos many` writes the table into photos.md.

Beside the seconds by the clock stand those of the processors, which other work on the machine changes less. All photos are different,
each a part of one of ../shared/subjects in a light of its own.
"""

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from PIL import Image

from dreambooth_cli.config import write_config
from dreambooth_cli.project import Project

from .scenes import SUBJECTS, true_boxes

COUNT, SIZE = 300, (4000, 3000)
CHILD = """
import sys
from dreambooth_cli.cli.app import main
from tests.faults.peak import peak_of_memory

try:
    main()
finally:
    print(peak_of_memory())
"""


@dataclass(frozen=True)
class Look:
    """One `prep`: seconds by the clock and of the processors, and the most bytes that it held."""

    name: str
    seconds: float
    busy: float
    held: int


def make_photo(path: Path, number: int) -> None:
    """The photo of a number as a JPEG."""
    random, names = Random(number), sorted(true_boxes())
    with Image.open(SUBJECTS / names[number % len(names)]) as image:
        wide = random.uniform(0.8, 1) * image.width
        high = min(wide * SIZE[1] / SIZE[0], image.height)
        left, top = random.uniform(0, image.width - wide), random.uniform(0, image.height - high)
        large = image.convert("RGB").resize(SIZE, Image.Resampling.BILINEAR, box=(left, top, left + wide, top + high))
    gain = random.uniform(0.9, 1.1)
    large.point([min(255, round(value * gain)) for value in range(256)] * 3).save(path, quality=90)


def look(name: str, home: Path) -> Look:
    """Prepare the project as a user does, in a process of its own."""
    env = os.environ | {"DREAMBOOTH_HOME": str(home)}
    before, began = os.times(), time.perf_counter()
    told = subprocess.run([sys.executable, "-c", CHILD, "prep", "many"], env=env, capture_output=True, text=True, check=True).stdout
    after, ended = os.times(), time.perf_counter()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return Look(name, ended - began, busy, int(told.split()[-1]))


def measure(count: int = COUNT) -> list[Look]:
    """The first look, one where nothing has changed, and one where one photo has."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        project = Project(home / "projects" / "many")
        project.photos.mkdir(parents=True)
        for number in range(count):
            make_photo(project.photos / f"{number}.jpg", number)
        write_config(project.config, {"subject": {"class_prompt": "a thing"}})
        looks = [look("all new", home), look("nothing changed", home)]
        make_photo(project.photos / "0.jpg", count)
        return [*looks, look("one photo changed", home)]


def table() -> str:
    """The table, in Markdown, and beneath it which machine that was and what else it had to do."""
    load, looks = os.getloadavg()[0], measure()
    lines = ["| `prep` of 300 photos | seconds | processor seconds | most memory |", "| --- | --- | --- | --- |"]
    lines += [f"| {one.name} | {one.seconds:.1f} | {one.busy:.1f} | {one.held / 1e6:.0f} MB |" for one in looks]
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    return "\n".join([*lines, "", f"On {machine}; the load of other work was {load:.1f} when it began."])
