"""Every configuration of training goes through the real functions on a fake card from start to end: tensors of two devices or number
formats never meet, and no step waits where it must not."""

import pytest

from dreambooth_cli.engine.families.klein import Klein
from dreambooth_cli.events import CheckpointSaved, ClassImageMade, ModelSaved, SampleSaved, StepDone, Warned
from tests.workflows.projects import make_project, of_kind

from .runs import a_card_is_here, odd_waits, run_on_card

pytestmark = pytest.mark.slow

LEAN = {"weights": "bf16", "inside_backward": True, "gradient_checkpointing": True}
NO_TEXT, TEXT = {"train_text_encoder": False}, {"train_text_encoder": True}
LORA = {"method": "lora"} | NO_TEXT
ALL_LAYERS = {"lora_layers": "all"}
SAMPLED = {"sample_every": 2}
FLOW = {"method": "lora", "class_images": 0, "prior": "base", "prior_every": 1}
OF_CLASS = {"method": "lora", "prior": "class-images"}
# base, means of the plan, settings. A run takes seconds, so what has nothing to do with each other goes in one.
RUNS = {
    "full": ("sd1", {}, NO_TEXT | SAMPLED),
    "full, text encoder that stops": ("sd1", {}, TEXT | {"text_encoder_stop": 1}),
    "fp32, text encoder, no class images": ("sd1", {}, TEXT | {"precision": "fp32", "class_images": 0}),
    "fp16 with the scaler, clipping": ("sd1", {}, TEXT | {"precision": "fp16", "max_grad_norm": 1.0}),
    "fp16 with the scaler, 8-bit": ("sd1", {"optimizer": "adamw8bit"}, NO_TEXT | {"precision": "fp16"}),
    "accumulation, average, SNR, mirrored": (
        "sd1",
        {},
        NO_TEXT | {"gradient_accumulation": 2, "ema": True, "snr_gamma": 5.0, "mirror": True} | SAMPLED,
    ),
    "checkpointing, rows in turn": ("sd1", {"gradient_checkpointing": True, "rows_in_turn": True}, TEXT),
    "bf16 weights, average, 8-bit": ("sd1", {"weights": "bf16", "optimizer": "adamw8bit"}, NO_TEXT | {"ema": True}),
    "inside backward, class images in parts": ("sd1", {"inside_backward": True, "class_images_in_parts": True}, NO_TEXT),
    "off card": ("sd1", {"off_card": True}, NO_TEXT),
    "the plan for 8 GB": ("sd1", LEAN | {"optimizer": "adamw8bit"}, TEXT),
    "lora": ("sd1", {}, LORA | SAMPLED),
    "lora, text encoder, varied frames": ("sd1", {}, LORA | TEXT | {"frames": "varied", "batch_size": 2}),
    "lora of all layers, base in 4 bits": ("sd1", {"quantized": True}, LORA | ALL_LAYERS | SAMPLED),
    "lora, base in 4 bits, fp16": ("sd1", {"quantized": True}, LORA | {"precision": "fp16"}),
    "SD 2, lora": ("sd2", {}, LORA | {"snr_gamma": 5.0} | SAMPLED),
    "SDXL, full, all means": ("sdxl", LEAN | {"optimizer": "adamw8bit", "off_card": True}, TEXT | SAMPLED),
    "SDXL, lora": ("sdxl", {"rows_in_turn": True, "class_images_in_parts": True}, LORA | SAMPLED),
    "SDXL, samples at its end, in parts": (
        "sdxl",
        {"rows_in_turn": True, "class_images_in_parts": True, "room_for_samples": False},
        LORA | {"sample_every": "auto"},
    ),
    "SDXL, lora, text encoders, base in 4 bits": ("sdxl", {"quantized": True}, LORA | TEXT),
    "klein, base in fp8": ("klein", {"fp8": True, "gradient_checkpointing": True}, FLOW | SAMPLED),
    "klein, base in 4 bits": ("klein", {"quantized": True}, FLOW),
    "Z-Image, base in fp8": ("z_image", {"fp8": True, "gradient_checkpointing": True}, FLOW | SAMPLED),
    "Z-Image, base in 4 bits, prompts of several lengths": ("z_image", {"quantized": True}, FLOW | {"frames": "varied", "batch_size": 2}),
    "Z-Image in fp8, class images by networks in turn, prompts read on the CPU": (
        "z_image",
        {"fp8": True, "gradient_checkpointing": True, "class_images_in_parts": True, "text_off_card": True},
        OF_CLASS | SAMPLED,
    ),
    "klein, base in 4 bits, class images": ("klein", {"quantized": True}, OF_CLASS | SAMPLED),
    "pocket, the photos' places told": ("pocket", {}, TEXT),
}
LONG = {  # what they have is in the others too, but for the pocket's telling of places, which takes a minute
    "full",
    "fp32, text encoder, no class images",
    "fp16 with the scaler, clipping",
    "checkpointing, rows in turn",
    "bf16 weights, average, 8-bit",
    "inside backward, class images in parts",
    "off card",
    "the plan for 8 GB",
    "lora",
    "lora, base in 4 bits, fp16",
    "SD 2, lora",
    "SDXL, lora",
    "SDXL, lora, text encoders, base in 4 bits",
    "klein, base in fp8",
    "klein, base in 4 bits",
    "klein, base in 4 bits, class images",
    "Z-Image, base in fp8",
    "pocket, the photos' places told",
    "lora, text encoder, varied frames",
    "lora of all layers, base in 4 bits",
    "accumulation, average, SNR, mirrored",
    "SDXL, full, all means",
    "full, text encoder that stops",
    "Z-Image, base in 4 bits, prompts of several lengths",
}
EIGHT_BIT = ("8-bit", "8 GB", "all means", "4 bits")


