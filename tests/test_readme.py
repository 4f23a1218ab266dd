"""The README compared with what it describes: its tables, its file tree, its two commands and its links.

`python -m tests.test_readme` rewrites the tables.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dreambooth_cli.bases.catalog import CATALOG
from dreambooth_cli.errors import DreamboothError
from dreambooth_cli.events import Event
from dreambooth_cli.gpu import sold_as
from dreambooth_cli.memory.plan import job_of
from dreambooth_cli.memory.search import make_plan
from dreambooth_cli.settings import SECTIONS, Settings, annotation, describe_type, flag_of, scalar_of
from tests.readme_zh import differences, taken_over, translated

CHECKOUT = Path(__file__).parent.parent
README, CHINESE = CHECKOUT / "README.md", CHECKOUT / "README.zh-CN.md"
pytestmark = pytest.mark.skipif(not README.is_file(), reason="needs the checkout")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def base_models() -> str:
    """The catalogue: one row for each base model."""
    head = ("name", "model", "good for", "pixels", "recommended GPU memory", "download", "licence", "repository")
    rows = [
        (
            f"`{entry.name}`",
            entry.title,
            entry.good_for,
            str(entry.facts.resolution),
            f"{entry.recommended_gb} GB{' or more' if entry.name == 'sdxl' else ''}"
            if entry.recommended_gb
            else "no GPU",
            f"{entry.download_gb} GB" if entry.repository else "none",
            entry.licence,
            f"`{entry.repository}`" if entry.repository else "comes with dreambooth",
        )
        for entry in CATALOG
    ]
    return table(head, rows)


CARDS_GB = (8, 12, 16, 24)


def what_fits() -> str:
    """The memory plan's own answers for cards of several sizes, without Pocket."""
    rows = []
    for entry in CATALOG:
        for gb in CARDS_GB if entry.repository else ():
            plan = make_plan(job_of(entry, sold_as(gb), has_8bit=True))
            text = " and text encoder" + "s" * (len(entry.facts.text_encoders) > 1) if plan.train_text_encoder else ""
            network = entry.facts.family.denoiser_title
            what = (network if plan.method == "full" else f"LoRA of the {network}") + text
            needs = f"{plan.needed / 1e9:.1f} GB" if plan.fits else "does not fit"
            rows.append((f"`{entry.name}`", f"{gb} GB", what, ", ".join(plan.means) or "none needed", needs))
    return table(("model", "card", "what is trained", "means", "needs, predicted"), rows)


def settings_of(section: str) -> str:
    """The settings of one stage: flag, default, meaning."""
    owner = SECTIONS[section]
    rows = [
        (
            _flag(owner, item.name, item.metadata["names"]),
            _takes(owner, item.name),
            _default(item.default),
            item.metadata["help"],
        )
        for item in fields(owner)
    ]
    return table(("flag", "takes", "default", "what it does"), rows)


def _flag(owner: type[Settings], name: str, names: tuple[str, ...]) -> str:
    flag = f"`{flag_of(name)}`"
    if scalar_of(annotation(owner, name)) is bool:
        flag += f", `{flag_of('no_' + name)}`"
    return ", ".join([flag, *(f"`--{other}`" for other in names)])


def _takes(owner: type[Settings], name: str) -> str:
    kind = annotation(owner, name)
    return "" if scalar_of(kind) is bool else describe_type(kind)


def _default(value: Any) -> str:
    match value:
        case None | "":
            return ""
        case bool():
            return "yes" if value else "no"
    return f"`{value}`"


def exit_codes() -> str:
    """What each exit code means, from the classes of errors."""
    rows = [("0", "", "Done.")]
    public = [kind for kind in kinds_of(DreamboothError) if kind.__module__ == DreamboothError.__module__]
    for kind in sorted(public, key=lambda kind: kind.exit_code):
        rows.append((str(kind.exit_code), f"`{kind.__name__}`", (kind.__doc__ or "").splitlines()[0]))
    return table(("code", "kind", "when"), rows)


