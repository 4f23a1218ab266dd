"""`dreambooth push`: upload a model to a repository of yours on the hub."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..libraries import warned
from ..model_card import Card
from ..paths import expanded
from ..project import choose_project
from ..push_order import order_push, shows_a_person
from ..source import Source, find_source
from .console import can_ask
from .options import Json, ProjectName, Yes, flag, with_flags
from .start import loading_torch
from .views import follow, open_view


@with_flags()
def push(
    project: ProjectName = None,
    repository: Annotated[
        str | None, typer.Argument(metavar="OWNER/NAME", show_default=False, help="The repository; it is made if it does not exist.")
    ] = None,
    model_path: Annotated[
        Path | None, flag("--model-path", takes="path", help="Push this instead of a project's model: a model's folder or a run.")
    ] = None,
    run: Annotated[int | None, flag("--run", takes="int", help="Which run; by default, the latest finished one.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see it; by default, only you can.")] = False,
    yes: Yes = False,
    *,
    json: Json = False,
) -> None:
    """Upload a model to the Hugging Face hub, with a model card, its base's licence and a notice.

    Examples:
      dreambooth push my-dog me/my-dog
      dreambooth push my-dog me/my-dog --public
      dreambooth push --model-path ./output me/my-dog
    """
    if repository is None and project is not None and (model_path is not None or "/" in project):
        project, repository = None, project
    if repository is None:
        raise UsageError("which repository? its name is missing", "name it: dreambooth push my-dog me/my-dog")
    if model_path is not None and project is not None:
        raise UsageError(f"there are two models: the project {project} and {model_path}", "leave one out")
    path, _, _ = find_source(expanded(model_path) if model_path is not None else choose_project(project), run)
    source = Source(path)
    card, is_whole = order_push(source, repository)
    if not yes:
        confirm_push(card, repository, public=public, json=json)
    with loading_torch():
        from ..workflows.push import push as send
    events = send(source, repository, is_whole=is_whole, public=public)
    follow(warned(events), open_view(json=json), kept="what was sent stays there", again="run the same command again to continue")


def confirm_push(card: Card, repository: str, *, public: bool, json: bool) -> None:
    """Ask for confirmation, and if the subject is a person, whether they consent. Raises UsageError if nobody can be asked, typer.Exit if
    the answer is no."""
    person = shows_a_person(card)
    if json or not can_ask():
        what = "pushing a person's likeness needs their consent and" if person else "a push needs"
        raise UsageError(f"{what} your confirmation", "add --yes")
    if person and not typer.confirm(f'"{card.instance_prompt}" is a person: do they consent to this?'):
        raise typer.Exit
    if not typer.confirm(f"Send the model to {repository}, {'for everybody to see' if public else 'for only you to see'}?"):
        raise typer.Exit
