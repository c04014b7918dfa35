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
        (PLAIN, 128),
        (dataclasses.replace(GROUPED, attention_softcap=3.0), 300),
        (SLIDING, 300),
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
