"""plan.json, read and written: this version's, 0.1's, and a later one's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreambooth_cli.record import Record
from dreambooth_cli.verdict import Figures, judge
from tests.records import a_record

KEPT = sorted((Path(__file__).parent / "kept" / "0.1.0").rglob("plan.json"))


def as_read(record: Record) -> Any:
    """The value as it comes back from a file."""
    return json.loads(json.dumps(record.written()))


def test_what_is_written_is_read() -> None:
    record = replace(a_record(), began={"torch": "2"}, sources={"train": {"steps": "--steps"}})
    record = record.with_change(replace(record.plan, learning_rate=1e-5), step=3, kind="not finite", what="the loss")
    record = record.with_measured(4, 10**9)
    figures = Figures(loss=(0.2, 0.1), class_loss=(0.2, 0.19), picture=0.5, class_picture=0.3, copied=0.4, nearest="a.jpg")
    record = record.with_verdict(judge(figures), figures.told())
    assert (record.verdict, record.of_class, len(record.sentences)) == ("learned", "kept", 2)
    assert Record.read(as_read(record)) == record
    assert record.changes[0].before["learning_rate"] != record.plan.learning_rate == 1e-5
    assert record.measured is not None
    assert (record.measured.step, record.measured.planned) == (4, record.plan.ram_needed)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.parts[-4] + path.parts[-2])
def test_a_record_of_0_1_is_read_and_nothing_of_it_is_lost(path: Path) -> None:
    held = json.loads(path.read_text())
    record = Record.read(held)
    assert record.shape is None
    written = as_read(record)
    assert {key: written[key] for key in held if key != "plan"} == {key: held[key] for key in held if key != "plan"}
    assert {key: written["plan"][key] for key in held["plan"]} == held["plan"]
    assert record.plan.text_encoder_stop == held["asked"]["train"]["text_encoder_stop"]


def test_what_a_later_version_adds_is_kept() -> None:
    held = as_read(a_record()) | {"rating": 5}
    assert Record.read(held).written()["rating"] == 5
    assert Record.read(held | {"changes": [{"step": 2, "from": {}}]}).changes[0].kind == ""


def test_a_rehearsal_counts_on_a_card_alone() -> None:
    record = a_record()
    assert record.with_rehearsed(7) == record
    on_card = replace(record, plan=replace(record.plan, device="cuda", needed=9))
    told = on_card.with_rehearsed(7)
    assert told.measured is not None
    assert (told.plan.needed, told.measured.bytes, told.measured.planned) == (7, 7, 9)


@pytest.mark.parametrize(
    "fault",
    [
        {"measured": {"step": 1}},
        {"measured": 3},
        {"changes": [{"kind": "x"}]},
        {"shape": []},
        {"prompts": {"identifier": "sks", "instance": 3, "class_": "a"}},
        {"base": {"name": "x", "path": None, "identity": "y"}},
    ],
    ids=str,
)
def test_a_damaged_part_is_damage(fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is missing|can't be|holds no"):
        Record.read(as_read(a_record()) | fault)
