"""Runs begun by earlier versions can be continued, though there are now settings that those did not have."""

import hashlib
import io
from dataclasses import replace

from PIL import Image

from dreambooth_cli.events import Noted, StepDone
from dreambooth_cli.identity import run_digest
from dreambooth_cli.settings import NEW, SubjectSettings, TrainSettings, as_before, shaping
from tests.workflows.projects import make_project, of_kind, run


def png_of(path):
    """A picture as 0.2 wrote it."""
    written = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(written, format="PNG")
    return written.getvalue()


def test_a_run_of_0_2_is_found_and_not_made_anew(sd1, photos):
    project = make_project(photos, sd1, method="lora")
    run(project)
    (made,) = project.runs()
    record = made.record()
    new = {name for kind in (SubjectSettings, TrainSettings) for name in shaping(kind()) if name not in as_before(kind(), "0.2")}
    assert {"frames", "lora_layers"} <= new
    photos = [hashlib.sha256(png_of(path)).hexdigest() for path in sorted(project.prepared.glob("*.png"))]
    asked = {name: value for name, value in record.shape["asked"].items() if name not in new} | {"class_guidance_scale": 7.5}
    was = {**record.shape, "photos": photos, "asked": asked}
    made.write_record(replace(record, shape=was, digest=run_digest(**was)))
    events = run(project)
    assert any("finished already" in note.message for note in of_kind(events, Noted))
    assert not of_kind(events, StepDone)
    assert len(project.runs()) == 1


def test_a_default_that_0_2_had_already_is_not_taken_for_that_of_0_1():
    settings = TrainSettings()
    assert as_before(settings, "0.2")["text_encoder_stop"] == settings.text_encoder_stop
    assert as_before(settings, "0.1")["text_encoder_stop"] == 0
    assert NEW not in as_before(settings, "0.1").values()
