"""Processes with simulated devices: their number is fixed when JAX starts, so it needs a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent


def device_environment(count: int) -> dict[str, str]:
    """The environment of a process with this many simulated devices. It compiles as quickly as the tests do (conftest)."""
    return os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}",
        "NPROC": str(2 * count),  # threads of XLA: with one a device, copies that wait can keep a program from starting
        "PYTHONPATH": str(TESTS.parent),
    }


def on_devices(count: int, script: str, *arguments: str) -> Any:
    """What ``tests/SCRIPT ARGUMENTS`` prints on its last line, as JSON."""
    command = [sys.executable, str(TESTS / script), *arguments]
    environment = device_environment(count)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=TESTS.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
