"""The run page: what a run has measured so far, and how far it has come."""

import math
from pathlib import Path
from typing import Any

from rljax.serving.policies import Source
from rljax.training import journal
from rljax.training.schema import STAGES

MOST = 4000  # records of one answer


def read_run(source: Source, after: int) -> dict[str, Any]:
    """The records of a run from number ``after`` on, and the number that comes next.

    ``restart`` is true where there are fewer records than that: a stage was resumed from a checkpoint, and some were dropped.
    """
    records = journal.read_records(source.path / "metrics.jsonl")
    restart = after > len(records)
    start = 0 if restart else after
    part = records[start : start + MOST]
    return {
        "run": source.name,
        "restart": restart,
        "next": start + len(part),
        "records": [{k: finite(v) for k, v in record.items()} for record in part],
        "steps": {stage: source.run.stage(stage).loop.steps for stage in STAGES if stage in source.run.stages},
        "progress": progress_of(records, source),
    }


def finite(value: Any) -> Any:
    """None for a number that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def progress_of(records: list[dict[str, Any]], source: Source) -> dict[str, int]:
    """The last step of each stage that has begun."""
    known = {stage: -1 for stage in STAGES if stage in source.run.stages}
    for record in records:
        if record["stage"] in known:
            known[record["stage"]] = max(known[record["stage"]], record["step"])
    return {stage: step for stage, step in known.items() if step >= 0}


def has_finished(source: Source) -> bool:
    """Whether the last stage of a run has reached its last step."""
    stages = [stage for stage in STAGES if stage in source.run.stages]
    if not stages:
        return True
    folder = Path(source.path) / "checkpoints" / stages[-1] / str(source.run.stage(stages[-1]).loop.steps)
    return folder.is_dir()
