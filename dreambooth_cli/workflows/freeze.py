"""Which run a command means, and its plan, made once and kept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from ..bases.base import Base
from ..bases.catalog import find_entry
from ..config import Asked
from ..disk import sha256_of
from ..engine.device import as_torch_has_it
from ..engine.families.loading import find_device
from ..engine.training.checkpoint import checkpoints, latest_checkpoint, step_of
from ..errors import DoesNotFit, ProjectError
from ..events import Events, Noted, PlanMade, Warned, Yielding
from ..gpu import Gpu, find_gpu
from ..identity import content_of, former_identities, former_run_digest, run_digest
from ..machine import free_memory, machine_memory, resident_memory
from ..memory.duration import SHORT, predict, time_line
from ..memory.plan import Plan
from ..memory.search import at_rates_of, check_fits
from ..memory.survey import slow_step_note
from ..project import Project
from ..prompts import class_noun
from ..record import BaseRecord, Record
from ..run import Run
from ..settings import FORMER, SubjectSettings, TrainSettings, shaping
from ..text import shortened
from .recipe import Ingredients, Recipe, choose_prompts, plan_for, with_plan

REPLANNED, MEMORY, NOT_FINITE = "replanned", "out of memory", "not finite"  # why a run continues under another plan
DIFFER = {"photos": "other photos, or photos in another order", "class_photos": "other class images", "base": "another base"}
IMAGES = "class images"  # their key among the circumstances that a run began with


def shape_of(made_of: Ingredients) -> dict[str, Any]:
    """What shapes the weights of the run that these settings, photos and base mean (see `identity`). Raises OSError."""
    return {
        "asked": made_of.asked.shaping(),
        "photos": [photo.content for photo in made_of.photos],
        "class_photos": [sha256_of(path) for path in made_of.own_class_images],
        "base": content_of(made_of.base),
    }


def shape_before(asked: Asked, shape: Mapping[str, Any], version: str = FORMER[-1]) -> dict[str, Any]:
    """The same shape, as an earlier version with other defaults recorded it."""
    return {**shape, "asked": asked.shaping(version)}


def with_former_photos(made_of: Ingredients, shape: Mapping[str, Any]) -> dict[str, Any]:
    """The same shape, with the photos identified as versions up to 0.2 did."""
    return {**shape, "photos": [photo.former_content for photo in made_of.photos]}


def find_run(project: Project, made_of: Ingredients, shape: Mapping[str, Any]) -> Run | None:
    """The newest run of this shape, begun by this version or an earlier one, finished or not; one superseded by `--restart` does not count.

    Raises ProjectError for a run that 0.1 began if its base has changed since.
    """
    if found := project.find_run(run_digest(**shape)):
        return found
    if not any(run.has_begun for run in project.runs()):
        return None
    base, shapes = made_of.base, [shape, with_former_photos(made_of, shape)]
    for known in (shape_before(made_of.asked, one, version) for version in FORMER for one in shapes):
        if found := project.find_run(run_digest(**known)):
            return found
    begun = [(run, run.record()) for run in reversed(project.runs()) if run.has_begun]
    former = [(run, record) for run, record in begun if record.shape is None]
    if not former:
        return None
    before = [shape_before(made_of.asked, one) for one in shapes]
    names = [former_run_digest(**{**one, "base": each}) for one in before for each in (*former_identities(base), shape["base"])]
    for run, record in former:
        if record.digest in names:
            return run
        was = [former_run_digest(**{**one, "base": record.base.identity}) for one in before]
        if record.digest in was and record.base.path == record_of(base).path:
            raise ProjectError(
                f"run {run.number} of {project.name} was begun by dreambooth 0.1, and {base.name} has changed since: that version "
                "counted every .json, .txt and .safetensors file in its folder",
                "put its files back as they were, or start a new run: --restart",
            )
    return None


def told_apart(project: Project, made_of: Ingredients, shape: Mapping[str, Any]) -> Events:
    """Say why the newest unfinished run, if there is one, is not continued."""
    for run in reversed(project.runs()):
        if not run.is_finished and (left := checkpoints(run.checkpoints)):
            differs = _what_differs(run, (shape, with_former_photos(made_of, shape)))
            yield Noted(message=f"run {run.number}, which stopped at step {step_of(left[-1])}, was begun with {differs}; this is a new run")
            return


def _what_differs(run: Run, shapes: Sequence[Mapping[str, Any]]) -> str:
    """What a run was begun with that is different now; `shapes` are the present one, as this version and earlier ones record it."""
    began = run.record().shape if run.has_begun else None
    if began is None or not isinstance(began.get("asked"), dict):
        return "other settings, other photos or another base"
    shape = next((one for one in shapes if _pictures_in(one) == _pictures_in(began)), shapes[0])
    defaults = {**shaping(SubjectSettings()), **shaping(TrainSettings())}  # of settings that did not exist when it began
    asked = {**defaults, **began["asked"]}
    names = [name.replace("_", " ") for name, value in shape["asked"].items() if asked.get(name) != value]
    told = [f"other settings ({', '.join(names)})"] if names else []
    differ = [key for key in DIFFER if began.get(key) != shape[key]]
    same_pictures = _pictures_in(began) == _pictures_in(shape)
    told += ["other captions or masks" if key == "photos" and same_pictures else DIFFER[key] for key in differ]
    return " and ".join(told) or "the same, before --restart"


def _pictures_in(shape: Mapping[str, Any]) -> list[str]:
    """The sha256 of each photo's pixels, without captions and masks."""
    return [str(content).partition(" ")[0] for content in shape.get("photos") or []]


