"""What other packages print at the start of a run: silent, or in our words."""

import logging

# {logger: the lowest level that is still shown}
LEVELS = {
    "absl": logging.CRITICAL,  # Orbax logs tracebacks of what we report in one line; TensorFlow Datasets uses it too
    "huggingface_hub": logging.ERROR,  # advice to log in
}
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
        handler = logging.StreamHandler()
        handler.setFormatter(OwnFormatter())
        root.addHandler(handler)
