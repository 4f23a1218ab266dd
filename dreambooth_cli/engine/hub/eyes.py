"""The networks that judge pictures, CLIP and DINO as in the DreamBooth paper: found in the cache, or fetched from the hub once."""

from collections.abc import Generator
from pathlib import Path

from ...bases.base import BaseRequest
from ...bases.cache import find_snapshot
from ...bases.weights import PICKLES
from ...errors import ModelUnavailable
from ...events import Event
from .failures import in_words
from .snapshot import fetch_snapshot

# Of each, the paper's own first; the next one is for when that has no safetensors, since pickles are never loaded.
CLIPS = ("openai/clip-vit-base-patch32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K")
DINOS = ("facebook/dino-vits16", "facebook/dino-vitb16")
WEIGHTS = "model.safetensors"
CLIP_FILES = ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json", WEIGHTS)
DINO_FILES = ("config.json", WEIGHTS)


def obtain_eyes() -> Generator[Event, None, tuple[Path, Path]]:
    """The folders of a CLIP and a DINO, in this order. Raises ModelUnavailable, DiskError."""
    clip = yield from obtain_eye(CLIPS, CLIP_FILES)
    dino = yield from obtain_eye(DINOS, DINO_FILES)
    return clip, dino


def obtain_eye(repositories: tuple[str, ...], wanted: tuple[str, ...]) -> Generator[Event, None, Path]:
    """The folder of the first of these repositories that is in the cache or, if none is, can be fetched. Raises ModelUnavailable,
    DiskError."""
    for repository in repositories:
        if (snapshot := find_snapshot(repository, "main")) and (snapshot / WEIGHTS).is_file() and (snapshot / "config.json").is_file():
            return snapshot
    refusal: ModelUnavailable | None = None
    for repository in repositories:
        request = BaseRequest(repository, None, repository, "main", None)
        try:
            with in_words(request):
                return (yield from fetch_snapshot(request, lambda names: chosen(names, wanted)))
        except ModelUnavailable as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def chosen(names: list[str], wanted: tuple[str, ...]) -> list[str]:
    """Those of a repository's files that are wanted. Raises ModelUnavailable if it has no safetensors."""
    if WEIGHTS not in names:
        pickles = any(name.endswith(PICKLES) for name in names)
        why = "has its weights only as pickles, which are never loaded" if pickles else f"has no {WEIGHTS}"
        raise ModelUnavailable(f"the models that judge pictures can't be fetched: the repository {why}")
    return [name for name in names if name in wanted]
