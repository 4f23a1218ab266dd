"""What a run means: which run these settings name, its plan, made once and kept, and its prompts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..base import Base, BaseRequest
from ..card import CardBase
from ..catalog import find_entry
from ..config import Resolved
from ..disk import sha256_of
from ..engine.checkpoint import checkpoints, latest_checkpoint, step_of
from ..engine.device import as_torch_has_it
from ..engine.loading import find_device
from ..errors import DoesNotFit, ProjectError
from ..events import Events, Noted, PlanMade, Warned, Yielding
from ..gpu import Gpu, find_gpu
from ..identifier import choose_identifier, identifier_remarks, length_remarks, load_tokenizer
from ..identity import content_of, former_identities, former_run_digest, run_digest
from ..machine import free_memory, machine_memory, resident_memory
from ..memory import Plan, at_rates_of, check_fits
from ..project import Project, Run, check_values
from ..prompts import check_class_prompt, check_placeholder, fill, instance_prompt, plain_class_prompt, understood
from ..settings import PrepSettings, SubjectSettings, TrainSettings, as_before, shaping, shortened
from ..survey import slow_step_note
from .plan import plan_with
from .prepare import prepared_photos

REPLANNED, MEMORY, NOT_FINITE = "replanned", "out of memory", "not finite"  # why a run goes on under another plan
DIFFER = {"photos": "other photos or in another order", "class_photos": "other class images", "base": "another base"}
IMAGES = "class images"  # of what a run began with


@dataclass(frozen=True)
class Asked:
    """What the user asked of a run: three stages' settings, and where each value came from."""

    resolved_subject: Resolved[SubjectSettings]
    resolved_prep: Resolved[PrepSettings]
    resolved_train: Resolved[TrainSettings]

    @property
    def subject(self) -> SubjectSettings:
        """The subject."""
        return self.resolved_subject.values

    @property
    def prep(self) -> PrepSettings:
        """How photos are prepared."""
        return self.resolved_prep.values

    @property
    def train(self) -> TrainSettings:
        """How the base is fine-tuned."""
        return self.resolved_train.values

    @property
    def stages(self) -> Mapping[str, Resolved[Any]]:
        """All three, by the name of their section in project.toml."""
        return {"subject": self.resolved_subject, "prep": self.resolved_prep, "train": self.resolved_train}

    def record(self) -> dict[str, dict[str, Any]]:
        """The values as plain JSON, by stage."""
        return {
            stage: {key: _plain(value) for key, value in asdict(found.values).items()}
            for stage, found in self.stages.items()
        }

    def sources(self) -> dict[str, dict[str, str]]:
        """Where each value came from that is not a default: project.toml or a flag."""
        return {
            stage: {key: source for key, source in found.sources.items() if source != "default"}
            for stage, found in self.stages.items()
        }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Prompts:
    """The identifier and the two prompts that the run trains on."""

    identifier: str
    instance: str
    class_: str


@dataclass(frozen=True)
class Record:
    """What of a plan.json a run can't go on without."""

    id: str
    asked: dict[str, dict[str, Any]]
    base: dict[str, Any]
    prompts: dict[str, Any]
    plan: dict[str, Any]
    changes: tuple[dict[str, Any], ...]


def shape_of(project: Project, asked: Asked, base: Base, own_class_images: list[Path]) -> dict[str, Any]:
    """What shapes the weights of the run that these settings, photos and base mean (see `identity`). Raises ProjectError."""
    return {
        "asked": {**shaping(asked.subject), **shaping(asked.train)},
        "photos": [digest for _, digest in prepared_photos(project)],
        "class_photos": [sha256_of(path) for path in own_class_images],
        "base": content_of(base),
    }


def shape_before(asked: Asked, shape: Mapping[str, Any]) -> dict[str, Any]:
    """The same shape as a version recorded it whose defaults were others."""
    return {**shape, "asked": {**as_before(asked.subject), **as_before(asked.train)}}


def find_run(project: Project, asked: Asked, shape: Mapping[str, Any], base: Base) -> Run | None:
    """The newest run of this shape, of this version or one before, finished or not; one that was superseded by `--restart` does not count.

    Raises ProjectError where 0.1 began it, and its base is not what it was.
    """
    before = shape_before(asked, shape)
    for known in (shape, before):
        if found := project.find_run(run_digest(**known)):
            return found
    former = [run for run in reversed(project.runs()) if run.record() and "shape" not in run.record()]
    if not former:
        return None
    names = [former_run_digest(**{**before, "base": each}) for each in (*former_identities(base), shape["base"])]
    for run in former:
        record = run.record()
        if record.get("digest") in names:
            return run
        began_on = record["base"] if isinstance(record.get("base"), dict) else {}
        was = former_run_digest(**{**before, "base": str(began_on.get("identity"))})
        if record.get("digest") == was and began_on.get("path") == base_record(base)["path"]:
            raise ProjectError(
                f"run {run.number} of {project.name} was begun by dreambooth 0.1, and {base.name} is not what it was then: that version "
                "counted every .json, .txt and .safetensors file in its folder",
                "put its files back as they were, or begin another run: --restart",
            )
    return None


