"""Several processes as one run: a thin layer over ``jax.distributed`` and ``jax.experimental.multihost_utils``.

Every process runs the same command, and the devices of all are one mesh. Process 0 is the primary: it writes files and
prints. JAX watches the processes by heartbeats and ends all of them when one is lost; the scheduler (SLURM, a Kubernetes
JobSet, a TPU pod) starts them again, and the run continues from its last checkpoint. See docs/processes.md.
"""

import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rljax.errors import UserError

FLAGS: dict[str, tuple[str | int, str]] = {  # name: (default, help)
    "coordinator": ("", 'HOST:PORT of process 0, or "auto": JAX detects the processes'),
    "num_processes": (0, "how many processes there are"),
    "process_id": (-1, "which of them this one is, from 0"),
    "heartbeat_timeout": (60, "seconds without a heartbeat after which a process counts as lost, and all end"),
    "initialization_timeout": (300, "seconds that processes wait for each other at the start"),
}
FROM_ENVIRONMENT = "auto"  # the value of --coordinator that asks JAX to detect the processes
RESTART = "start all processes again with the same command, the run continues from its last checkpoint"
GRACE = 3.0  # seconds; see exit_with_line

# The shell of print_if_killed. A process has at most one, as it has one connection to JAX's coordination service.
_observers: list[subprocess.Popen[bytes]] = []


# Start and end


def initialize(
    coordinator: str, num_processes: int, process_id: int, heartbeat_timeout: int, initialization_timeout: int
) -> None:
    """Join the other processes by ``jax.distributed.initialize``. Do nothing for a run of one process.

    There are several processes if the flags say so, if ``coordinator`` is "auto", or if a launcher has announced them in
    the environment; in the last two cases JAX detects the number and the address. Timeouts are in seconds. Must be called
    before anything else uses a JAX device.

    Raises UserError for flags that do not belong together and where JAX cannot detect the processes. A process that does
    not come within ``initialization_timeout`` makes JAX end all the others.
    """
    for name, seconds in (("heartbeat", heartbeat_timeout), ("initialization", initialization_timeout)):
        if seconds < 1:
            raise UserError(f"--{name}_timeout={seconds}: must be at least 1 second")
    detect = coordinator == FROM_ENVIRONMENT
    given = bool(coordinator), num_processes > 0, process_id >= 0
    arguments: dict[str, Any] = {}
    if any(given) and not detect:
        check_flags(coordinator, num_processes, process_id)
        arguments = dict(coordinator_address=coordinator, num_processes=num_processes, process_id=process_id)
    if num_processes == 1 or not (arguments or detect or announced()):
        return
    with contextlib.suppress(AttributeError):  # a JAX without this option
        jax.config.update(
            "jax_enable_preemption_service", False
        )  # it would take SIGTERM, which the training loop needs
    who = f"process {process_id} of {num_processes}" if arguments else "a process of this run"
    print_if_killed(
        f"error: {who} (host {socket.gethostname()}, pid {os.getpid()}) was ended by JAX, because another process was lost "
        f"(--heartbeat_timeout={heartbeat_timeout}) or never came (--initialization_timeout={initialization_timeout}), "
        f"or it was killed from outside: {RESTART}"
    )
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=initialization_timeout,
            heartbeat_timeout_seconds=heartbeat_timeout,
        )
    except Exception as e:  # JAX, its detection and the Kubernetes client raise errors of many types here
        dismiss_observer()
        raise UserError(
            f"JAX could not start several processes ({type(e).__name__}: {first_line(e)}): give --coordinator=HOST:PORT "
            "--num_processes=N --process_id=I"
        ) from None


def check_flags(coordinator: str, num_processes: int, process_id: int) -> None:
    """Raise UserError unless the three flags describe one process of several."""
    if not (coordinator and num_processes > 0 and process_id >= 0):
        raise UserError(
            f"--coordinator={coordinator} --num_processes={num_processes} --process_id={process_id}: give all three "
            "(the HOST:PORT of process 0, the number of processes, the number of this process), or none of them where "
            "SLURM, Open MPI or a TPU pod starts the processes"
        )
    if process_id >= num_processes:
        raise UserError(f"--process_id={process_id}: there are {num_processes} processes, numbered from 0")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator={coordinator}: write HOST:PORT, the host of process 0 and a free port there")


