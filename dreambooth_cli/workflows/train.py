"""`train`: photos -> a fine-tuned model. Class images, encode once, fine-tune; the same command again goes on."""

import errno
import json
import os
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

from ..base import Base, BaseRequest, ask_for_base, find_cached
from ..catalog import guidance_of
from ..config import Resolved
from ..disk import bytes_in, check_space, clear_leftovers, disk_errors
from ..engine.checkpoint import (
    ForeignCheckpoint,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    put_aside,
    put_damaged_aside,
    save_checkpoint,
)
from ..engine.device import as_torch_has_it, bound_memory, why_slow
from ..engine.effect import Effect, compare
from ..engine.examples import Examples, encode_pictures, stack
from ..engine.hub import obtain
from ..engine.loading import (
    DTYPES,
    PARTS,
    alone,
    bring_back,
    find_device,
    forget_failed_attempt,
    let_go,
    load_family,
    place,
    text_encoders_of,
)
from ..engine.lora import quantize
from ..engine.prior import AtWork, adopt_images, cache_key, class_image_paths, hold_images, make_images, missing_batches
from ..engine.refusal import out_of_memory_words
from ..engine.rehearsal import rehearse
from ..engine.repeat import circumstances
from ..engine.sampling import Drawing, check_steps
from ..engine.stable_diffusion import StableDiffusion
from ..engine.training import NotFinite, Training, held_memory, peak_memory_gb
from ..errors import DoesNotFit, Interrupted, TrainingFailed, UsageError
from ..events import (
    CheckpointSaved,
    ClassImageMade,
    Events,
    Noted,
    PhaseStarted,
    PictureEncoded,
    RunOpened,
    SampleSaved,
    StepDone,
    StepsSlowed,
    Warned,
    Yielding,
    as_json,
)
from ..gpu import find_gpu
from ..identity import content_of
from ..memory import Plan, calm_down, inference_precision, step_down
from ..photos.picture import save_new
from ..project import Project, Run, cache_folder, clear_up, hold, is_held
from ..prompts import fill, understood
from ..settings import PrepSettings, SubjectSettings, TrainSettings, expanded
from .deliver import check_output, check_place, deliver, save_model
from .freeze import (
    IMAGES,
    MEMORY,
    NOT_FINITE,
    Asked,
    Prompts,
    find_run,
    freeze_plan,
    hold_against_start,
    keep_change,
    keep_measured,
    shape_of,
    told_apart,
)
from .pace import Pace
from .plan import choose_resolution, known_facts
from .prepare import prepare, prepare_class_photos, prepared_photos

CLASS_IMAGES = "class images"  # the phase
IN_A_TURN = 16  # class images between two swaps of networks; an interrupted run draws as many again at most
JUDGED_FROM = 50  # steps: shorter runs are tries, and may show nothing
SMALLER = "the same command with --restart and --method lora or a smaller --resolution"


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
    asked = Asked(subject, prep, settings)
    if asked.subject.class_prompt is None:
        raise UsageError("what is the subject? the class prompt is missing", 'say it: --class-prompt "a dog"')
    check_class_folder(asked.train)
    output_dir = check_place(output_dir)
    request = ask_for_base(asked.subject.model)
    clear_up()
    with project.lock() as unlocked:
        if unlocked:
            yield Warned(message=unlocked)
        base, own_class_images = yield from gather(project, asked, request)
        if base.repository is not None:  # one on disk was read to the end when it was identified
            yield PhaseStarted(name="identify the base model")
        shape = shape_of(project, asked, base, own_class_images)
        run = None if restart else find_run(project, asked, shape, base)
        if run is not None:
            run.clear_up()
        check_output(output_dir, run)
        if run is not None and run.is_finished:
            yield Noted(message=f"run {run.number} of {project.name} is finished already; --restart begins another")
            yield from deliver(run, output_dir, asked.train)
            return
        if run is None and not restart:
            yield from told_apart(project, shape)
        run, plan, prompts = yield from freeze_plan(project, run, asked, base, request, shape, replan=replan)
        bound_memory(plan)
        check_disk(run, plan, base, asked.train, prompts, output_dir)
        yield from logged(fine_tune_and_mend(run, asked, base, plan, prompts, project, own_class_images), run)
        yield from deliver(run, output_dir, asked.train)


