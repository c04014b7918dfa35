"""The policies that can be asked: the checkpoints of runs, model folders, and copies that a gradient step has changed.

A policy's name is ``SOURCE/STAGE@STEP``, as in ``shop/rl@110``. Parameters are read when they are first asked for, aside
of the device, and the ones that were asked last stay in memory.
"""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rljax import transformer
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.serving.aside import Aside, do_aside
from rljax.structs import ConfigTree
from rljax.training import initial_state
from rljax.training.checkpoint_manifest import list_steps
from rljax.training.run import Run, resolve
from rljax.training.schema import STAGES
from rljax.training.workdir import read_config

IN_MEMORY = 3  # policies whose parameters stay in memory
COPIES = 2  # changed copies, which cannot be read again


@dataclasses.dataclass(frozen=True)
class Source:
    """Where policies come from: a run, or a model folder with a task to ask it."""

    name: str
    path: Path
    run: Run
    is_folder: bool = False


class Policy(NamedTuple):
    """One policy, ready to be asked."""

    name: str
    source: Source
    params: Any  # as they learn
    sampling: Any  # as they sample


class NoPolicyError(UserError):
    """There is no policy of this name."""


def open_source(path: str | Path, config: ConfigTree | None = None, taken: tuple[str, ...] = ()) -> Source:
    """A run's workdir; or a model folder (or hub name), which ``config`` asks. Names that are ``taken`` get a number behind.

    Raises UserError where the folder is neither, or does not fit the config.
    """
    base = Path(path).absolute().name if Path(path).exists() else str(path).rpartition("/")[2]
    name = next(n for n in (base, *(f"{base}-{i}" for i in range(2, 99))) if n not in taken)
    is_run = any((Path(path) / part).exists() for part in ("metrics.jsonl", "checkpoints"))
    recorded = read_config(Path(path)) if is_run else None  # config.json of a model folder is another one
    if recorded is not None:
        return Source(name, Path(path), resolve(recorded))
    if config is None:
        raise UserError(
            f"{path}: there is no run in it (no config.json and checkpoints), and no task for a model folder"
        )
    asks: ConfigTree = config.copy_and_resolve_references()
    asks.weights = str(path)
    for stage in ("sft", "rl"):
        asks[stage].start = "weights"
    asks.stages = ("rl",)
    return Source(name, Path(path), resolve(asks), is_folder=True)


class Policies:
    """All policies of some sources, and the parameters that are in memory."""

    def __init__(self, sources: list[Source]):
        self.sources: dict[str, Source] = {source.name: source for source in sources}
        self.loaded: OrderedDict[str, Policy] = OrderedDict()
        self.copies: OrderedDict[str, Policy] = OrderedDict()
        self.lock, self.reading = threading.Lock(), threading.Lock()

    def add_source(self, source: Source) -> None:
        """One more source, such as a run that has just begun."""
        with self.lock:
            self.sources[source.name] = source

    def names(self) -> list[str]:
        """The names of all policies, of each source from its first stage's first checkpoint to its last."""
        with self.lock:
            sources, copies = list(self.sources.values()), list(self.copies)
        return [name for source in sources for name in policy_names(source)] + copies

    def default(self, source: str = "") -> str:
        """The last policy of a source, or of the first one that has any. Raises NoPolicyError where there is none yet."""
        for one in list(self.sources.values()):
            names = policy_names(one)
            if names and source in ("", one.name):
                return names[-1]
        raise NoPolicyError("there is no policy yet: none of its checkpoints is written")

    def find(self, name: str) -> Source:
        """The source of a policy. Raises NoPolicyError where there is no policy of this name."""
        if name in self.copies:
            return self.copies[name].source
        source = self.sources.get(name.partition("/")[0])
        if source is None or name not in policy_names(source):
            near = self.names()
            hint = f": choose from {', '.join(near[-6:])}" if near else ""
            raise NoPolicyError(f"there is no policy {name[:80]!r}{hint}")
        return source

    def use(self, name: str) -> Generator[Aside, None, Policy]:
        """Part of a request's work: ``load``, aside of the device where a checkpoint is to be read."""
        return self.in_memory(name) or (yield from do_aside(lambda: self.load(name)))

    def in_memory(self, name: str) -> Policy | None:
        """The policy of this name, where its parameters are in memory."""
        with self.lock:
            for kept in (self.copies, self.loaded):
                if name in kept:
                    kept.move_to_end(name)
                    return kept[name]
        return None

    def load(self, name: str) -> Policy:
        """The policy of this name. Raises NoPolicyError, and UserError for a damaged checkpoint."""
        source = self.find(name)
        with self.reading:  # one at a time: it is read once, and memory holds one more at most
            if found := self.in_memory(name):
                return found
            policy = make_policy(name, source, read_params(source, name))
            with self.lock:
                self.loaded[name] = policy
                while len(self.loaded) > IN_MEMORY:
                    self.loaded.popitem(last=False)
        return policy

    def keep_copy(self, policy: Policy) -> None:
        """Keep a changed copy under its name; the oldest ones are given up."""
        with self.lock:
            self.copies[policy.name] = policy
            self.copies.move_to_end(policy.name)
            while len(self.copies) > COPIES:
                self.copies.popitem(last=False)

    def drop_copy(self, name: str) -> None:
        """Give up a changed copy. Raises NoPolicyError where there is none of this name."""
        with self.lock:
            if self.copies.pop(name, None) is None:
                raise NoPolicyError(f"there is no changed copy {name[:80]!r}")


def policy_names(source: Source) -> list[str]:
    """The names of a source's policies, in the order of its stages and steps."""
    return [f"{source.name}/{how}" for how in find_checkpoints(source)]


def find_checkpoints(source: Source) -> Iterator[str]:
    """``STAGE@STEP`` of each checkpoint that is there now; ``weights`` for what a run or a folder begins with."""
    if source.is_folder:
        yield "weights"
        return
    if source.run.weights:
        yield "weights"
    for stage in STAGES:
        for step in list_steps(source.path / "checkpoints" / stage):
            yield f"{stage}@{step}"


def read_params(source: Source, name: str) -> Any:
    """The parameters of a checkpoint or a folder, laid out for the sampler."""
    how = name.partition("/")[2]
    start = "weights" if how == "weights" else f"{source.path}:{how}"
    run = source.run
    params = initial_state.start_params(run, start, source.path)
    if run.mesh.actors:
        params = sharding.reshard_params(params, run.sampler_model)
    return params


def make_policy(name: str, source: Source, params: Any) -> Policy:
    """A policy of these parameters. It samples with matrices in the dtype of the products: no program converts them again."""
    config = source.run.sampler_model
    if config.weight_dtype == config.dtype:
        return Policy(name, source, params, params)
    return Policy(name, source, params, quantize(params, config, config.dtype))


quantize = jax.jit(transformer.quantize_params, static_argnums=(1, 2))
