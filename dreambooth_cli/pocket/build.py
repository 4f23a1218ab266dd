"""The recipe of the pocket model: from a seed to its weights, in one command.

    python -m dreambooth_cli.pocket.build --work FOLDER [--part vae --part clip ...] [--minutes 60]

The parts are trained one after the other: the VAE, CLIP's two halves, the judge, and the UNet, which needs the VAE's latents
and the text encoder. Each writes its state to FOLDER once a minute and goes on from there when it is started again;
a part that has done all its steps is left alone. A part without a state there starts from the package's weights with a
fresh optimizer. At the end, or when the minutes are over, the weights are written to `pocket/model` and `pocket/judge`, in float16.

The world's pictures are drawn from the seed; they and their latents are kept only in FOLDER.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, PNDMScheduler
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from . import world
from .judge import Judge, Reader, Recogniser, cut_out
from .parts import (
    clip_loss,
    make_clip,
    make_unet,
    make_vae,
    picture_loss,
    reader_loss,
    tokenize,
    vae_loss,
    write_tokenizer,
)
from .pictures import MEMBERS, SEED, Array, Network, Pictures, labels_of, spoil, to_tensor

MODEL = Path(__file__).with_name("model")
JUDGE = Path(__file__).with_name("judge")
RECIPE = Path(__file__).with_name("recipe.json")
LONGEST = 20  # tokens that a caption of the world can have
MIN_SNR = 5.0
HARD = ("dotted", "checkered", "zigzag")  # after 26,000 steps 55, 67 and 53% of these came out right, of striped 96%
LATENT_NOISE = 0.08  # about what a sampler leaves in the latents, and about the deviation of the VAE's posterior

PICTURES = 100_000
TEMPERATURE = 0.07  # that the recogniser's cosines are divided by

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.38.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


@dataclass(frozen=True)
class Stage:
    """How one part is trained: by AdamW, whose learning rate falls along a cosine from `rate` to a twentieth of it after a warm-up of 200
    steps."""

    steps: int
    batch: int
    rate: float
    decay: float = 0.999  # of the weights' moving average, which is what is kept


STAGES = {
    "vae": Stage(steps=8_000, batch=16, rate=2e-3, decay=0.995),
    "decoder": Stage(steps=20_000, batch=16, rate=1e-3, decay=0.995),
    "clip": Stage(steps=3_000, batch=192, rate=1e-3, decay=0.995),
    "reader": Stage(steps=10_000, batch=64, rate=2e-3, decay=0.995),
    "recogniser": Stage(steps=6_000, batch=60, rate=1e-3, decay=0.995),
    "unet": Stage(steps=34_000, batch=32, rate=8e-4, decay=0.999),
}


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(
        prog="python -m dreambooth_cli.pocket.build", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures and states; a few GB")
    parser.add_argument("--part", action="append", choices=list(STAGES), help="only this part; may be given again")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long, and keep what there is")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    sitting = Sitting(asked.work, time.time() + 60 * asked.minutes, torch.device(asked.device))
    build(asked.part or list(STAGES), sitting)


@dataclass(frozen=True)
class Sitting:
    """One sitting at the recipe: the folder with its pictures and states, the time at which it stops (seconds since 1970), and the
    device."""

    work: Path
    until: float
    device: torch.device


def build(parts: list[str], sitting: Sitting) -> None:
    """Train the named parts, in the recipe's order, each until its steps are done or the time is over; then write what there is to the
    package."""
    work = sitting.work
    pictures = Pictures(work, PICTURES)
    tokenizer = write_tokenizer(work / "tokenizer")
    for name in (name for name in STAGES if name in parts and time.time() < sitting.until):
        if name == "vae":
            train_vae(pictures, sitting)
        elif name == "decoder":
            train_decoder(pictures, scaled(load_part("vae", work), pictures), sitting)
        elif name == "clip":
            train_clip(pictures, tokenizer, sitting)
        elif name == "reader":
            train_reader(pictures, sitting)
        elif name == "recogniser":
            train_recogniser(pictures, load_part("reader", work), sitting)
        else:
            vae, text = scaled(load_part("vae", work), pictures), load_part("clip", work).text
            train_unet(pictures, vae, text, tokenizer, sitting)
    for name in parts:
        write_part(name, work, pictures)


def make_part(name: str) -> Network:
    """A part with its initial weights, which follow from the seed."""
    makers = {
        "vae": make_vae,
        "decoder": make_vae,
        "clip": make_clip,
        "reader": Reader,
        "recogniser": Recogniser,
        "unet": make_unet,
    }
    torch.manual_seed(SEED)
    return makers[name]()


def load_part(name: str, work: Path) -> Network:
    """A part with its averaged weights, from the work folder or else from the package, in float32."""
    path = work / f"{name}.safetensors"
    if path.exists():
        state = {
            key.removeprefix("average."): value for key, value in load_file(path).items() if key.startswith("average.")
        }
    else:
        state = _kept(name)
    part = make_part(name)
    part.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    return part.eval()


def train_vae(pictures: Pictures, sitting: Sitting) -> None:
    """Train the autoencoder, on the pictures alone."""
    device = sitting.device
    vae, pixels, masks = make_part("vae"), pictures.pixels(), pictures.masks()

    def loss_of(random: Random, batch: int) -> Tensor:
        rows = sorted(random.randrange(pictures.count) for _ in range(batch))
        return vae_loss(vae, to_tensor(pixels[rows]).to(device), _inside(masks[rows]).to(device))

    train("vae", vae, loss_of, sitting)


def train_decoder(pictures: Pictures, vae: Network, sitting: Sitting) -> None:
    """Train only the VAE's decoder, so that the latents stay as they are."""
    device = sitting.device
    latents, pixels, masks = pictures.latents(vae, device), pictures.pixels(), pictures.masks()
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)

    def loss_of(random: Random, batch: int) -> Tensor:
        rows = sorted(random.randrange(pictures.count) for _ in range(batch))
        clean = torch.from_numpy(latents[rows]).float().to(device) / vae.config.scaling_factor
        drawn = vae.decode(clean + LATENT_NOISE * torch.randn_like(clean)).sample
        return picture_loss(drawn, to_tensor(pixels[rows]).to(device), _inside(masks[rows]).to(device))

    train("decoder", vae, loss_of, sitting)


