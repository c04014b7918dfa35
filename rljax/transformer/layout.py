"""Where arrays lie: logical axes, rules from them to the axes of a mesh, and constraints on what is computed.

The compiler (GSPMD) inserts the communication; what stands here tells it what is to lie where. On one device nothing is
said, and the program is the same as without a mesh.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Array = jax.Array
Rules = tuple[tuple[str, tuple[str, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, and which of its axes each logical axis is split over; one that has no rule is not split.

    Logical axes of weights: embed, vocab, heads, kv_heads, ff, expert. Of what is computed: rows, columns, heads, and drawn:
    the rows of logits that tokens are drawn from.
    """

    mesh: Mesh | None = None
    rules: Rules = ()
    runs: str = ""  # name of the vmapped axis of runs that are computed together; "": one run by itself

    @property
    def split(self) -> bool:
        """Whether there is more than one device."""
        return self.mesh is not None and self.mesh.size > 1

    def axes(self, name: str | None) -> tuple[str, ...]:
        """The mesh axes, longer than 1, that a logical axis is split over."""
        if self.mesh is None:
            return ()
        return tuple(axis for axis in dict(self.rules).get(name or "", ()) if self.mesh.shape[axis] > 1)

    def ways(self, *names: str) -> int:
        """Parts that these logical axes are split into together."""
        return math.prod(self.mesh.shape[axis] for name in names for axis in self.axes(name)) if self.mesh else 1

    def spec(self, names: tuple[str | None, ...], shape: tuple[int, ...]) -> PartitionSpec:
        """Mesh axes for an array of this shape; a dimension that does not divide is left whole."""
        parts = [
            self.axes(name) if name and n % self.ways(name) == 0 else () for name, n in zip(names, shape, strict=False)
        ]
        return PartitionSpec(*(axes if len(axes) > 1 else axes[0] if axes else None for axes in parts))

    def sharding(self, names: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, self.spec(names, shape))

    def constrain(self, x: Any, *names: str | None) -> Any:
        """Inside a jit: lay every array of x out by these leading logical axes."""
        if not self.split:
            return x
        lay = lambda y: jax.lax.with_sharding_constraint(y, self.sharding(names[: y.ndim], y.shape))
        return jax.tree.map(lay, x)

    def most(self, x: Array) -> Array:
        """The largest of this number over the runs that are computed together; x itself in a run by itself.

        What decides how a program goes on (another turn of a loop, a branch) is taken through here: one decision for all runs,
        where under ``vmap`` one for each would make both outcomes be computed, and a choice between them.
        """
        return jax.lax.pmax(x, self.runs) if self.runs else x

    def gathered(self, x: Array, names: tuple[str | None, ...]) -> Array:
        """A weight as it is used: whole along ``embed``, which it is only kept split by; its gradient is split again."""
        if not self.axes("embed") or "embed" not in names:
            return x
        used = tuple(None if name == "embed" else name for name in names)
        return between(x, self.sharding(used, x.shape), self.sharding(names, x.shape))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def between(x: Array, used: NamedSharding, kept: NamedSharding) -> Array:
    """x laid out as ``used``, its cotangent as ``kept``: gather on the way forward, reduce and scatter on the way back."""
    return jax.lax.with_sharding_constraint(x, used)


between.defvjp(
    lambda x, used, kept: (jax.lax.with_sharding_constraint(x, used), None),
    lambda used, kept, _, g: (jax.lax.with_sharding_constraint(g, kept),),
)
