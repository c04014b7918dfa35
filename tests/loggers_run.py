"""A stage logged by the real wandb and trackio, offline, interrupted and continued; its values are read back.

    pip install wandb trackio && python tests/loggers_run.py FOLDER

FOLDER is made. Nothing is sent anywhere: W&B is offline, and trackio's folder is in FOLDER. Prints one line, or fails.
"""

import json
import os
import sys
from pathlib import Path

folder = Path(sys.argv[1]).absolute()
os.environ |= {"WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio"), "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).parent.parent))

from rljax.training.journal import Journal  # noqa: E402

STEPS = 8
Value = tuple[int, str, float]
BLOCK = 32768  # bytes; W&B's offline file is a log of LevelDB's format behind a header of 7 bytes


def train(first: int, last: int, checkpoint: int) -> None:
    """Steps ``first`` to ``last`` of a stage; the last of them is as far as it came before it was interrupted."""
    settings = {"project": "rljax-test", "config": {"seed": 0, "rl": {"steps": STEPS}}}
    stage = Journal(folder / "run", "rl", checkpoint, STEPS, False, ("tensorboard", "wandb", "trackio"), settings)
    for step in range(first, last + 1):
        stage.update_progress(step, 100.0, {"loss": 1.0})
        stage.write_metrics(step, {"train/loss": step / 4})
        if step % 2 == 0:
            stage.write_metrics(step, {"eval/pass@1": step / 8}, evaluation=True)
    stage.close()


def read_wandb_file(path: Path) -> list[bytes]:
    """The messages of an offline file: in each record are a checksum (4 bytes), a length (2) and a type (1)."""
    data, at, messages, part = path.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # the rest of a block that is too short for a header is empty
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part of one
            messages.append(part)
            part = b""
    return messages


def read_wandb() -> tuple[set[str], list[Value]]:
    """(run ids, values logged) of all offline files."""
    from wandb.proto import wandb_internal_pb2

    ids, values = set(), []
    for path in sorted((folder / "run" / "wandb").glob("offline-run-*/run-*.wandb")):
        for message in read_wandb_file(path):
            record = wandb_internal_pb2.Record.FromString(message)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                values += [(items["_step"], k, v) for k, v in items.items() if not k.startswith("_")]
    return ids, values


def read_trackio() -> tuple[set[str], list[Value]]:
    """(run names, values logged) of the project."""
    from trackio.sqlite_storage import SQLiteStorage

    names = set(SQLiteStorage.get_runs("rljax-test"))
    rows = [row for name in names for row in SQLiteStorage.get_logs("rljax-test", name)]
    hidden = ("step", "timestamp")
    return names, [(row["step"], k, v) for row in rows for k, v in row.items() if k not in hidden]


def check(name: str, runs: set[str], values: list[Value]) -> None:
    assert len(runs) == 1, f"{name}: {runs}"
    expected = [(s, "train/loss", s / 4) for s in range(1, STEPS + 1)]
    expected += [(s, "eval/pass_at_1", s / 8) for s in range(2, STEPS + 1, 2)]
    found = [v for v in values if v[1] != "train/tokens_per_second"]
    assert sorted(found) == sorted(expected), f"{name}: {sorted(found)}"
    speeds = [step for step, key, _ in values if key == "train/tokens_per_second"]
    assert speeds == list(range(1, STEPS + 1)), f"{name}: {speeds}"


if __name__ == "__main__":
    train(1, 5, checkpoint=-1)
    train(3, 3, checkpoint=2)
    train(3, STEPS, checkpoint=2)
    check("wandb", *read_wandb())
    check("trackio", *read_trackio())
    print("wandb and trackio: one run each, every step once")
