"""README.zh-CN.md against README.md: headings, commands and tables."""

import pytest

from .readme_zh import differences
from .test_readme import CHINESE, README, chinese_page

pytestmark = pytest.mark.skipif(not CHINESE.is_file(), reason="needs the checkout")


def test_the_chinese_page_stands_beside_this_one() -> None:
    """Headings, commands and tables; whoever changes this page brings the other along."""
    text = CHINESE.read_text(encoding="utf-8")
    assert list(differences(text, README.read_text(encoding="utf-8"))) == []
    assert text == chinese_page(), "write its tables anew: python -m tests.test_readme"
    assert "HF_ENDPOINT" in text