def check_class_folder(settings: TrainSettings) -> None:
    """Refuse a folder of class images that is not there before any work. Raises UsageError."""
    folder = settings.class_data_dir
    if folder is not None and settings.with_prior and not os.path.isdir(expanded(folder)):
        raise UsageError(f"--class-data-dir: there is no folder {folder}", "name a folder with pictures of the class")


def check_disk(
    run: Run, plan: Plan, base: Base, settings: TrainSettings, prompts: Prompts, output_dir: Path | None
) -> None:
    """Hold what the run will still write against the room on the disks. Raises DiskError."""
    images, _ = class_image_folder(base, plan, settings, prompts)
    wanted = [
        (run.path, plan.disk.get("checkpoints", 0) + plan.disk.get("model", 0) - bytes_in(run.path)),
        (images, plan.disk.get("class images", 0) - bytes_in(images)),
    ]
    if output_dir is not None:
        wanted.append((output_dir, plan.disk.get("model", 0)))
    check_space(wanted)


def logged(events: Events, run: Run) -> Events:
    """The same events, each also a line of the run's events.jsonl. Raises DiskError."""
    with disk_errors(run.events):
        if run.events.exists() and not run.events.is_file():
            raise OSError(errno.EINVAL, "it is not a file", str(run.events))
        log = run.events.open("a", encoding="utf-8")
    try:
        with closing(events):
            for event in events:
                with disk_errors(run.events):
                    log.write(json.dumps(as_json(event), ensure_ascii=False) + "\n")
                    log.flush()
                yield event
    finally:
        with suppress(OSError):  # a line that could not be written is written once more
            log.close()


def fine_tune_and_mend(
    run: Run, asked: Asked, base: Base, plan: Plan, prompts: Prompts, project: Project, own_class_images: list[Path]
) -> Events:
    """`fine_tune`; where memory runs out or numbers are not finite, again from the last checkpoint under a plan that is kept.
    Raises DoesNotFit, TrainingFailed where there is none."""
    phase = ""
    while True:
        try:
            with closing(fine_tune(run, asked, base, plan, prompts, project, own_class_images)) as events:
                for event in events:
                    phase = event.name if isinstance(event, PhaseStarted) else phase
                    yield event
            return
        except NotFinite as error:
            further, told = after_not_finite(run, asked, base, plan, error)
        except (RuntimeError, MemoryError) as error:
            words = out_of_memory_words(error)
            if words is None:
                raise
            further, told = after_memory_ran_out(run, asked, base, plan, words, drawing=phase == CLASS_IMAGES)
        forget_failed_attempt()  # out here the error's traceback is gone
        yield Warned(message=f"{told}; {saved_words(run)}")
        plan = further


def after_memory_ran_out(
    run: Run, asked: Asked, base: Base, plan: Plan, words: str, *, drawing: bool
) -> tuple[Plan, str]:
    """The plan with one means more, kept, and what is done in words. Raises DoesNotFit where none keeps the form of the run's
    state."""
    further = step_down(plan, base.facts, asked.train, gpu=as_torch_has_it(find_gpu()), drawing_class_images=drawing)
    if further is None:
        raise DoesNotFit(words, f"close what else uses it, or begin another run: {SMALLER}; {saved_words(run)}")
    keep_change(run, plan, further, MEMORY, words)
    taken = "class images drawn in parts" if drawing else next(one for one in further.means if one not in plan.means)
    return further, f"{words}; going on with {taken}"


def after_not_finite(run: Run, asked: Asked, base: Base, plan: Plan, error: NotFinite) -> tuple[Plan, str]:
    """A calmer plan, kept, and what is done in words. Raises TrainingFailed where the run has had one already."""
    if any(change.get("kind") == NOT_FINITE for change in run.record()["changes"]):
        raise TrainingFailed(
            f"{error.message}, for the second time",
            f"begin another run with --restart and a lower --learning-rate; {saved_words(run)}",
        ) from error
    further = calm_down(plan, base.facts, asked.train, gpu=as_torch_has_it(find_gpu()))
    keep_change(run, plan, further, NOT_FINITE, error.message)
    rate = f"half the learning rate, {further.learning_rate:g}"
    taken = f"{further.precision} in place of fp16" if further.precision != plan.precision else rate
    return further, f"{error.message}; going on with {taken}"


