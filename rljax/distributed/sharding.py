"""The mesh, and how a training state, batches and rollouts lie on it.

Beside each weight stand its logical axes (``transformer.weights``); a layout's rules map them to axes of the mesh. The
update and the sampler have a layout each, over the same devices. One device is a mesh of one: the same code.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rljax import transformer
from rljax.errors import UserError
from rljax.transformer import Layout

AXES = ("data", "fsdp", "tensor", "expert", "context")
HOST = "pinned_host"  # as JAX calls the host's memory that a device can read and write by itself
LOGICAL = ("rows", "columns", "drawn", "embed", "vocab", "heads", "kv_heads", "ff", "expert")


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, expert: int = 1, context: int = 1) -> Mesh:
    """A mesh of so many devices along each axis; data = -1 takes what the others leave.

    Axes that talk most stand last, where neighbouring devices are. Raises UserError where the devices do not suffice.
    """
    return mesh_of(jax.devices(), data, fsdp, tensor, expert, context)


def make_meshes(actors: int, **sizes: int) -> tuple[Mesh, Mesh]:
    """(mesh to learn on, mesh to sample on): the same one, or ``actors`` devices for sampling and the others to learn.

    Devices that only sample are split along ``tensor`` and ``expert`` as the others are, and along ``data``.
    """
    devices = jax.devices()
    if not actors:
        both = mesh_of(devices, **sizes)
        return both, both
    if not 0 < actors < len(devices):
        raise UserError(f"mesh.actors={actors}: of the {len(devices)} devices at least one must sample and one learn")
    learn = mesh_of(devices[actors:], **sizes)
    alike = {axis: sizes[axis] for axis in ("tensor", "expert")}
    return learn, mesh_of(devices[:actors], data=-1, fsdp=1, context=1, **alike)


def mesh_of(devices: list[Any], data: int, fsdp: int, tensor: int, expert: int, context: int) -> Mesh:
    """The same over these devices."""
    sizes = dict(data=data, fsdp=fsdp, expert=expert, context=context, tensor=tensor)
    others = math.prod(n for axis, n in sizes.items() if axis != "data")
    if data == -1 and others > 0:
        sizes["data"] = len(devices) // others
    needed = math.prod(max(n, 1) for n in sizes.values())
    if min(sizes.values()) < 1 or needed > len(devices):
        said = " x ".join(f"{axis}={n}" for axis, n in (sizes | {"data": data}).items() if n != 1) or "data=1"
        raise UserError(
            f"mesh: {said} needs {needed} devices, but {len(devices)} are here: change mesh.data or the others, or "
            "simulate with XLA_FLAGS=--xla_force_host_platform_device_count=N"
        )
    chosen = np.asarray(devices[:needed]).reshape(*sizes.values())
    return Mesh(chosen, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def layout(mesh: Mesh, rules: Mapping[str, str], name: str = "mesh.learn") -> Layout:
    """``{"rows": "data fsdp", ...}`` -> a layout. Raises UserError for an axis that is unknown, logical or of the mesh."""
    for logical, axes in rules.items():
        if logical not in LOGICAL:
            raise UserError(f"{name}: there is no logical axis {logical!r}, choose from {LOGICAL}")
        if unknown := [axis for axis in axes.split() if axis not in AXES]:
            raise UserError(f"{name}.{logical}={axes!r}: the mesh has no axis {unknown[0]!r}, choose from {AXES}")
    return Layout(mesh, tuple((logical, tuple(axes.split())) for logical, axes in rules.items()))


def place_rows(x: Any, layout: Layout) -> Any:
    """Split every array's first axis as rows are, inside a jit or outside it.

    What is not an array (the records of a text task) is left as it is.
    """
    if not layout.is_sharded:
        return x

    def place(y: Any) -> jax.Array:
        where = layout.sharding(("rows",), y.shape)
        if jax.process_count() > 1 and (isinstance(y, np.ndarray) or is_local(y)):
            y = np.asarray(y)
            return jax.make_array_from_callback(y.shape, where, lambda part: y[part])  # each process its own part
        return jax.device_put(y, where)

    return jax.tree.map(lambda y: place(y) if isinstance(y, (jax.Array, np.ndarray)) else y, x)


def is_local(x: Any) -> bool:
    """Whether x is a real array that lies in this process alone."""
    return not isinstance(x, Tracer) and x.is_fully_addressable


def fetch(x: Any) -> Any:
    """Every array, whole, as numpy, in every process."""
    if jax.process_count() > 1:
        parted = [y for y in jax.tree.leaves(x) if isinstance(y, jax.Array) and not y.is_fully_replicated]
        if parted:
            where: Any = parted[0].sharding
            whole = NamedSharding(where.mesh, PartitionSpec())
            collect = jax.jit(lambda ys: ys, out_shardings=whole)
            x = jax.tree.map(lambda y: collect(y) if any(y is p for p in parted) else y, x)
    return jax.device_get(x)


def owned(x: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """(numbers of the rows that this process is the first to hold, those rows): each row is owned by one process."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.arange(x.shape[0]), np.asarray(x)
    holders: dict[tuple[int, int], int] = {}
    for device, index in x.sharding.devices_indices_map(x.shape).items():
        span, process = index[0].indices(x.shape[0])[:2], int(device.process_index or 0)
        holders[span] = min(holders.get(span, process), process)
    here = {s.index[0].indices(x.shape[0])[:2]: np.asarray(s.data) for s in x.addressable_shards}
    mine = sorted(span for span, process in holders.items() if process == jax.process_index())
    numbers = [np.arange(*span) for span in mine]
    empty = np.zeros((0, *x.shape[1:]), x.dtype)
    return np.concatenate([*numbers, np.arange(0)]), np.concatenate([*(here[span] for span in mine), empty])


