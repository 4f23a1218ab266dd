"""What a model family is, as data: no torch, no code. A new family takes a record like these in a file of its own, a live class in
`engine/families/`, and a line in `known.py`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .part_config import Bound
from .schedulers import Noise, SchedulerName

LoraLayers = Literal["attention", "all"]
VAE = "vae"  # every family's, in a diffusers folder


@dataclass(frozen=True, kw_only=True)
class Part:
    """A network or a tokenizer of a base. `classes`: what model_index.json may call it; the first one is built if it names none.

    `config`: the config's keys that are passed to the libraries, each with its bounds. `refused`: keys that only networks of another kind
    have, and what they say about the network. `lora` and `lora_others`: the layers that get a LoRA, those of attention and the rest, by
    the ends of their names; none: it is never trained. `unread`: how many of a text encoder's last blocks its family never reads. `built`:
    the class to build if it is not one of `classes`, a body without its head; of it only `layers` layers are read and kept (0: all).
    `precise`: pieces of the names of layers that keep their number format when a frozen network is stored in 8 bits.
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
        """The ends of the names of the layers that get a LoRA."""
        return self.lora if which == "attention" else (*self.lora, *self.lora_others)


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """How a base in one .safetensors file is recognised by the prefixes of its tensors' names. `mark` is a prefix that no other family
    has ("" for the one family that is assumed if no other's mark is found); `starts` are the prefixes of each part. If a file does not say
    what it predicts, it predicts velocity if it has the `velocity_mark`. `resolution` and `velocity_resolution` are in px."""

    mark: str
    starts: Mapping[str, str]
    resolution: int
    velocity_mark: str | None = None
    velocity_resolution: int = 0

    def has_velocity_mark(self, names: Iterable[str]) -> bool:
        """Whether these tensor names have the mark of a base that predicts velocity."""
        return self.velocity_mark is not None and any(name.startswith(self.velocity_mark) for name in names)


