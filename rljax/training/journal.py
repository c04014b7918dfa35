"""The records of a run: write them into its workdir, and read them back.

    metrics.jsonl                   {"stage", "step", metrics} on each line; the same bytes for the same run
    timings.jsonl                   {"stage", "step", "seconds", "tokens_per_second"} on each line
    samples/STAGE_step_STEP.jsonl   one attempt of an evaluation on each line
    tensorboard/STAGE/              event files; the setting ``log`` may name other loggers too (``loggers``)

Nothing in metrics.jsonl depends on the clock. So a run that was stopped and resumed leaves the same bytes as one that was
never stopped. Seconds and speeds are in timings.jsonl.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.json_lines import Line, damaged_line, format_json_lines, read_raw_lines
from rljax.training.alarms import AlarmPrinter
from rljax.training.checkpoint_manifest import digest
from rljax.training.heartbeat import Heartbeat, progress_line
from rljax.training.loggers import Logged, OpenLogger, RunInfo, last_logged, metric_to_logger_name, open_loggers

Record = dict[str, Any]
SECTIONS = ("task", "model", "mesh", "checkpoint", "pretrain", "sft", "rl", "eval")  # of a config, those that are read
FILES = ("metrics.jsonl", "timings.jsonl")  # each line of them has a stage and a step


class Journal:
    """Writes the records of one stage after ``step`` (-1: all of them), and shows its progress bar.

    The stage is resumed from a checkpoint of ``step``, so its later records are dropped first. ``loggers`` (names in
    ``loggers.LOGGERS``) also get every scalar. ``logger_settings`` are their "project", "name" and "config". With several
    processes only process 0 writes and prints. ``bar=False`` shows no progress bar.
    """

    def __init__(
        self,
        workdir: str | Path,
        stage: str,
        step: int,
        steps: int,
        bar: bool = True,
        loggers: Sequence[str] = ("tensorboard",),
        logger_settings: Mapping[str, Any] | None = None,
        heartbeat: Heartbeat | None = None,
    ):
        self.workdir, self.stage, self.step, self.steps = Path(workdir), stage, step, steps
        self.silent = not processes.is_primary()
        self.heartbeat = heartbeat or Heartbeat()
        self.loggers: dict[str, OpenLogger] = {}
        recorded = Logged()
        if not self.silent:
            self.workdir.mkdir(parents=True, exist_ok=True)
            recorded = last_logged(read_records(self.workdir / "metrics.jsonl"), stage)
            run = RunInfo(self.workdir, stage, step + 1, **(logger_settings or {}))
            self.loggers = open_loggers(loggers, run, recorded)  # it may fail, so before records are dropped
            for name in FILES:
                drop_records_after(self.workdir / name, stage, step)
        before = [] if self.silent else read_record_lines(self.workdir / "metrics.jsonl")
        self.alarms = AlarmPrinter(stage, (line.value for line in before), self.print_line)
        own = (line.raw for line in before if line.value["stage"] == stage)
        self.digest = hashlib.sha256(b"".join(own))  # of the stage's lines so far
        output_path = lambda name: Path(os.devnull) if self.silent else self.workdir / name
        self.files = {n.removesuffix(".jsonl"): output_path(n).open("a", encoding="utf-8") for n in FILES}
        disable = True if self.silent or not bar else None  # None: disabled where stderr is no terminal
        self.bar = tqdm(total=steps, initial=max(step, 0), desc=stage, unit="step", disable=disable, leave=False)
        self.start_time = self.last_time = time.perf_counter()
        self.tokens = 0.0
        for name, logger in self.loggers.items():
            if logger.address:
                self.print_line(f"{stage}: {name} is at {logger.address}")

    def write_metrics(
        self, step: int, metrics: Record, evaluation: bool = False, logger_only: Record | None = None
    ) -> None:
        """Write one line of metrics.jsonl, flush it, and pass it to the loggers. A number that is not finite becomes null.

        ``logger_only`` are scalars for the loggers alone, such as the learning rate. For a training step the speed is added.
        The time of an ``evaluation`` counts with the training steps after it.
        """
        values = {k: round_metric(float(v)) if math.isfinite(v) else None for k, v in metrics.items()}
        self._write_line("metrics", {"stage": self.stage, "step": step} | values)
        self.alarms.see({"stage": self.stage, "step": step} | values)
        extra = dict(logger_only or {})
        if not evaluation:
            extra |= self._write_timing(step)
        scalars = {metric_to_logger_name(k): float(v) for k, v in (values | extra).items() if v is not None}
        finite = {k: v for k, v in scalars.items() if math.isfinite(v)}
        for logger in self.loggers.values():
            logger.log(step, finite)

    def update_progress(self, step: int, tokens: float, metrics: Record) -> None:
        """Move the progress bar to a step. ``tokens`` is the number of tokens that the step learned from."""
        self.tokens += tokens
        shown = {k: f"{metrics[k]:.3f}" for k in ("loss", "reward", "response_length/mean") if k in metrics}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(step - self.bar.n)
        if not self.bar.disable:
            self.heartbeat.note_output()
        seconds_left = self.estimate_seconds_left(step, step + 1)
        self.heartbeat.update(lambda: progress_line(self.stage, step, self.steps, metrics, seconds_left))

    def print_line(self, text: str) -> None:
        """Print a line above the progress bar, in process 0 alone."""
        if not self.silent:
            tqdm.write(text)
            self.heartbeat.note_output()

    def estimate_seconds_left(self, step: int, steps: int) -> float:
        """Seconds from ``step`` to ``steps`` at the pace so far; NaN before the first step."""
        done = step - max(self.step, 0)
        return (time.perf_counter() - self.start_time) / done * (steps - step) if done else float("nan")

    def write_samples(self, step: int, lines: Iterable[Record]) -> None:
        """Write samples/STAGE_step_STEP.jsonl, with one attempt on each line, in one atomic replacement."""
        path = samples_path(self.workdir, self.stage, step)
        if self.silent:
            return
        replace_text(path, format_json_lines(lines))

    def close(self) -> None:
        """Close the progress bar, the loggers and the files."""
        self.bar.close()
        for logger in self.loggers.values():
            logger.close()
        for f in self.files.values():
            f.close()

    def _write_timing(self, step: int) -> Record:
        """Write one line of timings.jsonl. Returns the scalars for the loggers."""
        now = time.perf_counter()
        speed = round(self.tokens / max(now - self.last_time, 1e-9), 1)
        timing = {"seconds": round(now - self.start_time, 3), "tokens_per_second": speed}
        self._write_line("timings", {"stage": self.stage, "step": step} | timing)
        self.last_time, self.tokens = now, 0.0
        return {"train/tokens_per_second": speed}

    def _write_line(self, file: str, record: Record) -> None:
        line = json.dumps(record) + "\n"
        self.files[file].write(line)
        self.files[file].flush()
        if file == "metrics":
            self.digest.update(line.encode("utf-8"))

    def sync(self) -> str | None:
        """Bring the lines so far to the disk; returns their ``digest_records``. A checkpoint must not outlive them."""
        if self.silent:
            return None
        os.fsync(self.files["metrics"].fileno())
        return self.digest.hexdigest()


def read_records(path: str | Path) -> list[Record]:
    """The records of a .jsonl file, without a torn last line; [] for a missing file.

    Raises UserError, with file and line, for any other line that is no record.
    """
    return [line.value for line in read_record_lines(path)]


def read_record_lines(path: str | Path) -> list[Line]:
    """The lines of a .jsonl file of records, with their bytes; [] for a missing file. Raises UserError as ``read_records``."""
    path = Path(path)
    if not path.exists():
        return []
    lines = list(read_raw_lines(path, blank=path.name not in FILES))
    for line in lines:
        if not isinstance(line.value, dict):
            raise UserError(damaged_line(path, line.number, "it is no record of names and values"))
        if path.name in FILES and not (
            isinstance(line.value.get("stage"), str) and type(line.value.get("step")) is int
        ):
            raise UserError(damaged_line(path, line.number, "it has no stage and step"))
    return lines


def read_samples(workdir: str | Path, stage: str, step: int) -> list[Record]:
    """The attempts that ``write_samples`` wrote; [] for a missing file. The reward is NaN where there was no verdict."""
    samples = read_records(samples_path(workdir, stage, step))
    return [s | {"reward": math.nan} if s.get("reward", 0.0) is None else s for s in samples]


def samples_path(workdir: str | Path, stage: str, step: int) -> Path:
    """The file of one evaluation's attempts."""
    return Path(workdir) / "samples" / f"{stage}_step_{step:06d}.jsonl"