def freeze_plan(
    project: Project, run: Run | None, made_of: Ingredients, shape: Mapping[str, Any], *, replan: bool
) -> Yielding[tuple[Run, Recipe]]:
    """The run and its recipe. The plan and the prompts are made at its first start and kept in plan.json; later starts use those.

    With `replan`, a run continues under a plan for the memory that is free now; whatever its saved state depends on stays the same.
    Raises DoesNotFit.
    """
    gpu = as_torch_has_it(find_gpu())
    if run is None:
        plan = plan_for(made_of, gpu)
        check_fits(plan, made_of.settings)
        find_device(plan.device)  # before anything is made
        prompts = yield from choose_prompts(made_of)
        record = new_record(with_plan(made_of, plan, prompts), shape)
        run = project.new_run()
        run.write_record(record)
    else:
        record = run.record()
        if record.shape is None:  # 0.1 began it; from now on it is found by this version's digest
            before = shape_before(made_of.asked, shape)
            record = replace(record, digest=run_digest(**before), shape=before)
            run.write_record(record)
        if replan:
            record = replanned(run, record, made_of, gpu)
            run.write_record(record)
    recipe = with_plan(as_begun(made_of, record), record.plan, record.prompts)
    check_still_fits(recipe.plan, gpu, made_of.settings)
    yield PlanMade(plan=recipe.plan.to_json())
    yield from told_slow(recipe, gpu)
    return run, recipe


def as_begun(made_of: Ingredients, record: Record) -> Ingredients:
    """The ingredients of a run as they were when it began: up to 0.2, no network was told where a photo was cut from."""
    if record.photos is not None:
        return made_of
    return replace(made_of, photos=tuple(replace(photo, size=None) for photo in made_of.photos))


def as_recipe(made_of: Ingredients, run: Run) -> Recipe:
    """The recipe of a run that has begun, as it was. Raises ProjectError."""
    record = run.record()
    return with_plan(as_begun(made_of, record), record.plan, record.prompts)


def told_slow(recipe: Recipe, gpu: Gpu | None) -> Events:
    """Say what the base can't do and how long the run may take; warn if the machine has less memory free than the run needs."""
    plan, settings = recipe.plan, recipe.settings
    yield from told_limits(recipe)
    found = predict(plan, recipe.base.facts, settings, gpu)
    if found is not None and found.seconds > SHORT:
        yield Noted(message=f"{time_line(found)[0].lower()}{time_line(found)[1:]}")
    rows = sum(settings.rows) * settings.gradient_accumulation
    if plan.device == "cpu" and (note := slow_step_note(recipe.base.facts, plan.resolution, rows)):
        yield Warned(message=note)
    if plan.ram_needed > (free := free_memory() + resident_memory()):
        yield Warned(
            message=f"the run needs {plan.ram_needed / 1e9:.1f} GB of the machine's memory, but only {free / 1e9:.1f} GB are free: "
            "it may swap or be killed; close other programs"
        )


