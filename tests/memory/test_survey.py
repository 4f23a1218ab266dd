import json
from pathlib import Path

import pytest

from dreambooth_cli.bases.catalog import CATALOG, BaseFacts, find_entry
from dreambooth_cli.errors import ModelUnavailable
from dreambooth_cli.families.stable_diffusion import STABLE_DIFFUSION
from dreambooth_cli.gpu import Gpu, sold_as
from dreambooth_cli.memory.plan import Job
from dreambooth_cli.memory.search import make_plan
from dreambooth_cli.memory.survey import details, ledger_lines, recommended, row_of, slow_step_note, survey, to_json
from dreambooth_cli.settings import TrainSettings

NAMES = ["sd15", "sd14", "sd21", "sdxl", "klein", "z-image", "pocket"]


def test_a_row_for_each_base_model() -> None:
    rows = survey(sold_as(12), has_8bit=True)
    assert [row.entry.name for row in rows] == NAMES
    assert [row.verdict for row in rows] == [*["fits"] * 4, *["fits as LoRA"] * 2, "runs anywhere"]
    assert rows[0].takes == "11.0 GB: full + text encoder, 8-bit Adam, gradient checkpointing"
    assert rows[3].takes.startswith("7.8 GB: full, 8-bit Adam, gradient checkpointing, bf16 weights ")


@pytest.mark.parametrize(
    ("gb", "names"), [(8, ["sd15", "sd14"]), (12, ["sd15", "sd14", "sd21"]), (16, ["sd15", "sd14", "sd21", "sdxl"])]
)
def test_the_guides_own_list(gb: int, names: list[str]) -> None:
    """What the guide says can be fully trained, text encoder included, on a card of this size. SDXL's text encoders are only trained on
    request."""
    plans = {row.entry.name: row.plan for row in survey(sold_as(gb), has_8bit=True)}
    asked = TrainSettings(train_text_encoder=True)
    for name in names:
        entry = find_entry(name)
        stated = make_plan(
            Job(entry.facts, asked, resolution=entry.facts.resolution, gpu=sold_as(gb), has_8bit=True, name=name)
        )
        assert (stated.method, stated.train_text_encoder, stated.fits) == ("full", True, True)
        assert (plans[name].method, plans[name].train_text_encoder, plans[name].fits) == ("full", name != "sdxl", True)


def test_the_extra_is_assumed_and_its_lack_is_said() -> None:
    installed, lacking = (survey(sold_as(12), has_8bit=has)[0] for has in (True, False))
    assert installed.plan == lacking.plan
    assert installed.means == ("8-bit Adam", "gradient checkpointing")
    assert lacking.means == ("8-bit Adam (needs the 8bit extra)", "gradient checkpointing")


def test_the_json_document() -> None:
    gpu = sold_as(8)
    document = json.loads(json.dumps(to_json(survey(gpu, has_8bit=True), gpu)))
    assert document["gpu"] == {"name": "a card of 8 GB", "kind": "cuda", "total_gb": 8.6, "free_gb": 8.0}
    first = document["models"][0]
    assert first == {
        "name": "sd15",
        "repository": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "family": "sd",
        "resolution": 512,
        "recommended_gb": 10,
        "licence": "CreativeML OpenRAIL-M",
        "on_disk": False,
        "plan": {
            "method": "full",
            "train_text_encoder": True,
            "means": ["8-bit Adam", "gradient checkpointing", "bf16 weights rounded stochastically"],
            "predicted_gb": 6.9,
            "ram_gb": 4.5,
            "fits": True,
            "why": "needs 6.9 of 8.0 GB free: full fine-tuning with the text encoder, bf16, 8-bit Adam, gradient checkpointing, "
            "bf16 weights rounded stochastically",
        },
    }
    assert document["models"][3]["plan"]["method"] == "lora"


def test_without_a_gpu_and_on_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreambooth_cli.memory.search.free_memory", lambda: 10**12)
    rows = survey(None, has_8bit=False)
    assert to_json(rows, None)["gpu"] is None
    assert [row.verdict for row in rows] == ["no GPU: hours or days"] * 6 + ["runs anywhere"]
    assert all(row.plan.fits and row.plan.method == row.entry.facts.family.methods[0] for row in rows)
    apple = Gpu(name="Apple GPU", kind="mps", total=16 * 10**9, free=10 * 10**9)
    assert survey(apple, has_8bit=True)[0].verdict == "fits as LoRA"