def gather(project: Project, asked: Asked, request: BaseRequest) -> Yielding[tuple[Base, list[Path]]]:
    """The photos prepared, the base on disk, the user's own class images; the photos first where the size is known, so that
    bad ones are told before a download."""
    facts = known_facts(request)
    if facts is not None:
        resolution = choose_resolution(asked.prep, facts)
        yield from prepare(project, asked.prep, resolution=resolution, source=asked.subject.photos)
    if request.path is None and find_cached(request) is None:
        check_card()
    base = yield from obtain(request)
    resolution = choose_resolution(asked.prep, base.facts)
    if facts is None or choose_resolution(asked.prep, facts) != resolution:
        yield from prepare(project, asked.prep, resolution=resolution, source=asked.subject.photos)
    own: list[Path] = []
    if asked.train.class_data_dir is not None and asked.train.with_prior:
        own = yield from prepare_class_photos(asked.train.class_data_dir, asked.prep, resolution=resolution)
    return base, own


def check_card() -> None:
    """Refuse a GPU that torch can't use before a base is fetched for it. Raises UsageError."""
    device, _ = inference_precision(as_torch_has_it(find_gpu()))
    find_device(device)


def fine_tune(
    run: Run, asked: Asked, base: Base, plan: Plan, prompts: Prompts, project: Project, own_class_images: list[Path]
) -> Events:
    """The run itself: load, class images, encode, train, save."""
    settings = asked.train
    training = yield from make_training(asked, base, plan, prompts, project, own_class_images)
    before = training.answer() if settings.steps >= JUDGED_FROM else None
    yield from restore(training, run)
    pictures = hold_images(class_images_of(base, plan, settings, prompts, own_class_images) if settings.with_prior else [])
    yield from hold_against_start(run, training.step, {**circumstances(training.device), IMAGES: pictures})
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
    training.check_learned()
    training.finish()
    training.let_state_go()
    if before is not None:
        yield from tell_effect(compare(before, training.answer()))
    save_model(training, run, asked, base, prompts)


def make_training(
    asked: Asked, base: Base, plan: Plan, prompts: Prompts, project: Project, own_class_images: list[Path]
) -> Yielding[Training]:
    """All that comes before the first step: load, class images, encode, place. Returns the training at step 0."""
    settings = asked.train
    yield PhaseStarted(name="loading the base model")
    rehearse(plan, settings, DTYPES[weights_of(plan)])
    family = load_base(base, plan)
    if settings.with_prior:
        check_steps(family.pipe, settings.class_image_steps, "--class-image-steps")
    if settings.sample_every:
        check_steps(family.pipe, settings.sample_steps, "--sample-steps")
    class_paths: list[Path] = []
    if settings.with_prior:
        class_paths = yield from gather_class_images(family, base, plan, settings, prompts, own_class_images)
    photos = [path for path, _ in prepared_photos(project)]
    instance, prior = yield from encode(family, plan, settings, photos, class_paths)
    texts = [prompts.instance, prompts.class_] if prior is not None else [prompts.instance]
    device, encoders = find_device(plan.device), list(text_encoders_of(family.pipe))
    let_go(family.pipe, ["vae"])
    conditioning = None
    if not plan.train_text_encoder:
        place(family.pipe, encoders, device)
        conditioning = family.encode_frozen(texts)
        let_go(family.pipe, encoders)
    place(family.pipe, ["unet", *encoders], device)
    return Training(
        family,
        plan,
        settings,
        device=device,
        instance=instance,
        prior=prior,
        prompts=texts,
        conditioning=conditioning,
    )


