"""The bases and photos of the fake card's runs; class images are made once for all runs that would make the same ones."""

from pathlib import Path

import pytest

from tests.conftest import draw_photo

from .context import why_not

REASON = why_not()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests without a CUDA build, or if there is a real card."""
    for item in items:
        if REASON and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"no fake card: {REASON}"))


@pytest.fixture(scope="session")
def two_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two photos."""
    folder = tmp_path_factory.mktemp("two")
    for seed in (1, 2):
        draw_photo(folder / f"{seed}.png", (96, 96), seed=seed)
    return folder
