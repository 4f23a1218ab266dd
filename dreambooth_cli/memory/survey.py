"""Which base models a GPU can train, and how: the rows of `dreambooth models`. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..bases.base import ask_for_base
from ..bases.cache import find_cached
from ..bases.catalog import CATALOG, BaseFacts, CatalogEntry, find_entry
from ..errors import DreamboothError, ModelUnavailable
from ..gpu import Gpu
from ..machine import cores_allowed, machine_memory
from .duration import CPU_TFLOPS, tflop_of
from .plan import NEED_8BIT, Plan, job_of
from .search import make_plan

NO_GPU_VERDICT = "no GPU: hours or days"
NO_GPU = "Without a GPU, a full-size model takes hours or days to train.\nThe demo shows every step in minutes, on any machine."
SLOW = 3.0  # seconds; a step under this needs no warning


@dataclass(frozen=True, kw_only=True)
class Row:
    """One base model on one GPU. `means` are the plan's, each with a note if it needs an extra; `verdict` is a few words."""

    entry: CatalogEntry
    plan: Plan
    means: tuple[str, ...]
    verdict: str
    on_disk: bool

    def to_json(self) -> dict[str, Any]:
        """The row as `models --json` shows it."""
        entry = self.entry
        return {
            "name": entry.name,
            "repository": entry.repository,
            "family": entry.facts.family.name,
            "resolution": entry.facts.resolution,
            "recommended_gb": entry.recommended_gb,
            "licence": entry.licence,
            "on_disk": self.on_disk,
            "plan": {
                "method": self.plan.method,
                "train_text_encoder": self.plan.train_text_encoder,
                "means": list(self.means),
                "predicted_gb": round(self.plan.needed / 1e9, 1),
                "ram_gb": round(self.plan.ram_needed / 1e9, 1),
                "fits": self.plan.fits,
                "why": self.plan.why,
            },
        }

    @property
    def takes(self) -> str:
        """How much memory a run would take, and by which means: `10.8 GB: full + text encoder, 8-bit Adam`."""
        method = "full" if self.plan.method == "full" else "LoRA"
        text = " + text encoder" if self.plan.train_text_encoder else ""
        needed = self.plan.ram_needed if self.plan.device == "cpu" else self.plan.needed
        return f"{needed / 1e9:.1f} GB: {', '.join([method + text, *self.means])}"


def survey(gpu: Gpu | None, *, has_8bit: bool | None = None) -> list[Row]:
    """A row for each base model in the catalogue, with the plan that a run without further flags would have.

    The plans assume the 8-bit extra, since it can be installed. `has_8bit` says whether it is installed (None: looked up); if it is not, a
    row that needs it says so.
    """
    installed = find_spec("bitsandbytes") is not None if has_8bit is None else has_8bit
    return [_row(entry, gpu, installed) for entry in CATALOG]


def row_of(name: str, gpu: Gpu | None, *, has_8bit: bool | None = None) -> Row:
    """The row of one base model. Raises ModelUnavailable if the catalogue does not have it."""
    entry = find_entry(name)
    if entry is None:
        names = ", ".join(entry.name for entry in CATALOG)
        raise ModelUnavailable(f"the catalogue has no base model {name!r}", f"it has: {names}")
    return next(row for row in survey(gpu, has_8bit=has_8bit) if row.entry == entry)


def recommended(rows: Sequence[Row]) -> Row:
    """The row that the interview preselects: the first in the catalogue's order that fits."""
    return next((row for row in rows if row.plan.fits and row.entry.repository), rows[0])


def to_json(rows: Sequence[Row], gpu: Gpu | None) -> dict[str, Any]:
    """The JSON document of `models --json`."""
    return {"gpu": gpu.to_json() if gpu else None, "models": [row.to_json() for row in rows]}


