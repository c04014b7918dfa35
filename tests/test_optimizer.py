"""Every option of every optimizer acts or is refused; what clipping and weight decay act on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rljax import transformer
from rljax.errors import UserError
from rljax.learner.optimizer import OPTIMIZERS, OptimizerOptions, make_optimizer, optimizer_groups
from rljax.options import declared

MODEL = transformer.Config(vocab_size=9, width=16, heads=2, kv_heads=1, head_width=8, ff_width=24, layers=1)
STEPS = 8
MOVED = {  # another value of every option, allowed by its range
    "name": None,  # the parameter of the test
    "learning_rate": 0.02,
    "schedule": "linear",
    "warmup": 4,
    "final": 0.5,
    "b1": 0.5,
    "b2": 0.5,
    "eps": 1e-2,
    "weight_decay": 0.5,
    "decay_embeddings": False,
    "clip_norm": 0.01,
    "clip_scope": "all",
    "moment_dtype": "bfloat16",
    "offload": True,
}
REFUSED = {
    "sgd": {"b1", "b2", "eps", "moment_dtype", "offload"},
    "muon": {"moment_dtype"},
    "adamw": set(),
}
ONE_GROUP = {("adamw", "clip_scope"), ("sgd", "clip_scope")}  # all weights are one group: both words say the same


@pytest.fixture(scope="module")
def params():
    return jax.jit(transformer.init, static_argnums=0)(MODEL, jax.random.key(0))


def gradients(params, number):
    """A gradient of another size in every update, so that clipping and the decays of moments matter."""
    draw, scale = np.random.default_rng(number), 0.1 * 3.0**number
    return jax.tree.map(lambda x: jnp.asarray(scale * draw.normal(size=x.shape), x.dtype), params)


def learn(options, params, gradient=gradients, steps=STEPS):
    tx = make_optimizer(options, MODEL, STEPS)

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for number in range(steps):
        params, state = step(params, state, gradient(params, number))
    return params


def largest_difference(a, b):
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


BASE = {name: OptimizerOptions(name=name, learning_rate=0.01, warmup=2) for name in OPTIMIZERS}
LEARNED = {}


def learned(name, params):
    if name not in LEARNED:
        LEARNED[name] = learn(BASE[name], params)
    return LEARNED[name]


def test_every_option_has_another_value_here():
    assert set(MOVED) == set(declared(OptimizerOptions)) == {f.name for f in dataclasses.fields(OptimizerOptions)}
    for option, known in declared(OptimizerOptions).items():
        assert option == "name" or (not known.problem(MOVED[option]) and MOVED[option] != getattr(BASE["muon"], option))


@pytest.mark.parametrize("option", [o for o in MOVED if o not in ("name", "offload")])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_option_of_every_optimizer_changes_the_weights_or_is_refused(name, option, params):
    moved = dataclasses.replace(BASE[name], **{option: MOVED[option]})
    if option in REFUSED[name]:
        with pytest.raises(UserError, match=rf"^rl.optimizer.{option}="):
            moved.check("rl.optimizer.")
        with pytest.raises(UserError, match=option):
            make_optimizer(moved, MODEL, STEPS)
        return
    moved.check("rl.optimizer.")
    difference = largest_difference(learned(name, params), learn(moved, params))
    assert difference == 0 if (name, option) in ONE_GROUP else difference > 1e-6


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_an_optimizer_without_moments_refuses_to_offload_them(name, params):
    moments = sum(x.size > 1 for x in jax.tree.leaves(make_optimizer(BASE[name], MODEL, 1).init(params)))
    try:
        dataclasses.replace(BASE[name], offload=True).check("rl.optimizer.")
    except UserError as e:
        assert "offload=True" in str(e) and moments == 0
    else:
        assert moments >= len(jax.tree.leaves(params))


def test_a_share_of_a_constant_rate_at_its_end_is_refused():
    with pytest.raises(UserError, match="final=0.5 with schedule='constant'"):
        OptimizerOptions(schedule="constant", final=0.5).check("rl.optimizer.")
    OptimizerOptions(schedule="constant").check("rl.optimizer.")


@pytest.mark.parametrize("option", ["b1", "b2"])
def test_a_moment_that_never_moves_is_refused(option):
    with pytest.raises(UserError, match=f"{option}=1.0: must be below 1"):
        OptimizerOptions(**{option: 1.0}).check("rl.optimizer.")


def test_a_short_moment_that_would_never_decay_is_refused(params):
    decay = lambda b1: OptimizerOptions(learning_rate=0.01, b1=b1, moment_dtype="bfloat16")
    for b1 in (0.996, 0.999):
        with pytest.raises(UserError, match=f"^rl.optimizer.b1={b1} with moment_dtype='bfloat16'.*b1=0.995 or less"):
            decay(b1).check("rl.optimizer.")
    moment = {"w": jnp.linspace(1.0, 2.0, 1000).astype(jnp.bfloat16)}
    tx = optax.scale_by_adam(b1=0.995, mu_dtype=jnp.bfloat16)
    state = tx.init({"w": jnp.zeros(1000)})
    _, after = tx.update({"w": jnp.zeros(1000)}, state._replace(mu=moment))
    assert (after.mu["w"] < moment["w"]).all()
    decay(0.995).check("rl.optimizer.")


def test_an_eps_of_zero_is_out_of_range():
    assert "above 0" in declared(OptimizerOptions)["eps"].problem(0.0)


@pytest.mark.parametrize("embeddings", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_matrices_decay_by_rate_times_weight_decay_and_norms_do_not(name, embeddings, params):
    """With a gradient of zero, only the decay is left."""
    options = OptimizerOptions(
        name=name, learning_rate=0.1, schedule="constant", warmup=0, weight_decay=0.5, decay_embeddings=embeddings
    )
    after = learn(options, params, lambda p, number: jax.tree.map(jnp.zeros_like, p), steps=1)
    for path, (old, new) in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda a, b: (a, b), params, after), is_leaf=lambda x: isinstance(x, tuple)
    ):
        key = jax.tree_util.keystr(path)
        still = "norm" in key or (not embeddings and key in ("['embedding']", "['head']"))
        np.testing.assert_allclose(new, old * (1.0 if still else 0.95), rtol=1e-6, err_msg=key)


def huge_embedding(params, number):
    grads = gradients(params, 0)
    return grads | {"embedding": 1e12 * grads["embedding"]}


def test_a_huge_gradient_of_the_embedding_does_not_stop_the_matrices_of_muon(params):
    """They move as far as without it; under one norm for all weights they stand still."""

    def change(gradient, **options):
        after = learn(dataclasses.replace(BASE["muon"], weight_decay=0.0, warmup=0, **options), params, gradient, 1)
        moved = jax.tree.map(lambda a, b: float(jnp.linalg.norm(a - b)), params, after)
        groups = jax.tree.leaves(optimizer_groups(MODEL))
        return np.array([x for x, group in zip(jax.tree.leaves(moved), groups, strict=True) if group == "muon"])

    usual = change(lambda p, number: gradients(p, 0))
    np.testing.assert_allclose(change(huge_embedding), usual, rtol=1e-4)
    assert (change(huge_embedding, clip_scope="all") < 0.05 * usual).all()


def test_the_layers_matrices_belong_to_muon_and_the_rest_to_adamw():
    groups = optimizer_groups(dataclasses.replace(MODEL, layers=2))
    assert groups["embedding"] == groups["head"] == groups["norm"] == groups["layers"][0]["mlp_norm"] == "adamw"
    assert groups["layers"][0]["up"] == groups["layers"][1]["query"]["kernel"] == "muon"