def tell_effect(effect: Effect) -> Events:
    """A warning where the weights have moved, but nothing of it shows."""
    if not effect.shows:
        yield Warned(
            message=f"the model has hardly learned anything: from the same seed it draws nearly the same picture as before "
            f"({effect.picture:.1%} of it differs), and its loss on the photos has fallen by {effect.loss:.1%}; "
            "train longer (--steps) or faster (--learning-rate)"
        )


def load_base(base: Base, plan: Plan) -> StableDiffusion:
    """The base in the machine's memory, ready to draw and encode, in the number format that its weights have in training."""
    find_device(plan.device)  # asked now, before minutes of loading
    family = load_family(base, dtype=DTYPES[weights_of(plan)], device=find_device("cpu"))
    if plan.quantized:
        quantize(family.pipe.unet, DTYPES[plan.precision])
        place(
            family.pipe, ["unet"], find_device(plan.device)
        )  # where its 4 bits are made: always there, so always the same
    if DTYPES[weights_of(plan)] != DTYPES["fp32"]:
        # the VAE encodes once, so its half-precision faults are not worth their speed
        let_go(family.pipe, ["vae"])
        bring_back(family.pipe, base, dtype=DTYPES["fp32"], device=find_device("cpu"))
    return family


def weights_of(plan: Plan) -> str:
    """The number format of the loaded weights: the trained weights' own, or a LoRA's base in the plan's precision."""
    return plan.weights if plan.method == "full" else plan.precision


def gather_class_images(
    family: StableDiffusion, base: Base, plan: Plan, settings: TrainSettings, prompts: Prompts, own: list[Path]
) -> Yielding[list[Path]]:
    """The user's own class images, and of the missing ones the cache's or new ones. Returns their paths."""
    wanted = max(0, settings.class_images - len(own))
    folder, drawing = class_image_folder(base, plan, settings, prompts)
    adopt_images(folder)
    if not missing_batches(folder, wanted, plan.class_image_batch):
        return own + class_image_paths(folder, wanted)  # also from a cache that can only be read
    if is_held(folder):
        yield PhaseStarted(name="waiting for another run that makes these class images")
    with hold(folder):
        clear_leftovers(folder, old=r"[0-9]{6}\.part")
        missing = missing_batches(folder, wanted, plan.class_image_batch)
        if missing:
            done = wanted - sum(number < wanted for batch in missing for number in batch)
            yield PhaseStarted(name=CLASS_IMAGES, total=wanted, done=done, unit="images")
            numbers = [number for batch in missing for number in batch]
            images = make_images(
                family.pipe,
                folder,
                missing,
                prompt=prompts.class_,
                drawing=drawing,
                seed=settings.seed,
                at_work=networks_of(family, plan),
                turn=IN_A_TURN if plan.class_images_in_parts else 1,
            )
            with closing(images):
                for number, path in zip(numbers, images, strict=True):
                    if number < wanted:
                        yield ClassImageMade(number=number + 1, total=wanted, path=path)
    return own + class_image_paths(folder, wanted)


def networks_of(family: StableDiffusion, plan: Plan) -> AtWork:
    """How the networks that draw class images are had ready: all together on the device, or the one at work."""
    device = find_device(plan.device)
    if not plan.class_images_in_parts:
        place(family.pipe, PARTS, device)

    @contextmanager
    def at_work(names: Collection[str]) -> Iterator[None]:
        turn = alone(family.pipe, names, device) if plan.class_images_in_parts else nullcontext()
        with turn, family.autocast(plan.precision, device):
            yield

    return at_work


def class_images_of(base: Base, plan: Plan, settings: TrainSettings, prompts: Prompts, own: list[Path]) -> list[Path]:
    """The class images of a run, in their order: the user's own, then the cache's."""
    folder, _ = class_image_folder(base, plan, settings, prompts)
    return own + class_image_paths(folder, max(0, settings.class_images - len(own)))


