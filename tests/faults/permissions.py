"""Every command with a home in which one file or folder can't be read or written; another user's project is there too.

    python -m tests.faults --only permissions

Each answer must be in words and name what is refused; once the rights are restored, the same command must work.
"""

import io
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from .kills import small_scenario
from .powerless import can_give_up, run_powerless
from .row import Row
from .scenario import Scenario, weights_of

NOBODY = 65534
FIRST_CODES = (0, 2, 3, 5, 6)
MODES = {"unreadable": 0o000, "read-only": 0o555}
COMMANDS = ("list", "path", "remove", "prep", "resume", "deliver", "generate", "draw", "init", "models", "dry-run", "complete")


def answer_to(scenario: Scenario, home: Path, command: str) -> tuple[int, str]:
    """A command's exit code and all that it printed."""
    from dreambooth_cli import stopping
    from dreambooth_cli.cli.app import run
    from dreambooth_cli.cli.options import complete_project

    os.environ |= {"DREAMBOOTH_HOME": str(home / "dreambooth"), "HF_HOME": str(home / "hub")}
    stopping.reset()
    out = io.StringIO()
    photos, base = ["--photos", str(home / "photos")], ["--model", str(home / "base")]
    drawn = ["--output-dir", str(home / "drawn")]
    words = {
        "list": ["projects"],
        "path": ["projects", "path", "dog"],
        "remove": ["projects", "remove", "dog", "--yes"],
        "prep": ["prep", "dog"],
        "generate": ["generate", "dog", "a [identifier] dog", "--steps", "1", "--num-images", "1"],
        "draw": ["generate", "--model-path", str(home / "out"), "--prompt", "a dog", "--steps", "1", "--num-images", "1", *drawn],
        "init": ["init", "cat", *photos, *base, "--class-prompt", "a cat", "--yes"],
        "models": ["models"],
        "dry-run": ["train", "dog", "--dry-run"],
    }
    with redirect_stdout(out), redirect_stderr(out):
        if command == "complete":
            complete_project("d")
            code = 0
        elif command in words:
            code = run(words[command])
        else:
            code = Scenario(home, home / "base", home / "photos").run(home)
    return code, out.getvalue()


def make_home(scenario: Scenario, home: Path) -> None:
    """A home as a finished run leaves it, with the base, the photos and another user's project in it."""
    shutil.copytree(scenario.base, home / "base")
    shutil.copytree(scenario.photos, home / "photos")
    with redirect_stdout(io.StringIO()):
        if (code := Scenario(home, home / "base", home / "photos").run(home)) != 0:
            raise RuntimeError(f"the first run ended with {code}")
    foreign = home / "dreambooth" / "projects" / "foreign"
    foreign.mkdir()
    (foreign / "project.toml").write_text("")
    if os.geteuid() == 0:
        os.chown(foreign, NOBODY, NOBODY)
    foreign.chmod(0o700 if os.geteuid() == 0 else 0o000)


def copy_home(made: Path, home: Path, command: str) -> None:
    """A copy of the made home for one try; a run that is to be resumed has lost its model."""
    free(home)
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(made, home, symlinks=True, ignore=lambda folder, names: {"foreign"} & set(names))
    foreign = home / "dreambooth" / "projects" / "foreign"
    foreign.mkdir()
    foreign.chmod(0o000)  # a copy belongs to who copies
    if command in ("resume", "deliver"):
        shutil.rmtree(home / "out")
    if command == "resume":
        shutil.rmtree(next((home / "dreambooth" / "projects").glob("*/runs/1/model")))


def free(home: Path) -> None:
    """Give all rights back, so that a home can be removed."""
    for folder, folders, _ in os.walk(home):
        for name in folders:
            os.chmod(Path(folder) / name, 0o755)


def targets_in(made: Path) -> list[Path]:
    """Every file and folder of the home, by its path within it."""
    return sorted(path.relative_to(made) for path in made.rglob("*") if "foreign" not in path.parts)


def faults_of(code: int, told: str, target: Path) -> list[str]:
    """What is wrong with an answer."""
    wrong = [] if code in FIRST_CODES else [f"exit status {code}"]
    if "Traceback" in told or "this is a bug" in told:
        wrong.append(told[-400:])
    if code not in (0, 2) and not {target.name, target.parent.name, target.stem} & set(Path(told).parts) and target.name not in told:
        wrong.append(f"it does not name the file: {told[-300:]}")
    return wrong


def try_one(scenario: Scenario, made: Path, home: Path, target: Path, mode: str, command: str) -> tuple[list[str], list[str], int]:
    """Take the rights from one file or folder and run one command; then restore the rights and run it again.

    Returns what was lost, what came out unequal and the exit code without the rights.
    """
    copy_home(made, home, command)
    path = home / target
    if not os.path.lexists(path):  # of a run that is to be resumed
        return [], [], 0
    kept = stat.S_IMODE(path.stat().st_mode)
    path.chmod(MODES[mode] & (0o777 if path.is_dir() else 0o444))
    code, told = answer_to(scenario, home, command)
    lost = faults_of(code, told, target)
    if not path.exists():  # removed, as was asked
        return lost, [], code
    path.chmod(kept)
    if code == 0 and (command not in ("resume", "deliver") or target.parts[0] == "photos"):
        return lost, [], code  # without a photo it is another run
    again, told = answer_to(scenario, home, command)
    # what was removed in part is gone
    if again != 0 and command not in ("remove", "init"):
        lost.append(f"with the rights back: exit status {again}: {told[-300:]}")
    unequal = command in ("resume", "deliver") and weights_of(home) != weights_of(made)
    return lost, ["other weights"] if unequal else [], code


def try_all(scenario: Scenario, made: Path, report: Path, every: int) -> int:
    """Every `every`-th of all tries, so that the commands take turns; the rows' figures as a line of JSON each go to `report`."""
    tries = [(target, mode, command) for target in targets_in(made) for mode in MODES for command in COMMANDS]
    for mode in MODES:
        tried, lost, unequal, slowest, remarks = 0, 0, 0, 0.0, []
        for target, this, command in tries[::every]:
            if this != mode:
                continue
            began = time.monotonic()
            missing, other, code = try_one(scenario, made, made.with_name("home"), target, mode, command)
            slowest = max(slowest, time.monotonic() - began)
            tried, lost, unequal = tried + 1, lost + bool(missing), unequal + bool(other)
            if missing or other:
                remarks.append(f"{command}, {target} {mode} ({code}): {'; '.join([*missing, *other])}")
                print(remarks[-1], flush=True)
        with report.open("a") as file:
            file.write(json.dumps([f"permissions: {mode}", tried, lost, unequal, slowest, remarks]) + "\n")
    return 0


def rows_of(scenario: Scenario, *, every: int) -> Iterator[Row]:
    """The table's lines, one for each mode."""
    if not can_give_up():
        yield Row("permissions", 0, remarks=["not tried: root's rights can't be given up here"])
        return
    made, report, output = (scenario.folder / name for name in ("made", "report", "permissions.out"))
    make_home(scenario, made)
    code = run_powerless(lambda: try_all(scenario, made, report, every), output)
    if code != 0:
        raise RuntimeError(output.read_text()[-2000:])
    yield from (Row(*json.loads(line)) for line in report.read_text().splitlines())
    free(scenario.folder / "home")


def rows() -> Iterator[Row]:
    """The same of every seventh try."""
    with small_scenario() as scenario:
        yield from rows_of(scenario, every=7)