def collected(numbers: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Rows that each process has made of those it owns -> all ``count`` of them, in every process."""
    if len(numbers) == count:
        return rows
    mine = np.zeros((count, *rows.shape[1:]), rows.dtype)
    mine[numbers] = rows
    return np.asarray(multihost_utils.process_allgather(mine)).sum(0)  # all others are zero: exact


def place_whole(x: Any, layout: Layout) -> Any:
    """A copy of every array on each device of the mesh, whatever devices it comes from."""
    assert layout.mesh is not None
    return jax.device_put(x, NamedSharding(layout.mesh, PartitionSpec()))


def place_policy(params: Any, model: transformer.Config) -> Any:
    """The policy's parameters, in whatever form they are kept, on the devices of another mesh."""
    where = transformer.param_shardings(params, model)
    return jax.device_put(params, where)


def is_weight(x: Any) -> bool:
    return isinstance(x, transformer.WeightSpec)


def weight_shardings(model: transformer.Config) -> Any:
    """The sharding of each weight, as a pytree like the parameters. Raises UserError where an axis does not divide.

    Key heads and a vocabulary that do not divide lie whole on each device.
    """
    layout, mesh = model.layout, model.layout.mesh
    assert mesh is not None

    def one(w: transformer.WeightSpec) -> NamedSharding:
        used = [axis for name in w.axes for axis in layout.axes(name)]
        if len(set(used)) < len(used):
            raise UserError(f"mesh: a weight with the axes {w.axes} would be split over {used[0]!r} twice")
        for size, name in zip(w.shape, w.axes, strict=True):
            if name not in (None, "kv_heads", "vocab") and size % layout.num_shards(name):
                over = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in layout.axes(name))
                raise UserError(f"mesh: a weight of {size} along {name!r} cannot be split over {over}")
        return layout.sharding(w.axes, w.shape)

    return jax.tree.map(one, transformer.weight_specs(model), is_leaf=is_weight)


def state_shardings(state: Any, model: transformer.Config, on_host: Collection[str] = ()) -> Any:
    """The sharding of each array of a training state: whatever has the shape and path of a weight lies like it.

    Of the parts named ``on_host`` all but scalars lie in host memory, split in the same way.
    """
    assert model.layout.mesh is not None
    by_path, whole = {}, NamedSharding(model.layout.mesh, PartitionSpec())
    described = jax.tree_util.tree_flatten_with_path(transformer.weight_specs(model), is_leaf=is_weight)[0]
    for (path, w), sharding in zip(described, jax.tree.leaves(weight_shardings(model)), strict=True):
        by_path[jax.tree_util.keystr(path)] = w.shape, sharding

    def one(path: Any, x: Any) -> NamedSharding:
        for start in range(len(path)):
            shape, sharding = by_path.get(jax.tree_util.keystr(path[start:]), (None, None))
            if shape == x.shape and sharding is not None:
                return sharding
        return whole

    def kept(path: Any, x: Any) -> NamedSharding:
        part = jax.tree_util.keystr(path[:1], simple=True)
        return one(path, x).with_memory_kind(HOST) if part in on_host and x.ndim else one(path, x)

    return jax.tree_util.tree_map_with_path(kept, state)


