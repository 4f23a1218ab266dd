"""Z-Image and FLUX.2 klein are read, trained, resumed, drawn from and saved like any other base."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.cli.asking import of_the_answer
from dreambooth_cli.cli.wizard import judge_model
from dreambooth_cli.engine.exports import single_file
from dreambooth_cli.engine.exports.weights import Model, Weights
from dreambooth_cli.engine.families.latent_diffusion import denoiser_of
from dreambooth_cli.engine.families.loading import load_family
from dreambooth_cli.engine.families.lora_file import load_lora
from dreambooth_cli.engine.training.effect import sketch
from dreambooth_cli.errors import ModelUnavailable, UsageError
from dreambooth_cli.events import CheckpointSaved, ClassImageMade, ImageSaved, ModelSaved, SampleSaved, StepDone, Warned
from dreambooth_cli.families.known import FAMILIES
from dreambooth_cli.identifier import choose_identifier, identifier_remarks, load_tokenizer
from dreambooth_cli.paths import projects_folder
from dreambooth_cli.project import list_projects
from dreambooth_cli.settings import GenerateSettings, SubjectSettings
from dreambooth_cli.source import Source
from dreambooth_cli.workflows.generate import generate
from dreambooth_cli.workflows.initialise import initialise
from tests.bases.test_base import with_value
from tests.benchmarks.others.files import write_lora
from tests.engine.plans import base_of
from tests.hub_server import serve_hub, use_hub
from tests.small_flow import KINDS, build, split_tokenizer
from tests.workflows.projects import make_project, model_of, of_kind, run, start

SETTINGS = {"steps": 6, "identifier": "zibo", "class_image_steps": 2, "seed": 3}
CPU = torch.device("cpu")
RECORDS = {family.name: family for family in FAMILIES}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def base(kind, request):
    """The small base of a kind. It belongs to the whole session: read it only."""
    return request.getfixturevalue(kind.replace("-", "_"))


@pytest.fixture
def family(base):
    return load_family(base_of(base), dtype=torch.float32, device=CPU)


def plain_picture(base, lora=None, **options):
    """What plain diffusers draws."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(base)
    if lora is not None:
        pipe.load_lora_weights(lora)
    pipe.set_progress_bar_config(disable=True)
    given = {"prompt": ["a photo of a zibo dog"], "num_inference_steps": 2, "width": 32, "height": 32, "guidance_scale": 4.0} | options
    return np.asarray(pipe(**given, generator=torch.Generator().manual_seed(5)).images[0])


def our_picture(model, folder, **settings):
    """What `generate` draws."""
    asked = GenerateSettings(**{"seed": 5, "steps": 2} | settings)
    events = list(generate(Source(model), "a photo of a zibo dog", asked, output_dir=folder))
    (saved,) = of_kind(events, ImageSaved)
    with Image.open(saved.path) as image:
        return np.asarray(image)


def test_a_family_is_its_two_files_and_two_lines():
    """No other file of the package names it or its classes, except the catalogue and the help texts of the settings."""
    package = Path(load_family.__code__.co_filename).parents[2]
    marks = {"z-image": ("ZImage", "Z_IMAGE"), "klein": ("Flux2", "Klein", "KLEIN")}
    for kind in KINDS:
        file = f"{kind.replace('-', '_')}.py"
        own = {f"families/{file}", f"engine/families/{file}", "families/known.py", "bases/catalog.py"}
        texts = {str(each.relative_to(package)): each.read_text("utf-8") for each in package.rglob("*.py")}
        assert {name for name, text in texts.items() if any(mark in text for mark in marks[kind])} <= own


def test_what_a_base_of_it_is(kind, base):
    facts = read_facts(base)
    record = RECORDS[kind]
    assert (facts.family, facts.prediction_type, facts.resolution) == (record, "flow", 32)
    network = load_family(base_of(base), dtype=torch.float32, device=CPU).pipe
    counted = [sum(value.numel() for value in getattr(network, part).state_dict().values()) for part in record.networks]
    assert [facts.denoiser, facts.vae, *facts.text_encoders] == counted


