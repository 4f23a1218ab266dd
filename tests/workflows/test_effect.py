"""What a run says about itself at its end: measured at fixed noises and from the same seed, and kept in its record."""

import json
import shutil
from contextlib import closing

from dreambooth_cli.bases.catalog import find_entry
from dreambooth_cli.events import FixedNoiseLoss, VerdictTold, Warned
from dreambooth_cli.workflows import effect
from dreambooth_cli.workflows.example import photos_of_example
from tests.workflows.projects import make_project, of_kind, run, start


def test_a_run_ends_with_a_verdict_that_its_record_keeps(sd1, photos):
    project = make_project(photos, sd1, method="full", steps=4, sample_every=4, sample_steps=1)
    events = run(project)
    (told,) = of_kind(events, VerdictTold)
    record = project.runs()[0].record()
    assert (record.verdict, record.of_class) == (told.verdict, told.of_class)
    assert (record.sentences, record.figures) == (told.sentences, told.figures)
    assert told.verdict == "learned"
    assert [event.step for event in of_kind(events, FixedNoiseLoss)] == [0, 4]
    assert of_kind(events, FixedNoiseLoss)[-1].loss == told.figures["loss"][1] < told.figures["loss"][0]
    assert 0 < told.figures["copied"] < 1
    assert told.figures["nearest"] in {"one.jpg", "two.jpg", "three.jpg", "four.png", "five.webp"}
    logged = [json.loads(line) for line in project.runs()[0].events.read_text().splitlines()]
    assert [line["verdict"] for line in logged if line["event"] == "verdict"] == [told.verdict]


def test_pocket_tells_its_own_world_from_photos(photos):
    drawn = photos.parent / "drawn"
    drawn.mkdir()
    for number, picture in enumerate(photos_of_example()):
        picture.save(drawn / f"{number}.png")
    first = {}
    for folder in (drawn, photos):
        project = make_project(folder, "pocket", name=folder.name, class_images=1, class_image_steps=1)
        with closing(start(project)) as events:
            first[folder.name] = next(event.loss for event in events if isinstance(event, FixedNoiseLoss))
    assert first["drawn"] < 0.11 < find_entry("pocket").foreign_loss < 0.2 < first["photos"]


def test_a_photo_that_is_drawn_again_is_a_copy(sd1, photos, monkeypatch):
    """A sample is a photo, a little darker."""
    project = make_project(photos, sd1, method="lora", steps=2, sample_every=2, sample_steps=1)
    prepared = project.prepared

    def paste(self, **_):
        folder = self.run.samples
        folder.mkdir(exist_ok=True)
        shutil.copy(sorted(prepared.glob("*.png"))[0], folder / "pasted.png")
        return {"a photo of a sks dog on the moon": folder / "pasted.png"}
        yield

    monkeypatch.setattr("dreambooth_cli.workflows.samples.Samples.at_the_end", paste)
    (told,) = of_kind(run(project), VerdictTold)
    assert told.verdict == "copies"
    assert told.figures["copied"] > 0.99
    assert f"repeats {told.figures['nearest']}" in told.sentences[0]


def test_a_run_that_shows_nothing_is_warned_of_unless_it_is_a_try(sd1, photos, monkeypatch):
    project = make_project(photos, sd1, method="full", steps=4, class_images=0, learning_rate=1e-9, weight_decay=0.0)
    events = run(project)
    assert of_kind(events, VerdictTold)[0].verdict == "barely"
    assert not any("hardly" in event.message for event in of_kind(events, Warned))
    monkeypatch.setattr(effect, "TRY", 4)
    assert any("hardly" in event.message for event in of_kind(run(project, restart=True), Warned))
