"""The critic of PPO: V(prefix), the expected reward after what has been written so far.

A critic is a pytree: ``head``, a vector on the hidden states; and, unless it reads the policy's own layers, ``trunk``, a
transformer of the same architecture without its vocabulary head. V_t is read where token t is about to be chosen, so values
stand beside the log-probabilities: column j belongs to the token at column start + j.
"""

from typing import Any

import jax
import jax.numpy as jnp

from rljax import transformer

Array = jax.Array
TRUNKS = ("own", "policy")


def init_critic(params: transformer.Params, trunk: str = "own") -> dict[str, Any]:
    """A critic that predicts 0 everywhere. Its trunk: "own" starts as a copy of the policy's, "policy" is the policy's."""
    head = {"head": jnp.zeros(params["norm"].shape, jnp.float32)}
    if trunk == "policy":
        return head
    copied = {k: v for k, v in params.items() if k != "head"}
    return head | {"trunk": jax.tree.map(jnp.copy, copied)}


def critic_values(
    critic: dict[str, Any],
    params: transformer.Params,
    config: transformer.Config,
    tokens: Array,
    mask: Array,
    start: int,
) -> Array:
    """[B, S - start] float32: the value before each token from column ``start`` on; 0 where the mask is False.

    tokens, mask [B, S]. ``params`` are the policy's: a critic with a trunk of its own does not read them.
    """
    trunk = critic.get("trunk", params)
    x = transformer.hidden_states(trunk, config, tokens, mask)[:, start - 1 : -1]
    out = jnp.einsum("bsd,d->bs", x.astype(jnp.promote_types(x.dtype, jnp.float32)), critic["head"])
    return jnp.where(mask[:, start:], out, 0.0)


def explained_variance(values: Array, returns: Array, mask: Array) -> Array:
    """1 - Var(R - V) / Var(R) over the tokens of the mask: 1 for a perfect critic, 0 for one that predicts the mean."""
    weight = mask.astype(returns.dtype) / jnp.maximum(mask.sum(), 1)
    values, returns = (jnp.where(mask > 0, x, 0.0) for x in (values, returns))
    variance = lambda x: jnp.sum(weight * (x - jnp.sum(weight * x)) ** 2)
    total = variance(returns)
    return jnp.where(total > 0, 1 - variance(returns - values) / jnp.where(total > 0, total, 1.0), 0.0)
