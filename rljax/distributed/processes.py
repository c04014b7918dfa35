"""Several processes as one run: JAX's own distributed runtime, and a clear end where one of them is lost.

Every process runs the same script; the devices of all are one mesh; process 0 writes and speaks. Beside JAX's connections each
has one to process 0 (``lines``), with a sign of life every second. When one dies, that breaks and the others end within 5
seconds; one that is stopped, or a machine that is cut off, ends them after ``patience`` seconds, and a few. They say which it
was. One that ends by an error of its own says so, and the others end with it. Nobody goes on alone: what is lost is what came
after the last checkpoint.
"""

import contextlib
import itertools
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn
from unittest import mock

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rljax.distributed import coordinator
from rljax.distributed.lines import Line, roll_call, wait
from rljax.errors import UserError

PATIENCE = 60  # seconds
BEAT = 1.0  # seconds between signs of life
GRACE = 3.0  # seconds that those who are told to end have for it
A_DAY = 86_400_000  # milliseconds: process 0 may write a long report while the others wait; a lost one ends the wait
FLAGS: dict[str, Any] = dict(coordinator="", num_processes=0, process_id=-1, patience=PATIENCE)


class Run:
    """What this process knows of the others; there is one, from ``start`` on, where there are several processes.

    Of two threads one works, and the other listens, speaks, and ends both.
    """

    def __init__(self, me: int, count: int, lines: dict[int, Line], patience: float):
        self.me, self.count, self.lines, self.patience = me, count, lines, patience
        self.last_words: tuple[str, int] | None = None  # of the thread that works: a line, and an exit status
        self.over = threading.Event()
        self.meetings = itertools.count()

    def name(self, n: int) -> str:
        return f"process {n} of {self.count} (host {self.lines[n].host})"

    def watch(self) -> None:
        """Listen and speak until the process leaves, or must end."""
        spoken = 0.0
        while not self.over.is_set():
            for n, messages in self.listen(BEAT / 4):
                if messages is None:
                    self.lost(n, "its connection broke")
                for kind, *more in messages or ():
                    if kind == "left":
                        del self.lines[n]
                    elif kind == "end":  # process 0 has said why in its own output
                        out("" if more[2] else more[1], more[0])
                    elif kind == "ended":
                        self.heard_of(n, *more)
            if self.last_words:
                self.leave(*self.last_words)
            now = time.monotonic()
            if now - spoken > BEAT:
                spoken = now
                for line in self.lines.values():
                    line.send("here")
            for n, line in list(self.lines.items()):
                if now - line.heard > self.patience:
                    self.lost(n, f"no sign of life for {self.patience:.0f} seconds")

    def listen(self, seconds: float) -> list[tuple[int, list[list[Any]] | None]]:
        """(process, its messages; None where it is gone), of those that something has come from."""
        if not self.lines:
            time.sleep(seconds)
        ready = wait(list(self.lines.values()), seconds) if self.lines else []
        return [(n, line.receive()) for n, line in list(self.lines.items()) if line in ready]

    def lost(self, n: int, why: str) -> NoReturn:
        line = (
            f"error: {self.name(n)} is gone: {why}; all end with it. What was finished is whole: start all of them again with "
            "the same command, the run continues from its last checkpoint"
        )
        del self.lines[n]
        self.end_all(line, 1, said=False)

    def heard_of(self, n: int, status: int, line: str) -> NoReturn:
        """Process n has ended by an error: often by the same as this one, which then says it."""
        end = time.monotonic() + BEAT
        while not self.last_words and time.monotonic() < end:
            time.sleep(BEAT / 20)
        line, status = self.last_words or (f"{self.name(n)}: {line}", status)
        self.end_all(line, status, said=True)

    def leave(self, line: str, status: int) -> NoReturn:
        """End by what the working thread said last: process 0 says it for all."""
        if self.me == 0:
            self.end_all(line, status, said=True)
        self.lines[0].send("ended", status, line)
        end = time.monotonic() + 2 * GRACE
        while time.monotonic() < end:
            for _, messages in self.listen(BEAT / 4):
                if messages is None:
                    out(line, status)
                if any(kind == "end" and more[2] for kind, *more in messages):
                    out("", status)
        out(line, status)

    def end_all(self, line: str, status: int, said: bool) -> NoReturn:
        """Say why, tell the others to end, and end; ``said``: they need not say it once more."""
        print(line, file=sys.stderr, flush=True)
        for other in self.lines.values():
            other.send("end", status, line, said)
        end = time.monotonic() + GRACE
        while self.lines and time.monotonic() < end:  # what they still send must be read, or they would not hear this
            for n, messages in self.listen(BEAT / 4):
                if messages is None:
                    del self.lines[n]
        out("", status)


_run: list[Run] = []  # the one there is


def start(coordinator: str, num_processes: int, process_id: int, patience: int) -> None:
    """Join the run that the flags or the environment describe; for one process nothing happens.

    Must come before anything else asks JAX for its devices. Raises UserError for flags that do not belong together, and
    where not all processes came within ``patience`` seconds.
    """
    count, me = num_processes, process_id
    given = bool(coordinator), count > 0, me >= 0
    if patience < 1:
        raise UserError(f"--patience={patience}: must be at least 1 second")
    if any(given) and not all(given):
        raise UserError(
            f"--coordinator={coordinator} --num_processes={count} --process_id={me}: give all three, HOST:PORT of process 0, how "
            "many there are, and which this is; or none, where SLURM, Open MPI or a TPU pod says so"
        )
    if all(given) and me >= count:
        raise UserError(f"--process_id={me}: there are {count}, numbered from 0")
    if count == 1 or not (any(given) or announced()):
        return
    address, count, me, devices = (coordinator, count, me, None) if all(given) else detected(patience)
    if count == 1:
        return
    run = Run(me, count, roll_call(address, count, me, patience), patience)
    with contextlib.suppress(AttributeError):  # a JAX without it
        jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    threading.Thread(target=run.watch, daemon=True).start()
    _run.append(run)
    with outliving_service():
        jax.distributed.initialize(
            address, count, me, devices, initialization_timeout=10 * patience, heartbeat_timeout_seconds=10 * patience
        )


