"""Small RL configs that can be one vmapped program: one layer, random weights, and a reward that a few attempts get."""

import jax.numpy as jnp

from configs import shop

RUN_CHANGES = (  # the settings in which three runs differ
    {"seed": 3, "rl.row.kl": "k3(coef=0.1)"},
    {"seed": 4, "rl.temperature": 0.8, "rl.optimizer.learning_rate": 3e-3},
    {"seed": 5, "rl.row.surrogate": "ppo_clip(low=0.05, high=0.1)"},
)


def make_config(**changes):
    """configs/shop.py with three steps of two updates, from random weights; micro-batches have two widths."""
    config = shop.get_config("short")
    config.model.layers, config.model.width, config.workers = 1, 32, 0
    config.rl.update(
        dict(start="", steps=3, max_new_tokens=12, micro_batch=4, widths=(5,), updates=2, algorithm="grpo")
    )
    config.rl.top_p = 0.9  # rollouts with a sampling mask
    config.rl.optimizer.learning_rate, config.rl.optimizer.warmup = 1e-2, 0
    config.rl.optimizer.eps = 1e-3  # with a smaller one, Adam makes a full step of a gradient that is only rounding
    config.eval.update(dict(problems=4, attempts=2))
    config.update_from_flattened_dict(changes)
    return config


def score_first_number(tokenizer, response, mask, finished, facts):
    """A reward in place of the task's own: 1 for a response that begins with a number below 12, otherwise 0."""
    number = (response[..., 0] >= tokenizer.zero) & (response[..., 0] < tokenizer.zero + 12)
    return (number & mask[..., 0]).astype(jnp.float32)