@pytest.mark.parametrize("gpu", [None, Gpu(name="card", kind="cuda", total=24 * 10**9, free=24 * 10**9, capability=(8, 9))])
def test_a_machine_that_is_too_small_for_a_base(gpu: Gpu | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreambooth_cli.memory.search.machine_memory", lambda: 5 * 10**9)
    monkeypatch.setattr("dreambooth_cli.memory.search.free_memory", lambda: 5 * 10**9)
    sdxl, pocket = (row_of(name, gpu, has_8bit=True) for name in ("sdxl", "pocket"))
    assert (sdxl.verdict, sdxl.to_json()["plan"]["fits"]) == ("does not fit", False)
    assert sdxl.to_json()["plan"]["ram_gb"] > 5
    assert (pocket.verdict, pocket.plan.fits) == ("runs anywhere", True)


def test_a_model_that_lies_in_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    entry = CATALOG[0]
    folder = tmp_path / ("models--" + entry.repository.replace("/", "--")) / "snapshots" / entry.revision
    for name in ("model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    assert not row_of("sd15", None).on_disk  # half of it is not all of it
    for part in ("unet", "vae", "text_encoder"):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text("{}")
        (folder / part / "model.safetensors").touch()
    assert [row.on_disk for row in survey(None)] == [True, *[False] * 5, True]
    assert row_of("sd15", None).to_json()["on_disk"] is True
    assert details(row_of("sd15", None))["download"] == "4.3 GB, on disk already"
    (folder / "model_index.json").write_text("{")  # damaged
    assert not row_of("sd15", None).on_disk


@pytest.mark.parametrize(("gb", "name"), [(2, "sd15"), (8, "sd15"), (12, "sd15"), (48, "sd15")])
def test_the_guides_advice_for_a_first_try_is_preselected(gb: int, name: str) -> None:
    assert recommended(survey(sold_as(gb), has_8bit=True)).entry.name == name
    assert recommended(survey(None)).entry.name == "sd15"


def test_one_model_in_full() -> None:
    row = row_of("runwayml/stable-diffusion-v1-5", sold_as(12), has_8bit=True)
    found = details(row)
    assert found["model"] == "Stable Diffusion 1.5"
    assert found["also called"] == "runwayml/stable-diffusion-v1-5"
    assert found["parameters"] == "UNet 860 M, text 123 M, VAE 84 M"
    assert found["plan"] == row.plan.why
    assert "what would fit" not in found
    assert details(row_of("sdxl", sold_as(2.5)))["what would fit"].startswith("use --model sd15")
    assert ("weights", "3.93 GB") in ledger_lines(row.plan.ledger)


def test_the_base_that_comes_in_the_box() -> None:
    row = row_of("pocket", None)
    found = details(row)
    assert (row.verdict, row.on_disk, row.to_json()["repository"]) == ("runs anywhere", True, None)
    assert (found["download"], found["recommended memory"]) == ("none: it comes with dreambooth", "no GPU needed")
    assert "repository" not in found
    assert row.plan.needed < 1e9
    # it is never what a GPU too small for the others is sent to
    assert "pocket" not in row_of("sdxl", sold_as(1)).plan.remedy


def test_a_name_that_the_catalogue_lacks() -> None:
    with pytest.raises(ModelUnavailable, match="has no base model 'sd16'") as caught:
        row_of("sd16", None)
    assert caught.value.hint == f"it has: {', '.join(NAMES)}"


def test_a_slow_step_is_announced_as_a_prediction() -> None:
    sd15 = CATALOG[0].facts
    assert slow_step_note(sd15, 512, 2, cores=2) == (
        "there is no GPU: a step of this base at 512 px may take about 80 seconds on 2 cores (predicted, not measured); "
        "training goes on"
    )
    assert "11 minutes on 2 cores" in (slow_step_note(CATALOG[3].facts, 1024, 2, cores=2) or "")
    assert "on 1 core " in (slow_step_note(sd15, 512, 1, cores=1) or "")


def test_a_small_network_needs_no_warning() -> None:
    small = BaseFacts(
        family=STABLE_DIFFUSION, prediction_type="epsilon", resolution=64, denoiser=1_106_212, text_encoders=(1_647_104,), vae=1_028_935
    )
    assert slow_step_note(small, 64, 2) is None
