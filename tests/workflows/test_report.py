"""The page of a run: what it contains, that it needs no other files, and how it works in a browser."""

import base64
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image

from dreambooth_cli.photos.picture import save_new
from dreambooth_cli.project import open_project
from dreambooth_cli.record import Measured
from dreambooth_cli.settings import PrepSettings
from dreambooth_cli.verdict import Figures, judge
from dreambooth_cli.workflows.prepare import prepare, prepared_photos
from dreambooth_cli.workflows.report import curves_of, generate_line, subtitle, write_report
from tests.conftest import draw_photo
from tests.records import a_record
from tests.workflows.projects import make_project

PROMPTS = ("a photo of a sks dog", "a photo of a dog", "a photo of a sks dog on the moon")
STEPS, EVERY = 40, 10
FIGURES = Figures(loss=(0.2, 0.14), class_loss=(0.2, 0.196), picture=0.6, class_picture=0.2, copied=0.7, nearest="two.jpg")


@pytest.fixture
def run(photos, sd1):
    """A finished run on disk: its record, events and samples; a photo's name and a prompt contain HTML."""
    (photos / "two.jpg").rename(photos / "<i>two.jpg")
    made = make_project(photos, sd1, name="rex", sample_every="auto")
    list(prepare(made, PrepSettings(), resolution=64))
    run = made.new_run()
    record = a_record()
    record = replace(
        record,
        prompts=replace(record.prompts, identifier="sks", instance=PROMPTS[0], class_=PROMPTS[1]),
        asked={**record.asked, "train": {**record.asked["train"], "steps": STEPS, "sample_every": "auto"}},
        sources={"train": {"steps": "--steps"}},
        photos=tuple(photo.told() for photo in prepared_photos(made)),
        measured=Measured(1, 2_000_000_000, 2_100_000_000),
    )
    run.write_record(record.with_verdict(judge(FIGURES), FIGURES.told()))
    run.events.write_text("".join(json.dumps(event) + "\n" for event in events()) + '{"event": "st')
    for step in range(0, STEPS + 1, EVERY):
        for number, prompt in enumerate(PROMPTS, 1):
            path = draw_photo(run.path / "drawn.png", (64, 64), seed=step + number)
            with Image.open(path) as picture:
                save_new(picture, run.samples, f"step-{step:06d}-{number}", {"prompt": prompt, "seed": "0", "step": str(step)})
            path.unlink()
    run.model.mkdir()
    (run.model / "dreambooth.json").write_text("{}")
    return run


def events():
    """What a run of these steps leaves in its log."""
    yield {"event": "rehearsed", "seconds": 9.0, "expected": 70.0, "step_seconds": 1.5, "memory": 2_000_000_000}
    yield {"event": "fixed_noise", "step": 0, "loss": 0.2, "class_loss": 0.2}
    for step in range(1, STEPS + 1):
        yield {"event": "step", "step": step, "loss": 0.2 - 0.002 * step + 0.03 * (step % 3), "learning_rate": 1e-4, "seconds": 1.6}
        if step % EVERY == 0:
            yield {"event": "fixed_noise", "step": step, "loss": 0.2 - 0.0015 * step, "class_loss": 0.2 - 0.0001 * step}


