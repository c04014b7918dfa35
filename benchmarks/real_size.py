"""A published architecture at its full size, with random weights: written as a folder, loaded, sampled from, one RL step.

    python -m benchmarks.real_size gemma2_2b --folder /tmp/gemma --adapters 32 --prompts 2 --group 2 --prompt 64 --tokens 16

Every step's seconds (compilation included) and the process's peak memory so far, one JSON line each; on an accelerator also
the device's peak. The folder is written once (bfloat16) and kept.
"""

import argparse
import dataclasses
import functools
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import common
from rljax import learner, pretrained, sampler, transformer
from rljax import policy_gradient as pg
from rljax.learner.optimizer import OptimizerOptions, make_optimizer
from rljax.options import build
from rljax.planning.published_models import PUBLISHED_MODELS
from rljax.structs import Experience, Rewards, TrainState
from rljax.transformer import lora


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="benchmarks.real_size")
    p.add_argument("shape", choices=PUBLISHED_MODELS)
    p.add_argument("--folder", required=True)
    for name, default in dict(adapters=0, prompts=32, group=8, tokens=512, prompt=512, micro=4).items():
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--sampler", default="", choices=("", *transformer.WEIGHT_FORMATS))
    return p


def configured(a: argparse.Namespace) -> tuple[transformer.Config, Any]:
    """The model as the configs of real models compute it, and their settings of RL."""
    c: Any = common.base()
    data = argparse.Namespace(weights="", data="gsm8k", adapters=a.adapters, template="plain")
    common.real_model(c, data)
    computed: dict[str, Any] = {name: c.model[name] for name in pretrained.COMPUTE_FIELDS}
    return dataclasses.replace(PUBLISHED_MODELS[a.shape], **computed), c


def report(what: str, start: float, **more) -> None:
    """A line about what has just been done."""
    device = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = {"step": what, "seconds": round(time.perf_counter() - start, 1), "host_peak_gb": round(peak / 1e9, 2)}
    print(json.dumps(line | ({"device_peak_gb": round(device / 1e9, 2)} if device else {}) | more), flush=True)


def write(folder: Path, shape: str) -> None:
    model = dataclasses.replace(PUBLISHED_MODELS[shape], weight_dtype="bfloat16")
    pretrained.save(folder, model, transformer.init(model, jax.random.key(0)))


def run(a) -> None:
    model, c = configured(a)
    start = time.perf_counter()
    computed = {name: getattr(model, name) for name in pretrained.COMPUTE_FIELDS}
    model = pretrained.read_config(a.folder, **computed)
    params = jax.block_until_ready(pretrained.read_params(a.folder, model, model.weight_dtype))
    report("load", start, parameters=transformer.count(params))

    start, key, frozen = time.perf_counter(), jax.random.key(0), None
    if a.adapters:
        frozen = lora.Base(params, jnp.float32(1))
        params = lora.init_adapters(model, tuple(c.rl.lora.targets), a.adapters, key)
    options = build(OptimizerOptions, c.rl.optimizer, "rl.optimizer.")
    tx, zero = make_optimizer(options, model, 100), jnp.zeros((), jnp.int32)
    state = TrainState(
        params=params, frozen=frozen, opt_state=jax.jit(tx.init)(params), key=key, step=zero + 50, cursor=zero
    )
    tokens = np.random.default_rng(0).integers(model.vocab_size, size=(a.prompts, a.prompt))
    draw = dict(group_size=a.group, max_new_tokens=a.tokens, stop_ids=(), weights=a.sampler)
    policy = lora.policy_params(state.params, state.frozen)
    rollout = sampler.sample(policy, model, tokens, np.ones(tokens.shape, bool), key, **draw)
    jax.block_until_ready(rollout)
    report("sample", start, tokens=int(rollout.lengths.sum()))
    start = time.perf_counter()
    jax.block_until_ready(sampler.sample(policy, model, tokens, np.ones(tokens.shape, bool), key, **draw))
    report("sample again", start)

    start, algorithm = time.perf_counter(), pg.ALGORITHMS[c.rl.algorithm]
    sizes = dict(prompt_slots=a.prompt, max_new_tokens=a.tokens, group_size=a.group)
    batching = learner.MicroBatching(rows=a.micro)
    policy_learner = learner.PolicyLearner(algorithm, model, tx, **sizes, micro_batching=batching)
    reward = jnp.asarray(np.random.default_rng(1).integers(2, size=(a.prompts, a.group)), jnp.float32).at[:, 0].set(1)
    reward = reward.at[:, 1].set(0)
    experience = Experience(rollout, Rewards(reward, reward[..., None], {}))
    batch, _ = jax.jit(functools.partial(learner.compute_advantages, policy_learner))(state, experience)
    update = jax.jit(functools.partial(learner.update_policy, policy_learner), donate_argnums=0)
    state, metrics = jax.block_until_ready(update(state, batch))
    shown = {name: float(metrics[name]) for name in ("grad_norm", "entropy", "sampler_gap")}
    report("update", start, **shown)


if __name__ == "__main__":
    args = parser().parse_args(sys.argv[1:])
    print(json.dumps(vars(args) | {"backend": jax.default_backend(), "jax": jax.__version__}), flush=True)
    if not (Path(args.folder) / "config.json").exists():
        began = time.perf_counter()
        write(Path(args.folder), args.shape)
        report("write", began)
    run(args)