def details(row: Row) -> dict[str, str]:
    """One model in full, for `models NAME`: label -> text, in the order in which they are shown; empty ones are left out."""
    entry, plan = row.entry, row.plan
    parts = [
        f"{entry.facts.family.denoiser_title} {_millions(entry.facts.denoiser)}",
        f"text {' + '.join(map(_millions, entry.facts.text_encoders))}",
        f"VAE {_millions(entry.facts.vae)}",
    ]
    found = {
        "model": entry.title,
        "good for": entry.good_for,
        "repository": f"{entry.repository} (revision {entry.revision[:12]})" if entry.repository else "",
        "also called": ", ".join(entry.aliases),
        "licence": entry.licence,
        "access": _access(entry),
        "draws in a few steps with": entry.twin or "",
        "sources": entry.sources,
        "resolution": f"{entry.facts.resolution} px",
        "parameters": ", ".join(parts),
        "download": _download(row),
        "recommended memory": f"{entry.recommended_gb} GB" if entry.recommended_gb else "no GPU needed",
        "verdict": row.verdict,
        "plan": plan.why,
        "machine's memory": f"{plan.ram_needed / 1e9:.1f} GB of {machine_memory() / 1e9:.1f} GB",
        "what would fit": plan.remedy,
    }
    return {what: words for what, words in found.items() if words}


def ledger_lines(ledger: Mapping[str, int]) -> list[tuple[str, str]]:
    """A plan's ledger as (group, GB), the peaks last, for `models NAME` and `train --dry-run`."""
    return [(group, f"{count / 1e9:.2f} GB") for group, count in ledger.items()]


def slow_step_note(facts: BaseFacts, resolution: int, rows: int, *, cores: int | None = None) -> str | None:
    """A sentence on how long a step may take without a GPU; None if it takes less than SLOW seconds. A prediction, not a measurement.

    `rows` is how many rows go through the denoiser in one step; `cores` is the number of the processor's cores (None: looked up).
    """
    cores = cores or cores_allowed()
    seconds = tflop_of(facts, resolution) * rows / (CPU_TFLOPS["fp32"] * cores)
    if seconds < SLOW:
        return None
    return (
        f"there is no GPU: a step of this base at {resolution} px may take about {_duration(seconds)} on {cores} "
        f"core{'s' if cores > 1 else ''} (predicted, not measured); training goes on"
    )


def _row(entry: CatalogEntry, gpu: Gpu | None, installed: bool) -> Row:
    plan = make_plan(job_of(entry, gpu, has_8bit=True))
    lacks = " (needs the 8bit extra)" if not installed else ""
    means = tuple(each + lacks if each in NEED_8BIT else each for each in plan.means)
    return Row(entry=entry, plan=plan, means=means, verdict=_verdict(entry, plan), on_disk=_is_on_disk(entry))


def _is_on_disk(entry: CatalogEntry) -> bool:
    try:
        return entry.folder is not None or find_cached(ask_for_base(entry.name)) is not None
    except (OSError, DreamboothError):  # a copy that is damaged or can't be read is as good as none
        return False


def _download(row: Row) -> str:
    if row.entry.folder is not None:
        return "none: it comes with dreambooth"
    return f"{row.entry.download_gb} GB" + (", on disk already" if row.on_disk else "")


def _access(entry: CatalogEntry) -> str:
    """For a base whose owner may ask for consent: which page to open and which button to press."""
    if not entry.gate:
        return ""
    page = f"https://huggingface.co/{entry.repository}"
    return f"{entry.gate}; if it is, log in at {page}, press Agree and access repository, then run: hf auth login"


def _verdict(entry: CatalogEntry, plan: Plan) -> str:
    if entry.folder is not None:
        return "runs anywhere"
    if not plan.fits:
        return "does not fit"
    if plan.device == "cpu":
        return NO_GPU_VERDICT
    return "fits" if plan.method == "full" else "fits as LoRA"


def _millions(count: int) -> str:
    return f"{count / 1e6:.0f} M"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
