"""What a run would do and need, before anything is done: without torch, and nothing is written."""

import os
from importlib.util import find_spec

from ..bases.base import BaseRequest, ask_for_base
from ..bases.cache import find_cached, hub_cache
from ..bases.catalog import BaseFacts
from ..bases.facts import read_facts
from ..config import Asked, merge
from ..disk import system_errors
from ..errors import ModelUnavailable, UsageError
from ..families.family import Family
from ..gpu import Gpu
from ..memory.plan import Job, Plan
from ..memory.search import make_plan
from ..paths import expanded
from ..photos.buckets import STEP, bucket_sizes, largest_of
from ..project import Project
from ..settings import Auto, PrepSettings, SubjectSettings, TrainSettings, flag_of


def known_facts(request: BaseRequest) -> BaseFacts | None:
    """What is known about a base without fetching it: read from disk, or from the catalogue; else None. Raises ModelUnavailable."""
    with system_errors(ModelUnavailable, f"the base {request.asked} can't be read", request.path or hub_cache()):
        path = request.path or find_cached(request)
        if path is not None:
            return read_facts(path)
    return request.entry.facts if request.entry else None


def choose_resolution(prep: PrepSettings, facts: BaseFacts) -> int:
    """The side of the training pictures in pixels: what was asked for, else the base's own. Raises UsageError if the base's family can't
    take it."""
    check_side("resolution", prep.resolution, facts.family)
    return facts.resolution if prep.resolution == "auto" else prep.resolution


def check_side(name: str, side: int | Auto, family: Family) -> None:
    """Refuse a side of pictures, in pixels, that does not divide into a family's patches. Raises UsageError."""
    if not isinstance(side, str) and side % family.side_of:
        near = max(family.side_of, round(side / family.side_of) * family.side_of)
        told = f"{flag_of(name)} {side} is not a multiple of {family.side_of}, which {family.title} needs"
        raise UsageError(told, f"for example: {flag_of(name)} {near}")


def sides_of(project: Project, prep: PrepSettings) -> tuple[int, int]:
    """The side of a project's training pictures in pixels, and the step in pixels between the sides of pictures that are not square.
    Raises ModelUnavailable if they depend on a base about which nothing is known yet."""
    if prep.resolution != "auto" and prep.crop != "none":
        return prep.resolution, STEP
    request = ask_for_base(merge(SubjectSettings, project.settings()["subject"], {}).values.model)
    facts = known_facts(request)
    if facts is None and prep.resolution != "auto":
        return prep.resolution, STEP
    if facts is None:
        raise ModelUnavailable(
            f"nothing is known about {request.asked} until it is fetched",
            f"fetch it: dreambooth models pull {request.asked}; or say the size: --resolution 512",
        )
    return choose_resolution(prep, facts), facts.family.size_step


def plan_run(model: str, prep: PrepSettings, train: TrainSettings, *, gpu: Gpu | None) -> Plan:
    """The plan of a run as it would be made now. Raises ModelUnavailable if nothing is known about the base yet."""
    request = ask_for_base(model)
    facts = known_facts(request)
    if facts is None:
        raise ModelUnavailable(
            f"nothing is known about {request.asked} until it is fetched",
            f"fetch it first: dreambooth models pull {request.asked}",
        )
    return plan_with(facts, request.entry.name if request.entry else request.asked, prep, train, gpu=gpu)


def plan_with(facts: BaseFacts, name: str, prep: PrepSettings, train: TrainSettings, *, gpu: Gpu | None) -> Plan:
    """The plan of a run on a base whose facts are known; `name` is what messages call it."""
    has_8bit, train = find_spec("bitsandbytes") is not None, train.of_family(facts.family)
    resolution = choose_resolution(prep, facts)
    largest = largest_of(bucket_sizes(resolution, facts.family.size_step)) if prep.crop == "none" else 0
    return make_plan(Job(facts, train, resolution=resolution, gpu=gpu, has_8bit=has_8bit, name=name, largest=largest))


def plan_of_known(asked: Asked, *, gpu: Gpu | None) -> Plan | None:
    """The plan of a run as it would be made now, or None if nothing is known about the base until it is fetched. Raises
    ModelUnavailable."""
    request = ask_for_base(asked.subject.model)
    facts = known_facts(request)
    if facts is None:
        return None
    return plan_with(facts, request.entry.name if request.entry else request.asked, asked.prep, asked.train, gpu=gpu)


def check_class_folder(settings: TrainSettings) -> None:
    """Refuse a missing folder of class images before any work. Raises UsageError."""
    folder = settings.class_data_dir
    if folder is not None and settings.with_prior and not os.path.isdir(expanded(folder)):
        raise UsageError(f"--class-data-dir: there is no folder {folder}", "name a folder with pictures of the class")