def _inside(masks: Array) -> Tensor:
    return torch.from_numpy(masks).float().div(255)[:, None]


def train_clip(pictures: Pictures, tokenizer: Network, sitting: Sitting) -> None:
    """Train both halves of CLIP together, on pictures and captions with words dropped at random."""
    device = sitting.device
    clip, pixels = make_part("clip"), pictures.pixels()

    def loss_of(random: Random, batch: int) -> Tensor:
        rows = sorted(random.randrange(pictures.count) for _ in range(batch))
        scenes = [pictures.scene(row) for row in rows]
        captions = [world.draw_caption(scene, random) for scene in scenes]
        seen = labels_of(scenes)["pattern"]
        told = torch.tensor(
            [scene.individual.pattern in caption for scene, caption in zip(scenes, captions, strict=True)]
        )
        # The text half is causal: what comes after the end token changes nothing, so it is left out.
        tokens = tokenize(tokenizer, captions)[:, :LONGEST]
        return clip_loss(clip, to_tensor(pixels[rows]).to(device), tokens.to(device), seen.to(device), told.to(device))

    train("clip", clip, loss_of, sitting)


def train_reader(pictures: Pictures, sitting: Sitting) -> None:
    """Train the judge's reader to tell attributes and masks, on spoiled pictures."""
    device = sitting.device
    reader, pixels, masks = make_part("reader"), pictures.pixels(), pictures.masks()

    def loss_of(random: Random, batch: int) -> Tensor:
        rows = sorted(random.randrange(pictures.count) for _ in range(batch))
        seen, gray = spoil(to_tensor(pixels[rows]), random, gray_share=1 / 6)
        labels = {name: label.to(device) for name, label in labels_of([pictures.scene(row) for row in rows]).items()}
        truth = torch.from_numpy(masks[rows]).float().div(255).to(device)
        return reader_loss(reader(seen.to(device)), labels, truth, gray.to(device))

    train("reader", reader, loss_of, sitting)


