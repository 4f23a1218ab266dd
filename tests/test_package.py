"""What users install: the wheel and the source archive, built here and tried in a fresh environment outside the checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import dreambooth_cli

CHECKOUT = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (CHECKOUT / "pyproject.toml").is_file(), reason="needs the checkout")]


def build(source: Path, out: Path, *what: str) -> None:
    """Run the standard builder with the build backend that is installed here."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *what, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive and the wheel made from it."""
    out = tmp_path_factory.mktemp("built")
    build(CHECKOUT, out)
    (archive,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return archive, wheel


def contents(wheel: Path) -> dict[str, int]:
    """Each file of a wheel with its checksum."""
    with zipfile.ZipFile(wheel) as opened:
        return {entry.filename: entry.CRC for entry in opened.infolist()}


def test_the_wheel_holds_the_package_its_tables_and_nothing_else(built: tuple[Path, Path]) -> None:
    names = set(contents(built[1]))
    on_disk = {
        file.relative_to(CHECKOUT).as_posix()
        for file in (CHECKOUT / "dreambooth_cli").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    info = f"dreambooth_cli-{dreambooth_cli.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(info)} == on_disk
    assert {"dreambooth_cli/py.typed", "dreambooth_cli/rare_tokens.txt", f"{info}licenses/LICENSE"} <= names


def test_the_source_archive_holds_what_is_needed_to_build_and_to_test(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "tests/conftest.py",
        "dreambooth_cli/__main__.py",
    }
    assert wanted <= names
    extra = {name.split("/")[0] for name in names} - {
        "dreambooth_cli",
        "tests",
        "README.zh-CN.md",
        ".gitignore",
        "PKG-INFO",
    }
    assert extra == {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "THIRD_PARTY.md"}


def test_a_wheel_from_the_checkout_is_the_wheel_from_the_source_archive(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    build(CHECKOUT, tmp_path, "--wheel")
    (wheel,) = tmp_path.glob("*.whl")
    assert contents(wheel) == contents(built[1])


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment outside the checkout with the wheel installed; it uses this environment's libraries."""
    home = tmp_path_factory.mktemp("installed") / "env"
    venv.create(home, with_pip=False)
    folder = "Scripts" if os.name == "nt" else "bin"
    command = [sys.executable, "-m", "pip", "--python", str(home / folder / "python"), "install"]
    offline = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    done = subprocess.run([*command, *offline, str(built[1])], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    # afterwards, or pip would find this environment's own dreambooth-cli there; a .pth found through a .pth is not obeyed,
    # so the checkout, where it is installed as editable, stays out
    paths = {"base": str(home), "platbase": str(home)}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n", encoding="utf-8")
    return home / folder


def run(*command: str | Path, cwd: Path) -> str:
    """The standard output of an installed program that must succeed."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_installed_program_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    python, program = installed / "python", installed / "dreambooth"
    where = run(python, "-c", "import dreambooth_cli; print(dreambooth_cli.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert run(program, "--version", cwd=tmp_path).split()[-1] == dreambooth_cli.__version__
    assert run(python, "-m", "dreambooth_cli", "--version", cwd=tmp_path).split()[-1] == dreambooth_cli.__version__
    assert all(
        command in run(program, "--help", cwd=tmp_path) for command in ("init", "prep", "train", "generate", "models")
    )
    assert all(name in run(program, "models", cwd=tmp_path) for name in ("sd15", "sd14", "sd21", "sdxl"))


def test_the_installed_program_goes_from_photos_to_pictures(installed: Path, tmp_path: Path) -> None:
    program = installed / "dreambooth"
    few = ["--steps", "2", "--class-images", "2", "--class-image-steps", "2", "--learning-rate", "1e-3", "--frames", "own"]
    run(program, "init", "mine", "--example", cwd=tmp_path)
    run(program, "prep", "mine", cwd=tmp_path)
    run(program, "train", "mine", *few, "--output-dir", "out", cwd=tmp_path)
    (drawn,) = run(program, "generate", "mine", "a [identifier] dog", "--steps", "2", cwd=tmp_path).splitlines()
    assert Path(drawn).is_file()
    assert (tmp_path / "out" / "model_index.json").is_file()


def test_the_package_index_takes_the_archives_as_they_are(built: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout


def test_every_link_of_the_package_s_page_leads_out_of_it(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as opened:
        (name,) = [name for name in opened.namelist() if name.endswith("/METADATA")]
        page = opened.read(name).decode("utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", page)
    assert "dreambooth_cli/pocket/demo.png" in (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert any(target.endswith(f"/v{dreambooth_cli.__version__}/dreambooth_cli/pocket/demo.png") for target in targets)
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


def test_the_changelog_knows_this_version() -> None:
    text = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{dreambooth_cli.__version__}]" in text
