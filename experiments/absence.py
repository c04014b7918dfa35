"""Search all text that a policy learns from before RL for a strategy: does any page or demonstration show it?

    rljax absence --config ablations/emergence --strategy three_kinds

reads every page and every demonstration of this config, as pretraining and SFT do, and counts the attempts that show the
strategy. It ends with status 1 where there is one.
"""

import sys

from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.tasks.absence import search_rows
from rljax.tasks.stage_data import pretraining_batches, sft_batches
from rljax.training import command_line
from rljax.training.command_line import Flag
from rljax.training.run import resolve


def run(config: ConfigTree, strategy: str = "") -> None:
    run = resolve(config)
    if not strategy:
        raise UserError(f"--strategy: name one of {', '.join(run.task.strategies)}")
    texts = {
        "pretrain": (pretraining_batches(run.pretrain.data, run.task, run.seed), run.pretrain),
        "sft": (sft_batches(run.sft.data, run.task, run.seed), run.sft),
    }
    total = 0
    for name, (batches, stage) in texts.items():
        if name not in run.stages:
            continue
        rows = stage.loop.steps * stage.data.batch
        seen = search_rows(run.task, strategy, batches, rows)
        print(
            f"{name}: {seen.rows} rows, {seen.attempts} attempts at problems, {seen.found} show {strategy!r}",
            flush=True,
        )
        if seen.first:
            print(f"  the first: {seen.first}")
        total += seen.found
    if total:
        sys.exit(1)


def main() -> None:
    command_line.main(run, use="none", strategy=Flag("", "the strategy to look for, a name of the task"))


if __name__ == "__main__":
    main()