def train_recogniser(pictures: Pictures, reader: Reader, sitting: Sitting) -> None:
    """Train the judge's recogniser to match two pictures of one individual among the batch's other individuals, which include its
    look-alikes."""
    device = sitting.device
    recogniser, families = make_part("recogniser"), pictures.families()
    reader.to(device).eval()

    def loss_of(random: Random, batch: int) -> Tensor:
        rows = sorted(random.sample(range(len(families)), batch // MEMBERS))
        pairs = families[rows].reshape(-1, 2, *families.shape[3:])
        pixels, _ = spoil(to_tensor(np.concatenate([pairs[:, 0], pairs[:, 1]])), random, gray_share=0.0)
        pixels = pixels.to(device)
        with torch.no_grad():
            crops = cut_out(pixels, reader(pixels).mask.sigmoid())
        first, second = recogniser(crops).chunk(2)
        likeness = first @ second.T / TEMPERATURE
        right = torch.arange(len(first), device=device)
        return (F.cross_entropy(likeness, right) + F.cross_entropy(likeness.T, right)) / 2

    train("recogniser", recogniser, loss_of, sitting)


def train_unet(pictures: Pictures, vae: Network, text: Network, tokenizer: Network, sitting: Sitting) -> None:
    """Train the UNet to predict noise, with min-SNR weights (Hang et al. 2023, arXiv 2303.09556) and one caption in ten empty."""
    device = sitting.device
    unet, latents = make_part("unet"), pictures.latents(vae, device)
    noises: Any = DDPMScheduler(**BETAS)
    snr = noises.alphas_cumprod / (1 - noises.alphas_cumprod)
    weights = (snr.clamp(max=MIN_SNR) / snr).to(device)
    text.to(device).eval()

    def loss_of(random: Random, batch: int) -> Tensor:
        rows = sorted(_draw_row(pictures, random) for _ in range(batch))
        captions = [world.draw_caption(pictures.scene(row), random) if random.random() < 0.9 else "" for row in rows]
        generator = torch.Generator().manual_seed(random.getrandbits(32))
        clean = torch.from_numpy(latents[rows]).float()
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(0, 1000, (batch,), generator=generator)
        noisy = noises.add_noise(clean, noise, timesteps).to(device)
        with torch.no_grad():
            states = text(tokenize(tokenizer, captions).to(device)).last_hidden_state
        predicted = unet(noisy, timesteps.to(device), states).sample.float()
        loss: Tensor = (weights[timesteps] * (predicted - noise.to(device)).square().mean((1, 2, 3))).mean()
        return loss

    train("unet", unet, loss_of, sitting)


def _draw_row(pictures: Pictures, random: Random) -> int:
    """The number of a random picture; patterns that are hard to draw come twice as often."""
    while True:
        row = random.randrange(pictures.count)
        if pictures.scene(row).individual.pattern in HARD or random.random() < 0.5:
            return row


LossOf = Callable[[Random, int], Tensor]  # takes the step's own random numbers and the number of rows


def train(name: str, model: nn.Module, loss_of: LossOf, sitting: Sitting) -> None:
    """Train up to the stage's last step or until the time is over; the state is kept in the work folder."""
    stage, work, device = STAGES[name], sitting.work, sitting.device
    model.to(device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=stage.rate, betas=(0.9, 0.99), weight_decay=0.01)
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    step = _bring_back(work / f"{name}.safetensors", model, optimizer, average)
    saved, losses, began = time.monotonic(), [], time.monotonic()
    for step in range(step, stage.steps):  # noqa: B020 (goes on from the step that was kept)
        for group in optimizer.param_groups:
            group["lr"] = stage.rate * _schedule(step, stage.steps)
        random = Random(f"{SEED} {name} {step}")
        torch.manual_seed(random.getrandbits(32))
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_of(random, stage.batch)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(stage.decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for key, value in model.state_dict().items():
                average[key].lerp_(value, 1 - decay) if value.is_floating_point() else average[key].copy_(value)
        losses.append(loss.detach())
        if (step + 1) % 50 == 0:
            _note(work / f"{name}.jsonl", step + 1, torch.stack(losses).mean().item(), time.monotonic() - began)
            losses = []
        done = step + 1 == stage.steps or time.time() > sitting.until
        if done or time.monotonic() - saved > 60:
            _keep(work / f"{name}.safetensors", step + 1, model, optimizer, average)
            saved = time.monotonic()
        if done:
            break


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / 200)
    return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _note(path: Path, step: int, loss: float, seconds: float) -> None:
    with path.open("a") as file:
        file.write(json.dumps({"step": step, "loss": round(loss, 5), "seconds": round(seconds)}) + "\n")
    if step % 200 == 0:
        print(f"{path.stem}: step {step:,}, loss {loss:.4f}, {seconds:.0f} s", flush=True)


def _keep(
    path: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> None:
    """Write the weights, their average and Adam's moments to another file, then rename it: a stop at any time leaves a whole file."""
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.items()}
    for key, parameter in _trained(model):
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}.{key}"] = optimizer.state[parameter][moment]
    beside = path.with_suffix(".new")
    save_file({key: value.contiguous() for key, value in tensors.items()}, beside, {"step": str(step)})
    os.replace(beside, path)


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _bring_back(path: Path, model: nn.Module, optimizer: torch.optim.AdamW, average: dict[str, Tensor]) -> int:
    """Restore what `_keep` wrote and return the step. If there is nothing, take the package's weights and step, with a fresh
    optimizer."""
    name = path.stem
    if not path.exists():
        if not RECIPE.exists() or name not in (parts := json.loads(RECIPE.read_text())["parts"]):
            return 0
        model.load_state_dict({key: value.float() for key, value in _kept(name).items()}, strict=False)
        average.update({key: value.detach().clone() for key, value in model.state_dict().items()})
        return int(parts[name]["steps_done"])
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    state = load_file(path)
    model.load_state_dict({key: state[f"model.{key}"] for key in average})
    for key in average:
        average[key].copy_(state[f"average.{key}"])
    for key, parameter in _trained(model):
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            **{moment: state[f"{moment}.{key}"].to(parameter.device) for moment in ("exp_avg", "exp_avg_sq")},
        }
    return step


