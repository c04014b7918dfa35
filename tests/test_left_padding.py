"""Left pads change nothing: positions count real tokens, so that a wider prompt slot is the same prompt."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import DEEPSEEK, EVERYTHING, SMALL, near, params_of, tokens_of

from rljax import sampler, transformer
from rljax.structs import Problems
from tests import exhaustive

PADS, LENGTH = 20, 6
MODELS = {  # of each kind of layer one
    "small": SMALL,
    "everything": dataclasses.replace(EVERYTHING, layers=2),
    "deepseek": dataclasses.replace(DEEPSEEK, layers=2, sliding=(False, True)),
}


def padded(pads):
    """Two prompts of LENGTH and LENGTH - 2 tokens, with so many pads more on the left; any id stands in a pad."""
    tokens, noise = tokens_of(2, LENGTH), tokens_of(2, pads, seed=1)
    mask = np.arange(LENGTH) >= np.asarray([[0], [2]])
    return np.concatenate([noise, tokens], 1), np.concatenate([np.zeros((2, pads), bool), mask], 1)


@pytest.mark.parametrize("name", exhaustive.cases(MODELS, lambda name: name != "everything"))
def test_twenty_left_pads_change_neither_samples_nor_the_log_probabilities_that_are_learned_from(name):
    config = MODELS[name]
    params = params_of(config)
    sampling = sampler.Sampling(group_size=2, max_new_tokens=8, stop_ids=(0, 1))
    sample = jax.jit(sampler.make_sampler(sampling, config))
    plain, wide = (
        sample(params, Problems(*map(jnp.asarray, padded(pads)), ()), jax.random.key(0)) for pads in (0, PADS)
    )
    np.testing.assert_array_equal(plain.response, wide.response)
    np.testing.assert_array_equal(plain.mask, wide.mask)
    near(plain.logprobs, wide.logprobs, 1e-5)

    def score(params, rollout, pads):
        prompt, mask = (np.repeat(x, 2, 0) for x in padded(pads))
        tokens = jnp.concatenate([prompt, rollout.response], 1)
        whole = jnp.concatenate([mask, rollout.mask], 1)
        logprobs, _ = transformer.token_logprobs(params, config, tokens, whole, 1.0, LENGTH + pads)
        logprobs = jnp.where(rollout.mask, logprobs, 0.0)
        return logprobs.sum(), logprobs

    gradient = jax.jit(jax.grad(score, has_aux=True), static_argnums=2)
    (ours, of_plain), (theirs, of_wide) = (gradient(params, r, pads) for pads, r in ((0, plain), (PADS, wide)))
    near(of_wide, of_plain, 1e-5)
    near(of_wide, wide.logprobs, 1e-4)
    jax.tree.map(lambda a, b: near(a, b, 1e-3), ours, theirs)
