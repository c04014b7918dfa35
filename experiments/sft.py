"""Supervised fine-tuning: imitate demonstrations.

python -m experiments.sft --config configs/shop.py --workdir runs/shop
"""

from pathlib import Path

from rljax import data, launch, settings, sharding, stages, starts
from rljax.settings import Settings
from rljax.structs import ConfigTree


def make_batch(s: Settings, split: str, start: int, count: int) -> data.Batch:
    """Demonstrations number ``start`` .. of a split."""
    c = s.config.sft
    distinct = c.distinct if split == "train" else 0

    def make(start: int, count: int) -> data.Batch:
        return data.demonstrations(
            s.task, s.config.seed, start, count, c.max_new_tokens, split=split, distinct=distinct
        )

    return sharding.by_rows(make, start, count, s.model.layout)


def run(config: ConfigTree, workdir: Path) -> None:
    s, c = settings.resolve(config, "sft"), config.sft
    split = settings.split(s, c, s.task.prompt_slots)
    update, measure = settings.supervised(s, c, split)
    held_out = make_batch(s, "validation", 0, 8 * c.batch)
    look = settings.evaluator(s)

    def iteration(state):
        batch = make_batch(s, "train", int(state.step) * c.batch, c.batch)
        return update(state, batch)

    def evaluate(params):
        metrics, samples = look(params)
        return {"eval/loss": measure(params, held_out)} | metrics, samples

    state = starts.new_state(s, c, starts.start_params(s, c.start, workdir))
    stages.train("sft", state, iteration, evaluate, score="-eval/loss", **settings.loop(s, "sft", workdir))


if __name__ == "__main__":
    launch.main(run)
