"""The mesh, and what lies where on it: logical axes beside each weight, rules from logical to mesh axes.

Batches, rollouts and caches are split by rows over all devices; weights by their ``embed`` axis over ``fsdp``. One
device is a mesh of one: the same code.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rljax import transformer
from rljax.errors import UserError

AXES = ("data", "fsdp")
RULES: dict[str | None, Any] = {"rows": AXES, "embed": "fsdp"}  # a logical axis that is not named here is not split


def make_mesh(data: int, fsdp: int) -> Mesh:
    """A mesh of data x fsdp devices; data = -1 takes what the devices leave. Raises UserError where they do not fit."""
    count = jax.device_count()
    if data == -1:
        data = count // fsdp
    if data < 1 or fsdp < 1 or data * fsdp > count:
        raise UserError(
            f"mesh: data={data} x fsdp={fsdp} needs {max(data, 1) * fsdp} devices, but {count} are here: "
            f"change mesh.data or mesh.fsdp, or simulate with XLA_FLAGS=--xla_force_host_platform_device_count=N"
        )
    devices = np.asarray(jax.devices()[: data * fsdp]).reshape(data, fsdp)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 2)


def spec(*axes: str | None) -> PartitionSpec:
    """Logical axes -> mesh axes."""
    return PartitionSpec(*(RULES.get(axis) for axis in axes))


def constrain(x: Any, mesh: Mesh | None, *axes: str | None) -> Any:
    """Inside a jit: lay every array of x out by these leading logical axes. No mesh, no change."""
    if mesh is None or mesh.size == 1:
        return x
    return jax.tree.map(lambda y: jax.lax.with_sharding_constraint(y, NamedSharding(mesh, spec(*axes[: y.ndim]))), x)


def place_rows(x: Any, mesh: Mesh | None) -> Any:
    """Split every array's first axis over all devices, inside a jit or outside it.

    What is not an array (the records of a text task) is left as it is.
    """
    if mesh is None or mesh.size == 1:
        return x
    here = NamedSharding(mesh, spec("rows"))
    return jax.tree.map(lambda y: jax.device_put(y, here) if isinstance(y, (jax.Array, np.ndarray)) else y, x)


def place_whole(x: Any, mesh: Mesh | None) -> Any:
    """A whole copy of every array on every device of the mesh."""
    return x if mesh is None or mesh.size == 1 else jax.device_put(x, NamedSharding(mesh, PartitionSpec()))


def replicate(x: Any, mesh: Mesh | None) -> Any:
    """Inside a jit: a whole copy of x on every device."""
    return constrain(x, mesh)


def weight_shardings(model: transformer.Config, mesh: Mesh) -> Any:
    """The sharding of each weight, as a pytree like the parameters. Raises UserError where an axis does not divide."""

    def one(w: transformer.Weight) -> NamedSharding:
        for size, axis in zip(w.shape, w.axes, strict=True):
            if RULES.get(axis) == "fsdp" and size % mesh.shape["fsdp"]:
                raise UserError(
                    f"mesh: a weight of {size} along {axis!r} cannot be split over fsdp={mesh.shape['fsdp']}"
                )
        return NamedSharding(mesh, spec(*w.axes))

    return jax.tree.map(one, transformer.weights(model), is_leaf=lambda x: isinstance(x, transformer.Weight))


def state_shardings(state: Any, model: transformer.Config, mesh: Mesh) -> Any:
    """The sharding of each array of a training state: whatever has the shape and path of a weight lies like it."""
    by_path = {}
    shardings = jax.tree.leaves(weight_shardings(model, mesh))
    paths = jax.tree_util.tree_flatten_with_path(
        transformer.weights(model), is_leaf=lambda x: isinstance(x, transformer.Weight)
    )[0]
    for (path, w), sharding in zip(paths, shardings, strict=True):
        by_path[jax.tree_util.keystr(path)] = w.shape, sharding

    def one(path: Any, x: Any) -> NamedSharding:
        for start in range(len(path)):
            shape, sharding = by_path.get(jax.tree_util.keystr(path[start:]), (None, None))
            if shape == x.shape and sharding is not None:
                return sharding
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, state)


def check_rows(rows: int, mesh: Mesh, what: str) -> None:
    """Raise UserError where rows cannot be split evenly over the devices."""
    if rows % mesh.size:
        raise UserError(f"mesh: {what}={rows} is not a multiple of the {mesh.size} devices it is split over")
