"""Which problems a run of reinforcement learning asks: how many a step, and of which levels of difficulty."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rljax.errors import UserError
from rljax.options import option
from rljax.structs import Problems
from rljax.tasks.task import Task

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Levels:
    """The levels of difficulty that are asked, for a task that has them."""

    low: int = option(0, "lowest level of the problems; 0: the task's own", low=0)
    high: int = option(0, "highest level of the problems; 0: the task's own", low=0)
    rise: int = option(
        0, "steps over which the levels open one after the other, from easy to hard; 0: all at once", low=0
    )

    @property
    def given(self) -> bool:
        return bool(self.low or self.high or self.rise)


@dataclasses.dataclass(frozen=True)
class ProblemOptions:
    """The problems of a step."""

    prompts: int = option(16, "B: problems a step", low=1)
    levels: Levels = Levels()

    def check(self, task: Task) -> None:
        """Raise UserError where the task's problems cannot have these levels."""
        levels = self.levels
        if not levels.given:
            return
        if task.levels is None:
            raise UserError(
                f"rl.levels: problems of task {task.name!r} have no levels here (shop has them with fewest=3)"
            )
        low, high = levels.low or task.levels[0], levels.high or task.levels[1]
        if not task.levels[0] <= low <= high <= task.levels[1]:
            raise UserError(
                f"rl.levels: low={low}, high={high}: problems of {task.name!r} have levels {task.levels[0]} to "
                f"{task.levels[1]}"
            )

    def levels_at(self, task: Task, cursor: Array) -> tuple[int, Array | int] | None:
        """(lowest, highest) level of the problems from number ``cursor`` on; None: as the task draws them."""
        levels = self.levels
        if not levels.given or task.levels is None:
            return None
        low, high = levels.low or task.levels[0], levels.high or task.levels[1]
        if not levels.rise:
            return low, high
        opened = cursor * (high - low + 1) // (levels.rise * self.prompts)
        return low, jnp.minimum(low + opened, high)


def make_asker(
    options: ProblemOptions, task: Task, seed: Array | int, split: str = "train"
) -> Callable[[Array], Problems]:
    """``ask(cursor)``: the B problems of a split from number ``cursor`` [] int32 on."""

    def ask(cursor: Array) -> Problems:
        levels = options.levels_at(task, cursor)
        asked = (seed, cursor + jnp.arange(options.prompts), split, *([levels] if levels else []))
        return task.problems(*asked)

    return ask
