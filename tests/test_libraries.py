"""Versions: which were tried, which are installed, and what is said when one library refuses another. The metadata are real files."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import dreambooth_cli
from dreambooth_cli import libraries
from dreambooth_cli.cli.app import in_words
from dreambooth_cli.errors import LibraryRefused, ModelUnavailable
from dreambooth_cli.libraries import PACKAGE, TRIED_TORCH, WATCHED, refusal_of
from tests.cli.conftest import Dreambooth, dreambooth  # noqa: F401 - a fixture

CHECKOUT = Path(__file__).parent.parent
CONSTRAINTS = CHECKOUT / ".ci" / "constraints.txt"
# These check one another's versions when they run.
CHECKING = ("transformers", "peft", "diffusers", "accelerate", "huggingface-hub", "tokenizers", "bitsandbytes")
REFUSED = "The version of PEFT you are using is not compatible, please use a version >= 0.22.0"


def requirements() -> list[Requirement]:
    """Everything that the package and its extras require."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(one) for one in [*project["dependencies"], *(one for extra in extras for one in extra)]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder placed first on the path, with this package's own metadata; metadata put there take precedence over the real ones."""
    folder = tmp_path / "first"
    asked = [f"Requires-Dist: {one}" for one in requirements() if one.name != PACKAGE]
    put(folder, PACKAGE, dreambooth_cli.__version__, asked)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def put(folder: Path, name: str, version: str, lines: list[str] | None = None) -> None:
    """Write a package's metadata as pip leaves them."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    head = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join([*head, *(lines or [])]) + "\n", encoding="utf-8")
    (info / "top_level.txt").write_text(name.replace("-", "_"), encoding="utf-8")


def raised_in(module: str, error: Exception) -> Exception:
    """An error as if raised in a library's own code."""
    try:
        exec("raise error", {"__name__": module, "error": error})
    except Exception as caught:
        return caught
    raise AssertionError


def test_every_library_that_checks_another_ends_at_a_minor_that_was_tried() -> None:
    bounds = {libraries._canonical(one.name): one.specifier for one in requirements()}
    for name in CHECKING:
        (upper,) = [one.version for one in bounds[name] if one.operator == "<"]
        assert len(upper.split(".")) == 2, f"{name} is open up to {upper}"
    assert SpecifierSet("<3") == SpecifierSet(",".join(str(one) for one in bounds["torch"] if one.operator == "<"))


