"""Attempts at one problem in the terminal, right ones green and wrong ones red: the lecture's demonstration.

    rljax sample --workdir runs/shop --stage rl --attempts 15
    rljax sample ... --prompt "Ben pays 14 for two of 6 3 2 11 9?"

Without ``--prompt`` it asks held-out problem number ``--problem``. A prompt of your own is answered in the same way; its
attempts are coloured where the task can read the problem from the text.

    rljax sample --model FOLDER --attempts 15 --prompt 'Emily buys 3 apples and 2 oranges. Each orange costs $2.
    The total cost of all the fruit is $13. What is the cost of each apple?'

asks any Hugging Face folder, in its own chat template if it has one. ``--answer 3`` says what is right where no
task here would put the problem in these words; without it the attempts' own majority is shown. ``--stop '\\n\\n' --stop Question:`` ends attempts there; for
a run it replaces the stop strings of its task.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rljax import evaluation, options, pretrained, sampler
from rljax.distributed import processes
from rljax.errors import UserError
from rljax.report.terminal import merge_equal_answers, print_attempts
from rljax.structs import ConfigTree, Problems
from rljax.tasks import Task, fruit, prompting, word_problems, wordings
from rljax.text import StopStrings, Tokenizer, find_stop_strings, pad_batch
from rljax.training import command_line, initial_state
from rljax.training.command_line import Flag
from rljax.training.run import resolve
from rljax.verifiers import answers

DEFAULT_ROWS = 256  # attempts sampled at once where no config says how many a rollout has


def run(
    config: ConfigTree,
    workdir: Path,
    stage: str,
    prompt: str,
    problem: int,
    attempts: int,
    seed: int,
    step: str = "",
    stop: Sequence[str] = (),
) -> None:
    check_attempts(attempts)
    run = resolve(config)
    task = run.task
    stops = find_stops(task.tokenizer, stop) or task.stops
    params = initial_state.start_params(run, initial_state.at_step(stage, step), workdir)
    if prompt:
        ids, mask = read_prompt(task, prompt)
        record = task.read_prompt(prompt) if task.read_prompt else None
    else:
        asked = task.problems(run.seed, jnp.asarray([problem]), "test")
        ids, mask, record = asked.prompt, asked.prompt_mask, task.records(asked.facts)[0]
    sampling = sampler.Sampling(
        group_size=attempts,
        max_new_tokens=run.rl.sampling.max_new_tokens,
        temperature=run.evaluation.temperature,
        stop_ids=task.tokenizer.stop_ids,
        stop_strings=stops,
    )
    asked = Problems(jnp.asarray(ids), jnp.asarray(mask), ())
    rollout = evaluation.sample_in_parts(sampling, run.model, params, asked, jax.random.key(seed), run.evaluation.rows)
    if processes.is_primary():
        print_attempts(
            task.tokenizer, rollout, (lambda text: task.verify(text, record)) if record is not None else None, stops
        )


def run_model(
    model: str,
    prompt: str,
    answer: str,
    attempts: int,
    tokens: int,
    template: str,
    dtype: str,
    seed: int,
    temperature: float,
    top_p: float,
    rows: int = 0,
    stop: Sequence[str] = (),
) -> None:
    """Ask a Hugging Face folder, without a config. Flags are checked before the weights are loaded."""
    if not prompt:
        raise UserError('--model needs a question: --prompt "..."')
    check_attempts(attempts)
    options.check(options.declared(sampler.Sampling)["max_new_tokens"], tokens, "--tokens")
    if rows < 0:
        raise UserError(f"--rows={rows}: must be at least 1, or 0 for {DEFAULT_ROWS}")
    if not 0 < top_p <= 1:
        raise UserError(f"--top_p={top_p}: must be above 0 and at most 1")
    config, params, tokenizer = pretrained.load(model, dtype or None)
    if tokenizer is None:
        raise UserError(f"--model: {model} has no tokenizer.json")
    words = prompting.make_prompt_format(
        template or (prompting.MODEL_TEMPLATE if tokenizer.chat_template else "r1_zero"), tokenizer
    )
    ids = words.prompt_ids(prompt)
    prompt_ids, mask = map(jnp.asarray, pad_batch([ids], -(-len(ids) // 64) * 64, tokenizer.pad, left=True))
    sampling = sampler.Sampling(
        group_size=attempts,
        max_new_tokens=tokens,
        temperature=temperature,
        top_p=top_p,
        stop_ids=tokenizer.stop_ids,
        stop_strings=find_stops(tokenizer, stop),
    )
    asked = Problems(prompt_ids, mask, ())
    rollout = evaluation.sample_in_parts(sampling, config, params, asked, jax.random.key(seed), rows or DEFAULT_ROWS)
    gold = answer or known_answer(prompt)
    prefill = words.template.prefill
    grade = lambda text: answers.grade_many([(prefill + text.removesuffix("<eos>"), gold)])[0].correct
    verify = grade if gold else None
    said = print_attempts(tokenizer, rollout, verify, sampling.stop_strings)
    found = [a for text in said if (a := answers.extract_answer(prefill + text)) is not None]
    for one, votes in Counter(merge_equal_answers(found)).most_common(3):
        print(f"{votes:>4} of {attempts} say {one}")


def known_answer(prompt: str) -> str:
    """The answer to a problem that a task of this package could have put in these words; "" where there is none."""
    problem, found = fruit.read_prompt(prompt), wordings.read_wording(prompt)
    steps = word_problems.calculate(*found) if found else None
    return str(problem["prices"][0]) if problem else str(steps[-1][3]) if steps else ""


def find_stops(tokenizer: Tokenizer, texts: Sequence[str]) -> StopStrings | None:
    """The stop strings of ``--stop``, where two characters "\\n" are a newline. Raises UserError for what is no stop string."""
    try:
        return find_stop_strings(tokenizer, [text.replace("\\n", "\n") for text in texts or ()])
    except UserError as e:
        raise UserError(f"--stop: {e}") from None


def check_attempts(attempts: int) -> None:
    """Raise UserError for a number of attempts that cannot be sampled."""
    options.check(options.declared(sampler.Sampling)["group_size"], attempts, "--attempts")


def read_prompt(task: Task, prompt: str) -> tuple[np.ndarray, np.ndarray]:
    """A prompt as the model sees it. Raises UserError for unknown words or too many of them."""
    wrapped = lambda: [task.tokenizer.bos, *task.tokenizer.encode(task.format_question(prompt))]
    ids = task.prompt_ids(prompt) if task.prompt_ids else wrapped()
    if len(ids) > task.prompt_slots:
        raise UserError(f"--prompt has {len(ids)} tokens, the task {task.name!r} has room for {task.prompt_slots}")
    return pad_batch([ids], task.prompt_slots, task.tokenizer.pad, left=True)


def main() -> None:
    attempts = Flag(15, "attempts at the problem", low=1)
    stop = Flag([], "TEXT, a text that ends an attempt, as the stop token does; \\n is a newline")
    prompt = Flag("", "a problem of your own")
    model = dict(
        model=Flag("", "the Hugging Face folder, hub name or GGUF file to ask"),
        prompt=prompt,
        answer=Flag("", "the right answer, where the task is not known"),
        attempts=attempts,
        tokens=Flag(512, "most tokens of an attempt", low=1),
        template=Flag("", "the prompt's template; without it the folder's own chat template, or r1_zero"),
        dtype=Flag("", "of the weights: float32 or bfloat16; without it as in the folder"),
        temperature=Flag(0.6, "of sampling; 0: the likeliest token"),
        top_p=Flag(0.95, "of sampling", high=1.0),
        rows=Flag(0, f"attempts sampled at once; 0: at most {DEFAULT_ROWS}"),
        seed=Flag(0, "of sampling"),
        stop=stop,
    )
    if command_line.find_flag(sys.argv, "model"):
        command_line.main_without_config(run_model, **model)
        return
    command_line.main(
        run,
        use="read",
        also={"without a run, --model=FOLDER": model},
        stage=Flag("rl", "the stage whose policy is asked"),
        prompt=prompt,
        problem=Flag(0, "number of the held-out problem, where there is no --prompt"),
        attempts=attempts,
        seed=Flag(0, "of sampling"),
        step=Flag("", "the checkpoint: a step, best or last; without it the last, of a finished stage"),
        stop=stop,
    )


if __name__ == "__main__":
    main()
