"""A family is two files and two lines: with these alone its bases are read, trained, resumed, drawn from and saved like any other."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from PIL import Image
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from torch.testing import assert_close
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.engine.families.loading import load_family
from dreambooth_cli.engine.families.noising import RectifiedFlow, shifted
from dreambooth_cli.engine.images.sampling import Drawing, draw
from dreambooth_cli.engine.training.effect import sketch
from dreambooth_cli.errors import ModelUnavailable, UsageError
from dreambooth_cli.events import CheckpointSaved, ClassImageMade, ImageSaved, SampleSaved, StepDone
from dreambooth_cli.families import known
from dreambooth_cli.settings import GenerateSettings
from dreambooth_cli.source import Source
from dreambooth_cli.workflows.generate import generate
from tests.engine.plans import base_of
from tests.flow_family.live import TEMPLATE
from tests.workflows.projects import make_project, model_of, of_kind, run, start

SETTINGS = {"steps": 6, "identifier": "zibo", "class_image_steps": 2, "seed": 3}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_lines(monkeypatch):
    """What a new family adds to `families/known.py`: the import of its record, and its line in the table."""
    from tests.flow_family.record import TINY_FLOW

    monkeypatch.setattr(known, "FAMILIES", [*known.FAMILIES, TINY_FLOW])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base of it with random weights, as diffusers saves one."""
    folder = tmp_path_factory.mktemp("bases") / "tiny-flow"
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        write_base(folder)
    return folder


def write_base(folder: Path) -> None:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = {token: number for number, token in enumerate([*sorted(ByteLevel.alphabet()), *specials])}
    tokenizer = Qwen2Tokenizer(
        vocab=words,
        merges=[],
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=specials[1:],
    )
    tokenizer.chat_template = TEMPLATE
    encoder = Qwen3Config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[4, 6, 6],
        axes_lens=[256, 64, 64],
    )
    for weight in transformer.parameters():  # its last layer begins at zero, and its pad tokens where memory was
        torch.nn.init.normal_(weight, std=0.2)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
    ZImagePipeline(scheduler, vae, Qwen3Model(encoder), tokenizer, transformer).save_pretrained(folder)


def plain_picture(base, lora=None):
    """What plain diffusers draws."""
    pipe = ZImagePipeline.from_pretrained(base)
    if lora is not None:
        pipe.load_lora_weights(lora)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    prompt = ["a photo of a zibo dog"]
    return np.asarray(pipe(prompt, num_inference_steps=2, guidance_scale=3.0, width=32, height=32, generator=generator).images[0])


def our_picture(model, folder, **settings):
    """What `generate` draws."""
    asked = GenerateSettings(seed=5, steps=2, **settings)
    events = list(generate(Source(model), "a photo of a zibo dog", asked, output_dir=folder))
    (saved,) = of_kind(events, ImageSaved)
    with Image.open(saved.path) as image:
        return np.asarray(image)


def test_it_is_two_files_and_two_lines():
    """The record and its live class; what else lies here proves it, and no file of the package names it or its classes."""
    here = Path(__file__).parent
    assert {file.name for file in here.glob("*.py")} == {"__init__.py", "record.py", "live.py", Path(__file__).name}
    package = Path(known.__file__).parents[1]
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not [word for word in ("tiny-flow", "TinyFlow", "ZImage", "Qwen") if word in text], file


def test_what_a_base_of_it_is(base):
    facts = read_facts(base)
    assert (facts.family.name, facts.prediction_type, facts.resolution) == ("tiny-flow", "flow", 32)
    counted = {part: sum(value.numel() for value in load_file(file).values()) for part in ("transformer", "vae", "text_encoder")
               for file in (base / part).glob("*.safetensors")}
    assert (facts.denoiser, facts.vae, facts.text_encoders) == (counted["transformer"], counted["vae"], (counted["text_encoder"],))


def test_it_is_trained_resumed_to_the_bit_sampled_saved_drawn_and_loaded_again(base, photos, tmp_path):
    project = make_project(photos, base, sample_every=6, sample_steps=2, **SETTINGS)
    events = run(project)
    assert [event.step for event in of_kind(events, StepDone)] == [1, 2, 3, 4, 5, 6]
    assert len(of_kind(events, ClassImageMade)) == 2
    assert len(of_kind(events, SampleSaved)) == 2
    model = model_of(events)
    weights = load_file(model / "pytorch_lora_weights.safetensors")
    assert weights
    assert all(name.startswith("transformer.") for name in weights)

    stopped = make_project(photos, base, name="stopped", checkpoint_every=3, **SETTINGS)
    with closing(start(stopped)) as going:
        next(event for event in going if isinstance(event, CheckpointSaved))
    rest = run(stopped)
    assert [event.step for event in of_kind(rest, StepDone)] == [4, 5, 6]
    resumed = load_file(model_of(rest) / "pytorch_lora_weights.safetensors")
    assert_close(resumed, weights, rtol=0, atol=0)

    ours, base_alone = our_picture(model, tmp_path / "ours"), plain_picture(base)
    assert np.array_equal(ours, plain_picture(base, model))
    assert not np.array_equal(ours, base_alone)


