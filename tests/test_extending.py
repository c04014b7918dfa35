"""The Python code of docs/extending.md does what the page says: each section is run as it stands."""

import re
from pathlib import Path

import pytest

from rljax import policy_gradient as pg
from rljax import rewards, tasks

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text(encoding="utf-8")
MOST_LINES = 40  # of code in the first block of a section, blank lines left out
TABLES = tasks.TASKS, pg.ADVANTAGE, pg.SURROGATE, pg.ALGORITHMS, pg.NEEDS_GROUP, rewards.TEXT_TERMS


def python_sections() -> dict[str, list[str]]:
    """The code blocks under each heading that has some."""
    found = {}
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```python\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)
        if blocks:
            found[part.partition("\n")[0]] = blocks
    return found


SECTIONS = python_sections()


@pytest.fixture(autouse=True)
def tables_as_before():
    """What the code of a section adds to the tables of the library is taken out again."""
    before = [table.copy() for table in TABLES]
    yield
    for table, entries in zip(TABLES, before, strict=True):
        table.clear()
        table.update(entries)


def test_the_page_has_code_for_everything_that_can_be_added():
    assert {"A world", "An advantage", "A surrogate", "A reward", "A data set"} == set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_code_of_a_section_of_the_page_runs(section, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "extension"}
    for block in SECTIONS[section]:
        if named := re.match(r"# (\w+\.py)\n", block):  # a file that a config names: a plug-in, or reward terms
            Path(named[1]).write_text(block)
        else:
            exec(compile(block, f"docs/extending.md, {section}", "exec"), namespace)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_the_page_has_few_lines_of_code(section):
    assert sum(bool(line.strip()) for line in SECTIONS[section][0].splitlines()) <= MOST_LINES
