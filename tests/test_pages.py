"""The README and the pages of docs/ name files, tests and other pages that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PITFALLS = (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8")


def test_the_readme_has_at_most_900_words_outside_code():
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(text.split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_exists(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    missing = [x for x in links if "://" not in x and not (page.parent / (x.partition("#")[0] or page.name)).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_of_the_repository_that_a_page_names_exists(page):
    named = re.findall(
        r"`((?:rljax|experiments|configs|tests|benchmarks|tools|docs)/[\w/.]+)`", page.read_text(encoding="utf-8")
    )
    missing = [x for x in named if not (ROOT / x).exists() and "NAME" not in x]
    assert not missing


def test_all_seventeen_pitfalls_are_in_the_table():
    assert re.findall(r"^\| (\d+) \|", PITFALLS, flags=re.MULTILINE) == [str(n) for n in range(1, 18)]


def test_every_test_that_the_table_of_pitfalls_names_exists():
    tests = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py")}
    code = "\n".join(tests.values())
    names = re.findall(r"`(test_\w+)`", PITFALLS)
    files = re.findall(r"`(test_\w+\.py)`", PITFALLS)
    assert names and files
    assert not [name for name in names if f"def {name}(" not in code]
    assert not [file for file in files if file not in tests]


def test_no_docstring_holds_what_markdown_reads_as_a_link():
    """``lists [Q][n]`` outside backticks is a link to n: the docs site would not be built."""
    for path in sorted((ROOT / "rljax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
                text = re.sub(r"``.*?``", "", ast.get_docstring(node) or "", flags=re.DOTALL)
                assert "][" not in text, f"{path}: {getattr(node, 'name', 'its docstring')}"
