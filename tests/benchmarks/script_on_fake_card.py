"""diffusers' own DreamBooth scripts on the fake card: what their step would demand of a card, for `tests.benchmarks.kernels --peer PATH`.

A script's whole `main` runs from its own file, with its own arguments, on photos and class images on disk: its Accelerator, data loader,
optimizer and loop are the same as on a card. Only two things differ: the networks are built from their configurations, without values,
where `from_pretrained` would read them; and the script is stopped after the second step, which is counted.
"""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from dreambooth_cli.bases.catalog import find_entry
from dreambooth_cli.bases.true_sizes import VAE
from dreambooth_cli.engine.families.random_base import make_vae, pipeline_of, text_config
from tests import small_models
from tests.fake_card.card import Card, fake_card
from tests.fake_card.counting import Count, StepCount

from .bases import CONFIGS
from .speed import draw_noise

VOCABULARY, TOKENS = 49_408, 77
LARGE = 1 << 20
# The optimizer's: what torch's and bitsandbytes' do, and the clipping of gradients.
OPTIMIZER = ("/torch/optim/", "/bitsandbytes/optim/", "/torch/nn/utils/clip_grad.py")
PHOTOS = 3


@dataclass(frozen=True)
class Script:
    """A script's file, the base that it trains, what it is told beside base, pictures and prompts, and ours beside it: the means of a
    plan without bounds."""

    file: str
    base: str
    flags: tuple[str, ...]
    ours: dict[str, Any]

    @property
    def words(self) -> str:
        """How it is called in the table."""
        return " ".join([self.file, *self.flags])


FULL, XL_LORA = "train_dreambooth.py", "train_dreambooth_lora_sdxl.py"
TEXT, LEAN, LORA = ("--set_grads_to_none", "--train_text_encoder"), ("--gradient_checkpointing", "--use_8bit_adam"), ("--rank", "16")
CHECKPOINTED: dict[str, Any] = {"gradient_checkpointing": True}
EVERYTHING: dict[str, Any] = {"method": "full", "train_text_encoder": True}
UNET_LORA: dict[str, Any] = {"method": "lora", "train_text_encoder": False}
SCRIPTS = (
    Script(FULL, "sd15", TEXT, EVERYTHING),
    Script(FULL, "sd15", (*TEXT, *LEAN), EVERYTHING | CHECKPOINTED | {"optimizer": "adamw8bit"}),
    Script(FULL, "sd21", TEXT, EVERYTHING),
    Script(XL_LORA, "sdxl", LORA, UNET_LORA),
    Script(XL_LORA, "sdxl", (*LORA, *LEAN[:1]), UNET_LORA | CHECKPOINTED),
)


class Done(Exception):
    """The step that is to be counted is over."""


def count_script(script: Script, peer: Path, shim: str | None = None) -> StepCount:
    """Run a script of the folder `peer` on the fake card until its second step is over, and count that. `shim`: folders between colons
    with the torchvision that it imports, where none is installed."""
    entry = find_entry(script.base)
    assert entry is not None
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if shim is not None:  # not before: transformers would look for more in it than the script does
            stack.enter_context(mock.patch.object(sys, "path", [*sys.path, *shim.split(os.pathsep)]))
        work = Path(folder)
        write_base(script.base, work / "base")
        for name in ("photos", "class"):
            draw_noise(work / name, PHOTOS, entry.facts.resolution)
        module = load_script(peer / script.file)
        args = module.parse_args(arguments(script, work, entry.facts.resolution))
        module.args = args  # it is a global of the script's, which its functions read
        card = stack.enter_context(fake_card(fake_above=LARGE))
        stack.enter_context(networks_without_values())
        bar = Bar(card)
        stack.enter_context(mock.patch.object(module, "tqdm", bar))
        try:
            module.main(args)
        except Done:
            assert bar.count is not None
            return bar.count
    raise AssertionError(f"{script.file} ended before its second step")


