"""`dreambooth demo`: everything on a built-in example, ending with a picture in the terminal."""

from pathlib import Path

from ..events import StoryTold
from ..libraries import warned
from .console import messages, say
from .live import half_blocks
from .options import Json, with_flags
from .start import loading_torch
from .views import follow, open_view

INTRODUCTION = """\
Five pictures of a dog that the base model has never seen, and a few minutes of this machine.
The base is Pocket, a small model of a drawn world that comes with dreambooth: it shows how the
method works, not how good pictures can get. The commands below are the ones for your own photos."""
NEXT_STEPS = """
Now your own photos (3 to 5 of them), on a base model for your GPU:

  dreambooth init
  dreambooth train NAME
  dreambooth generate NAME "a photo of a [identifier] dog on the moon"
"""


@with_flags()
def demo(*, json: Json = False) -> None:
    """See it work: a built-in example from photos to pictures, offline, on any machine.

    Its project is called demo; a second call continues where the first one stopped.

    Examples:
      dreambooth demo
      dreambooth demo --json
      dreambooth generate demo "a photo of a [identifier] dog on the beach"
    """
    if not json:
        say(messages(), INTRODUCTION)
    with loading_torch():
        from ..workflows.demo import demo as workflow
    seen = follow(warned(workflow()), open_view(StoryTold, json=json), kept="run it again to continue")
    story = seen.get(StoryTold)
    if not json and story is not None:
        show_story(story.path)
        say(messages(), NEXT_STEPS)


def show_story(path: Path) -> None:
    """Show the page's pictures on the terminal: the photos, before, after. Nothing if the terminal has no colour."""
    console = messages()
    if not console.is_terminal or console.no_color or console.color_system is None:
        return
    from ..photos.story import story_strip

    console.print(half_blocks(story_strip(path, side=min(24, (console.width - 4) // 5))), soft_wrap=True)
    say(console, "the photos / before training / after")