def round_metric(value: float) -> float:
    """The number of fewest digits that is read back as the same float32; 9 significant digits of what is no float32.

    Small numbers keep as many digits as large ones: 4e-7 stays 4e-7.
    """
    with np.errstate(over="ignore", under="ignore"):
        single = np.float32(value)
    return float(str(single)) if float(single) == value else float(f"{value:.9g}")


def to_plain(config: dict[str, Any]) -> Record:
    """A config as it comes back from JSON: tuples are lists."""
    return json.loads(json.dumps(config))


def read_config_record(workdir: str | Path) -> Record:
    """What config.json holds; {} where there is no file. Raises UserError where it is not what a run writes."""
    path = Path(workdir) / "config.json"
    found: Any = None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from None
    except (ValueError, RecursionError):
        pass  # said below
    if not is_config_record(found):
        raise UserError(f"{path} is damaged: restore it (checkpoints/config.json is a copy), or use another --workdir")
    return found


def is_config_record(found: Any) -> bool:
    """Whether a JSON value is what config.json holds, with its digest. Older versions wrote none."""
    config = found.get("config") if isinstance(found, dict) else None
    if not isinstance(config, dict) or not all(isinstance(config.get(section, {}), dict) for section in SECTIONS):
        return False
    return "sha256" not in found or found["sha256"] == digest({k: v for k, v in found.items() if k != "sha256"})


