"""Tokens a second of our sampler and of transformers' ``generate`` on the same folder, in one process.

    make parity                                     # once: makes the environment that has both
    .venv-parity/bin/python -m benchmarks.generate FOLDER [float32|bfloat16]

Sampling at temperature 1 from prompts of 32 random tokens, 32 new tokens each, the same rows on both sides; the best of two
timings after a warm-up, prefill included. A folder of random weights: ``benchmarks.real_size``.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rljax import pretrained, sampler

PROMPT, NEW, ROWS = 32, 32, (1, 8, 32)


def best(call: Callable[[], Any]) -> float:
    call()
    times = []
    for _ in range(2):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def ours(folder: str, dtype: str, batches: list[np.ndarray]) -> list[float]:
    config, params, _ = pretrained.load(folder, dtype)
    how = dict(group_size=1, max_new_tokens=NEW, stop_ids=())
    ones = lambda x: np.ones(x.shape, bool)
    return [
        best(lambda x=x: jax.block_until_ready(sampler.sample(params, config, x, ones(x), jax.random.key(0), **how)))
        for x in batches
    ]


def theirs(folder: str, dtype: str, batches: list[np.ndarray]) -> list[float]:
    # only the environment of make parity has these two
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    how = dict(max_new_tokens=NEW, min_new_tokens=NEW, do_sample=True, top_k=0, pad_token_id=0)
    tensors = [torch.tensor(x) for x in batches]
    with torch.inference_mode():
        return [best(lambda x=x: model.generate(x, attention_mask=torch.ones_like(x), **how)) for x in tensors]


if __name__ == "__main__":
    folder, dtype = sys.argv[1], (*sys.argv[2:], "float32")[0]
    size = pretrained.read_config(folder).vocab_size
    batches = [np.random.default_rng(0).integers(size, size=(rows, PROMPT)) for rows in ROWS]
    for name, measured in (("rljax", ours(folder, dtype, batches)), ("transformers", theirs(folder, dtype, batches))):
        for rows, seconds in zip(ROWS, measured, strict=True):
            line = {"benchmark": "generate", "by": name, "dtype": dtype, "rows": rows, "new": NEW}
            print(json.dumps(line | {"tokens_per_second": round(rows * NEW / seconds, 1)}), flush=True)