def test_it_is_trained_resumed_to_the_bit_sampled_saved_drawn_and_loaded_again(kind, base, photos, tmp_path):
    project = make_project(photos, base, sample_every=6, sample_steps=2, **SETTINGS)
    events = run(project)
    assert [event.step for event in of_kind(events, StepDone)] == [1, 2, 3, 4, 5, 6]
    assert not of_kind(events, ClassImageMade), "its class is kept by the base, without images"
    assert len(of_kind(events, SampleSaved)) == 3
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

    ours = our_picture(model, tmp_path / "ours")
    assert np.array_equal(ours, plain_picture(base, model))
    assert not np.array_equal(ours, plain_picture(base))


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_pictures_of_the_base_are_plain_diffusers_at_any_guidance(scale, base, tmp_path):
    """The guidance scale is passed on as it is."""
    assert np.array_equal(our_picture(base, tmp_path, guidance_scale=scale), plain_picture(base, guidance_scale=scale))


def test_a_base_stored_in_16_bits_draws_in_32_on_a_cpu(base, tmp_path):
    """As the hub's are stored."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(base).to(torch.bfloat16)
    pipe.save_pretrained(tmp_path / "half")
    for name in ("transformer", "vae", "text_encoder"):
        getattr(pipe, name).float()
    pipe.save_pretrained(tmp_path / "wide")
    assert np.array_equal(our_picture(tmp_path / "half", tmp_path), plain_picture(tmp_path / "wide"))


def test_what_its_configs_say_of_padding_and_sigmas_is_obeyed(base, tmp_path):
    folder = with_value(base, tmp_path / "left", "tokenizer/tokenizer_config.json", padding_side="left")
    folder = with_value(folder, tmp_path / "karras", "scheduler/scheduler_config.json", use_karras_sigmas=True)
    assert np.array_equal(our_picture(folder, tmp_path, steps=3), plain_picture(folder, num_inference_steps=3))


def test_prompts_are_read_as_the_pipeline_reads_them(kind, family):
    """Each with its own length if the family has lengths; and the caller's list is not changed."""
    prompts = ["a photo of a zibo dog", "a dog"]
    asked = list(prompts)
    with torch.no_grad():
        ours = family.encode_prompts(asked)
        theirs = family.pipe.encode_prompt(list(prompts), device=CPU)[0]
    assert asked == prompts
    if ours.lengths is None:
        assert_close(ours.embeddings, theirs)
        return
    for row, length, expected in zip(ours.embeddings, ours.lengths, theirs, strict=True):
        assert_close(row[:length], expected, rtol=1e-4, atol=1e-5)


def test_its_own_template_says_what_the_base_s_does(kind, base, family):
    """The base's own template is a program, which is never run."""
    theirs = diffusers.DiffusionPipeline.from_pretrained(base).tokenizer
    asked, thinking = [{"role": "user", "content": "a dog "}], kind == "z-image"
    own = family.pipe.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert own == theirs.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)


def test_its_tokenizer_may_be_in_two_files(z_image, tmp_path):
    folder = split_tokenizer(Path(shutil.copytree(z_image, tmp_path / "split")))
    whole, split = load_tokenizer(z_image), load_tokenizer(folder)
    for text in ("a photo of a zibo dog, 32 o'clock", "Ünder the tree\n  it's  raining!"):
        assert split.encode(text).ids == whole.encode(text).ids
    assert np.array_equal(our_picture(folder, tmp_path), plain_picture(folder))


def test_the_nearest_identifier_is_not_held_against_itself(base):
    """A tokenizer without merges splits every word into letters."""
    tokenizer = load_tokenizer(base)
    word, note = choose_identifier(tokenizer, by_rarity=False)
    assert note is not None
    assert identifier_remarks(word, tokenizer, by_rarity=False) == []
    (remark,) = identifier_remarks(f"{word}{word}", tokenizer, by_rarity=False)
    assert f"for example {word}" in remark


