"""What a model family is, as data: no torch, no code. A new family is a record like these in a file of its own, its live class in
`engine/families/`, and its line in `known`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .part_config import Bound
from .schedulers import Noise, SchedulerName

LoraLayers = Literal["attention", "all"]
VAE = "vae"  # every family's, in a diffusers folder


@dataclass(frozen=True, kw_only=True)
class Part:
    """A network or a tokenizer of a base. `classes`: what model_index.json may call it; the first is built where it says none.

    `config`: the keys of its config that reach the libraries, each within its bounds. `refused`: the keys that only a network of another
    kind has, and what they say of it. `lora`: the layers that a LoRA is put beside, by the ends of their names: of attention, and the
    others; none: it is never trained. The `unread` last blocks of a text encoder are never read by its family. `built`: the class that
    is built, where it is none of those, a body without its head; of that no more than `layers` are read and kept (0: all).
    `precise`: parts of the names of those layers that stay as they are where a frozen network is stored in 8 bits; none: it never is.
    """

    classes: tuple[str, ...]
    config: Mapping[str, Bound] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    lora: tuple[str, ...] = ()
    lora_others: tuple[str, ...] = ()
    unread: int = 0
    built: str = ""
    layers: int = 0
    precise: tuple[str, ...] = ()

    def layers_for(self, which: LoraLayers) -> tuple[str, ...]:
        """The ends of the names of the layers that a LoRA is put beside."""
        return self.lora if which == "attention" else (*self.lora, *self.lora_others)


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """How a base in one .safetensors file is told by what its tensors' names begin with: `mark` no other family has ("": one family's,
    whose files are known by having no other's), `starts` are those of each part. Where a file does not say what it predicts, it is
    velocity if it has the `velocity_mark`."""

    mark: str
    starts: Mapping[str, str]
    resolution: int
    velocity_mark: str | None = None
    velocity_resolution: int = 0

    def has_velocity_mark(self, names: Iterable[str]) -> bool:
        """Whether tensors of these names are of a base that predicts velocity."""
        return self.velocity_mark is not None and any(name.startswith(self.velocity_mark) for name in names)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How a family is trained where nothing is said: the learning rate of each method and a LoRA's rank, the text encoder's rate as a
    share of it, the share of the steps after which a text encoder of full fine-tuning stays as it is (0: never), whether `auto` trains
    it at all."""

    full_with_text: float
    full: float
    lora: float
    rank: int = 16
    text_share: float = 0.5
    text_stop: float = 0.0
    trains_text: bool = True


