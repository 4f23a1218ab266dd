"""CPU time of `dreambooth --help` and `dreambooth models` compared with a bare five-command Typer app with rich help.

    python -m tests.benchmarks.startup [ROUNDS]

Each round runs all three in turn, so that a busy machine is busy for all of them.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

CHECKOUT = Path(__file__).parent.parent.parent
TARGETS = {"dreambooth --help": 1.25, "dreambooth models": 2.5}
BARE = """
import typer

app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})

@app.callback()
def main() -> None:
    "Five commands."

def command(name: str, count: int = 1) -> None:
    "Do one thing."

for word in ("init", "prep", "train", "generate", "models"):
    app.command(word)(command)

app()
"""


def cpu_seconds(arguments: list[str]) -> float:
    """User and system time of one process."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, cwd=CHECKOUT, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def measure(rounds: int) -> dict[str, list[float]]:
    """Name -> seconds of each round."""
    with TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        commands = {
            "bare --help": [str(bare), "--help"],
            "dreambooth --help": ["-m", "dreambooth_cli", "--help"],
            "dreambooth models": ["-m", "dreambooth_cli", "models"],
        }
        for arguments in commands.values():
            cpu_seconds(arguments)  # the first compiles the modules
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, arguments in commands.items():
                seconds[name].append(cpu_seconds(arguments))
    return seconds


def main() -> None:
    """Print the medians and their ratios."""
    medians = {name: statistics.median(found) for name, found in measure(int((sys.argv[1:] or ["15"])[0])).items()}
    bare = medians["bare --help"]
    for name, median in medians.items():
        target = f"  (target {TARGETS[name]})" if name in TARGETS else ""
        print(f"{name:<18} {median * 1000:5.0f} ms  {median / bare:.2f}{target}")


if __name__ == "__main__":
    main()