def test_a_picture_is_encoded_and_decoded_back(family):
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoded = family.encode_images(pixels)
    latents = family.sample_latents(encoded, torch.zeros_like(encoded.mean))
    with torch.no_grad():
        expected = family.pipe.vae.decode(family.pipe.vae.encode(pixels).latent_dist.mode()).sample
        assert_close(family.decode(latents), expected, rtol=1e-4, atol=1e-5)


def test_latents_are_scaled_as_its_transformer_reads_them(kind, family):
    """Z-Image's are shifted, then scaled; klein's are the most likely ones, patches of 2 x 2 whose channels the VAE's statistics scale."""
    generator, vae = torch.Generator().manual_seed(0), family.pipe.vae
    pixels = torch.rand(2, 3, 32, 48, generator=generator) * 2 - 1
    encoded = family.encode_images(pixels)
    noise = torch.randn(encoded.mean.shape, generator=generator)
    with torch.no_grad():
        found = vae.encode(pixels).latent_dist
    if kind == "z-image":
        expected = (found.mean + found.std * noise - 0.1159) * 0.3611
    else:
        patches = torch.stack([found.mean[:, channel, i::2, j::2] for channel in range(4) for i in (0, 1) for j in (0, 1)], dim=1)
        mean, variance = (values[:, None, None] for values in (vae.bn.running_mean, vae.bn.running_var))
        expected = (patches - mean) / torch.sqrt(variance + 1e-4)
        assert_close(family.pipe._encode_vae_image(pixels, None), expected)
    assert_close(family.sample_latents(encoded, noise), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"method": "full"}, "--method full .*: only a LoRA on its transformer is trained"),
        ({"train_text_encoder": True}, "the text encoder of .* is never trained: it reads the prompts once"),
        ({"snr_gamma": 5.0}, "--snr-gamma"),
    ],
)
def test_what_is_not_done_with_it_is_refused_before_any_work(flags, told, kind, base, photos):
    project = make_project(photos, base, **SETTINGS)
    with pytest.raises(UsageError, match=told):
        run(project, **flags)
    assert not project.runs()
    subject = SubjectSettings(photos=photos, class_prompt="a dog", model=str(base))
    for asked in (subject, replace(subject, model=kind)):
        with pytest.raises(UsageError, match=told):
            list(initialise("new", subject=asked, prep={}, train=flags))
    assert [found.name for found in projects_folder().iterdir()] == [project.name]


def test_a_side_that_its_patches_do_not_divide_is_refused(base, photos, tmp_path):
    with pytest.raises(UsageError, match=r"--resolution 40 is not a multiple of 16"):
        run(make_project(photos, base, **SETTINGS), prep={"resolution": 40})
    with pytest.raises(UsageError, match=r"--width 40 is not a multiple of 16"):
        our_picture(base, tmp_path, width=40)


def test_a_scheduler_of_diffusion_does_not_draw_with_it(kind, base, tmp_path):
    with pytest.raises(UsageError, match=f"does not work with {RECORDS[kind].title}"):
        our_picture(base, tmp_path, scheduler="ddim")


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("model_index.json", {"transformer": ["diffusers", "FluxTransformer2DModel"]}, "its transformer is of the class"),
        ("model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "its scheduler is DDIMScheduler"),
        ("transformer/config.json", {"in_channels": 8}, "latents have 4 channels"),
        ("text_encoder/config.json", {"hidden_size": -1}, "hidden_size can't be -1"),
        ("text_encoder/config.json", {"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters can't be"),
    ],
)
def test_a_damaged_base_of_it_is_refused_like_any_other(file, change, told, base, tmp_path):
    folder = Path(shutil.copytree(base, tmp_path / "damaged"))
    config = json.loads((folder / file).read_text()) | change
    (folder / file).write_text(json.dumps(config))
    with pytest.raises(ModelUnavailable, match=told):
        read_facts(folder)


def damaged(file, how):
    """Change a file of weights, at its largest matrix."""
    if how == "cut":
        return file.write_bytes(file.read_bytes()[:-9])
    tensors = load_file(file)
    name = max((name for name in tensors if tensors[name].ndim == 2), key=lambda name: tensors[name].numel())
    weight = tensors.pop(name)
    changed = {"another shape": {name: weight[:-1].clone()}, "not finite": {name: weight * float("nan")}, "lacking": {}}[how]
    return save_file(tensors | changed, file)


