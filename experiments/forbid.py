"""What is a strategy worth? The same policy with it and without it: the tokens that would begin it are never sampled.

    rljax forbid --workdir runs/emergence/three_kinds_pay/seed_0 --strategy three_kinds

The strategy is one that the task can tell from tokens and forbid (``Task.forbidden``). Both numbers are of the same held-out
problems with the same random numbers; the interval is of the difference, paired by problem.
"""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from rljax import metrics
from rljax.distributed import processes
from rljax.errors import UserError
from rljax.evaluation.forbidding import attempt_without
from rljax.structs import ConfigTree
from rljax.tasks.batches import problem_fn
from rljax.training import command_line, initial_state, journal
from rljax.training.command_line import Flag
from rljax.training.run import resolve


def run(config: ConfigTree, workdir: Path, stage: str, strategy: str, attempts: int, problems: int, step: str) -> None:
    given = {name: value for name, value in (("attempts", attempts), ("problems", problems)) if value}
    config = config.copy_and_resolve_references()
    config.eval.update(given)
    with command_line.name_flags({f"eval.{name}": name for name in given}):
        run = resolve(config)
    if not strategy:
        raise UserError(
            f"--strategy: name one of {', '.join(run.task.forbidden) or 'none: this task can forbid nothing'}"
        )
    params = initial_state.start_params(run, initial_state.at_step(stage, step), workdir)
    e = run.evaluation
    asked = problem_fn(run.task)(run.seed, jnp.arange(e.problems), e.split)
    settings: dict[str, Any] = dict(
        attempts=e.attempts,
        max_new_tokens=run.rl.sampling.max_new_tokens,
        temperature=e.temperature,
        seed=run.seed,
    )
    free, without = (attempt_without(params, run.model, run.task, asked, name, **settings) for name in ("", strategy))
    difference = (free.reward - without.reward).mean(-1)
    half = metrics.half_width(metrics.standard_error(difference), len(difference))
    found = {
        "strategy": strategy,
        "pass@1": float(free.reward.mean()),
        "pass@1 without it": float(without.reward.mean()),
        "difference": float(difference.mean()),
        "half width": half,
        "shown although forbidden": float(without.shows.mean()),
        "tokens forbidden an attempt": float(without.forbidden.mean()),
    }
    if processes.is_primary():
        journal.replace_text(workdir / f"without_{strategy}.json", json.dumps(found) + "\n")
        print(
            f"pass@1 {found['pass@1']:.3f}; {found['pass@1 without it']:.3f} without {strategy!r}: "
            f"a difference of {found['difference']:+.3f} ± {half:.3f}"
        )


def main() -> None:
    command_line.main(
        run,
        use="read",
        stage=Flag("rl", "the stage whose policy attempts the problems"),
        strategy=Flag("", "the strategy that is forbidden"),
        attempts=Flag(0, "attempts at each problem; 0: what config.eval says", high=1 << 20),
        problems=Flag(0, "problems to ask; 0: what config.eval says", high=1 << 20),
        step=Flag("", "the checkpoint: a step, best or last; without it the last, of a finished stage"),
    )


if __name__ == "__main__":
    main()
