"""Every setting, declared once. Flags, `project.toml`, the interview, `--help` and the README's tables are all derived from it.

A new setting is one line: its type, its default and its help. `shapes=True` marks those that shape the trained weights;
they identify the run (see `identity.py`), so changing one starts another run.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import UsageError
from .families.family import Family
from .families.family import LoraLayers as LoraLayers
from .families.schedulers import SchedulerName
from .spellings import word_here
from .text import is_text, plain_number, shortened

Auto = Literal["auto"]
AUTO: Auto = "auto"
LARGEST_SEED = 2**63 - 1  # torch takes 64 bits, and picture i adds i
LARGEST_SIDE = 16_384  # pixels of a picture
NEW = object()  # `was` of a setting that did not exist before
FORMER = ("0.2", "0.1")  # earlier versions whose runs can still be continued, newest first

Prior = Literal[Auto, "class-images", "base", "none"]
Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
Scheduler = Literal[Auto, SchedulerName]

# Panels of the help besides each stage's own. `--help-all` shows all of them, `--help` leaves out those in SELDOM.
SAVED = "Samples"
PRIOR, SENTENCES, DETAILS = "Class images in detail", "Prompts and captions", "Learning rate and loss"
LORA, MEMORY, CHECKPOINTS, RARE = "LoRA", "Memory", "Checkpoints", "Rarely needed"
SELDOM = (PRIOR, SENTENCES, DETAILS, LORA, MEMORY, CHECKPOINTS, RARE)


def setting(
    default: Any,
    help: str,
    *,
    ask: str | None = None,
    why: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    multiple_of: int | None = None,
    usual: tuple[float, float] | None = None,
    shapes: bool = False,
    sizes: bool = False,
    was: Any = None,
    until: str = FORMER[0],
    group: str = "",
    names: tuple[str, ...] = (),
) -> Any:
    """Declare a setting: a dataclass field with its help text, its bounds and, if the interview asks for it, the question (`ask`) with
    the reason and what most people answer (`why`).

    A value other than 0 outside `usual` is probably a mistake: the user is asked about it. `names` are other spellings of the flag, those
    of the original guide; `group` is its panel in the help if that is not its stage's own;
    `shapes` says that it shapes the trained weights, `sizes` that it affects how much memory a run needs; `was` is the default it had
    up to the version `until`, so that runs begun by that version are still recognised (NEW: the setting did not exist then).
    """
    metadata = {
        "help": help,
        "ask": ask,
        "why": why,
        "at_least": at_least,
        "at_most": at_most,
        "above": above,
        "multiple_of": multiple_of,
        "usual": usual,
        "shapes": shapes,
        "sizes": sizes,
        "was": was,
        "until": until,
        "group": group,
        "names": names,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the stages' settings have in common: types, bounds and choices are checked on construction. Raises UsageError."""

    def __post_init__(self) -> None:
        for item in fields(self):
            check_value(item, annotation(type(self), item.name), getattr(self, item.name))


