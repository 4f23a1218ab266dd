"""`doctor --try`: its parts on a CPU, a random base of the same form as the catalogue's, and the report without names or paths."""

import getpass
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreambooth_cli import checkup
from dreambooth_cli.bases.catalog import CATALOG, CatalogEntry, find_entry
from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.bases.true_sizes import TRUE_SIZES
from dreambooth_cli.cli.views import Meter
from dreambooth_cli.engine.families import random_base
from dreambooth_cli.engine.families.random_base import write_random_base
from dreambooth_cli.errors import TrainingFailed, UsageError
from dreambooth_cli.events import PhaseStarted
from dreambooth_cli.paths import home_folder
from dreambooth_cli.report_text import report_text, without_names
from dreambooth_cli.torch_child import TorchAnswer
from dreambooth_cli.workflows import proving
from dreambooth_cli.workflows.proving import Tried, in_time, moved_home, prove, tried, try_base
from tests.cli.conftest import Dreambooth, dreambooth  # noqa: F401 - a fixture

SMALL: Any = (
    {"sample_size": 8, "cross_attention_dim": 32, "block_out_channels": (32, 64, 64, 64), "attention_head_dim": 4},
    [{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}],
    (32, 32, 64, 64),
)
SMALL_QWEN3 = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": 300,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
SMALL_FLOW: Any = {
    "klein": {
        "transformer": {
            **{"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 96},
            **{"timestep_guidance_channels": 32, "axes_dims_rope": (4, 4, 4, 4)},
        },
        "text_encoder": SMALL_QWEN3,
        "vae": {
            **{"block_out_channels": (8, 16), "layers_per_block": 1, "latent_channels": 32, "norm_num_groups": 4, "sample_size": 64},
            **{"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2},
        },
    },
    "z-image": {
        "transformer": {
            **{"dim": 32, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 32},
            **{"axes_dims": [4, 6, 6], "axes_lens": [600, 64, 64]},
        },
        "text_encoder": SMALL_QWEN3 | {"num_hidden_layers": 3},
        "vae": {"block_out_channels": (32, 32, 32, 32)},
    },
}
TOKENIZER = (find_entry("pocket").folder or Path()) / "tokenizer"  # type: ignore[union-attr]


def result_of(events: Any) -> Any:
    """What a workflow returns, checking that no progress goes past its total."""
    meter = Meter()
    while True:
        try:
            event = next(events)
        except StopIteration as done:
            return done.value
        if isinstance(event, PhaseStarted):
            meter.begin(event)
        meter.advance(event)
        assert meter.total is None or meter.done <= meter.total, meter.line()


def test_the_true_sizes_are_the_catalogue_s() -> None:
    """Counted on torch's meta device, which takes no memory."""
    import torch

    for name in ("sd15", "sd21"):
        entry, (unet, encoders, widths) = find_entry(name), TRUE_SIZES[name]
        assert entry is not None
        with torch.device("meta"):
            networks = [random_base.UNet2DConditionModel(**unet), random_base.make_vae(widths)]
            text = random_base.CLIPTextModel(random_base.text_config(encoders[0], random_base.VOCABULARY))
        assert [count(one) for one in (*networks, text)] == [entry.facts.denoiser, entry.facts.vae, entry.facts.text_encoders[0]]
    for name in ("klein", "z-image"):
        facts = entry_of(name).facts
        record, norm = facts.family, 2560  # klein's reading leaves out the text encoder's last norm
        with torch.device("meta"):
            networks = {part: random_base.network_of(record.parts[part], record.true_size[part]) for part in record.networks}
        assert [count(networks[part]) for part in ("transformer", "vae")] == [facts.denoiser, facts.vae]
        assert 0 <= count(networks["text_encoder"]) - facts.text_encoders[0] <= norm
    assert all(entry.name in TRUE_SIZES or entry.facts.family.true_size for entry in CATALOG if entry.folder is None)


def entry_of(name: str) -> CatalogEntry:
    entry = find_entry(name)
    assert entry is not None
    return entry


def small_entry(name: str) -> CatalogEntry:
    """The catalogue's, but of a small size."""
    entry = entry_of(name)
    record, sizes = entry.facts.family, SMALL_FLOW[name]
    small = {part: {**config, **sizes.get(part, {})} for part, config in record.true_size.items()}
    facts = replace(entry.facts, family=replace(record, true_size=small), denoiser=100_000, text_encoders=(300_000,), resolution=64)
    return replace(entry, facts=facts)


def count(network: Any) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_a_random_base_is_read_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRUE_SIZES, "sd15", SMALL)
    facts = read_facts(write_random_base(entry_of("sd15"), tmp_path / "base", tokenizer=TOKENIZER))
    assert (facts.family.name, facts.prediction_type, facts.resolution) == ("sd", "epsilon", 64)


def test_what_fails_is_told_and_the_rest_goes_on() -> None:
    def fail() -> Any:
        yield PhaseStarted(name="x")
        raise TrainingFailed("the loss is not finite")

    def crash() -> Any:
        yield PhaseStarted(name="x")
        raise RuntimeError("CUDA error: unknown")

    assert result_of(tried("a", fail)) == Tried(name="a", passed=False, message="the loss is not finite")
    assert result_of(tried("b", crash)).message == "RuntimeError: CUDA error: unknown"
    with pytest.raises(UsageError, match="no/such"):
        next(prove("no/such", []))


def test_a_flow_base_is_read_as_any_other(tmp_path: Path) -> None:
    """Of the true sizes' form, only smaller: facts, tokenizer and networks fit each other, and its three steps are taken."""
    for name in SMALL_FLOW:
        facts = read_facts(write_random_base(small_entry(name), tmp_path / name, tokenizer=TOKENIZER))
        assert (facts.family.name, facts.prediction_type, facts.distilled) == (name, "flow", False)
    with moved_home(tmp_path / "home"):
        result = result_of(try_base(small_entry("klein"), tmp_path / "scratch"))
    assert result.passed, result
    assert set(result.measured) == {"memory_gb", "step_seconds"}


def test_what_does_not_fit_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(proving, "find_gpu", lambda: None)
    monkeypatch.setattr(proving, "free_memory", lambda: 10**9)
    monkeypatch.setattr(proving, "write_random_base", lambda *_, **__: pytest.fail("written"))
    result = result_of(tried("klein", lambda: try_base(find_entry("klein"), tmp_path)))  # type: ignore[arg-type]
    assert result.passed is None
    assert "does not fit" in result.message


def test_a_late_loss_is_put_in_its_place() -> None:
    """On a GPU each step tells the loss of the step before, and the last one its own."""
    losses = [float(step) for step in range(1, 41)]
    late = [losses[0], *losses[:-2], losses[-1]]
    assert in_time(late, late=True) == in_time(losses, late=False) == losses[:38]


@pytest.mark.parametrize("model", ["someone/else", "no/such"])
def test_a_base_that_would_have_to_be_fetched_is_refused_at_once(
    model: str, dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch, tmp_path: Path  # noqa: F811
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dreambooth_cli.cli.doctor.check_up", lambda: pytest.fail("work before the refusal"))
    done = dreambooth("doctor", "--try", "--model", model)
    assert done.code == 2
    assert "--model takes one of sd15, sd14, sd21, sdxl, klein, z-image, pocket" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_all_of_it_on_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRUE_SIZES, "sd15", SMALL)
    monkeypatch.setattr(proving, "bytes_of", lambda entry: 0)
    monkeypatch.setattr(proving, "free_memory", lambda: 10**12)  # of a base of true size
    parts: list[Tried] = []
    result_of(prove("sd15", parts))
    assert [part.passed for part in parts] == [True, True, True], parts
    assert set(parts[2].predicted) == {"memory_gb", "step_seconds"}
    assert set(parts[2].measured) == {"memory_gb", "step_seconds"}
    assert parts[2].measured["step_seconds"] > 0
    assert list(home_folder().glob(".dreambooth-*")) == [], "nothing is left behind"


def test_the_command_writes_a_report_beside_the_last_one(
    dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch, tmp_path: Path  # noqa: F811
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkup, "ask_torch", lambda: TorchAnswer(version="2.13.0+cpu"))
    parts = [
        Tried(name="a stopped run goes on", passed=True, message="verified"),
        Tried(name="3 steps", passed=None, message="it does not fit", predicted={"memory_gb": 9.0}, measured={"memory_gb": 8.5}),
    ]

    def nothing(model: str, into: list[Tried]) -> Any:
        yield PhaseStarted(name="trying")
        into += parts

    monkeypatch.setattr(proving, "prove", nothing)
    done = dreambooth("doctor", "--try")
    assert done.code == 0
    assert "memory gb  predicted 9, measured 8.5" in done.out
    assert "not tried: 3 steps" in done.out
    (document,) = dreambooth("doctor", "--try", "--json").lines
    assert [part["passed"] for part in document["tried"]] == [True, None]
    assert document["report"] == "dreambooth-report-2.md"
    parts.append(Tried(name="pocket", passed=False, message="the loss is not finite"))
    assert dreambooth("doctor", "--try").code == 1
    assert sorted(path.name for path in tmp_path.glob("*.md")) == [f"dreambooth-report{end}.md" for end in ("-2", "-3", "")]
    text = (tmp_path / "dreambooth-report-3.md").read_text(encoding="utf-8")
    assert "| pocket | failed | the loss is not finite |" in text
    assert str(tmp_path) not in text


def test_a_report_names_nobody_and_no_place() -> None:
    told = report_text([checkup.Check("torch", "ok", "in /home/ann/.venv/lib"), checkup.Check("token", "ok", "there is one")], [], [])
    assert "ann" not in told
    assert "there is one" not in told
    said = f"can't read /home/{getpass.getuser()}/my photos/x.png or C:\\Users\\Ann\\x, see https://download.pytorch.org/whl/cu130"
    plain = without_names(said)
    assert "home" not in plain
    assert "Users" not in plain
    assert "https://download.pytorch.org/whl/cu130" in plain
    assert without_names("10 of 12 GB, 2.0 s/step, UNet and text encoder") == "10 of 12 GB, 2.0 s/step, UNet and text encoder"
