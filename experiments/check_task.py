"""Check a world (its problems, demonstrations, verifiers) without a model: a table, and a line for each fault.

rljax check-task shop
rljax check-task shop --option prices=4 --option max_price=20
rljax check-task sums --plugin my_world.py
rljax check-task fruit_text --option level=1-6 --weights FOLDER
"""

import ast
import sys
from typing import Any

from rljax import options, tasks
from rljax.errors import UserError
from rljax.tasks import check
from rljax.text.hf_tokenizer import load_tokenizer
from rljax.training import command_line
from rljax.training.command_line import Flag


def run(
    task: str, plugin: list[str], option: list[str], seed: int, problems: int, train_draws: int, weights: str = ""
) -> None:
    options.load_plugins(plugin or [])
    if not task:
        raise UserError(f"--task says which task to check: one of {', '.join(tasks.TASKS)}")
    tokenizer = load_tokenizer(weights) if weights else None
    made = tasks.make_task(task, tokenizer, **dict(map(parse_option, option or [])))
    report = check.check_task(made, seed=seed, num_problems=problems, train_draws=train_draws)
    print(check.format_report(report))
    if report.faults:
        raise SystemExit(1)


def parse_option(text: str) -> tuple[str, Any]:
    """ "key=value" -> (key, value): a Python literal, else the text. Raises UserError for anything else."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise UserError(f"--option {text}: write --option key=value, for example --option prices=4")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def main() -> None:
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        sys.argv[1] = f"--task={sys.argv[1]}"
    command_line.main_without_config(
        run,
        task=Flag("", "the task to check, which may also stand alone as the first word"),
        plugin=Flag([], "FILE.py, a plug-in that adds the task"),
        option=Flag([], "KEY=VALUE, an option of the task"),
        seed=Flag(0, "of the problems"),
        problems=Flag(256, "problems to check", low=1, high=1 << 20),
        train_draws=Flag(10_000, "training problems that are compared with the test problems", high=1 << 20),
        weights=Flag("", "a Hugging Face folder, hub name or GGUF file, whose tokenizer reads the texts of the task"),
    )


if __name__ == "__main__":
    main()
