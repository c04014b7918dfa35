"""The policy that is trained where there is none: a run in a process of its own, and how far it has come."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rljax.serving.policies import Source, policy_names
from rljax.serving.records import has_finished

LOG = "playground.log"  # in its workdir
NICE = 5  # the page comes first
# The run ends with the server, also where that is killed: the kernel sends it a SIGINT then, on Linux.
CHILD = """
import ctypes, sys
try:
    ctypes.CDLL(None).prctl(1, 2)
except (OSError, AttributeError):
    pass
from rljax.__main__ import main
main(["rljax", *sys.argv[1:]])
"""


class Training:
    """A run in a process of its own."""

    def __init__(self, source: Source, config: str):
        self.source = source
        source.path.mkdir(parents=True, exist_ok=True)
        flags = [f"--config={config}", f"--workdir={source.path}", "--config.selection.rules=()"]
        with (source.path / LOG).open("ab") as log:
            command = [sys.executable, "-c", CHILD, "reproduce", *flags]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        if hasattr(os, "setpriority"):
            now = os.getpriority(os.PRIO_PROCESS, 0)  # nobody but root may go below it
            os.setpriority(os.PRIO_PROCESS, self.process.pid, min(now + NICE, 19))

    def progress(self) -> dict[str, Any] | None:
        """What the page says of it; None where it has finished."""
        line, code = last_line(self.source.path / LOG), self.process.poll()
        if code is None:
            ready = "the policies so far can be asked" if policy_names(self.source) else "the page can ask it soon"
            return {"running": True, "said": f"Training {self.source.name}, some minutes in all ({ready}): {line}"}
        if code or not has_finished(self.source):
            return {"running": False, "said": f"The training of {self.source.name} ended early: {line}"}
        return None

    def end(self) -> None:
        """Ask it to save and end."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def last_line(path: Path, most: int = 4096) -> str:
    """The last line of a log that is not empty, without the returns of a progress bar."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, path.stat().st_size - most))
            lines = f.read().decode(errors="replace").replace("\r", "\n").splitlines()
    except OSError:
        return "starting"
    return " ".join(next((line for line in reversed(lines) if line.strip()), "starting").split())
