"""Architectures of published models, for measurements without their weights."""

from rljax.planning.shapes import SHAPES

__all__ = ["SHAPES"]
