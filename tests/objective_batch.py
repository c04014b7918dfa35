"""A batch on which objectives break: what the tests of advantages and of surrogates share."""

import numpy as np

B, G, T = 5, 4, 6


def near(a, b, atol=1e-9):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def batch(seed=0):
    """Unequal lengths, a tool's tokens in the middle of a response, an empty row, and groups that agree on 0, 1, .1."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, T + 1, (B, G))
    lengths[1, 2], lengths[2, 0] = 0, T
    mask = (np.arange(T) < lengths[..., None]).astype(float)
    mask[2, 0, 2:4] = 0
    rewards = rng.normal(size=(B, G))
    rewards[2:] = np.array([0.0, 1.0, 0.1])[:, None]
    rewards[0] = [1, 0, 0, 1]
    names = ("logp", "old_logprobs", "ref_logprobs", "behaviour_logprobs")
    out = {name: (-1 + 0.4 * rng.normal(size=mask.shape)) * mask for name in names}
    return out | dict(mask=mask, rewards=rewards, values=rng.normal(size=mask.shape) * mask, greedy=rng.normal(size=B))


D = batch()
ADVANTAGE_OF_BATCH = np.random.default_rng(7).normal(size=(B, G))
