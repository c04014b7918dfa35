"""The device mesh, and where arrays lie on it: training state, batches, rollouts.

Every weight names its logical axes (``transformer.weights``). The rules of a layout map logical axes to mesh axes. The
update and the sampler each have their own layout over the same devices. One device is a mesh of size one: the same code.
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

MESH_AXES = ("data", "fsdp", "tensor", "expert", "context")
LOGICAL_AXES = ("rows", "columns", "drawn", "embed", "vocab", "heads", "kv_heads", "ff", "expert")
HOST_MEMORY = "pinned_host"  # JAX's name for memory of the host that a device reads and writes by itself


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, expert: int = 1, context: int = 1) -> Mesh:
    """A mesh with this many devices along each axis; data = -1 takes all devices that the others leave.

    Raises UserError where there are not enough devices.
    """
    return mesh_from_devices(jax.devices(), data, fsdp, tensor, expert, context)


def make_learn_and_sample_meshes(sampler_devices: int, **sizes: int) -> tuple[Mesh, Mesh]:
    """(mesh to learn on, mesh to sample on).

    With ``sampler_devices`` = 0 both are the same mesh. Otherwise the first so many devices only sample and the others
    only learn. The sampler's mesh has the ``tensor`` and ``expert`` of ``sizes``, and ``data`` takes the rest.
    """
    devices = jax.devices()
    if not sampler_devices:
        shared = mesh_from_devices(devices, **sizes)
        return shared, shared
    if not 0 < sampler_devices < len(devices):
        raise UserError(
            f"mesh.actors={sampler_devices}: of the {len(devices)} devices at least one must sample and one learn"
        )
    learn = mesh_from_devices(devices[sampler_devices:], **sizes)
    same = {axis: sizes[axis] for axis in ("tensor", "expert")}
    return learn, mesh_from_devices(devices[:sampler_devices], data=-1, fsdp=1, context=1, **same)


def mesh_from_devices(devices: list[Any], data: int, fsdp: int, tensor: int, expert: int, context: int) -> Mesh:
    """A mesh over these devices. Axes that communicate most come last, where devices are neighbours."""
    sizes = dict(data=data, fsdp=fsdp, expert=expert, context=context, tensor=tensor)
    others = math.prod(n for axis, n in sizes.items() if axis != "data")
    if data == -1 and others > 0:
        sizes["data"] = len(devices) // others
    needed = math.prod(max(n, 1) for n in sizes.values())
    if min(sizes.values()) < 1 or needed > len(devices):
        asked = " x ".join(f"{axis}={n}" for axis, n in (sizes | {"data": data}).items() if n != 1) or "data=1"
        raise UserError(
            f"mesh: {asked} needs {needed} devices, but {len(devices)} are here: change mesh.data or the others, or "
            "simulate with XLA_FLAGS=--xla_force_host_platform_device_count=N"
        )
    chosen = np.asarray(devices[:needed]).reshape(*sizes.values())
    return Mesh(chosen, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def make_layout(mesh: Mesh, rules: Mapping[str, str], name: str = "mesh.learn") -> Layout:
    """The layout of rules such as ``{"rows": "data fsdp"}``: logical axis -> mesh axes, separated by spaces.

    Raises UserError for a logical axis or a mesh axis that does not exist; ``name`` is the config key it names.
    """
    for logical, axes in rules.items():
        if logical not in LOGICAL_AXES:
            raise UserError(f"{name}: there is no logical axis {logical!r}, choose from {LOGICAL_AXES}")
        if unknown := [axis for axis in axes.split() if axis not in MESH_AXES]:
            raise UserError(f"{name}.{logical}={axes!r}: the mesh has no axis {unknown[0]!r}, choose from {MESH_AXES}")
    return Layout(mesh, tuple((logical, tuple(axes.split())) for logical, axes in rules.items()))


# Rows: batches and rollouts


def shard_rows(x: Any, layout: Layout) -> Any:
    """The pytree with the first axis of every array split as rows are. Works inside and outside a jit.

    What is not an array (the records of a text task) stays as it is.
    """
    if not layout.is_sharded:
        return x

    def place(y: Any) -> jax.Array:
        where = layout.sharding(("rows",), y.shape)
        if jax.process_count() > 1 and (isinstance(y, np.ndarray) or is_local(y)):
            y = np.asarray(y)
            return jax.make_array_from_callback(y.shape, where, lambda index: y[index])  # each process its own part
        return jax.device_put(y, where)

    return jax.tree.map(lambda y: place(y) if isinstance(y, (jax.Array, np.ndarray)) else y, x)


def is_local(x: Any) -> bool:
    """Whether x is a concrete array whose parts all lie in this process."""
    return not isinstance(x, Tracer) and x.is_fully_addressable


def gather_to_host(x: Any) -> Any:
    """The pytree with every array whole, as numpy, in every process."""
    if jax.process_count() > 1:
        parted = [y for y in jax.tree.leaves(x) if isinstance(y, jax.Array) and not y.is_fully_replicated]
        if parted:
            where: Any = parted[0].sharding
            whole = NamedSharding(where.mesh, PartitionSpec())
            collect = jax.jit(lambda ys: ys, out_shardings=whole)
            x = jax.tree.map(lambda y: collect(y) if any(y is p for p in parted) else y, x)
    return jax.device_get(x)


def rows_of_this_process(x: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """(row numbers int [n], rows [n, ...]) of the rows that this process owns.

    Each row has one owner: of the processes that hold it, the one with the lowest number.
    """
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.arange(x.shape[0]), np.asarray(x)
    here = {s.index[0].indices(x.shape[0])[:2]: np.asarray(s.data) for s in x.addressable_shards}
    empty = np.zeros((0, *x.shape[1:]), x.dtype)
    return row_numbers_of_this_process(x), np.concatenate([*(here[span] for span in own_spans(x)), empty])


def row_numbers_of_this_process(x: jax.Array) -> np.ndarray:
    """The row numbers of ``rows_of_this_process``, int [n], without waiting for the rows."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.arange(x.shape[0])
    return np.concatenate([*(np.arange(*span) for span in own_spans(x)), np.arange(0)])


