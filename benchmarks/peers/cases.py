"""What is measured beside the peers: the work, the size of the model, and the shapes."""

import dataclasses
from pathlib import Path
from typing import Any

from benchmarks.packing import MODELS
from benchmarks.peers import countdown
from rljax import transformer


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement. ``work``: sampler, update, step (sampling, reward, update) or start (process to first step)."""

    work: str
    size: str  # of benchmarks.packing.MODELS
    prompts: int
    new: int  # tokens that a response has at most
    lengths: str = "equal"  # all of ``new`` tokens; or "long": log-normal
    mean: float = 60.0  # of the lengths, where they vary
    group: int = 8
    prompt_slots: int = 32
    dtype: str = "float32"
    cores: int = 1
    packing: int = 0  # columns of rljax's packed sequences in the update; 0: padded rows
    cached: bool = False  # whether the compilation cache is filled before a start
    peers: tuple[str, ...] = ("tunix", "trl")

    @property
    def rows(self) -> int:
        return self.prompts * self.group

    @property
    def name(self) -> str:
        about = [self.work, self.size, self.lengths, f"{self.rows}x{self.new}"]
        about += [self.dtype] if self.dtype != "float32" else []
        about += ["cached"] if self.cached else []
        return " ".join(about)

    @property
    def model(self) -> transformer.Config:
        return dataclasses.replace(MODELS[self.size], weight_dtype=self.dtype, dtype=self.dtype)


REAL: dict[str, Any] = dict(size="135M", new=32, mean=24.0, prompt_slots=106, cores=2)
LONG: dict[str, Any] = dict(lengths="long", new=256)

CASES = (
    Case("sampler", "1M", 4, 64),
    Case("sampler", "1M", 16, 64),
    Case("sampler", "1M", 4, 128),
    Case("sampler", "1M", 16, 128),
    Case("sampler", "1M", 32, **LONG),
    Case("update", "1M", 4, 64),
    Case("update", "1M", 16, packing=288, **LONG),
    Case("step", "1M", 4, 64),
    Case("step", "1M", 16, packing=288, **LONG),
    Case("start", "1M", 4, 64),
    Case("start", "1M", 4, 64, cached=True, peers=("tunix",)),
    Case("sampler", "10M", 4, 64),
    Case("sampler", "10M", 4, 128),
    Case("sampler", "10M", 16, **LONG),
    Case("update", "10M", 4, 64, packing=288),
    Case("update", "10M", 16, packing=288, **LONG),
    Case("step", "10M", 4, 64, packing=288),
    Case("step", "10M", 16, packing=288, **LONG),
    *(Case("sampler", prompts=prompts, dtype="bfloat16", **REAL) for prompts in (1, 4, 12)),
    Case("update", prompts=8, lengths="long", packing=320, **REAL),
    Case("step", prompts=8, lengths="long", packing=320, **REAL),
)

SHAPE = ("layers", "width", "heads", "kv_heads", "head_width", "ff_width", "norm_eps")  # with the vocabulary


def task_of(case: Case, folder: Path) -> dict[str, Any]:
    """What a worker is told: the case, the model's folder, prompts as token ids and as text, and the responses that an update learns from."""
    vocab = case.model.vocab_size
    lengths = countdown.draw_lengths(case.lengths, case.mean, case.new, case.rows)
    prompts = countdown.draw_prompts(vocab, case.prompts, case.prompt_slots, case.new).tolist()
    return dataclasses.asdict(case) | {
        "folder": str(folder),
        "model": {name: getattr(case.model, name) for name in SHAPE},
        "vocab": vocab,
        "prompt_ids": prompts,
        "prompt_texts": [countdown.words(ids) for ids in prompts],
        "responses": [countdown.count_down(int(n)) for n in lengths],
        "rewards": [float(n % 2) for n in range(case.rows)],
    }