DAMAGES = {"cut": "can't be read", "another shape": "another architecture", "not finite": "not finite", "lacking": "lacks"}


@pytest.mark.parametrize(("part", "how"), [("transformer", how) for how in DAMAGES] + [("text_encoder", "not finite"), ("vae", "cut")])
def test_damaged_weights_of_it_are_refused_with_the_file_s_name(part, how, base, tmp_path):
    folder = Path(shutil.copytree(base, tmp_path / "damaged"))
    (file,) = (folder / part).glob("*.safetensors")
    damaged(file, how)
    with pytest.raises(ModelUnavailable, match=DAMAGES[how]) as caught:
        our_picture(folder, tmp_path / "out")
    assert str(file) in caught.value.message


def test_a_base_without_a_part_is_refused(base, tmp_path):
    folder = Path(shutil.copytree(base, tmp_path / "damaged"))
    shutil.rmtree(folder / "vae")
    with pytest.raises(ModelUnavailable, match=r"vae/config.json, vae/\*.safetensors missing"):
        our_picture(folder, tmp_path / "out")


@pytest.mark.parametrize("how", [*DAMAGES, "of the other", "of stable diffusion"])
def test_a_lora_that_is_damaged_or_another_family_s_is_refused(how, kind, base, family, request, tmp_path):
    (other,) = {"z_image", "klein"} - {kind.replace("-", "_")}
    of = {"of the other": other, "of stable diffusion": "sd1"}.get(how)
    write_lora(request.getfixturevalue(of) if of else base, tmp_path / "lora.safetensors")
    if of is None:
        damaged(tmp_path / "lora.safetensors", how)
    told = {**DAMAGES, "another shape": "made for another base"}.get(how, "fits this base")
    with pytest.raises(ModelUnavailable, match=told) as caught:
        load_lora(family.pipe, tmp_path / "lora.safetensors")
    assert "lora.safetensors" in caught.value.message
    if of is not None:
        assert "--model sd15 (or sdxl, klein, z-image" in caught.value.hint


def test_a_transformer_alone_is_read_beside_its_own_base_only(kind, base, request, tmp_path):
    file, (other,) = tmp_path / "alone.safetensors", {"z_image", "klein"} - {kind.replace("-", "_")}
    weights = Weights(Model(base_of(base)), None)
    single_file.write(weights, file, {})
    asked = GenerateSettings(seed=5, steps=2)

    def drawn(source):
        return list(generate(source, "a photo of a zibo dog", asked, output_dir=tmp_path / "out"))

    with pytest.raises(UsageError, match="transformer alone") as caught:
        drawn(Source(file))
    assert f"--model {kind}" in caught.value.hint
    with pytest.raises(ModelUnavailable, match=f"is {RECORDS[kind].title}'s transformer"):
        drawn(Source(file, str(request.getfixturevalue(other))))
    (saved,) = of_kind(drawn(Source(file, str(base))), ImageSaved)
    with Image.open(saved.path) as image:
        assert abs(np.asarray(image).astype(int) - our_picture(base, tmp_path / "whole")).max() <= 1


