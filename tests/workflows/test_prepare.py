"""`prep`: what it writes, what it says about every photo, that it works only once, and that it never damages what was there."""

import hashlib
import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageFilter, ImageOps

from dreambooth_cli.cli.views import format_event
from dreambooth_cli.errors import DiskError, PhotoError, ProjectError, UsageError
from dreambooth_cli.events import PhaseStarted, PhotoLooked, PhotoRead, PhotosPrepared, Warned, as_json
from dreambooth_cli.paths import cache_folder, projects_folder
from dreambooth_cli.photos import opened
from dreambooth_cli.photos.pixels import pixels_digest, read_photo
from dreambooth_cli.project import Project
from dreambooth_cli.settings import PrepSettings
from dreambooth_cli.workflows import photo_rows
from dreambooth_cli.workflows.prepare import prepare, prepare_class_photos, prepared_photos
from dreambooth_cli.workflows.recipe import marked
from tests.conftest import draw_photo
from tests.workflows.projects import of_kind

SUBJECTS = Path(__file__).parents[3] / "shared" / "subjects"


@pytest.fixture
def project(photos):
    project = Project(projects_folder() / "dog")
    project.path.mkdir(parents=True)
    photos.rename(project.photos)
    return project


def run(project, *, resolution=64, crop="center", source=None):
    return list(prepare(project, PrepSettings(crop=crop), resolution=resolution, source=source))


def report_of(project):
    return json.loads((project.prepared / "report.json").read_text(encoding="utf-8"))


def contents(folder):
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def said(events):
    return {Path(event.path).name: (event.status, event.reasons) for event in of_kind(events, PhotoLooked)}


def test_what_it_writes(project):
    before = contents(project.photos)
    events = run(project)
    names = ["000.png", "001.png", "002.png", "003.png", "004.png"]
    assert sorted(path.name for path in project.prepared.iterdir()) == [*names, "contact-sheet.jpg", "report.json"]
    for name in names:
        with Image.open(project.prepared / name) as image:
            image.load()
            assert (image.format, image.mode, image.size, image.info) == ("PNG", "RGB", (64, 64), {})
    assert contents(project.photos) == before
    assert isinstance(events[0], PhaseStarted)
    assert events[0].total == 5
    assert events[-1] == PhotosPrepared(
        count=5,
        resolution=64,
        path=project.prepared,
        contact_sheet=project.prepared / "contact-sheet.jpg",
        report=project.prepared / "report.json",
        sizes=((64, 64),),
        verdict="a good set",
    )
    assert [path.name for path in project.path.iterdir() if "." in path.name] == []


def test_the_report(project):
    (project.photos / "notes.txt").write_text("a list")
    run(project)
    report = report_of(project)
    assert (report["resolution"], report["crop"], report["usable"], report["warnings"]) == (64, "center", 5, [])
    rows = {row["file"]: row for row in report["photos"]}
    assert list(rows) == ["five.webp", "four.png", "notes.txt", "one.jpg", "three.jpg", "two.jpg"]
    digest = hashlib.sha256((project.prepared / "002.png").read_bytes()).hexdigest()
    with Image.open(project.prepared / "002.png") as picture:
        picture.load()
    assert rows["one.jpg"] == {
        "file": "one.jpg",
        "status": "kept",
        "reasons": [],
        "findings": [],
        "word": "good",
        "size": [160, 120],
        "crop": [20, 0, 140, 120],
        "prepared": "002.png",
        "sha256": digest,
        "caption": "",
        "mask": None,
        "mask_sha256": None,
        "into": [64, 64],
        "pixels_sha256": pixels_digest(picture),
        "key": rows["one.jpg"]["key"],
    }
    assert rows["notes.txt"] == {
        "file": "notes.txt",
        "status": "skipped",
        "reasons": ["not a picture"],
        "findings": [],
        "word": "",
        "size": None,
        "crop": None,
        "prepared": None,
        "sha256": None,
        "caption": "",
        "mask": None,
        "mask_sha256": None,
        "into": None,
        "pixels_sha256": None,
        "key": None,
    }


