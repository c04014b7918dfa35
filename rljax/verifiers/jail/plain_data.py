"""Encodes plain data as bytes and decodes it: the only data that a program and its tests can send to each other.

Plain data is None, numbers, strings, the builtin containers of these, and the names of their builtin types. The decoder
checks all bytes, and builds values of exact builtin types. No method of the sender is transferred: no ``__eq__`` that
is always true, no pickle, no eval. A subclass is sent as the data in it (a Counter as a dict, a named tuple as a
tuple). Any other object stays in its process, and a number, its handle, is sent in its place.

The name of a type becomes the type itself in the process of the program. The tests get a ``TypeName``, as the methods
of a type would let a program answer for itself: ``set.intersection({3, 4}) == {3, 4}``.
"""

import struct
from collections.abc import Callable
from typing import Any

MAX_BYTES = 16 << 20  # bytes of a message
MAX_DEPTH = 100

StoreObject = Callable[[object], int]  # an object that stays in this process -> its handle
FindObject = Callable[[int], object]  # a handle -> its object
NameType = Callable[[type], object]  # a builtin type -> the object that stands for it in this process


class TypeName:
    """A builtin type that a program returned. It equals the type of this name, and has no methods."""

    def __init__(self, kind: type):
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        return self.kind is (other.kind if type(other) is TypeName else other)

    def __hash__(self) -> int:
        return hash(self.kind)

    def __repr__(self) -> str:
        return repr(self.kind)


def refuse_object(thing: object) -> int:
    raise ValueError("not plain data")


def encode(value: object, store: StoreObject = refuse_object) -> bytes:
    """A value as bytes; raises ValueError if it is too large or nested too deeply."""
    out = bytearray()
    write_value(out, value, store, 0)
    return bytes(out)


def write_value(out: bytearray, value: Any, store: StoreObject, depth: int) -> None:
    """Append the encoding of a value: a tag of one byte, then a number of fixed size, or a length and the content."""
    if depth > MAX_DEPTH or len(out) > MAX_BYTES:
        raise ValueError("data is nested too deeply or too large")
    value = value.kind if type(value) is TypeName else value
    kind = next((k for k in type(value).__mro__ if k in TAGS), None)
    tag = TAGS.get(kind, b"H")
    if kind is type and not any(value is known for known in TYPES_BY_NAME.values()):
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
            write_value(out, item, store, depth + 1)
    else:
        body = encode_scalar(value, kind, store)
        out += tag + struct.pack("<I", len(body)) + body


def encode_scalar(value: Any, kind: type | None, store: StoreObject) -> bytes:
    if kind is str:
        return str.encode(value, "utf-8", "surrogatepass")
    if kind is type:
        return value.__name__.encode()
    if kind is bytes or kind is bytearray:
        return bytes(memoryview(value))
    number = store(value) if kind is None else int.__int__(value)
    return number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)


DICT_KEYS = type({}.keys())
TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))
TYPES_BY_NAME: dict[bytes, type] = {k.__name__.encode(): k for k in TYPES}
TAGS: dict[type | None, bytes] = {type(None): b"N", bool: b"T", int: b"I", float: b"D", complex: b"C", str: b"S"}
TAGS |= {
    bytes: b"B",
    bytearray: b"B",
    list: b"L",
    tuple: b"U",
    dict: b"M",
    set: b"E",
    frozenset: b"Z",
    DICT_KEYS: b"E",
    type: b"Y",
}
CONTAINERS: dict[type | None, Any] = {list: list.__iter__, tuple: tuple.__iter__, dict: dict.items}
CONTAINERS |= {set: set.__iter__, frozenset: frozenset.__iter__, DICT_KEYS: iter}


def refuse_handle(handle: int) -> object:
    raise ValueError("a handle where only plain data is expected")


def real_type(kind: type) -> object:
    return kind


def decode(data: bytes, find: FindObject = refuse_handle, name_type: NameType = real_type) -> Any:
    """The value of bytes from ``encode``; raises ValueError for any other bytes.

    ``find`` gives the object of a handle, and ``name_type`` the object that stands for a builtin type.
    """
    try:
        value, end = read_value(data, 0, (find, name_type), 0)
    except (struct.error, IndexError, TypeError) as e:  # cut off, or an unhashable key
        raise ValueError(f"not plain data: {e}") from None
    if end != len(data):
        raise ValueError("bytes after the data")
    return value


CONSTANTS = {b"N": None, b"T": True, b"F": False}


def read_value(data: bytes, place: int, find: tuple[FindObject, NameType], depth: int) -> tuple[Any, int]:
    """(value, end) of the value that starts at index ``place``."""
    tag, place = data[place : place + 1], place + 1
    if depth > MAX_DEPTH:
        raise ValueError("data is nested too deeply")
    if tag in CONSTANTS:
        return CONSTANTS[tag], place
    if tag == b"D":
        return struct.unpack_from("<d", data, place)[0], place + 8
    if tag == b"C":
        return complex(*struct.unpack_from("<dd", data, place)), place + 16
    (size,) = struct.unpack_from("<I", data, place)
    place += 4
    if size > len(data) - place:
        raise ValueError("data is cut off")
    if tag in b"LUMEZ":
        return read_items(tag, size, data, place, find, depth)
    body, end = data[place : place + size], place + size
    if tag == b"S":
        return str(body, "utf-8", "surrogatepass"), end
    if tag == b"B":
        return body, end
    if tag == b"Y":
        if body not in TYPES_BY_NAME:
            raise ValueError("an unknown type")
        return find[1](TYPES_BY_NAME[body]), end
    if tag in (b"I", b"H"):
        number = int.from_bytes(body, "little", signed=True)
        return (number if tag == b"I" else find[0](number)), end
    raise ValueError("an unknown kind of data")


def read_items(
    tag: bytes, size: int, data: bytes, place: int, find: tuple[FindObject, NameType], depth: int
) -> tuple[Any, int]:
    items = []
    for _ in range(size):
        item, place = read_value(data, place, find, depth + 1)
        items.append(item)
    if tag == b"M":
        return dict(zip(items[::2], items[1::2], strict=True)), place
    return {b"L": list, b"U": tuple, b"E": set, b"Z": frozenset}[tag](items), place
