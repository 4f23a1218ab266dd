"""A few damaged documents of every kind; all of them: `python -m tests.faults.documents`."""

import pytest

from . import documents

pytestmark = pytest.mark.slow


def test_every_damaged_document_gets_an_answer() -> None:
    rows = list(documents.rows(140))
    assert [row.what for row in rows] == [f"documents: {what}" for what in documents.TRIALS]
    assert sum(row.tried for row in rows) > 100
    assert [row for row in rows if row.lost] == []


def test_an_error_without_words_is_seen() -> None:
    def read(document: object) -> None:
        raise TypeError("a bug")

    row = documents.try_all("anything", documents.Trial(lambda: documents.scalars, read, 1), 3)
    assert (row.tried, row.lost) == (3, 3)
    assert row.remarks[0].startswith("TypeError at test_documents.py")


def test_what_a_toml_is_made_of() -> None:
    text = documents.toml_of({"train": {"steps": 3, "class_prompt": "a\x1bb", "list": [1, {"a": None}]}})
    assert text == b'[train]\n"steps" = 3\n"class_prompt" = "a\\u001bb"\n"list" = [1, {"a" = null}]'
