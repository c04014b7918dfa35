"""Attempts at one problem in the terminal, right ones green and wrong ones red: the lecture's demonstration.

    python -m experiments.sample --config configs/shop.py --workdir runs/shop --stage rl --attempts 15
    python -m experiments.sample ... --prompt "Ben pays 14 for two of 6 3 2 11 9?"

Without ``--prompt`` it asks held-out problem number ``--problem``. A prompt of your own is answered in the same way;
its attempts are coloured where the task can read the problem from the text.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rljax import launch, sampler, settings
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.tasks import Task
from rljax.text import pad_batch

GREEN, RED, PLAIN = "\033[32m", "\033[31m", "\033[0m"


def run(config: ConfigTree, workdir: Path, stage: str, prompt: str, problem: int, attempts: int, seed: int) -> None:
    s = settings.resolve(config)
    task = s.task
    params = settings.start_params(s, stage, workdir)
    if prompt:
        ids, mask = read_prompt(task, prompt)
        record = task.read_prompt(prompt) if task.read_prompt else None
    else:
        asked = task.problems(config.seed, jnp.asarray([problem]), "test")
        ids, mask, record = asked.prompt, asked.prompt_mask, task.records(asked.facts)[0]
    rollout = sampler.sample(
        params,
        s.model,
        ids,
        mask,
        jax.random.key(seed),
        group_size=attempts,
        max_new_tokens=config.rl.max_new_tokens,
        temperature=config.eval.temperature,
        stop_ids=task.tokenizer.stop_ids,
    )
    print(task.tokenizer.decode(np.asarray(ids[0])[np.asarray(mask[0])]))
    colours, right = sys.stdout.isatty(), 0
    for row, live in zip(np.asarray(rollout.response), np.asarray(rollout.mask), strict=True):
        text = task.tokenizer.decode(row[live])
        good = record is not None and task.verify(text, record)
        right += good
        mark = "?" if record is None else "✓" if good else "✗"
        on, off = (GREEN if good else RED, PLAIN) if colours and record is not None else ("", "")
        print(f"{on}{mark} {live.sum():>4} tokens  {text}{off}")
    lengths = np.asarray(rollout.lengths)
    verdict = f"{right} of {attempts} right, " if record is not None else ""
    print(f"{verdict}{lengths.mean():.1f} tokens on average")


def read_prompt(task: Task, prompt: str) -> tuple[np.ndarray, np.ndarray]:
    """A prompt as the model sees it. Raises UserError for unknown words or too many of them."""
    ids = [task.tokenizer.bos, *task.tokenizer.encode(task.wrap(prompt))]
    if len(ids) > task.prompt_slots:
        raise UserError(f"--prompt has {len(ids)} tokens, the task {task.name!r} has room for {task.prompt_slots}")
    return pad_batch([ids], task.prompt_slots, task.tokenizer.pad, left=True)


if __name__ == "__main__":
    launch.main(run, writes=False, stage="rl", prompt="", problem=0, attempts=15, seed=0)
