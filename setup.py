"""The packages of the wheel: rljax/, and inside it the folders configs/ and experiments/ of the checkout.

Everything else is in pyproject.toml, which cannot say this: it finds packages by folder, or has a fixed list of them.
"""

from setuptools import find_packages, setup

INSIDE = ("configs", "experiments")

setup(
    packages=find_packages(include=["rljax", "rljax.*"])
    + [f"rljax.{name}" for name in find_packages(include=[p for name in INSIDE for p in (name, f"{name}.*")])],
    package_dir={f"rljax.{name}": name for name in INSIDE},
)
