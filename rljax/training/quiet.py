"""What other packages print at the start of a run: silent, or in our words."""

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# {logger: the lowest level that is still shown}
LEVELS = {
    "absl": logging.CRITICAL,  # Orbax logs tracebacks of what we report in one line; TensorFlow Datasets uses it too
    "asyncio": logging.CRITICAL,  # "Task exception was never retrieved", with a traceback for each array of a failed save
    "huggingface_hub": logging.ERROR,  # advice to log in
}
STORAGE = (
    "orbax",
    "tensorstore",
    "asyncio",
)  # packages whose threads fail with an error that the main thread reports in one line
OWN = "rljax"  # our loggers, whose lines are sentences already


class OwnFormatter(logging.Formatter):
    """A logged line of ours without the name of a module: "warning: data set x: ..."; others as Python formats them."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name.partition(".")[0] == OWN:
            return f"{record.levelname.lower()}: {record.getMessage()}"
        return logging.Formatter(logging.BASIC_FORMAT).format(record)


def quiet_third_parties() -> None:
    """Set the levels of ``LEVELS`` and the format of logged lines. Called once, when a script starts.

    Errors of other packages are still shown, and so are their warnings unless they are in ``LEVELS``. A program that has set
    up Python's logging itself keeps its own handlers.
    """
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler())
        root.handlers[0].setFormatter(OwnFormatter())
    for handler in root.handlers:  # one that some package made by calling ``logging.warning``
        if handler.formatter is not None and handler.formatter._fmt == logging.BASIC_FORMAT:
            handler.setFormatter(OwnFormatter())
    for module, name in ((threading, "excepthook"), (sys, "excepthook"), (sys, "unraisablehook")):
        hook = getattr(module, name)
        if getattr(hook, "__name__", "") != "hide_storage_threads":
            setattr(module, name, without_storage_threads(hook))


def without_storage_threads(before: Callable[..., object]) -> Callable[..., object]:
    """A hook of Python's for exceptions that nobody catches: it leaves out those in threads of the storage library."""

    def hide_storage_threads(*args: Any) -> None:
        trace = args[2] if len(args) == 3 else args[0].exc_traceback
        files = [Path(frame.filename) for frame in traceback.extract_tb(trace)]
        in_storage = any(part in STORAGE for file in files for part in file.parts)
        if not in_storage or threading.current_thread() is threading.main_thread():
            before(*args)

    return hide_storage_threads
