"""What file systems refuse: each change that a run makes to files is made to fail in turn, with one error number after another.

    python -m tests.faults --only file-systems

The answer must be in words, and the same command run again must end with the weights of an undisturbed run.
"""

import errno
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .kills import faults_after, small_scenario
from .row import Row
from .scenario import Scenario, events_in, every_so_often
from .watched import GO, Change, run_followed, run_watched

REFUSALS = (errno.EIO, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ESTALE, errno.EMFILE, errno.ELOOP)
OF_RENAMES = (errno.EXDEV, errno.EIO, errno.EACCES, errno.EROFS)
UNKNOWN = (errno.EINVAL, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)  # what such a file system does not have: no failure
LIMITS = (2_000, 40_000, 200_000, 1_000_000)  # bytes, of `ulimit -f`


def refusals_of(change: Change) -> tuple[int, ...]:
    """The error numbers that a change may fail with."""
    if change.operation == "lock":
        return (*UNKNOWN, errno.EIO)
    if change.operation == "fsync":
        return (errno.EIO, errno.EINVAL, errno.ENOTSUP, errno.EDQUOT)
    return OF_RENAMES if change.operation in ("rename", "link") else REFUSALS


def must_go_on(change: Change, number: int) -> bool:
    """Whether a run must go on in spite of a refusal."""
    return change.operation in ("lock", "fsync") and number in UNKNOWN


def refuse(scenario: Scenario, home: Path, output: Path, number: int, refusal: int) -> tuple[int, Change | None]:
    """Run, with only change `number` failing. Returns the exit status and the change, since a run may make one more or less before it
    than the run that was counted."""
    output.unlink(missing_ok=True)
    seen: list[Change] = []

    def answer(change: Change) -> int:
        seen.append(change)
        return refusal if len(seen) == number + 1 else GO

    code, _ = run_watched(lambda: scenario.run(home), home, output, answer)
    return code, seen[number] if len(seen) > number else None


def faults_of(code: int, output: Path) -> list[str]:
    """What is wrong with a run's answer after the system refused something."""
    text = output.read_text(errors="replace")
    wrong = [] if code in (0, 3, 5, 6) else [f"exit status {code}"]
    if "Traceback" in text or "this is a bug" in text:
        wrong.append(text[-1200:])
    told = [event for event in events_in(output) if event["event"] == "error"]
    if code not in (0, *(event["exit_code"] for event in told)):
        wrong.append(f"exit status {code} without a word")
    return wrong


def try_changes(scenario: Scenario, *, every: int) -> Row:
    """Refuse every `every`-th change, with the next of the error numbers that are its own."""
    changes, wanted = scenario.undisturbed
    numbers, which = every_so_often(len(changes), every)
    turns: dict[str, int] = {}
    lost, unequal, slowest, remarks = 0, 0, 0.0, []
    for number in numbers:
        change, home, output = changes[number], scenario.home("home"), scenario.folder / "home.out"
        turn = turns[change.operation] = turns.get(change.operation, -1) + 1
        refusal = refusals_of(change)[turn % len(refusals_of(change))]
        began = time.monotonic()
        code, refused = refuse(scenario, home, output, number, refusal)
        slowest = max(slowest, time.monotonic() - began)
        missing = faults_of(code, output)
        if refused is not None and must_go_on(refused, refusal) and code != 0:
            missing.append(f"exit status {code}: {output.read_text()[-300:]}")
        more, other = faults_after(scenario, home, output, wanted)
        missing += more
        lost, unequal = lost + bool(missing), unequal + bool(other)
        what = "none was left" if refused is None else f"{refused.operation} {refused.path.name}"
        where = f"{errno.errorcode[refusal]} at change {number} ({what})"
        remarks += [f"{where}: {'; '.join([*missing, *other])}"] if missing or other else []
    return Row(f"file systems: one refusal at {which} of {len(changes)} changes", len(numbers), lost, unequal, slowest, remarks)


def try_limits(scenario: Scenario, limits: Sequence[int]) -> Row:
    """No file may grow beyond a limit; then it may."""
    (_, wanted), (_, hard) = scenario.undisturbed, resource.getrlimit(resource.RLIMIT_FSIZE)
    lost, unequal, slowest, remarks = 0, 0, 0.0, []
    for limit in limits:
        home, output = scenario.home("home"), scenario.folder / "home.out"
        output.unlink(missing_ok=True)
        def limited(limit: int = limit, home: Path = home) -> int:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            return scenario.run(home)

        began = time.monotonic()
        code = run_followed(limited, output, lambda child, line: None)  # into a pipe, which has no size
        slowest = max(slowest, time.monotonic() - began)
        missing = faults_of(code, output)
        more, other = faults_after(scenario, home, output, wanted)
        missing += more
        lost, unequal = lost + bool(missing), unequal + bool(other)
        remarks += [f"at most {limit} bytes: {'; '.join([*missing, *other])}"] if missing or other else []
    return Row("file systems: a limit on the size of files", len(limits), lost, unequal, slowest, remarks)


def rows() -> Iterator[Row]:
    """The table's lines. The process must have the watch loaded."""
    with small_scenario() as scenario:
        yield try_changes(scenario, every=5)
        yield try_limits(scenario, LIMITS)