def test_the_kept_square_is_the_photos(project):
    for path in project.photos.iterdir():
        path.unlink()
    tall = Image.new("RGB", (64, 192), "red")
    tall.paste("lime", (0, 64, 64, 128))
    tall.save(project.photos / "a.png")
    for crop, colour in (("center", (0, 255, 0)), ("top", (255, 0, 0))):
        run(project, crop=crop)
        with Image.open(project.prepared / "000.png") as image:
            assert image.getcolors() == [(64 * 64, colour)]


def test_a_large_jpeg_decoded_smaller_gives_nearly_the_same_picture(project):
    for path in project.photos.iterdir():
        path.unlink()
    whole = Image.effect_mandelbrot((1500, 1100), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    whole.save(project.photos / "a.jpg", quality=95)
    run(project)
    with Image.open(project.prepared / "000.png") as image, Image.open(project.photos / "a.jpg") as original:
        plain = original.resize((64, 64), Image.Resampling.LANCZOS, box=(200, 0, 1300, 1100))
        differences = [abs(one - other) for one, other in zip(image.tobytes(), plain.tobytes(), strict=True)]
    assert sum(differences) / len(differences) < 2


def test_good_photos_go_on_beside_bad_ones(project):
    shutil.copy(project.photos / "one.jpg", project.photos / "one (copy).jpg")
    (project.photos / "broken.jpg").write_bytes(b"no picture")
    (project.photos / "cut.jpg").write_bytes((project.photos / "two.jpg").read_bytes()[:-200])
    (project.photos / "empty.png").touch()
    (project.photos / "notes.txt").write_text("a list")
    (project.photos / ".DS_Store").touch()
    (project.photos / "folder").mkdir()
    draw_photo(project.photos / "small.jpg", (60, 90), seed=8)
    draw_photo(project.photos / "tiny.jpg", (31, 90), seed=9)
    events = run(project)
    assert said(events) == {
        "one (copy).jpg": ("kept", ()),
        "one.jpg": ("skipped", ("the same picture as one (copy).jpg",)),
        "two.jpg": ("kept", ()),
        "three.jpg": ("kept", ()),
        "four.png": ("kept", ()),
        "five.webp": ("kept", ()),
        "broken.jpg": ("refused", ("damaged: no picture can be found in it",)),
        "cut.jpg": ("refused", ("cut off: the file is not whole",)),
        "empty.png": ("refused", ("an empty file",)),
        "notes.txt": ("skipped", ("not a picture",)),
        ".DS_Store": ("skipped", ("hidden",)),
        "folder": ("skipped", ("a folder: only the photos beside it are read",)),
        "small.jpg": ("warned", ("small: its shorter side has 60 pixels, so it is enlarged to 64",)),
        "tiny.jpg": ("refused", ("too small: its shorter side has 31 pixels, under half of the 64 to train with",)),
    }
    assert events[-1].count == 6
    assert len(prepared_photos(project)) == 6


def test_events_name_photos_as_the_user_gave_them(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(project.photos, "mine")
    Path("mine/one.jpg").unlink()
    events = run(project, source=Path("mine"))
    paths = {event.path for event in of_kind(events, PhotoLooked)}
    assert paths == {
        str(project.photos / "one.jpg"),
        "mine/two.jpg",
        "mine/three.jpg",
        "mine/four.png",
        "mine/five.webp",
    }
    assert {event.path for event in of_kind(run(project, source=Path("mine")), PhotoLooked)} == paths
    assert all(json.dumps(as_json(event)) for event in events)


def test_what_prep_has_said_is_marked(project):
    (project.photos / "one.jpg").unlink()
    (project.photos / "two.jpg").write_bytes(b"no photo")
    first = list(marked(prepare(project, PrepSettings(crop="center"), resolution=64)))
    *looked, whole = again = list(marked(prepare(project, PrepSettings(crop="center"), resolution=64)))
    assert again == [replace(event, unchanged=True) for event in first if isinstance(event, PhotoLooked | PhotosPrepared)]
    assert (len(looked), [format_event(event) for event in looked if format_event(event)]) == (4, [])
    assert "as before" in str(format_event(whole))
    draw_photo(project.photos / "six.jpg", (300, 300), seed=6)
    news = list(marked(prepare(project, PrepSettings(crop="center"), resolution=64)))
    assert {event.unchanged for event in of_kind(news, PhotoLooked)} == {False}
    assert (len(of_kind(news, PhotoLooked)), news[-1].count, news[-1].unchanged) == (5, 4, False)


@pytest.mark.parametrize("count", [2, 3, 20, 21])
def test_few_and_many_photos_are_warned_about(count, project):
    for path in project.photos.iterdir():
        path.unlink()
    for number in range(count):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(project.photos / f"{number}.png")
    warnings = [event.message for event in of_kind(run(project), Warned)]
    expected = {
        2: ["2 photos are little to learn from: 3 to 5, from several sides, are better"],
        21: ["21 photos are many: 3 to 5 good ones usually do better, and each photo is seen less often"],
    }
    assert warnings == expected.get(count, [])
    assert [event.message for event in of_kind(run(project), Warned)] == warnings
    assert [photo.path.name for photo in prepared_photos(project)] == [f"{number:03d}.png" for number in range(count)]


# ---- no usable photo


def test_no_usable_photo(project):
    run(project)
    before = contents(project.prepared)
    for path in project.photos.iterdir():
        path.unlink()
    (project.photos / "a.jpg").write_bytes(b"x")
    (project.photos / "notes.txt").write_text("x")
    events = []
    with pytest.raises(PhotoError) as caught:
        events.extend(prepare(project, PrepSettings(), resolution=64))
    assert caught.value.message == (
        f"no photo in {project.photos} can be used (a.jpg: damaged: no picture can be found in it; notes.txt: not a picture)"
    )
    assert caught.value.hint == "give 3 to 5 photos of the subject (jpg, png, webp, heic, ...): --photos DIR"
    assert caught.value.exit_code == 3
    assert contents(project.prepared) == before


def test_an_empty_photo_folder(project):
    for path in project.photos.iterdir():
        path.unlink()
    with pytest.raises(PhotoError) as caught:
        run(project)
    assert caught.value.message == f"{project.photos} holds no photos"
    assert caught.value.exit_code == 3
    assert not project.prepared.exists()


def test_all_too_small(project):
    with pytest.raises(PhotoError) as caught:
        run(project, resolution=512)
    assert "five.webp: too small: its shorter side has 110 pixels" in caught.value.message
    assert caught.value.message.endswith("; and 2 more)")
    assert caught.value.hint == "take larger photos, or train on smaller pictures: --resolution 128"
    assert not project.prepared.exists()


def test_a_project_without_its_photos_folder(project):
    shutil.rmtree(project.photos)
    with pytest.raises(ProjectError) as caught:
        run(project)
    assert caught.value.message == "project dog has lost its photos folder"
    assert caught.value.hint == "give it photos: dreambooth prep dog --photos DIR"
    assert caught.value.exit_code == 3


# ---- once


def test_the_same_again_writes_nothing_and_says_the_same(project):
    (project.photos / "broken.jpg").write_bytes(b"x")
    first = run(project)
    before = contents(project.path)
    again = run(project)
    assert contents(project.path) == before
    assert again == [event for event in first if not isinstance(event, PhaseStarted | PhotoRead)]


@pytest.mark.parametrize("change", ["resolution", "crop", "photo", "picture", "sheet", "report"])
def test_what_changed_is_made_again(change, project):
    run(project)
    pictures = prepared_photos(project)
    match change:
        case "photo":
            (project.photos / "two.jpg").unlink()
        case "picture":
            Image.new("RGB", (64, 64)).save(project.prepared / "001.png")
        case "sheet":
            (project.prepared / "contact-sheet.jpg").unlink()
        case "report":
            (project.prepared / "report.json").write_text('{"photos": [')
    events = run(project, resolution=80 if change == "resolution" else 64, crop="top" if change == "crop" else "center")
    assert of_kind(events, PhaseStarted)
    assert (prepared_photos(project) == pictures) == (change in ("picture", "sheet", "report"))
    assert len(prepared_photos(project)) == (4 if change == "photo" else 5)
    assert len(list(project.prepared.glob("*.png"))) == (4 if change == "photo" else 5)


def test_what_a_user_put_there_stays(project):
    run(project)
    (project.prepared / "notes.txt").write_text("mine")
    (project.prepared / "folder").mkdir()
    (project.prepared / "folder" / "a.txt").write_text("mine too")
    run(project, resolution=80)
    assert (project.prepared / "notes.txt").read_text() == "mine"
    assert (project.prepared / "folder" / "a.txt").read_text() == "mine too"


def test_a_user_s_picture_that_is_called_like_ours_stays(project):
    run(project)
    ours = {path.name for path in project.prepared.iterdir()}
    for name in ("123.png", "005.png", "0.png"):
        (project.prepared / name).write_text(f"mine {name}")
    shutil.copy(project.photos / "one.jpg", project.photos / "zz.jpg")
    extra = ImageOps.mirror(Image.open(project.photos / "zz.jpg"))
    extra.save(project.photos / "zz.jpg")
    run(project)
    assert len(prepared_photos(project)) == 6
    kept = {"123.png": "mine 123.png", "0.png": "mine 0.png", "005-2.png": "mine 005.png"}
    assert {name: (project.prepared / name).read_text() for name in kept} == kept
    assert {path.name for path in project.prepared.iterdir()} == ours | {*kept, "005.png"}


def test_pictures_that_a_report_names_elsewhere_are_not_believed(project):
    run(project)
    report = json.loads((project.prepared / "report.json").read_text())
    shutil.move(project.prepared / "000.png", project.path / "000.png")
    report["photos"][0]["prepared"] = "../000.png"
    (project.prepared / "report.json").write_text(json.dumps(report))
    with pytest.raises(ProjectError):
        prepared_photos(project)


def test_left_early_nothing_is_changed(project):
    run(project)
    before = contents(project.path)
    with closing(prepare(project, PrepSettings(), resolution=80)) as events:
        for event in events:
            if isinstance(event, PhotoLooked):
                break
    assert contents(project.path) == before
    assert not (project.path / "prepared.part").exists()


def test_what_a_killed_process_left_is_cleared(project):
    (project.path / "prepared.part").mkdir()
    (project.path / "prepared.part" / "000.png").write_bytes(b"half")
    run(project)
    assert not (project.path / "prepared.part").exists()
    assert len(prepared_photos(project)) == 5


@pytest.mark.parametrize("name", ["prepared.old", "prepared.part", ".prepared.part", ".dreambooth-notes"])
def test_a_user_s_own_folder_beside_stays(name, project):
    run(project)
    shutil.copytree(project.prepared, project.path / name)
    (project.path / name / "notes.txt").write_text("mine")
    before = contents(project.path / name)
    run(project, resolution=80)
    assert contents(project.path / name) == before


def test_a_kill_between_two_names_keeps_what_a_user_put_there(project):
    """Killed when the old folder had been moved aside and the new one had not yet got its name."""
    run(project)
    (project.prepared / "notes.txt").write_text("mine")
    name = f".dreambooth-{'a' * 32}"
    project.prepared.rename(project.path / f"{name}.was-prepared")
    (project.path / name).mkdir()
    run(project, resolution=80)
    assert (project.prepared / "notes.txt").read_text() == "mine"
    assert not list(project.path.glob(".dreambooth-*"))


def test_a_place_that_can_not_be_written(project):
    project.prepared.write_text("a file in the way")
    with pytest.raises(DiskError) as caught:
        run(project)
    assert caught.value.message == f"can't write {project.prepared}: Not a directory"
    assert caught.value.hint == "check the folder and who may write there"
    assert caught.value.exit_code == 6


def test_left_out_photos_are_passed_over(project):
    (project.photos / ".left-out").write_bytes(b"one.jpg\0")
    events = run(project)
    assert said(events)["one.jpg"] == ("skipped", ("left out: it is gone from the photo folder",))
    assert ".left-out" not in said(events)
    assert len(prepared_photos(project)) == 4


# ---- the reader


def test_the_reader_gives_pictures_and_digests(project):
    run(project)
    pictures = prepared_photos(project)
    assert [photo.path for photo in pictures] == [project.prepared / f"00{number}.png" for number in range(5)]
    assert all(hashlib.sha256(photo.path.read_bytes()).hexdigest() == photo.sha256 for photo in pictures)


@pytest.mark.parametrize(
    "report",
    [
        None,
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"key": "", "usable": 1, "warnings": [], "photos": []}',
        '{"photos": [1]}',
        "[" * 100_000,
    ],
)
def test_a_damaged_report_asks_for_prep(report, project):
    run(project)
    (project.prepared / "report.json").unlink()
    if report is not None:
        (project.prepared / "report.json").write_text(report)
    with pytest.raises(ProjectError) as caught:
        prepared_photos(project)
    assert (
        caught.value.message
        == f"the prepared photos in {project.prepared} are missing or damaged: report.json can't be read"
    )
    assert caught.value.hint == "prepare them again: dreambooth prep dog"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_a_missing_or_changed_picture_asks_for_prep(fault, project):
    run(project)
    path = project.prepared / "003.png"
    path.unlink() if fault == "missing" else path.write_bytes(b"other")
    with pytest.raises(ProjectError) as caught:
        prepared_photos(project)
    assert caught.value.message == f"the prepared photo {path} is missing or was changed"
    assert caught.value.hint == "prepare them again: dreambooth prep dog"


# ---- the user's own class images


def class_photos(folder, **options):
    """The events and the paths."""
    events, work = [], prepare_class_photos(folder, PrepSettings(**options), resolution=64)
    while True:
        try:
            events.append(next(work))
        except StopIteration as stop:
            return events, stop.value


def test_own_class_images_keep_their_middle(tmp_path):
    """As 0.2 cropped them, so that its runs are found; what stands out in a class image is not the subject anyway."""
    wide = Image.new("RGB", (300, 100), "grey")
    wide.paste(Image.open(draw_photo(tmp_path / "spot.png", (90, 90), seed=3)), (5, 5))
    (tmp_path / "class").mkdir()
    wide.save(tmp_path / "class" / "wide.png")
    middle, by_itself = (class_photos(tmp_path / "class", **asked)[1][0].read_bytes() for asked in ({"crop": "center"}, {}))
    assert by_itself == middle


def test_own_class_images(photos):
    draw_photo(photos / "tiny.jpg", (20, 90), seed=9)
    before = contents(photos)
    events, paths = class_photos(photos)
    assert len(paths) == 5
    assert said(events) == {
        "tiny.jpg": ("refused", ("too small: its shorter side has 20 pixels, under half of the 64 to train with",))
    }
    assert of_kind(events, Warned) == []
    assert contents(photos) == before
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (64, 64)
    stamps = [path.stat().st_mtime_ns for path in paths]
    again, same = class_photos(photos)
    assert (same, [path.stat().st_mtime_ns for path in same]) == (paths, stamps)
    assert said(again) == said(events)
    assert class_photos(photos, crop="top")[1] != paths


def test_a_class_folder_without_a_usable_picture(tmp_path):
    (tmp_path / "own").mkdir()
    events, paths = class_photos(tmp_path / "own")
    assert paths == []
    assert [event.message for event in of_kind(events, Warned)] == [
        f"{tmp_path / 'own'} has no class image that can be used, so all of them are drawn"
    ]


def test_a_missing_class_folder(tmp_path):
    with pytest.raises(UsageError) as caught:
        class_photos(tmp_path / "nowhere")
    assert caught.value.message == f"--class-data-dir: there is no folder {tmp_path / 'nowhere'}"
    assert caught.value.hint == "name a folder with pictures of the class"
    assert caught.value.exit_code == 2


# ---- real photos


@pytest.mark.skipif(not SUBJECTS.is_dir(), reason="../shared/subjects is not beside this checkout")
def test_every_real_subject(project):
    for subject in sorted(path for path in SUBJECTS.iterdir() if path.is_dir()):
        shutil.rmtree(project.photos)
        shutil.copytree(subject, project.photos, copy_function=shutil.copyfile)
        events = run(project, resolution=256)
        count = len(list(subject.glob("*.jpg")))
        assert {event.status for event in of_kind(events, PhotoLooked)} <= {"kept", "warned"}
        assert events[-1].count == count == len(prepared_photos(project))


def test_links_in_a_circle_beside_the_pictures_stay_links(project):
    run(project)
    (project.prepared / "loop").symlink_to(".")
    (project.prepared / "gone").symlink_to("nowhere")
    (project.prepared / "notes").mkdir()
    (project.prepared / "notes" / "up").symlink_to("..")
    (project.photos / "one.jpg").unlink()
    run(project)
    assert (project.prepared / "loop").readlink() == Path(".")
    assert (project.prepared / "gone").is_symlink()
    assert (project.prepared / "notes" / "up").is_symlink()


# ---- findings


@pytest.fixture
def with_a_dark_one(project):
    """The photos, of which two.jpg is underexposed and copy.jpg the same file as one.jpg."""
    with Image.open(project.photos / "two.jpg") as image:
        image.point([value // 6 for value in range(256)] * 3).save(project.photos / "two.jpg")
    shutil.copy(project.photos / "one.jpg", project.photos / "copy.jpg")
    return project


def strict(project):
    return list(prepare(project, PrepSettings(crop="center", strict=True), resolution=64))


def test_findings_inform_and_refuse_nothing(with_a_dark_one):
    events = run(with_a_dark_one)
    photos = {Path(event.path).name: event for event in of_kind(events, PhotoLooked)}
    assert (photos["two.jpg"].status, photos["two.jpg"].word) == ("kept", "dark")
    line = as_json(photos["two.jpg"])
    dark = next(finding for finding in line["findings"] if finding["kind"] == "dark")
    assert set(dark) == {"kind", "value", "words"}
    assert 0 < dark["value"] < 0.45
    assert dark["words"].startswith("Too dark")
    twins = [photos[name] for name in ("copy.jpg", "one.jpg") if photos[name].status == "skipped"]
    assert [(event.word, [finding.kind for finding in event.findings]) for event in twins] == [("twice", ["duplicate"])]
    assert as_json(events[-1])["findings"] == []
    assert json.dumps([as_json(event) for event in events])
    report = report_of(with_a_dark_one)
    assert {row["file"]: row["word"] for row in report["photos"]}["two.jpg"] == "dark"
    assert report["verdict"] == events[-1].verdict


def test_what_is_found_does_not_depend_on_the_training_size(project):
    """A large JPEG is decoded to no more pixels than the training picture needs, which hides what is wrong with it."""
    for number, path in enumerate(sorted(project.photos.iterdir())):
        path.unlink()
        large = project.photos / f"{number}.jpg"
        with Image.open(draw_photo(large, (400, 400), seed=number)) as drawn:
            scaled = drawn.resize((1600, 1600))
        (scaled.filter(ImageFilter.GaussianBlur(8)) if number == 1 else scaled).save(large, quality=92)
    assert {Path(one.path).name: one.word for one in of_kind(run(project), PhotoLooked)}["1.jpg"] == "soft"


def test_strict_refuses_and_says_which(with_a_dark_one):
    with pytest.raises(PhotoError) as caught:
        strict(with_a_dark_one)
    assert caught.value.exit_code == 3
    assert "two.jpg: dark" in caught.value.message
    assert caught.value.hint == "replace these photos, or use them anyway: --no-strict"
    assert not with_a_dark_one.prepared.exists()
    assert sorted(path.name for path in with_a_dark_one.path.iterdir()) == ["photos"]


def test_strict_refuses_what_was_prepared_before_too(with_a_dark_one):
    run(with_a_dark_one)
    before = contents(with_a_dark_one.path)
    with pytest.raises(PhotoError, match=r"two\.jpg: dark"):
        strict(with_a_dark_one)
    assert contents(with_a_dark_one.path) == before


def test_each_photo_is_read_once_and_only_where_something_changed(with_a_dark_one):
    count = len(list(with_a_dark_one.photos.iterdir()))
    assert [event.number for event in of_kind(run(with_a_dark_one), PhotoRead)] == list(range(1, count + 1))
    assert of_kind(run(with_a_dark_one), PhotoRead) == []
    (with_a_dark_one.photos / "two.jpg").unlink()
    assert len(of_kind(run(with_a_dark_one), PhotoRead)) == count - 1


@pytest.fixture
def decoded(monkeypatch):
    """The names of the photos that were decoded."""
    names = []

    def read(path, side):
        names.append(path.name)
        return read_photo(path, side)

    monkeypatch.setattr(opened, "read_photo", read)
    return names


def test_only_what_is_new_is_decoded_and_the_rest_stays_as_it_was(project, decoded):
    run(project)
    before = {row["file"]: row for row in report_of(project)["photos"]}
    pictures = {name: (project.prepared / row["prepared"]).read_bytes() for name, row in before.items()}
    assert sorted(decoded) == sorted(before)
    decoded.clear()
    draw_photo(project.photos / "a.png", (160, 120), seed=77)
    (project.photos / "four.png").unlink()
    (project.photos / "two.jpg").with_suffix(".txt").write_text("in the snow")
    run(project)
    assert decoded == ["a.png"]
    after = {row["file"]: row for row in report_of(project)["photos"]}
    assert [row["prepared"] for row in after.values()] == ["000.png", "001.png", "002.png", "003.png", "004.png"]
    assert after["two.jpg"]["caption"] == "in the snow"
    for name in before.keys() & after.keys():
        assert (project.prepared / after[name]["prepared"]).read_bytes() == pictures[name]
        assert after[name] | {"prepared": "", "caption": ""} == before[name] | {"prepared": "", "caption": ""}


def test_another_crop_is_cut_anew_and_what_was_lost_or_changed_is_made_again(project, decoded):
    run(project)
    first = (project.prepared / "000.png").read_bytes()
    for look in (cache_folder() / "looks").iterdir():
        look.write_bytes(look.read_bytes()[:-300])
    (project.prepared / "000.png").write_bytes(b"other")
    decoded.clear()
    run(project)
    assert len(decoded) == 5
    assert (project.prepared / "000.png").read_bytes() == first
    decoded.clear()
    run(project, crop="top")
    assert len(decoded) == 5


def test_several_at_a_time_make_what_one_alone_makes(project, monkeypatch):
    (project.photos / "broken.jpg").write_bytes((project.photos / "one.jpg").read_bytes()[:900])
    (project.photos / "notes.txt").write_text("a list")
    found = []
    for workers, together in ((1, 16_000_000), (3, 16_000_000), (3, 100)):
        monkeypatch.setattr(photo_rows, "WORKERS", workers)
        monkeypatch.setattr("dreambooth_cli.photos.pixels.MOST_TOGETHER", together)
        shutil.rmtree(cache_folder(), ignore_errors=True)
        shutil.rmtree(project.prepared, ignore_errors=True)
        events = run(project)
        found.append(([as_json(event) for event in events], {path: data for path, (data, _) in contents(project.prepared).items()}))
    assert found[0] == found[1] == found[2]
