"""The page of a run as HTML: its sections, and the whole of it. Text is escaped here; pictures are data URIs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from .. import __version__

TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Photo:
    """A photo: its name, the whole picture as a data URI ("" if the file is gone), its size in pixels (width, height), the part that is
    kept (left, top, right, bottom), a word that sums it up ("good"), and what was found, in sentences."""

    name: str
    picture: str
    size: tuple[int, int] | None
    box: tuple[int, ...] | None
    word: str
    said: tuple[str, ...]


@dataclass(frozen=True)
class Film:
    """One prompt's pictures during training, all from one seed: step (0: the base model) -> data URI."""

    prompt: str
    frames: Mapping[int, str]


def page(title: str, parts: Sequence[str]) -> str:
    """The whole page from its sections."""
    whole = Template(TEMPLATE.read_text(encoding="utf-8"))
    return whole.substitute(title=escape(title), version=__version__, body="\n".join(filter(None, parts)))


def heading(title: str, subtitle: str, verdict: str, sentences: Sequence[str]) -> str:
    """The page's title, and the verdict on the run with its sentences, if there is one."""
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    told = f'<div class="verdict"><p><strong>{escape(verdict)}</strong></p>{said}</div>' if verdict else ""
    return f'<h1>{escape(title)}</h1><p class="faint">{escape(subtitle)}</p>{told}'


def section(title: str, *parts: str) -> str:
    """A section with its heading; "" if there is nothing in it."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>" if text else ""


def photos(shown: Sequence[Photo]) -> str:
    """The photos, each with the part that is kept and what was found."""
    return f'<ul class="photos">{"".join(map(_photo, shown))}</ul>' if shown else ""


def pairs(films: Sequence[Film]) -> str:
    """For each prompt, what the base drew and what the finished model draws."""
    found = [film for film in films if 0 in film.frames and len(film.frames) > 1]
    return f'<ul class="pairs">{"".join(map(_pair, found))}</ul>' if found else ""


def filmstrip(films: Sequence[Film]) -> str:
    """Each prompt's pictures by step, with one slider for all prompts. "" if there are fewer than two steps; a prompt that lacks one of
    the steps is left out."""
    steps = sorted({step for film in films for step in film.frames})
    whole = [film for film in films if list(film.frames) == steps]
    if len(steps) < 2 or not whole:
        return ""
    names = escape(json.dumps([_step_name(step) for step in steps]))
    slider = (
        f'<div class="slider"><label for="step">Step</label><input type="range" id="step" min="0" max="{len(steps) - 1}" '
        f'value="{len(steps) - 1}" data-names="{names}"><output id="step-name" for="step">{_step_name(steps[-1])}</output></div>'
    )
    return f'{slider}<ul class="films">{"".join(map(_film, whole))}</ul>'


def charts(drawn: Sequence[str]) -> str:
    """Charts side by side."""
    shown = "".join(drawn)
    return f'<div class="charts">{shown}</div>' if shown else ""


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a caption; the first cell of each row is a heading. "" if there are no rows."""
    if not rows:
        return ""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    label = escape(caption)
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table><caption>{label}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, body: str) -> str:
    """Something that is only shown once it is opened."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>" if body else ""


def commands(lines: Sequence[tuple[str, str]]) -> str:
    """Commands to type, each below the words that say what it is for."""
    return "".join(f"<p>{escape(why)}</p><pre><code>{escape(line)}</code></pre>" for why, line in lines)


def _photo(photo: Photo) -> str:
    said = "".join(f"<br>{escape(words)}" for words in photo.said)
    word = f": {escape(photo.word)}" if photo.word else ""
    kept = "; the dashed frame shows the part that was trained on" if photo.box else ""
    alt = escape(f"The photo {photo.name}{kept}")
    picture = f'<span class="photo"><img src="{photo.picture}" alt="{alt}">{_box(photo)}</span>'
    picture = picture if photo.picture else "<p>no longer there</p>"
    return f"<li><figure>{picture}<figcaption><strong>{escape(photo.name)}</strong>{word}{said}</figcaption></figure></li>"


def _box(photo: Photo) -> str:
    if photo.box is None or photo.size is None:
        return ""
    (width, height), (left, top, right, bottom) = photo.size, photo.box
    style = ";".join(
        f"{side}:{100 * share:.2f}%"
        for side, share in (
            ("left", left / width),
            ("top", top / height),
            ("width", (right - left) / width),
            ("height", (bottom - top) / height),
        )
    )
    return f'<span class="box" style="{style}"></span>'


def _pair(film: Film) -> str:
    last, prompt = max(film.frames), escape(film.prompt)
    before = f'<figure><img src="{film.frames[0]}" alt="{prompt}, drawn by the base model"><figcaption>before</figcaption></figure>'
    after = f'<figure><img src="{film.frames[last]}" alt="{prompt}, drawn after step {last}"><figcaption>after</figcaption></figure>'
    return f'<li><div class="pair">{before}{after}</div><p>{prompt}</p></li>'


def _film(film: Film) -> str:
    frames = "".join(
        f'<li><img src="{picture}" alt="{escape(film.prompt)}, {_step_name(step)}"></li>' for step, picture in film.frames.items()
    )
    last = max(film.frames)
    large = f'<img class="large" src="{film.frames[last]}" alt="{escape(film.prompt)}, {_step_name(last)}">'
    return f'<li class="film"><p>{escape(film.prompt)}</p>{large}<ol class="strip">{frames}</ol></li>'


def _step_name(step: int) -> str:
    return f"step {step}" if step else "before training"
