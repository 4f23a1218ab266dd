import json
from dataclasses import replace
from pathlib import Path

import pytest

from dreambooth_cli.bases.catalog import BaseFacts, find_entry
from dreambooth_cli.errors import DoesNotFit, UsageError
from dreambooth_cli.families.family import LoraLayers
from dreambooth_cli.families.stable_diffusion import STABLE_DIFFUSION
from dreambooth_cli.families.z_image import Z_IMAGE
from dreambooth_cli.gpu import Gpu, sold_as
from dreambooth_cli.memory.ledger import STEP, count_bytes, is_counted, lora_parameters, works_on_copies
from dreambooth_cli.memory.plan import Choice, Job, Plan
from dreambooth_cli.memory.search import check_fits, inference_precision, make_plan, step_down
from dreambooth_cli.settings import TrainSettings

UNET, TEXT, VAE = 859_520_964, 123_060_480, 83_653_863


def facts(name: str) -> BaseFacts:
    entry = find_entry(name)
    assert entry is not None
    return entry.facts


def card(free_gb: float, *, capability: tuple[int, int] | None = (8, 6), total_gb: float | None = None) -> Gpu:
    return Gpu(
        name="card",
        kind="cuda",
        total=round((total_gb or free_gb) * 1e9),
        free=round(free_gb * 1e9),
        capability=capability,
    )


def plan_for(
    free_gb: float | None, name: str = "sd15", *, resolution: int | None = None, has_8bit: bool = True, **asked: object
) -> Plan:
    base = facts(name)
    gpu = None if free_gb is None else card(free_gb)
    return make_plan(
        Job(base, TrainSettings(**asked), resolution=resolution or base.resolution, gpu=gpu, has_8bit=has_8bit, name=name)
    )


def test_weights_gradients_and_state_are_exact() -> None:
    ledger = plan_for(100, optimizer="adamw").ledger
    assert ledger["weights"] == 4 * (UNET + TEXT)
    assert ledger["optimizer state"] == 8 * (UNET + TEXT)
    # the passes read half-precision copies, and their gradients are in half precision too
    assert ledger["half-precision copies"] == ledger["gradients"] == 2 * (UNET + TEXT)
    assert "EMA" not in ledger
    # all that AdamW in float32 holds, on copies or without: 16 bytes a trained parameter, 15.7 GB for SD 1.5
    without = plan_for(100, optimizer="adamw", precision="fp32").ledger
    for held in (ledger, without):
        groups = ("weights", "gradients", "half-precision copies", "optimizer state")
        assert sum(held.get(group, 0) for group in groups) == 16 * (UNET + TEXT)


def test_gradients_that_add_up_lie_in_float32() -> None:
    """For a whole network autocast's own casts then take less; a LoRA keeps its copies, which take next to nothing."""
    assert plan_for(100, gradient_accumulation=2).ledger["gradients"] == 4 * (UNET + TEXT)
    assert works_on_copies(plan_for(100), 1)
    assert not works_on_copies(plan_for(100), 2)
    assert not works_on_copies(plan_for(100, precision="fp16"), 1)
    assert not works_on_copies(plan_for(100, precision="fp32"), 1)
    assert works_on_copies(plan_for(100, method="lora", precision="fp16"), 2)


def test_each_setting_changes_its_own_groups() -> None:
    plain = plan_for(100).ledger
    eight_bit = plan_for(100, optimizer="adamw8bit").ledger
    assert eight_bit["optimizer state"] == round(2.03 * (UNET + TEXT))
    assert plan_for(100, ema=True).ledger["EMA"] == 4 * (UNET + TEXT)
    assert plan_for(100, train_text_encoder=False).ledger["weights"] == 4 * UNET
    assert "half-precision copies" not in plan_for(100, precision="fp32").ledger
    assert plan_for(100, gradient_checkpointing=True).ledger["activations"] < plain["activations"] / 4
    accumulated = plan_for(100, gradient_accumulation=2).ledger
    assert accumulated["peak: step"] == sum(
        accumulated[group] for group in ("weights", "gradients", "optimizer state", "half-precision copies", "activations")
    )
    assert accumulated["peak: step"] > plain["peak: step"]


def test_activations_grow_with_pixels_and_rows() -> None:
    one = plan_for(100, train_text_encoder=False, class_images=0).ledger["activations"]
    assert one == 1_260_000_000
    assert plan_for(100, train_text_encoder=False).ledger["activations"] == 2 * one
    assert plan_for(100, train_text_encoder=False, batch_size=3).ledger["activations"] == 6 * one
    assert (
        plan_for(100, train_text_encoder=False, prior_loss_weight=0, resolution=1024).ledger["activations"] == 4 * one
    )


