"""What is installed: the ranges of pyproject.toml, the pins of requirements.txt, and the packages of the wheel."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages

import rljax

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    return dict(
        (canonicalize_name(name), version)
        for name, version in (line.split("==") for line in lines if re.fullmatch(r"[\w.-]+==[\w.+]+", line))
    )


def test_every_range_begins_at_the_version_that_is_pinned_and_ends_somewhere():
    pinned = pins("requirements.txt")
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        bounds = {s.operator: s.version for s in requirement.specifier}
        assert bounds.keys() == {">=", "<"}, line
        assert bounds[">="] == pinned[canonicalize_name(requirement.name)], line


def test_every_extra_for_a_chip_has_the_same_range_as_jax():
    (jax,) = (Requirement(line) for line in PROJECT["dependencies"] if Requirement(line).name == "jax")
    for chip in ("cuda", "tpu"):
        (extra,) = map(Requirement, PROJECT["optional-dependencies"][chip])
        assert (extra.name, extra.specifier) == ("jax", jax.specifier)


def test_every_library_that_is_imported_is_a_dependency():
    names = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    folders = ("rljax", "experiments", "configs")
    text = "\n".join(p.read_text() for folder in folders for p in (ROOT / folder).rglob("*.py"))
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE))
    modules = {"absl": "absl-py", "orbax": "orbax-checkpoint", "jinja2": "jinja2"}
    known = {canonicalize_name(modules.get(name, name)) for name in imported} & pins("requirements.txt").keys()
    assert known <= names


def test_every_folder_of_code_is_a_package_of_the_wheel():
    folders = {p.parent for p in (ROOT / "rljax").rglob("*.py")} | {p.parent for p in (ROOT / "configs").rglob("*.py")}
    packages = find_packages(str(ROOT), include=["rljax", "rljax.*", "configs", "configs.*"])
    assert {".".join(p.relative_to(ROOT).parts) for p in folders} == set(packages)


def test_configs_and_experiments_are_importable_inside_the_package():
    from rljax.configs import shop as inside  # pyright: ignore[reportMissingImports]

    from configs import shop

    assert inside.get_config("short").to_dict() == shop.get_config("short").to_dict()
    assert inside.__name__ == "rljax.configs.shop" and Path(inside.__file__).resolve() == Path(shop.__file__).resolve()
    assert rljax.experiments.__name__ == "rljax.experiments"  # pyright: ignore[reportAttributeAccessIssue]
