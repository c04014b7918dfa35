"""A run of many steps does not grow: what a step leaves behind does not add up. ``benchmarks.soak`` measures a whole run."""

import logging

import jax
import pytest

from configs import shop
from experiments import rl
from rljax import transformer
from rljax.training import initial_state
from rljax.training.rl_steps import compile_train_step
from rljax.training.run import resolve


@pytest.mark.parametrize("reward", ["correct", "correct + 0.1*repetition"], ids=["compiled", "hosted"])
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
