"""What ``benchmarks.accelerator`` measures: rates of the machine, decoding, updates, runs of shop. Formulas are in its docstring."""

import dataclasses
import functools
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.accelerator_parts import (
    EXACT,
    Lines,
    Result,
    Sizes,
    Skipped,
    init,
    median_seconds,
    padded_prompts,
    with_dtype,
)
from rljax import learner, sampler, transformer
from rljax import policy_gradient as pg
from rljax.structs import TrainState

LOOPS = 10  # copies or products in one timed program, so that its start does not count
Rates = dict[str, float]  # "copy": bytes a second; "bfloat16", "float32": FLOP a second. What has been measured so far


def peak_bytes() -> int:
    """The largest number of bytes in use on the device so far; 0 where the backend does not say."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def measured_peak(name: str, before: int, planned: float) -> Result | Skipped:
    """The planned peak beside the device's. The device keeps only the largest peak of the whole process."""
    after = peak_bytes()
    if not after:
        return Skipped(f"{name}, measured peak memory", f"this backend ({jax.default_backend()}) does not count memory")
    note = f"planned {planned / 1e9:.2f} GB, {planned / after:.2f} of it"
    if after <= before:
        note += "; at most: an earlier part needed as much"
    return Result(f"{name}, measured peak memory", after / 1e9, "GB", note=note)