def told_apart(project: Project, shape: Mapping[str, Any]) -> Events:
    """Say why the newest run that was left on its way is not gone on with, where there is one."""
    for run in reversed(project.runs()):
        if not run.is_finished and (left := checkpoints(run.checkpoints)):
            yield Noted(
                message=f"run {run.number}, left at step {step_of(left[-1])}, was begun with {_what_differs(run, shape)}; this is a new run"
            )
            return


def _what_differs(run: Run, shape: Mapping[str, Any]) -> str:
    began = run.record().get("shape")
    if not isinstance(began, dict) or not isinstance(began.get("asked"), dict):
        return "other settings, other photos or another base"
    names = [name.replace("_", " ") for name, value in shape["asked"].items() if began["asked"].get(name) != value]
    told = [f"other settings ({', '.join(names)})"] if names else []
    told += [what for key, what in DIFFER.items() if began.get(key) != shape[key]]
    return " and ".join(told) or "the same, before --restart"


def freeze_plan(
    project: Project,
    run: Run | None,
    asked: Asked,
    base: Base,
    request: BaseRequest,
    shape: Mapping[str, Any],
    *,
    replan: bool,
) -> Yielding[tuple[Run, Plan, Prompts]]:
    """The run, its plan and its prompts: made at its first start and kept in plan.json, or the kept ones.

    With `replan` a run goes on under a plan for the memory that is free now; what gives its state its form stays.
    Raises DoesNotFit.
    """
    record, gpu = run.record() if run is not None else {}, as_torch_has_it(find_gpu())
    if run is None:
        plan = plan_with(base.facts, request, asked.prep, asked.train, gpu=gpu)
        check_fits(plan, asked.train)
        find_device(plan.device)  # before anything is made
        prompts = yield from choose_prompts(asked, base)
        record = new_record(asked, base, shape, plan, prompts)
        run = project.new_run()
        run.write_record(record)
    else:
        if "shape" not in record:  # 0.1 began it, and is found by this version's name from now on
            before = shape_before(asked, shape)
            record = record | {"digest": run_digest(**before), "shape": before}
            run.write_record(record)
        if replan:
            record = replanned(run, record, asked, base, request, gpu)
            run.write_record(record)
    plan, kept = read_kept(run, record)
    check_still_fits(plan, gpu, asked.train)
    yield PlanMade(plan=record["plan"])
    rows = asked.train.batch_size * asked.train.gradient_accumulation * (2 if asked.train.with_prior else 1)
    if plan.device == "cpu" and (note := slow_step_note(base.facts, plan.resolution, rows)):
        yield Warned(message=note)
    if plan.ram_needed > (free := free_memory() + resident_memory()):
        yield Warned(
            message=f"the run needs {plan.ram_needed / 1e9:.1f} GB of the machine's memory and {free / 1e9:.1f} GB are free: "
            "it may swap, or be killed; close other programs"
        )
    return run, plan, kept