def kinds_of(kind: type[Any]) -> Iterator[type[Any]]:
    """A class and all that derive from it, in the order they were written."""
    yield kind
    for child in kind.__subclasses__():
        yield from kinds_of(child)


def events() -> str:
    """The lines of `--json`: name, fields, meaning."""
    rows = [
        (f"`{kind.event}`", ", ".join(f"`{item.name}`" for item in fields(kind)), (kind.__doc__ or "").splitlines()[0])
        for kind in kinds_of(Event)
        if kind is not Event and kind.__module__ == Event.__module__
    ]
    rows.append(("`error`", "`kind`, `message`, `hint`, `exit_code`", "The command failed; the last line."))
    return table(("event", "fields", "when"), rows)


TABLES = {
    "base models": base_models,
    "what fits": what_fits,
    **{f"{section} settings": lambda section=section: settings_of(section) for section in SECTIONS},
    "exit codes": exit_codes,
    "events": events,
}


def chinese_page() -> str:
    """README.zh-CN.md with everything that is generated or copied as it should be."""
    page = with_tables(CHINESE.read_text(encoding="utf-8"), write=lambda table: translated(table()))
    return taken_over(page, README.read_text(encoding="utf-8"))


def with_tables(text: str, write: Callable[[Callable[[], str]], str] = lambda table: table()) -> str:
    """The README's text with every generated table as it should be."""
    for name, make in TABLES.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        assert text.count(start) == text.count(end) == 1, f"the README has no place for the table of {name}"
        before, after = text.split(start)[0], text.split(end)[1]
        text = f"{before}{start}\n{write(make)}\n{end}{after}"
    return text


def code_blocks(text: str) -> list[str]:
    """The fenced blocks of a Markdown text."""
    return re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def tree_of(text: str) -> dict[str, str]:
    """The README's file tree: path from the top -> its clause. A folder's line ends in `/`, and what is in it is indented."""
    (block,) = [block for block in code_blocks(text) if block.startswith("dreambooth_cli/")]
    tree: dict[str, str] = {}
    folders: list[tuple[int, str]] = []
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        name, _, clause = line.strip().partition(" ")
        folders = [folder for folder in folders if folder[0] < indent]
        path = (folders[-1][1] if folders else "") + name
        tree[path] = clause.strip()
        if name.endswith("/"):
            folders.append((indent, path))
    return tree


def on_disk() -> set[str]:
    """What the tree must list: the top level, and each folder and file of the package; a folder stands for its `__init__.py`, and a
    folder of weights for everything in it."""
    package = CHECKOUT / "dreambooth_cli"
    weights = (package / "pocket" / "model", package / "pocket" / "judge")
    inside = [path for path in package.rglob("*") if "__pycache__" not in path.parts]
    inside = [path for path in inside if not any(folder in path.parents for folder in weights)]
    kept = [path for path in inside if path.name != "__init__.py" or path.parent == package]
    top = [path for path in CHECKOUT.iterdir() if not path.name.startswith(".") and path.name not in IGNORED]
    return {path.relative_to(CHECKOUT).as_posix() + ("/" if path.is_dir() else "") for path in [*kept, *top]}


IGNORED = {"dist", "build", "instance_images", "output", "generated", "PKG-INFO", "README.md"}


def test_the_tables_are_current() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_tables(text), "write them anew: python -m tests.test_readme"


def test_the_chinese_page_stands_beside_this_one() -> None:
    """In headings, commands and tables: whoever changes this page must change the other."""
    text = CHINESE.read_text(encoding="utf-8")
    assert list(differences(text, README.read_text(encoding="utf-8"))) == []
    assert text == chinese_page(), "write its tables anew: python -m tests.test_readme"
    assert "HF_ENDPOINT" in text


