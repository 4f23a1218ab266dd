"""What the photos of a set have in common: the colours of their subject, and those of the places behind it.

A subject's colours are those that all the photos show where something stands out, a background's those that each shows elsewhere. So
the other photos tell where the subject lies in one, whatever else stands out there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .measures import Floats, Measures

BINS = (6, 14, 14)  # of light and of the two colours
REACH = 56  # of the two colours, beyond which is the last bin
RIM = 0.5  # of the way from the middle to the edge, from which on a place is background
VIEW = 16  # places a side of a subject's picture
SURE, TOUCHING_SURE = 0.4, 0.3  # of what is surest: the subject's places, and those that may touch an edge
EDGE, DEEP = 2, 4  # places: an edge itself, and the rims that show what lies round a subject that is cut off there
LEAST_AT_EDGE = 0.05  # of what is likely subject, by its own length: where an edge has less, nothing is cut off


@dataclass(frozen=True, eq=False)
class Common:
    """Of each photo [photos]: how like the others its subject is (`likeness`, 0 to 1), how long a part of an edge the subject touches,
    by the subject's own length (`touching`), which edge that is (`edge`) and whether from corner to corner, as ground of its colours does
    (`ground`), and the share of the photo that is likely subject (`area`);
    of each two [photos, photos] how alike their backgrounds are (`places`, 0 to 1) and, by correlation, the pictures of their subjects
    (`views`); how varied a background is (`variety`, LAB)."""

    likeness: Floats
    touching: Floats
    edge: list[str]
    ground: list[bool]
    area: Floats
    places: Floats
    views: Floats
    variety: Floats


def in_common(measured: Sequence[Measures], sound: Sequence[bool]) -> Common:
    """Hold the photos of a set against each other; only those that are `sound` say what is common."""
    bins = [_bins(one.colours) for one in measured]
    # squared, so that the surest places count and the many faint ones do not
    subject = np.stack([_histogram(where, one.weight**2) for where, one in zip(bins, measured, strict=True)])
    aside = [np.clip(1 - one.weight / max(float(np.percentile(one.weight, 90)), 1e-12), 0, 1) for one in measured]
    behind = np.stack([_histogram(where, weight) for where, weight in zip(bins, aside, strict=True)])
    count = len(measured)
    roots = np.sqrt(subject)
    others = ~np.eye(count, dtype=bool) & np.array(sound)
    # where no other photo is sound, each stands for itself
    others[~others.any(axis=1)] = np.eye(count, dtype=bool)[~others.any(axis=1)]
    parts = others / others.sum(axis=1, keepdims=True)
    shared = (parts @ roots) ** 2
    elsewhere = (behind + parts @ behind) / 2
    likely = [_likely(where, shared[each], elsewhere[each]) for each, where in enumerate(bins)]
    shapes = [_shape(one) for one in likely]
    touches = [_cut_off(where, shared[each], behind[each], parts[each] @ behind) for each, where in enumerate(bins)]
    alike = roots @ roots.T
    rims = [_rim(one) * weight for one, weight in zip(likely, aside, strict=True)]
    grounds = np.sqrt(np.stack([_histogram(where, rim) for where, rim in zip(bins, rims, strict=True)]))
    views = np.stack([_view(one.colours[..., 0], shape) for one, shape in zip(measured, shapes, strict=True)])
    return Common(
        likeness=np.array([np.median(row[keep]) for row, keep in zip(alike, others, strict=True)]),
        touching=np.array([value for value, _, _ in touches]),
        edge=[edge for _, edge, _ in touches],
        ground=[is_ground for _, _, is_ground in touches],
        area=np.array([float(shape.mean()) for shape in shapes]),
        places=grounds @ grounds.T,
        views=views @ views.T,
        variety=np.array([_variety(one.colours, rim) for one, rim in zip(measured, rims, strict=True)]),
    )


def _bins(colours: Floats) -> Floats:
    """The bin of each place's colour."""
    scaled = np.stack([colours[..., 0] / 100, (colours[..., 1] + REACH) / (2 * REACH), (colours[..., 2] + REACH) / (2 * REACH)])
    light, first, second = (np.clip(part * count, 0, count - 1).astype(int) for part, count in zip(scaled, BINS, strict=True))
    return (light * BINS[1] + first) * BINS[2] + second


def _histogram(bins: Floats, weight: Floats) -> Floats:
    """The share of the weight in each bin, spread a little over its neighbours."""
    shares: Floats = np.bincount(bins.ravel(), weights=weight.ravel(), minlength=int(np.prod(BINS))).reshape(BINS)
    for axis in range(3):
        padded = np.pad(shares, [(1, 1) if each == axis else (0, 0) for each in range(3)], mode="edge")
        low, middle, high = (np.take(padded, range(start, start + BINS[axis]), axis) for start in range(3))
        shares = low / 4 + middle / 2 + high / 4
    return shares.ravel() / max(float(shares.sum()), 1e-12)


