"""Where a run's scalars are logged beside metrics.jsonl: TensorBoard, Weights & Biases, trackio.

``LOGGERS`` is the table of names that the setting ``log`` may list. A new logger is one entry of it::

    LOGGERS["mine"] = Logger(package="my_package", open=open_mine)

where ``open_mine(run, run_id)`` returns an ``OpenLogger`` of two functions, ``log(step, scalars)`` and ``close()``.

Each stage of a workdir is one run of a logger, because every stage counts its steps from 0. ``loggers.json`` in the workdir
keeps the id of that run and the last step that was logged. A stage that is continued appends to the same run, and steps that
were logged before the interruption are not logged again: they are repeated bit for bit, so nothing is lost.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import io
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rljax.errors import UserError

Scalars = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What a logger is told about the stage that it logs."""

    workdir: Path
    stage: str
    first_step: int  # the first step that this process logs
    project: str = "rljax"
    name: str = ""  # of the run, for people; "": the workdir's name
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # plain: what JSON can hold

    @property
    def group(self) -> str:
        """What the stages of one workdir share in a logger."""
        return self.name or self.workdir.resolve().name

    @property
    def label(self) -> str:
        """The stage's name in a logger, "NAME-STAGE"."""
        return f"{self.group}-{self.stage}"


@dataclasses.dataclass(frozen=True)
class OpenLogger:
    """One run of one logger, open for writing."""

    log: Callable[[int, Scalars], None]
    close: Callable[[], None]
    address: str = ""  # where a person can look at the run; "": not told


@dataclasses.dataclass(frozen=True)
class Logger:
    """A way of logging: the Python package that it needs, and how a run of it is opened."""

    package: str  # the name to import
    open: Callable[[RunInfo, str], OpenLogger]  # (run, the run's id) -> what is open
    drops_later_steps: bool = False  # whether a continued run forgets what was logged from ``first_step`` on


def open_tensorboard(run: RunInfo, run_id: str) -> OpenLogger:
    """Event files in WORKDIR/tensorboard/STAGE. TensorBoard hides earlier events from ``first_step`` on."""
    from tensorboardX import SummaryWriter

    folder, suffix = (
        run.workdir / "tensorboard" / run.stage,
        f".{run.first_step}",
    )  # a file's name has whole seconds only
    writer = SummaryWriter(str(folder), purge_step=run.first_step, filename_suffix=suffix)

    def log(step: int, scalars: Scalars) -> None:
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)

    return OpenLogger(log, writer.close)


def open_wandb(run: RunInfo, run_id: str) -> OpenLogger:
    """A W&B run; its files are in WORKDIR/wandb. The variables WANDB_MODE and WANDB_PROJECT work as usual."""
    wandb: Any = importlib.import_module("wandb")
    settings = wandb.Settings(console="off", silent=True)  # its capture of the console disturbs the progress bar
    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", run.project),
        id=run_id,
        name=run.label,
        group=run.group,
        job_type=run.stage,
        dir=str(run.workdir),
        config=dict(run.config),
        resume="allow",
        reinit="create_new",  # several runs may be open in one process
        settings=settings,
    )
    address = "" if opened.offline else opened.url or ""  # asking for it offline prints a warning
    return OpenLogger(lambda step, scalars: opened.log(dict(scalars), step=step), opened.finish, address)


def open_trackio(run: RunInfo, run_id: str) -> OpenLogger:
    """A trackio run, in trackio's own folder (TRACKIO_DIR) unless TRACKIO_SPACE_ID names a Space."""
    trackio: Any = importlib.import_module("trackio")
    with contextlib.redirect_stdout(io.StringIO()):
        opened = trackio.init(
            project=run.project,
            name=f"{run.label}-{run_id}",  # trackio continues a run by its name: the id makes it unique
            group=run.group,
            config=dict(run.config),
            resume="allow",
            embed=False,
        )

    def close() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            if trackio.context_vars.current_run.get() is opened:
                trackio.finish()  # else trackio would finish it again, in print, when the process ends
            else:
                opened.finish()

    return OpenLogger(lambda step, scalars: opened.log(dict(scalars), step=step), close)


LOGGERS: dict[str, Logger] = {
    "tensorboard": Logger("tensorboardX", open_tensorboard, drops_later_steps=True),
    "wandb": Logger("wandb", open_wandb),
    "trackio": Logger("trackio", open_trackio),
}


def check_loggers(names: Sequence[str]) -> None:
    """Raise UserError for a logger that is unknown or whose package is not installed."""
    for name in names:
        if name not in LOGGERS:
            raise UserError(f"log: {name!r} is unknown, choose from {sorted(LOGGERS)}")
        package = LOGGERS[name].package
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:  # without origin: a mere folder, such as the ./wandb that W&B writes
            extra = f"rljax[{name}]" if name in ("wandb", "trackio") else package
            raise UserError(f"log: {name!r} needs the package: pip install '{extra}'")


