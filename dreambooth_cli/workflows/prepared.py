"""The prepared photos of a project, as they are trained on: each with its caption, its mask and where it was cut from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..photos.crop import Box, Size


@dataclass(frozen=True, kw_only=True)
class PreparedPhoto:
    """A prepared photo: its `path` and sha256, and the name of the photo itself. `caption`: what varies in it, "" for nothing;
    `mask`: the picture that says what of it counts. `size` is the photo's own, upright, of which `box` is kept (None: 0.1 did not keep
    it)."""

    path: Path
    sha256: str
    name: str = ""
    caption: str = ""
    mask: Path | None = None
    mask_sha256: str = ""
    size: Size | None = None
    box: Box | None = None

    @classmethod
    def of_row(cls, folder: Path, row: Mapping[str, Any]) -> "PreparedPhoto":
        """As the row of a report has it, in the prepared folder."""
        mask, size, box = row.get("mask"), row.get("size"), row.get("crop")
        return cls(
            path=folder / row["prepared"],
            sha256=row["sha256"],
            name=row["file"],
            caption=row.get("caption") or "",
            mask=folder / mask if mask else None,
            mask_sha256=row.get("mask_sha256") or "",
            size=(size[0], size[1]) if size else None,
            box=(box[0], box[1], box[2], box[3]) if box else None,
        )

    @property
    def content(self) -> str:
        """What of it shapes the weights: the sha256 of its pixels, and what is beside them."""
        beside = {key: value for key, value in (("caption", self.caption), ("mask", self.mask_sha256)) if value}
        return f"{self.sha256} {json.dumps(beside)}" if beside else self.sha256

    def told(self) -> dict[str, Any]:
        """As plan.json has it."""
        return {
            "file": self.name,
            "sha256": self.sha256,
            "caption": self.caption,
            "mask": self.mask_sha256 or None,
            "size": None if self.size is None else list(self.size),
            "crop": None if self.box is None else list(self.box),
        }
