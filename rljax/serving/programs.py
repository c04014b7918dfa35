"""Compiled programs. They are compiled aside of the device, and those that were used last are kept."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

import jax

from rljax.serving.aside import Aside, do_aside

KEPT = 64  # programs; a new size of attempts needs about 7

Program = Callable[..., Any]


class Programs:
    """The programs of jitted functions, by the shapes of their arguments. They are what a call of the function would compile."""

    def __init__(self, most: int = KEPT):
        self.most, self.lock = most, threading.Lock()
        self.kept: OrderedDict[Any, Future[Program]] = OrderedDict()

    def use(self, function: Any, *args: Any, **static: Any) -> Generator[Aside, None, Program]:
        """Part of a request's work: the program of ``function(*args, **static)``, to be called with ``args`` alone.

        Arguments by position are arrays, those by name are static.
        """
        shapes = jax.tree.map(shape_of, args)
        leaves, structure = jax.tree.flatten(shapes)
        key = (function, tuple(sorted(static.items())), structure, tuple(leaves))
        with self.lock:
            found = self.kept.get(key)
            if found is not None and found.done():
                self.kept.move_to_end(key)
                return found.result()
        return (yield from do_aside(lambda: self.compile(key, function, shapes, static)))

    def compile(self, key: Any, function: Any, shapes: Any, static: Any) -> Program:
        """Compile a program, or wait for the thread that compiles it already."""
        with self.lock:
            found, begins = self.kept.get(key), key not in self.kept
            if found is None:
                found = self.kept[key] = Future()
                while len(self.kept) > self.most:
                    self.kept.popitem(last=False)
        if begins:
            try:
                found.set_result(function.lower(*shapes, **static).compile())
            except BaseException as e:
                with self.lock:
                    self.kept.pop(key, None)
                found.set_exception(e)
        return found.result()


def shape_of(x: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array; of one that does not lie on the first device alone, also where it is."""
    is_elsewhere = isinstance(x, jax.Array) and x.committed and x.sharding.device_set != {jax.devices()[0]}
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding if is_elsewhere else None)