def test_what_the_chinese_page_lacks_is_named() -> None:
    theirs = CHINESE.read_text(encoding="utf-8")
    ours = "# A\n\n## Photos\n\n```sh\none --x 1  # why\ntwo\n```\n\n| `a` | 1 |\n| --- | --- |\n"
    assert list(differences(ours.replace("why", "为什么").replace("Photos", "照片"), ours)) == []
    for lacking, named in (
        (ours.replace("## Photos\n", ""), "heading 2: README.md has '## Photos', README.zh-CN.md 'nothing'"),
        (ours.replace("--x 1", "--x 2"), "line of a command 2: README.md has 'one --x 1', README.zh-CN.md 'one --x 2'"),
        (ours.replace("`a`", "`b`"), "table 1 (| `a` | 1 |), row 1: README.md has '| `a` | 1 |'"),
    ):
        (found,) = differences(lacking, ours)
        assert found.startswith(named)
    assert list(differences(theirs.replace("## 照片\n", ""), README.read_text(encoding="utf-8"))) != []


def test_what_pocket_learns_is_what_was_measured() -> None:
    """The full way and the LoRA, each by three figures of the twelve subjects: S, retrieved, place; and what the LoRA costs beside it."""
    page = (CHECKOUT / "tests/benchmarks/recipe.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in page.splitlines() if row.startswith(("| full | 12 ", "| LoRA | 12 "))]
    assert len(rows) >= 2
    for row in rows[:2]:
        figures = [f"{float(row[column].split()[0]):.0%}" for column in (3, 5, 6)]
        for readme, pattern in ((README, "{}, {} and {}"), (CHINESE, "{}、{} 和 {}")):
            told = " ".join(readme.read_text(encoding="utf-8").split())
            assert pattern.format(*figures) in told, (readme.name, figures)
    full, lora = (float(row[10]) for row in rows[:2])
    assert f"with {lora / full:.0%} of the passes" in " ".join(README.read_text(encoding="utf-8").split())
    assert f"用 {lora / full:.0%} 的计算" in CHINESE.read_text(encoding="utf-8")


def test_how_far_the_word_holds_is_what_was_measured() -> None:
    """In sentences that no training uses: of the twelve subjects, and of the built-in example before and now."""
    page = (CHECKOUT / "tests/benchmarks/recipe.md").read_text(encoding="utf-8").splitlines()

    def share(beginning: str) -> str:
        return f"{float(next(row for row in page if row.startswith(beginning)).split('|')[8]):.0%}"

    told = " ".join(README.read_text(encoding="utf-8").split())
    assert f"any other sentence reaches {share('| full | 12 ')} of that likeness" in told
    before, now = share("| full, one sentence | 1 "), share("| full | 1 ")
    assert f"used to reach {before} of the likeness that the trained sentence reached, and now reach {now} " in told


def test_the_tree_is_what_lies_on_disk() -> None:
    tree = tree_of(README.read_text(encoding="utf-8"))
    assert set(tree) == on_disk()
    assert [path for path, clause in tree.items() if not clause] == []


def test_ci_runs_the_second_command_word_for_word() -> None:
    script = CHECKOUT / ".ci" / "run"
    if not script.is_file():
        pytest.skip("needs the repository, not the source archive")
    commands = [block.strip() for block in code_blocks(README.read_text(encoding="utf-8")) if "venv" in block]
    first, second = commands[:2]
    assert first.endswith("dreambooth demo")
    assert "pytest" in second
    assert f"\n{second} || exit\n" in script.read_text(encoding="utf-8")


def test_every_link_within_the_repository_leads_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    }
    chinese = re.findall(r"\]\(([^)\s#]+)\)", CHINESE.read_text(encoding="utf-8"))
    assert [link for link in chinese if "://" not in link and not (CHECKOUT / link).exists()] == []
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    broken = [link for link in links if not (link[1:] in headings if link[0] == "#" else (CHECKOUT / link).exists())]
    assert broken == []


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
    CHINESE.write_text(chinese_page(), encoding="utf-8")
