"""The end-to-end check on a real model: ``make real FOLDER=...``. Not a part of the tests, which need no weights.

    python -m tests.real_model FOLDER [--workdir runs/real] [--steps 18] [--level 2]

FOLDER is a Hugging Face folder or a GGUF file of a small model, SmolLM2-135M or Gemma 3 270M: about 12 minutes on two cores for the
first. One line for each part that holds; the first that does not ends the check with status 1. What is asserted:

    loads     English text comes back from its ids; logits are finite; the model expects English: a sentence costs it less than
              5 nats a token, and less than three quarters of what the same words cost in another order
    samples   of 8 attempts to go on with "The capital of France is", one at least names Paris
    check     `rljax check` finds right attempts and groups of mixed outcome on the easy level, and nothing that keeps RL from learning
    learns    the mean reward of the last third of the steps is above that of the first third by .05
    resumes   stopped halfway, the same command goes on: each step is logged once, in two sessions
    report    report.html shows a question before and after RL
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import pretrained, sampler, transformer
from rljax.errors import UserError
from rljax.text import prompt_ids
from rljax.training import journal

SENTENCE = "The cat sat on the mat and looked out of the window, because it had begun to rain."
CONFIGS = {"llama": "smollm2", "gemma3_text": "gemma3_270m"}  # by model_type


def main() -> None:
    p = argparse.ArgumentParser(prog="tests.real_model", description=(__doc__ or "").split("\n")[0])
    p.add_argument("folder", type=Path)
    p.add_argument("--workdir", type=Path, default=Path("runs/real"))
    p.add_argument("--steps", type=int, default=18, help="of RL")
    p.add_argument("--level", default="2", help="of the questions")
    a = p.parse_args()
    try:
        config, params, tokenizer = pretrained.load(a.folder, "float32")
        model_type = pretrained.folder.read_config_json(a.folder)[1]
    except UserError as e:
        sys.exit(f"error: {e}")
    if tokenizer is None or model_type not in CONFIGS:
        sys.exit(f"error: {a.folder} is {model_type}: the check is for {', '.join(CONFIGS)}, with a tokenizer")
    shutil.rmtree(a.workdir, ignore_errors=True)
    check_language(config, params, tokenizer)
    check_samples(config, params, tokenizer)
    del params
    command = [f"--config={CONFIGS[model_type]}:weights={a.folder.resolve()},level={a.level}"]
    command += ["--config.model.dtype=bfloat16", "--config.model.cache_dtype=bfloat16"]
    command += ["--config.eval.problems=24", f"--config.rl.eval_every={a.steps}"]
    check_diagnosis(command, a.workdir)
    check_learning([*command, f"--workdir={a.workdir}"], a.workdir, a.steps)


def hold(part: str, holds: Any, said: str) -> None:
    """Say what holds, or end with what does not."""
    print(f"{part:8} {'holds' if holds else 'FAILED'}: {said}", flush=True)
    if not holds:
        sys.exit(1)


def check_language(config: Any, params: Any, tokenizer: Any) -> None:
    words = SENTENCE.split()
    shuffled = " ".join(np.random.default_rng(0).permutation(words))
    costs = []
    for text in (SENTENCE, shuffled):
        ids = np.asarray(prompt_ids(tokenizer, [(text, False)]))
        logits = transformer.forward(params, config, jnp.asarray(ids[None]))
        hold("loads", np.isfinite(np.asarray(logits)).all(), f"logits of {len(ids)} tokens are finite")
        logprobs = jax.nn.log_softmax(logits[0, :-1])[np.arange(len(ids) - 1), ids[1:]]
        costs.append(-float(logprobs.mean()))
    back = tokenizer.decode(tokenizer.encode(SENTENCE))
    hold("loads", back == SENTENCE, f"{back!r} comes back from its ids")
    said = f"{costs[0]:.2f} nats a token, {costs[1]:.2f} in another order"
    hold("loads", costs[0] < 5 and costs[0] < 0.75 * costs[1], said)


def check_samples(config: Any, params: Any, tokenizer: Any) -> None:
    ids = np.asarray([prompt_ids(tokenizer, [("The capital of France is", False)])])
    how = dict(group_size=8, max_new_tokens=12, temperature=0.7, stop_ids=tokenizer.stop_ids)
    rollout = sampler.sample(params, config, jnp.asarray(ids), jnp.ones(ids.shape, bool), jax.random.key(0), **how)
    texts = [
        tokenizer.decode(row[:n])
        for row, n in zip(np.asarray(rollout.response), np.asarray(rollout.lengths), strict=True)
    ]
    hold("samples", any("Paris" in text for text in texts), f"the capital of France is{texts[0]!r}, and 7 more")


def check_diagnosis(command: list[str], workdir: Path) -> None:
    workdir.mkdir(parents=True)
    numbers = workdir / "check.json"
    rljax("check", *command, "--problems=24", "--steps=0", f"--json={numbers}")
    found = json.loads(numbers.read_text())
    pass_1, mixed = found["metrics"]["eval/pass@1"], found["metrics"]["eval/groups/mixed"]
    hold("check", 0 < pass_1 < 0.95 and mixed > 0, f"pass@1 {pass_1:.2f}, {mixed:.2f} of the groups are mixed")
    hold(
        "check", not found["findings"], f"{[f['name'] for f in found['findings']] or 'nothing'} keeps RL from learning"
    )


def check_learning(command: list[str], workdir: Path, steps: int) -> None:
    half = steps // 2
    rljax("rl", *command, f"--config.rl.steps={half}")
    rljax("rl", *command, f"--config.rl.steps={steps}")
    records = [r for r in journal.read_records(workdir / "metrics.jsonl") if "train/reward" in r]
    hold("resumes", [r["step"] for r in records] == list(range(1, steps + 1)), f"steps 1 to {steps}, each logged once")
    sessions = len(journal.read_records(workdir / "sessions.jsonl"))
    hold("resumes", sessions == 2, f"{sessions} sessions, the first ended at step {half}")
    rewards, third = [r["train/reward"] for r in records], max(1, steps // 3)
    first, last = statistics.mean(rewards[:third]), statistics.mean(rewards[-third:])
    hold("learns", last > first + 0.05, f"mean reward {first:.2f} in the first {third} steps, {last:.2f} in the last")
    rljax("plot", f"--workdir={workdir}")
    page = (workdir / "report.html").read_text()
    hold("report", "before and after RL" in page and "The answer is" in page, str((workdir / "report.html").absolute()))


def rljax(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", "rljax", *command])
    if done.returncode:
        sys.exit(f"rljax {' '.join(command)} ended with status {done.returncode}")


if __name__ == "__main__":
    main()
