"""Connections between the processes of a run, one from each to process 0: who has come, who is there, why somebody ended.

JAX's own runtime aborts with pages that name nobody where a process is missing; a connection that breaks is known at once.
Messages are JSON, one a line.
"""

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

from rljax.errors import UserError

GREETING = "rljax"
PAUSE = 0.2  # seconds between two attempts to reach process 0


class Line:
    """A connection to another process."""

    def __init__(self, connection: socket.socket, host: str = "unknown"):
        self.connection, self.host, self.unread = connection, host, b""
        self.heard = time.monotonic()

    def send(self, *message: Any) -> None:
        with contextlib.suppress(OSError):  # that it is broken, whoever listens will see
            self.connection.sendall((json.dumps(message) + "\n").encode())

    def receive(self) -> list[list[Any]] | None:
        """The messages that have come since; None where the other side is gone."""
        try:
            more = self.connection.recv(1 << 16)
        except TimeoutError:
            return []
        except OSError:
            return None
        if not more:
            return None
        self.heard = time.monotonic()
        *whole, self.unread = (self.unread + more).split(b"\n")
        return [json.loads(text) for text in whole]

    def first(self, seconds: float) -> list[Any] | None:
        """The first message, waited for; None where none came."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if wait([self], left):
                found = self.receive()
                if found or found is None:
                    return found[0] if found else None
        return None


def wait(lines: list[Line], seconds: float) -> list[Line]:
    """Those on which something has come, a break included."""
    poll, by_number = select.poll(), {line.connection.fileno(): line for line in lines}
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(1000 * seconds)]


def roll_call(address: str, count: int, me: int, patience: float) -> dict[int, Line]:
    """The lines of process 0 to all the others, or of another one to process 0, when all ``count`` are there.

    Raises UserError, in all that have come, naming those that have not within ``patience`` seconds.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator={address}: write HOST:PORT, the host of process 0 and a free port there")
    if me:
        return {0: answer(host.strip("[]"), int(port), count, me, patience)}
    with bound(int(port), patience) as server:
        lines, problem = listen(server, count, patience)
    if not problem and len(lines) < count - 1:
        problem = never_came([n for n in range(1, count) if n not in lines], count, address, patience)
    for line in lines.values():
        line.send(problem, socket.gethostname())
    if problem:
        raise UserError(problem)
    return lines


def bound(port: int, patience: float) -> socket.socket:
    """A socket that listens at this port, which a run that has just ended may still hold."""
    reason = ""
    for _ in until(patience):
        try:
            return socket.create_server(("", port))
        except OSError as e:
            reason = e.strerror
            time.sleep(PAUSE)
    raise UserError(f"process 0 cannot listen at port {port} ({reason}): choose another with --coordinator=HOST:PORT")


def listen(server: socket.socket, count: int, patience: float) -> tuple[dict[int, Line], str]:
    """(lines by the number that their process gave, what is wrong with one)."""
    lines: dict[int, Line] = {}
    for left in until(patience):
        server.settimeout(left)
        with contextlib.suppress(OSError, ValueError, TypeError):  # other programs knock too
            line = Line(server.accept()[0])
            greeting, number, of, line.host = line.first(1.0) or ("", 0, 0, "")
            if greeting != GREETING:
                continue
            if of != count or not 0 < number < count:
                return lines, f"a process says that it is number {number} of {of}, process 0 that there are {count}"
            if number in lines and not (wait([lines[number]], 0) and lines[number].receive() is None):
                return lines, f"two processes say that they are number {number}: give each its own --process_id"
            lines[number] = line
        if len(lines) == count - 1:
            break
    return lines, ""


def answer(host: str, port: int, count: int, me: int, patience: float) -> Line:
    """The line to process 0, once that says that all are there."""
    for left in until(patience):
        with contextlib.suppress(OSError, ValueError):
            line = Line(socket.create_connection((host, port), left))
            line.send(GREETING, me, count, socket.gethostname())
            said = line.first(2 * patience)  # process 0 may have come just now, and waits as long as this one
            if said is None:
                continue
            problem, line.host = said
            if problem:
                raise UserError(problem)
            return line
        time.sleep(PAUSE)
    raise UserError(never_came([0], count, f"{host}:{port}", patience))


def until(patience: float) -> Iterator[float]:
    """Seconds left, again and again until there are none."""
    end = time.monotonic() + patience
    while (left := end - time.monotonic()) > 0:
        yield left


def never_came(missing: list[int], count: int, address: str, patience: float) -> str:
    who = ("process " if len(missing) == 1 else "processes ") + ", ".join(map(str, missing))
    return f"{who} of {count} never came to {address} in {patience:.0f} seconds: start all within that time, or raise --patience"
