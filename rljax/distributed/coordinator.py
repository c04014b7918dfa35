"""JAX's coordination service in a process of its own, which outlives process 0 by a little.

Inside process 0 it would die with it, and every other process would be aborted by JAX before it could say why.
"""

import os
import subprocess
import sys
import time
from typing import Any

OUTLIVES = 5  # seconds


class Service:
    """What ``jax.distributed`` takes for the service: the process that it runs in."""

    def __init__(self, address: str, count: int, heartbeat_timeout: int = 100, shutdown_timeout: int = 300, **how: Any):
        said = [address, str(count), str(heartbeat_timeout), str(shutdown_timeout)]
        command = [sys.executable, "-m", "rljax.distributed.coordinator", *said]
        pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process = subprocess.Popen(command, start_new_session=True, text=True, **pipes)  # ^C is not for it
        assert self.process.stdout
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"JAX's coordination service did not start at {address}")

    def shutdown(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()


def serve(address: str, count: str, heartbeat_timeout: str, shutdown_timeout: str) -> None:
    from jax._src import distributed

    door: Any = distributed  # there is no public one

    seconds = dict(heartbeat_timeout=int(heartbeat_timeout), shutdown_timeout=int(shutdown_timeout))
    service = door._jax.get_distributed_runtime_service(address, int(count), **seconds)
    print("ready", flush=True)
    for stream in (1, 2):  # whoever reads process 0's output need not wait for this one
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    sys.stdin.read()  # until process 0 is gone, or has done
    time.sleep(OUTLIVES)
    service.shutdown()


if __name__ == "__main__":
    serve(*sys.argv[1:])
