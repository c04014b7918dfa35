"""The settings of the mesh of devices."""

import dataclasses

from rljax.options import option


@dataclasses.dataclass(frozen=True)
class MeshOptions:
    """Devices along each axis of the mesh."""

    data: int = option(-1, "devices along the data axis; -1: all that the others leave", low=-1)
    fsdp: int = option(1, "devices that weights and moments are split over between uses", low=1)
    tensor: int = option(1, "devices that matrices are split over", low=1)
    expert: int = option(1, "devices that experts are split over", low=1)
    context: int = option(1, "devices that the columns of a row are split over in the update", low=1)
    actors: int = option(0, "so many more devices only sample, one step ahead; 0: all sample, and all learn", low=0)

    @property
    def sizes(self) -> dict[str, int]:
        """{axis: devices}."""
        return {axis: getattr(self, axis) for axis in ("data", "fsdp", "tensor", "expert", "context")}


# which axes of the mesh each logical axis is split over, in the update and while sampling: docs/scaling.md
COMMON_RULES = dict.fromkeys(("vocab", "heads", "kv_heads", "ff"), "tensor") | {"expert": "expert"}
LEARN_RULES = {"rows": "data fsdp expert", "columns": "context", "embed": "fsdp"} | COMMON_RULES
SAMPLE_RULES = {
    "rows": "data fsdp expert context",
    "drawn": "data fsdp expert context tensor",
    "columns": "",
    "embed": "",
} | COMMON_RULES
