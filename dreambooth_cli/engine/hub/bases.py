"""Base models from the hub: which of a repository's files training needs, and what went wrong on the way, in words."""

import errno
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: what the client raises, whatever its library
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ... import stopping
from ...bases.base import (
    COMMIT,
    VARIANTS,
    Base,
    BaseRequest,
    ask_for_base,
    check_inside,
    find_cached,
    find_snapshot,
    hub_cache,
    identify,
    is_revision,
    layout_of,
    missing_parts,
    read_facts,
    read_header,
    repository_folder,
    stated_prediction,
    take_download,
    variant_of,
)
from ...bases.catalog import CATALOG, KNOWN_WEIGHTS, CatalogEntry, moved_note
from ...bases.kind import refuse
from ...disk import clear_leftovers, make_folder, system_errors, write_whole
from ...errors import DiskError, DreamboothError, ModelUnavailable
from ...events import BytesFetched, Event, Noted, PhaseStarted, Warned
from ...families.family import VAE, tokenizer_of
from ...families.known import denoiser_names, family_of_file, text_encoder_names
from . import listing
from .download import RemoteFile, bring, bytes_there, endpoint, read_answer

PICKLES = (".bin", ".ckpt", ".pt", ".pth")
LOOK_AGAIN = 0.2  # seconds between two looks whether another process has done


def obtain(request: BaseRequest) -> Generator[Event, None, Base]:
    """The requested base, fetched where it is not on disk: `base = yield from obtain(request)`.

    A local base or one in the hub's cache needs no network. Raises ModelUnavailable or DiskError.
    """
    note = moved_note(request.asked)
    if note:
        yield Noted(message=note)
    if request.path is not None:
        with system_errors(ModelUnavailable, f"the base {request.path} can't be read", request.path):
            return (yield from _local_base(request.asked, request.path))
    with system_errors(ModelUnavailable, f"the base {request.asked} can't be read", hub_cache()):
        folder = find_cached(request)
    folder = folder or (yield from fetch(request))
    with system_errors(ModelUnavailable, f"the base {folder} can't be read", folder):
        facts = read_facts(folder)
    yield from (Warned(message=remark) for remark in facts.remarks)
    return Base(
        name=_name(request),
        path=folder,
        repository=request.repository,
        identity=folder.name,
        facts=facts,
        vae_path=(yield from _safe_vae(request.entry)) if request.entry else None,
    )


def fetch(request: BaseRequest) -> Generator[Event, None, Path]:
    """Bring a hub base's files into the cache; what is there already is not fetched again. Returns the snapshot's folder."""
    with _in_words(request):
        return (yield from _download(request, lambda names: _checked_choice(request, names)))


def choose_files(names: Iterable[str]) -> list[str]:
    """The files of a diffusers repository that training needs, configs first: safetensors alone, in one number format."""
    names = sorted(names)
    chosen = [name for name in names if name == "model_index.json"]
    weights: list[str] = []
    for part in ("scheduler", *map(tokenizer_of, text_encoder_names()), *text_encoder_names(), *denoiser_names(), VAE):
        mine = [name for name in names if name.startswith(f"{part}/") and name.count("/") == 1]
        chosen += [name for name in mine if _is_config(part, name)]
        for variant in VARIANTS:
            ours = [name for name in mine if variant_of(name.rpartition("/")[2]) == variant]
            if any(name.endswith(".safetensors") for name in ours):
                weights += ours
                break
    return chosen + weights


def choose_config_files(names: Iterable[str]) -> list[str]:
    """The files of a diffusers repository that say what it is: a few MB of JSON and text."""
    return [name for name in choose_files(names) if not _is_weight(name)]


def choose_vae_files(names: Iterable[str]) -> list[str]:
    """The files of a repository that is one VAE."""
    there = set(names)
    return [name for name in ("config.json", "diffusion_pytorch_model.safetensors") if name in there]


def _is_config(part: str, name: str) -> bool:
    if part.startswith("tokenizer"):
        return name.endswith((".json", ".txt"))
    return name.removeprefix(f"{part}/") in ("config.json", "scheduler_config.json")


def _is_weight(name: str) -> bool:
    return variant_of(name.rpartition("/")[2]) is not None


def _checked_choice(request: BaseRequest, names: list[str]) -> list[str]:
    """The files to fetch. Raises ModelUnavailable where they would be no whole base."""
    repository = request.repository
    if "model_index.json" not in names:
        single = [name for name in names if "/" not in name and name.endswith(".safetensors")]
        hint = f"download {single[0]} and give its path" if single else "see `dreambooth models` for bases that serve"
        raise ModelUnavailable(f"{repository} is no base model in diffusers' form: it has no model_index.json", hint)
    chosen = choose_files(names)
    denoiser, *_ = _parts_there(denoiser_names(), names)
    lacking = [
        part
        for part in (denoiser, VAE, *_parts_there(text_encoder_names(), names))
        if not any(name.startswith(f"{part}/") and name.endswith(".safetensors") for name in chosen)
    ]
    if not lacking:
        return chosen
    if any(name.startswith(f"{part}/") and name.endswith(PICKLES) for part in lacking for name in names):
        raise ModelUnavailable(
            f"{repository} has weights as pickles only ({', '.join(lacking)}), which are never loaded: they could run any program",
            "on a machine you can spare, open it with diffusers, save_pretrained() it as safetensors, and give that folder's path",
        )
    if denoiser in lacking and any(name.startswith("transformer/") for name in names):
        raise refuse(Path(str(repository)), "it has a transformer in the place of a UNet, as Flux and Stable Diffusion 3 do")
    raise ModelUnavailable(
        f"{repository} is not a whole base model: it has no weights for {', '.join(lacking)}", "see `dreambooth models`"
    )


