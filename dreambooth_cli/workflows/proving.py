"""`doctor --try`: how a run does on this machine, in two minutes and without a download. A stopped run of pocket is continued; pocket is
trained, and its loss compared with a CPU's; three steps of a base are taken at its true size, with random weights."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from ..bases.catalog import CATALOG, CatalogEntry
from ..bases.true_sizes import find_to_try
from ..config import Asked, ask
from ..disk import check_space, clear_leftovers, make_folder, temporary
from ..engine.device import as_torch_has_it, held_memory
from ..engine.families.loading import find_device, forget_failed_attempt
from ..engine.families.random_base import write_random_base
from ..errors import DoesNotFit, DreamboothError, Interrupted
from ..events import Events, Noted, PhaseStarted, StepDone, Warned, Yielding
from ..gpu import find_gpu
from ..machine import free_memory
from ..memory.duration import predict
from ..memory.plan import Plan
from ..memory.search import check_fits, device_of
from ..paths import home_folder
from ..project import Project, open_project
from ..settings import PrepSettings, SubjectSettings, TrainSettings
from .assemble import make_training
from .example import CLASS_PROMPT, photos_of_example
from .initialise import initialise
from .plan import plan_with
from .recipe import choose_prompts, gather, plan_for, with_plan
from .train import train
from .verify import take_steps, verify_resume

POCKET = "pocket"
STEPS, TAKEN = 40, 3  # steps of pocket, and of the base at its true size
WINDOW = 10  # steps over which a loss is averaged
CLASS_IMAGES = {"class_images": 4, "class_image_steps": 25, "class_guidance_scale": 5.0}
POCKET_RUN = {**CLASS_IMAGES, "steps": STEPS, "frames": "own", "rehearsal": False, "sample_every": 0, "judge": "none"}
TRUE_SIZE_RUN: dict[str, Any] = {"class_images": 1, "class_image_steps": 2, "frames": "own"}
# The mean loss of each ten of that run's first 38 steps on a core of an AMD EPYC: torch 2.13.0, float32, November 2026. In bf16 they are
# 0.2% higher there; a GPU, with other kernels and bf16, is allowed ten times that.
CPU_LOSSES = (0.126905, 0.100992, 0.069382, 0.127862)
APART = 0.02  # share by which a loss may differ
SPARE = 2e9  # bytes of disk besides the base's


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The result of one part. `passed` is None if it was not tried. `predicted` and `measured`: figures under the same names."""

    name: str
    passed: bool | None
    message: str
    predicted: dict[str, float] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)


def prove(model: str, parts: list[Tried]) -> Events:
    """Try all three parts and append their results to `parts`. Raises UsageError for a base that can't be tried without a download,
    DiskError."""
    entry = find_to_try(model)
    make_folder(home_folder())
    clear_leftovers(home_folder())
    check_space([(home_folder(), int(bytes_of(entry) + SPARE))])
    with temporary(home_folder()) as scratch, moved_home(scratch):
        photos = write_photos(scratch / "photos", 1)
        project = yield from make_project("pocket", photos, POCKET)
        tries: list[tuple[str, Callable[[], Yielding[Tried]]]] = [
            ("a stopped run goes on", lambda: try_resume(project)),
            ("pocket learns as on a CPU", lambda: try_pocket(project)),
            (f"{TAKEN} steps of {entry.name} at its true size", lambda: try_base(entry, scratch)),
        ]
        for name, attempt in tries:
            parts.append((yield from tried(name, attempt)))
            forget_failed_attempt()


def bytes_of(entry: CatalogEntry) -> int:
    """The size on disk of a base with random weights, in bytes, in half precision."""
    facts = entry.facts
    return 0 if entry.folder else 2 * (facts.denoiser + facts.vae + sum(facts.text_encoders))


def tried(name: str, attempt: Callable[[], Yielding[Tried]]) -> Yielding[Tried]:
    """The result of a part; an error becomes its result, so that the other parts still run."""
    yield PhaseStarted(name=name)
    try:
        return (yield from attempt())
    except Interrupted:
        raise
    except DoesNotFit as error:
        return Tried(name=name, passed=None, message=f"not tried, because it does not fit: {error.message}")
    except DreamboothError as error:
        return Tried(name=name, passed=False, message=error.message)
    except Exception as error:  # a driver or a compiler may raise anything on an unknown machine
        return Tried(name=name, passed=False, message=f"{type(error).__name__}: {error}")


