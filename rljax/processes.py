"""Several processes as one run: JAX's own distributed runtime, and a clear end where one of them is lost.

Every process runs the same script; the devices of all are one mesh; process 0 writes. Each tells the others once a second, in
the coordination service, that it is there. One that has been silent for ``patience`` seconds ends the others with a line
that names it, at most a few seconds later: a collective would wait for it for ever.
"""

import os
import socket
import sys
import threading
import time
from typing import Any

import jax

from rljax.errors import UserError

PATIENCE = 30  # seconds
BEAT = 1.0  # seconds between signs of life
FLAGS: dict[str, Any] = dict(coordinator="", processes=0, process=-1, patience=PATIENCE)


def start(coordinator: str, processes: int, process: int, patience: int) -> None:
    """Join the run that the flags or the environment describe; for one process nothing happens.

    Must come before anything else asks JAX for its devices. Raises UserError for flags that do not belong together, and
    where not all processes came.
    """
    given = bool(coordinator), processes > 0, process >= 0
    if any(given) and not all(given):
        raise UserError(
            f"--coordinator={coordinator} --processes={processes} --process={process}: give all three, HOST:PORT of process 0, "
            "how many there are, and which this is; or none, where SLURM, Open MPI or a TPU pod says so"
        )
    if all(given) and process >= processes:
        raise UserError(f"--process={process}: there are {processes}, numbered from 0")
    if processes == 1 or not (any(given) or announced()):
        return
    where: dict[str, Any] = {}
    if any(given):
        where = dict(coordinator_address=coordinator, num_processes=processes, process_id=process)
    jax.config.update("jax_enable_recoverability", True)  # else the runtime aborts before anyone is told why
    try:
        jax.distributed.initialize(**where, initialization_timeout=patience, heartbeat_timeout_seconds=10 * patience)
    except Exception as e:
        who = f"process {process} of {processes}" if any(given) else "this process"
        raise UserError(
            f"{who} waited {patience} seconds for the others at {coordinator or 'the coordinator'} in vain "
            f"({str(e).splitlines()[0][:200]}): start all of them, or raise --patience"
        ) from None
    if jax.process_count() > 1:
        threading.Thread(target=watch, args=(client(), patience), daemon=True).start()


def finish() -> None:
    """Leave together, process 0 last: the service that the others say goodbye to lives in it."""
    if jax.process_count() == 1:
        return
    service, me = client(), jax.process_index()
    service.wait_at_barrier("rljax/finished", 600_000)
    if me:
        service.key_value_set(f"rljax-left/{me}", "")
        jax.distributed.shutdown()
        return
    for n in range(1, jax.process_count()):
        service.blocking_key_value_get(f"rljax-left/{n}", 60_000)
    time.sleep(BEAT)  # for goodbyes that are on their way
    jax.distributed.shutdown()


def announced() -> bool:
    """Whether the environment says that there are several processes: srun, Open MPI, a TPU pod, a Kubernetes JobSet."""
    say = os.environ.get
    hosts = say("TPU_WORKER_HOSTNAMES") or say("TPU_PROCESS_ADDRESSES") or ""
    counts = [say(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")]
    return any(c.isdigit() and int(c) > 1 for c in counts) or "," in hosts or bool(say("JAX_COORDINATOR_ADDRESS"))


def writes() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def client() -> Any:
    from jax._src import distributed  # JAX has no public door to the service that it runs

    return distributed.global_state.client


def watch(service: Any, patience: float) -> None:
    """Say that this process is there, and look whether the others are; runs until the process ends."""
    me, names = jax.process_index(), {n: f"process {n} of {jax.process_count()}" for n in range(jax.process_count())}
    heard = dict.fromkeys(names, time.monotonic())
    last: dict[int, str] = {}
    for beat in range(1 << 62):
        try:
            service.key_value_set(f"rljax/{me}", f"{beat} {socket.gethostname()}", allow_overwrite=True)
            for key, said in service.key_value_dir_get("rljax/"):
                n = int(key.rsplit("/", 1)[-1])
                if last.get(n) != said:
                    last[n], heard[n] = said, time.monotonic()
        except Exception:  # the service lives in process 0: nothing was heard of anyone else either
            heard = {n: time.monotonic() if n else heard[0] for n in heard}
        silent = [n for n in names if n != me and time.monotonic() - heard[n] > patience]
        if silent:
            host = last.get(silent[0], "").partition(" ")[2]
            end(f"{names[silent[0]]} ({host or 'never heard of'}) is gone: no sign of life for {patience:.0f} seconds")
        time.sleep(BEAT)


def end(what: str) -> None:
    """The line, and out: at exit JAX would wait for whoever is missing."""
    print(
        f"error: {what}; this process ends too. What was finished is whole: start all processes again with the same command, "
        "the run continues from its last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    sys.stdout.flush()
    os._exit(1)


def failed(patience: float = 2 * PATIENCE) -> None:
    """Something failed in this process: where the reason is that another is lost, the watch will say so and end it."""
    if jax.process_count() > 1:
        time.sleep(patience + 5)
