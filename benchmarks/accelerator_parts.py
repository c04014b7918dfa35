"""The checks and measurements of ``benchmarks.accelerator``. Each is a function ``(Sizes) -> iterator of Result or Skipped``.

A check compares two computations of the same thing and says whether their difference is within a limit. A measurement says
how fast something is, and where it can, as a share of what this machine's copy bandwidth or matrix rate would allow.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax import learner, sampler, transformer
from rljax import policy_gradient as pg
from rljax.structs import Rollout, TrainState
from rljax.transformer.config import KERNEL_PLATFORM

Array = jax.Array
EXACT = "highest"  # matrix products of float32 operands in float32, and not in a shorter format such as TF32
LIMITS = {EXACT: 1e-3, None: 0.05}  # of a difference in float32, by the precision of products


class Result(NamedTuple):
    """One line of the table. ``ok`` is None for a measurement."""

    name: str
    value: float | None
    unit: str
    limit: float | None = None  # of a check: the largest value that passes
    ok: bool | None = None
    share: float | None = None  # of a measurement: of the machine's own bandwidth or matrix rate
    note: str = ""


class Skipped(NamedTuple):
    """Something that this machine lacks."""

    name: str
    reason: str


Lines = Iterator[Result | Skipped]

QWEN25: dict[str, Any] = dict(rope_base=1e6, qkv_bias=True, tied_head=True, vocab_size=151_936, max_length=32_768)
CHECKED = transformer.Config(
    vocab_size=512, layers=2, width=128, heads=4, kv_heads=2, head_width=64, ff_width=256, qk_norm=True
)
TINY = dataclasses.replace(CHECKED, vocab_size=64, width=16, head_width=8, ff_width=32)
# The Qwen shapes are those of rljax.planning.published_models, which needs packages that a bare machine lacks.
MODELS = {
    "SmolLM2-135M": transformer.Config(
        vocab_size=49_152, layers=30, width=576, heads=9, kv_heads=3, head_width=64, ff_width=1536, max_length=8192,
        rope_base=100_000.0, norm_eps=1e-5, tied_head=True,
    ),
    "Qwen2.5-0.5B": transformer.Config(
        **QWEN25, layers=24, width=896, heads=14, kv_heads=2, head_width=64, ff_width=4864
    ),
    "Qwen2.5-1.5B": transformer.Config(
        **QWEN25, layers=28, width=1536, heads=12, kv_heads=2, head_width=128, ff_width=8960
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    checked: transformer.Config = CHECKED
    columns: int = 128  # prompt slots, and response slots, of the checks
    models: tuple[tuple[str, transformer.Config], ...] = tuple(MODELS.items())
    prompts: int = 8
    group_size: int = 8
    prompt_slots: int = 128
    max_new_tokens: int = 128
    micro_batch: int = 16
    copied: int = 1 << 28  # float32 numbers: 1 GiB
    matrix: int = 8192  # rows and columns
    repeats: int = 3
    shop: str = ""  # argument of configs/shop.py
    runs: int = 8  # vmapped
    precisions: tuple[str | None, ...] = (EXACT, None)  # of float32 products in the checks; None: JAX's default


TINY_SIZES = Sizes(TINY, 8, (("tiny", TINY),), 2, 2, 8, 8, 2, 1 << 16, 64, 1, "short", 2, (EXACT,))


def check(name: str, value: Any, limit: float, unit: str = "nats", note: str = "") -> Result:
    """A check that passes where ``value`` is a number and at most ``limit``."""
    value = float(value)
    return Result(name, value, unit, limit, bool(value <= limit), note=note)  # NaN fails


def median_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median seconds of ``function``, until its result is ready, after one call that compiles."""
    jax.block_until_ready(function())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def with_dtype(config: transformer.Config, dtype: str) -> transformer.Config:
    return dataclasses.replace(config, weight_dtype=dtype, dtype=dtype, cache_dtype=dtype)


def init(config: transformer.Config, seed: int = 0) -> Any:
    return initial_params(config, jax.random.key(seed))


initial_params = jax.jit(transformer.init, static_argnums=0)


