"""Bytes that RL on a published architecture needs on one device, from the compiled sampler and update; nothing is allocated.

    python -m benchmarks.memory gemma2_2b --adapters 32 --prompts 16 --group 8 --tokens 512

Both functions are lowered on abstract arrays, and compiled for the backend that is here. On a CPU some products in bfloat16
are made in float32, whose operands an accelerator would not hold: there the numbers are upper bounds.
"""

import argparse
import dataclasses
import functools
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.shapes import SHAPES
from configs import common
from rljax import learner, lora, optimizer, pretrained, sampler, transformer
from rljax import policy_gradient as pg
from rljax.structs import Rollout, TrainState


def abstract(*shape: int, dtype: str = "int32") -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))


def size(tree) -> int:
    return sum(
        x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    )


def parser(prog: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog=prog)
    p.add_argument("shape", choices=SHAPES)
    for name, default in dict(adapters=0, prompts=32, group=8, tokens=512, prompt=512, micro=4).items():
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--sampler", default="", choices=("", *transformer.LIGHTER))
    return p


def configured(a: argparse.Namespace) -> tuple[transformer.Config, Any]:
    """The model as the configs of real models compute it, and their settings of RL."""
    c: Any = common.base()
    data = argparse.Namespace(weights="", data="gsm8k", adapters=a.adapters, template="plain")
    common.real_model(c, data)
    computed: dict[str, Any] = {name: c.model[name] for name in pretrained.COMPUTED}
    return dataclasses.replace(SHAPES[a.shape], **computed), c


def measure(a: argparse.Namespace) -> dict[str, float]:
    model, c = configured(a)
    rows, row = a.prompts * a.group, pg.ALGORITHMS[c.rl.algorithm]
    tx = optimizer.make(c.rl.optimizer, model, 100)

    def state() -> TrainState:
        params, frozen, key = transformer.init(model, jax.random.key(0)), None, jax.random.key(0)
        if a.adapters:
            frozen = lora.Base(params, jnp.float32(1))
            params = lora.init(model, tuple(c.rl.lora.targets), a.adapters, key)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(params=params, frozen=frozen, opt_state=tx.init(params), key=key, step=zero, cursor=zero)

    shape = jax.eval_shape(state)
    policy = jax.eval_shape(lambda s: lora.policy(s.params, s.frozen), shape)
    draw = functools.partial(
        sampler.sample, group_size=a.group, max_new_tokens=a.tokens, stop_ids=(0,), weights=a.sampler
    )
    prompt = abstract(a.prompts, a.prompt), abstract(a.prompts, a.prompt, dtype="bool")
    sampling = jax.jit(lambda params, *xs: draw(params, model, *xs)).lower(
        policy, *prompt, jax.eval_shape(lambda: jax.random.key(0))
    )
    plan, split = learner.PolicyUpdate(max_new_tokens=a.tokens, group_size=a.group), learner.Split(rows=a.micro)
    rollout = Rollout(
        prompt=abstract(rows, a.prompt),
        prompt_mask=abstract(rows, a.prompt, dtype="bool"),
        response=abstract(rows, a.tokens),
        mask=abstract(rows, a.tokens, dtype="bool"),
        logprobs=abstract(rows, a.tokens, dtype="float32"),
        finished=abstract(rows, dtype="bool"),
    )
    compare = functools.partial(learner.compare, row=row, model=model, plan=plan, split=split)
    experience, _ = jax.eval_shape(compare, shape, rollout, abstract(a.prompts, a.group, dtype="float32"))
    push = functools.partial(learner.push, row=row, model=model, optimizer=tx, plan=plan, split=split, start=a.prompt)
    updating = jax.jit(push, donate_argnums=0).lower(shape, experience)
    gigabytes = lambda n: round(n / 1e9, 2)
    about: list[Any] = [lowered.compile().memory_analysis() for lowered in (sampling, updating)]
    temporary = [a.temp_size_in_bytes for a in about]
    held = size(shape)
    return {
        "weights": gigabytes(size(shape.frozen.params if a.adapters else shape.params)),
        "optimiser": gigabytes(size(shape.opt_state)),
        "adapters": gigabytes(size(shape.params) if a.adapters else 0),
        "sampling": gigabytes(temporary[0]),
        "updating": gigabytes(temporary[1]),
        "peak": gigabytes(held + max(temporary)),
    }


if __name__ == "__main__":
    args = parser("benchmarks.memory").parse_args(sys.argv[1:])
    about = vars(args) | {"backend": jax.default_backend(), "jax": jax.__version__}
    print(json.dumps(about | {"gigabytes": measure(args)}), flush=True)
