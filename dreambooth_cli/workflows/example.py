"""The built-in example: five pictures of a subject from the pocket model's world that the pocket model has never seen."""

from pathlib import Path
from random import Random
from typing import Any

from ..disk import clear_leftovers, disk_errors, make_folder, settle, temporary
from ..paths import home_folder
from ..pocket import world

SUBJECT = world.draw_subject(19, "dog")  # a light one, easy to see even at night
CLASS_PROMPT = "a photo of a dog"  # the demo's prompts begin the same way, so the class images preserve what they ask for
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
    """Draw the example's photos (Pillow images)."""
    scenes = [world.draw_scene(Random(f"example {number}"), SUBJECT, place) for number, place in enumerate(PLACES, start=1)]
    return [world.render(scene) for scene in scenes]
