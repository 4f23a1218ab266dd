"""`train`: photos -> a fine-tuned model. Class images, encode once, fine-tune; the same command again goes on."""

import json
import os
import shutil
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..base import Base, BaseRequest, ask_for_base
from ..card import Card, read_card, write_card
from ..config import Resolved
from ..engine.checkpoint import checkpoints, latest_checkpoint, load_checkpoint, save_checkpoint, sha256_of
from ..engine.examples import Examples, encode_pictures, stack
from ..engine.hub import obtain
from ..engine.loading import DTYPES, bring_back, find_device, is_out_of_memory, let_go, load_family, text_encoders_of
from ..engine.prior import cache_key, class_image_paths, make_batch, missing_batches
from ..engine.sampling import Drawing
from ..engine.saving import library_versions, save_adapter, save_full
from ..engine.stable_diffusion import StableDiffusion
from ..engine.training import Training, peak_memory_gb
from ..errors import DiskError, DoesNotFit, Interrupted, TrainingFailed, UsageError
from ..events import (
    CheckpointSaved,
    ClassImageMade,
    Events,
    ModelSaved,
    Noted,
    PhaseStarted,
    PictureEncoded,
    PlanMade,
    RunOpened,
    SampleSaved,
    StepDone,
    Warned,
    Yielding,
    as_json,
)
from ..gpu import find_gpu
from ..identifier import choose_identifier, identifier_remarks
from ..memory import Plan, check_fits
from ..photos.picture import save_new
from ..project import Project, Run, cache_folder, hold, run_digest
from ..prompts import instance_prompt, plain_class_prompt
from ..settings import PrepSettings, SubjectSettings, TrainSettings, shaping
from ..survey import slow_step_note
from .plan import choose_resolution, known_facts, plan_with
from .prepare import prepare, prepare_class_photos, prepared_photos


@dataclass(frozen=True)
class Asked:
    """What the user asked of a run: three stages' settings."""

    subject: SubjectSettings
    prep: PrepSettings
    train: TrainSettings


@dataclass(frozen=True)
class Prompts:
    """The identifier and the two prompts that the run trains on."""

    identifier: str
    instance: str
    class_: str


def train(
    project: Project,
    *,
    subject: Resolved[SubjectSettings],
    prep: Resolved[PrepSettings],
    settings: Resolved[TrainSettings],
    output_dir: Path | None = None,
    restart: bool = False,
    replan: bool = False,
) -> Events:
    """Fine-tune a base model on a project's photos; the same settings again go on with, or deliver, the same run.

    Raises DreamboothError of every kind; after an error inside a step the last checkpoint counts.
    """
    asked = Asked(subject.values, prep.values, settings.values)
    if asked.subject.class_prompt is None:
        raise UsageError("what is the subject? the class prompt is missing", 'say it: --class-prompt "a dog"')
    request = ask_for_base(asked.subject.model)
    with project.lock():
        base, own_class_images = yield from gather(project, asked, request)
        digest = digest_of(project, asked, base, own_class_images)
        run = None if restart else project.find_run(digest)
        check_output(output_dir, digest)
        if run is not None and run.is_finished:
            yield Noted(message=f"run {run.number} of {project.name} is finished already; --restart begins another")
            yield from deliver(run, output_dir, asked.train.steps)
            return
        run = run or project.new_run()
        plan, prompts = yield from freeze_plan(run, asked, base, request, digest, replan=replan)
        yield from logged(fine_tune(run, asked, base, plan, prompts, project, own_class_images), run)
        yield from deliver(run, output_dir, asked.train.steps)


def logged(events: Events, run: Run) -> Events:
    """The same events, each also a line of the run's events.jsonl. Raises DoesNotFit where memory runs out on the way."""
    with run.events.open("a", encoding="utf-8") as log, closing(events):
        try:
            for event in events:
                log.write(json.dumps(as_json(event), ensure_ascii=False) + "\n")
                log.flush()
                yield event
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise DoesNotFit(
                f"memory ran out: {str(error).splitlines()[0]}",
                f"close what else uses it, or try --gradient-checkpointing, --method lora or a smaller --resolution; {saved_words(run)}",
            ) from error