def scaled(vae: Network, pictures: Pictures) -> Network:
    """The VAE with the scaling factor that brings the latents of the world's first 1,000 pictures to a deviation of 1."""
    with torch.no_grad():
        mean = vae.encode(to_tensor(pictures.pixels()[:1_000])).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / mean.std().item(), 4))
    return vae


def write_part(name: str, work: Path, pictures: Pictures) -> None:
    """Write a part to the package in float16, laid out as diffusers and transformers do, and how it was trained to `recipe.json`."""
    part = load_part(name, work)
    if name in ("vae", "decoder"):
        scaled(part, pictures).half().save_pretrained(MODEL / "vae")
    elif name == "unet":
        part.half().save_pretrained(MODEL / "unet")
    elif name == "clip":
        _write_text_encoder(part.text)
        part.image.half().save_pretrained(JUDGE / "image_encoder")
        projection = {
            "weight": part.text.text_projection.weight.half(),
            "patterns": part.patterns.weight.half(),
            "log_scale": part.log_scale.detach(),
        }
        save_file(projection, JUDGE / "text_projection.safetensors")
    else:
        save_file(part.half().state_dict(), JUDGE / f"{name}.safetensors")
    for path in (*MODEL.rglob("*.safetensors"), *JUDGE.rglob("*.safetensors")):
        path.chmod(0o644)  # safetensors creates files that only their owner can read
    write_tokenizer(MODEL / "tokenizer")
    scheduler: Any = PNDMScheduler(skip_prk_steps=True, steps_offset=1, **BETAS)
    scheduler.save_pretrained(MODEL / "scheduler")
    (MODEL / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
    _write_recipe(name, work)


def _write_text_encoder(text: Network) -> None:
    encoder = CLIPTextModel(text.config)
    encoder.load_state_dict(
        {key.removeprefix("text_model."): value for key, value in text.state_dict().items()}, strict=False
    )
    state = {
        f"text_model.{key.removeprefix('text_model.')}": value for key, value in encoder.half().state_dict().items()
    }
    encoder.save_pretrained(MODEL / "text_encoder", state_dict=state)
    # otherwise transformers 5 would load it in half precision beside a UNet in float32, and the first picture would fail
    config = MODEL / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")


def _kept(name: str) -> dict[str, Tensor]:
    """A part's weights as they are in the package."""
    if name in ("vae", "decoder", "unet"):
        return load_file(MODEL / name.replace("decoder", "vae") / "diffusion_pytorch_model.safetensors")
    if name in ("reader", "recogniser"):
        return load_file(JUDGE / f"{name}.safetensors")
    projection = load_file(JUDGE / "text_projection.safetensors")
    text, image = (
        load_file(MODEL / "text_encoder" / "model.safetensors"),
        load_file(JUDGE / "image_encoder" / "model.safetensors"),
    )
    return {
        **{f"text.{key}": value for key, value in text.items()},
        **{f"image.{key}": value for key, value in image.items()},
        "text.text_projection.weight": projection["weight"],
        "patterns.weight": projection["patterns"],
        "log_scale": projection["log_scale"],
    }


def _write_recipe(name: str, work: Path) -> None:
    """Write a part's settings, steps and loss curve, whose points are means over 50 steps, to `recipe.json`."""
    recipe: dict[str, Any] = (
        json.loads(RECIPE.read_text()) if RECIPE.exists() else {"seed": SEED, "pictures": PICTURES, "parts": {}}
    )
    points = [json.loads(line) for line in (work / f"{name}.jsonl").read_text().splitlines()]
    losses = {point["step"]: point["loss"] for point in points}  # steps after the last save are repeated; the later figures count
    recipe["parts"][name] = {
        **asdict(STAGES[name]),
        "steps_done": max(losses),
        "losses": sorted(losses.items()),
    }
    RECIPE.write_text(json.dumps(recipe) + "\n")


def measure_vae(vae: Network, scenes: list[world.Scene], device: torch.device) -> float:
    """The VAE's PSNR in dB over these scenes, from the mean squared error of all of them, with pixels in 0..1."""
    pixels = to_tensor(np.stack([np.asarray(world.render(scene)) for scene in scenes])).to(device)
    with torch.no_grad():
        drawn = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    return -10 * math.log10((drawn - pixels).div(2).square().mean().item())


def measure_judge(judge: Judge, scenes: list[world.Scene]) -> dict[str, float]:
    """The share of right answers to each question and to the class in gray pictures, and the masks' intersection over union."""
    pixels = to_tensor(np.stack([np.asarray(world.render(scene)) for scene in scenes]))
    masks = torch.from_numpy(np.stack([np.asarray(world.render_mask(scene)) for scene in scenes])) > 127
    reading, labels = judge.read(pixels), labels_of(scenes)
    right = {name: (reading.logits[name].argmax(1) == label).float().mean().item() for name, label in labels.items()}
    gray = judge.read(pixels.mean(1, keepdim=True).expand_as(pixels))
    right["class in gray"] = (gray.logits["class"].argmax(1) == labels["class"]).float().mean().item()
    seen = reading.mask > 0
    right["mask"] = ((seen & masks).sum() / (seen | masks).sum()).item()
    return right


if __name__ == "__main__":
    main()