def _likely(bins: Floats, subject: Floats, elsewhere: Floats) -> Floats:
    """How likely each place is subject, 0 to 1, by the shares that its colour has in the subject and elsewhere."""
    return _smooth((subject / (subject + elsewhere + 1e-4))[bins])


def _smooth(values: Floats) -> Floats:
    """The mean of each place and its eight neighbours."""
    rows, columns = values.shape
    padded = np.pad(values, 1, mode="edge")
    return sum(padded[down : down + rows, across : across + columns] for down in range(3) for across in range(3)) / 9


def _shape(likely: Floats, least: float = SURE) -> Floats:
    """The places of the subject, bool: its largest part that hangs together, and what lies between two places of that. `least` is how
    sure they are, beside the surest."""
    sure = likely**4
    sure = sure / max(float(np.percentile(sure, 97)), 0.05)
    there = sure >= least
    part = _largest_part(there, np.minimum(sure, 1)) & there
    return _between(part) | _between(part.T).T


def _largest_part(there: Floats, weight: Floats) -> Floats:
    """Of the places that hang together, gaps of one place aside, those with the most weight."""
    left = set(map(tuple, np.argwhere(_grown(there)).tolist()))
    values = (weight * there).tolist()
    best, most = np.zeros_like(there), 0.0
    while left:
        part, found = [left.pop()], 0.0
        for row, column in part:  # which grows meanwhile
            found += values[row][column]
            near = left & {(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}
            left -= near
            part += near
        if found > most:
            best, most = np.zeros_like(there), found
            best[tuple(np.array(part).T)] = True
    return best


def _grown(part: Floats) -> Floats:
    """The same places and their neighbours."""
    padded = np.pad(part, 1)
    return padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


def _between(part: Floats) -> Floats:
    """In each row all places from the first to the last."""
    return np.logical_or.accumulate(part, axis=1) & np.logical_or.accumulate(part[:, ::-1], axis=1)[:, ::-1]


def _cut_off(bins: Floats, shared: Floats, own: Floats, others: Floats) -> tuple[float, str, bool]:
    """How long a part of one edge the subject touches, by the subject's own length, which edge that is, and whether all of it is touched.

    At an edge that cuts the subject off its colours lie along the rim too: what is background there, the other three edges tell. The
    length is the mean (geometric) of two: of the places that are taken for subject, and of how likely all places are it. What goes from
    corner to corner may be the ground it stands on: then only the likely counts.
    """
    most = 0.0, "", False
    for edge, turned in {"left side": bins.T, "right side": bins.T[::-1], "top": bins, "bottom": bins[::-1]}.items():
        rim = np.zeros(turned.shape)
        rim[-DEEP:] = rim[:, :DEEP] = rim[:, -DEEP:] = 1
        rim[:DEEP] = 0
        likely = _likely(turned, shared, ((_histogram(turned, rim) + own) / 2 + others) / 2)
        at_edge = _at_edge(likely**4)
        if at_edge > LEAST_AT_EDGE:
            part = _shape(likely, TOUCHING_SURE)
            is_ground = bool(part[0, 0] and part[0, -1])
            most = max(most, (at_edge if is_ground else float(np.sqrt(at_edge * _at_edge(part))), edge, is_ground))
    return most


def _at_edge(weight: Floats) -> float:
    """How much of a weight lies along the first rows, by its own length."""
    return float(weight[:EDGE].mean(axis=0).sum() / max(np.sqrt(weight.sum()), 1e-6))


def _view(light: Floats, shape: Floats) -> Floats:
    """The light of the box round a shape, without its mean and its contrast."""
    down, across = (np.flatnonzero(shape.any(axis=axis)) for axis in (1, 0))
    box = (across[0], down[0], across[-1] + 1, down[-1] + 1) if len(down) else None
    values = np.asarray(Image.fromarray(np.float32(light)).resize((VIEW, VIEW), Image.Resampling.BILINEAR, box=box)).ravel()
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-3)


def _rim(likely: Floats) -> Floats:
    """Where the background lies: away from the middle, and unlike the subject."""
    rows, columns = (np.abs(np.linspace(-1, 1, length)) for length in likely.shape)
    return np.clip(1 - 2 * likely, 0, 1) * (np.maximum(rows[:, None], columns[None]) > RIM)


def _variety(colours: Floats, weight: Floats) -> float:
    """How far the colours of a weighted part lie from their mean, in LAB."""
    shares = weight / max(float(weight.sum()), 1e-12)
    mean = (colours * shares[..., None]).sum(axis=(0, 1))
    return float(np.sqrt((((colours - mean) ** 2).sum(axis=2) * shares).sum()))