def arguments(script: Script, work: Path, resolution: int) -> list[str]:
    """The script's arguments, as `tests.benchmarks.speed` gives them."""
    return [
        *("--pretrained_model_name_or_path", str(work / "base"), "--output_dir", str(work / "output")),
        *("--instance_data_dir", str(work / "photos"), "--instance_prompt", "a photo of a sks dog"),
        *("--class_data_dir", str(work / "class"), "--class_prompt", "a photo of a dog", "--with_prior_preservation"),
        *("--num_class_images", str(PHOTOS), "--train_batch_size", "1", "--resolution", str(resolution)),
        *("--max_train_steps", "3", "--learning_rate", "5e-6", "--lr_warmup_steps", "0", "--seed", "1"),
        *("--mixed_precision", "bf16", "--checkpointing_steps", "100000", *script.flags),
    ]


class Bar:
    """In place of the script's progress bar, by which it is known where a step begins and ends: the second is counted."""

    def __init__(self, card: Card) -> None:
        self.card, self.steps = card, 0
        self.work = Count(card, is_optimizer)
        self.count: StepCount | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> "Bar":
        return self

    def update(self, number: int) -> None:
        """The weights were moved."""
        self.steps += number

    def set_postfix(self, **logs: float) -> None:
        """The loss was read: a step is over."""
        if self.steps == 1:
            self.card.waits.clear()
            self.card.forget_most()
            self.work.__enter__()
            return
        self.work.__exit__()
        trained = trained_of(sys._getframe(1).f_locals)
        values = sum(parameter.numel() for parameter in trained)
        self.count = StepCount(self.work.passes, self.work.optimizer, tuple(self.card.waits), self.card.most, values, checkpoint=0)
        raise Done


def trained_of(names: dict[str, Any]) -> list[torch.Tensor]:
    """What the script's optimizer moves."""
    return [parameter for group in names["optimizer"].param_groups for parameter in group["params"]]


def is_optimizer() -> bool:
    """Whether an optimizer, or the clipping, is at work."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if any(part in frame.f_code.co_filename for part in OPTIMIZER):
            return True
        frame = frame.f_back
    return False


def load_script(path: Path) -> Any:
    """A script as a module; its `main` does not run by that."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_base(name: str, folder: Path) -> None:
    """A base of full size without its weights: configurations, tokenizers, scheduler."""
    config, encoders, _ = CONFIGS[name]
    small_models.write_tokenizer(folder / "made", pad="<|endoftext|>")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "made")
    tokenizer.model_max_length = TOKENS
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    with torch.device("meta"):
        texts: list[Any] = [kind(text_config(one, VOCABULARY)) for kind, one in zip(kinds, encoders, strict=False)]
        parts = {"unet": UNet2DConditionModel(**config), "vae": make_vae(VAE), "text_encoder": texts[0]}
    pipe = pipeline_of(name, dict(parts), texts, tokenizer)
    pipe.save_config(folder)
    held: dict[str, Any] = {part: one for part, one in pipe.components.items() if one is not None}
    for part, one in held.items():
        if part.startswith("text_encoder"):
            one.config.architectures = [type(one).__name__]
            one.config.save_pretrained(folder / part)
        elif part in ("unet", "vae"):
            one.save_config(folder / part)
        else:
            one.save_pretrained(folder / part)


@contextmanager
def networks_without_values() -> Iterator[None]:
    """`from_pretrained` makes a network of its configuration, on the card, where its parameters then stay the same objects: the script
    makes its optimizer before the Accelerator moves the network there."""

    def of_diffusers(cls: Any) -> Any:
        def make(path: str, subfolder: str, **_: Any) -> Any:
            with torch.device("meta"):
                network = cls.from_config(cls.load_config(path, subfolder=subfolder))
            return network.to("cuda").eval()

        return make

    def of_transformers(cls: Any) -> Any:
        def make(path: str, subfolder: str, **_: Any) -> Any:
            with torch.device("meta"):
                network = cls(CLIPTextConfig.from_pretrained(path, subfolder=subfolder))
            return network.to("cuda").eval()

        return make

    with ExitStack() as stack:
        for kind in (UNet2DConditionModel, AutoencoderKL):
            stack.enter_context(mock.patch.object(kind, "from_pretrained", of_diffusers(kind)))
        for encoder in (CLIPTextModel, CLIPTextModelWithProjection):
            stack.enter_context(mock.patch.object(encoder, "from_pretrained", of_transformers(encoder)))
        yield