def own_spans(x: jax.Array) -> list[tuple[int, int]]:
    """(first row, end) of each piece of an array's rows that this process owns."""
    owners: dict[tuple[int, int], int] = {}
    for device, index in x.sharding.devices_indices_map(x.shape).items():
        span, process = index[0].indices(x.shape[0])[:2], int(device.process_index or 0)
        owners[span] = min(owners.get(span, process), process)
    return sorted(span for span, process in owners.items() if process == jax.process_index())


def gather_rows(numbers: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """All ``count`` rows, in every process, from the rows with these numbers that each process passes."""
    if len(numbers) == count:
        return rows
    mine = np.zeros((count, *rows.shape[1:]), rows.dtype)
    mine[numbers] = rows
    return np.asarray(multihost_utils.process_allgather(mine)).sum(0)  # all others are zero: exact


def make_sharded_rows(make_rows: Callable[[int, int], Any], start: int, count: int, layout: Layout) -> Any:
    """``make_rows(start, count)``, a pytree of numpy arrays of ``count`` rows, split as rows are.

    Of several processes each makes only the rows that its devices hold.
    """
    if jax.process_count() == 1 or not layout.is_sharded:
        return shard_rows(make_rows(start, count), layout)
    where = layout.sharding(("rows",), (count,))
    parts: Any = where.addressable_devices_indices_map((count,))
    spans = {part.indices(count)[:2] for (part,) in parts.values()}
    made = {(first, end): make_rows(start + first, end - first) for first, end in sorted(spans)}

    def place(*parts: np.ndarray) -> jax.Array:
        held, shape = dict(zip(made, parts, strict=True)), (count, *parts[0].shape[1:])
        pick = lambda index: held[index[0].indices(count)[:2]]
        return jax.make_array_from_callback(shape, layout.sharding(("rows",), shape), pick)

    return jax.tree.map(place, *made.values())


# Parameters and training state


def replicate(x: Any, layout: Layout) -> Any:
    """The pytree with a copy of every array on each device of the mesh, whatever devices it comes from."""
    assert layout.mesh is not None
    return jax.device_put(x, NamedSharding(layout.mesh, PartitionSpec()))


def reshard_params(params: Any, model: transformer.Config) -> Any:
    """The parameters, quantized or not, on the mesh of ``model`` and split by its layout."""
    return jax.device_put(params, transformer.param_shardings(params, model))


def is_weight(x: Any) -> bool:
    return isinstance(x, transformer.WeightSpec)


def weight_shardings(model: transformer.Config) -> Any:
    """The sharding of each weight, as a pytree like the parameters.

    Key heads and a vocabulary that do not divide over their axis lie whole on each device. Raises UserError where another
    axis does not divide, or where one weight uses a mesh axis twice.
    """
    layout, mesh = model.layout, model.layout.mesh
    assert mesh is not None

    def sharding_of(w: transformer.WeightSpec) -> NamedSharding:
        used = [axis for name in w.axes for axis in layout.axes(name)]
        if len(set(used)) < len(used):
            raise UserError(f"mesh: a weight with the axes {w.axes} would be split over {used[0]!r} twice")
        for size, name in zip(w.shape, w.axes, strict=True):
            if name not in (None, "kv_heads", "vocab") and size % layout.num_shards(name):
                over = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in layout.axes(name))
                raise UserError(f"mesh: a weight of {size} along {name!r} cannot be split over {over}")
        return layout.sharding(w.axes, w.shape)

    return jax.tree.map(sharding_of, transformer.weight_specs(model), is_leaf=is_weight)


