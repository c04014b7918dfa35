"""rljax: reinforcement learning for reasoning language models, in JAX, as a few pure functions.

    ask for problems -> sample many attempts at each -> verify them -> compare within the group -> push the policy

The rooms are modules; import the one you need, for example ``from rljax import policy_gradient``. This file imports
nothing, so that ``rljax.verifiers`` can be used where JAX is not.
"""
