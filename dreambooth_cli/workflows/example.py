"""The built-in example: a subject of the pocket model's world that the pocket model has never seen, in five pictures."""

from pathlib import Path
from random import Random
from typing import Any

from ..disk import clear_leftovers, disk_errors, make_folder, settle, temporary
from ..paths import home_folder
from ..pocket import world

SUBJECT = world.draw_subject(19, "dog")  # a light one, well seen at night as well
CLASS_PROMPT = "a photo of a dog"  # as its prompts begin: what the class images keep is what is asked later
PLACES = ("in a meadow", "on the beach", "in the snow", "in a living room", "in the desert")


def draw_example() -> Path:
    """Write the example's photos to the per-user directory and return their folder. Raises DiskError."""
    folder = home_folder() / "example"
    with disk_errors(folder):
        make_folder(folder)
        clear_leftovers(folder, old=r"\.photo-[0-9]\.part")
        for number, photo in enumerate(photos_of_example(), start=1):
            with temporary(folder) as part:
                photo.save(part, format="PNG")
                settle(part, folder / f"photo-{number}.png")
    return folder


def photos_of_example() -> list[Any]:
    """The example's photos, as they are drawn."""
    scenes = [world.draw_scene(Random(f"example {number}"), SUBJECT, place) for number, place in enumerate(PLACES, start=1)]
    return [world.render(scene) for scene in scenes]
