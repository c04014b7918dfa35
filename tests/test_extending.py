"""The Python code of docs/extending.md does what the page says: each section is run as it stands."""

import re
from pathlib import Path

import pytest

from rljax import tasks

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text(encoding="utf-8")
MOST_LINES = 40  # of code in the first block of a section, blank lines left out


def python_sections() -> dict[str, list[str]]:
    """The code blocks under each heading that has some."""
    found = {}
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```python\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)
        if blocks:
            found[part.partition("\n")[0]] = blocks
    return found


SECTIONS = python_sections()


def test_the_page_has_code_for_a_world_and_a_data_set():
    assert {"A world", "A data set"} <= set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_code_of_a_section_of_the_page_runs(section, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    namespace = {"__name__": "extension"}
    for block in SECTIONS[section]:
        exec(compile(block, f"docs/extending.md, {section}", "exec"), namespace)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_the_page_has_few_lines_of_code(section):
    assert sum(bool(line.strip()) for line in SECTIONS[section][0].splitlines()) <= MOST_LINES
