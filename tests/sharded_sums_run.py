"""Run by test_sharded_sums in a process with 8 simulated devices: Muon's update, and gradients that are sums over all tokens."""

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sharded_run
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rljax.transformer import products

MUON = {"rl.optimizer.name": "muon", "rl.optimizer.learning_rate": 0.02, "model.qkv_bias": True}
ROWS, COLUMNS, WIDTH, VOCAB = 64, 33, 16, 8  # a word occurs hundreds of times


def gradient_of(loss: Callable[[Any, Any], Any], weight: Any, rows: Any, *where: NamedSharding) -> np.ndarray:
    """The gradient of ``loss(weight, rows)`` in the weight, with both laid out so; returned in float64."""
    weight, rows = (jax.device_put(x, place) for x, place in zip((weight, rows), where, strict=True))
    return np.asarray(jax.jit(jax.grad(loss), out_shardings=where[0])(weight, rows), np.float64)


def sums(mesh: Mesh, split_weight: P) -> dict[str, float]:
    """The largest error of each gradient, relative to the exact sum. One rounding to bfloat16 is at most 2**-8."""
    rng = np.random.default_rng(0)
    factor = jnp.asarray(rng.uniform(0.5, 1.5, (ROWS, COLUMNS, WIDTH)), jnp.bfloat16)
    tokens = jnp.asarray(rng.integers(0, VOCAB, (ROWS, COLUMNS)), jnp.int32)
    exact = np.asarray(factor, np.float64)
    by_word = np.stack([exact[np.asarray(tokens) == word].sum(0) for word in range(VOCAB)])
    place = lambda spec: NamedSharding(mesh, spec)
    rows, low = place(P(("data", "fsdp"))), jnp.bfloat16
    by_row = jax.device_put(factor, rows)
    bias_loss = lambda bias, y: jnp.sum((products.add_bias(y, bias) * by_row).astype(jnp.float32))
    table_loss = lambda table, t: jnp.sum((products.take_rows(table, t) * by_row).astype(jnp.float32))
    bias = gradient_of(bias_loss, jnp.zeros(WIDTH, low), factor, place(P(*split_weight[-1:])), rows)
    table = gradient_of(table_loss, jnp.zeros((VOCAB, WIDTH), low), tokens, place(split_weight), rows)
    apart = lambda found, true: float(np.abs(found / true - 1).max())
    return {"bias": apart(bias, exact.sum((0, 1))), "embedding": apart(table, by_word)}


if __name__ == "__main__":
    devices = np.asarray(jax.devices())
    assert len(devices) == 8, devices
    sharded_run.CASES["muon"] = MUON
    one = sharded_run.on_mesh("data=1", "muon")
    out: dict[str, Any] = {"muon": {}, "sums": {}}
    for axes in ("data=2,fsdp=2,tensor=2",):
        many = sharded_run.on_mesh(axes, "muon")
        apart = sharded_run.same_rollout_gradient(one, many)
        moved = float(max(np.abs(x).max() for x in jax.tree.leaves(many["gradient"])))
        out["muon"][axes] = {
            "apart": apart,
            "moved": moved,
            "tokens": bool((one["response"] == many["response"]).all()),
        }
    mesh = Mesh(devices.reshape(2, 4), ("data", "fsdp"))
    for name, split in {
        "whole weights": P(None, None),
        "split": P(None, "fsdp"),
        "split rows": P("fsdp", None),
    }.items():
        out["sums"][name] = sums(mesh, split)
    json.dump(out, sys.stdout)