def test_a_picture_of_the_base_is_plain_diffusers_and_decoding_knows_the_shift(base):
    family = load_family(base_of(base), dtype=torch.float32, device=CPU)
    (ours,) = draw(family, ["a photo of a zibo dog"], [5], Drawing(steps=2, guidance_scale=4.0, width=32, height=32))
    assert np.array_equal(np.asarray(ours), plain_picture(base))
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoded = family.encode_images(pixels)
    latents = family.sample_latents(encoded, torch.zeros_like(encoded.mean))
    with torch.no_grad():
        expected = family.pipe.vae.decode(encoded.mean).sample
    assert_close(family.decode(latents), expected)


def test_a_language_model_is_saved_under_its_own_names(base, tmp_path):
    from dreambooth_cli.engine.saving import save_network

    family = load_family(base_of(base), dtype=torch.float32, device=CPU)
    save_network(family.pipe.text_encoder, tmp_path / "saved", torch.float32)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "saved", base / "text_encoder"))
    assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"method": "full"}, "--method full"),
        ({"train_text_encoder": True}, "text encoder"),
        ({"snr_gamma": 5.0}, "--snr-gamma"),
    ],
)
def test_what_is_not_done_with_it_is_refused_before_any_work(flags, told, base, photos):
    with pytest.raises(UsageError, match=told):
        run(make_project(photos, base, **SETTINGS), **flags)


def test_a_scheduler_of_diffusion_does_not_draw_with_it(base, tmp_path):
    with pytest.raises(UsageError, match="does not draw with Tiny Flow"):
        our_picture(base, tmp_path, scheduler="ddim")


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("model_index.json", {"transformer": ["diffusers", "FluxTransformer2DModel"]}, "its transformer is of the class"),
        ("model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "its scheduler is DDIMScheduler"),
        ("transformer/config.json", {"n_layers": 10_000}, "n_layers can't be 10000"),
        ("transformer/config.json", {"in_channels": 8}, "latents have 4 channels"),
        ("text_encoder/config.json", {"hidden_size": -1}, "hidden_size can't be -1"),
    ],
)
def test_a_damaged_base_of_it_is_refused_like_any_other(file, change, told, base, tmp_path):
    import shutil

    folder = Path(shutil.copytree(base, tmp_path / "damaged"))
    config = json.loads((folder / file).read_text()) | change
    (folder / file).write_text(json.dumps(config))
    with pytest.raises(ModelUnavailable, match=told):
        read_facts(folder)


def test_the_straight_way_is_the_same_by_hand():
    """(1 - sigma) z + sigma eps, whose derivative by sigma is the target; a network that says it exactly is drawn back to z."""
    noising, generator = RectifiedFlow(lambda shape: 3.0), torch.Generator().manual_seed(0)
    z, eps = (torch.randn(2, 4, 6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    sigmas = torch.tensor([0.25, 0.9], dtype=torch.float64, requires_grad=True)
    noisy = noising.add_noise(z, eps, sigmas)
    (slope,) = torch.autograd.grad(noisy[0, 0, 0, 0], sigmas)
    target = noising.target(z, eps, sigmas)
    assert_close(slope[0], target[0, 0, 0, 0])
    assert_close(noisy.detach() - sigmas.detach()[:, None, None, None] * target, z)
    drawn = noising.sketch(eps[:1].float(), lambda noisy, sigma: (eps[:1] - z[:1]).float(), steps=7)
    assert_close(drawn, z[:1].float())
    assert float(shifted(torch.tensor(0.5), 3.0)) == 0.75


def sigmas(shift):
    """Many draws, float64."""
    noising, shape = RectifiedFlow(lambda shape: shift), torch.Size([4, 8, 8])
    drawn = [noising.random_time(torch.Generator().manual_seed(seed), shape) for seed in range(2000)]
    return torch.tensor(drawn, dtype=torch.float64)


def test_sigmas_are_drawn_continuously_and_shifted():
    plain, far = sigmas(1.0), sigmas(3.0)
    assert len(plain.unique()) == 2000
    assert bool((plain > 0).all() and (plain < 1).all())
    assert plain.median().item() == pytest.approx(0.5, abs=0.02)
    assert far.median().item() == pytest.approx(0.75, abs=0.02)
    assert plain.logit().std().item() == pytest.approx(1.0, abs=0.05)


def test_the_effect_is_asked_of_the_family_s_own_noise(base):
    family = load_family(base_of(base), dtype=torch.float32, device=CPU)
    with torch.no_grad():
        prompt = family.encode_prompts(["a photo of a zibo dog"])
    drawn = sketch(family, prompt, torch.Size([4, 16, 16]))
    assert drawn.shape == (1, 4, 16, 16)
    assert drawn.isfinite().all()
