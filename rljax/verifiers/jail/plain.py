"""Plain data as bytes and back: the only thing that passes between a program and the process that judges it.

None, numbers, strings, the builtin containers of these, and the builtin types of all that by name. What is read is checked as it is read and built anew from
exact builtin types, so that no method of the sender comes along: no ``__eq__`` that is always true, no pickle, no eval.
A subclass travels as what it holds (a Counter as a dict, a named tuple as a tuple). Other objects stay where they are; a
number, their handle, travels in their place.
"""

import struct
from collections.abc import Callable
from typing import Any

LARGEST = 16 << 20  # bytes of a message
DEEPEST = 100

Keep = Callable[[object], int]  # an object that stays here -> its handle
Find = Callable[[int], object]  # the other way


def no_handles(thing: object) -> int:
    raise ValueError("not plain data")


def encode(value: object, keep: Keep = no_handles) -> bytes:
    """A value as bytes; raises ValueError where it is too large or too deep."""
    out = bytearray()
    write(out, value, keep, 0)
    return bytes(out)


def write(out: bytearray, value: Any, keep: Keep, depth: int) -> None:
    if depth > DEEPEST or len(out) > LARGEST:
        raise ValueError("data is too deep or too large")
    kind = next((k for k in type(value).__mro__ if k in TAGS), None)
    tag = TAGS.get(kind, b"H")
    if kind is type and not any(value is known for known in NAMED.values()):
        kind, tag = None, b"H"
    if kind is bool or value is None:
        out += b"N" if value is None else b"T" if value else b"F"
    elif kind is float:
        out += tag + struct.pack("<d", value)
    elif kind is complex:
        out += tag + struct.pack("<dd", value.real, value.imag)
    elif kind in CONTAINERS:
        items = [x for pair in dict.items(value) for x in pair] if kind is dict else list(CONTAINERS[kind](value))
        out += tag + struct.pack("<I", len(items))
        for item in items:
            write(out, item, keep, depth + 1)
    else:
        body = scalar(value, kind, keep)
        out += tag + struct.pack("<I", len(body)) + body


def scalar(value: Any, kind: type | None, keep: Keep) -> bytes:
    if kind is str:
        return str.encode(value, "utf-8", "surrogatepass")
    if kind is type:
        return value.__name__.encode()
    if kind is bytes or kind is bytearray:
        return bytes(memoryview(value))
    number = keep(value) if kind is None else int.__int__(value)
    return number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)


KEYS = type({}.keys())
TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))
NAMED: dict[bytes, type] = {k.__name__.encode(): k for k in TYPES}
TAGS: dict[type | None, bytes] = {type(None): b"N", bool: b"T", int: b"I", float: b"D", complex: b"C", str: b"S"}
TAGS |= {
    bytes: b"B",
    bytearray: b"B",
    list: b"L",
    tuple: b"U",
    dict: b"M",
    set: b"E",
    frozenset: b"Z",
    KEYS: b"E",
    type: b"Y",
}
CONTAINERS: dict[type | None, Any] = {list: list.__iter__, tuple: tuple.__iter__, dict: dict.items}
CONTAINERS |= {set: set.__iter__, frozenset: frozenset.__iter__, KEYS: iter}


def no_objects(handle: int) -> object:
    raise ValueError("a handle where only plain data is expected")


def decode(data: bytes, find: Find = no_objects) -> Any:
    """The value that ``encode`` wrote; raises ValueError where the bytes say anything else."""
    try:
        value, end = read(data, 0, find, 0)
    except (struct.error, IndexError, TypeError) as e:  # cut off, or a list as a key
        raise ValueError(f"not plain data: {e}") from None
    if end != len(data):
        raise ValueError("bytes after the data")
    return value


CONSTANTS = {b"N": None, b"T": True, b"F": False}


def read(data: bytes, at: int, find: Find, depth: int) -> tuple[Any, int]:
    """The value that starts at a place, and the place behind it."""
    tag, at = data[at : at + 1], at + 1
    if depth > DEEPEST:
        raise ValueError("data is too deep")
    if tag in CONSTANTS:
        return CONSTANTS[tag], at
    if tag == b"D":
        return struct.unpack_from("<d", data, at)[0], at + 8
    if tag == b"C":
        return complex(*struct.unpack_from("<dd", data, at)), at + 16
    (size,) = struct.unpack_from("<I", data, at)
    at += 4
    if size > len(data) - at:
        raise ValueError("data is cut off")
    if tag in b"LUMEZ":
        return read_items(tag, size, data, at, find, depth)
    body, end = data[at : at + size], at + size
    if tag == b"S":
        return str(body, "utf-8", "surrogatepass"), end
    if tag == b"B":
        return body, end
    if tag == b"Y":
        if body not in NAMED:
            raise ValueError("an unknown type")
        return NAMED[body], end
    if tag in (b"I", b"H"):
        number = int.from_bytes(body, "little", signed=True)
        return (number if tag == b"I" else find(number)), end
    raise ValueError("an unknown kind of data")


def read_items(tag: bytes, size: int, data: bytes, at: int, find: Find, depth: int) -> tuple[Any, int]:
    items = []
    for _ in range(size):
        item, at = read(data, at, find, depth + 1)
        items.append(item)
    if tag == b"M":
        return dict(zip(items[::2], items[1::2], strict=True)), at
    return {b"L": list, b"U": tuple, b"E": set, b"Z": frozenset}[tag](items), at
