"""The TPU's splash attention against ours: interpreted here, not run on a TPU."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import simulated
from jax.sharding import AbstractMesh
from models import DEEPSEEK, EVERYTHING, near, params_of, tokens_of

from configs import shop
from rljax import transformer
from rljax.errors import UserError
from rljax.learner.packing import Packing, pack_batch
from rljax.training.run import resolve
from rljax.transformer import attention, splash

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling takes the time
INTERPRETED = {"attention": "splash_interpreted"}


def attended(config, columns):
    """Attention of random queries, keys and values, and the gradient of a weighted sum of it by each of them."""
    draw = np.random.default_rng(0)
    shape = lambda heads, width: (2, config.kv_heads, *heads, columns, width)
    e = config.head_width
    q, k, v = (draw.normal(size=shape(h, e)) for h in ([config.heads // config.kv_heads], [], []))
    weight = draw.normal(size=(2, config.heads, columns, e))
    mask, positions = jnp.ones((2, columns), bool), jnp.tile(jnp.arange(columns), (2, 1))

    def total(q, k, v):
        out = attention.attend_sequence(q, k, v, mask, positions, 0, config)
        return jnp.sum(weight * out), out

    q, k, v = (jnp.asarray(x, config.dtype) for x in (q * e**-0.5, k, v))
    grads, out = jit(jax.grad(total, (0, 1, 2), has_aux=True))(q, k, v)
    return out, *grads


PLAIN = transformer.Config(vocab_size=2, heads=2, kv_heads=2, head_width=16)
GROUPED = dataclasses.replace(PLAIN, heads=6, head_width=80)
SLIDING = dataclasses.replace(GROUPED, window=70, sliding=(True,))


@pytest.mark.parametrize(
    "config, columns",
    [
        pytest.param(PLAIN, 128, marks=pytest.mark.exhaustive),
        (dataclasses.replace(GROUPED, attention_softcap=3.0), 300),
        pytest.param(SLIDING, 300, marks=pytest.mark.exhaustive),
        (dataclasses.replace(SLIDING, attention_softcap=3.0, kv_heads=1, head_width=12), 77),
    ],
    ids=["plain", "grouped and capped", "sliding", "one key head, everything"],
)
def test_the_kernel_is_our_attention(config, columns, monkeypatch):
    """Several blocks, some of which are seen in part and some not at all; odd lengths and widths."""
    monkeypatch.setattr(splash, "MAX_BLOCK", 128)
    ours, theirs = (attended(c, columns) for c in (config, dataclasses.replace(config, **INTERPRETED)))
    assert [x.shape for x in theirs] == [x.shape for x in ours]
    for a, b in zip(theirs, ours, strict=True):
        near(a, b, 3e-5)
        assert np.abs(b).max() > 1


def test_in_bfloat16_the_kernel_rounds_as_much_as_we_do():
    exact = attended(GROUPED, 40)
    low = dataclasses.replace(GROUPED, dtype="bfloat16")
    ours, theirs = (attended(c, 40) for c in (low, dataclasses.replace(low, **INTERPRETED)))
    assert [x.dtype for x in theirs] == [x.dtype for x in ours]
    for x, a, b in zip(exact, theirs, ours, strict=True):
        wrong = lambda y, x=x: float(np.linalg.norm(np.float32(y) - x) / np.linalg.norm(x))
        assert wrong(a) < 1.5 * wrong(b) + 1e-3


# Rows padded on the left, the right, both and throughout, and one with pads between its tokens.
COLUMNS = np.arange(23)
MASK = (COLUMNS >= np.array([[4], [0], [7], [23], [0]])) & (COLUMNS < np.array([[23], [20], [22], [23], [23]]))
MASK[4, 10:14] = False
SCANNED = dataclasses.replace(EVERYTHING, layers=4, scan_layers=True, remat="layer")
LATENT = dataclasses.replace(DEEPSEEK, layers=2, sliding=(False, True), experts=0, shared_width=0)


@pytest.mark.parametrize(
    "config",
    [pytest.param(SCANNED, marks=pytest.mark.exhaustive), LATENT],
    ids=["everything, scanned", "latent"],
)
def test_padding_changes_neither_logits_nor_gradients(config):
    """Windows count positions, of which pads have none, wherever they stand."""
    params, tokens = params_of(dataclasses.replace(config, scan_layers=False)), tokens_of(*MASK.shape)
    params = transformer.stack_layers(params, config) if config.scan_layers else params
    weight = np.random.default_rng(0).normal(size=(*MASK.shape, config.vocab_size)) * MASK[..., None]

    def pushed(config):
        def total(params):
            logits = transformer.forward(params, config, tokens, MASK)
            return jnp.sum(weight * logits), logits

        return jit(jax.grad(total, has_aux=True))(params)

    (grads, logits), (other_grads, other) = pushed(config), pushed(dataclasses.replace(config, **INTERPRETED))
    near(other[MASK], logits[MASK], 2e-5)
    assert np.isfinite(other).all()
    size = max(jax.tree.leaves(jax.tree.map(lambda x: float(np.abs(x).max()), grads)))
    assert size > 1
    jax.tree.map(lambda a, b: near(a, b, 1e-5 * size), other_grads, grads)


def test_a_row_of_pads_stays_finite_with_its_gradient():
    config, tokens = dataclasses.replace(EVERYTHING, layers=1, **INTERPRETED), tokens_of(2, 9)
    score = lambda p: jnp.sum(transformer.forward(p, config, tokens, jnp.zeros((2, 9), bool)))
    value, grads = jit(jax.value_and_grad(score))(params_of(config))
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


# ---------------------------------------------------------------------------------------------------------------------
# Packed sequences: several prompts, and behind each of them the responses that share it.


def packed_rows(seed=0, prompts=4, group=3, longest=40):
    """Rows of random lengths, padded on both sides, packed into sequences of 300 columns: (batch, PackedSequences)."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, (prompts * group, 1))
    before = np.repeat(rng.integers(1, longest + 1, (prompts, 1)), group, 0)
    at = np.arange(2 * longest)
    mask = (at >= longest - before) & (at < longest + lengths)
    tokens = rng.integers(23, size=mask.shape)
    tokens[:, :longest] = np.repeat(tokens[::group, :longest], group, 0)
    batch = {"tokens": jnp.asarray(tokens, jnp.int32), "mask": jnp.asarray(mask)}
    batch |= {"loss_mask": batch["mask"], "group": jnp.repeat(jnp.arange(prompts, dtype=jnp.int32), group)}
    packed = jax.jit(lambda batch: pack_batch(batch, Packing(300, longest), 1))(batch)
    return batch, jax.tree.map(lambda x: x[: int(packed.used)], packed.sequences)


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(GROUPED, attention_softcap=3.0),
        dataclasses.replace(SLIDING, window=30, kv_heads=1, head_width=12),
    ],
    ids=["grouped and capped", "sliding, one key head"],
)
def test_within_packed_sequences_the_kernel_is_our_attention(config, monkeypatch):
    """Prompts that are shared, in several blocks, some of which are seen in part and some not at all."""
    monkeypatch.setattr(splash, "MAX_BLOCK", 128)
    _, packed = packed_rows()
    real, draw, e = packed.prompt >= 0, np.random.default_rng(0), config.head_width
    assert packed.tokens.shape == (2, 300) and not real.all() and packed.response.max() > 2 * packed.prompt.max() > 0
    shape = lambda *heads: (2, config.kv_heads, *heads, 300, e)
    q, k, v = (draw.normal(size=shape(*h)) for h in ([config.heads // config.kv_heads], [], []))
    weight = draw.normal(size=(2, config.heads, 300, e)) * real[:, None, :, None]

    def attended(config):
        def total(q, k, v):
            out = attention.attend_sequence(q, k, v, real, packed.positions, 0, config, packed.segments)
            return jnp.sum(weight * out), out

        q_k_v = [jnp.asarray(x, jnp.float32) for x in (q * e**-0.5, k, v)]
        grads, out = jit(jax.grad(total, (0, 1, 2), has_aux=True))(*q_k_v)
        assert np.isfinite(out).all()
        return out * real[:, None, :, None], *grads

    theirs, ours = attended(dataclasses.replace(config, **INTERPRETED)), attended(config)
    for a, b in zip(theirs, ours, strict=True):
        near(a, b, 3e-5)
        assert np.abs(b).max() > 1


def test_the_mask_of_a_packed_sequence_is_not_stored_for_the_backward_pass():
    config, zeros = dataclasses.replace(PLAIN, **INTERPRETED), jnp.zeros((2, 300), int)
    q, k = jnp.zeros((2, 2, 1, 300, 16)), jnp.zeros((2, 2, 300, 16))
    attend = lambda q, k: attention.attend_sequence(q, k, k, zeros < 1, zeros, 0, config, (zeros, zeros))
    stored = jax.tree.leaves(jax.eval_shape(lambda q, k: jax.vjp(attend, q, k)[1], q, k))
    assert len(stored) > 3 and not any(x.dtype == bool and x.size >= 300 * 300 for x in stored)


@pytest.mark.exhaustive  # the kernel within packed sequences is compared with our attention above
@pytest.mark.parametrize("config", [SCANNED, LATENT], ids=["everything, scanned", "latent"])
def test_packed_rows_are_scored_by_the_kernel_as_padded_rows_are_by_us(config):
    """Log-probabilities of responses, and their gradients."""
    config = dataclasses.replace(config, layers=2, max_length=300)
    params = params_of(dataclasses.replace(config, scan_layers=False))
    params = transformer.stack_layers(params, config) if config.scan_layers else params
    batch, packed = packed_rows(prompts=3, group=2, longest=14)
    assert packed.tokens.shape[0] == 1
    weight = np.random.default_rng(0).normal(size=(6, 14))

    def scored(score):
        def total(params):
            logp = score(params)
            return jnp.sum(weight * logp), logp

        return jit(jax.grad(total, has_aux=True))(params)

    ours = scored(lambda p: transformer.token_logprobs(p, config, batch["tokens"], batch["mask"], start=14)[0])
    kernel = dataclasses.replace(config, **INTERPRETED)
    by_place = lambda p: transformer.packed_token_logprobs(p, kernel, packed, 16, 14)[0]
    rows = np.asarray(pack_batch(batch, Packing(300, 14), 1).rows[0])
    theirs = scored(lambda p: jnp.zeros((6, 14)).at[rows].set(by_place(p)[: len(rows)], mode="drop"))
    near(theirs[1], ours[1], 2e-5)
    size = max(jax.tree.leaves(jax.tree.map(lambda x: float(np.abs(x).max()), ours[0])))
    assert size > 1
    jax.tree.map(lambda a, b: near(a, b, 1e-5 * size), theirs[0], ours[0])


@pytest.mark.parametrize(
    "columns, expected", [(1, (128, 128)), (128, (128, 128)), (300, (384, 384)), (512, (512, 512))]
)
def test_one_block_while_it_is_small_enough(columns, expected):
    assert splash.block_size(columns) == expected


@pytest.mark.parametrize("columns", [513, 1000, 1025, 4096, 4097, 32768])
def test_blocks_are_equal_small_enough_and_not_many(columns):
    size, padded = splash.block_size(columns)
    assert size % 128 == 0 and size <= splash.MAX_BLOCK and padded % size == 0 and padded >= columns
    assert padded // size == -(-columns // splash.MAX_BLOCK)


def test_wider_heads_have_smaller_blocks():
    assert [splash.block_size(4096, wide)[0] for wide in (512, 1024, 2048, 4096, 8192)] == [512, 512, 256, 128, 128]


# ---------------------------------------------------------------------------------------------------------------------
# Devices.


@pytest.fixture(scope="module")
def on_devices():
    return simulated.on_devices(8, "splash_run.py")


@pytest.mark.exhaustive
def test_devices_attend_for_their_own_rows_and_heads(on_devices):
    for how, run in on_devices.items():
        assert run["apart"] < 1e-5 * run["size"], how
        assert run["size"] > 0.1 and run["split"] == "P(('data', 'fsdp'), 'tensor')", how


@pytest.mark.exhaustive
def test_nothing_is_collected_for_the_kernel(on_devices):
    """Around attention alone, laid out by rows and heads: no communication, forward or backward."""
    assert all(run["collectives"] == [] for run in on_devices.values())


def test_columns_that_are_split_are_refused():
    layout = transformer.Layout(AbstractMesh((2,), ("context",)), (("columns", ("context",)),))
    with pytest.raises(UserError, match="attention='splash' does not support sharded columns: use own"):
        dataclasses.replace(EVERYTHING, attention="splash", layout=layout)


@pytest.mark.parametrize("name, kind", [("splash", "TPU"), ("cudnn", "GPU")])
def test_a_kernel_of_other_devices_is_refused_before_anything_runs(name, kind):
    config = shop.get_config()
    config.model.attention = name
    with pytest.raises(UserError, match=f"model.attention={name} is a kernel of the {kind}, .* of kind cpu: use own"):
        resolve(config)
