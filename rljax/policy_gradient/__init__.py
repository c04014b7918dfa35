"""What to make likelier, and by how much. An algorithm is a row: advantage x surrogate x aggregation x KL, and filters.

    algorithms.py    the rows of the literature                          objective.py  what a row does: compare, token_loss
    advantages.py    how much better an attempt was than the others      returns.py    the same by token; GAE
    selection.py     which attempts to imitate                           groups.py     exact statistics
    losses.py        surrogates, from REINFORCE to VESPO                 kl.py         k1, k2, k3, |x| and their gradients
    aggregation.py   from token losses to the loss                       tokens.py     tokens that are treated apart
    corrections.py   when the sampler is not quite the policy            choices.py    "ppo_clip(low=0.2, high=0.28)"

All functions are pure. Losses are minimised. Arrays are [B, G, T] (prompts, attempts, tokens) or [N, T] with N = B G, a
group's rows being neighbours; log-probabilities are float32 nats at the sampling temperature.
"""

from rljax.policy_gradient import advantages, choices, kl, losses, returns, selection, tokens
from rljax.policy_gradient.advantages import *  # noqa: F403
from rljax.policy_gradient.aggregation import AGGREGATIONS, aggregate, weights
from rljax.policy_gradient.algorithms import ADVANTAGE, ALGORITHMS, BINARY, NEEDS_GROUP, SELECTS, TABLES, Algorithm
from rljax.policy_gradient.corrections import is_weights, near_policy
from rljax.policy_gradient.kl import k1, k2, k3
from rljax.policy_gradient.losses import *  # noqa: F403
from rljax.policy_gradient.objective import (
    Attempts,
    choose_tokens,
    clipped,
    compare,
    correction_weights,
    token_loss,
    token_weights,
)
from rljax.policy_gradient.returns import whiten
from rljax.policy_gradient.selection import all_correct, best_of_n, distinct
