"""CPU time of `dreambooth --help` and `dreambooth models` compared with a bare five-command Typer app with rich help; and of many prompts
in one start of `dreambooth generate`, compared with one prompt.

    python -m tests.benchmarks.startup [ROUNDS]
    python -m tests.benchmarks.startup prompts [COUNT]

Each round runs all three in turn, so that a busy machine is busy for all of them. The prompts are drawn by pocket after 20 steps of
training, on one core.
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


def measure_prompts(count: int) -> tuple[float, float]:
    """CPU seconds of a start that draws one prompt, and of one that draws this many from a file."""
    with TemporaryDirectory() as folder:
        os.environ |= {"DREAMBOOTH_HOME": folder, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        prompts = Path(folder) / "prompts.txt"
        prompts.write_text("".join(f"a photo of a [identifier] dog on the moon number {number}\n" for number in range(1, count + 1)))
        dreambooth = ["-m", "dreambooth_cli"]
        cpu_seconds([*dreambooth, "init", "example", "--example", "--yes"])
        cpu_seconds([*dreambooth, "train", "example", "--steps", "20", "--class-images", "4", "--yes"])
        draw = [*dreambooth, "generate", "example"]
        return cpu_seconds([*draw, "a photo of a [identifier] dog on the moon"]), cpu_seconds([*draw, "--prompts", str(prompts)])


def main() -> None:
    """Print the medians and their ratios, or what prompts cost."""
    if sys.argv[1:2] == ["prompts"]:
        count = int((sys.argv[2:] or ["100"])[0])
        one, many = measure_prompts(count)
        picture = (many - one) / (count - 1)
        print(f"one prompt {one:.1f} s; {count} in one start {many:.1f} s: {picture:.2f} s each, and {one - picture:.1f} s for the start")
        return
    medians = {name: statistics.median(found) for name, found in measure(int((sys.argv[1:] or ["15"])[0])).items()}
    bare = medians["bare --help"]
    for name, median in medians.items():
        target = f"  (target {TARGETS[name]})" if name in TARGETS else ""
        print(f"{name:<18} {median * 1000:5.0f} ms  {median / bare:.2f}{target}")


if __name__ == "__main__":
    main()