def metric_to_logger_name(metric: str) -> str:
    """A metric's name in every logger: "eval/pass@1" -> "eval/pass_at_1".

    TensorBoard would write "_" for "@" and for any other character outside letters, digits and "-_./"; so "eval/pass@1" and
    a metric "eval/pass_1" would become one curve.
    """
    return re.sub(r"[^-/\w.]", "_", metric.replace("@", "_at_")).lstrip("/")


def group_of(metric: str) -> str:
    """ "train" of "train/loss". The metrics of a group are logged together, in one call a step."""
    return metric.partition("/")[0]


@dataclasses.dataclass(frozen=True)
class Logged:
    """How far a stage has been logged: the last step, and the groups of metrics that were logged at it."""

    step: int = -1
    groups: frozenset[str] = frozenset()

    def covers(self, step: int, group: str) -> bool:
        return step < self.step or (step == self.step and group in self.groups)

    def merge(self, other: "Logged") -> "Logged":
        """The later of the two."""
        if self.step != other.step:
            return max(self, other, key=lambda logged: logged.step)
        return Logged(self.step, self.groups | other.groups)


def last_logged(records: Sequence[Mapping[str, Any]], stage: str) -> Logged:
    """How far the records of metrics.jsonl go in a stage."""
    logged = Logged()
    for record in records:
        if record["stage"] == stage:
            groups = frozenset(group_of(key) for key in record if key not in ("stage", "step"))
            logged = logged.merge(Logged(record["step"], groups))
    return logged


def open_loggers(names: Sequence[str], run: RunInfo, recorded: Logged) -> dict[str, OpenLogger]:
    """Open a stage's loggers, by name; a run that is continued skips the steps that it has logged before.

    ``recorded`` is how far metrics.jsonl went before this process began. Raises UserError where one cannot be opened.
    """
    check_loggers(names)
    opened: dict[str, OpenLogger] = {}
    for name in names:
        logger, (run_id, logged) = LOGGERS[name], read_run_state(run, name, recorded)
        try:
            opened[name] = logger.open(run, run_id)
        except Exception as e:  # each package has exceptions of its own: no login, no network, no room on the disk
            for other in opened.values():
                other.close()
            said = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
            offline = "; without a network or an account set WANDB_MODE=offline" if name == "wandb" else ""
            raise UserError(f"log: {name!r} could not be started ({said}){offline}") from e
        if not logger.drops_later_steps:
            write_run_state(run, name, run_id, logged)
            opened[name] = skip_logged_steps(opened[name], logged)
    return opened


def read_run_states(workdir: Path) -> dict[str, Any]:
    """The content of loggers.json: {stage: {logger: {"id", "step", "groups"}}}."""
    path = workdir / "loggers.json"
    try:
        states = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if all(is_run_state(state) for loggers in states.values() for state in loggers.values()):
            return states
    except (ValueError, AttributeError, RecursionError):  # no JSON, or lists and numbers where names should be
        pass
    raise UserError(f"{path} is damaged: remove it, and this stage is logged as a new run")


def is_run_state(state: Any) -> bool:
    """Whether a JSON value is {"id", "step", "groups"}."""
    kinds = {"id": str, "step": int, "groups": list}
    return isinstance(state, dict) and all(isinstance(state.get(name), kind) for name, kind in kinds.items())


def read_run_state(run: RunInfo, name: str, recorded: Logged) -> tuple[str, Logged]:
    """(id, how far it was logged) of this stage's run of a logger. One that is new to the stage has logged nothing."""
    state = read_run_states(run.workdir).get(run.stage, {}).get(name)
    if state is None:
        return secrets.token_hex(4), Logged()
    return state["id"], Logged(state["step"], frozenset(state["groups"])).merge(recorded)


def write_run_state(run: RunInfo, name: str, run_id: str, logged: Logged) -> None:
    """Keep what ``read_run_state`` returns, in place in one move."""
    states = read_run_states(run.workdir)
    states.setdefault(run.stage, {})[name] = {"id": run_id, "step": logged.step, "groups": sorted(logged.groups)}
    path = run.workdir / "loggers.json"
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(states, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def skip_logged_steps(logger: OpenLogger, logged: Logged) -> OpenLogger:
    """The logger, without the scalars that were logged before this process began."""

    def log(step: int, scalars: Scalars) -> None:
        new = {name: value for name, value in scalars.items() if not logged.covers(step, group_of(name))}
        if new:
            logger.log(step, new)

    return dataclasses.replace(logger, log=log)
