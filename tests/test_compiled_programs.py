"""Programs that are compiled aside: the same as a call would compile, each once, and not too many of them."""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.serving.aside import Aside
from rljax.serving.programs import Programs

TRACED = []


@functools.partial(jax.jit, static_argnames="power")
def raise_to(tree, key, *, power):
    TRACED.append(power)
    return tree["x"] ** power + jax.random.uniform(key, tree["x"].shape)


def arguments(size=4):
    return {"x": jnp.arange(size, dtype=jnp.float32), "nothing": None}, jax.random.key(1)


def drive(work):
    """(what the work returned, how often it had something done aside)."""
    count = 0
    while True:
        try:
            assert isinstance(next(work), Aside)
            count += 1
        except StopIteration as e:
            return e.value, count


def test_a_program_is_compiled_once_for_each_shape_and_each_static_argument():
    programs, args = Programs(), arguments()
    TRACED.clear()
    program, asides = drive(programs.use(raise_to, *args, power=2))
    assert asides == 1 and TRACED == [2]
    same, asides = drive(programs.use(raise_to, *args, power=2))
    assert same is program and asides == 0
    for more in ({"power": 3}, {"power": 2}):
        other, asides = drive(programs.use(raise_to, *arguments(5), **more))
        assert asides == 1 and other is not program
    np.testing.assert_array_equal(program(*args), raise_to(*args, power=2))


def test_two_requests_for_one_program_compile_it_once():
    programs, found, ready = Programs(), [], threading.Barrier(4)

    def ask():
        ready.wait(30)
        found.append(drive(programs.use(raise_to, *arguments(7), power=5))[0])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    [t.start() for t in threads]
    [t.join(60) for t in threads]
    assert len(found) == 4 and len(set(map(id, found))) == 1


def test_the_programs_that_were_used_last_are_kept():
    programs = Programs(most=2)
    asides = lambda power: drive(programs.use(raise_to, *arguments(), power=power))[1]
    assert [asides(power) for power in (2, 3, 2, 4, 2, 3)] == [1, 1, 0, 1, 0, 1]
    assert len(programs.kept) == 2


def test_a_program_that_cannot_be_compiled_is_an_error_each_time():
    programs = Programs()

    @jax.jit
    def broken(x):
        raise ValueError("no program")

    for _ in range(2):
        with pytest.raises(ValueError, match="no program"):
            drive(programs.use(broken, jnp.zeros(3)))
    assert not programs.kept
