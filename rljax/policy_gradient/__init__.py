"""Which tokens to make likelier, and by how much. An algorithm is a row of ``ALGORITHMS``: each part is a name with options.

algorithms.py   the algorithms of the literature         objective.py   what an algorithm computes: advantages, token losses
advantages.py   one advantage for each attempt           returns.py     advantages by token: REINFORCE++, GAE
selection.py    which attempts to imitate                groups.py      exact statistics of groups
distillation.py a teacher's word on each token
losses.py       surrogates, from REINFORCE to VESPO      kl.py          k1, k2, k3, |x| and their gradients
aggregation.py  token weights: from token losses to the loss
tokens.py       tokens that are treated apart            corrections.py importance weights of a sampler that differs
choices.py      "ppo_clip(low=0.2, high=0.28)"

All functions are pure. Losses are minimised. Arrays are [B, G, T] (prompts, attempts, tokens) or [N, T] with N = B G; the
attempts at one prompt are neighbours. Log-probabilities are float32, in nats, at the sampling temperature.
"""

from rljax.policy_gradient import advantages, choices, kl, losses, returns, selection, tokens
from rljax.policy_gradient.advantages import (
    batch_std,
    gdpo,
    gpg,
    grpo,
    max_at_k,
    maxrl,
    mean_center,
    opo,
    passk_best,
    passk_training,
    pkpo,
    raw,
    remax,
    rloo,
    whiten_seq,
)
from rljax.policy_gradient.aggregation import AGGREGATIONS, aggregate, weights
from rljax.policy_gradient.algorithms import ADVANTAGE, ALGORITHMS, BINARY, NEEDS_GROUP, SELECTS, TABLES, Algorithm
from rljax.policy_gradient.corrections import is_weights, near_policy
from rljax.policy_gradient.kl import k1, k2, k3
from rljax.policy_gradient.losses import (
    MAX_LOG_RATIO,
    SURROGATE,
    cispo,
    clip_cov,
    decoupled_ppo,
    dppo,
    dro,
    gmpo,
    gspo,
    gspo_token,
    imitation,
    kl_cov,
    luspo,
    ppo_clip,
    ratio,
    reinforce,
    sapo,
    stop_gradient,
    value_clipped,
    vespo,
    where_counted,
)
from rljax.policy_gradient.objective import (
    Attempts,
    check_inputs,
    choose_tokens,
    clipped,
    compute_advantages,
    correction_weights,
    token_loss,
    token_weights,
)
from rljax.policy_gradient.returns import gae, gae_length_adaptive, rf_pp, rf_pp_baseline, whiten
from rljax.policy_gradient.selection import all_correct, best_of_n, distinct