@pytest.mark.skipif(not CONSTRAINTS.is_file(), reason="needs the repository, not the source archive")
def test_ci_s_set_holds_every_package_by_a_version_in_its_range() -> None:
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pins = {libraries._canonical(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert len(pins) == len(lines) > 60
    assert [line for line in lines if "+" in line or "@" in line] == []
    for asked in requirements():
        if asked.name != PACKAGE:
            assert asked.specifier.contains(pins[libraries._canonical(asked.name)]), asked
    assert SpecifierSet(TRIED_TORCH).contains(pins["torch"])
    assert not SpecifierSet(TRIED_TORCH).contains("2.15.0")


def test_versions_that_were_tried_are_no_matter(place: Path) -> None:
    for name, version in (("torch", "2.13.0+cpu"), ("transformers", "5.23.0"), ("peft", "0.21.2")):
        put(place, name, version)
    assert set(libraries.tried_ranges()) == set(WATCHED)
    assert not {"torch", "transformers", "peft"} & set(libraries.untried())


@pytest.mark.parametrize("version", ["2.15.0", "2.15.0+cu130", "2.15.0.dev20261101", "3.0.0", "2.12.1"])
def test_a_torch_that_was_not_tried_is_named(version: str, place: Path) -> None:
    put(place, "torch", version)
    assert libraries.untried()["torch"] == (version, TRIED_TORCH)


def test_all_that_was_not_tried_is_one_warning_of_train_generate_and_the_version(
    place: Path, monkeypatch: pytest.MonkeyPatch, dreambooth: Dreambooth, photos: Path, tmp_path: Path  # noqa: F811
) -> None:
    put(place, "torch", "2.15.0")
    put(place, "transformers", "5.31.0")
    words = "torch 2.15.0 (tried: >=2.13,<2.15), transformers 5.31.0 (tried: >=5.23,<5.25)"

    def nothing(*asked: object, **more: object) -> object:
        yield from ()

    monkeypatch.setattr("dreambooth_cli.workflows.direct.train", nothing)
    monkeypatch.setattr("dreambooth_cli.workflows.generate.generate", nothing)
    shared = ["--photos", photos, "--class-prompt", "a dog", "--model", "pocket"]
    for line in (["train", *shared], ["generate", "--model-path", tmp_path, "a dog"]):
        done = dreambooth(*line, "--json")
        (told,) = [event["message"] for event in done.lines if event["event"] == "warning"]
        assert (done.code, words in told) == (0, True)
        assert f'install "torch{TRIED_TORCH}" "transformers>=5.23,<5.25"' in told
    for line in (["--version", "--verbose"], ["--verbose", "--version"]):
        done = dreambooth(*line)
        assert done.code == 0
        assert done.out.startswith(f"dreambooth {dreambooth_cli.__version__}\npython 3.")
        assert "\ntorch 2.15.0\n" in done.out
        assert done.err.count("warning:") == 1
        assert words in done.err
    assert dreambooth("--version").out == f"dreambooth {dreambooth_cli.__version__}\n"
    assert dreambooth("--verbose").code == 2


def test_the_versions_are_told_without_loading_what_is_slow() -> None:
    code = "import sys; from dreambooth_cli.cli.app import run; run(['--version', '--verbose']); print(*sys.modules)"
    env = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, env=env)
    assert done.stdout.startswith("dreambooth ")
    assert not {"torch", "numpy", "PIL", "transformers"} & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("module", "error", "message", "hint"),
    [
        ("transformers.utils.peft_utils", ValueError(REFUSED), "transformers 5.31.0 and peft 0.19.0", '"peft>=0.21.2'),
        (
            "transformers.utils.versions",
            ImportError("tokenizers>=0.22.0,<=0.23.0 is required for a normal functioning of this module"),
            "transformers 5.31.0 and tokenizers",
            '"transformers>=5.23,<5.25" "tokenizers>=0.23',
        ),
        (
            "diffusers.models.modeling_utils",
            ImportError("cannot import name 'split_torch' from 'huggingface_hub' (/x/huggingface_hub/__init__.py)"),
            "diffusers 0.42.1 and huggingface-hub",
            "install --upgrade dreambooth-cli",
        ),
        ("dreambooth_cli.engine.families.lora", ImportError("cannot import name 'LoraConfig' from 'peft'"), "peft 0.19.0", "peft>="),
        ("peft.import_utils", ImportError("Found an incompatible version of torchao, 0.3"), "torchao 0.3", "uninstall torchao"),
        ("transformers.utils.versions", ImportError("tqdm>=4.99 is required"), "and tqdm", '"transformers>=5.23,<5.25"'),
        ("torch.utils", RuntimeError("Numpy is not available"), "torch 2.13.0 and numpy", "install"),
        (
            "diffusers.utils.import_utils",
            ImportError("LMSDiscreteScheduler requires the scipy library. You can install it with pip: `pip install scipy`"),
            "needs scipy, which is not installed",
            'pip install "scipy"',
        ),
        ("diffusers.x", ImportError("Make sure to install scipy if you want to use beta sigmas."), "needs scipy", 'install "scipy"'),
        ("torch", ImportError("libcudart.so.13: cannot open shared object file"), "can't be used here", '"torch>=2.13'),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else "",
)
def test_a_refusal_names_both_versions_and_the_line_that_mends_it(
    module: str, error: Exception, message: str, hint: str, place: Path
) -> None:
    put(place, "torch", "2.13.0")
    put(place, "transformers", "5.31.0", ["Requires-Dist: tqdm>=4.99"])
    put(place, "peft", "0.19.0")
    put(place, "torchao", "0.3")
    put(place, "diffusers", "0.42.1")
    put(place, "pip", "26.0")
    told = in_words(raised_in(module, error))
    assert isinstance(told, LibraryRefused)
    assert message in told.message
    assert str(error).split(",")[0] in told.message
    assert hint in told.hint
    assert "pip" in told.hint


def test_a_refusal_is_seen_under_the_words_of_another_library(place: Path) -> None:
    wrapped = RuntimeError("Failed to import the pipeline")
    wrapped.__cause__ = raised_in("diffusers", ImportError("peft>=1 is required"))
    assert isinstance(refusal_of(wrapped), LibraryRefused)


def test_of_several_the_innermost_that_names_both_is_told(place: Path) -> None:
    put(place, "tokenizers", "0.23.1")
    inner = raised_in("transformers.utils.versions", ImportError("tokenizers>=0.24 is required"))
    middle = raised_in("transformers.utils.import_utils", ModuleNotFoundError("Could not load the class CLIPTextModel"))
    outer = raised_in("diffusers.utils", RuntimeError(f"Failed to load: {inner}; upgrade it"))
    outer.__cause__, middle.__cause__ = middle, inner
    told = refusal_of(outer)
    assert told is not None
    assert re.match(r"transformers \S+ and tokenizers 0\.23\.1 don't work together: tokenizers>=0\.24", told.message)


def test_what_is_told_of_damaged_files_is_not_told_of_versions(place: Path) -> None:
    from dreambooth_cli.engine.refusal import refused

    put(place, "peft", "0.19.0")
    with pytest.raises(LibraryRefused, match=r"peft 0\.19\.0"), refused("the base can't be loaded"):
        raise raised_in("transformers.utils.peft_utils", ValueError(REFUSED))
    with pytest.raises(ModelUnavailable, match="the base can't be loaded: no"), refused("the base can't be loaded"):
        raise raised_in("transformers.modeling_utils", ValueError("no weights"))


@pytest.mark.parametrize(
    "error",
    [
        raised_in("dreambooth_cli.engine.families.lora", ZeroDivisionError("by zero")),
        raised_in("dreambooth_cli.engine.families.lora", ValueError(REFUSED)),
        raised_in("torch.nn", RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
        raised_in("transformers.modeling", ValueError("the tokenizers of this model differ")),
        raised_in("dreambooth_cli.cli.app", ImportError("cannot import name 'x' from 'dreambooth_cli.cli'")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_error_stays_what_it_is(error: Exception) -> None:
    assert refusal_of(error) is None


def test_a_pipx_environment_is_mended_by_pipx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipx_metadata.json").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert libraries.install_line(["torch"]) == f'pipx runpip dreambooth-cli install "torch{TRIED_TORCH}"'