@contextlib.contextmanager
def outliving_service() -> Iterator[None]:
    """Let JAX start its coordination service in a process of its own."""
    from jax._src import distributed  # there is no public door; another JAX keeps its service where it does

    inner = getattr(distributed, "_jax", None)
    if not hasattr(inner, "get_distributed_runtime_service"):
        yield
        return
    with mock.patch.object(inner, "get_distributed_runtime_service", coordinator.Service):
        yield


def announced() -> bool:
    """Whether the environment says that there are several processes: srun, Open MPI, a TPU pod, a Kubernetes job."""
    say = os.environ.get
    hosts = say("TPU_WORKER_HOSTNAMES") or say("TPU_PROCESS_ADDRESSES") or ""
    counts = [say(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")]
    job = bool(say("KUBERNETES_SERVICE_HOST") and say("JOB_COMPLETION_INDEX"))
    return (
        any(c.isdigit() and int(c) > 1 for c in counts) or "," in hosts or job or bool(say("JAX_COORDINATOR_ADDRESS"))
    )


def detected(patience: int) -> tuple[str, int, int, Any]:
    """(HOST:PORT of process 0, how many, which this is, its devices or None) as JAX reads them from the environment.

    ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` beside ``JAX_COORDINATOR_ADDRESS`` say it where nothing else does.
    """
    from jax._src.clusters import ClusterEnv  # JAX has no public door to what it finds

    say = os.environ.get
    count = say("JAX_NUM_PROCESSES", "")
    index = say("JOB_COMPLETION_INDEX", "") if count else ""  # without a count it may number one slice's hosts only
    me = say("JAX_PROCESS_ID", index)
    known = say("JAX_COORDINATOR_ADDRESS"), int(count) if count.isdigit() else None, int(me) if me.isdigit() else None
    try:
        found = known + (None,) if None not in known else None
        found = found or ClusterEnv.auto_detect_unset_distributed_params(*known, None, None, patience)
        address, number, process, devices = found
    except Exception as e:
        raise UserError(
            f"the environment speaks of several processes, but JAX cannot read it ({type(e).__name__}: {e}): give "
            "--coordinator=HOST:PORT --num_processes=N --process_id=I"
        ) from None
    if address is None or number is None or process is None:
        raise UserError(
            "the environment speaks of several processes, but not of all that is needed: give --coordinator=HOST:PORT "
            "--num_processes=N --process_id=I"
        )
    return address, number, process, devices


def client() -> Any:
    from jax._src import distributed  # JAX has no public door to the service that it runs

    return distributed.global_state.client


# While it runs


def writes() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def meet() -> None:
    """Wait until every process is here. All must come by here equally often."""
    for run in _run:
        client().wait_at_barrier(f"rljax/meeting/{next(run.meetings)}", A_DAY)


def first_says(yes: bool) -> bool:
    """What process 0 passes, in all of them: others may see a file later than it does. All must come by here equally often."""
    for run in _run:
        key = f"rljax/said/{next(run.meetings)}"
        if run.me == 0:
            client().key_value_set(key, str(int(yes)))
        yes = client().blocking_key_value_get(key, A_DAY) == "1"
    return yes


def agreement() -> Callable[[bool], bool]:
    """A vote that is called once a step: whether any process has said yes, the same answer in all of them.

    With several processes it is what they said a step earlier: the answer is not waited for while the devices are busy.
    """
    if jax.process_count() == 1:
        return lambda yes: yes
    mesh = Mesh(np.asarray(jax.devices()), ("all",))
    parts, whole = NamedSharding(mesh, PartitionSpec("all")), NamedSharding(mesh, PartitionSpec())
    count = jax.jit(lambda votes: votes.any(), out_shardings=whole)
    asked: list[jax.Array] = []

    def vote(yes: bool) -> bool:
        mine = jax.make_array_from_callback((mesh.size,), parts, lambda part: np.full(1, yes))
        asked.append(count(mine))
        return bool(asked.pop(0)) if len(asked) > 1 else False

    return vote


# The end


def finish() -> None:
    """Leave together, process 0 last: a line that breaks before would be taken for a loss."""
    for run in _run:
        meet()
        jax.distributed.shutdown()
        if run.me:
            run.lines[0].send("left")
        end = time.monotonic() + GRACE
        while run.me == 0 and run.lines and time.monotonic() < end:
            time.sleep(BEAT / 20)
        run.over.set()


def blame() -> None:
    """Something failed here. Where the reason is that another process is lost, this one ends with a line that says so."""
    if _run:
        time.sleep(2 * BEAT)  # the other thread ends the process meanwhile


def leave(line: str, status: int = 1, at_once: bool = False) -> NoReturn:
    """End this process with a line on stderr, and the others with it; process 0 says it for all."""
    for run in _run:
        run.last_words = line, status
        time.sleep(10 * GRACE)  # the other thread ends the process meanwhile
    if at_once:
        out(line, status)
    print(line, file=sys.stderr)
    sys.exit(status)


def out(line: str, status: int) -> NoReturn:
    """The line, and out, with whatever this process started: at exit JAX would wait for whoever is missing."""
    if line:
        print(line, file=sys.stderr, flush=True)
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