@dataclass(frozen=True, kw_only=True)
class SubjectSettings(Settings):
    """The subject: what it is, what it is called, and the base model that learns it."""

    photos: Path | None = setting(
        None,
        "Folder with 3 to 5 photos of the subject.",
        ask="Where are the photos?",
        why="The photos show the model what to learn. Most people use 3 to 5 sharp ones, each from a different side or in a different "
        "place. Drag the folder, or the photos themselves, into this window, or type the path; Tab completes it.",
        names=("instance-data-dir",),
    )
    class_prompt: str | None = setting(
        None,
        'What the subject is, in general: "a dog".',
        ask="What is it? (for example: a dog)",
        why="The model already knows this kind of thing, so it only has to learn what is special about yours. Most people type an "
        "article and a noun: a dog, a backpack, a woman.",
        shapes=True,
    )
    identifier: str = setting(
        AUTO,
        "Rare word for the subject; auto: chosen from the base model's vocabulary.",
        ask="Which rare word should stand for it?",
        why="The rare word will mean your subject alone, in every prompt. It is learned best if it means nothing to the model yet and "
        "is not split into pieces. Most people take the first of these:",
        shapes=True,
    )
    model: str = setting(
        "sd15",
        "Base model; a name from `dreambooth models`, a hub repository, a diffusers folder or a .safetensors file.",
        ask="Which base model?",
        why="The base model can already draw; your photos teach it one more thing. Most people take sd15 for a first try, and sdxl for "
        "more detail on a large GPU.",
        names=("model-name",),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_prompt is not None and not self.class_prompt.strip():
            raise UsageError("the class prompt is empty", 'say what the subject is: --class-prompt "a dog"')
        if len(self.identifier.split()) != 1 or "[identifier]" in self.identifier:
            raise UsageError(
                f"the identifier must be one word, not {self.identifier!r}", "for example: --identifier sks"
            )


@dataclass(frozen=True, kw_only=True)
class PrepSettings(Settings):
    """How the photos are prepared."""

    resolution: int | Auto = setting(
        AUTO,
        "Training size in pixels; auto: the base model's own.",
        at_least=32,
        at_most=LARGEST_SIDE,
        multiple_of=8,
        usual=(32, 4096),
    )
    crop: Literal["auto", "center", "top", "bottom", "left", "right", "pad", "none"] = setting(
        "auto",
        "Which square of a photo is kept; auto: the one around the subject; pad: all of it, with a border; none: the photo's own shape.",
    )
    strict: bool = setting(False, "Refuse photos that have a problem, instead of only saying so (exit code 3).", was=NEW, group=RARE)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """How the base model is fine-tuned."""

    method: Literal["auto", "full", "lora"] = setting(
        AUTO,
        "Train all layers, or a LoRA; auto: all layers if they fit in memory.",
        ask="Which method?",
        why="Full training changes all layers and gives the closest likeness; a LoRA adds small layers, for small GPUs and a small file. "
        "Most people let the available memory decide.",
        shapes=True,
        sizes=True,
    )
    train_text_encoder: bool | Auto = setting(
        AUTO, "Train the text encoder too; auto: if it fits, for Stable Diffusion 1 and 2 only.", shapes=True, sizes=True
    )
    steps: int = setting(
        1000,
        "Number of training steps.",
        ask="How many steps?",
        why="Steps are how long the model practises: after too few it has not learned your subject, after too many it only repeats your "
        "photos. Most people keep the suggested number, and look at the pictures before changing it.",
        at_least=1,
        shapes=True,
        usual=(1, 200_000),
    )
    batch_size: int = setting(
        1, "Photos per batch.", at_least=1, shapes=True, sizes=True, usual=(1, 512)
    )
    class_batch_size: int | Auto = setting(
        AUTO,
        "Class images per batch; auto: as many as photos.",
        at_least=1, shapes=True, sizes=True, was=NEW, group=PRIOR, usual=(1, 512),
    )
    gradient_accumulation: int = setting(
        1, "Batches per training step.", at_least=1, shapes=True, sizes=True, group=MEMORY, usual=(1, 1024)
    )
    learning_rate: float | Auto = setting(
        AUTO,
        "How far a step moves the weights; auto: by base; for Stable Diffusion 1e-4 for LoRA, 5e-6 for full, 2e-6 with the text encoder.",
        above=0, shapes=True, usual=(1e-9, 0.02),
    )
    text_encoder_learning_rate: float | Auto = setting(
        AUTO, "Learning rate of the text encoder; auto: half of --learning-rate.", above=0, shapes=True, group=DETAILS, usual=(1e-9, 0.02)
    )
    text_encoder_stop: int | Auto = setting(
        AUTO,
        "Step after which the text encoder is no longer trained; 0: trained to the end; auto: with method full, after 40% of the steps.",
        at_least=0,
        shapes=True,
        was=0,
        until="0.1",
        group=DETAILS,
    )
    lr_schedule: Schedule = setting(
        "constant", "How the learning rate changes over the steps.", shapes=True, group=DETAILS
    )
    warmup_steps: int = setting(0, "Steps over which the learning rate rises from 0.", at_least=0, shapes=True, group=DETAILS)
    optimizer: Literal["auto", "adamw", "adamw8bit"] = setting(
        AUTO,
        "AdamW, or AdamW with 8-bit state (needs the 8bit extra); auto: 8-bit only if memory is short.",
        shapes=True, sizes=True, group=MEMORY
    )
    weight_decay: float = setting(0.01, "AdamW's weight decay.", at_least=0, shapes=True, group=DETAILS, usual=(0, 1))
    max_grad_norm: float = setting(
        0.0, "Clip gradients to this norm; 0: no clipping.", at_least=0, shapes=True, group=DETAILS, usual=(0.001, 1000)
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        AUTO,
        "Number format of the forward pass; auto: bf16 or fp16 where the hardware is good at it, else fp32.",
        shapes=True, sizes=True, group=MEMORY
    )
    gradient_checkpointing: bool | Auto = setting(
        AUTO,
        "Compute activations twice: less memory, slower steps; auto: only if memory is short.",
        shapes=True, sizes=True, group=MEMORY
    )
    rank: int | Auto = setting(
        AUTO,
        "Rank of the LoRA (a higher rank makes a larger file); auto: 16, or 32 for klein and Z-Image.",
        at_least=1, shapes=True, sizes=True, was=16, group=LORA, usual=(1, 1024)
    )
    lora_layers: LoraLayers = setting(
        "attention",
        "Layers that get a LoRA: attention only, or all, which adds feed-forward layers and convolutions.",
        shapes=True,
        sizes=True,
        was=NEW,
        group=LORA,
    )
    alpha: float | Auto = setting(
        AUTO, "Alpha of the LoRA, which is scaled by alpha / rank; auto: the rank.", above=0, shapes=True, group=LORA, usual=(0.01, 4096)
    )
    ema: bool = setting(
        False, "Keep an exponential moving average (EMA) of the weights and save that.", shapes=True, sizes=True, group=DETAILS
    )
    ema_decay: float = setting(
        0.999, "How slowly the EMA follows the weights, from 0 to 1.", above=0, at_most=1, shapes=True, group=DETAILS, usual=(0.5, 1)
    )
    snr_gamma: float = setting(
        0.0, "Min-SNR weighting of the loss with this gamma; 0: off.", at_least=0, shapes=True, group=DETAILS, usual=(0.1, 100)
    )
    prior: Prior = setting(
        AUTO,
        "What keeps the class: class-images, base (a LoRA is compared with it) or none; auto: base for klein, Z-Image, else class-images.",
        shapes=True,
        was=NEW,
        group=PRIOR,
    )
    prior_every: int = setting(
        3, "With --prior base: every how many steps the LoRA is compared with its base.", at_least=1, shapes=True, was=NEW, group=PRIOR
    )
    prior_loss_weight: float = setting(
        1.0,
        "Weight of prior preservation in the loss (lambda); 0: off.",
        at_least=0, shapes=True, group=PRIOR, usual=(0.001, 100),
    )
    class_images: int = setting(
        200, "Number of class images; they keep the class as it was; 0: none.", at_least=0, shapes=True, usual=(1, 20_000)
    )
    class_data_dir: Path | None = setting(None, "Folder with class images of your own; only those still missing are drawn.", group=PRIOR)
    class_image_steps: int = setting(25, "Denoising steps for each class image.", at_least=1, shapes=True, group=PRIOR, usual=(1, 1000))
    class_guidance_scale: float | Auto = setting(
        AUTO,
        "Guidance scale for the class images; auto: 7.5, or 4 for klein and Z-Image.",
        at_least=0, shapes=True, was=7.5, group=PRIOR, usual=(0, 50),
    )
    frames: Literal["own", "varied"] = setting(
        "own",
        "Sentences to train the subject in: own (your prompt), or varied (now and then another, naming the place that the photo shows).",
        shapes=True,
        was=NEW,
        group=SENTENCES,
    )
    caption_dropout: float = setting(
        0.1,
        "How often the prompt leaves out the photo's caption or place, from 0 to 1.",
        at_least=0,
        at_most=1,
        shapes=True,
        was=NEW,
        group=SENTENCES,
    )
    class_place_every: int = setting(
        3, "With --frames varied: every how many class images one is set in a place.", at_least=1, shapes=True, was=NEW, group=SENTENCES
    )
    allow_distilled: bool = setting(
        False, "Train a distilled base anyway, although it then no longer draws in a few steps.", was=NEW, group=RARE
    )
    mirror: bool = setting(False, "Also mirror the photos; not for text or asymmetric things.", shapes=True)
    seed: int = setting(0, "Seed of the run; all its random numbers follow from it.", at_least=0, at_most=LARGEST_SEED, shapes=True)
    checkpoint_every: int = setting(250, "Steps between checkpoints; 0: only at the end.", at_least=0, group=CHECKPOINTS)
    checkpoint_minutes: float = setting(
        10.0, "Also save a checkpoint after this many minutes, for slow steps; 0: off.", at_least=0, group=CHECKPOINTS, usual=(0.1, 10_000)
    )
    keep: Literal["last", "best", "all"] = setting(
        "best",
        "Steps whose weights are kept after the run, to draw with: the last, the last and the best, or all.",
        group=CHECKPOINTS,
    )
    judge: Literal["none", "auto"] = setting(
        AUTO,
        "Who judges the steps at the end: none, or auto (DINO and CLIP, fetched once, 0.7 GB); pocket has a judge of its own.",
        group=CHECKPOINTS,
    )
    keep_checkpoints: int = setting(
        2, "How many of the newest checkpoints are kept during the run.", at_least=1, group=CHECKPOINTS, usual=(1, 1000)
    )
    rehearsal: bool = setting(
        True, "Try every phase once before the run, so that trouble shows early; runs under 50 steps skip it.", group=CHECKPOINTS
    )
    sample_every: int | Auto = setting(
        AUTO, "Steps between sample pictures; auto: four rounds in the run; 0: none.", at_least=0, sizes=True, group=SAVED
    )
    sample_prompt: str | None = setting(None, "A prompt of your own for the samples.", group=SAVED)
    sample_steps: int = setting(20, "Denoising steps for each sample.", at_least=1, group=CHECKPOINTS, usual=(1, 1000))
    save_dtype: Literal["fp32", "bf16", "fp16"] = setting("fp32", "Number format of the saved weights.", group=CHECKPOINTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr_schedule == "constant" and self.warmup_steps:
            raise UsageError(
                "--warmup-steps has no effect with --lr-schedule constant",
                "use --lr-schedule constant_with_warmup",
            )
        if self.warmup_steps >= self.steps and self.warmup_steps:
            raise UsageError(
                f"--warmup-steps {self.warmup_steps} leaves none of the {self.steps} steps at the full rate",
                "use fewer warm-up steps",
            )

    @property
    def with_prior(self) -> bool:
        """Whether class images preserve the class."""
        return self.prior in (AUTO, "class-images") and self.class_images > 0 and self.prior_loss_weight > 0

    @property
    def with_base_prior(self) -> bool:
        """Whether the base's own predictions preserve it."""
        return self.prior == "base" and self.prior_loss_weight > 0

    def rank_for(self, family: Family) -> int:
        """The rank of a LoRA on a base of this family."""
        return family.rates.rank if self.rank == AUTO else self.rank

    def of_family(self, family: Family) -> "TrainSettings":
        """The same settings with `prior` resolved: what was asked for, class images where the user brings some, else the family's."""
        if self.prior != AUTO:
            return self
        return replace(self, prior="class-images" if self.class_data_dir is not None else family.prior)

    @property
    def rows(self) -> tuple[int, int]:
        """How many photos and how many class images are in a batch."""
        beside = self.batch_size if isinstance(self.class_batch_size, str) else self.class_batch_size
        return self.batch_size, beside if self.with_prior else 0


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(Settings):
    """How pictures are drawn."""

    negative_prompt: str = setting("", "What the picture should not show.")
    num_images: int = setting(1, "How many pictures to draw.", at_least=1, usual=(1, 10_000))
    seed: int | Auto = setting(
        AUTO, "Seed of the first picture, picture i uses seed + i; auto: a new one, which is shown.", at_least=0, at_most=LARGEST_SEED
    )
    steps: int | Auto = setting(AUTO, "Denoising steps for each picture; auto: 50, or 30 for Z-Image.", at_least=1, usual=(1, 1000))
    guidance_scale: float | Auto = setting(
        AUTO,
        "How strictly the prompt is followed; auto: 7.5, or 5 for SDXL and pocket, 4 for klein and Z-Image (Z-Image's starts at 0, not 1).",
        at_least=0, usual=(0, 50),
    )
    width: int | Auto = setting(
        AUTO, "Width in pixels; auto: as trained.", at_least=32, at_most=LARGEST_SIDE, multiple_of=8, usual=(32, 4096)
    )
    height: int | Auto = setting(
        AUTO, "Height in pixels; auto: as trained.", at_least=32, at_most=LARGEST_SIDE, multiple_of=8, usual=(32, 4096)
    )
    scheduler: Scheduler = setting(AUTO, "Noise scheduler; auto: the model's own.")
    fast: bool = setting(False, "Draw in a few steps with the distilled twin of the LoRA's base (klein has one).")
    batch_size: int = setting(1, "Pictures drawn at once.", at_least=1, group=RARE, usual=(1, 512))


SECTIONS: dict[str, type[Settings]] = {
    "subject": SubjectSettings,
    "prep": PrepSettings,
    "train": TrainSettings,
    "generate": GenerateSettings,
}


def annotation(owner: type[Settings], name: str) -> Any:
    """The resolved type of a setting."""
    return _annotations(owner)[name]  # type: ignore[arg-type] # mypy takes the class's hash for its instances'


@cache
def _annotations(owner: type[Settings]) -> dict[str, Any]:
    return get_type_hints(owner)


def flag_of(name: str) -> str:
    """`class_images` -> `--class-images`."""
    return "--" + name.replace("_", "-")


def choices_of(expected: Any) -> tuple[str, ...]:
    """The words that a setting accepts; for `int | Auto` only `auto`, for a plain type none."""
    if get_origin(expected) is Literal:
        return get_args(expected)
    if get_origin(expected) in (Union, UnionType):
        return tuple(word for part in get_args(expected) for word in choices_of(part))
    return ()


def scalar_of(expected: Any) -> type | None:
    """The plain type among a setting's types: `int | Auto` -> int; None for a pure choice."""
    if get_origin(expected) in (Union, UnionType):
        return next((found for part in get_args(expected) if (found := scalar_of(part))), None)
    return expected if isinstance(expected, type) and expected is not type(None) else None


def parse_value(owner: type[Settings], name: str, text: str) -> Any:
    """A word from the command line or the interview as the setting's own type. Raises UsageError."""
    expected = annotation(owner, name)
    if text in choices_of(expected):
        return text
    scalar = scalar_of(expected)
    with suppress(ValueError, KeyError):  # anything else is refused below
        if scalar is bool:
            return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
        if scalar is not None:
            return scalar(text)
    takes, near = f"it takes {describe_type(expected)}", _meant(expected, text)
    raise UsageError(
        f"{flag_of(name)} can't be {shortened(repr(text))}", f"{takes}: did you mean {flag_of(name)} {near}?" if near else takes
    )


def _meant(expected: Any, text: str) -> str:
    """The value that was probably meant: `5e-6,` -> 5e-6, `1e3` steps -> 1000, `1,000` -> 1000, `2k` -> 2000, `512x512` -> 512."""
    plain = text[:40].strip(" \t,;'\"`").replace("\u2212", "-").replace("\u2013", "-").lower()
    if plain in choices_of(expected):
        return plain
    plain = re.sub(r"(?<=\d)[,_' ](?=\d{3}(?!\d))", "", plain)
    plain = re.sub(r"^(-?\d*),(?=\d+(?:e|$))", r"\1.", plain)
    number_form, unit = r"(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d{1,3})?)(?P<k>k)?", r" ?(?:px|pixels|steps|images)"
    found = re.fullmatch(rf"{number_form}(?:x(?P=number))?(?:{unit})?", plain)
    if found is None or scalar_of(expected) not in (int, float):
        return ""
    number = float(found["number"]) * (1000 if found["k"] else 1)
    if scalar_of(expected) is float:
        return found["number"] if not found["k"] else f"{number:g}"
    return str(int(number)) if number.is_integer() and abs(number) <= LARGEST_SEED else ""


def describe_type(expected: Any) -> str:
    """What a setting takes, in words: `a whole number or auto`."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", Path: "a path"}
    scalar = scalar_of(expected)
    parts = ([words[scalar]] if scalar in words else []) + list(choices_of(expected))
    return " or ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def check_value(item: Field[Any], expected: Any, value: Any) -> None:
    """Check one value against its type, choices and bounds. Raises UsageError, which names the flag."""
    flag, bound = flag_of(item.name), item.metadata
    if value is None and type(None) in get_args(expected):
        return
    if isinstance(value, str) and value in choices_of(expected):
        return
    scalar = scalar_of(expected)
    if scalar is None or not _is_a(value, scalar):
        raise UsageError(f"{flag} can't be {shortened(repr(value))}", f"it takes {describe_type(expected)}")
    if isinstance(value, str):
        check_text(flag, value)
    if isinstance(value, Path) and "\0" in str(value):
        raise UsageError(f"{flag} holds a NUL character", "take it out: no path has one")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if value != value or value in (float("inf"), float("-inf")):
        raise UsageError(f"{flag} can't be {value}", "it takes a finite number")
    if isinstance(value, int) and abs(value) > LARGEST_SEED:
        raise UsageError(f"{flag} can't be {shortened(str(value))}", f"it takes at most {LARGEST_SEED}")
    if bound["at_least"] is not None and value < bound["at_least"]:
        raise UsageError(f"{flag} {value} is too small", f"it must be at least {bound['at_least']}")
    if bound["at_most"] is not None and value > bound["at_most"]:
        raise UsageError(f"{flag} {value} is too large", f"it must be at most {bound['at_most']}")
    if bound["above"] is not None and value <= bound["above"]:
        raise UsageError(f"{flag} {value} is too small", f"it must be above {bound['above']}")
    if bound["multiple_of"] is not None and value % bound["multiple_of"]:
        near = max(bound["multiple_of"], round(value / bound["multiple_of"]) * bound["multiple_of"])
        raise UsageError(f"{flag} {value} is not a multiple of {bound['multiple_of']}", f"for example: {flag} {near}")


def doubt_of(owner: type[Settings], name: str, value: Any) -> str:
    """Why a value is probably a mistake, in words; "" if it is a usual one."""
    bound = next(item for item in fields(owner) if item.name == name).metadata
    if bound["usual"] is None or not _is_a(value, float) or value == 0 or bound["usual"][0] <= value <= bound["usual"][1]:
        return ""
    if not abs(value) <= LARGEST_SEED or (bound["at_most"] or value) < value or (bound["at_least"] or 0) > value:
        return ""  # not allowed at all: `check_value` says so
    least, most = map(plain_number, bound["usual"])
    return f"{flag_of(name)} {plain_number(value)} is unusual: it is nearly always between {least} and {most}"


def check_text(what: str, text: str) -> None:
    """Refuse text that can't be written as UTF-8. Raises UsageError."""
    if not is_text(text):
        raise UsageError(f"{what} is not UTF-8: {shortened(repr(text))}", "type it again")


def _is_a(value: Any, scalar: type) -> bool:
    if scalar is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if scalar is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, scalar)


def check_name(owner: type[Settings], name: str, where: str) -> None:
    """Refuse a key that is not a setting, suggesting the nearest one. Raises UsageError."""
    known = [item.name for item in fields(owner)]
    if name not in known:
        if here := word_here(name):
            flag, _, more = here.partition(" ")
            key = flag[2:].rstrip(",").replace("-", "_") if flag.startswith("--") else ""
            raise UsageError(f"{where}: there is no setting {name!r}", f"here that is {key or flag} {more}".rstrip())
        near = get_close_matches(name, known, n=1)
        raise UsageError(
            f"{where}: there is no setting {name!r}",
            f"did you mean {near[0]!r}?" if near else f"the settings there are: {', '.join(known)}",
        )


def default_of(owner: type[Settings], name: str) -> Any:
    """The default of a setting."""
    item = next(item for item in fields(owner) if item.name == name)
    return None if item.default is MISSING else item.default


def shaping(values: Settings) -> Mapping[str, Any]:
    """The settings that shape the weights, as asked for, as plain values; `1` and `1.0` are the same number."""
    return {item.name: _as_asked(values, item.name) for item in fields(values) if item.metadata["shapes"]}


def as_before(values: Settings, version: str) -> Mapping[str, Any]:
    """The same, as an earlier version with other defaults would have recorded it."""
    other = [item for item in fields(values) if FORMER.index(item.metadata["until"]) <= FORMER.index(version)]
    was = {item.name: item.metadata["was"] for item in other if item.metadata["was"] is not None}
    defaults = {item.name: item.default for item in fields(values)}
    before = {name: was[name] if name in was and value == defaults[name] else value for name, value in shaping(values).items()}
    return {name: value for name, value in before.items() if value is not NEW}


def _as_asked(values: Settings, name: str) -> Any:
    value = getattr(values, name)
    if scalar_of(annotation(type(values), name)) is float and isinstance(value, int):
        return float(value)
    return str(value) if isinstance(value, Path) else value
