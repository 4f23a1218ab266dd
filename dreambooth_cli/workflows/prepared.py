"""The prepared photos of a project, as they are trained on: each with its caption, its mask, and where it was cut from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..photos.crop import Box, Size
from ..photos.pixels import former_digest


@dataclass(frozen=True, kw_only=True)
class PreparedPhoto:
    """A prepared photo: its `path`, the sha256 of that file and of its pixels, and the original photo's file name. `caption`: what is
    particular to it, or ""; `mask`: the picture that says which part of it counts. In pixels: `size` of the upright original, of which
    `box` is kept and resized to `into` (None for all three: not recorded)."""

    path: Path
    sha256: str
    pixels_sha256: str = ""
    name: str = ""
    caption: str = ""
    mask: Path | None = None
    mask_sha256: str = ""
    size: Size | None = None
    box: Box | None = None
    into: Size | None = None

    @classmethod
    def of_row(cls, folder: Path, row: Mapping[str, Any]) -> "PreparedPhoto":
        """From a row of the report, in the prepared folder."""
        mask, size, box, into = (row.get(key) for key in ("mask", "size", "crop", "into"))
        return cls(
            path=folder / row["prepared"],
            sha256=row["sha256"],
            pixels_sha256=row.get("pixels_sha256") or "",
            name=row["file"],
            caption=row.get("caption") or "",
            mask=folder / mask if mask else None,
            mask_sha256=row.get("mask_sha256") or "",
            size=(size[0], size[1]) if size else None,
            box=(box[0], box[1], box[2], box[3]) if box else None,
            into=(into[0], into[1]) if into else None,
        )

    @property
    def content(self) -> str:
        """What shapes the weights: the sha256 of its pixels, with its caption and mask if it has any."""
        return self._with_beside(self.pixels_sha256 or self.sha256)

    @property
    def former_content(self) -> str:
        """The same as versions up to 0.2 recorded it: by the sha256 of the file that they wrote."""
        return self._with_beside(former_digest(self.path))

    def _with_beside(self, digest: str) -> str:
        beside = {key: value for key, value in (("caption", self.caption), ("mask", self.mask_sha256)) if value}
        return f"{digest} {json.dumps(beside)}" if beside else digest

    @property
    def pixels(self) -> int:
        """The number of pixels of its picture; 0 if not known."""
        return self.into[0] * self.into[1] if self.into else 0

    def sizes(self, *, mirrored: bool = False) -> tuple[int, ...]:
        """What SDXL is told about it (Podell et al. 2023, section 2.2), in pixels: height and width of the whole photo before it was
        resized, top and left of the part cut out of the resized photo, height and width of that part. A border that made a photo square
        counts as part of it. Empty if the sizes are not known."""
        if self.size is None or self.box is None or self.into is None:
            return ()
        left, top, right, bottom = self.box
        low, high = (min(0, left), min(0, top)), (max(self.size[0], right), max(self.size[1], bottom))
        if mirrored:
            left = high[0] + low[0] - right
        across, down = self.into[0] / (self.box[2] - self.box[0]), self.into[1] / (bottom - top)
        corner = round((top - low[1]) * down), round((left - low[0]) * across)
        return (high[1] - low[1], high[0] - low[0], *corner, self.into[1], self.into[0])

    def public(self) -> dict[str, Any]:
        """What a model's card may say about it."""
        return {"caption": self.caption, "mask": self.mask is not None, "size": None if self.into is None else list(self.into)}

    def told(self) -> dict[str, Any]:
        """What plan.json says about it."""
        return {
            "file": self.name,
            "sha256": self.sha256,
            "caption": self.caption,
            "mask": self.mask_sha256 or None,
            "size": None if self.size is None else list(self.size),
            "crop": None if self.box is None else list(self.box),
            "into": None if self.into is None else list(self.into),
        }