@dataclass(frozen=True, kw_only=True)
class DenoiserFile:
    """The denoiser alone in one .safetensors file, as its makers publish it and ComfyUI keeps it: the beginning of a tensor's name that no
    other file has, the `mark`; `names`, an expression for those of diffusers' weights and what the file calls them (the others are called
    alike): projections of one name are stacked, the query's first; `turned`, the tensors whose two halves stand the other way round."""

    mark: str
    names: Mapping[str, str]
    turned: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How a family is trained by default: the learning rate of each method, a LoRA's rank, the text encoder's rate as a share of the
    learning rate, the share of the steps after which full fine-tuning stops training the text encoder (0: never), and whether `auto`
    trains it at all."""

    full_with_text: float
    full: float
    lora: float
    rank: int = 16
    text_share: float = 0.5
    text_stop: float = 0.0
    trains_text: bool = True


@dataclass(frozen=True)
class Activations:
    """GB of activations for one row at the family's reference size: `forward` is the most before there are many gradients (at the end of
    forward, or where backward computes the first layers again); `late` is what is there together with all the denoiser's gradients, late
    in backward."""

    forward: float
    late: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures that the memory plan uses, counted or measured on a network of `denoiser` parameters with pictures of `side` pixels.
    A denoiser that reads its prompt beside the picture has activations for the prompt too, as many as for `prompt_pixels` pixels.

    `activations`: (full or a LoRA's layers, checkpointed) -> in half precision, in float32. `beside_lora`: the share of these that another
    network of the family has with a LoRA, by its parameters, the LoRA's layers and checkpointing. `drawing`: GB for one row without
    gradients. `quantized`: bytes for each value if the linear layers are in 4 bits, with a float32 scale for every 64 values, and the rest
    in 16 bits; `fp8`: the same if all but the precise layers are in 8 bits, plus `fp8_block` GB for the block that is being computed, in
    16 bits. `lora`, `lora_text`: how many values a LoRA of rank 16 has, by its layers; exact, and proportional to the rank. `quantized`,
    `lora` and `lora_text` are keyed by a network's parameters. `largest`: values in the denoiser's largest tensor; `largest_with_text`:
    in that of denoiser and text encoders. `tflop`: (a, b) of a x + b x^2, the TFLOP for forward and backward of one row, where x is the
    number of pixels relative to 512 x 512 (the square is attention). `reached`: TFLOP a second of a step in bf16 on the cards that were
    measured (memory/duration.py).
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
    reached: float
    largest: int
    largest_with_text: int
    prompt_pixels: int = 0
    beside_lora: Mapping[tuple[int, LoraLayers, bool], float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family: what its bases are called and made of, how they are recognised, how they are trained and drawn with."""

    name: str  # in plans and `models --json`
    title: str
    live: str  # `module:Class` of its `engine.families.latent_diffusion.LatentDiffusion`, imported when a base of it is loaded

    pipeline: str  # the diffusers class that is built
    named: tuple[str, ...]  # the classes that model_index.json may name
    denoiser: str  # in a diffusers folder: the name of its denoiser, and below those of its text encoders; the VAE's is always `vae`
    denoiser_title: str
    beside_denoiser: tuple[str, ...] = ()  # other networks that its pipeline needs while latents are drawn
    text_encoders: tuple[str, ...]
    parts: Mapping[str, Part]  # what each network and tokenizer may be
    # of a family of one base: what the configs of its networks and its scheduler have other than their classes' own, for trials
    true_size: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # parts that training and drawing do without
    pipeline_options: Mapping[str, Any] = field(default_factory=dict)  # arguments of the pipeline
    pipeline_flags: Mapping[str, bool] = field(default_factory=dict)  # arguments that model_index.json may give; these are the defaults
    marks: Mapping[str, Any] = field(default_factory=dict)  # in the denoiser's config: what sets it apart from others with its pipeline
    # what model_index.json and the scheduler's config say about a base that is distilled to a few steps (all of it must be there); and the
    # steps and guidance scale to draw with such a twin (None: no twin is known that draws with a LoRA of the base)
    distilled_index: Mapping[str, Any] = field(default_factory=dict)
    distilled_schedule: Mapping[str, Any] = field(default_factory=dict)
    fast: tuple[int, float] | None = None
    single_file: SingleFile | None = None  # None: it is not read from one
    denoiser_file: DenoiserFile | None = None  # of a family that has no single file

    noise: Noise
    channels: int = 1  # the denoiser's channels for each channel of the VAE's latents
    latent_side: int  # the side of the latents if the denoiser's config does not give it
    size_numbers: int = 0  # how many numbers tell the denoiser a picture's size
    side_of: int = 8  # pixels: the sides of every picture are a multiple of this
    size_step: int = 64  # pixels: the sides of pictures that are not square are a multiple of this, which VAE and denoiser divide evenly

    prompt_length: int  # the most tokens that are read of a prompt, including those of its frame
    prompt_frame: int = 2  # tokens in that frame: start and end, or those of a chat
    rare_words: bool = True  # whether a word of one rare token has no meaning yet; to a language model it may have one
    class_sampler: SchedulerName | Literal["auto"]  # the scheduler for class images, samples and judging: good in few steps
    guidance: float  # the default guidance scale, as its pipeline defines it
    no_guidance: float = 1.0  # the guidance scale at which that pipeline leaves the prediction as it is
    prior: Literal["class-images", "base"] = "class-images"  # what preserves the class by default
    class_guidance: float = 7.5  # the guidance scale for class images
    steps: int = 50  # the default number of denoising steps
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
        """The names of its tokenizers there, one for each text encoder."""
        return tuple(map(tokenizer_of, self.text_encoders))

    @property
    def may_train_text(self) -> bool:
        """Whether its text encoders are ever trained."""
        return all(self.parts[name].lora for name in self.text_encoders)

    def guidance_of_class_images(self, asked: float | Literal["auto"]) -> float:
        """The guidance scale for class images, where so much is asked for."""
        return self.class_guidance if asked == "auto" else asked


def tokenizer_of(text_encoder: str) -> str:
    """The name of a text encoder's tokenizer."""
    return text_encoder.replace("text_encoder", "tokenizer")
