"""Supervised fine-tuning: imitate demonstrations, or the samples of a file.

    python -m experiments.sft --config configs/shop.py --workdir runs/shop
    python -m experiments.sft ... --config.sft.file=rejection_sampling.jsonl       # what experiments.collect kept of a policy's attempts

The held-out loss is of the same kind: demonstrations of validation problems, or the samples of a twentieth of the file's problems.
"""

from pathlib import Path

from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.tasks import batches, rejection_sampling
from rljax.training import initial_state, launch, loop, settings
from rljax.training.settings import Settings


def make_batches(s: Settings):
    """``batches(split, start, count) -> batch``: demonstrations number ``start`` .. of a split, or a file's samples.

    ``sft.general`` of the rows to learn from are textbook pages in their place.
    """
    c, seed = s.config.sft, s.config.seed
    if c.file:
        train, held_out = rejection_sampling.read_sample_batches(c.file, s.task, seed, c.max_new_tokens)
        of = {"train": train, "validation": held_out}
        make = lambda split: lambda start, count: rejection_sampling.sample_batch(of[split], seed, start, count)
    else:
        distinct = {"train": c.distinct, "validation": 0}
        make = lambda split: (
            lambda start, count: batches.demonstration_batch(
                s.task, seed, start, count, c.max_new_tokens, split=split, distinct=distinct[split]
            )
        )
    if not 0 <= c.general <= 1:
        raise UserError(f"sft.general={c.general}: a share of the rows is between 0 and 1")

    def mixed(start: int, count: int) -> batches.Batch:
        return batches.add_page_rows(make("train")(start, count), s.task, seed, start, c.general)

    rows = {"train": mixed if c.general else make("train"), "validation": make("validation")}
    return lambda split, start, count: sharding.by_rows(rows[split], start, count, s.model.layout)


def run(config: ConfigTree, workdir: Path) -> None:
    s, c = settings.resolve(config, "sft"), config.sft
    split = settings.split(s, c, s.task.prompt_slots)
    update, measure = settings.supervised(s, c, split)
    batches = make_batches(s)
    held_out = batches("validation", 0, 8 * c.batch)
    look = settings.evaluator(s)

    def iteration(state):
        return update(state, batches("train", int(state.step) * c.batch, c.batch))

    def evaluate(params):
        metrics, samples = look(params)
        return {"eval/loss": measure(params, held_out)} | metrics, samples

    state = initial_state.new_state(s, c, initial_state.start_params(s, c.start, workdir))
    loop.train("sft", state, iteration, evaluate, score="-eval/loss", **settings.loop(s, "sft", workdir))


if __name__ == "__main__":
    launch.main(run)
