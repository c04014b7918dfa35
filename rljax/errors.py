"""The one exception whose message is written for the person who runs an experiment."""


class UserError(Exception):
    """Something outside the program is wrong: a config, a data file, a checkpoint, a prompt, a device layout.

    The message is one line: what is wrong, where, and how to mend it. ``experiments`` print it without a traceback and
    exit with status 1; every other exception is a defect and keeps its traceback.
    """
