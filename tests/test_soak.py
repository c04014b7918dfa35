"""A run of many steps does not grow: what a step leaves behind does not add up. ``benchmarks.soak`` measures a whole run."""

import logging

import jax
import pytest

from configs import shop
from experiments import rl
from rljax import transformer
from rljax.training import initial_state, journal
from rljax.training.rl_steps import compile_train_step
from rljax.training.run import resolve


def test_the_digest_of_records_is_kept_while_they_are_written_and_is_that_of_the_file(tmp_path, monkeypatch):
    """To read the whole file in every save would make a save longer and longer."""
    for begin in (-1, 1):  # also of a stage that continues
        other = journal.Journal(tmp_path, "sft", -1, 3, loggers=())
        log = journal.Journal(tmp_path, "rl", begin, 3, loggers=())
        for step in range(begin + 1, begin + 3):
            log.write_metrics(step, {"reward": step / 7, "word": float("nan")})
            other.write_metrics(step, {"loss": 1.0})
        with monkeypatch.context() as patch:
            patch.setattr(journal, "read_record_lines", None)
            found = log.sync()
        assert found == journal.digest_records(tmp_path, "rl", step)
        log.close(), other.close()


@pytest.mark.parametrize(
    "reward",
    [pytest.param("correct", marks=pytest.mark.exhaustive), "correct + 0.1*repetition"],
    ids=["compiled", "hosted"],
)
def test_nothing_is_compiled_from_the_third_step_on(reward, caplog):
    config = shop.get_config("short")
    config.model.layers, config.model.width, config.workers = 1, 32, 0
    config.rl.update(dict(max_new_tokens=8, widths=(), prompts=2, reward=reward))
    run = resolve(config, "rl")
    state = initial_state.new_state(run, run.rl, transformer.init(run.model, jax.random.key(3)))
    step = compile_train_step(rl.make_train_step, run)
    for _ in range(2):
        state, _ = step(state)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for _ in range(2):
            state, _ = step(state)
    assert [line for line in caplog.messages if "Compiling" in line] == []
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.jit(lambda x: x + 1)(2)
    assert any("Compiling" in line for line in caplog.messages)  # this is what it would have said
