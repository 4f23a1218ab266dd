"""The base model that was asked for: found on disk, or fetched from the hub."""

from collections.abc import Callable, Generator
from pathlib import Path

from ...bases.base import Base, BaseRequest, ask_for_base
from ...bases.cache import find_cached, find_snapshot, hub_cache
from ...bases.catalog import CATALOG, BaseFacts, CatalogEntry, find_entry, moved_note
from ...bases.facts import facts_without_weights, layout_of, read_facts, stated_prediction
from ...bases.fingerprint import identify
from ...bases.folder import missing_parts
from ...bases.kind import check_index
from ...bases.metadata import read_header, read_json
from ...bases.places import known_places
from ...disk import system_errors
from ...errors import ModelUnavailable
from ...events import Event, Noted, PhaseStarted, Warned
from ...families.known import family_of_file
from ...model_card import read_card_of_file
from .failures import in_words, name_of
from .files import checked_choice, choose_config_files, choose_vae_files
from .snapshot import fetch_snapshot


def obtain(request: BaseRequest, check: Callable[[BaseFacts], None] | None = None) -> Generator[Event, None, Base]:
    """The requested base, fetched if it is not on disk: `base = yield from obtain(request)`.

    A base in a local folder or in the hub's cache needs no network. Of one that has to be fetched, `check` is told what it is, without its
    parameters, before any weights are, and may raise. Raises ModelUnavailable or DiskError.
    """
    note = moved_note(request.asked)
    if note:
        yield Noted(message=note)
    if request.path is not None:
        with system_errors(ModelUnavailable, f"the base {request.path} can't be read", request.path):
            return (yield from _local_base(request.asked, request.path))
    with system_errors(ModelUnavailable, f"the base {request.asked} can't be read", hub_cache()):
        folder = find_cached(request)
    folder = folder or (yield from fetch(request, check))
    with system_errors(ModelUnavailable, f"the base {folder} can't be read", folder):
        facts = read_facts(folder)
    yield from (Warned(message=remark) for remark in facts.remarks)
    return Base(
        name=name_of(request),
        path=folder,
        repository=request.repository,
        identity=folder.name,
        facts=facts,
        vae_path=(yield from _safe_vae(request.entry)) if request.entry else None,
    )


def fetch(request: BaseRequest, check: Callable[[BaseFacts], None] | None = None) -> Generator[Event, None, Path]:
    """Download a hub base's files into the cache; what is there already is not fetched again. Returns the snapshot's folder. Raises
    ModelUnavailable or DiskError; before any weights are fetched for a base that can't be trained here, or that `check` refuses."""

    def look(folder: Path) -> None:
        check_index(folder, read_json(folder / "model_index.json"))
        facts = facts_without_weights(folder)
        if check is not None:
            check(facts)

    with in_words(request):
        return (yield from fetch_snapshot(request, lambda names: checked_choice(request, names), look))


# Bases that are not one hub repository


def _local_base(name: str, path: Path) -> Generator[Event, None, Base]:
    facts = read_facts(path)
    yield from (Warned(message=remark) for remark in facts.remarks)
    config = (yield from _configs_for(path)) if path.is_file() else None
    if path.is_file() and stated_prediction(path) is None:
        yield Noted(
            message=f"{path.name} does not say what it predicts; it is taken to be {facts.prediction_type}, like others of its kind"
        )
    yield PhaseStarted(name="identifying the base model")
    return Base(name=name, path=path, repository=None, identity=identify(path), facts=facts, config_path=config)


def _configs_for(path: Path) -> Generator[Event, None, Path]:
    """A diffusers folder with the configs for a single-file checkpoint: the one beside it, or that of a catalogue base of the same
    kind."""
    beside = path.with_suffix("")
    if (beside / "model_index.json").is_file():
        return beside
    if (known := _configs_of_card(path)) is not None:
        return known
    entries = _same_kind(path)
    for entry in entries:
        for repository in filter(None, (entry.repository, *entry.aliases)):
            snapshot = find_snapshot(repository, entry.revision)
            if snapshot and all(name.endswith(".safetensors") for name in missing_parts(snapshot)):
                return snapshot
    request = ask_for_base(entries[0].name)
    try:
        with in_words(request):
            return (yield from fetch_snapshot(request, choose_config_files))
    except ModelUnavailable as error:
        raise ModelUnavailable(
            f"{path.name} needs the configs of {entries[0].title}, which a single file does not hold: {error.message}",
            f"go online once, or put a diffusers folder of its kind (JSON and tokenizer files are enough) at {beside}",
        ) from error


def _configs_of_card(path: Path) -> Path | None:
    """The folder on this machine of the base that an exported file's card names: the file itself does not say how its networks are
    built."""
    card = read_card_of_file(path)
    if card is None:
        return None
    entry = find_entry(str(card.base.path or card.base.name))
    places = [entry.folder] if entry is not None and entry.folder is not None else list(known_places(card.base.identity))
    return next((place for place in places if (place / "model_index.json").is_file()), None)


def _same_kind(path: Path) -> list[CatalogEntry]:
    """The catalogue's bases that have the same architecture as a single-file checkpoint."""
    header = read_header(path)
    family = family_of_file(header)
    marked = layout_of(family).has_velocity_mark(header)
    mine = [entry for entry in CATALOG if entry.facts.family == family and entry.repository]
    return [entry for entry in mine if (entry.facts.prediction_type == "v_prediction") == marked]


def _safe_vae(entry: CatalogEntry) -> Generator[Event, None, Path | None]:
    """The snapshot of a VAE that does not overflow in fp16, for a model that needs one; None if it needs none or it can't be fetched."""
    if entry.vae_repository is None:
        return None
    revision = entry.vae_revision or "main"
    snapshot = find_snapshot(entry.vae_repository, revision)
    if snapshot and len(choose_vae_files(file.name for file in snapshot.iterdir())) == 2:
        return snapshot
    request = BaseRequest(entry.vae_repository, None, entry.vae_repository, revision, None)
    try:
        with in_words(request):
            return (yield from fetch_snapshot(request, choose_vae_files))
    except ModelUnavailable as error:
        yield Warned(
            message=f"{entry.title}'s VAE for fp16 can't be fetched; its own is used, in float32 ({error.message})"
        )
        return None