@pytest.mark.long
@pytest.mark.parametrize("means", [{}, {"quantized": True}], ids=["bf16", "4 bits"])
def test_without_room_for_samples_the_vae_decodes_alone(means, klein, two_photos, monkeypatch):
    """Before training and at its end, also where the prompts were encoded beforehand: at 1024 px decoding takes 3.2 GB."""
    if means:
        pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    own, held = Klein.decode, []

    def decode(family, latents):
        held.extend([card.now] if latents.device.type == "cuda" else [])  # not where only shapes are tried
        return own(family, latents)

    monkeypatch.setattr(Klein, "decode", decode)
    for room in (True, False):
        with a_card_is_here(room_for_samples=room, **means) as card:
            events, _ = run_on_card(card, make_project(two_photos, klein, name=f"room-{room}"), **FLOW, sample_every="auto")
        assert len(of_kind(events, SampleSaved)) == 3
        assert not [event for event in of_kind(events, Warned) if "samples" in event.message]
    assert len(held) == 12
    stored = (klein / "transformer" / "diffusion_pytorch_model.safetensors").stat().st_size  # in float32
    gone = [together - alone for together, alone in zip(held[:6], held[6:], strict=True)]
    assert min(gone) > stored / 16, (gone, stored)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in RUNS])
def test_it_goes_whole(name, request, two_photos):
    if any(word in name for word in EIGHT_BIT):
        pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    kind, means, settings = RUNS[name]
    project = make_project(two_photos, kind if kind == "pocket" else request.getfixturevalue(kind))
    with a_card_is_here(**means) as card:
        events, waits = run_on_card(card, project, **settings)
    assert [event.step for event in of_kind(events, StepDone)] == [1, 2]
    assert [event.step for event in of_kind(events, CheckpointSaved)] == [1, 2]
    assert len(of_kind(events, SampleSaved)) == (3 if "sample_every" in settings else 0)
    assert len(of_kind(events, ClassImageMade)) == settings.get("class_images", 1)
    assert of_kind(events, ModelSaved)
    assert not [event for event in of_kind(events, Warned) if "memory" in event.message]
    asked = [wait for wait in card.waits if wait.place == "engine/training/loop.py:is_finite"]
    assert len(asked) == 3, "two checkpoints and the end: one read each, not one of each weight"
    assert not (odd := odd_waits(waits)), f"{len(odd)} waits inside steps that are not allowed, the first: {odd[0]}"