def told_limits(recipe: Recipe) -> Events:
    """Say what a base that knows little can't do, and warn if it has never seen the subject's kind."""
    subject = recipe.asked.subject
    entry = find_entry(subject.model)
    if entry is None or not entry.knows:
        return
    unseen = entry.unseen_line(class_noun(subject.class_prompt or "", recipe.prompts.identifier))
    yield Warned(message=unseen) if unseen else Noted(message=entry.limits)


def new_record(recipe: Recipe, shape: Mapping[str, Any]) -> Record:
    """What plan.json holds when a run begins."""
    return Record(
        id=uuid4().hex,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        digest=run_digest(**shape),
        shape=dict(shape),
        asked=recipe.asked.record(),
        sources={stage: dict(found) for stage, found in recipe.asked.sources.items()},
        base=record_of(recipe.base),
        prompts=recipe.prompts,
        plan=recipe.plan,
        photos=tuple(photo.told() for photo in recipe.photos),
        continues=recipe.asked.continues,
    )


def replanned(run: Run, record: Record, made_of: Ingredients, gpu: Gpu | None) -> Record:
    """The record with a new plan from the newest checkpoint's step on. A checkpoint can't be converted, so if there is one, method,
    text encoder and optimizer stay the same. Raises DoesNotFit."""
    old, wanted = record.plan, made_of.settings
    checkpoint = latest_checkpoint(run.checkpoints, run.id)
    if checkpoint is not None:
        wanted = replace(wanted, method=old.method, train_text_encoder=old.train_text_encoder, optimizer=old.optimizer)
    plan = plan_for(replace(made_of, asked=made_of.asked.with_train(wanted)), gpu)
    if checkpoint is not None:
        plan = at_rates_of(old, plan)
    if not plan.fits and checkpoint is not None:
        raise DoesNotFit(
            f"no plan that can continue from {checkpoint.name} fits: {plan.why}",
            "free memory, or start a new run with --restart",
        )
    check_fits(plan, wanted)
    return record.with_change(plan, step=step_of(checkpoint), kind=REPLANNED, what="asked for")


def keep_change(run: Run, further: Plan, kind: str, what: str) -> None:
    """Write into plan.json that a run continues under another plan from its newest checkpoint's step, so that a resume does too."""
    step = step_of(latest_checkpoint(run.checkpoints, run.id))
    run.write_record(run.record().with_change(further, step=step, kind=kind, what=what))


def hold_against_start(run: Run, step: int, now: Mapping[str, Any]) -> Events:
    """Record in plan.json the circumstances that a run begins in (versions, threads, the class images' digest), or, when it continues,
    say which of them are different now. `now`: their names and plain values."""
    record = run.record()
    began = record.began
    if step == 0 or began is None:
        run.write_record(replace(record, began=dict(now)))
        if step:
            yield Noted(
                message=f"run {run.number} was begun by dreambooth 0.1, which did not record library versions and threads: "
                "if these or the machine have changed, the last digits of its weights may differ"
            )
        return
    differ = [key for key in now if began.get(key) != now[key]]
    if IMAGES in differ:
        yield Warned(message=f"run {run.number} continues with other class images than it began with")
    if told := [key for key in differ if key != IMAGES]:
        was, is_ = (", ".join(f"{key} {shortened(str(each.get(key)))}" for key in told) for each in (began, now))
        yield Warned(
            message=f"run {run.number} began with {was} and continues with {is_}: the last digits of its weights may differ"
        )


def check_still_fits(plan: Plan, gpu: Gpu | None, settings: TrainSettings) -> None:
    """Check a kept plan against the machine's memory and the GPU memory that is free now. Raises DoesNotFit."""
    if plan.ram_needed > machine_memory():
        check_fits(replace(plan, free=None, fits=False, remedy=""), settings)
    if plan.device == "cpu":
        return
    if gpu is None:
        raise DoesNotFit(
            "this run was planned for a GPU, but none is found now",
            "continue under a new plan: the same command with --replan",
        )
    if plan.needed > gpu.free:
        check_fits(replace(plan, free=gpu.free, fits=False, remedy=""), settings)


def record_of(base: Base) -> BaseRecord:
    """The entry for a base in a run's record."""
    local = base.repository is None
    path = base.name if find_entry(base.name) else str(base.path)
    return BaseRecord(
        name=base.name, repository=base.repository, path=path if local else None, identity=base.identity
    )