class Tags(HTMLParser):
    """The tags of a page with their attributes; checks that each is closed."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def page_of(run):
    project = open_project("rex")
    return write_report(project, run).read_text(encoding="utf-8")


def test_the_page_says_all_of_a_run_and_needs_nothing_beside_it(run):
    text = page_of(run)
    tags = Tags(text)
    assert tags.open == []
    assert not re.search(r"https?://|@import|url\(", text), "no network"
    pictures = tags.of("img")
    assert all(picture["src"].startswith("data:image/") and picture["alt"] for picture in pictures)
    for picture in pictures:
        with Image.open(BytesIO(base64.b64decode(picture["src"].partition(",")[2]))) as shown:
            shown.load()
    assert len(pictures) == 5 + 2 * 3 + 3 * (1 + 5)
    plain = html.unescape(re.sub(r"<[^>]+>", " ", text))
    for words in (
        "rex, run 1",
        "Learned, the class is kept",
        "fell by 30.0%",
        "<i>two.jpg",
        "2.10 GB",
        "2.00 GB",
        "--steps 40 --steps",
        'dreambooth generate rex "a photo of a [identifier] dog on the moon"',
        "mean of 5 steps",
        "with the class prompt",
        "The licence of",
    ):
        assert words in " ".join(plain.split()), words
    assert tags.of("i") == [], "a photo's name is no markup"
    assert "before training" in tags.of("input")[0]["data-names"]
    boxes = [box["style"] for box in tags.of("span") if box.get("class") == "box"]
    assert len(boxes) == 5
    assert all(re.fullmatch(r"left:[0-9.]+%;top:[0-9.]+%;width:[0-9.]+%;height:[0-9.]+%", box) for box in boxes)


def test_checkpoints_that_were_judged_have_their_curve(run):
    assert "The best is" not in page_of(run)
    steps = [
        {"step": step, "subject": 0.5 + step / 100, "prompt": 0.8 - step / 200, "copied": 0.2 + step / 60, "nearest": None}
        for step in (10, 20, 30, 40)
    ]
    judged = {"judge": "the pocket's judge", "steps": steps, "best": 30, "reason": "step 30: after it pictures begin to copy IMG_2"}
    (run.path / "judged.json").write_text(json.dumps(judged))
    text = page_of(run)
    assert "The best is step 30: after it pictures begin to copy IMG_2." in text
    assert "Each checkpoint, judged by the pocket&#x27;s judge" in text
    (run.path / "judged.json").write_text('{"steps": [3]}')
    assert "The best is" not in page_of(run), "a damaged file is passed over"


def test_a_run_with_nothing_to_show_has_a_page_all_the_same(run):
    """No samples, no events, photos that are gone: such as 0.2 left."""
    shutil.rmtree(run.samples)
    shutil.rmtree(open_project("rex").photos)
    run.events.unlink()
    run.write_record(replace(run.record(), verdict="", of_class="", sentences=(), figures=None, photos=None, measured=None))
    text = page_of(run)
    assert Tags(text).of("img") == []
    assert "No pairs of samples were drawn." in text


def test_a_curve_says_where_it_begins_and_ends_without_its_colours():
    _, fixed, rate = curves_of([*events()])
    label = Tags(fixed).of("svg")[0]["aria-label"]
    assert label == (
        "Loss of the photos at fixed noise: with the instance prompt from 0.2 at step 0 to 0.14 at step 40; "
        "with the class prompt from 0.2 at step 0 to 0.196 at step 40"
    )
    assert 'stroke-dasharray="6 3"' in fixed
    assert "circle" in fixed
    assert "<rect" in fixed
    assert "learning rate from 0.0001 at step 1" in rate
    assert curves_of([]) == ["", "", ""]


@pytest.mark.parametrize(
    ("class_prompt", "line"),
    [
        ("a dog", 'dreambooth generate rex "a [identifier] dog on the moon"'),
        ("a dog on a beach", 'dreambooth generate rex "a [identifier] dog on a beach"'),
        ("a $5 dog", "dreambooth generate rex 'a [identifier] $5 dog on the moon'"),
    ],
)
def test_the_line_to_paste_has_the_frame_that_was_trained(class_prompt, line, run):
    record, instance = run.record(), class_prompt.replace("a ", "a sks ", 1)
    run.write_record(replace(record, prompts=replace(record.prompts, instance=instance, class_=class_prompt)))
    assert generate_line(open_project("rex"), run) == line


CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
LOOK = """
<script>
addEventListener("error", event => document.title = "error: " + event.message);
addEventListener("load", () => {
  const broken = [...document.images].filter(image => !image.complete || !image.naturalWidth).length;
  const film = document.querySelector("img.large"), slider = document.getElementById("step");
  const last = film.src;
  slider.value = 0;
  slider.dispatchEvent(new Event("input"));
  const name = document.getElementById("step-name").textContent;
  const result = {broken, moved: film.src !== last, name, alt: film.alt, wide: document.documentElement.scrollWidth - innerWidth};
  document.body.insertAdjacentHTML("beforeend", `<pre id="result">${JSON.stringify(result)}</pre>`);
});
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_in_a_browser_pictures_load_and_the_slider_moves_them(run, tmp_path):
    """At 360 px nothing is wider than the screen, and the console stays empty."""
    text = page_of(run)
    looked = tmp_path / "looked.html"
    looked.write_text(text.replace("<script>", LOOK + "<script>", 1), encoding="utf-8")
    frame = tmp_path / "narrow.html"
    frame.write_text(f'<iframe id="f" src="{looked.name}" width="360" height="800" style="border:0"></iframe>')
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=5000"]
    folder = [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,900"]
    done = subprocess.run([CHROMIUM, *options, *folder, "--dump-dom", looked.as_uri()], capture_output=True, text=True, timeout=120)
    result = json.loads(html.unescape(re.search(r'<pre id="result">(\{.*?\})</pre>', done.stdout)[1]))
    assert result["broken"] == 0
    assert result["moved"]
    assert (result["name"], result["alt"]) == ("before training", f"{PROMPTS[0]}, before training")
    assert result["wide"] <= 0
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]


def test_a_page_says_when_its_run_began_however_late_it_is_written():
    record = a_record()
    assert subtitle(replace(record, date="2024-02-03T04:05:06+01:00")).endswith(f"{record.asked['train']['steps']} steps, 03 February 2024")
    assert subtitle(replace(record, date="")).endswith(" steps")
