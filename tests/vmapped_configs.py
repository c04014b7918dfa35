"""Small RL runs to compute together: one layer, random weights, and a verifier that rewards often enough to learn from."""

import jax.numpy as jnp

from configs import shop

APART = (  # what each of three runs has of its own
    {"seed": 3, "rl.row.kl": "k3(coef=0.1)"},
    {"seed": 4, "rl.temperature": 0.8, "rl.optimizer.learning_rate": 3e-3},
    {"seed": 5, "rl.row.surrogate": "ppo_clip(low=0.05, high=0.1)"},
)


def config_of(**changes):
    """configs/shop.py of three steps, two updates each, from random weights; micro-batches of two widths."""
    config = shop.get_config("short")
    config.model.layers, config.model.width, config.workers = 1, 32, 0
    config.rl.update(
        dict(start="", steps=3, max_new_tokens=12, micro_batch=4, widths=(5,), updates=2, algorithm="grpo")
    )
    config.rl.optimizer.learning_rate, config.rl.optimizer.warmup = 1e-2, 0
    config.rl.optimizer.eps = 1e-3  # with less, Adam makes a step of a gradient that is nothing but rounding
    config.eval.update(dict(problems=4, attempts=2))
    config.update_from_flattened_dict(changes)
    return config


def generous(tokenizer, response, mask, finished, facts):
    """In the place of the task's verifier: 1 for any response that begins with a number below 12."""
    number = (response[..., 0] >= tokenizer.zero) & (response[..., 0] < tokenizer.zero + 12)
    return (number & mask[..., 0]).astype(jnp.float32)