@dataclass(frozen=True)
class Activations:
    """GB of one row at the family's reference side: the most before gradients of any size are there (the end of forward, or where
    backward computes the first layers again), and beside the denoiser's whole gradients late in backward."""

    forward: float
    late: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the memory plan reckons with, counted or measured on the network of so many parameters (`denoiser`) at a `side` in pixels.
    A denoiser that reads its prompt beside the picture has activations of it too, as many as of `prompt_pixels`.

    `activations`: (full or a LoRA's layers, checkpointed) -> in half precision, in float32; `beside_lora`: what another network of the
    family keeps of them beside a LoRA, by its parameters, the LoRA's layers and checkpointing. `drawing`: GB of one row without
    gradients. `quantized`: bytes of a value where the linear layers have 4 bits, with a float32 scale for every 64 values, and the rest
    16; `fp8`: where all but the precise layers have 8, with `fp8_block` GB for the block that is being computed, in 16.
    `lora`, `lora_text`: values of the LoRA at rank 16, by its layers: exact, linear in the rank. These three by a network's
    parameters. `largest`: values of the largest tensor of the denoiser, `largest_with_text`: of the text encoders too. `tflop`: of
    forward and backward of one row, as a x + b x^2 of the pixels against 512 x 512 (the square is attention).
    """

    side: int
    denoiser: int
    activations: Mapping[tuple[Literal["full"] | LoraLayers, bool], tuple[Activations, Activations]]
    drawing: float
    quantized: Mapping[int, float]
    fp8: float = 0.0
    fp8_block: float = 0.0
    lora: Mapping[LoraLayers, Mapping[int, int]]
    lora_text: Mapping[LoraLayers, Mapping[int, int]]
    tflop: tuple[float, float]
    largest: int
    largest_with_text: int
    prompt_pixels: int = 0
    beside_lora: Mapping[tuple[int, LoraLayers, bool], float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family: what its bases are called and made of, how they are told from others, how they are trained and drawn with."""

    name: str  # as plans and `models --json` have it
    title: str
    live: str  # `module:Class` of its `engine.families.latent_diffusion.LatentDiffusion`, imported when a base of it is loaded

    pipeline: str  # the diffusers class that is made
    named: tuple[str, ...]  # those that model_index.json may name
    denoiser: str  # the names of its networks in a diffusers folder, beside the VAE's
    denoiser_title: str
    text_encoders: tuple[str, ...]
    parts: Mapping[str, Part]  # what each network and tokenizer may be
    left_out: tuple[str, ...] = ()  # parts that training and drawing do without
    pipeline_options: Mapping[str, Any] = field(default_factory=dict)  # what the pipeline is told
    pipeline_flags: Mapping[str, bool] = field(default_factory=dict)  # the same, where model_index.json does not say it
    marks: Mapping[str, Any] = field(default_factory=dict)  # in the denoiser's config, what tells it from others of one pipeline
    # what model_index.json and the scheduler's config say of a base that is distilled to a few steps, all of it; and how such a twin is
    # drawn with, its steps and scale (None: none is known that draws with a LoRA of the base)
    distilled_index: Mapping[str, Any] = field(default_factory=dict)
    distilled_schedule: Mapping[str, Any] = field(default_factory=dict)
    fast: tuple[int, float] | None = None
    single_file: SingleFile | None = None  # None: it is not read from one

    noise: Noise
    channels: int = 1  # of the denoiser for each channel of the VAE's latents
    latent_side: int  # of the latents where the denoiser's config says none
    size_numbers: int = 0  # so many tell the denoiser a picture's size
    side_of: int = 8  # pixels: what the sides of any picture are a multiple of
    size_step: int = 64  # pixels: what its VAE and its denoiser divide evenly, in which pictures that are not square are as wide and high

    prompt_length: int  # tokens that are read of a prompt at most, with those that frame it
    prompt_frame: int = 2  # the tokens of that frame: its two ends, or those of a chat
    rare_words: bool = True  # whether a word of one rare token means nothing yet: not to a language model
    class_sampler: SchedulerName | Literal["auto"]  # the one of class images
    guidance: float  # the scale where nothing is said, as its pipeline counts it
    no_guidance: float = 1.0  # the scale there that leaves the prediction as it is
    prior: Literal["class-images", "base"] = "class-images"  # what keeps the class as it was where nothing is said
    class_guidance: float = 7.5  # that of class images
    steps: int = 50  # denoising steps where nothing is said
    methods: tuple[Literal["full", "lora"], ...] = ("full", "lora")
    fits_fp16: bool = True  # whether its networks' numbers stay within fp16's range
    rates: Rates
    figures: Figures

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of its networks in a diffusers folder: the denoiser, the VAE, the text encoders."""
        return (self.denoiser, VAE, *self.text_encoders)

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """The names of its tokenizers there, one to each text encoder."""
        return tuple(map(tokenizer_of, self.text_encoders))

    @property
    def may_train_text(self) -> bool:
        """Whether its text encoders are ever trained."""
        return all(self.parts[name].lora for name in self.text_encoders)


def tokenizer_of(text_encoder: str) -> str:
    """The name of the tokenizer that a text encoder reads by."""
    return text_encoder.replace("text_encoder", "tokenizer")
