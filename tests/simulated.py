"""A script of the tests in a process of its own with simulated devices: their number is fixed when JAX starts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent


def on_devices(count: int, script: str, flags: str = "") -> Any:
    """What ``tests/SCRIPT`` prints on its last line, as JSON."""
    environment = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count} {flags}".strip(),
        "NPROC": str(2 * count),  # threads of XLA: with one a device, copies that wait can keep a program from starting
        "PYTHONPATH": str(TESTS.parent),
    }
    command = [sys.executable, str(TESTS / script)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, cwd=TESTS.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
