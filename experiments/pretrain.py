"""Pretraining: predict the next token of raw text, the task's own textbook or a file.

python -m experiments.pretrain --config configs/shop.py --workdir runs/shop
"""

from pathlib import Path

from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.tasks import batches
from rljax.training import initial_state, launch, loop, settings
from rljax.training.settings import Settings

HELD_OUT_SEED = 1 << 30  # added to the seed: pages that training never draws


def make_pages(s: Settings):
    """``pages(split, start, count) -> batch``: windows of a text file where the config names one, else textbook pages.

    ``pretrain.worked`` of them are worked problems in their place.
    """
    c, seed = s.config.pretrain, s.config.seed
    of = {"train": seed, "validation": seed + HELD_OUT_SEED}
    if not 0 <= c.worked <= 1:
        raise UserError(f"pretrain.worked={c.worked}: a share of the pages is between 0 and 1")
    if not c.text_file:
        make = lambda split: lambda start, count: batches.page_batch(s.task, of[split], start, count, c.length)
    else:
        train, held_out = batches.read_text_file(c.text_file, s.task.tokenizer, c.length)
        texts = {"train": train, "validation": held_out}
        make = lambda split: lambda start, count: batches.text_file_batch(texts[split], seed, start, count, c.length)

    def some(split: str):
        worked = lambda start, count: batches.add_worked_problems(
            make(split)(start, count), s.task, of[split], start, c.worked
        )
        return worked if c.worked else make(split)

    return lambda split, start, count: sharding.by_rows(some(split), start, count, s.model.layout)


def run(config: ConfigTree, workdir: Path) -> None:
    s, c = settings.resolve(config, "pretrain"), config.pretrain
    pages = make_pages(s)
    update, measure = settings.supervised(s, c, settings.split(s, c, 0))
    held_out = pages("validation", 0, 4 * c.batch)

    def iteration(state):
        return update(state, pages("train", int(state.step) * c.batch, c.batch))

    def evaluate(params):
        return {"eval/loss": measure(params, held_out)}, []

    state = initial_state.new_state(s, c, initial_state.start_params(s, c.start, workdir))
    loop.train("pretrain", state, iteration, evaluate, score="-eval/loss", **settings.loop(s, "pretrain", workdir))


if __name__ == "__main__":
    launch.main(run)
