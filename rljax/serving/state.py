"""What a server holds: the policies, the device's queue, the groups that were sampled, and the copies that have learned."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rljax.serving.engine import Engine
from rljax.serving.groups import Groups
from rljax.serving.learning import Copies
from rljax.serving.policies import Policies
from rljax.serving.programs import Programs

Progress = Callable[[], dict[str, Any] | None]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    attempts: int = 64
    max_new_tokens: int = 4096  # and never more than the policy's window
    choices: int = 128  # of a /v1 request, over all its prompts


@dataclasses.dataclass(frozen=True)
class State:
    """Everything that the handlers share."""

    policies: Policies
    programs: Programs
    copies: Copies
    engine: Engine = dataclasses.field(default_factory=Engine)
    limits: Limits = Limits()
    groups: Groups = dataclasses.field(default_factory=Groups)
    judges: ThreadPoolExecutor = dataclasses.field(default_factory=lambda: ThreadPoolExecutor(1, "judge"))
    helpers: ThreadPoolExecutor = dataclasses.field(default_factory=lambda: ThreadPoolExecutor(2, "helper"))
    progress: Progress = lambda: None  # how far the training has come that the server began; None: it began none
    default_source: str = ""


def make_state(policies: Policies, **more: Any) -> State:
    """The state of a server of these policies."""
    programs = Programs()
    return State(policies, programs, Copies(policies, programs), **more)