def gather(project: Project, asked: Asked, request: BaseRequest) -> Yielding[tuple[Base, list[Path]]]:
    """The photos prepared, the base on disk, the user's own class images; the photos first where the size is known, so that
    bad ones are told before a download."""
    facts = known_facts(request)
    if facts is not None:
        yield from prepare(
            project, asked.prep, resolution=choose_resolution(asked.prep, facts), source=asked.subject.photos
        )
    base = yield from obtain(request)
    resolution = choose_resolution(asked.prep, base.facts)
    if facts is None or choose_resolution(asked.prep, facts) != resolution:
        yield from prepare(project, asked.prep, resolution=resolution, source=asked.subject.photos)
    own: list[Path] = []
    if asked.train.class_data_dir is not None and asked.train.with_prior:
        own = yield from prepare_class_photos(asked.train.class_data_dir, asked.prep, resolution=resolution)
    return base, own


def digest_of(project: Project, asked: Asked, base: Base, own_class_images: list[Path]) -> str:
    """The name of the run that these settings, photos and base mean."""
    return run_digest(
        asked={**shaping(asked.subject), **shaping(asked.train)},
        photos={path.name: digest for path, digest in prepared_photos(project)},
        class_photos={path.name: sha256_of(path) for path in own_class_images},
        base=base.identity,
    )


def freeze_plan(
    run: Run, asked: Asked, base: Base, request: BaseRequest, digest: str, *, replan: bool
) -> Yielding[tuple[Plan, Prompts]]:
    """The run's plan: made at its first start and kept in plan.json, or the kept one. Raises DoesNotFit."""
    record = run.record()
    gpu = find_gpu()
    if not record or replan:
        plan = plan_with(base.facts, request, asked.prep, asked.train, gpu=gpu)
        check_fits(plan, asked.train)
        prompts = yield from choose_prompts(asked, base)
        record = record_of(asked, base, digest, plan, prompts, record)
        run.write_record(record)
    plan = Plan.from_json(record["plan"])
    if gpu is not None and plan.device != "cpu" and plan.needed > gpu.free:
        check_fits(Plan.from_json(record["plan"] | {"free": gpu.free, "fits": False}), asked.train)
    yield PlanMade(plan=record["plan"])
    if plan.device == "cpu":
        rows = asked.train.batch_size * asked.train.gradient_accumulation * (2 if asked.train.with_prior else 1)
        if note := slow_step_note(base.facts, plan.resolution, rows):
            yield Warned(message=note)
    return plan, Prompts(**record["prompts"])


