"""`runs/N/report.html`: everything about a run on one page, made from what the run left on disk."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from ..bases.catalog import find_entry
from ..disk import bytes_in, disk_errors, read_text, write_whole
from ..errors import DreamboothError
from ..judged import read_judged
from ..page import page
from ..page.charts import Curve, chart, smoothed
from ..page.page import Film, Photo
from ..photos.files import printable
from ..photos.picture import data_uri, read_picture, text_of
from ..photos.pixels import read_photo
from ..project import Project
from ..prompts import marked
from ..record import Record
from ..run import Run
from ..settings import AUTO, flag_of
from .prepare import read_report
from .samples import sample_prompts

PHOTO, SAMPLE = 360, 512  # pixels of a picture's longer side on the page
FOLDERS = ("photos", "class_data_dir")  # settings whose folder's name alone is shown, since a page may be passed on
WINDOW = 50  # steps that the loss is smoothed over, at most
WORDS = {"learned": "Learned", "barely": "Barely learned", "copies": "Copies its photos"}
CLASS_WORDS = {"kept": "the class is kept", "drifting": "the class is drifting"}


def write_report(project: Project, run: Run) -> Path:
    """Write the page of a run and return its path. Raises DiskError, ProjectError."""
    with disk_errors(run.report):
        write_whole(run.report, report_of(project, run).encode("utf-8"))
    return run.report


def report_of(project: Project, run: Run) -> str:
    """The page of a run as HTML."""
    record, events = run.record(), list(read_events(run.events))
    films = films_of(run, record)
    title = f"{project.name}, run {run.number}"
    sections = [
        page.heading(title, subtitle(record), verdict_words(record), record.sentences),
        page.section("The photos", page.photos(photos_of(project, record))),
        page.section("Before and after", page.paragraph("Each pair is drawn from the same seed."), page.pairs(films) or no_samples(record)),
        page.section("Samples by step", page.filmstrip(films)),
        page.section("Curves", page.charts(curves_of(events)), *judged_parts(run)),
        page.section("Planned and measured", plan_table(run, record, events)),
        page.section("What to type next", page.commands(next_lines(project, run, record))),
        page.section("Settings", *settings_tables(record)),
        page.section("The base's licence", page.paragraph(licence_of(record))),
    ]
    return page.page(title, sections)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's events.jsonl; one that was cut short is skipped."""
    with suppress(OSError):
        for line in read_text(path).splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event


def subtitle(record: Record) -> str:
    """What was trained, how long and when."""
    entry = find_entry(record.base.name)
    method = "all layers" if record.plan.method == "full" else "LoRA"
    begun = f", {datetime.fromisoformat(record.date):%d %B %Y}" if record.date else ""  # 0.2 did not record it
    return f"{entry.title if entry else record.base.name}, {method}, {record.asked['train']['steps']} steps{begun}"


def verdict_words(record: Record) -> str:
    """The verdict in a few words."""
    return ", ".join(filter(None, [WORDS.get(record.verdict, ""), CLASS_WORDS.get(record.of_class, "")]))


def photos_of(project: Project, record: Record) -> list[Photo]:
    """The photos of a run, with the findings of those that are still in the project's report."""
    prepared = read_report(project.prepared) or {"photos": []}
    found = {row["file"]: row for row in prepared["photos"]}
    rows = [row for row in prepared["photos"] if row["prepared"]] if record.photos is None else record.photos
    return [photo_of(project.photos / row["file"], row, found.get(row["file"], {})) for row in rows]


def photo_of(path: Path, row: Mapping[str, Any], found: Mapping[str, Any]) -> Photo:
    """A photo with the part of it that was trained on, and what was found."""
    picture = ""
    with suppress(DreamboothError, OSError):
        picture = data_uri(read_photo(path, PHOTO).image, PHOTO)
    said = [f'"{row["caption"]}"'] if row.get("caption") else []
    said += ["with a mask"] if row.get("mask") else []
    said += [finding["words"] for finding in found.get("findings", ())]
    box = tuple(row["crop"]) if row.get("crop") else None
    size = (row["size"][0], row["size"][1]) if row.get("size") else None
    return Photo(printable(path.name), picture, size, box, found.get("word", ""), tuple(said))