def measure_rates(sizes: Sizes, rates: Rates) -> Lines:
    """Copy bandwidth and matrix rates; they are written to ``rates``."""

    def repeat(step: Callable, **options: Any) -> Callable:
        return jax.jit(lambda x, *rest: jax.lax.fori_loop(0, LOOPS, lambda _, y: step(y, *rest), x), **options)

    scale = repeat(lambda x, factor: x * factor)
    x = jnp.ones(sizes.copied, jnp.float32)
    seconds = median_seconds(lambda: scale(x, jnp.float32(1.0)), sizes.repeats)
    rates["copy"] = LOOPS * 2 * x.nbytes / seconds
    yield Result("copy bandwidth", rates["copy"] / 1e9, "GB/s")
    for dtype, precision, n in (
        ("bfloat16", None, sizes.matrix),
        ("float32", None, sizes.matrix // 2),
        ("float32", EXACT, sizes.matrix // 2),
    ):
        with jax.default_matmul_precision(precision):
            a = (jax.random.normal(jax.random.key(0), (n, n)) / n**0.5).astype(dtype)
            multiply = repeat(lambda x, a: x @ a)
            rate = LOOPS * 2 * n**3 / median_seconds(functools.partial(multiply, a, a), sizes.repeats)
        rates.setdefault(dtype, rate)
        yield Result(f"matrix rate {dtype}, {precision or 'default'} precision", rate / 1e12, "TFLOP/s")


def decode_bytes(config: transformer.Config, params: Any, sizes: Sizes) -> float:
    """Bytes that one decode step must read, halfway through the response."""
    cached = 2 * config.layers * config.kv_heads * config.head_width * jnp.dtype(config.cache_dtype).itemsize
    columns = sizes.prompts * sizes.prompt_slots + sizes.prompts * sizes.group_size * sizes.max_new_tokens / 2
    return sum(x.nbytes for x in jax.tree.leaves(params)) + columns * cached


def measure_decode(sizes: Sizes, rates: Rates, name: str, model: transformer.Config) -> Lines:
    """Tokens a second of the sampler without its prefill. A limit of one token runs the same program, only shorter."""
    config = with_dtype(model, "bfloat16")
    params = init(config)
    prompt, mask = padded_prompts(config, sizes.prompts, sizes.prompt_slots)
    options = dict(group_size=sizes.group_size, max_new_tokens=sizes.max_new_tokens, stop_ids=())
    draw = lambda limit: sampler.sample(
        params, config, prompt, mask, jax.random.key(0), limit=jnp.int32(limit), **options
    )
    whole = median_seconds(lambda: draw(sizes.max_new_tokens), sizes.repeats)
    short = median_seconds(lambda: draw(1), sizes.repeats)
    step = max(whole - short, 1e-9) / (sizes.max_new_tokens - 1)
    best = decode_bytes(config, params, sizes) / rates["copy"] if "copy" in rates else None
    rows = sizes.prompts * sizes.group_size
    note = f"{rows} rows, {1e3 * step:.3g} ms a step, prefill and first token {1e3 * short:.3g} ms"
    yield Result(f"{name} decode", rows / step, "tokens/s", share=best and best / step, note=note)


def measure_update(sizes: Sizes, rates: Rates, name: str, model: transformer.Config) -> Lines:
    """Tokens a second of ``update_policy`` with AdamW, all columns real, and its peak memory."""
    config = with_dtype(model, "bfloat16")
    config = dataclasses.replace(config, remat="layer", scan_layers=True, logprob_chunk=sizes.prompt_slots)
    params, before, zero = init(config), peak_bytes(), jnp.zeros((), jnp.int32)
    count, rows = transformer.count(params), sizes.prompts * sizes.group_size
    shape, response = (rows, sizes.prompt_slots + sizes.max_new_tokens), sizes.prompt_slots
    tokens = np.random.default_rng(0).integers(model.vocab_size, size=shape).astype(np.int32)
    loss_mask = np.broadcast_to(np.arange(shape[1]) >= response, shape)
    batch = dict(tokens=tokens, mask=np.ones(shape, bool), loss_mask=loss_mask)
    batch |= dict(behaviour_logprobs=np.zeros(shape, np.float32), advantage=np.tile([1.0, -1.0], rows // 2))
    batch = jax.device_put(batch | {"advantage": batch["advantage"].astype(np.float32)})
    tx, batching = optax.adamw(1e-6), learner.MicroBatching(sizes.micro_batch)
    sized = response, sizes.max_new_tokens, sizes.group_size
    policy_learner = learner.PolicyLearner(pg.ALGORITHMS["dr_grpo"], config, tx, *sized, micro_batching=batching)
    state = TrainState(zero, params, jax.jit(tx.init)(params), jax.random.key(0), jnp.copy(zero))
    update = jax.jit(functools.partial(learner.update_policy, policy_learner), donate_argnums=0)
    compiled = update.lower(state, batch).compile()
    about: Any = compiled.memory_analysis()
    held = [state]
    del state, params

    def step() -> Any:
        held[0], metrics = compiled(held[0], batch)
        return held[0], metrics

    seconds = median_seconds(step, sizes.repeats)
    rate = rows * shape[1] / seconds
    mfu = 6 * count * rate / rates["bfloat16"] if "bfloat16" in rates else None
    note = f"{count / 1e6:.0f} M weights, {rows} x {shape[1]} tokens, {seconds:.3g} s"
    yield Result(f"{name} update", rate, "tokens/s", share=mfu, note=note)
    if about is not None:
        planned = about.argument_size_in_bytes + about.output_size_in_bytes - about.alias_size_in_bytes
        yield measured_peak(f"{name} update", before, planned + about.temp_size_in_bytes)
    held.clear()
    gc.collect()


# Runs of the default config: these need the packages of the whole product


def shop_runs(sizes: Sizes, count: int) -> tuple[list[Any], list[Any]]:
    """(configs, resolved runs) of ``count`` seeds, from random weights: responses are as long as they may be."""
    from configs import shop
    from rljax.ablation import vmapped

    configs = []
    for seed in range(count):
        config: Any = shop.get_config(sizes.shop or None)
        config.seed, config.rl.start, config.mesh.data = seed, "", 1
        if sizes.shop:  # the dry run: one width, one layer and few tokens, so that less is compiled
            config.rl.widths, config.model.layers, config.rl.max_new_tokens = (), 1, 16
        configs.append(config)
    return configs, [vmapped.resolve_on_one_device(config) for config in configs]


def measure_shop(sizes: Sizes, rates: Rates, count: int, plan: bool = False) -> Lines:
    """Seconds a train step of ``count`` vmapped runs of configs/shop.py on one device; with ``plan`` their peak memory."""
    from experiments import rl
    from rljax import planning
    from rljax.ablation import vmap_groups, vmapped

    configs, runs = shop_runs(sizes, count)
    mesh = vmapped.make_run_mesh(count, jax.devices()[:1])
    before = peak_bytes()
    state, _ = vmapped.make_initial_states(runs, [Path(tempfile.gettempdir())] * count, mesh)
    numbers = vmap_groups.stack_numbers(configs)[1]
    train_step = vmapped.vmap_train_step(rl.make_train_step, vmapped.with_run_axis(runs[0]), numbers, mesh)
    held = [state]
    del state

    def step() -> Any:
        held[0], metrics = train_step(held[0])
        return held[0], metrics

    seconds = median_seconds(step, sizes.repeats)
    name = f"configs/shop.py, {count} run{'s' if count > 1 else ''}"
    yield Result(f"{name} vmapped", seconds, "s a step", note=f"{seconds / count:.3g} s a step and run")
    if plan:
        planned = planning.make_plan(planning.resolve_abstract(configs[0], devices=jax.devices()[:1])).memory.peak
        yield Result(f"{name}, planned peak memory", planned / 1e9, "GB")
        yield measured_peak(name, before, planned)
