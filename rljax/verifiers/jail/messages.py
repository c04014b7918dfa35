"""Messages between the process of a program and the process of its tests: a length of 4 bytes, then plain data.

A program can change everything here in its own process, so the receiver checks all that it reads.
"""

import os
import struct
from typing import Any

from rljax.verifiers.jail import plain_data

STDIN, STDOUT, STDERR, PAYLOAD, CHANNEL, REPORT, GO = range(7)  # the file descriptors of every jailed process


def send_message(message: object, store: plain_data.StoreObject = plain_data.refuse_object, fd: int = CHANNEL) -> None:
    data = plain_data.encode(message, store)
    data = memoryview(struct.pack("<I", len(data)) + data)
    while data:
        data = data[os.write(fd, data) :]


def receive_message(
    find: plain_data.FindObject = plain_data.refuse_handle,
    name_type: plain_data.NameType = plain_data.real_type,
    fd: int = CHANNEL,
) -> Any:
    """The next message. Raises EOFError if the other side is closed, and ValueError if the bytes are not a message."""
    (size,) = struct.unpack("<I", read_exactly(4, fd))
    if size > 2 * plain_data.MAX_BYTES:
        raise ValueError("a message is too large")
    return plain_data.decode(read_exactly(size, fd), find, name_type)


def read_exactly(size: int, fd: int) -> bytes:
    """``size`` bytes of a file; raises EOFError if it ends before."""
    out = bytearray()
    while len(out) < size:
        part = os.read(fd, min(size - len(out), 1 << 20))
        if not part:
            raise EOFError
        out += part
    return bytes(out)


def read_payload() -> Any:
    """What this process was given to run: a program, or tests."""
    parts = []
    while part := os.pread(PAYLOAD, 1 << 20, sum(map(len, parts))):
        parts.append(part)
    os.close(PAYLOAD)
    return plain_data.decode(b"".join(parts))
