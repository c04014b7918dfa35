"""Pretraining: predict the next token of raw text, the task's own textbook or a file.

rljax pretrain --config shop --workdir runs/shop
"""

from pathlib import Path

from rljax.distributed import sharding
from rljax.structs import ConfigTree
from rljax.tasks.stage_data import pretraining_batches
from rljax.training import command_line, initial_state, loop
from rljax.training.bad_batches import supervised_recreate
from rljax.training.run import resolve
from rljax.training.supervised_steps import make_supervised_step


def run(config: ConfigTree, workdir: Path) -> None:
    run = resolve(config, "pretrain")
    stage, size = run.pretrain, run.pretrain.data.batch
    make_batch = pretraining_batches(stage.data, run.task, run.seed)
    batch = lambda split, start, count: sharding.make_sharded_rows(
        lambda first, rows: make_batch(split, first, rows), start, count, run.model.layout
    )
    update, measure = make_supervised_step(run, stage)
    held_out = batch("validation", 0, 4 * size)

    def train_step(state):
        return update(state, batch("train", int(state.step) * size, size))

    def evaluate(params):
        return {"eval/loss": measure(params, held_out)}, []

    state = initial_state.new_state(run, stage, initial_state.start_params(run, stage.start, workdir))
    recreate = supervised_recreate(lambda step: batch("train", step * size, size))
    settings = loop.settings(run, stage, workdir) | {"recreate_batch": recreate}
    loop.train("pretrain", state, train_step, evaluate, score="-eval/loss", **settings)


def main() -> None:
    command_line.main(run)


if __name__ == "__main__":
    main()