def announced() -> bool:
    """Whether a launcher says in the environment that there are several processes.

    Launchers: srun, mpirun of Open MPI, a TPU pod or several TPU slices, or whoever sets ``JAX_COORDINATOR_ADDRESS``.
    """
    env = os.environ
    counts = [env.get(name, "") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")]
    hosts = env.get("TPU_WORKER_HOSTNAMES") or env.get("TPU_PROCESS_ADDRESSES") or ""
    many = any(count.isdigit() and int(count) > 1 for count in counts)
    return many or "," in hosts or bool(env.get("JAX_COORDINATOR_ADDRESS"))


def shutdown() -> None:
    """Leave the run in good order. Every process must call this; it waits for all of them."""
    if jax.distributed.is_initialized():
        barrier("shutdown")
        jax.distributed.shutdown()
        dismiss_observer()


# While the run goes on


def is_primary() -> bool:
    """Whether this is process 0, the one that writes files and prints."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process is here. All must pass the same barriers in the same order."""
    if jax.distributed.is_initialized():
        multihost_utils.sync_global_devices(name)


def broadcast_from_primary(value: Any) -> Any:
    """The value (numbers or arrays, as a pytree) that process 0 passes, as numpy arrays, in every process.

    What process 0 knows must decide where files do: other processes may see a file later. Every process must call this,
    with arrays of the same shapes.
    """
    return multihost_utils.broadcast_one_to_all(value)


def make_stop_vote() -> Callable[[bool], bool]:
    """A function to call once a step with "this process wants to stop": whether any process does, the same answer in all.

    With several processes the answer is that of the step before, so that nobody waits while the devices are busy.
    """
    if jax.process_count() == 1:
        return lambda stop: stop
    mesh = Mesh(np.asarray(jax.devices()), ("all",))
    split, whole = NamedSharding(mesh, PartitionSpec("all")), NamedSharding(mesh, PartitionSpec())
    count = jax.jit(lambda votes: votes.any(), out_shardings=whole)
    asked: list[jax.Array] = []

    def vote(stop: bool) -> bool:
        mine = jax.make_array_from_callback((mesh.size,), split, lambda part: np.full(1, stop))
        asked.append(count(mine))
        return bool(asked.pop(0)) if len(asked) > 1 else False

    return vote


# The end of a process by an error or a signal


def exit_with_line(line: str, status: int = 1, *, at_once: bool = False, all_alike: bool = False) -> NoReturn:
    """Print a line on stderr and end this process with an exit status.

    ``at_once`` skips Python's exit handlers, as several processes always do: JAX's would wait for the other processes.
    ``all_alike`` says that every process ends here with this line: then they leave together and only process 0 prints it.
    """
    several = jax.distributed.is_initialized()
    if several and all_alike:
        line = line if is_primary() else ""
        shutdown()
    if line:
        print(line, file=sys.stderr, flush=True)
    if not several and not at_once:
        sys.exit(status)
    dismiss_observer()
    if jax.distributed.is_initialized() and is_primary():
        # JAX ends the other processes when process 0 goes. Most errors are raised in all of them: let them say theirs.
        time.sleep(GRACE)
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    os._exit(status)


def exit_with_exception(e: Exception) -> NoReturn:
    """End one of several processes by an exception: one line where another process was lost, else the traceback and a line."""
    if any(name in str(e) for name in ("Gloo", "NCCL", "coordination service")):
        exit_with_line(f"error: the connection to another process broke ({first_line(e)}): {RESTART}")
    traceback.print_exception(e)
    exit_with_line(f"error: {type(e).__name__}: {first_line(e)}")


def print_if_killed(line: str) -> None:
    """Have a line printed on stderr if this process ends without ``dismiss_observer``, by SIGKILL or by JAX.

    JAX ends a process by SIGABRT from a thread of C++, and has no public hook for it in 0.10 to 0.12. So a shell waits for
    a word on a pipe, and prints the line where the pipe closes without one.
    """
    command = ["/bin/sh", "-c", 'read -r word || printf "%s\\n" "$0" >&2', line]
    _observers.append(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    )


def dismiss_observer() -> None:
    """Tell the shell of ``print_if_killed`` that this process ends in good order."""
    for shell in _observers:
        with contextlib.suppress(OSError):
            shell.communicate(b"ended\n")
    _observers.clear()


def first_line(e: Exception) -> str:
    return (str(e).splitlines() or [""])[0]