def state_shardings(state: Any, model: transformer.Config, on_host: Collection[str] = ()) -> Any:
    """The sharding of each array of a training state, as a pytree like it.

    An array with the path and the shape of a weight (in the optimizer, in the reference) is split like that weight; all
    others are replicated. Arrays of the parts named ``on_host``, except scalars, lie in host memory, split in the same way.
    """
    assert model.layout.mesh is not None
    by_path, whole = {}, NamedSharding(model.layout.mesh, PartitionSpec())
    described = jax.tree_util.tree_flatten_with_path(transformer.weight_specs(model), is_leaf=is_weight)[0]
    for (path, w), sharding in zip(described, jax.tree.leaves(weight_shardings(model)), strict=True):
        by_path[jax.tree_util.keystr(path)] = w.shape, sharding

    def on_device(path: Any, x: Any) -> NamedSharding:
        for start in range(len(path)):
            shape, sharding = by_path.get(jax.tree_util.keystr(path[start:]), (None, None))
            if shape == x.shape and sharding is not None:
                return sharding
        return whole

    def sharding_of(path: Any, x: Any) -> NamedSharding:
        part = jax.tree_util.keystr(path[:1], simple=True)
        where = on_device(path, x)
        return where.with_memory_kind(HOST_MEMORY) if part in on_host and x.ndim else where

    return jax.tree_util.tree_map_with_path(sharding_of, state)


def constrain_state(state: Any, model: transformer.Config) -> Any:
    """Inside a jit: the state (or a gradient) with the shardings of ``state_shardings``."""
    if not model.layout.is_sharded:
        return state
    constrain = lambda x, where: x if is_prng_key(x) else jax.lax.with_sharding_constraint(x, where)
    return jax.tree.map(constrain, state, state_shardings(state, model))


def is_prng_key(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)


# Device memory and host memory


def to_device_memory(x: Any) -> Any:
    """Inside a jit: the pytree with every array in the memory of the device."""
    return jax.tree.map(lambda y: to_memory(y, jax.memory.Space.Device), x)


def to_memory_of(x: Any, like: Any) -> Any:
    """Inside a jit: the pytree with every array in the memory where its counterpart in ``like`` lies."""
    return jax.tree.map(lambda y, other: to_memory(y, memory_space(other)), x, like)


def to_memory(x: Any, space: Any) -> Any:
    return x if memory_space(x) == space else jax.device_put(x, space)


def memory_space(x: Any) -> Any:
    """The memory space of an array, also of one that is being traced."""
    return getattr(jax.typeof(x), "memory_space", jax.memory.Space.Device)


def check_rows_divide(rows: int, layout: Layout, setting: str) -> None:
    """Raise UserError where this number of rows cannot be split evenly over the devices."""
    if rows % layout.num_shards("rows"):
        over = " x ".join(f"{axis}={layout.mesh.shape[axis]}" for axis in layout.axes("rows")) if layout.mesh else ""
        raise UserError(
            f"mesh: {setting}={rows} is not a multiple of the {layout.num_shards('rows')} parts ({over}) it is split in"
        )


def check_host_memory(layout: Layout, setting: str) -> None:
    """Raise UserError where a device of this process cannot read host memory by itself."""
    devices = layout.mesh.devices.flat if layout.mesh else ()
    for device in [d for d in devices if d.process_index == jax.process_index()]:
        kinds = [memory.kind for memory in device.addressable_memories()]
        if HOST_MEMORY not in kinds:
            raise UserError(
                f"{setting}: devices of the platform {device.platform!r} know no memory {HOST_MEMORY}, only {', '.join(kinds)}: "
                "leave moments on the device"
            )


def check_every_process_has_devices(layout: Layout) -> None:
    """Raise UserError where a process has no device in the mesh: it could not take part in the run."""
    used = {d.process_index for d in layout.mesh.devices.flat} if layout.mesh else {0}
    if unused := sorted(set(range(jax.process_count())) - used):
        raise UserError(
            f"mesh: none of its {layout.mesh.size if layout.mesh else 1} devices belongs to process {unused[0]}: with several "
            "processes use all devices (mesh.data=-1), or start fewer processes"
        )
