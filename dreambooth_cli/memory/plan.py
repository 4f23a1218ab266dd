"""The memory plan: what is trained, by which means, how much memory that takes, and why. All figures are bytes; GB is 1e9 bytes."""

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
    """What a plan is made for: the base, the settings asked for, the pictures' side in pixels, the card (None: the CPU), whether
    bitsandbytes is installed, and the base's name in messages. `largest`: if photos keep their shapes, the number of pixels of the
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
        """The number of pixels of the largest picture that is trained on."""
        return max(self.largest, self.resolution**2)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One rung of the ladder: what is trained, and by which means of saving memory.

    The means: `rows_in_turn`: instance and class rows go through in two passes; `weights` in bf16 are rounded stochastically;
    `inside_backward`: each weight moves as soon as its gradient is complete; `off_card`: the optimizer state is kept in the machine's
    memory; `quantized`: a LoRA's base is in 4 bits; `fp8`: it is in 8 bits; `text_off_card`: a text encoder that is not trained runs on
    the CPU; `class_images_in_parts`: the base's networks take turns on the card while class images are drawn.
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
    class_images_in_parts: bool = False  # in a choice, True asks for it even where they would fit together


@dataclass(frozen=True, kw_only=True)
class Plan(Choice):
    """How a run will be done: a choice with every `auto` resolved, what it takes, and why it was chosen.

    `largest` is the number of pixels of the largest photo if photos keep their shapes (0: all are squares of side `resolution`); `rank`
    is the LoRA's (0: a plan from before 0.3, when only the settings had it); `text_encoder_stop` is the step after which the text encoder
    is no longer trained (0: never). `means` has the means in words. `ledger` has bytes by tensor group, then the peaks (`peak: ...`);
    `needed` is the highest peak plus context and slack; `free` is what is free on the card (None: no card). `remedy` says what would fit
    if this does not. `disk` has the most bytes that the run has on disk, by what they are; `ram` has the bytes of the machine's memory by
    moment, including the program.
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
        """Only what is trained and by which means."""
        return Choice(**{item.name: getattr(self, item.name) for item in fields(Choice)})

    @property
    def samples_on_the_way(self) -> bool:
        """Whether the plan has room for sample pictures during training; otherwise they are drawn when the optimizer state is gone."""
        return "peak: preview" in self.ledger

    @property
    def ram_needed(self) -> int:
        """The most bytes of the machine's memory that the run needs at any moment; 0 for a plan made by 0.1, which did not count them."""
        return max(self.ram.values(), default=0)

    def to_json(self) -> dict[str, Any]:
        """The plan as plan.json and the events have it."""
        return asdict(self) | {"means": list(self.means), "ram_gb": round(self.ram_needed / 1e9, 2)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Plan":
        """A plan from what `to_json` returned; unknown keys are ignored. Raises ValueError if it is not a plan."""
        check_values(cls, values)
        if values["resolution"] < 8 or values["batch_size"] < 1 or values["class_image_batch"] < 1:
            raise ValueError("resolution and batches can't be that small")
        if not (values["learning_rate"] > 0 and values["text_encoder_learning_rate"] > 0 and values["alpha"] > 0):
            raise ValueError("learning rates and alpha must be above 0")
        known = {item.name for item in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        return cls(**kept | {"means": tuple(values["means"])})


def weights_of(plan: Plan) -> Precision:
    """The number format to load the base's weights in: that of the trained weights, or for a LoRA the plan's precision."""
    return plan.weights if plan.method == "full" else plan.precision


def job_of(entry: CatalogEntry, gpu: Gpu | None, *, has_8bit: bool) -> Job:
    """The job of training a catalogue base at its own resolution with default settings."""
    facts = entry.facts
    return Job(facts, TrainSettings().of_family(facts.family), resolution=facts.resolution, gpu=gpu, has_8bit=has_8bit, name=entry.name)
