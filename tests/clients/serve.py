"""Serve the toy policies of ``tests/served.py`` until stdin is closed; the first line of stdout is the address."""

import sys
import tempfile
from pathlib import Path

from rljax.serving.server import open_socket, serve
from rljax.serving.state import make_state
from tests import served


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = served.make_source(Path(folder), steps=(7, 9))
        served.write_records(source)
        state = make_state(served.make_policies(source))
        with serve(state, open_socket("127.0.0.1", 0)) as address:
            print(address, flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    main()