def record_of(
    asked: Asked, base: Base, digest: str, plan: Plan, prompts: Prompts, before: dict[str, Any]
) -> dict[str, Any]:
    """What plan.json holds: what was asked, what was planned, and what changed on the way with its step."""
    changes = list(before.get("changes", []))
    if before:
        changes.append({"what": "replanned", "from": before["plan"]})
    return {
        "digest": digest,
        "asked": {
            name: {key: _plain(value) for key, value in asdict(getattr(asked, name)).items()}
            for name in ("subject", "prep", "train")
        },
        "base": base_record(base),
        "prompts": asdict(prompts),
        "plan": plan.to_json(),
        "changes": changes,
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def base_record(base: Base) -> dict[str, Any]:
    """Which base a model was made from: enough to find it again."""
    local = base.repository is None
    return {
        "name": base.name,
        "repository": base.repository,
        "path": str(base.path) if local else None,
        "identity": base.identity,
    }


def choose_prompts(asked: Asked, base: Base) -> Yielding[Prompts]:
    """The identifier, chosen or checked against the base's own vocabulary, and the prompts made with it."""
    folder = base.config_path if base.is_single_file else base.path
    identifier = asked.subject.identifier
    if identifier == "auto":
        identifier, note = choose_identifier(folder)
        if note:
            yield Noted(message=note)
    else:
        for remark in identifier_remarks(identifier, folder):
            yield Warned(message=remark)
    wanted = asked.subject.class_prompt or ""
    return Prompts(identifier, instance_prompt(wanted, identifier), plain_class_prompt(wanted))


def fine_tune(
    run: Run, asked: Asked, base: Base, plan: Plan, prompts: Prompts, project: Project, own_class_images: list[Path]
) -> Events:
    """The run itself: load, class images, encode, train, save."""
    settings = asked.train
    yield PhaseStarted(name="loading the base model")
    family = load_base(base, plan)
    class_paths: list[Path] = []
    if settings.with_prior:
        class_paths = yield from gather_class_images(family, base, plan, settings, prompts, own_class_images)
    photos = [path for path, _ in prepared_photos(project)]
    instance, prior = yield from encode(family, plan, settings, photos, class_paths)
    texts = [prompts.instance, prompts.class_] if prior is not None else [prompts.instance]
    conditioning = None if plan.train_text_encoder else family.encode_frozen(texts)
    let_go(family.pipe, ["vae"] if plan.train_text_encoder else ["vae", *text_encoders_of(family.pipe)])
    training = Training(
        family, plan, settings, instance=instance, prior=prior, prompts=texts, conditioning=conditioning
    )
    yield from restore(training, run)
    yield RunOpened(
        number=run.number,
        path=run.path,
        step=training.step,
        steps=settings.steps,
        instance_prompt=prompts.instance,
        class_prompt=prompts.class_,
    )
    yield from train_steps(training, run, base, prompts)
    yield PhaseStarted(name="saving the model")
    save_model(training, run, asked, base, plan, prompts)


def load_base(base: Base, plan: Plan) -> StableDiffusion:
    """The base ready to draw and encode: float32 where its own weights will be trained, else in the plan's precision."""
    dtype = DTYPES["fp32"] if plan.method == "full" else DTYPES[plan.precision]
    family = load_family(base, dtype=dtype, device=find_device(plan.device))
    family.pipe.vae.to(DTYPES["fp32"])  # encodes once, so its half-precision faults are not worth their speed
    return family


def gather_class_images(
    family: StableDiffusion, base: Base, plan: Plan, settings: TrainSettings, prompts: Prompts, own: list[Path]
) -> Yielding[list[Path]]:
    """The user's own class images, and of the missing ones the cache's or new ones. Returns their paths."""
    wanted = max(0, settings.class_images - len(own))
    drawing = Drawing(
        steps=settings.class_image_steps,
        guidance_scale=settings.class_guidance_scale,
        width=plan.resolution,
        height=plan.resolution,
    )
    key = cache_key(
        base=base.identity, prompt=prompts.class_, drawing=drawing, seed=settings.seed, precision=plan.precision
    )
    folder = cache_folder() / "class-images" / key
    with hold(folder):
        missing = missing_batches(folder, wanted, plan.class_image_batch)
        if missing:
            done = wanted - sum(number < wanted for batch in missing for number in batch)
            yield PhaseStarted(name="class images", total=wanted, done=done, unit="images")
        for numbers in missing:
            with family.autocast(plan.precision):
                made = list(
                    make_batch(family.pipe, folder, numbers, prompt=prompts.class_, drawing=drawing, seed=settings.seed)
                )
            for number, path in zip(numbers, made, strict=True):
                if number < wanted:
                    yield ClassImageMade(number=number + 1, total=wanted, path=path)
    return own + class_image_paths(folder, wanted)


def encode(
    family: StableDiffusion, plan: Plan, settings: TrainSettings, photos: list[Path], class_paths: list[Path]
) -> Yielding[tuple[Examples, Examples | None]]:
    """Photos and class images -> latents. Returns the instance examples and the class examples or None."""
    total = len(photos) * (2 if settings.mirror else 1) + len(class_paths)
    yield PhaseStarted(name="encoding", total=total, unit="pictures")
    done, found = 0, []
    for paths, mirror in ((photos, False), (photos if settings.mirror else [], True), (class_paths, False)):
        encoded = []
        for one in encode_pictures(family, paths, mirror=mirror):
            encoded.append(one)
            done += 1
            yield PictureEncoded(number=done, total=total)
        found.append(stack(encoded) if encoded else None)
    instance, mirrored, prior = found
    assert instance is not None  # `prepare` refuses a project without a usable photo
    return Examples(instance, mirrored), None if prior is None else Examples(prior)


def restore(training: Training, run: Run) -> Events:
    """Go on from the newest whole checkpoint, if there is one."""
    path, damaged = latest_checkpoint(run.checkpoints)
    for broken in damaged:
        yield Warned(message=f"the checkpoint {broken} is damaged and was passed over")
    if path is not None:
        training.load(load_checkpoint(path))


def train_steps(training: Training, run: Run, base: Base, prompts: Prompts) -> Events:
    """The loop with what is due every N steps; left early, it saves where it stands. Raises TrainingFailed."""
    settings, saved = training.settings, training.step
    yield PhaseStarted(name="training", total=settings.steps, done=training.step, unit="steps")
    try:
        with closing(training.steps()) as steps:
            for step in steps:
                yield StepDone(
                    step=step.number,
                    steps=settings.steps,
                    loss=step.loss,
                    learning_rate=step.learning_rate,
                    seconds=step.seconds,
                    memory_gb=peak_memory_gb(training.device),
                )
                if is_due(step.number, settings.sample_every):
                    yield from draw_samples(training, run, base, prompts)
                if is_due(step.number, settings.checkpoint_every) or step.number == settings.steps:
                    path = save_checkpoint(run.checkpoints, training.state(), keep=settings.keep_checkpoints)
                    saved = step.number
                    yield CheckpointSaved(step=step.number, path=path)
    except TrainingFailed as error:
        raise TrainingFailed(
            error.message, f"{saved_words(run)}; try a lower --learning-rate, or --precision fp32"
        ) from error
    except (GeneratorExit, Interrupted):
        # between steps, where the state is whole: nothing done is lost
        if training.step > saved:
            save_checkpoint(run.checkpoints, training.state(), keep=settings.keep_checkpoints)
        raise


def is_due(step: int, every: int) -> bool:
    """Whether something that happens every N steps happens after this one; N = 0: never."""
    return every > 0 and step % every == 0


def saved_words(run: Run) -> str:
    """What of a run is saved, in words."""
    found = checkpoints(run.checkpoints)
    if not found:
        return "no checkpoint was saved yet"
    return f"the last good checkpoint is {found[-1]}"


def draw_samples(training: Training, run: Run, base: Base, prompts: Prompts) -> Events:
    """Pictures of the identifier prompt, the class prompt and the user's own, from a fixed seed."""
    settings, pipe = training.settings, training.family.pipe
    wanted = [prompts.instance, prompts.class_]
    if settings.sample_prompt:
        wanted.append(settings.sample_prompt.replace("[identifier]", prompts.identifier))
    size = training.plan.resolution
    drawing = Drawing(steps=settings.sample_steps, guidance_scale=7.5, width=size, height=size)
    brought = bring_back(pipe, base, dtype=DTYPES["fp32"], device=training.device)
    try:
        for place, prompt in enumerate(wanted):
            picture = training.draw(prompt, settings.seed, drawing)
            text = {"prompt": prompt, "seed": str(settings.seed), "step": str(training.step)}
            path = save_new(picture, run.samples, f"step-{training.step:06d}-{place + 1}", text)
            yield SampleSaved(step=training.step, path=path, prompt=prompt)
    finally:
        let_go(pipe, brought)


def save_model(training: Training, run: Run, asked: Asked, base: Base, plan: Plan, prompts: Prompts) -> None:
    """Write the finished model and its card beside, then rename it to `runs/N/model`. Raises DiskError."""
    part = run.path / ".model.part"
    shutil.rmtree(part, ignore_errors=True)
    dtype = DTYPES[asked.train.save_dtype]
    training.take_average()
    try:
        part.mkdir()
        if plan.method == "full":
            save_full(training.family.pipe, base, part, dtype=dtype)
        else:
            save_adapter(training.family.pipe, base, part, train_text_encoder=plan.train_text_encoder, dtype=dtype)
        record = run.record()
        card = Card(
            identifier=prompts.identifier,
            class_prompt=prompts.class_,
            instance_prompt=prompts.instance,
            method=plan.method,
            resolution=plan.resolution,
            steps=asked.train.steps,
            base=record["base"],
            run=record["digest"],
            settings=record["asked"],
            plan=record["plan"],
            versions={"dreambooth": __version__, **library_versions()},
        )
        write_card(card, part)
        part.rename(run.model)
    except OSError as error:
        raise DiskError(
            f"the model can't be written to {run.model}: {error}",
            f"make room on that disk, then run the same command again; {saved_words(run)}",
        ) from error


def check_output(output_dir: Path | None, digest: str) -> None:
    """Refuse an output folder that holds anything but this run's model. Raises UsageError."""
    if output_dir is None or not output_dir.exists():
        return
    if output_dir.is_dir() and not any(output_dir.iterdir()):
        return
    card = read_card(output_dir) if output_dir.is_dir() else None
    if card is None or card.run != digest:
        raise UsageError(
            f"{output_dir} exists and is not this run's model", "name another folder: --output-dir ./my-model"
        )


def deliver(run: Run, output_dir: Path | None, steps: int) -> Events:
    """Put the finished model at the output folder: hard links, or copies across file systems; beside first, then renamed."""
    if output_dir is None:
        yield ModelSaved(path=run.model, step=steps)
        return
    if read_card_digest(output_dir) != read_card_digest(run.model):
        part = output_dir.with_name(f".{output_dir.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(run.model, part, copy_function=link_or_copy)
        if output_dir.is_dir():
            output_dir.rmdir()  # it is empty: `check_output` saw to that
        part.rename(output_dir)
    yield ModelSaved(path=output_dir, step=steps)


def read_card_digest(folder: Path) -> str | None:
    """The digest in a model folder's card, or None."""
    card = read_card(folder)
    return card.run if card else None


def link_or_copy(source: str, target: str) -> None:
    """A hard link, or a copy where the file system can't."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
