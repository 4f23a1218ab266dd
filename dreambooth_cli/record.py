"""plan.json, the record of a run: what was asked, what the run is made of, how it is done, and what changed on its way."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .memory.plan import Plan
from .schemas import SCHEMA, check_values
from .settings import TrainSettings
from .verdict import Verdict

STAGES = ("subject", "prep", "train")
PLAIN = ("id", "date", "digest", "shape", "asked", "sources", "began", "verdict", "of_class", "figures")  # of a record, as JSON has them


@dataclass(frozen=True, kw_only=True)
class BaseRecord:
    """Which base a model was made from: enough to find it again. `identity`: its hub revision, or `sha256:...` of its files; for a base
    that comes with this package, `path` is its name."""

    name: str
    repository: str | None
    path: str | None
    identity: str


@dataclass(frozen=True)
class Prompts:
    """The identifier and the prompts that a run trains on: that of the photos, the same in other frames, that of the class images, and the
    places that may be added."""

    identifier: str
    instance: str
    class_: str
    instance_frames: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Prompts":
        """From JSON that was checked."""
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in _known(cls, values).items()
        }
        return cls(**known)


@dataclass(frozen=True)
class Continued:
    """A finished run whose weights another starts from: its number, its id, and its number of steps."""

    number: int
    id: str
    steps: int


@dataclass(frozen=True)
class Change:
    """A run continues under another plan from a step on: why, by kind (0.1 recorded none) and in words, and the JSON of the plan before."""

    step: int
    kind: str = ""
    what: str = ""
    before: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Change":
        """A change that `written` gave. Raises ValueError."""
        told = {"before": values["from"]} if "from" in values else {}
        check_values(cls, {**values, **told})
        return cls(**_known(cls, values), **told)

    def written(self) -> dict[str, Any]:
        """As plan.json holds it."""
        return {"step": self.step, "kind": self.kind, "what": self.what, "from": self.before}


@dataclass(frozen=True)
class Measured:
    """What the process held after a step, and what the plan had predicted, in bytes."""

    step: int
    bytes: int
    planned: int


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a run's plan.json holds.

    `id`: the run's own, which its checkpoints and its model's card name. `date`: when it began, in ISO 8601 ("": begun by 0.2 or earlier).
    `digest`: identifies what shapes its weights, which is in `shape` in full (None: begun by 0.1). `asked`: the settings by stage, as
    asked for; `sources`: where each that is not a default came from. `photos`: for each, its name, caption, mask and the part that is kept
    (None: begun by 0.2 or earlier). `continues`: the run whose weights it starts from, if any. `began`: the circumstances in which it
    began: versions, processor, class images. `verdict` and `of_class`: the verdict in words, `sentences`: in full, `figures`: what it is
    based on (all empty: not finished, or finished by 0.2). `further`: whatever a later version put there.
    """

    id: str
    date: str = ""
    digest: str = ""
    shape: dict[str, Any] | None = None
    asked: dict[str, dict[str, Any]]
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    base: BaseRecord
    prompts: Prompts
    plan: Plan
    photos: tuple[dict[str, Any], ...] | None = None
    changes: tuple[Change, ...] = ()
    continues: Continued | None = None
    began: dict[str, Any] | None = None
    measured: Measured | None = None
    verdict: str = ""
    of_class: str = ""
    sentences: tuple[str, ...] = ()
    figures: dict[str, Any] | None = None
    further: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Record":
        """A record from the JSON of a plan.json, of this version or an earlier one. Raises ValueError if it is damaged."""
        changes = values.get("changes", [])
        if not isinstance(changes, list) or not all(isinstance(change, dict) for change in changes):
            raise ValueError("its changes can't be read")
        check_values(cls, {key: value for key, value in values.items() if key not in ("changes", "further")})
        asked = values["asked"]
        if not {*STAGES} <= asked.keys() or not isinstance(asked["train"].get("save_dtype"), str):
            raise ValueError("asked is not what is asked of a run")
        # until 0.2 this was not in the plan: it was a number, as asked for
        stop = {"text_encoder_stop": asked["train"].get("text_encoder_stop")}
        measured = values.get("measured")
        known = {SCHEMA, *(item.name for item in fields(cls))}
        return cls(
            **{key: values[key] for key in PLAIN if key in values},
            base=BaseRecord(**_known(BaseRecord, values["base"])),
            prompts=Prompts.read(values["prompts"]),
            plan=Plan.from_json(stop | values["plan"]),
            photos=None if values.get("photos") is None else tuple(values["photos"]),
            changes=tuple(map(Change.read, changes)),
            continues=None if values.get("continues") is None else Continued(**_known(Continued, values["continues"])),
            measured=None if measured is None else Measured(**_known(Measured, measured)),
            sentences=tuple(values.get("sentences", ())),
            further={key: value for key, value in values.items() if key not in known},
        )

    def written(self) -> dict[str, Any]:
        """The record as JSON values, which `read` reads."""
        ended = {"verdict": self.verdict, "of_class": self.of_class, "sentences": list(self.sentences)}
        told = {
            "id": self.id,
            "date": self.date or None,
            "digest": self.digest,
            "shape": self.shape,
            "asked": self.asked,
            "sources": self.sources,
            "base": asdict(self.base),
            "prompts": {key: value for key, value in asdict(self.prompts).items() if value != ()},
            "plan": self.plan.to_json(),
            "photos": None if self.photos is None else list(self.photos),
            "changes": [change.written() for change in self.changes],
            "continues": None if self.continues is None else asdict(self.continues),
            "began": self.began,
            "measured": None if self.measured is None else asdict(self.measured),
            "figures": self.figures,
            **{key: value for key, value in ended.items() if value},
        }
        return {key: value for key, value in told.items() if value is not None} | self.further

    def train_settings(self) -> TrainSettings:
        """The training settings as asked for, but without the folder of own class images, which may be gone. Raises UsageError."""
        known = {item.name for item in fields(TrainSettings)} - {"class_data_dir"}
        return TrainSettings(**{name: value for name, value in self.asked["train"].items() if name in known})

    def with_change(self, further: Plan, *, step: int, kind: str, what: str) -> "Record":
        """The same, continuing under another plan from a step on."""
        change = Change(step, kind, what, before=self.plan.to_json())
        return replace(self, plan=further, changes=(*self.changes, change))

    def with_measured(self, step: int, held: int) -> "Record":
        """The same, with what the process held after a step, in bytes: of the GPU's memory, or of the machine's if there is no GPU."""
        on_card = self.plan.device == "cuda" or not self.plan.ram  # 0.1 did not count the machine's
        planned = self.plan.needed if on_card else self.plan.ram_needed
        return replace(self, measured=Measured(step, held, planned))

    def with_verdict(self, verdict: Verdict, figures: dict[str, Any]) -> "Record":
        """The same, with the verdict on the finished run and the figures it is based on."""
        return replace(self, verdict=verdict.word, of_class=verdict.of_class, sentences=verdict.sentences, figures=figures)

    def with_rehearsed(self, held: int) -> "Record":
        """The same, with the memory that a rehearsal measured on the card in place of the planned one."""
        if self.plan.device != "cuda":
            return self
        return replace(self, plan=replace(self.plan, needed=held), measured=Measured(0, held, self.plan.needed))


def _known(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some JSON values that are fields of a dataclass."""
    return {item.name: values[item.name] for item in fields(kind) if item.name in values}