@contextmanager
def moved_home(folder: Path) -> Iterator[None]:
    """Meanwhile, put projects and class images into this folder."""
    before = os.environ.get("DREAMBOOTH_HOME")
    os.environ["DREAMBOOTH_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["DREAMBOOTH_HOME"]
        os.environ |= {} if before is None else {"DREAMBOOTH_HOME": before}


def write_photos(folder: Path, times: int) -> Path:
    """Write the example's photos, enlarged `times` times, to a new folder. Raises OSError."""
    folder.mkdir(parents=True)
    for number, photo in enumerate(photos_of_example(), start=1):
        photo.resize((photo.width * times, photo.height * times)).save(folder / f"photo-{number}.png")
    return folder


def make_project(name: str, photos: Path, model: str) -> Yielding[Project]:
    """Make a project of the example's photos on a base."""
    yield from steps_of(initialise(name, subject=SubjectSettings(photos=photos, class_prompt=CLASS_PROMPT, model=model), prep={}, train={}))
    return open_project(name)


def asked_of(project: Project, **settings: Any) -> Asked:
    """What is asked for in a run of a project with these training settings."""
    return ask(project.settings(), {TrainSettings: settings})


def steps_of(events: Events, losses: list[float] | None = None, told: list[str] | None = None) -> Events:
    """Only those events of a workflow that move a bar; losses and messages are appended to the lists."""
    for event in events:
        if isinstance(event, StepDone) and losses is not None:
            losses.append(event.loss)
        if isinstance(event, Noted | Warned) and told is not None:
            told.append(event.message)
        if isinstance(event, PhaseStarted | StepDone):
            yield event


def try_resume(project: Project) -> Yielding[Tried]:
    """Whether a run that was stopped continues like one that was not."""
    told: list[str] = []
    yield from steps_of(verify_resume(project, asked_of(project, **POCKET_RUN)), told=told)
    return Tried(name="a stopped run goes on", passed=told[-1].startswith("verified"), message=told[-1])


def try_pocket(project: Project) -> Yielding[Tried]:
    """Whether pocket's loss here is what it was on a CPU."""
    losses: list[float] = []
    yield from steps_of(train(project, asked_of(project, **POCKET_RUN)), losses=losses)
    here = window_means(in_time(losses, late=find_device(device_of(as_torch_has_it(find_gpu()))).type == "cuda"))
    apart = max(abs(ours - theirs) / theirs for ours, theirs in zip(here, CPU_LOSSES, strict=True))
    name = "pocket learns as on a CPU"
    said = f"over {STEPS - 2} steps the loss differs by at most {apart:.1%} from a CPU's; up to {APART:.0%} is rounding"
    return Tried(name=name, passed=apart <= APART, message=said, predicted={"loss": CPU_LOSSES[-1]}, measured={"loss": here[-1]})


def in_time(losses: list[float], *, late: bool) -> list[float]:
    """The losses of a run's steps up to the last but two, from what its events say: `late`, each but the first and the last one has the
    loss of the step before."""
    return losses[1:-1] if late else losses[:-2]


def window_means(losses: list[float]) -> list[float]:
    """The mean of each ten losses."""
    return [mean(losses[start : start + WINDOW]) for start in range(0, len(losses), WINDOW)]


def try_base(entry: CatalogEntry, scratch: Path) -> Yielding[Tried]:
    """Take three steps of a base at its true size, under the plan it would have here; compare prediction and measurement."""
    name = f"{TAKEN} steps of {entry.name} at its true size"
    model = entry.name
    if entry.folder is None:
        gpu, settings = as_torch_has_it(find_gpu()), TrainSettings(**TRUE_SIZE_RUN)
        check_room(plan_with(entry.facts, entry.name, PrepSettings(), settings, gpu=gpu), settings)  # before gigabytes are written
        yield PhaseStarted(name="random weights")
        tokenizer = CATALOG[-1].folder or Path()
        model = str(write_random_base(entry, scratch / entry.name, tokenizer=tokenizer / "tokenizer"))
    photos = write_photos(scratch / "large", max(1, entry.facts.resolution // 64))
    project = yield from make_project("true-size", photos, model)
    asked = asked_of(project, **TRUE_SIZE_RUN)
    with project.lock():
        made_of = yield from passed_on(gather(project, asked))
        plan = plan_for(made_of, as_torch_has_it(find_gpu()))
        check_room(plan, asked.train)
        prompts = yield from passed_on(choose_prompts(made_of))
        training = yield from passed_on(make_training(with_plan(made_of, plan, prompts)))
        seconds: list[float] = []
        for event in take_steps(training, TAKEN):
            seconds += [event.seconds] if isinstance(event, StepDone) else []
            yield event
        held = held_memory(training.device)
    foreseen = plan.needed if plan.device != "cpu" else plan.ram["step"]
    expected = predict(plan, made_of.base.facts, made_of.settings, find_gpu())
    step = {} if expected is None else {"step_seconds": round(expected.step, 3)}
    return Tried(
        name=name,
        passed=True,
        message=f"{plan.why}; {min(seconds):.2f} s a step, {held / 1e9:.1f} GB held, {foreseen / 1e9:.1f} GB predicted",
        predicted={"memory_gb": round(foreseen / 1e9, 2), **step},
        measured={"memory_gb": round(held / 1e9, 2), "step_seconds": round(min(seconds), 3)},
    )


def check_room(plan: Plan, asked: TrainSettings) -> None:
    """Raises DoesNotFit if a plan does not fit, or if the machine's free memory is too small, since the system might then kill other
    programs too."""
    check_fits(plan, asked)
    if (most := max(plan.ram.values())) > free_memory():
        raise DoesNotFit(f"it needs {most / 1e9:.1f} GB of the machine's memory, but only {free_memory() / 1e9:.1f} GB are free", "")


def passed_on(events: Yielding[Any]) -> Yielding[Any]:
    """The same, with only the events that move a bar. Returns what `events` returns."""
    while True:
        try:
            event = next(events)
        except StopIteration as done:
            return done.value
        if isinstance(event, PhaseStarted | StepDone):
            yield event