def test_a_lora_keeps_the_base_in_half_precision_and_itself_in_float32() -> None:
    plan = plan_for(100, method="lora", train_text_encoder=True)
    adapters = 3_188_736 + 1_179_648
    assert plan.ledger["weights"] == 2 * (UNET + TEXT) + 4 * adapters
    assert plan.ledger["optimizer state"] == 8 * adapters
    in_float32 = plan_for(100, method="lora", train_text_encoder=False, precision="fp32")
    assert in_float32.ledger["weights"] == 4 * UNET + 4 * 3_188_736


@pytest.mark.parametrize(
    ("name", "layers", "unet", "text"),
    [
        ("sd14", "attention", 3_188_736, 1_179_648),
        ("sd15", "attention", 3_188_736, 1_179_648),
        ("sd21", "attention", 3_319_808, 3_014_656),
        ("sdxl", "attention", 23_224_320, 6_324_224),
        ("sd15", "all", 15_942_656, 2_654_208),
        ("sd21", "all", 16_073_728, 6_782_976),
        ("sdxl", "all", 48_727_040, 14_229_504),
    ],
)
def test_lora_counts(name: str, layers: LoraLayers, unet: int, text: int) -> None:
    assert lora_parameters(facts(name), TrainSettings(rank=16, lora_layers=layers)) == (unet, text)
    assert lora_parameters(facts(name), TrainSettings(rank=4, lora_layers=layers)) == (unet // 4, text // 4)
    assert is_counted(facts(name))


def test_a_base_that_is_not_in_the_catalogue_is_estimated_and_that_is_said() -> None:
    other = BaseFacts(
        family=STABLE_DIFFUSION,
        prediction_type="epsilon",
        resolution=256,
        denoiser=34_966_724,
        text_encoders=(17_407_232,),
        vae=5_252_487,
    )
    assert not is_counted(other)
    plan = make_plan(Job(other, TrainSettings(), resolution=256, gpu=card(8), has_8bit=False, name="mine"))
    assert plan.why.startswith("needs about ")
    assert plan.ledger["weights"] == 4 * (34_966_724 + 17_407_232)
    unet, _ = lora_parameters(other, TrainSettings(rank=16))
    assert unet == pytest.approx(3_188_736 / 5, rel=0.02)  # the same depth at a fifth of the width


CHECKPOINTING, EIGHT_BIT, IN_TURN = "gradient checkpointing", "8-bit Adam", "rows in turn"
HALF, INSIDE = "bf16 weights rounded stochastically", "steps inside backward (no clipping)"
OFF_CARD, FOUR_BITS = "optimizer state off the card", "base in 4 bits"


def test_full_fine_tuning_wherever_it_fits_and_the_cheapest_means_first() -> None:
    """As memory shrinks, the plan climbs down the ladder rung by rung, and never past one that would do."""
    found: list[tuple[str, bool, tuple[str, ...]]] = []
    for tenths in range(240, 22, -1):
        plan = plan_for(tenths / 10)
        rung = (plan.method, plan.train_text_encoder, plan.means)
        if rung not in found:
            found.append(rung)
    assert found == [
        ("full", True, ()),
        ("full", True, (CHECKPOINTING,)),
        ("full", True, (EIGHT_BIT, CHECKPOINTING)),
        ("full", True, (EIGHT_BIT, CHECKPOINTING, HALF)),
        ("full", True, (EIGHT_BIT, CHECKPOINTING, HALF, INSIDE)),
        ("full", True, (EIGHT_BIT, CHECKPOINTING, HALF, INSIDE, OFF_CARD)),
        ("full", False, (EIGHT_BIT, CHECKPOINTING, HALF, INSIDE, OFF_CARD)),
        ("lora", True, (CHECKPOINTING, IN_TURN, FOUR_BITS)),
        ("lora", False, (CHECKPOINTING, IN_TURN, FOUR_BITS)),
    ]


@pytest.mark.parametrize("asked", [{"gradient_accumulation": 2}, {"max_grad_norm": 1.0}, {"precision": "fp16"}])
def test_a_step_inside_backward_is_not_for_what_it_can_not_do(asked: dict[str, object]) -> None:
    """It can't clip gradients, add them up or scale them: if one of these was asked for, another means is taken."""
    plans = [plan_for(tenths / 10, **asked) for tenths in range(240, 10, -5)]
    assert not any(plan.inside_backward for plan in plans)
    assert any(plan.off_card for plan in plans)


def test_bf16_weights_only_where_the_run_is_in_bf16() -> None:
    assert plan_for(6).weights == "bf16"
    assert {plan_for(6, precision=precision).weights for precision in ("fp32", "fp16")} == {"fp32"}


def test_no_8bit_without_the_extra() -> None:
    assert plan_for(12).means == (EIGHT_BIT, CHECKPOINTING)
    without = plan_for(12, has_8bit=False)
    assert (without.method, without.means) == ("full", (CHECKPOINTING, HALF, INSIDE, OFF_CARD))
    assert not plan_for(2.8, has_8bit=False).quantized


@pytest.mark.parametrize(
    ("gb", "name", "method", "text_encoder"),
    [
        (8, "sd14", "full", True),
        (8, "sd15", "full", True),
        (12, "sd21", "full", True),
        (12, "sdxl", "full", False),
        (16, "sdxl", "full", False),
        (6, "sdxl", "lora", False),
    ],
)
def test_what_a_card_of_this_size_can_train(gb: int, name: str, method: str, text_encoder: bool) -> None:
    base = facts(name)
    plan = make_plan(Job(base, TrainSettings(), resolution=base.resolution, gpu=sold_as(gb), has_8bit=True, name=name))
    assert (plan.fits, plan.method, plan.train_text_encoder) == (True, method, text_encoder)


def test_free_memory_counts_not_all_of_it() -> None:
    plan = make_plan(
        Job(facts("sd15"), TrainSettings(), resolution=512, gpu=card(3, total_gb=24), has_8bit=True, name="sd15")
    )
    assert (plan.method, plan.free) == ("lora", 3_000_000_000)


def test_needed_is_the_highest_peak_with_context_and_slack() -> None:
    plan = plan_for(100, "sdxl", method="lora", gradient_checkpointing=True, sample_every=10)
    peaks = {group: size for group, size in plan.ledger.items() if group.startswith("peak: ")}
    assert set(peaks) == {
        "peak: step",
        "peak: encoding",
        "peak: saving",
        "peak: preview",
        "peak: class images",
    }
    assert plan.needed == max(peaks.values()) + plan.ledger["context"] + plan.ledger["allocator slack"]
    assert max(peaks, key=lambda group: peaks[group]) != "peak: step"


def test_class_images_come_in_batches_that_do_not_raise_the_need() -> None:
    assert plan_for(100).class_image_batch == 8
    in_parts = plan_for(100, "sdxl", method="lora", gradient_checkpointing=True, sample_every=0)
    assert (in_parts.class_images_in_parts, in_parts.class_image_batch) == (True, 4)
    assert in_parts.ledger["peak: class images"] <= in_parts.ledger["peak: step"]
    assert plan_for(None).class_image_batch == 1
    none = plan_for(100, class_images=0)
    assert none.class_image_batch == 1
    assert "peak: class images" not in none.ledger


def test_the_reason_is_one_line() -> None:
    assert plan_for(12).why == (
        "needs 11.0 of 12.0 GB free: full fine-tuning with the text encoder, bf16, 8-bit Adam, gradient checkpointing"
    )
    assert plan_for(6, "sdxl").why == (
        "needs 4.3 of 6.0 GB free: LoRA, bf16, gradient checkpointing, rows in turn, base in 4 bits"
    )
    miss = plan_for(2)
    assert not miss.fits
    assert miss.why == (
        "needs 2.3 GB, more than the 2.0 GB free: LoRA, bf16, gradient checkpointing, rows in turn, base in 4 bits"
    )


def test_autos_are_resolved() -> None:
    full = plan_for(24)
    assert (full.learning_rate, full.text_encoder_learning_rate, full.text_encoder_stop) == (2e-6, 1e-6, 400)
    frozen = plan_for(24, train_text_encoder=False)
    assert (frozen.learning_rate, frozen.text_encoder_stop) == (5e-6, 0)
    lora = plan_for(3, rank=8)
    assert (lora.method, lora.learning_rate, lora.text_encoder_learning_rate, lora.alpha) == ("lora", 1e-4, 5e-5, 8.0)
    assert lora.text_encoder_stop == 0
    stated = plan_for(24, learning_rate=1e-6, text_encoder_learning_rate=2e-7, alpha=4.0)
    assert (stated.learning_rate, stated.text_encoder_learning_rate, stated.alpha) == (1e-6, 2e-7, 4.0)
    assert plan_for(24, learning_rate=1e-6).text_encoder_learning_rate == 5e-7
    assert plan_for(24, text_encoder_stop=0).text_encoder_stop == 0
    assert plan_for(24, text_encoder_stop=70).text_encoder_stop == 70


def test_sdxls_text_encoders_are_trained_where_that_is_said() -> None:
    assert not plan_for(100, "sdxl").train_text_encoder
    assert plan_for(100, "sdxl", train_text_encoder=True).train_text_encoder
    assert plan_for(100, "sdxl", train_text_encoder=True).text_encoder_stop == 400


@pytest.mark.parametrize(
    ("gpu", "device", "precision"),
    [
        (card(24, capability=(8, 0)), "cuda", "bf16"),
        (card(24, capability=(7, 5)), "cuda", "fp16"),
        (replace(card(24, capability=(7, 5)), name="NVIDIA GeForce GTX 1660 SUPER"), "cuda", "fp32"),
        (sold_as(24), "cuda", "bf16"),
        (replace(sold_as(24), kind="rocm"), "cuda", "bf16"),
        (replace(sold_as(48), kind="mps"), "mps", "fp32"),
    ],
)
def test_precision_follows_the_device(gpu: Gpu, device: str, precision: str) -> None:
    plan = make_plan(Job(facts("sd15"), TrainSettings(), resolution=512, gpu=gpu, has_8bit=True, name="sd15"))
    assert (plan.device, plan.precision) == (device, precision) == inference_precision(gpu, STABLE_DIFFUSION)
    stated = make_plan(
        Job(facts("sd15"), TrainSettings(precision="fp16"), resolution=512, gpu=gpu, has_8bit=True, name="sd15")
    )
    assert stated.precision == "fp16"
    bf16 = make_plan(Job(facts("z-image"), TrainSettings(), resolution=512, gpu=gpu, has_8bit=True, name="z-image"))
    assert bf16.precision == inference_precision(gpu, Z_IMAGE)[1] == ("fp32" if precision == "fp16" else precision)


@pytest.mark.parametrize(
    ("flags", "resolution", "precision"),
    [
        ("avx512f avx512_bf16", 256, "bf16"),
        ("amx_bf16", 512, "bf16"),
        ("avx512_bf16", 128, "fp32"),
        ("avx2", 512, "fp32"),
    ],
)
def test_a_cpu_that_multiplies_bf16_uses_it_for_large_pictures(
    flags: str, resolution: int, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreambooth_cli.gpu.CPU", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"flags\t: fpu {flags} sse\n")
    plan = make_plan(Job(facts("sd15"), TrainSettings(), resolution=resolution, gpu=None, has_8bit=False, name="sd15"))
    assert (plan.device, plan.precision) == ("cpu", precision)
    assert inference_precision(None, STABLE_DIFFUSION) == ("cpu", "fp32")


def test_state_goes_off_the_card_only_where_the_machine_has_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    roomy = plan_for(12, name="sdxl")
    assert (roomy.method, roomy.off_card) == ("full", True)
    monkeypatch.setattr("dreambooth_cli.memory.search.free_memory", lambda: 4 * 10**9)
    plan = plan_for(12, name="sdxl")
    assert (plan.method, plan.off_card, plan.fits) == ("lora", False, True)
    held = replace(roomy, off_card=False, ledger=roomy.ledger | {"optimizer state": 7 * 10**9})
    assert step_down(held, facts("sdxl"), TrainSettings(), gpu=card(12)) is None


@pytest.mark.parametrize(("free_gb", "name"), [(12, "sd15"), (24, "sd15"), (16, "sd21"), (24, "sdxl")])
def test_stepping_down_lowers_what_a_step_needs_each_time(free_gb: float, name: str) -> None:
    """With a ledger of its own, so that a resume counts on it; rows in turn keep gradients, and may need more."""
    base, plan = facts(name), plan_for(free_gb, name)
    form = (plan.method, plan.train_text_encoder, plan.optimizer, plan.weights)
    steps = 0
    while further := step_down(plan, base, TrainSettings(), gpu=card(free_gb)):
        assert further.ledger["peak: step"] < plan.ledger["peak: step"]
        assert further.needed <= plan.needed
        assert len(set(further.means) - set(plan.means)) == 1
        assert f"needs {further.needed / 1e9:.1f}" in further.why
        plan, steps = further, steps + 1
    assert steps
    assert plan.off_card
    assert (plan.method, plan.train_text_encoder, plan.optimizer, plan.weights) == form


def test_a_means_that_did_not_help_is_tried_again_after_a_later_one() -> None:
    """At 512 px Z-Image's text encoder is its highest moment, in 4 bits too; once it reads on the CPU, 4 bits make the step fit."""
    plan = plan_for(7.98, "z-image", resolution=512, prior="base")
    assert plan.fits
    assert (plan.quantized, plan.fp8, plan.text_off_card) == (True, False, True)
    assert plan.needed < plan_for(7.98, "z-image", prior="base").needed


def test_decoding_takes_more_where_segments_are_of_fixed_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under WSL2, say: the class images' moment is higher by three tenths of what the decoder's tensors take."""
    growing = plan_for(100, "sdxl", method="lora").ledger["peak: preview"]
    monkeypatch.setattr("platform.release", lambda: "6.6.87.2-microsoft-standard-WSL2")
    assert plan_for(100, "sdxl", method="lora").ledger["peak: preview"] - growing == pytest.approx(0.3 * 0.806e9 * 4, rel=1e-6)


def test_a_step_inside_backward_takes_no_rows_in_turn() -> None:
    for free in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11):
        for name in ("sd15", "sd21", "sdxl"):
            plan = plan_for(free, name, method="full")
            assert not (plan.inside_backward and plan.rows_in_turn), (free, name)


def test_class_images_that_do_not_fit_are_drawn_in_parts_and_stay_so() -> None:
    base, plan = facts("sd15"), plan_for(24)
    assert not plan.class_images_in_parts
    lower = step_down(plan, base, TrainSettings(), gpu=card(24), drawing_class_images=True)
    assert lower is not None
    assert (lower.class_images_in_parts, lower.class_image_batch, lower.means) == (True, 1, plan.means)
    assert lower.ledger["peak: class images"] < plan.ledger["peak: class images"]
    assert step_down(lower, base, TrainSettings(), gpu=card(24), drawing_class_images=True) is None
    further = step_down(lower, base, TrainSettings(), gpu=card(24))
    assert further is not None
    assert further.class_images_in_parts


def test_without_a_gpu_the_machines_memory_chooses_and_it_always_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreambooth_cli.memory.search.free_memory", lambda: 8 * 10**9)
    plan = plan_for(None)
    assert (plan.method, plan.train_text_encoder, plan.fits) == ("lora", True, True)
    monkeypatch.setattr("dreambooth_cli.memory.search.free_memory", lambda: 10**9)
    assert plan_for(None).fits
    check_fits(plan_for(None), TrainSettings())


def test_without_a_gpu_everything_is_trained_where_there_is_memory() -> None:
    plan = plan_for(None)
    assert (plan.method, plan.train_text_encoder, plan.device, plan.means) == ("full", True, "cpu", ())
    assert (plan.free, plan.fits) == (None, True)
    assert plan.why.startswith("no GPU: full fine-tuning with the text encoder, ")
    assert ", on the CPU; needs " in plan.why
    check_fits(plan, TrainSettings())


def test_an_apple_gpu_gets_no_8bit_adam() -> None:
    apple = Gpu(name="Apple", kind="mps", total=16 * 10**9, free=10 * 10**9)
    plan = make_plan(Job(facts("sd15"), TrainSettings(), resolution=512, gpu=apple, has_8bit=True, name="sd15"))
    assert plan.optimizer == "adamw"
    with pytest.raises(UsageError, match="Apple GPU"):
        make_plan(
            Job(facts("sd15"), TrainSettings(optimizer="adamw8bit"), resolution=512, gpu=apple, has_8bit=True, name="sd15")
        )


def test_8bit_adam_without_bitsandbytes_is_refused() -> None:
    with pytest.raises(UsageError, match="needs bitsandbytes") as caught:
        plan_for(24, optimizer="adamw8bit", has_8bit=False)
    assert "pipx inject" in caught.value.hint


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "full"},
        {"method": "full", "train_text_encoder": True},
        {"train_text_encoder": True, "gradient_checkpointing": False},
        {"optimizer": "adamw"},
        {"precision": "fp32"},
        {"method": "lora", "optimizer": "adamw8bit"},
    ],
)
@pytest.mark.parametrize("free_gb", [3, 8, 24])
def test_what_was_stated_is_never_changed(asked: dict[str, object], free_gb: float) -> None:
    plan = plan_for(free_gb, **asked)
    assert {name: getattr(plan, name) for name in asked} == asked


def test_a_plan_leaves_a_little_of_the_card_free_where_a_means_more_does_it() -> None:
    """7.0 GB would fit in 7.2, but other programs on a card take a little more or less as time goes by."""
    assert plan_for(7.2).means == (EIGHT_BIT, CHECKPOINTING, HALF, INSIDE)
    assert plan_for(7.2).needed < 6.5e9
    tight = plan_for(2.35)
    assert tight.fits
    assert tight.needed > 0.95 * 2.35e9


@pytest.mark.parametrize(
    ("free_gb", "asked", "remedy"),
    [
        (2.5, {"method": "full"}, "drop --method full: it then needs "),
        (4, {"method": "full", "batch_size": 4}, "drop --method full: it then needs "),
        (2.5, {"method": "full", "train_text_encoder": True}, "drop --method full and --train-text-encoder: "),
        (2.5, {"gradient_checkpointing": False, "precision": "bf16"}, "drop --no-gradient-checkpointing: "),
        (6, {"method": "full", "ema": True, "train_text_encoder": True}, "drop --method full: "),
        (2.2, {}, "use --resolution 320: it then needs "),
        (0.5, {}, "no base model in the catalogue fits this GPU"),
    ],
)
def test_the_nearest_thing_that_would_fit_is_named(free_gb: float, asked: dict[str, object], remedy: str) -> None:
    plan = plan_for(free_gb, **asked)
    with pytest.raises(DoesNotFit) as caught:
        check_fits(plan, TrainSettings(**asked))
    assert caught.value.exit_code == 4
    assert caught.value.hint.startswith(remedy)
    assert caught.value.message.startswith("sd15 does not fit in the GPU's memory: ")
    assert caught.value.message.endswith(f"needs {plan.needed / 1e9:.1f} GB, but only {free_gb:.1f} GB are free")


def test_the_message_says_what_was_asked() -> None:
    with pytest.raises(DoesNotFit, match=r"\(asked: --method full --no-train-text-encoder\)"):
        check_fits(
            plan_for(2.5, method="full", train_text_encoder=False),
            TrainSettings(method="full", train_text_encoder=False),
        )


def test_the_8bit_extra_is_named_where_it_would_do() -> None:
    lacking = plan_for(2.7, has_8bit=False)
    assert not lacking.fits
    assert lacking.remedy == (
        'install the 8bit extra (pipx inject dreambooth-cli "bitsandbytes"): it then needs 2.3 of 2.7 GB free: '
        "LoRA, bf16, gradient checkpointing, rows in turn, base in 4 bits"
    )
    assert "8bit extra" not in plan_for(1, has_8bit=False).remedy


def test_a_card_that_others_use_and_a_smaller_base() -> None:
    busy = make_plan(
        Job(facts("sdxl"), TrainSettings(), resolution=1024, gpu=card(3, total_gb=24), has_8bit=True, name="sdxl")
    )
    assert busy.remedy.startswith("close other programs that use the GPU (21.0 GB of it are taken): it then needs ")
    small = make_plan(Job(facts("sdxl"), TrainSettings(), resolution=1024, gpu=card(2.5), has_8bit=True, name="sdxl"))
    assert small.remedy.startswith("use --model sd15: it needs ")


def test_a_plan_survives_json() -> None:
    plan = plan_for(12)
    values = json.loads(json.dumps(plan.to_json()))
    assert values["means"] == [EIGHT_BIT, CHECKPOINTING]
    assert Plan.from_json(values) == plan
    assert Plan.from_json(values | {"written by a later version": 1}) == plan


def test_a_kept_plan_that_no_longer_fits_points_to_replan() -> None:
    kept = Plan.from_json(plan_for(12).to_json() | {"free": 5_000_000_000, "fits": False})
    with pytest.raises(DoesNotFit) as caught:
        check_fits(kept, TrainSettings())
    assert "5.0 GB are free" in caught.value.message
    assert "--replan" in caught.value.hint


# ---- the machine's own memory


def machine_of(monkeypatch: pytest.MonkeyPatch, gb: float, *, free: float | None = None) -> None:
    """A machine with so many GB of memory, in total and free."""
    monkeypatch.setattr("dreambooth_cli.memory.search.machine_memory", lambda: round(gb * 1e9))
    monkeypatch.setattr("dreambooth_cli.memory.search.free_memory", lambda: round((gb if free is None else free) * 1e9))


def test_no_plan_is_made_for_more_than_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process holds counts as free too; together they must not exceed all that there is."""
    machine_of(monkeypatch, 23)
    monkeypatch.setattr("dreambooth_cli.memory.search.resident_memory", lambda: 2 * 10**9)
    assert plan_for(None, "sdxl").fits


def test_without_a_gpu_every_tensor_lies_in_the_machines_memory() -> None:
    plan = plan_for(None, precision="fp32", sample_every=10)
    assert {"loading", "class images", "encoding", "step", "preview", "checkpoint", "saving"} == set(plan.ram)
    assert plan.ram["step"] > plan.ledger["peak: step"] > 16 * (UNET + TEXT)
    assert plan.ram_needed == max(plan.ram.values())
    assert plan.to_json()["ram_gb"] == round(plan.ram_needed / 1e9, 2)


def test_the_last_save_holds_the_weights_and_one_part_of_the_base() -> None:
    """The optimizer state is gone by then, and nothing is cast as a whole: in half precision it takes less, not more."""
    single, half = (plan_for(None, save_dtype=dtype).ram["saving"] for dtype in ("fp32", "fp16"))
    assert half < single < 4 * (UNET + TEXT + VAE) + 1e9
    frozen = plan_for(None, train_text_encoder=False, method="full")
    assert frozen.ram["saving"] < 4 * (UNET + TEXT) + 1e9
    lora = plan_for(None, train_text_encoder=False, method="lora", precision="fp32")
    assert lora.ram["saving"] == pytest.approx(4 * UNET, abs=1e9)


def test_samples_that_nobody_asked_for_are_counted_where_they_fit_and_move_nothing() -> None:
    """SDXL's samples, with the VAE and the text encoders back in float32, take more than its step."""
    roomy, tight = plan_for(40, "sdxl"), plan_for(14, "sdxl")
    assert roomy.samples_on_the_way
    assert roomy.ledger["peak: preview"] > roomy.ledger["peak: step"]
    assert not tight.samples_on_the_way
    assert tight == plan_for(14, "sdxl", sample_every=0)
    assert plan_for(14, "sdxl", sample_every=100).choice != tight.choice, "where they were asked for, the plan makes room"
    assert plan_for(8).samples_on_the_way


def test_a_preview_by_the_average_holds_the_weights_too() -> None:
    """On a card, what was freed comes back through the machine's memory."""
    averaged, plain = (plan_for(100, ema=ema, sample_every=10, train_text_encoder=False).ram["preview"] for ema in (True, False))
    assert averaged - plain == 4 * UNET
    assert plain == pytest.approx(4 * (VAE + TEXT), abs=2.1e9)
    assert "preview" not in plan_for(100, sample_every=0).ram
    averaged, plain = (plan_for(None, ema=ema, sample_every=10).ram["preview"] for ema in (True, False))
    assert averaged - plain == 2 * 4 * (UNET + TEXT)


def test_beside_a_card_the_machine_holds_what_waits() -> None:
    """The base until it is moved to the card, and optimizer state that does not fit there; a save goes from the card tensor by tensor."""
    roomy = plan_for(100, "sdxl", optimizer="adamw", train_text_encoder=True)
    base = 4 * (2_567_463_684 + 817_720_320 + VAE)
    assert roomy.ram["loading"] == pytest.approx(base, abs=2.3e9)
    assert max(roomy.ram[moment] for moment in ("step", "checkpoint", "saving")) < 3e9
    off = plan_for(12, "sdxl", train_text_encoder=True)
    assert off.off_card
    assert off.ram["step"] - roomy.ram["step"] == pytest.approx(1.35 * 2.03 * (2_567_463_684 + 817_720_320), rel=0.01)


@pytest.mark.parametrize("free_gb", [None, 60, 24])
def test_what_the_machine_can_not_hold_does_not_fit(free_gb: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """SDXL in full on a machine of 6 GB, with a GPU and without: exit code 4, and what would fit."""
    machine_of(monkeypatch, 6)
    plan = plan_for(free_gb, "sdxl", method="full", train_text_encoder=True)
    assert not plan.fits
    with pytest.raises(DoesNotFit) as caught:
        check_fits(plan, TrainSettings(method="full", train_text_encoder=True))
    assert caught.value.exit_code == 4
    assert "does not fit in this machine's memory: full fine-tuning with the text encoder" in caught.value.message
    assert caught.value.message.endswith(f"needs {plan.ram_needed / 1e9:.1f} GB of it, but there are only 6.0 GB in all")
    assert caught.value.hint


@pytest.mark.parametrize(("multiplies", "needed"), [(True, "14.9"), (False, "21.6")])
def test_sdxl_in_full_without_a_gpu_does_not_fit_in_23_gb(multiplies: bool, needed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor that multiplies bf16, and on one that does not."""
    machine_of(monkeypatch, 23)
    monkeypatch.setattr("dreambooth_cli.memory.search.multiplies_bf16", lambda: multiplies)
    plan = plan_for(None, "sdxl", method="full", train_text_encoder=True)
    assert not plan.fits
    assert plan.remedy.startswith(f"drop --method full: it then needs {needed} GB of the machine's memory: LoRA")


@pytest.mark.parametrize(("free_gb", "gb"), [(None, 23), (60, 12)])
def test_what_is_left_to_the_plan_is_chosen_for_the_machine(
    free_gb: float | None, gb: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SDXL: without a GPU, LoRA instead of full; with a card, weights of half the size."""
    roomy = plan_for(free_gb, "sdxl")
    machine_of(monkeypatch, gb)
    plan = plan_for(free_gb, "sdxl")
    assert roomy.fits
    assert plan.fits
    assert plan.ram_needed <= gb * 1e9 < roomy.ram_needed or free_gb is None
    assert (plan.method, plan.weights) == (("lora", "fp32") if free_gb is None else ("full", "bf16"))


def test_state_off_the_card_counts_in_the_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_for(12, "sdxl").off_card
    machine_of(monkeypatch, 11, free=64)
    plan = plan_for(12, "sdxl")
    assert plan_for(12, "sdxl", train_text_encoder=True).method == "lora"
    assert (plan.train_text_encoder, plan.off_card, plan.fits) == (False, True, True)
    assert plan.ram["step"] < 11e9


def test_what_is_free_of_the_machine_now_is_no_reason_not_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_of(monkeypatch, 16, free=0.5)
    assert plan_for(24).fits
    assert plan_for(None).fits


def test_a_card_that_is_asked_about_is_asked_about_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan() -> Plan:
        return make_plan(Job(facts("sdxl"), TrainSettings(), resolution=1024, gpu=sold_as(12), has_8bit=True, name="sdxl"))

    roomy = plan()
    machine_of(monkeypatch, 2)
    assert plan() == roomy
    assert roomy.off_card


def test_memory_that_is_shared_holds_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's chips, GB10, Jetson: the card's tensors are in the machine's memory."""
    own = card(100)
    plans = [
        make_plan(Job(facts("sd15"), TrainSettings(optimizer="adamw"), resolution=512, gpu=gpu, has_8bit=False, name="sd15"))
        for gpu in (own, replace(own, shared=True))
    ]
    assert plans[0].ram_needed < plans[0].needed < plans[1].ram_needed
    machine_of(monkeypatch, 16)
    tight = make_plan(Job(facts("sd15"), TrainSettings(), resolution=512, gpu=replace(own, shared=True), has_8bit=True, name="sd15"))
    assert tight.fits
    assert tight.ram_needed <= 16e9


def test_nothing_is_put_off_a_card_that_shares_the_machines_memory() -> None:
    shared = replace(card(12), shared=True)
    plan = make_plan(Job(facts("sdxl"), TrainSettings(), resolution=1024, gpu=shared, has_8bit=True, name="sdxl"))
    assert plan_for(12, "sdxl").off_card
    assert not plan.off_card
    held = plan_for(24, "sdxl")
    steps = [held]
    while further := step_down(steps[-1], facts("sdxl"), TrainSettings(), gpu=shared):
        steps.append(further)
    assert not any(each.off_card for each in steps)


def test_a_plan_of_0_1_says_nothing_of_the_machine() -> None:
    values = plan_for(12).to_json()
    del values["ram"], values["ram_gb"]
    assert Plan.from_json(values).ram_needed == 0


@pytest.mark.parametrize(
    ("name", "side", "means", "counted_gb"),
    [
        ("klein", 1024, {}, 10.05),
        ("klein", 768, {}, 9.26),
        ("klein", 512, {}, 8.69),
        ("klein", 1024, {"gradient_checkpointing": False}, 26.80),
        ("klein", 1024, {"fp8": True}, 6.62),
        ("klein", 1024, {"quantized": True}, 4.48),
        ("z-image", 1024, {}, 14.82),
        ("z-image", 512, {}, 13.14),
        ("z-image", 1024, {"gradient_checkpointing": False}, 44.27),
        ("z-image", 1024, {"fp8": True}, 9.16),
        ("z-image", 1024, {"quantized": True}, 5.97),
    ],
)
def test_a_step_of_the_flow_families_is_what_was_counted(name: str, side: int, means: dict[str, bool], counted_gb: float) -> None:
    """The rows in tests/benchmarks/memory.md (`python -m tests.benchmarks.flow_memory`), within its 3%."""
    base = facts(name)
    asked = TrainSettings(rank=16).of_family(base.family)
    choice = Choice(method="lora", train_text_encoder=False, precision="bf16", optimizer="adamw", gradient_checkpointing=True)
    ledger, _ = count_bytes(replace(choice, **means), Job(base, asked, resolution=side, gpu=card(80), has_8bit=True, name=name))
    assert ledger[STEP] / 1e9 == pytest.approx(counted_gb, rel=0.03)


def test_fp16_is_refused_where_its_range_is_too_small() -> None:
    with pytest.raises(UsageError, match="--precision fp16 has too small a range for Z-Image"):
        plan_for(24, "z-image", precision="fp16")
    assert plan_for(24, "klein", precision="fp16").precision == "fp16"
