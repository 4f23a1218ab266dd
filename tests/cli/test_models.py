"""`dreambooth models` and `dreambooth projects`."""

import json
from pathlib import Path

import pytest

from dreambooth_cli import gpu
from dreambooth_cli.bases.cache import hub_cache
from dreambooth_cli.bases.catalog import CATALOG
from dreambooth_cli.cli.models import complete_model
from dreambooth_cli.gpu import Gpu
from tests import small_models

from .conftest import Dreambooth


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU, whatever machine the tests run on."""
    monkeypatch.setattr(gpu, "_look", lambda: (None, "no NVIDIA driver found"))


@pytest.mark.parametrize("words", [[], ["--gpu-memory", "4"], ["--gpu_memory", "8"], ["--gpu-memory", "24"]])
def test_the_table_fits_80_columns(words: list[str], dreambooth: Dreambooth) -> None:
    done = dreambooth("models", *words)
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    assert "…" not in done.out
    for entry in CATALOG:
        assert entry.name in done.out
        assert f"{entry.recommended_gb} GB" in done.out


def test_the_table_without_a_gpu_and_for_another_card(dreambooth: Dreambooth) -> None:
    done = dreambooth("models")
    assert done.out.startswith("GPU: no NVIDIA driver found\n")
    assert "no GPU: hours" in done.out
    assert "takes hours or days to train" in " ".join(done.out.split())
    assert "For a first try: dreambooth demo." in done.out
    assert "slow" not in done.out
    assert "verdict             no GPU: hours or days\n" in dreambooth("models", "sdxl").out
    done = dreambooth("models", "--gpu-memory", "24")
    assert done.out.startswith("GPU: a card of 24 GB")
    assert "fits" in done.out


def test_the_gpu_that_is_here(dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Gpu(name="GeForce [RTX]", kind="cuda", total=24 * 10**9, free=20 * 10**9, capability=(8, 9))
    monkeypatch.setattr(gpu, "_look", lambda: (card, ""))
    assert dreambooth("models").out.startswith("GPU: GeForce [RTX], 20.0 of 24.0 GB free\n")
    assert json.loads(dreambooth("models", "--json").out)["gpu"]["name"] == "GeForce [RTX]"


def test_json_is_one_document(dreambooth: Dreambooth) -> None:
    document = json.loads(dreambooth("models", "--json", "--gpu-memory", "12").out)
    assert document["gpu"]["kind"] == "cuda"
    assert [model["name"] for model in document["models"]] == [entry.name for entry in CATALOG]
    for model in document["models"]:
        assert set(model) == {
            "name",
            "repository",
            "family",
            "resolution",
            "recommended_gb",
            "licence",
            "on_disk",
            "plan",
        }
        assert set(model["plan"]) == {"method", "train_text_encoder", "means", "predicted_gb", "ram_gb", "fits", "why"}
    assert json.loads(dreambooth("models", "--json").out)["gpu"] is None


def test_one_model_in_full(dreambooth: Dreambooth) -> None:
    done = dreambooth("models", "runwayml/stable-diffusion-v1-5", "--gpu-memory", "12")
    assert done.code == 0
    for words in ("Stable Diffusion 1.5", "CreativeML OpenRAIL-M", "512 px", "recommended memory  10 GB", "peak: step"):
        assert words in done.out
    assert [model["name"] for model in json.loads(dreambooth("models", "sd15", "--json").out)["models"]] == ["sd15"]
    assert "peak: step" not in dreambooth("models", "sd15").out


def test_an_unknown_model(dreambooth: Dreambooth) -> None:
    done = dreambooth("models", "sd99")
    assert (done.code, done.err) == (
        5,
        "Error: the catalogue has no base model 'sd99'\n  it has: sd15, sd14, sd21, sdxl, klein, z-image, pocket\n",
    )


def test_pulling_what_is_there_already(sd1: Path, dreambooth: Dreambooth) -> None:
    entry = CATALOG[0]
    snapshot = small_models.lay_out_hub_cache(sd1, hub_cache(), entry.repository, entry.revision)
    done = dreambooth("models", "pull", "sd15")
    assert (done.code, done.out) == (0, f"{snapshot}\n")
    done = dreambooth("models", "pull", "sd15", "--json")
    assert (done.lines[-1]["event"], done.lines[-1]["path"]) == ("base", str(snapshot))
    assert "yes" in dreambooth("models").out


def test_pulling_without_a_network(dreambooth: Dreambooth) -> None:
    done = dreambooth("models", "pull", "sd14")
    assert done.code == 5
    assert done.err.startswith("Error: ")


def test_completing_a_models_name() -> None:
    assert complete_model("sd1") == ["sd15", "sd14"]
    assert complete_model("p") == ["pull", "pocket"]
