"""Which cases of a test only `make test-exhaustive` and CI run: those whose relatives are among the ones that stay."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def cases(all_cases: Iterable[Any], is_rest: Callable[[Any], bool]) -> list[Any]:
    """The cases of a parametrized test; those of which ``is_rest`` holds are marked exhaustive."""
    return [pytest.param(case, marks=pytest.mark.exhaustive) if is_rest(case) else case for case in all_cases]
