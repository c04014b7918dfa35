"""The sampler on responses of varying lengths: all rows at once, or a few slots that take the next row of a queue.

    python -m benchmarks.slots [1M 10M 135M] [--slots 32,64] [--repeats 3]

1M and 10M: 32 prompts of 32 tokens, groups of 8, at most 256 tokens. 135M: the shape of SmolLM2 in bfloat16, 12 prompts of 106
tokens, groups of 8, at most 128. The model has random weights and several stop tokens, so that lengths are geometric, about 60 on
average. The forms take turns in one process, on the same random numbers. One JSON line a size: response tokens in a second (of CPU
time where that is the device), median, and whether the tokens are equal.
"""

import argparse
import dataclasses
import functools
import json
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.packing import MODELS
from rljax import sampler, transformer


@dataclasses.dataclass(frozen=True)
class Sizes:
    prompts: int
    group: int
    prompt_slots: int
    longest: int
    stops: int  # stop tokens


SIZES = {"1M": Sizes(32, 8, 32, 256, 8), "10M": Sizes(32, 8, 32, 256, 16), "135M": Sizes(12, 8, 106, 128, 800)}


def measure(name: str, slots: tuple[int, ...], repeats: int) -> dict:
    """One line: every form of the sampler on one size, in turn."""
    model, s = MODELS[name], SIZES[name]
    if name == "135M":
        model = dataclasses.replace(model, dtype="bfloat16", weight_dtype="bfloat16")
    params = jax.jit(transformer.init, static_argnums=0)(model, jax.random.key(0))
    prompt = jax.random.randint(jax.random.key(1), (s.prompts, s.prompt_slots), s.stops, model.vocab_size)
    settings = dict(group_size=s.group, max_new_tokens=s.longest, stop_ids=tuple(range(s.stops)))
    draw = functools.partial(
        sampler.sample, params, model, prompt, jnp.ones(prompt.shape, bool), jax.random.key(2), **settings
    )
    rows, seconds = s.prompts * s.group, {}
    counts = [0, *(n for n in slots if n < rows)]
    first, equal = draw(slots=0), {}
    tokens, lengths = int(first.mask.sum()), np.asarray(first.lengths)
    for n in counts[1:]:
        other = draw(slots=n)
        equal[n] = float(((first.response == other.response) & (first.mask == other.mask)).mean())
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    for _ in range(repeats):
        for n in counts:
            start = clock()
            jax.block_until_ready(draw(slots=n))
            seconds.setdefault(n, []).append(clock() - start)
    speed = {n: round(tokens / statistics.median(values)) for n, values in seconds.items()}
    return {
        "benchmark": "slots",
        "size": name,
        "rows": rows,
        "tokens": tokens,
        "mean_length": round(float(lengths.mean()), 1),
        "longest": int(lengths.max()),
        "tokens_per_second": {str(n or "all"): x for n, x in speed.items()},
        "gain": {str(n): round(speed[n] / speed[0], 2) for n in counts[1:]},
        "equal": {str(n): x for n, x in equal.items()},
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--slots", default="16,32,64")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    slots = tuple(int(n) for n in args.slots.split(","))
    for name in args.sizes:
        print(json.dumps(measure(name, slots, args.repeats)), flush=True)


if __name__ == "__main__":
    main()