def films_of(run: Run, record: Record) -> list[Film]:
    """The samples by prompt and step, in the order in which they were drawn."""
    kept: dict[str, dict[int, Path]] = {}
    for path in sorted(run.samples.glob("step-*.png"), key=lambda path: (path.stat().st_mtime, path.name)):
        text = text_of(path)
        if text.get("step", "").isdecimal():
            kept.setdefault(text["prompt"], {})[int(text["step"])] = path
    order = [prompt for prompt in sample_prompts(record.prompts, None) if prompt in kept]
    order += [prompt for prompt in kept if prompt not in order]
    return [
        Film(prompt, {step: data_uri(read_picture(kept[prompt][step]), SAMPLE) for step in sorted(kept[prompt])}) for prompt in order
    ]


def no_samples(record: Record) -> str:
    """A paragraph that says why there are no pairs."""
    return page.paragraph("No samples were drawn." if record.asked["train"].get("sample_every") == 0 else "No pairs of samples were drawn.")


def curves_of(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """The charts of a run."""
    steps = {event["step"]: event for event in events if event.get("event") == "step"}
    fixed = {event["step"]: event for event in events if event.get("event") == "fixed_noise"}
    losses = [(float(step), float(event["loss"])) for step, event in sorted(steps.items())]
    rates = [(float(step), float(event["learning_rate"])) for step, event in sorted(steps.items())]
    of_each = f"mean of {window_of(losses)} steps"
    return [
        chart("Loss", [Curve("each step", losses, faint=True), Curve(of_each, smoothed(losses, window_of(losses)))]),
        chart(
            "Loss of the photos at fixed noise",
            [
                Curve(name, [(float(step), float(event[key])) for step, event in sorted(fixed.items())], marked=True)
                for name, key in (("with the instance prompt", "loss"), ("with the class prompt", "class_loss"))
            ],
        ),
        chart("Learning rate", [Curve("learning rate", rates)]),
    ]


def window_of(losses: Sequence[Any]) -> int:
    """How many steps the loss is smoothed over: fewer in a short run."""
    return max(1, min(WINDOW, len(losses) // 8))


def judged_parts(run: Run) -> list[str]:
    """How good each checkpoint is, if they were judged: the curves, and which one is best and why."""
    judged = read_judged(run.judged)
    if judged is None:
        return []
    curves = [
        Curve(name, [(float(one.step), getattr(one, key)) for one in judged.steps], marked=True)
        for name, key in (("likeness to the subject", "subject"), ("follows the prompt", "prompt"), ("closeness to a photo", "copied"))
    ]
    drawn = chart(f"Each checkpoint, judged by {judged.judge}", curves, at=float(judged.best), at_name="the best")
    return [page.charts([drawn]), page.paragraph(f"The best is {judged.reason}.")]


def plan_table(run: Run, record: Record, events: Sequence[Mapping[str, Any]]) -> str:
    """What was planned or predicted, beside what was measured."""
    plan, measured = record.plan, record.measured
    steps = {event["step"]: event["seconds"] for event in events if event.get("event") == "step"}
    rehearsed = next((event for event in reversed(events) if event.get("event") == "rehearsed"), None)
    memory = "the GPU's memory" if plan.device == "cuda" else "the machine's memory"
    rows = [(memory, gigabytes(measured.planned), gigabytes(measured.bytes))] if measured else []
    if steps:
        predicted = (seconds(rehearsed["step_seconds"]), seconds(rehearsed["expected"])) if rehearsed else ("not rehearsed",) * 2
        rows.append(("a step", predicted[0], f"{seconds(median(steps.values()))} (median)"))
        rows.append(("the run", predicted[1], f"{seconds(sum(steps.values()))}, its steps only"))
    rows.append(("disk", f"{gigabytes(sum(plan.disk.values()))} at most", gigabytes(bytes_in(run.path))))
    means = ", ".join(plan.means) or "none needed"
    said = page.paragraph(f"{plan.why[:1].upper()}{plan.why[1:]}. Ways of saving memory: {means}.")
    return said + page.table("Memory, time and disk", ("what", "planned", "measured"), rows)


def settings_tables(record: Record) -> list[str]:
    """Tables of the settings that were given, and of all settings, each with where it came from."""
    rows = [
        (flag_of(name), shown(record, name, value), record.sources.get(stage, {}).get(name, "default"))
        for stage in ("subject", "prep", "train")
        for name, value in record.asked[stage].items()
    ]
    given, head = [row for row in rows if row[2] != "default"], ("setting", "value", "from")
    return [page.table("Given", head, given), page.folded("All settings", page.table("All", head, rows))]


def shown(record: Record, name: str, value: Any) -> str:
    """A setting's value; for one that was left at `auto`, what it became."""
    if name in FOLDERS and value:
        return Path(value).name
    came_to = getattr(record.plan, name, None) if value == AUTO else None
    if name == "identifier" and value == AUTO:
        came_to = record.prompts.identifier
    words = {True: "yes", False: "no", None: "–"}.get(value, str(value)) if isinstance(value, bool | None) else str(value)
    return words if came_to is None else f"auto: {shown(record, '', came_to)}"


def next_lines(project: Project, run: Run, record: Record) -> list[tuple[str, str]]:
    """What to type next: each command after the words that say what it is for."""
    line = generate_line(project, run)
    steps = int(record.asked["train"]["steps"])
    further = "Train longer, if it has not learned enough:" if record.verdict != "copies" else "Train for fewer steps, since it copies:"
    other = 2 * steps if record.verdict != "copies" else max(1, steps // 2)
    return [
        ("Draw a picture, in the sentence that was trained:", line),
        ("Draw four of them on one sheet:", f"{line} --num-images 4 --grid"),
        (further, f"dreambooth train {project.name} --steps {other}"),
    ]


def generate_line(project: Project, run: Run) -> str:
    """The command that draws with a run: in the sentence that was trained, in a new place."""
    record = run.record()
    prompt = marked(sample_prompts(record.prompts, None)[-1], record.prompts.identifier)
    if prompt == record.prompts.class_:
        prompt = marked(record.prompts.instance, record.prompts.identifier)
    newest = next((one for one in reversed(project.runs()) if one.is_finished), run)
    which = "" if newest == run else f" --run {run.number}"
    return f"dreambooth generate {project.name} {quoted(prompt)}{which}"


def quoted(prompt: str) -> str:
    """A prompt quoted for the shell: in double quotes if they are enough."""
    return shlex.quote(prompt) if set(prompt) & set('"$`\\!') else f'"{prompt}"'


def licence_of(record: Record) -> str:
    """The licence of the base in a sentence."""
    entry = find_entry(record.base.repository or record.base.name) or find_entry(record.base.name)
    if entry is None:
        return f"The licence of {record.base.name} is not known here: look it up before you share what was trained from it."
    terms = "models trained from it stay under its terms, so read them before you share yours"
    return f"The licence of {entry.title} is {entry.licence}; {terms}."


def gigabytes(count: float) -> str:
    """`4.31 GB`, `12 MB`."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def seconds(count: float) -> str:
    """`0.25 s`, `45 s`, `12 min`."""
    if count < 90:
        return f"{count:.2f} s" if count < 10 else f"{count:.0f} s"
    return f"{count / 60:.0f} min" if count < 5400 else f"{count / 3600:.1f} h"