def constrain_state(state: Any, model: transformer.Config) -> Any:
    """Inside a jit: a state, or a gradient, laid out as the state that a stage starts from."""
    if not model.layout.is_sharded:
        return state
    lay = lambda x, where: x if is_key(x) else jax.lax.with_sharding_constraint(x, where)
    return jax.tree.map(lay, state, state_shardings(state, model))


def on_device(x: Any) -> Any:
    """Inside a jit: every array in the device's memory, whichever it lies in."""
    return jax.tree.map(lambda y: moved(y, jax.memory.Space.Device), x)


def back(x: Any, like: Any) -> Any:
    """Inside a jit: every array of x in the memory that its counterpart in ``like`` lies in."""
    return jax.tree.map(lambda y, old: moved(y, memory_of(old)), x, like)


def moved(x: Any, memory: Any) -> Any:
    return x if memory_of(x) == memory else jax.device_put(x, memory)


def memory_of(x: Any) -> Any:
    """The memory space of an array, also of one that is being traced."""
    return getattr(jax.typeof(x), "memory_space", jax.memory.Space.Device)


def is_key(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)


def check_rows(rows: int, layout: Layout, what: str) -> None:
    """Raise UserError where rows cannot be split evenly over the devices."""
    if rows % layout.num_shards("rows"):
        over = " x ".join(f"{axis}={layout.mesh.shape[axis]}" for axis in layout.axes("rows")) if layout.mesh else ""
        raise UserError(
            f"mesh: {what}={rows} is not a multiple of the {layout.num_shards('rows')} parts ({over}) it is split in"
        )


def by_rows(make: Callable[[int, int], Any], start: int, count: int, layout: Layout) -> Any:
    """``make(start, count)``, a pytree of numpy arrays of so many rows, laid out as rows are.

    Of several processes each makes the rows that its devices hold, and no others.
    """
    if jax.process_count() == 1 or not layout.is_sharded:
        return place_rows(make(start, count), layout)
    where = layout.sharding(("rows",), (count,))
    parts: Any = where.addressable_devices_indices_map((count,))
    spans = {part.indices(count)[:2] for (part,) in parts.values()}
    made = {(first, end): make(start + first, end - first) for first, end in sorted(spans)}

    def place(*parts: np.ndarray) -> jax.Array:
        held, shape = dict(zip(made, parts, strict=True)), (count, *parts[0].shape[1:])
        pick = lambda index: held[index[0].indices(count)[:2]]
        return jax.make_array_from_callback(shape, layout.sharding(("rows",), shape), pick)

    return jax.tree.map(place, *made.values())


def check_host_memory(layout: Layout, setting: str) -> None:
    """Raise UserError where a device of this process cannot read the host's memory by itself."""
    devices = layout.mesh.devices.flat if layout.mesh else ()
    for device in [d for d in devices if d.process_index == jax.process_index()]:
        kinds = [memory.kind for memory in device.addressable_memories()]
        if HOST not in kinds:
            raise UserError(
                f"{setting}: devices of the platform {device.platform!r} know no memory {HOST}, only {', '.join(kinds)}: "
                "leave moments on the device"
            )


def check_processes(layout: Layout) -> None:
    """Raise UserError where a process has no device in the mesh: it could not take part."""
    used = {d.process_index for d in layout.mesh.devices.flat} if layout.mesh else {0}
    if unused := sorted(set(range(jax.process_count())) - used):
        raise UserError(
            f"mesh: none of its {layout.mesh.size if layout.mesh else 1} devices belongs to process {unused[0]}: with several "
            "processes use all devices (mesh.data=-1), or start fewer processes"
        )