def read_config(workdir: str | Path) -> Record:
    """The config in a workdir's config.json; {} where there is no file."""
    return read_config_record(workdir).get("config", {})


def read_run_id(workdir: str | Path) -> str:
    """The id that a run has had since it began; "" where it has none."""
    return str(read_config_record(workdir).get("run", ""))


def drop_torn_line(path: Path) -> None:
    """Cut off a torn last line, so that another can be appended. The bytes of all other lines stay as they are."""
    keep_lines(path, read_record_lines(path))


def drop_records_after(path: Path, stage: str, step: int) -> None:
    """Drop the stage's records of steps after ``step`` from a .jsonl file. The bytes of all other lines stay as they are.

    Lines at the end, and a torn last line, are cut off; others are left out in one atomic replacement. Raises UserError, and
    changes nothing, where a line is damaged.
    """
    keep_lines(path, [x for x in read_record_lines(path) if x.value["stage"] != stage or x.value["step"] <= step])


def keep_lines(path: Path, lines: Sequence[Line]) -> None:
    """Keep these lines of a file, byte for byte."""
    kept = b"".join(line.raw for line in lines)
    before = path.read_bytes() if path.exists() else b""
    if kept == before:
        return
    if before.startswith(kept):
        os.truncate(path, len(kept))
    else:
        replace_bytes(path, kept)


def digest_records(workdir: str | Path, stage: str, step: int) -> str | None:
    """The sha256 of the stage's lines in metrics.jsonl up to ``step``; None where there is no file."""
    path = Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return None
    lines = [line for line in read_record_lines(path) if line.value["stage"] == stage and line.value["step"] <= step]
    return hashlib.sha256(b"".join(line.raw for line in lines)).hexdigest()


def replace_text(path: Path, text: str) -> None:
    """Write a text file by one atomic replacement: it is never half written. Makes its folder."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file by one atomic replacement, as ``replace_text``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, path)
