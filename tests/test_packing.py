"""Packed sequences: the gradient of the padded rows, without their padding, and each shared prompt computed once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import shop
from rljax import learner, transformer
from rljax import policy_gradient as pg
from rljax.errors import UserError
from rljax.learner.micro_batches import MicroBatching, score_rows
from rljax.learner.packing import Packing, pack_batch, place_rows
from rljax.structs import Experience, Rewards, Rollout, TrainState
from rljax.training.run import resolve
from tests import exhaustive

B, G, P, T, V = 3, 4, 5, 9, 13
SHAPE = dict(vocab_size=V, width=16, heads=2, kv_heads=1, head_width=8, ff_width=24, layers=1)
MODEL = transformer.Config(**SHAPE, weight_dtype="float64", dtype="float64")
W = 32
# An algorithm sees log-probabilities, entropies and values alone: where only it differs, the model is the smallest policy,
# in which each token says how likely the next one is.
BIGRAM = dataclasses.replace(MODEL, layers=0)


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def make_rollout(seed=0, rows=B * G, sampling_mask=False):
    """Attempts of all lengths from 0 to T, behind prompts of 1 to P tokens."""
    rng = np.random.default_rng(seed)
    lengths, prompts = rng.integers(0, T + 1, rows), np.repeat(rng.integers(1, P + 1, rows // G), G)
    lengths[:2] = 0, T
    mask = np.arange(T) < lengths[:, None]
    kept = rng.random((rows, T, V)) < 0.5
    response = rng.integers(2, V, (rows, T))
    kept[np.arange(rows)[:, None], np.arange(T), response] = True
    return Rollout(
        prompt=jnp.asarray(np.repeat(rng.integers(2, V, (rows // G, P)), G, 0), jnp.int32),
        prompt_mask=jnp.asarray(np.arange(P) >= P - prompts[:, None]),
        response=jnp.asarray(np.where(mask, response, 0), jnp.int32),
        mask=jnp.asarray(mask),
        logprobs=jnp.asarray(np.where(mask, -2 + 0.2 * rng.normal(size=(rows, T)), 0.0)),
        finished=jnp.asarray(lengths < T),
        sampling_mask=jnp.packbits(jnp.asarray(kept), axis=-1) if sampling_mask else None,
    )


@functools.partial(jax.jit, static_argnums=0)
def make_state(model):
    params, zero = transformer.init(model, jax.random.key(0)), jnp.zeros((), jnp.int32)
    reference = jax.tree.map(lambda p: p * 1.1, params)
    return TrainState(zero, params, optax.sgd(1.0).init(params), jax.random.key(7), zero, reference=reference)


def difference(a, b):
    return jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), a, b)


def norm(tree):
    return np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(tree)))


@functools.cache  # one compilation for each set of choices, shared by the tests
def compile_step(algorithm, micro_batching, model, update):
    settings = dict(update=update, micro_batching=micro_batching)
    policy_learner = learner.PolicyLearner(algorithm, model, optax.sgd(1.0), P, T, G, 0.8, **settings)
    reward = jnp.asarray(np.random.default_rng(3).integers(0, 2, (B, G)), float)

    def step(state, rollout):
        batch, _ = learner.compute_advantages(
            policy_learner, state, Experience(rollout, Rewards(reward, reward[..., None], {}))
        )
        return learner.update_policy(policy_learner, state, batch)

    return jax.jit(step)


def update(algorithm, rollout, micro_batching, model=MODEL, **options):
    """(the change of the parameters by the update of a rollout, its metrics)."""
    step, before = compile_step(algorithm, micro_batching, model, learner.UpdateOptions(**options)), make_state(model)
    state, metrics = step(before, rollout)
    return difference(before.params, state.params), metrics


def assert_same_update(packed, padded):
    assert norm(padded[0]) > 1e-4, "the gradient is zero: this test would prove nothing"
    assert norm(difference(packed[0], padded[0])) <= 1e-9 * norm(padded[0])
    assert packed[1].keys() == padded[1].keys()
    for name, value in padded[1].items():
        np.testing.assert_allclose(packed[1][name], value, rtol=1e-9, atol=1e-12, err_msg=name)


PADDED, PACKED = MicroBatching(5, (P + 4,)), MicroBatching(3, packing=Packing(W, P))
GRPO = dataclasses.replace(pg.ALGORITHMS["grpo"], kl="k3(coef=0.1)")
ALGORITHMS = {
    "GRPO with a KL term": (GRPO, {}),
    "ratios of sequences, several updates": (pg.ALGORITHMS["gspo"], dict(updates=2, epochs=2)),
    "prompts' means, an entropy bonus": (
        dataclasses.replace(pg.ALGORITHMS["dr_grpo"], aggregation="prompt_mean", entropy="bonus(coef=0.1)"),
        {},
    ),
    "tokens chosen by their entropy": (dataclasses.replace(GRPO, tokens="top_entropy(share=0.5)"), {}),
    "groups that agree left out": (dataclasses.replace(pg.ALGORITHMS["dapo"], groups="mixed"), {}),
}


@pytest.mark.parametrize("name", exhaustive.cases(ALGORITHMS, lambda name: name != "GRPO with a KL term"))
def test_the_update_is_that_of_padded_rows(name):
    algorithm, options = ALGORITHMS[name]
    rollout, model = make_rollout(), MODEL if algorithm is GRPO else BIGRAM
    packed, padded = (update(algorithm, rollout, m, model, **options) for m in (PACKED, PADDED))
    assert_same_update(packed, padded)


MODELS = {
    "sliding windows and a chunked head": dict(window=3, sliding=(True,), logprob_chunk=4, attention_chunk=7),
    "latent attention, scanned and recomputed": dict(
        kv_heads=2, latent=6, query_latent=6, rope_width=4, value_width=6, scan_layers=True, remat="layer"
    ),
    "experts": dict(experts=4, expert_width=8),
}


@pytest.mark.parametrize("name", exhaustive.cases(MODELS, lambda name: "sliding" not in name))
def test_the_update_is_that_of_padded_rows_in_every_kind_of_model(name):
    model = dataclasses.replace(MODEL, **MODELS[name])
    rollout = make_rollout(1)
    packed, padded = (update(GRPO, rollout, m, model) for m in (PACKED, PADDED))
    assert_same_update(packed, padded)


@pytest.mark.exhaustive
def test_the_update_is_that_of_padded_rows_over_the_tokens_that_the_sampler_kept():
    rollout = make_rollout(2, sampling_mask=True)
    model = dataclasses.replace(MODEL, logprob_chunk=5)
    assert_same_update(*(update(pg.ALGORITHMS["dr_grpo"], rollout, m, model) for m in (PACKED, PADDED)))


@pytest.mark.parametrize("rows, width", [(1, 14), (0, 64)])
def test_the_update_depends_neither_on_the_width_nor_on_the_micro_batch(rows, width):
    rollout = make_rollout(3)
    packed = update(GRPO, rollout, MicroBatching(rows, packing=Packing(width, P)))
    assert_same_update(packed, update(GRPO, rollout, PADDED))


@pytest.mark.parametrize("seed", range(2))
def test_log_probabilities_are_those_of_padded_rows_in_their_places(seed):
    rollout, params = make_rollout(seed), make_state(MODEL).params
    batch = learner.make_policy_batch(rollout, rollout.mask) | {"group": jnp.arange(B * G, dtype=jnp.int32) // G}
    policy_learner = learner.PolicyLearner(GRPO, MODEL, optax.sgd(1.0), P, T, G)
    score = lambda b: policy_learner.score(params, b)
    expected = jax.jit(lambda: score(batch))()
    found = jax.jit(lambda: score_rows(score, batch, P, PACKED))()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a[:, P:], b, rtol=1e-10, atol=1e-12)
        assert not a[:, :P].any() and float(jnp.abs(b).max()) > 1


@pytest.mark.exhaustive
def test_supervised_learning_on_packed_rows_is_that_on_padded_rows():
    rng = np.random.default_rng(0)
    lengths, before = rng.integers(0, 12, (7, 1)), rng.integers(0, 3, (7, 1))
    mask = jnp.asarray((np.arange(14) >= before) & (np.arange(14) < before + lengths))
    batch = {
        "tokens": jnp.asarray(rng.integers(1, V, (7, 14)), jnp.int32),
        "mask": mask,
        # a row's first token is learned nowhere: nothing predicts it
        "loss_mask": mask & jnp.asarray((np.arange(14) > before) & (rng.random((7, 14)) < 0.8)),
    }
    before = make_state(MODEL)
    step = jax.jit(learner.supervised_step, static_argnames=("model", "optimizer", "micro_batching"))
    loss = jax.jit(learner.supervised_loss, static_argnames=("model", "micro_batching"))
    settings, out = dict(model=MODEL, optimizer=optax.sgd(1.0)), []
    for micro_batching in (MicroBatching(2), MicroBatching(2, packing=Packing(20, 0))):
        state, metrics = step(before, batch, micro_batching=micro_batching, **settings)
        out.append((difference(before.params, state.params), metrics))
        held_out = loss(before.params, batch, model=MODEL, micro_batching=micro_batching)
        np.testing.assert_allclose(held_out, metrics["loss"], rtol=1e-12)
    assert_same_update(*reversed(out))


@pytest.mark.exhaustive
def test_vmapped_runs_of_different_lengths_each_have_the_gradient_of_the_run_by_itself():
    layout = transformer.Layout(run_axis="runs")
    model = dataclasses.replace(MODEL, logprob_chunk=8)
    together = dataclasses.replace(model, layout=layout), dataclasses.replace(PACKED, layout=layout)
    rollouts = [make_rollout(seed) for seed in range(3)]
    rollouts[1] = rollouts[1].replace(mask=rollouts[1].mask & (jnp.arange(T) < 2))  # this run needs fewer sequences

    def loss_of(model, micro_batching):
        policy_learner = learner.PolicyLearner(GRPO, model, optax.sgd(1.0), P, T, G, micro_batching=micro_batching)

        def gradient(rollout, params):
            batch = learner.make_policy_batch(rollout, rollout.mask)
            batch["group"] = jnp.arange(B * G, dtype=jnp.int32) // G
            loss = lambda params, b: (jnp.sum(policy_learner.score(params, b)[0]), {})
            return learner.gradients(loss, params, batch, micro_batching)[0]

        return gradient

    params = make_state(model).params
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *rollouts)
    found = jax.jit(jax.vmap(loss_of(*together), (0, None), axis_name="runs"))(stacked, params)
    alone = jax.jit(loss_of(model, PACKED))
    for n, rollout in enumerate(rollouts):
        expected = alone(rollout, params)
        assert norm(difference(jax.tree.map(lambda x, n=n: x[n], found), expected)) <= 1e-10 * norm(expected)


def test_a_prompt_is_computed_once_in_a_sequence_and_no_padding_is():
    """Each token of a row with a token in the loss lies in one place, and no two share one."""
    rollout = make_rollout(4)
    batch = learner.make_policy_batch(rollout, rollout.mask) | {"group": jnp.arange(B * G, dtype=jnp.int32) // G}
    packed = pack_batch(batch, Packing(W, P), 2)
    s, used = jax.tree.map(np.asarray, packed.sequences), int(packed.used)
    assert s.tokens.shape[0] % 2 == 0 and (s.prompt[used:] == -1).all() and (s.prompt[:used] >= 0).any(1).all()
    assert s.count.sum() == rollout.mask.sum()
    for k in range(used):
        for group in set(s.prompt[k]) - {-1}:
            slots = int(rollout.prompt_mask[group * G].sum())
            prompt = s.tokens[k][(s.prompt[k] == group) & (s.response[k] < 0)]
            assert list(prompt) == list(np.asarray(rollout.prompt[group * G])[P - slots :])
    seen = [row for row in np.asarray(packed.rows).ravel() if row < B * G]
    assert sorted(seen) == [n for n in range(B * G) if rollout.mask[n].any()]
    for k, rows in enumerate(np.asarray(packed.rows)):
        for slot, row in enumerate(rows):
            if row < B * G:
                response = s.tokens[k][s.response[k] == slot]
                assert list(response) == list(np.asarray(rollout.response[row])[np.asarray(rollout.mask[row])])


@pytest.mark.parametrize("seed", range(20))
def test_places_of_rows_overlap_nowhere_and_never_need_more_sequences_than_foreseen(seed):
    with jax.enable_x64(False):
        rng = np.random.default_rng(seed)
        rows, columns = int(rng.integers(1, 60)), int(rng.integers(40, 120))
        prompts = rng.integers(1, 11, 8)[(groups := np.sort(rng.integers(0, 8, rows)))]
        lengths = rng.integers(0, rng.choice([3, 30]), rows)
        packing = Packing(columns, 10)
        slots, most = packing.rows_in_sequence(rows), packing.max_sequences(rows, 40)
        arrays = [jnp.asarray(x, jnp.int32) for x in (lengths, prompts, groups)]
        places, used = jax.jit(place_rows, static_argnums=(3, 4, 5))(*arrays, columns, slots, most)
        places = jax.tree.map(np.asarray, places)
    taken = np.zeros((most, columns), int)
    for n in np.flatnonzero(lengths):
        k, start, prompt_start = places.sequence[n], places.start[n], places.prompt_start[n]
        assert k < used <= most and places.slot[n] < slots and prompt_start + prompts[n] <= start
        assert start + lengths[n] <= columns
        taken[k, start : start + lengths[n]] += 1
        if places.brings_prompt[n]:
            taken[k, prompt_start : prompt_start + prompts[n]] += 1
    assert taken.max(initial=0) <= 1 and (places.sequence[lengths == 0] == most).all()
    pairs = {(k, g) for k, g in zip(places.sequence[lengths > 0], groups[lengths > 0], strict=True)}
    assert places.brings_prompt[lengths > 0].sum() == len(pairs), "a prompt is brought once to a sequence"


def test_few_columns_are_computed_on_lengths_with_a_long_tail():
    """GSM8K-like: prompts of about 100 tokens, log-normal responses of about 60, groups of 8, up to 256."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(60) - 0.32, 0.8, 256).astype(int), 1, 256)
    prompts = np.repeat(np.clip(rng.lognormal(np.log(100), 0.3, 32).astype(int), 30, 200), 8)
    arrays = [jnp.asarray(x, jnp.int32) for x in (lengths, prompts, np.repeat(np.arange(32), 8))]
    packing = Packing(1024, 200)
    sizes = 1024, packing.rows_in_sequence(256), packing.max_sequences(256, 456)
    _, used = jax.jit(place_rows, static_argnums=(3, 4, 5))(*arrays, *sizes)
    real = lengths.sum() + prompts[::8].sum()
    assert int(used) * 1024 <= 1.15 * real
    assert 256 * 456 >= 5 * real, "what padded rows compute"


@pytest.mark.parametrize("kernel", ["xla", "splash_interpreted"])
def test_an_attention_kernel_that_does_not_know_packed_sequences_is_refused(kernel):
    config = shop.get_config()
    config.model.attention, config.rl.packing = kernel, 256
    if kernel == "splash_interpreted":
        assert resolve(config, "rl").rl.micro_batching.packing.columns == 256
        return
    with pytest.raises(
        UserError, match="rl.packing=256: the attention kernel 'xla' does not know packed sequences: use .*own"
    ):
        resolve(config, "rl")


@pytest.mark.parametrize(
    "change, packs",
    [({}, True), ({"model.attention": "xla"}, False), ({"rl.algorithm": "vapo"}, False), ({"rl.packing": 0}, False)],
    ids=str,
)
def test_a_config_that_leaves_it_open_packs_the_columns_of_a_row_where_the_run_can(change, packs):
    config = shop.get_config()
    config.update_from_flattened_dict(change)
    packing = resolve(config, "rl").rl.micro_batching.packing
    assert packing is not None if packs else packing is None
    if packs:
        assert packing.columns == resolve(config, "rl").task.prompt_slots + config.rl.max_new_tokens