def padded_prompts(config: transformer.Config, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, mask) [rows, columns] of prompts of different lengths, padded on the left."""
    tokens = np.random.default_rng(0).integers(config.vocab_size, size=(rows, columns)).astype(np.int32)
    mask = np.arange(columns) >= (np.arange(rows) * columns // (2 * rows))[:, None]
    return np.where(mask, tokens, 0).astype(np.int32), mask


def sample(config: transformer.Config, params: Any, sizes: Sizes, seed: int = 0) -> Rollout:
    prompt, mask = padded_prompts(config, 2, sizes.columns)
    draw = dict(group_size=2, max_new_tokens=sizes.columns, stop_ids=())
    return sampler.sample(params, config, prompt, mask, jax.random.key(seed), **draw)


def relative_distance(tree: Any, reference: Any) -> float:
    """The norm of the difference of two pytrees, divided by the norm of the reference. Computed on the host."""
    flat = lambda t: np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(jax.device_get(t))])
    a, b = flat(tree), flat(reference)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# Checks


def check_logprobs(sizes: Sizes) -> Lines:
    """The sampler's log-probabilities against the scorer's, for the tokens that were sampled."""
    cases: list[tuple[str, str | None]] = [("float32", precision) for precision in sizes.precisions]
    for dtype, precision in (*cases, ("bfloat16", None)):
        limit = {"float32": LIMITS[precision], "bfloat16": 0.15}[dtype]
        config = with_dtype(sizes.checked, dtype)
        with jax.default_matmul_precision(precision):
            params = init(config)
            rollout = sample(config, params, sizes)
            b = learner.make_policy_batch(rollout, rollout.mask)
            score = jax.jit(transformer.token_logprobs, static_argnums=(1, 5))
            scored = score(params, config, b["tokens"], b["mask"], 1.0, rollout.prompt.shape[1])[0]
        apart = np.abs(np.asarray(scored) - np.asarray(rollout.logprobs))[np.asarray(rollout.mask)]
        name = f"logprobs, sampler and scorer, {dtype}, {precision or 'default'} precision"
        yield check(name, apart.max(), limit, note=f"mean {apart.mean():.2g}")


def record_gradients() -> optax.GradientTransformation:
    """An optimizer that changes no parameter, and whose state is the last gradient."""

    def zeros(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return zeros(updates), updates

    return optax.GradientTransformation(zeros, update)


def policy_gradient(config: transformer.Config, params: Any, reference: Any, batch: Any, device: Any) -> Any:
    """The gradient of one update of r1_zero (PPO's clip and a KL term) on this device: the real ``update_policy``."""
    params, reference, batch = jax.device_put((params, reference, batch), device)
    with jax.default_device(device):
        return gradient_of_update(config, params, reference, batch)


@functools.partial(jax.jit, static_argnums=0)
def gradient_of_update(config: transformer.Config, params: Any, reference: Any, batch: Any) -> Any:
    tx, slots, zero = record_gradients(), batch["tokens"].shape[1] // 2, jnp.zeros((), jnp.int32)
    policy_learner = learner.PolicyLearner(pg.ALGORITHMS["r1_zero"], config, tx, slots, slots, group_size=2)
    state = TrainState(zero, params, tx.init(params), jax.random.key(0), zero, reference)
    return learner.update_policy(policy_learner, state, batch)[0].opt_state


def check_gradients(sizes: Sizes) -> Lines:
    """The gradient of a policy update on the accelerator against the CPU's, float32, in this process."""
    here = jax.devices()[0]
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError as e:
        yield Skipped("gradients on the CPU", f"this JAX has no CPU backend: {first_line(e)}")
        return
    config = with_dtype(sizes.checked, "float32")
    params, reference = init(config), init(config, 1)
    rollout = sample(config, params, sizes)
    batch = learner.make_policy_batch(rollout, rollout.mask)
    batch["advantage"] = jnp.asarray([1.0, -1.0, 0.5, -0.5])
    params, reference, batch = jax.device_get((params, reference, batch))
    with jax.default_matmul_precision(EXACT):
        wanted = policy_gradient(config, params, reference, batch, cpu)
    for precision in sizes.precisions:
        with jax.default_matmul_precision(precision):
            found = policy_gradient(config, params, reference, batch, here)
        name = f"gradient of an update, {here.platform} and cpu, float32, {precision or 'default'} precision"
        yield check(name, relative_distance(found, wanted), LIMITS[precision], "of its norm")


def score_and_gradient(config: transformer.Config, params: Any, tokens: Any, mask: Any) -> tuple[Array, Any]:
    """Log-probabilities [B, S - 1], and the gradient of a weighted sum of them.

    0 where the token before is padding: what a column of padding says about the next token is not defined.
    """
    known = mask[:, 1:] & mask[:, :-1]
    weight = np.random.default_rng(1).normal(size=known.shape).astype(np.float32)

    def total(params: Any) -> tuple[Array, Array]:
        logp = jnp.where(known, transformer.token_logprobs(params, config, tokens, mask)[0], 0.0)
        return jnp.sum(weight * logp), logp

    grads, logp = jax.jit(jax.grad(total, has_aux=True))(params)
    return logp, grads


def check_kernels(sizes: Sizes) -> Lines:
    """Every attention kernel that this backend has against ``own``: log-probabilities and their gradients.

    Once with full attention, once with a sliding second layer. The prompts are padded.
    """
    here, columns = jax.default_backend(), 2 * sizes.columns
    kernels: dict[str, dict[str, Any]] = {"attention_chunk": dict(attention_chunk=columns // 4 + 1)}
    kernels |= {name: dict(attention=name) for name in ("xla", *KERNEL_PLATFORM)}
    for kernel in [k for k in kernels if KERNEL_PLATFORM.get(k, here) != here]:
        del kernels[kernel]
        yield Skipped(
            f"attention {kernel}", f"a kernel of the {KERNEL_PLATFORM[kernel].upper()}, this backend is {here}"
        )
    if "cudnn" in kernels:
        yield Skipped("attention cudnn, float32", "cuDNN's attention has 16-bit dtypes only")
    tokens, mask = padded_prompts(sizes.checked, 4, columns)
    shapes: dict[str, dict[str, Any]] = {"sliding": dict(window=columns // 4, sliding=(False, True)), "full": {}}
    for dtype, shape in [(dtype, shape) for dtype in ("float32", "bfloat16") for shape in shapes]:
        if sizes is TINY_SIZES and shape == "full":  # the other has a full layer too
            continue
        exact = dtype == "float32"
        config = dataclasses.replace(with_dtype(sizes.checked, dtype), **shapes[shape])
        with jax.default_matmul_precision(EXACT if exact else None):
            params = init(config)
            logp, grads = score_and_gradient(config, params, tokens, mask)
            for kernel, fields in kernels.items():
                if kernel == "cudnn" and exact:
                    continue
                name = f"attention {kernel} and own, {dtype}, {shape}"
                try:
                    found = score_and_gradient(dataclasses.replace(config, **fields), params, tokens, mask)
                except Exception as e:  # one kernel that does not compile does not end the check of the others
                    yield Result(f"{name}: {first_line(e)}", None, "error", ok=False)
                    continue
                own_dots = kernel != "splash"  # at which precision splash multiplies is its own choice
                limits = (LIMITS[EXACT],) * 2 if exact and own_dots else (0.15, 0.05)
                apart = jnp.max(jnp.abs(logp - found[0]))
                yield check(f"{name}, logprobs", apart, limits[0])
                yield check(f"{name}, gradient", relative_distance(found[1], grads), limits[1], "of its norm")


def check_seeds(sizes: Sizes) -> Lines:
    """Tokens of one seed are identical each time; those of two seeds differ."""
    config = with_dtype(sizes.checked, "bfloat16")
    params = init(config)
    first, again, other = (np.asarray(sample(config, params, sizes, seed).response) for seed in (0, 0, 1))
    yield check("tokens that differ, the same seed twice", np.sum(first != again), 0, "tokens")
    equal = float(np.mean(first == other))
    yield check("tokens that are equal, two seeds", equal, 0.5, "of all")


def first_line(e: BaseException) -> str:
    return f"{type(e).__name__}: {(str(e).strip().splitlines() or [''])[0]}"
