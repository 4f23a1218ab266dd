"""Curves as SVG. Dashes, marks and names tell them apart, never colour alone; the colours themselves come from the page."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 210  # SVG units: pixels on a narrow screen, more on a wide one
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 34  # margins, in the same units
MOST_POINTS = 400  # of a curve: more than this can't be seen
DASHES = ("", "6 3", "2 3")
Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """One curve: its name and its points, sorted by x. `faint`: raw values, drawn behind the others; `marked`: each point gets a mark."""

    name: str
    points: Sequence[Point]
    faint: bool = False
    marked: bool = False


def chart(title: str, curves: Sequence[Curve], *, at: float | None = None, at_name: str = "") -> str:
    """Curves over steps as one SVG with a legend, as HTML; "" if there is nothing to draw. `at`: a step to mark, named `at_name`."""
    # faint ones last: the others get the first numbers, which choose dashes and marks
    curves = sorted((curve for curve in curves if curve.points), key=lambda curve: curve.faint)
    if not curves:
        return ""
    low, high = _range([y for curve in curves for _, y in curve.points])
    last = max(x for curve in curves for x, _ in curve.points) or 1.0

    def place(point: Point) -> Point:
        x, y = point
        across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + across * x / last, TOP + up * (high - y) / (high - low)

    parts = _axes(low, high, last)
    if at is not None:
        x = place((at, low))[0]
        parts.append(f'<line class="at" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>')
    drawn = [_drawn(curve, [place(point) for point in _thinned(curve.points)], number) for number, curve in enumerate(curves)]
    parts += [part for one in reversed(drawn) for part in one]  # faint ones first: they lie behind
    said = "; ".join(_summary(curve) for curve in curves)
    legend = "".join(_key(curve, number) for number, curve in enumerate(curves)) if len(curves) > 1 else ""
    marked = f'<li><span class="key at" aria-hidden="true"></span>{escape(at_name)}</li>' if at is not None else ""
    keys = f'<ul class="legend">{legend}{marked}</ul>' if legend or marked else ""
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}: {said}")}">{"".join(parts)}</svg>'
    return f'<figure class="chart"><h3>{escape(title)}</h3>{svg}{keys}</figure>'


def smoothed(points: Sequence[Point], window: int) -> list[Point]:
    """The points with each y replaced by the mean of the last `window` values, or of as many as there are."""
    found: list[Point] = []
    total = 0.0
    for number, (x, y) in enumerate(points):
        total += y - (points[number - window][1] if number >= window else 0.0)
        found.append((x, total / min(number + 1, window)))
    return found


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    every = math.ceil(len(points) / MOST_POINTS)
    return points if every == 1 else [*points[:-1:every], points[-1]]


def _range(values: Iterable[float]) -> Point:
    """The lowest and highest value of the axis. Both are ticks; the axis starts at zero if the values come near enough."""
    found = list(values)
    low, high = min(found), max(found)
    if low > 0 and low < 0.5 * high:
        low = 0.0
    if high == low:
        high = low + (abs(low) or 1.0)
    step = _step(high - low)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _step(span: float) -> float:
    """The distance between ticks: 1, 2 or 5 times a power of ten, so that there are three to six of them."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(step * power for step in (1, 2, 5, 10) if step * power * 5 >= span)


def _ticks(low: float, high: float) -> list[float]:
    step = _step(high - low)
    return [low + step * number for number in range(round((high - low) / step) + 1)]


def _axes(low: float, high: float, last: float) -> list[str]:
    parts = []
    for value in _ticks(low, high):
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for part in (0.0, 0.5, 1.0):
        x, anchor = LEFT + (WIDTH - LEFT - RIGHT) * part, ("start", "middle", "end")[round(2 * part)]
        name = f"step {round(last * part)}" if part else "0"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="{anchor}">{name}</text>')
    return parts


def _drawn(curve: Curve, points: Sequence[Point], number: int) -> list[str]:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    kind = "faint-line" if curve.faint else f"curve c{number % 3}"
    dash = f' stroke-dasharray="{DASHES[number % 3]}"' if DASHES[number % 3] and not curve.faint else ""
    parts = [f'<polyline class="{kind}" points="{line}"{dash}/>']
    if curve.marked or len(points) == 1:
        parts += [_mark(x, y, number) for x, y in points]
    return parts


def _mark(x: float, y: float, number: int) -> str:
    """A circle, a square or a triangle, by the curve's number."""
    kind = f'class="mark c{number % 3}"'
    if number % 3 == 0:
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    if number % 3 == 1:
        return f'<rect {kind} x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'
    return f'<path {kind} d="M{x:.1f} {y - 4:.1f}l4 7h-8z"/>'


def _key(curve: Curve, number: int) -> str:
    sample = "".join(_drawn(Curve("", (), curve.faint, curve.marked), [(1.0, 6.0), (14.0, 6.0), (27.0, 6.0)], number))
    return f'<li><svg class="key" viewBox="0 0 28 12" aria-hidden="true">{sample}</svg>{escape(curve.name)}</li>'


def _summary(curve: Curve) -> str:
    (first, begins), (last, ends) = curve.points[0], curve.points[-1]
    return f"{curve.name} from {begins:.4g} at step {first:g} to {ends:.4g} at step {last:g}"