def test_its_family_is_known_by_its_transformer_where_the_index_names_no_pipeline(kind, base, tmp_path):
    folder = Path(shutil.copytree(base, tmp_path / "unnamed"))
    index = json.loads((folder / "model_index.json").read_text())
    del index["_class_name"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert read_facts(folder).family.name == kind


@pytest.fixture(scope="module")
def twin_of(tmp_path_factory):
    """The small distilled twin of a kind, made once."""
    kept = {}

    def of(kind):
        if kind not in kept:
            kept[kind] = build(kind, tmp_path_factory.mktemp("twins") / f"{kind}-distilled", seed=1, distilled=True)
        return kept[kind]

    return of


def test_a_distilled_base_is_refused_before_any_work_and_trained_where_it_is_insisted_on(kind, twin_of, photos):
    refused = pytest.raises(ModelUnavailable, match="distilled to draw in a few steps")
    with refused as caught:
        judge_model(str(twin_of(kind)))
    assert of_the_answer(caught.value).endswith(f"train the base that it was made from: {kind}")
    judge_model(str(twin_of(kind)), allow_distilled=True)
    with refused:
        make_project(photos, twin_of(kind))
    assert not list_projects()
    project = make_project(photos, twin_of(kind), **SETTINGS | {"steps": 2}, allow_distilled=True)
    with refused as caught:
        run(project, allow_distilled=False)
    assert f"--model {kind}" in caught.value.hint
    assert not project.runs()
    assert not project.prepared.exists()
    events = run(project)
    assert [event for event in of_kind(events, Warned) if "is distilled" in event.message]
    assert of_kind(events, ModelSaved)


@pytest.mark.parametrize(("distilled", "flags", "refusal"), [(True, {}, ModelUnavailable), (False, {"method": "full"}, UsageError)])
def test_what_is_not_trained_is_refused_before_its_weights_are_fetched(
    distilled, flags, refusal, kind, base, twin_of, photos, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with serve_hub() as hub:
        use_hub(hub, monkeypatch)
        hub.add("someone/base", twin_of(kind) if distilled else base, "0" * 40)
        project = make_project(photos, "someone/base", **SETTINGS)
        with pytest.raises(refusal):
            run(project, **flags)
    assert "model_index.json" in hub.fetched()
    assert not [name for name in hub.fetched() if name.endswith(".safetensors")]
    assert not project.runs()
    assert not project.prepared.exists()


def test_what_is_no_twin_is_refused_before_its_weights_are_fetched(klein, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    write_lora(klein, tmp_path / "lora.safetensors")
    with serve_hub() as hub:
        use_hub(hub, monkeypatch)
        hub.add("someone/base", klein, "0" * 40)
        with pytest.raises(UsageError, match="someone/base is not a distilled twin"):
            list(generate(Source(tmp_path / "lora.safetensors", "someone/base"), "a dog", GenerateSettings(fast=True), output_dir=tmp_path))
    assert not [name for name in hub.fetched() if name.endswith(".safetensors")]


def test_a_lora_of_the_base_draws_with_its_twin_in_a_few_steps(klein, twin_of, photos, tmp_path):
    model = model_of(run(make_project(photos, klein, **SETTINGS)))
    twin = twin_of("klein")
    asked = GenerateSettings(seed=5, fast=True)
    events = list(generate(Source(model, str(twin)), "a photo of a zibo dog", asked, output_dir=tmp_path))
    (saved,) = of_kind(events, ImageSaved)
    with Image.open(saved.path) as image:
        assert np.array_equal(np.asarray(image), plain_picture(twin, model, num_inference_steps=4, guidance_scale=1.0))
    assert not of_kind(events, Warned)
    with pytest.raises(UsageError, match="is not a distilled twin"):
        list(generate(Source(model, str(klein)), "a dog", asked, output_dir=tmp_path))
    with pytest.raises(UsageError, match="no distilled twin of Z-Image is known"):
        list(generate(Source(model, str(twin_of("z-image"))), "a dog", asked, output_dir=tmp_path))
    with pytest.raises(UsageError, match="none is known for"):
        list(generate(Source(model), "a dog", asked, output_dir=tmp_path))


def test_a_negative_prompt_is_obeyed(kind, base, tmp_path):
    plain, away = our_picture(base, tmp_path), our_picture(base, tmp_path, negative_prompt="a cat")
    assert not np.array_equal(plain, away)
    if kind == "z-image":
        assert np.array_equal(away, plain_picture(base, negative_prompt=["a cat"]))


def test_the_effect_is_asked_of_the_family_s_own_noise(family):
    with torch.no_grad():
        prompt = family.encode_prompts(["a photo of a zibo dog"])
    shape = torch.Size([denoiser_of(family).config.in_channels, 8, 8])
    drawn = sketch(family, prompt, shape, steps=2)
    assert drawn.shape == (1, *shape)
    assert drawn.isfinite().all()