def read_kept(run: Run, record: Mapping[str, Any]) -> tuple[Plan, Prompts]:
    """The plan and the prompts that a run's record holds. Raises ProjectError where it is damaged."""
    try:
        check_values(Record, record)
        check_values(CardBase, record["base"])
        check_values(Prompts, record["prompts"])
        asked = record["asked"]
        if not {"subject", "prep", "train"} <= asked.keys() or not isinstance(asked["train"].get("save_dtype"), str):
            raise ValueError("asked is not what is asked of a run")
        # until 0.2 the plan did not say it: it was a number, as asked
        stop = {"text_encoder_stop": asked["train"].get("text_encoder_stop")}
        return Plan.from_json(stop | record["plan"]), Prompts(**record["prompts"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProjectError(f"{run.plan} can't be read: {error}", "begin another run with --restart") from error


def new_record(asked: Asked, base: Base, shape: Mapping[str, Any], plan: Plan, prompts: Prompts) -> dict[str, Any]:
    """What plan.json holds: what was asked and from where, what was planned, and, later, what changed on the way."""
    return {
        "id": uuid4().hex,
        "digest": run_digest(**shape),
        "shape": dict(shape),
        "asked": asked.record(),
        "sources": asked.sources(),
        "base": base_record(base),
        "prompts": asdict(prompts),
        "plan": plan.to_json(),
        "changes": [],
    }


def replanned(
    run: Run, record: dict[str, Any], asked: Asked, base: Base, request: BaseRequest, gpu: Gpu | None
) -> dict[str, Any]:
    """The record with a new plan from the newest checkpoint's step. What a checkpoint holds can't change its form: method,
    text encoder and optimizer stay where there is one. Raises DoesNotFit."""
    old, _ = read_kept(run, record)
    checkpoint = latest_checkpoint(run.checkpoints, run.id)
    wanted = asked.train
    if checkpoint is not None:
        wanted = replace(wanted, method=old.method, train_text_encoder=old.train_text_encoder, optimizer=old.optimizer)
    plan = plan_with(base.facts, request, asked.prep, wanted, gpu=gpu)
    if checkpoint is not None:
        plan = at_rates_of(old, plan)
    if not plan.fits and checkpoint is not None:
        raise DoesNotFit(
            f"no plan that goes on from {checkpoint.name} fits: {plan.why}",
            "free memory, or begin another run with --restart",
        )
    check_fits(plan, wanted)
    change = {"step": step_of(checkpoint), "kind": REPLANNED, "what": "asked for", "from": record["plan"]}
    return record | {"plan": plan.to_json(), "changes": [*record["changes"], change]}


def keep_change(run: Run, plan: Plan, further: Plan, kind: str, why: str) -> None:
    """Write into plan.json that a run goes on under another plan, from its newest checkpoint's step, so that a resume does."""
    record = run.record()
    checkpoint = latest_checkpoint(run.checkpoints, run.id)
    change = {"step": step_of(checkpoint), "kind": kind, "what": why, "from": plan.to_json()}
    run.write_record(record | {"plan": further.to_json(), "changes": [*record["changes"], change]})


def hold_against_start(run: Run, step: int, now: Mapping[str, Any]) -> Events:
    """Keep in plan.json on what a run begins, or say in a line what of it is another now, where the run goes on; `now` holds plain
    values by their names, the digest of the class images among them."""
    record = run.record()
    began = record.get("began")
    if step == 0 or not isinstance(began, dict):
        run.write_record(record | {"began": dict(now)})
        if step:
            yield Noted(
                message=f"run {run.number} was begun by dreambooth 0.1, which did not keep with which versions and threads: "
                "with others, or on another machine, the last digits of its weights may come out otherwise"
            )
        return
    differ = [key for key in now if began.get(key) != now[key]]
    if IMAGES in differ:
        yield Warned(message=f"run {run.number} goes on with other class images than those that it began with")
    if told := [key for key in differ if key != IMAGES]:
        was, is_ = (", ".join(f"{key} {shortened(str(each.get(key)))}" for key in told) for each in (began, now))
        yield Warned(
            message=f"run {run.number} began with {was} and goes on with {is_}: the last digits of its weights may come out otherwise"
        )


def keep_rehearsed(run: Run, held: int) -> None:
    """Write into plan.json what a rehearsal held on the card, in place of what was planned for it."""
    record = run.record()
    if record["plan"]["device"] == "cuda":
        planned = record["plan"]["needed"]
        measured = {"step": 0, "bytes": held, "planned": planned}
        run.write_record(record | {"plan": record["plan"] | {"needed": held}, "measured": measured})


def keep_measured(run: Run, plan: Plan, step: int, held: int) -> None:
    """Write into plan.json what the process held after a step, beside what the plan had said of it: of the GPU's memory, or of the
    machine's where there is none."""
    planned = plan.needed if plan.device == "cuda" or not plan.ram else plan.ram_needed
    run.write_record(run.record() | {"measured": {"step": step, "bytes": held, "planned": planned}})


def check_still_fits(plan: Plan, gpu: Gpu | None, settings: TrainSettings) -> None:
    """Hold a kept plan against the machine, and against the memory of the GPU that is free now. Raises DoesNotFit."""
    if plan.ram_needed > machine_memory():
        check_fits(replace(plan, free=None, fits=False, remedy=""), settings)
    if plan.device == "cpu":
        return
    if gpu is None:
        raise DoesNotFit(
            "this run was planned for a GPU, and none is found now",
            "go on under a new plan: the same command with --replan",
        )
    if plan.needed > gpu.free:
        check_fits(replace(plan, free=gpu.free, fits=False, remedy=""), settings)


def base_record(base: Base) -> dict[str, Any]:
    """Which base a model was made from: enough to find it again. One that comes with this package is found by its name."""
    local = base.repository is None
    path = base.name if find_entry(base.name) else str(base.path)
    return {
        "name": base.name,
        "repository": base.repository,
        "path": path if local else None,
        "identity": base.identity,
    }


def choose_prompts(asked: Asked, base: Base) -> Yielding[Prompts]:
    """The identifier, chosen or checked against the base's own vocabulary, and the prompts made with it.

    Raises UsageError where it is not certain what the class prompt means.
    """
    wanted, identifier, sample = asked.subject.class_prompt or "", asked.subject.identifier, asked.train.sample_prompt or ""
    check_class_prompt(wanted, identifier, with_class_images=asked.train.with_prior)
    check_placeholder(sample)
    tokenizer = load_tokenizer(base.vocabulary)
    if identifier == "auto":
        identifier, note = choose_identifier(tokenizer)
        if note:
            yield Noted(message=note)
    else:
        for remark in identifier_remarks(identifier, tokenizer):
            yield Warned(message=remark)
    prompts = Prompts(identifier, instance_prompt(wanted, identifier), plain_class_prompt(wanted, identifier))
    for remark in length_remarks([prompts.instance, prompts.class_, fill(understood(sample), identifier)], tokenizer):
        yield Warned(message=remark)
    return prompts
