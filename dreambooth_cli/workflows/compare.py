"""`projects compare`: several runs of a project side by side, with the same prompts and seeds, on one sheet and one page."""

from collections.abc import Sequence
from html import escape
from typing import Any

from ..captions import prompt_with
from ..disk import check_folder, disk_errors, write_whole
from ..events import Events, GridSaved, PageWritten, PhaseStarted
from ..page import page
from ..photos.picture import Grid, data_uri, save_new
from ..places import names_a_place
from ..project import Project, keep
from ..prompts import marked
from ..record import Record
from ..run import Run
from ..settings import GenerateSettings
from ..source import Source
from .generate import draw_all, fill_prompts, read_source, set_up

PLACES = ("", "on the beach", "in the snow", "on the moon")  # of the pictures, if no prompt is given
SIDE = 512  # pixels of a picture's longer side on the page


def compare(project: Project, runs: Sequence[Run], prompts: Sequence[str], settings: GenerateSettings) -> Events:
    """Draw the same prompts with each run, one row per run; the sheet and the page go to the project's pictures. Raises DreamboothError
    of many kinds."""
    records = [run.record() for run in runs]
    asked, count = list(prompts) or prompts_of(records[0]), settings.num_images
    seed, rows, grid = int(settings.seed) if settings.seed != "auto" else 0, [], None
    check_folder(project.images, "make room for it: the sheet and the page are written there")
    with keep(project):
        for run in runs:
            source = Source(run.path)
            card = read_source(source)
            texts = yield from fill_prompts(asked, card, source)
            easel = yield from set_up(source, card, settings, texts, 0)
            size = easel.drawing.width, easel.drawing.height
            grid = grid or Grid(len(runs) * len(texts) * count, size, columns=len(texts) * count)
            # no event per picture: they are kept only on the sheet
            yield PhaseStarted(name=f"drawing {len(texts) * count} pictures with run {run.number}")
            row = []
            for text in texts:
                for picture in draw_all(easel.family, text, seed, settings, easel.drawing):
                    grid.add(picture.image, text, f"seed {picture.seed}, run {run.number}")
                    row.append((text, picture.seed, picture.image))
            rows.append(row)
            del easel
        assert grid is not None
        stem = "compare-runs-" + "-".join(str(run.number) for run in runs)
        with disk_errors(project.images):
            path = save_new(grid.sheet, project.images, stem, {"runs": ",".join(str(run.number) for run in runs), "Software": "dreambooth"})
            written = path.with_suffix(".html")
            write_whole(written, page_of(project, runs, records, rows).encode())
        yield GridSaved(path=path)
        yield PageWritten(path=written)


def prompts_of(record: Record) -> list[str]:
    """A run's instance prompt, in PLACES unless it names a place; with the placeholder, so that each run fills in its own word."""
    own = marked(record.prompts.instance, record.prompts.identifier)
    return [own] if names_a_place(record.prompts.class_) else [prompt_with(own, place) for place in PLACES]


def page_of(project: Project, runs: Sequence[Run], records: Sequence[Record], rows: Sequence[Sequence[Any]]) -> str:
    """The page as HTML: a row of pictures for each run, then the settings in which the runs differ."""
    parts = []
    for run, record, row in zip(runs, records, rows, strict=True):
        shown = "".join(
            f'<figure><img src="{data_uri(image, SIDE)}" alt="{escape(f"run {run.number}: {text}")}">'
            f"<figcaption>{escape(text)}, seed {seed}</figcaption></figure>"
            for text, seed, image in row
        )
        told = f"{record.base.name}, {record.plan.method}, {record.asked['train']['steps']} steps"
        parts.append(page.section(f"Run {run.number}", page.paragraph(". ".join(filter(None, [told, record.verdict]))), shown))
    head = ("setting", *(f"run {run.number}" for run in runs))
    parts.append(page.section("What differs", page.table("Settings", head, differences(records))))
    title = f"{project.name}, runs {', '.join(str(run.number) for run in runs)}"
    return page.page(title, [page.heading(title, "the same prompts and seeds", "", ()), *parts])


def differences(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """The settings that are not the same in all of these runs, with each run's value."""
    found = []
    for stage in ("subject", "train"):
        for name in sorted({name for record in records for name in record.asked[stage]}):
            values = [str(record.asked[stage].get(name, "")) for record in records]
            if len(set(values)) > 1:
                found.append((name.replace("_", " "), *values))
    return found
