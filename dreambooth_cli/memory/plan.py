"""The memory plan: what is trained, by which means, what that takes, and why. Bytes everywhere; GB is 1e9 bytes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ..bases.catalog import BaseFacts, CatalogEntry
from ..gpu import Gpu
from ..schemas import check_values
from ..settings import TrainSettings

Method = Literal["full", "lora"]
Precision = Literal["fp32", "bf16", "fp16"]
Optimizer = Literal["adamw", "adamw8bit"]
Weights = Literal["fp32", "bf16"]
Device = Literal["cuda", "mps", "cpu"]

EIGHT_BIT_ADAM, FOUR_BIT_BASE = NEED_8BIT = ("8-bit Adam", "base in 4 bits")
INSTALL_8BIT = 'pipx inject dreambooth-cli "bitsandbytes"'


@dataclass(frozen=True)
class Job:
    """What a plan is made for: a base, what is asked of the run, the pictures' side in pixels, the card (None: the CPU), whether
    bitsandbytes is there, and what the base is called in messages. `largest`: where photos keep their shapes, the pixels of the
    largest (0: all pictures are squares)."""

    facts: BaseFacts
    asked: TrainSettings
    resolution: int
    gpu: Gpu | None
    has_8bit: bool
    name: str
    largest: int = 0

    @property
    def pixels(self) -> int:
        """Those of the largest picture that is trained on."""
        return max(self.largest, self.resolution**2)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One rung of the ladder: what is trained, and by which means.

    Of the means: `rows_in_turn`: instance and class rows in two passes; `weights` in bf16 are rounded stochastically;
    `inside_backward`: each weight moves as soon as it has its gradient; `off_card`: the optimizer's state lies in the machine's
    memory; `quantized`: a LoRA's base in 4 bits, `fp8`: in 8; `text_off_card`: a text encoder that stays as
    it is reads on the CPU; `class_images_in_parts`: for class images the base's networks take turns on the card.
    """

    method: Method
    train_text_encoder: bool
    precision: Precision
    optimizer: Optimizer
    gradient_checkpointing: bool
    rows_in_turn: bool = False
    weights: Weights = "fp32"
    inside_backward: bool = False
    off_card: bool = False
    quantized: bool = False
    fp8: bool = False
    text_off_card: bool = False
    class_images_in_parts: bool = False  # of a choice: whatever they would take together


@dataclass(frozen=True, kw_only=True)
class Plan(Choice):
    """How a run will be done: a choice with every `auto` resolved, what it takes, and why it was taken.

    `largest` has the pixels of the largest photo where they keep their shapes (0: all are squares of the `resolution`); `rank` is a
    LoRA's (0: a plan of before 0.3, whose settings have it).
    `means` has them in words. `ledger` has bytes by tensor group, then the peaks (`peak: ...`); `needed` is the highest peak with
    context and slack. `remedy` says, where it does not fit, what would. `disk` has the bytes that the run writes, at their most;
    `ram` those of the machine's own memory by the moments of a run, the program's with them.
    """

    resolution: int
    largest: int = 0
    batch_size: int
    learning_rate: float
    text_encoder_learning_rate: float
    text_encoder_stop: int = 0
    rank: int = 0
    alpha: float
    class_image_batch: int
    device: Device
    means: tuple[str, ...]
    ledger: dict[str, int]
    needed: int
    free: int | None
    fits: bool
    why: str
    name: str = ""
    remedy: str = ""
    disk: dict[str, int] = field(default_factory=dict)
    ram: dict[str, int] = field(default_factory=dict)

    @property
    def choice(self) -> Choice:
        """What is trained, and by which means, alone."""
        return Choice(**{item.name: getattr(self, item.name) for item in fields(Choice)})

    @property
    def samples_on_the_way(self) -> bool:
        """Whether pictures were counted that are drawn beside the optimizer's state; else they wait until it is gone."""
        return "peak: preview" in self.ledger

    @property
    def ram_needed(self) -> int:
        """Bytes of the machine's memory at the largest moment; 0 for a plan of 0.1, which did not count them."""
        return max(self.ram.values(), default=0)

    def to_json(self) -> dict[str, Any]:
        """As plan.json and the events hold it."""
        return asdict(self) | {"means": list(self.means), "ram_gb": round(self.ram_needed / 1e9, 2)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Plan":
        """A plan that `to_json` gave; keys that are not a plan's are left out. Raises ValueError where it is none."""
        check_values(cls, values)
        if values["resolution"] < 8 or values["batch_size"] < 1 or values["class_image_batch"] < 1:
            raise ValueError("resolution and batches can't be that small")
        if not (values["learning_rate"] > 0 and values["text_encoder_learning_rate"] > 0 and values["alpha"] > 0):
            raise ValueError("learning rates and alpha must be above 0")
        known = {item.name for item in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        return cls(**kept | {"means": tuple(values["means"])})


def weights_of(plan: Plan) -> Precision:
    """The number format of the loaded weights: the trained weights' own, or a LoRA's base in the plan's precision."""
    return plan.weights if plan.method == "full" else plan.precision


def job_of(entry: CatalogEntry, gpu: Gpu | None, *, has_8bit: bool) -> Job:
    """A base of the catalogue at its own size, as it is trained where nothing is said."""
    facts = entry.facts
    return Job(facts, TrainSettings().of_family(facts.family), resolution=facts.resolution, gpu=gpu, has_8bit=has_8bit, name=entry.name)