def _parts_there(parts: Sequence[str], names: list[str]) -> list[str]:
    """Those of these parts that a repository has a folder of; the first where it has none."""
    return [part for part in parts if any(name.startswith(f"{part}/") for name in names)] or [parts[0]]


# Bases that are not one hub repository


def _local_base(name: str, path: Path) -> Generator[Event, None, Base]:
    facts = read_facts(path)
    yield from (Warned(message=remark) for remark in facts.remarks)
    config = (yield from _configs_for(path)) if path.is_file() else None
    if path.is_file() and stated_prediction(path) is None:
        yield Noted(
            message=f"{path.name} does not say what it predicts; taken as {facts.prediction_type}, as models of its kind"
        )
    yield PhaseStarted(name="identify the base model")
    return Base(name=name, path=path, repository=None, identity=identify(path), facts=facts, config_path=config)


def _configs_for(path: Path) -> Generator[Event, None, Path]:
    """A diffusers folder with the configs of a single-file checkpoint: the one beside it, or the catalogue's of its kind."""
    beside = path.with_suffix("")
    if (beside / "model_index.json").is_file():
        return beside
    entries = _same_kind(path)
    for entry in entries:
        for repository in filter(None, (entry.repository, *entry.aliases)):
            snapshot = find_snapshot(repository, entry.revision)
            if snapshot and all(name.endswith(".safetensors") for name in missing_parts(snapshot)):
                return snapshot
    request = ask_for_base(entries[0].name)
    try:
        with _in_words(request):
            return (yield from _download(request, choose_config_files))
    except ModelUnavailable as error:
        raise ModelUnavailable(
            f"{path.name} needs the configs of {entries[0].title}, which it does not hold itself: {error.message}",
            f"go online once, or put a diffusers folder of its kind (JSON and tokenizer files are enough) at {beside}",
        ) from error


def _same_kind(path: Path) -> list[CatalogEntry]:
    """The catalogue's models that a single-file checkpoint has the architecture of."""
    header = read_header(path)
    family = family_of_file(header)
    marked = layout_of(family).has_velocity_mark(header)
    mine = [entry for entry in CATALOG if entry.facts.family == family and entry.repository]
    return [entry for entry in mine if (entry.facts.prediction_type == "v_prediction") == marked]


def _safe_vae(entry: CatalogEntry) -> Generator[Event, None, Path | None]:
    """The snapshot of the VAE that does not overflow in fp16, of a model that needs one; None where it is not to be had."""
    if entry.vae_repository is None:
        return None
    revision = entry.vae_revision or "main"
    snapshot = find_snapshot(entry.vae_repository, revision)
    if snapshot and len(choose_vae_files(file.name for file in snapshot.iterdir())) == 2:
        return snapshot
    request = BaseRequest(entry.vae_repository, None, entry.vae_repository, revision, None)
    try:
        with _in_words(request):
            return (yield from _download(request, choose_vae_files))
    except ModelUnavailable as error:
        yield Warned(
            message=f"{entry.title}'s VAE for fp16 is not to be had; its own is used, in float32 ({error.message})"
        )
        return None


# The download


def _download(request: BaseRequest, choose: Callable[[list[str]], list[str]]) -> Generator[Event, None, Path]:
    """Fetch the chosen files of a repository, small ones first, one event now and then. Returns the snapshot's folder."""
    repository, store = str(request.repository), repository_folder(str(request.repository))
    if not is_revision(request.revision):
        raise _no_revision(request)
    if is_offline_mode():
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    commit, files = _list_files(repository, request.revision, choose)
    unknown = [file.name for file in files if file.digest is None]
    if unknown:
        yield Warned(message=f"{endpoint()} lists no hash of {', '.join(unknown)}; only their sizes can be checked")
    held = yield from _wait_for_turn(repository)
    with held:
        there = {file.name: bytes_there(file, store, commit) for file in files}
        total, done = sum(file.size for file in files), sum(there.values())
        _check_room(_name(request), total - done)
        yield PhaseStarted(name=f"download {_name(request)}", total=total, done=done, unit="B")
        for file in files:
            before = done - there[file.name]
            url = f"{endpoint()}/{repository}/resolve/{commit}/{file.name}"
            with closing(bring(url, file, store, commit)) as brought:
                for so_far in brought:
                    yield BytesFetched(file=file.name, done=before + so_far, total=total)
            done = before + file.size
        _write_reference(store, request.revision, commit)
    return store / "snapshots" / commit


