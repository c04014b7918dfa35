"""What a run says about itself: metrics.jsonl, timings.jsonl, TensorBoard, samples, a progress bar.

``metrics.jsonl`` holds nothing that depends on the clock, so that a run stopped anywhere and continued leaves the same
bytes as one never stopped; seconds and speeds are in ``timings.jsonl``.
"""

import json
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rljax.distributed import processes

Record = dict[str, Any]


class Journal:
    """Writer of one stage's records, from ``step`` on; lines of this stage after that step are dropped first.

    In several processes all but the first write nothing. ``bar`` False shows no progress bar: another journal does.
    """

    def __init__(self, workdir: str | Path, stage: str, step: int, steps: int, bar: bool = True):
        from tensorboardX import SummaryWriter

        self.workdir, self.stage, self.step = Path(workdir), stage, step
        self.silent = not processes.writes()
        names = ("metrics.jsonl", "timings.jsonl")
        if not self.silent:
            for name in names:
                rewind(self.workdir / name, stage, step)
        place = lambda name: Path(os.devnull) if self.silent else self.workdir / name
        self.files = {n.removesuffix(".jsonl"): place(n).open("a", encoding="utf-8") for n in names}
        self.board = SummaryWriter(
            str(self.workdir / "tensorboard" / stage), purge_step=max(step, 0), write_to_disk=not self.silent
        )
        off = True if self.silent or not bar else None
        self.bar = tqdm(total=steps, initial=max(step, 0), desc=stage, unit="step", disable=off, leave=False)
        self.start = self.last = time.perf_counter()
        self.tokens = 0.0

    def write(self, step: int, metrics: Record, evaluation: bool = False) -> None:
        """One line of metrics.jsonl, flushed; a number that is not finite is written as null."""
        values = {k: round(float(v), 6) if math.isfinite(v) else None for k, v in metrics.items()}
        self._line("metrics", {"stage": self.stage, "step": step} | values)
        for name, value in values.items():
            if value is not None:
                self.board.add_scalar(name, value, step)
        if not evaluation:
            self._timing(step)

    def advance(self, step: int, tokens: float, shown: Record) -> None:
        """Move the progress bar; ``tokens`` is how many this step learned from."""
        self.tokens += tokens
        brief = {k: f"{shown[k]:.3f}" for k in ("loss", "reward", "response_length/mean") if k in shown}
        self.bar.set_postfix(brief, refresh=False)
        self.bar.update(step - self.bar.n)

    def _timing(self, step: int) -> None:
        now = time.perf_counter()
        speed = self.tokens / max(now - self.last, 1e-9)
        timing = {"seconds": round(now - self.start, 3), "tokens_per_second": round(speed, 1)}
        self._line("timings", {"stage": self.stage, "step": step} | timing)
        self.last, self.tokens = now, 0.0

    def say(self, text: str) -> None:
        """A line for the person who watches, above the progress bar."""
        if not self.silent:
            tqdm.write(text)

    def seconds_left(self, step: int, steps: int) -> float:
        """Seconds to the end of the stage at the pace so far."""
        done = step - max(self.step, 0)
        return (time.perf_counter() - self.start) / done * (steps - step) if done else float("nan")

    def samples(self, step: int, lines: Iterable[Record]) -> None:
        """samples/<stage>_step_<step>.jsonl, one attempt a line, put in place whole."""
        path = self.workdir / "samples" / f"{self.stage}_step_{step:06d}.jsonl"
        if self.silent:
            return
        replace_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def close(self) -> None:
        self.bar.close()
        self.board.close()
        for f in self.files.values():
            f.close()

    def _line(self, file: str, record: Record) -> None:
        self.files[file].write(json.dumps(record) + "\n")
        self.files[file].flush()


def read(path: str | Path) -> list[Record]:
    """The records of a .jsonl file, without a last line that a kill cut short. A missing file has none."""
    out = []
    path = Path(path)
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            out.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return out


def plain(config: dict[str, Any]) -> Record:
    """A config as its file says it: tuples are lists."""
    return json.loads(json.dumps(config))


def read_config(workdir: str | Path) -> Record:
    """The config that a workdir was made with; {} where it has none."""
    path = Path(workdir) / "config.json"
    return json.loads(path.read_text())["config"] if path.exists() else {}


def rewind(path: Path, stage: str, step: int) -> None:
    """Keep what was written before this stage passed ``step``; put the shortened file in place in one move."""
    if not path.exists():
        return
    kept = [r for r in read(path) if r["stage"] != stage or r["step"] <= step]
    replace_text(path, "".join(json.dumps(r) + "\n" for r in kept))


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
