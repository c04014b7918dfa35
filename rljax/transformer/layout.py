"""How arrays are sharded over devices: logical axes, rules that map them to mesh axes, and sharding constraints.

The compiler (GSPMD) inserts the communication. On one device no constraint is added, so the program is the same as
without a mesh.
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
    """A device mesh, and the mesh axes that each logical axis is sharded over. An axis without a rule is replicated.

    Logical axes of weights: embed, vocab, heads, kv_heads, ff, expert. Logical axes of activations: rows, columns, heads,
    and drawn (the rows of the logits that tokens are drawn from).
    """

    mesh: Mesh | None = None
    rules: Rules = ()
    run_axis: str = ""  # name of the vmapped axis over runs that are computed together; "": a single run

    @property
    def is_sharded(self) -> bool:
        """Whether there is more than one device."""
        return self.mesh is not None and self.mesh.size > 1

    def axes(self, name: str | None) -> tuple[str, ...]:
        """The mesh axes, longer than 1, that a logical axis is sharded over."""
        if self.mesh is None:
            return ()
        return tuple(axis for axis in dict(self.rules).get(name or "", ()) if self.mesh.shape[axis] > 1)

    def num_shards(self, *names: str) -> int:
        """The number of shards that these logical axes are cut into together."""
        return math.prod(self.mesh.shape[axis] for name in names for axis in self.axes(name)) if self.mesh else 1

    def spec(self, names: tuple[str | None, ...], shape: tuple[int, ...]) -> PartitionSpec:
        """The PartitionSpec of an array with these logical axes. A dimension that does not divide evenly is replicated."""
        parts = [
            self.axes(name) if name and n % self.num_shards(name) == 0 else ()
            for name, n in zip(names, shape, strict=False)
        ]
        return PartitionSpec(*(axes if len(axes) > 1 else axes[0] if axes else None for axes in parts))

    def sharding(self, names: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
        """``spec`` together with the mesh."""
        assert self.mesh is not None
        return NamedSharding(self.mesh, self.spec(names, shape))

    def constrain(self, x: Any, *names: str | None) -> Any:
        """Inside a jit: x, each array of it sharded by these logical axes of its first dimensions."""
        if not self.is_sharded:
            return x
        constrain = lambda y: jax.lax.with_sharding_constraint(y, self.sharding(names[: y.ndim], y.shape))
        return jax.tree.map(constrain, x)

    def max_over_runs(self, x: Array) -> Array:
        """The maximum of x over the runs that are computed together; x itself in a single run.

        A value that decides how a program continues (one more loop iteration, a branch) goes through here. All runs then
        take one decision. Under ``vmap``, one decision for each run would compute both branches and select from them.
        """
        return jax.lax.pmax(x, self.run_axis) if self.run_axis else x

    def gather_weight(self, x: Array, names: tuple[str | None, ...]) -> Array:
        """A weight as a product needs it: complete along ``embed``, where it is stored in shards (FSDP).

        Its gradient is sharded along ``embed`` again.
        """
        if not self.axes("embed") or "embed" not in names:
            return x
        gathered = tuple(None if name == "embed" else name for name in names)
        return constrain_with_gradient(x, self.sharding(gathered, x.shape), self.sharding(names, x.shape))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def constrain_with_gradient(x: Array, forward: NamedSharding, backward: NamedSharding) -> Array:
    """x with the sharding ``forward``; its cotangent gets ``backward``: all-gather forward, reduce-scatter backward."""
    return jax.lax.with_sharding_constraint(x, forward)


constrain_with_gradient.defvjp(
    lambda x, forward, backward: (jax.lax.with_sharding_constraint(x, forward), None),
    lambda forward, backward, _, g: (jax.lax.with_sharding_constraint(g, backward),),
)
