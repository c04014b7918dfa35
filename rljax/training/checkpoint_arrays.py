"""Which arrays a checkpoint holds, and whether they are those that a run needs: same names, shapes and dtypes."""

import re
from collections.abc import Mapping
from typing import Any

import jax

from rljax.training.checkpoint_errors import OtherStateError

SHAPES = re.compile(r"Requested shape: (\(.*?\)) is not compatible with the stored shape: (\(.*?\))")


def check_arrays(name: str, stored: Mapping[str, str] | None, sums: Mapping[str, int], like: Any) -> None:
    """Raise OtherStateError where the item ``name`` of a checkpoint holds other arrays than ``like``.

    ``stored`` are the arrays that its manifest names; None for a checkpoint of an older version, whose shapes are seen
    when it is read, see ``check_no_shapes_in``.
    """
    check_same_arrays(name, set(sums), set(array_paths(like)))
    if stored is not None:
        check_same_shapes(name, stored, describe_arrays(like))


def check_no_shapes_in(e: ValueError) -> None:
    """Raise OtherStateError where an error of the storage library is about an array of another shape."""
    if found := SHAPES.search(str(e)):
        raise OtherStateError(f"it holds an array as {found[2]}, not {found[1]}: other settings wrote it") from e


def array_paths(tree: Any) -> list[str]:
    """The path of each array of a tree, as in the stored checksums."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def check_same_arrays(name: str, stored: set[str], wanted: set[str]) -> None:
    """Raise OtherStateError where a checkpoint holds other arrays than this run needs."""
    for what, paths in (("lacks", wanted - stored), ("also holds", stored - wanted)):
        if paths:
            raise OtherStateError(
                f"it {what} {name}{min(paths)}: other settings or an older version of this program wrote it"
            )


def check_same_shapes(name: str, stored: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise OtherStateError where an array has another shape or dtype: it would be cut or cast silently."""
    for path in sorted(wanted):
        if stored[path] != wanted[path]:
            raise OtherStateError(
                f"it holds {name}{path} as {stored[path]}, not {wanted[path]}: other settings wrote it"
            )


def describe_arrays(tree: Any) -> dict[str, str]:
    """{path: "float32[2,3]"} of the arrays of a tree."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): f"{x.dtype}[{','.join(map(str, x.shape))}]" for path, x in leaves}