def _list_files(
    repository: str, revision: str, choose: Callable[[list[str]], list[str]]
) -> tuple[str, list[RemoteFile]]:
    """The commit that a revision stands for, and the chosen ones of its files, small ones first."""
    url = f"{endpoint()}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
    commit, listed = listing.read_listing(read_answer(url, listing.LIMIT), revision)
    chosen = set(choose([file.name for file in listed]))
    files = [file for file in listed if file.name in chosen]
    listing.check_chosen(files, (name for name in chosen if not _is_weight(name)))
    files = _held_against_known(repository, revision, files)
    return commit, sorted(files, key=lambda file: (_is_weight(file.name), file.name))


def _wait_for_turn(repository: str) -> Generator[Event, None, AbstractContextManager[object]]:
    """Take a repository's downloads once no other process has them; a `with` lets them go. Raises Interrupted."""
    told = False
    while (held := take_download(repository)) is None:
        if not told:
            yield Noted(message=f"another process is fetching {repository}; waiting for it")
        told = True
        stopping.check()
        time.sleep(LOOK_AGAIN)
    return held


def _held_against_known(repository: str, revision: str, files: list[RemoteFile]) -> list[RemoteFile]:
    """The files that the hub lists at a pinned revision, held against what the catalogue knows of them.

    Where the hub lists no hash, the catalogue's is taken. Raises ModelUnavailable where the two differ.
    """
    known = KNOWN_WEIGHTS.get((repository, revision), {})
    files = [replace(file, digest=file.digest or known.get(file.name)) for file in files]
    other = next((file for file in files if known.get(file.name, file.digest) != file.digest), None)
    if other is not None:
        raise ModelUnavailable(
            f"{endpoint()} serves another {other.name} of {repository} than it was (its sha256 is not the catalogue's)",
            "check HF_ENDPOINT and the network; to use those weights all the same, download them and give their folder",
        )
    return files


def _check_room(name: str, missing: int) -> None:
    cache = hub_cache()
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise DiskError(
            f"{name} takes {missing / 1e9:.1f} GB more, and {cache} has {free / 1e9:.1f} GB free",
            "make room, or set HF_HOME to a folder on a larger disk",
        )


def _write_reference(store: Path, revision: str, commit: str) -> None:
    """Note what a branch stood for, last of all: a half-fetched newer commit must not hide an older whole one."""
    if not COMMIT.fullmatch(revision):
        reference = store / "refs" / revision
        check_inside(store, reference.parent)
        make_folder(reference.parent)
        clear_leftovers(reference.parent)
        write_whole(reference, commit.encode())


# What went wrong, in words


def _name(request: BaseRequest) -> str:
    return request.entry.name if request.entry else request.asked


@contextmanager
def _in_words(request: BaseRequest) -> Iterator[None]:
    """Raise what the hub's client raises as ModelUnavailable or DiskError, with what to do next."""
    try:
        yield
    except (HTTPError, OSError, ValueError, OverflowError) as error:
        raise _explain(error, request) from error


def _explain(error: Exception, request: BaseRequest) -> DreamboothError:
    repository = str(request.repository)
    match error:
        case OfflineModeIsEnabled():
            return _not_here(request, "HF_HUB_OFFLINE is set")
        case GatedRepoError():
            page = f"{endpoint()}/{repository}"
            return ModelUnavailable(
                f"{repository} is gated: its owner asks for consent first",
                f"accept its licence at {page}, then run: hf auth login",
            )
        case RevisionNotFoundError():
            return _no_revision(request)
        case RepositoryNotFoundError() | DisabledRepoError():
            return _gone(repository)
        case HfHubHTTPError() if error.response.status_code in (401, 403, 404):
            return _gone(repository)
        case HfHubHTTPError():
            return ModelUnavailable(
                f"the hub can't serve {repository} now (it answers {error.response.status_code})",
                "try again later; what came so far is kept",
            )
        case HTTPError():
            return _not_here(request, f"the hub can't be reached ({str(error) or type(error).__name__})")
        case OSError():
            return _disk_error(error)
    return ModelUnavailable(
        f"what answers at {endpoint()} is not the hub: {error}", "check the network and HF_ENDPOINT"
    )


def _no_revision(request: BaseRequest) -> ModelUnavailable:
    return ModelUnavailable(
        f"{request.repository} has no revision {request.revision}", "name another base: see `dreambooth models`"
    )


def _gone(repository: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"the repository {repository} is gone or private",
        "see `dreambooth models` for bases that are there; for a private one of yours run: hf auth login",
    )


def _not_here(request: BaseRequest, why: str) -> ModelUnavailable:
    title = f"{request.entry.title} ({request.repository})" if request.entry else str(request.repository)
    return ModelUnavailable(
        f"{title} is not on this machine, and {why}",
        f"with a connection, fetch it once: dreambooth models pull {_name(request)}",
    )


def _disk_error(error: OSError) -> DiskError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(
            f"the disk of {hub_cache()} is full",
            "make room, or set HF_HOME to a folder on a larger disk; what came so far is kept",
        )
    return DiskError(
        f"{error.filename or hub_cache()} can't be written: {error.strerror or error}",
        "check the folder, or set HF_HOME to another",
    )