def class_image_folder(base: Base, plan: Plan, settings: TrainSettings, prompts: Prompts) -> tuple[Path, Drawing]:
    """Where these class images lie in the cache, or will, and how they are drawn. Those that 0.1 made lie under the base's revision."""
    drawing = Drawing(
        steps=settings.class_image_steps,
        guidance_scale=settings.class_guidance_scale,
        width=plan.resolution,
        height=plan.resolution,
    )
    folders = [
        cache_folder()
        / "class-images"
        / cache_key(
            base=known,
            prompt=prompts.class_,
            drawing=drawing,
            seed=settings.seed,
            dtype=f"{'4-bit' if plan.quantized else weights_of(plan)} weights, {plan.precision}",
        )
        for known in (content_of(base), base.identity)
    ]
    return next((folder for folder in folders if folder.is_dir()), folders[0]), drawing


def encode(
    family: StableDiffusion, plan: Plan, settings: TrainSettings, photos: list[Path], class_paths: list[Path]
) -> Yielding[tuple[Examples, Examples | None]]:
    """Photos and class images -> latents. Returns the instance examples and the class examples or None."""
    place(family.pipe, ["vae"], find_device(plan.device))
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
    """Go on from the newest whole checkpoint that is this run's, if there is one. Raises DiskError."""
    for kept in put_damaged_aside(run.checkpoints, run.id):
        yield Warned(message=f"a checkpoint is damaged and was passed over; it is kept as {kept}")
    while (path := latest_checkpoint(run.checkpoints, run.id)) is not None:
        try:
            training.load(load_checkpoint(path))
            return
        except ForeignCheckpoint as error:
            with disk_errors(path):
                kept = put_aside(path)
            yield Warned(message=f"{path.name} is not this run's and was passed over: {error}; it is kept as {kept}")


def save_state(training: Training, run: Run) -> Path:
    """Save a checkpoint of a run. Raises DiskError."""
    return save_checkpoint(run.checkpoints, training.state(), keep=training.settings.keep_checkpoints, run=run.id)


def train_steps(training: Training, run: Run, base: Base, prompts: Prompts) -> Events:
    """The loop with what is due every N steps; left early, it saves where it stands. Raises NotFinite."""
    settings, saved, measured, pace = training.settings, training.step, False, Pace()
    saved_at = time.monotonic()
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
                if pace.is_lost(step.seconds):
                    cause = why_slow(training.device)
                    yield StepsSlowed(step=step.number, seconds=step.seconds, usual=pace.usual, cause=cause)
                if not measured:
                    keep_measured(run, training.plan, step.number, held_memory(training.device))
                    measured = True
                    if training.update.remark:
                        yield Warned(message=training.update.remark)
                if is_due(step.number, settings.sample_every):
                    yield from draw_samples(training, run, base, prompts)
                late = is_late(settings, time.monotonic() - saved_at)
                if late or is_due(step.number, settings.checkpoint_every) or step.number == settings.steps:
                    training.check_finite()
                    path = save_state(training, run)
                    saved, saved_at = step.number, time.monotonic()
                    yield CheckpointSaved(step=step.number, path=path)
    except (GeneratorExit, Interrupted):
        # between steps, where the state is whole: nothing done is lost
        if training.step > saved and training.is_good():
            save_state(training, run)
        raise


def is_due(step: int, every: int) -> bool:
    """Whether something that happens every N steps happens after this one; N = 0: never."""
    return every > 0 and step % every == 0


def is_late(settings: TrainSettings, seconds: float) -> bool:
    """Whether the last checkpoint lies so far back that one is due by the clock."""
    return settings.checkpoint_every > 0 and 0 < settings.checkpoint_minutes * 60 <= seconds


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
        wanted.append(fill(understood(settings.sample_prompt), prompts.identifier))
    size = training.plan.resolution
    drawing = Drawing(
        steps=settings.sample_steps, guidance_scale=guidance_of(base.name, base.facts.family), width=size, height=size
    )
    brought = bring_back(pipe, base, dtype=DTYPES["fp32"], device=training.device)
    try:
        for place, prompt in enumerate(wanted):
            picture = training.draw(prompt, settings.seed, drawing)
            text = {"prompt": prompt, "seed": str(settings.seed), "step": str(training.step)}
            with disk_errors(run.samples):
                path = save_new(picture, run.samples, f"step-{training.step:06d}-{place + 1}", text)
            yield SampleSaved(step=training.step, path=path, prompt=prompt)
    finally:
        let_go(pipe, brought)
