"""The server as a thread of this process, on a socket that was opened before anything long began."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence

import uvicorn

from rljax.errors import UserError
from rljax.serving.app import make_app
from rljax.serving.state import State

LOOPBACK = ("127.0.0.1", "localhost", "::1")
CONNECTIONS = 256  # at once; a further one is answered with status 503


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError where it cannot be opened. Port 0 takes any that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
    except (OSError, OverflowError) as e:
        said = getattr(e, "strerror", None) or e
        raise UserError(
            f"--port={port}: cannot listen on {host}: {said}; choose another --port, or 0 for any"
        ) from None
    return sock


def address_of(sock: socket.socket) -> str:
    """The address of the page, as a person opens it."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def allowed_hosts(host: str) -> Sequence[str]:
    """The names by which a server on this address may be called: only its own on loopback, else any."""
    return LOOPBACK if host in LOOPBACK else ()


@contextlib.contextmanager
def serve(state: State, sock: socket.socket) -> Iterator[str]:
    """Serve while the block runs; yields the address. At its end the device's work is ended too."""
    app = make_app(state, allowed_hosts(sock.getsockname()[0]))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=16 << 10,
        http="h11",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="server", daemon=True)
    thread.start()
    try:
        yield address_of(sock)
    finally:
        server.should_exit = True
        thread.join(10)
        state.engine.close()
        for threads in (state.judges, state.helpers):
            threads.shutdown(wait=False, cancel_futures=True)
