"""Run by test_offload in a process with 4 simulated devices: the same updates with moments on them and in host memory."""

import json
import sys
import tempfile
from typing import Any

import jax
import numpy as np

from configs import shop
from experiments import rl
from rljax.distributed import sharding
from rljax.training import checkpoint, initial_state
from rljax.training.rl_steps import compile_train_step
from rljax.training.run import resolve
from rljax.training.supervised_steps import make_supervised_step


def configured(offload: bool, mesh: str = "", **changes: Any) -> Any:
    """A small model with a reward that an untrained one can earn, and two updates a train step in one compiled function."""
    config = shop.get_config("short")
    config.model.layers, config.model.width = 1, 32
    config.rl.update(dict(start="", widths=(), micro_batch=8, max_new_tokens=16, updates=2, steps=3, eval_every=3))
    config.rl.reward = "correct + overlong(share=0.9)"
    config.rl.optimizer.learning_rate, config.workers = 1e-2, 0
    config.eval.update(dict(problems=4, attempts=2, greedy=False))
    config.update_from_flattened_dict(changes)
    for of in (config.pretrain.optimizer, config.rl.optimizer, config.rl.critic.optimizer):
        of.offload, of.warmup = offload, 0
    if config.rl.algorithm == "orz_ppo":  # its reward is for right or wrong
        config.rl.row.advantage = "gae(gamma=1.0, lam=1.0)"
    config.mesh.update({axis: int(n) for axis, n in (part.split("=") for part in mesh.split(",") if part)})
    return config


def after_two_train_steps(config: Any) -> Any:
    """The state of RL."""
    run = resolve(config, "rl")
    state = initial_state.new_state(run, run.rl, None)
    train_step = compile_train_step(rl.make_train_step, run)
    state, _ = train_step(state)
    given = moments(state)
    state, metrics = train_step(state)
    assert float(metrics["grad_norm"]) > 0, "nothing was learned"
    assert all(x.is_deleted() for x in given), "moments were copied, not given away"
    return state


def after_three_updates(config: Any) -> Any:
    """The state of pretraining, whose update uses every byte of it again."""
    run = resolve(config, "pretrain")
    state = initial_state.new_state(run, run.pretrain, None)
    tokens = np.arange(96, dtype=np.int32).reshape(4, 24) % run.model.vocab_size
    batch = sharding.shard_rows(dict(tokens=tokens, mask=tokens >= 0, loss_mask=tokens >= 0), run.model.layout)
    update: Any = make_supervised_step(run, run.pretrain)[0]
    step = update.lower(state, batch).compile()
    held = [x.addressable_shards[0].data.nbytes for x in jax.tree.leaves((state.params, state.opt_state))]
    about = step.memory_analysis()
    assert about.alias_size_in_bytes + about.host_alias_size_in_bytes >= sum(held), "the state was copied"
    for _ in range(3):
        state, _ = step(state, batch)
    return state.replace(frozen=None)


def moments(state: Any) -> list[jax.Array]:
    return [x for x in jax.tree.leaves((state.opt_state, state.critic_opt_state)) if x.ndim]


def kinds(arrays: Any) -> list[str]:
    return sorted({x.sharding.memory_kind for x in jax.tree.leaves(arrays)})


def same_bytes(a: Any, b: Any) -> bool:
    plain = lambda x: np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(plain(x).tobytes() == plain(y).tobytes() for x, y in pairs)


def read_back(state: Any, like: Any) -> Any:
    """What a checkpoint of one state gives to a run that begins with the other."""
    with tempfile.TemporaryDirectory() as folder:
        manager = checkpoint.open_manager(folder)
        checkpoint.save(manager, 1, state)
        manager.wait_until_finished()
        found = checkpoint.restore(manager, like)
        manager.close()
    assert found
    return found[0]


def compared(mesh: str) -> dict[str, Any]:
    here, there = (after_three_updates(configured(offload, mesh)) for offload in (False, True))
    read = [read_back(here, there), read_back(there, here)]
    parts = lambda state: [x.sharding.shard_shape(x.shape) for x in moments(state)]
    return {
        "same bytes": [same_bytes(here, other) for other in (there, *read)],
        "moments": [kinds(moments(x)) for x in (here, there, *read)],
        "weights": kinds(there.params),
        "same parts": parts(here) == parts(there),
        "split": any(part != x.shape for part, x in zip(parts(there), moments(there), strict=True)),
    }


if __name__ == "__main__":
    assert jax.device_count() == 4, jax.devices()
    json.dump(compared("fsdp=2,tensor=2"), sys.stdout)
