"""The question of the report: attempts at one question of the user's own, before RL and after it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import evaluation, rewards
from rljax.evaluation.samples import Sample, decode_attempts, make_samples
from rljax.sampler import Sampling, check_window
from rljax.structs import KeyTag, Problems
from rljax.text import pad_batch
from rljax.training.run import Run

WIDTH = 64  # the prompt is padded to a multiple of this
NAME = "question"  # of the files with its attempts: samples/question_step_000000.jsonl


def ask_question(run: Run, params: Any) -> list[Sample]:
    """``eval.attempts`` attempts of these parameters at ``report.question``, sampled as an evaluation samples, with rewards.

    A prompt may have worked examples, and be longer than those of the run's own problems. Raises UserError where it does not
    fit the model's window.
    """
    task, asked = run.task, run.evaluation
    record = task.read_prompt(run.report.question) if task.read_prompt else None
    assert record is not None, "checked where the run was made"
    wrapped = lambda: [task.tokenizer.bos, *task.tokenizer.encode(task.format_question(run.report.question))]
    ids = task.prompt_ids(run.report.question) if task.prompt_ids else wrapped()
    prompt, mask = pad_batch([ids], -(-len(ids) // WIDTH) * WIDTH, task.tokenizer.pad, left=True)
    check_window(run.model, prompt.shape[1], run.rl.sampling.max_new_tokens)
    sampling = Sampling(
        group_size=asked.attempts,
        max_new_tokens=run.rl.sampling.max_new_tokens,
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        stop_ids=task.tokenizer.stop_ids,
        stop_strings=task.stops,
    )
    problems = Problems(jnp.asarray(prompt), jnp.asarray(mask), ())
    key = jax.random.fold_in(jax.random.key(run.seed), KeyTag.EVALUATION)
    rollout = evaluation.sample_in_parts(sampling, run.model, params, problems, key, asked.rows)
    columns = {
        name: np.asarray(rewards.by_group(getattr(rollout, name), asked.attempts))
        for name in ("response", "mask", "finished", "logprobs")
    }
    texts, attempts = decode_attempts(task, columns, [record])
    reward = np.array([[float(task.verify(text, record)) for text in texts[0]]], np.float32)
    return make_samples(task, problems, [record], reward, columns, texts, attempts, 1)
