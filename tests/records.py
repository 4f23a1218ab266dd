"""Small but complete records of runs."""

from dreambooth_cli.bases.catalog import BaseFacts
from dreambooth_cli.config import ask
from dreambooth_cli.families.stable_diffusion import STABLE_DIFFUSION
from dreambooth_cli.memory.plan import Job
from dreambooth_cli.memory.search import make_plan
from dreambooth_cli.record import BaseRecord, Prompts, Record

TINY = BaseFacts(
    family=STABLE_DIFFUSION, prediction_type="epsilon", resolution=64, denoiser=10**6, text_encoders=(10**5,), vae=10**5
)


def a_record(*, digest: str = "0" * 64, class_prompt: str = "a dog") -> Record:
    """The record of a run that has just begun."""
    asked = ask({"subject": {"class_prompt": class_prompt}})
    plan = make_plan(Job(TINY, asked.train, resolution=64, gpu=None, has_8bit=False, name="tiny"))
    return Record(
        id="a",
        digest=digest,
        shape={},
        asked=asked.record(),
        base=BaseRecord(name="tiny", repository=None, path="/tiny", identity="sha256:0"),
        prompts=Prompts("sks", f"{class_prompt} sks", class_prompt),
        plan=plan,
    )
