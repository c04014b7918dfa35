"""What a stage starts from: parameters by name, and a state that is laid out over the mesh."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import policy_gradient as pg
from rljax import pretrained, transformer
from rljax.distributed import processes, sharding
from rljax.errors import UserError
from rljax.learner import optimizer
from rljax.structs import ConfigTree, TrainState
from rljax.training import journal, loop
from rljax.training.settings import STAGES, Settings, offloaded, policy_update
from rljax.transformer import lora, value_head


def new_state(s: Settings, stage: ConfigTree, params: Any, row: pg.Algorithm | None = None) -> TrainState:
    """The state that a stage starts from, laid out over the mesh; ``params`` None means random ones.

    ``row`` says what else reinforcement learning needs: a reference, a critic, an entropy coefficient. Parameters that lie
    where they should, as those of ``start_params`` do, are taken over: they are gone after the state's first step.
    """
    sharding.check_processes(s.model.layout)
    tx = optimizer.make(stage.optimizer, s.model, stage.steps * stage.get("updates", 1) * stage.get("epochs", 1))
    key, frozen = jax.random.key(s.config.seed), None

    def laid_out(make: Callable[..., Any], *inputs: Any) -> Any:
        where = sharding.state_shardings(jax.eval_shape(make, *inputs), s.model, offloaded(stage))
        return jax.jit(make, out_shardings=where)(*inputs)

    if params is None:
        params = laid_out(lambda key: transformer.init(s.model, jax.random.fold_in(key, 0x1217)), key)
    else:
        params = jax.tree.map(taken_over, params, sharding.weight_shardings(s.model))
    if stage.lora.rank:
        scale = stage.lora.alpha / stage.lora.rank
        frozen = lora.Base(params, laid_out(lambda: jnp.asarray(scale, jnp.float32)))
        names, rank = tuple(stage.lora.targets), stage.lora.rank
        params = laid_out(lambda key: lora.init(s.model, names, rank, jax.random.fold_in(key, 0x10FA)), key)

    def rest(params: Any, frozen: Any, key: jax.Array) -> dict[str, Any]:
        zeros = {name: jnp.zeros((), jnp.int32) for name in ("step", "cursor", "skipped", "skipped_total")}
        out: dict[str, Any] = zeros | {"opt_state": tx.init(params), "key": key}
        if frozen:
            out["fingerprint"] = lora.fingerprint(frozen)
        if row and row.kl_in:
            out["reference"] = jax.tree.map(jnp.copy, params)
        if row and row.adapts_entropy:
            out["entropy_coef"] = jnp.zeros(())
        if row and (how := policy_update(s).critic):
            out["critic"] = value_head.init(lora.policy(params, frozen), s.config.rl.critic.trunk)
            out["critic_opt_state"] = how.optimizer.init(out["critic"])
        return out

    return TrainState(params=params, frozen=frozen, **laid_out(rest, params, frozen, key))


def taken_over(x: jax.Array, where: jax.sharding.Sharding) -> jax.Array:
    """x itself where it lies so already, else a copy: two arrays on one buffer would not survive its donation."""
    if isinstance(x, jax.Array) and x.sharding == where:
        return x
    return jax.device_put(jnp.copy(x), where)


def start_params(s: Settings, start: str, workdir: str | Path) -> Any:
    """Parameters to start from, whole: "" for random ones (None), "weights" for the folder of ``config.weights``, "sft" for
    that stage of this workdir, "DIR:sft" of another; the adapters of a stage that learned some are merged into their base.

    Raises UserError where that stage of this workdir has not finished, or where one holds another architecture; of another
    run it takes the newest checkpoint.
    """
    if not start:
        return None
    sharding.check_processes(s.model.layout)
    if start == "weights":
        if not s.config.weights:
            raise UserError('start="weights", but no folder is named: --config.weights=FOLDER')
        return pretrained.read_params(s.config.weights, s.model, s.model.weight_dtype)
    folder, _, stage = start.rpartition(":")
    if stage not in STAGES:
        raise UserError(f"start={start!r}: choose from weights, pretrain, sft, rl, or DIR:stage of another run")
    config = s.config if not folder else recorded(s, folder)
    rank, steps = config[stage].lora.rank, None if folder else config[stage].steps
    if not rank:
        shape = jax.eval_shape(lambda: transformer.init(s.model, jax.random.key(0)))
        return loop.load_params(folder or workdir, stage, steps, placed(s, shape))
    before = start_params(dataclasses.replace(s, config=config), config[stage].start, folder or workdir)
    if before is None:
        before = new_state(dataclasses.replace(s, config=config), without_lora(config[stage]), None).params
    shape = jax.eval_shape(lambda: lora.init(s.model, tuple(config[stage].lora.targets), rank, jax.random.key(0)))
    adapters = loop.load_params(folder or workdir, stage, steps, placed(s, shape))
    scale: Any = np.float32(config[stage].lora.alpha / rank)  # of numpy: an array would be this process's alone
    base = lora.Base(before, scale)
    return jax.jit(lora.merge, out_shardings=sharding.weight_shardings(s.model))(adapters, base)


def placed(s: Settings, shape: Any) -> Any:
    """Where each array of this shape is to lie, for a checkpoint that is read."""
    place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    return jax.tree.map(place, shape, sharding.state_shardings(shape, s.model))


def without_lora(stage: ConfigTree) -> ConfigTree:
    stage = stage.copy_and_resolve_references()
    stage.lora.rank = 0
    return stage


def recorded(s: Settings, folder: str) -> ConfigTree:
    """The config of another run, as far as its file has it; what a later version added is as here."""
    config = s.config.copy_and_resolve_references()
    for stage in STAGES:
        config[stage].lora.rank = 0  # unless it says so
    found = journal.read_config(folder)
    for name in ("seed", "weights"):
        config[name] = found.get(name, config[name])
    for stage in STAGES:
        of_stage = found.get(stage, {})
        config[stage].start = of_stage.get("start", config[stage].start)
        config[stage].steps = of_stage.get("steps", config[stage].steps)
        for name, value in of_stage.get("lora", {}).items():
            config[stage].lora[name] = tuple(value) if isinstance(value, list) else value
    return config


def evaluated(s: Settings, start: str, workdir: str | Path) -> tuple[dict[str, float], list[dict[str, Any]]] | None:
    """The last evaluation of the stage that ``start`` names: the same problems, noise and parameters, so the same numbers.

    None where there is none, or where that stage's config asked for another evaluation. Of several processes only the first,
    which writes, has the numbers.
    """
    found = evaluated_before(s, start, workdir) if processes.writes() else None
    return (found or ({}, [])) if processes.first_says(found is not None) else None


def evaluated_before(
    s: Settings, start: str, workdir: str | Path
) -> tuple[dict[str, float], list[dict[str, Any]]] | None:
    folder, _, stage = start.rpartition(":")
    folder = Path(folder or workdir)
    rows = [r for r in journal.read_records(folder / "metrics.jsonl") if r["stage"] == stage and "eval/pass@1" in r]
    found, here = journal.read_config(folder), journal.to_plain(s.config.to_dict())
    same = all(found.get(name) == here[name] for name in ("seed", "eval", "task", "model", "weights"))
    if not rows or not same or found["rl"]["max_new_tokens"] != s.config.rl.max_new_tokens:
        return None
    if found[stage].get("lora", {}).get("rank"):  # merged, the policy is rounded
        return None
    samples = journal.read_records(folder / "samples" / f"{stage}_step_{rows[-1]['step']:06d}.jsonl")
    return {k: v for k, v in rows[-1].items() if k.startswith("eval/") and k != "eval/loss" and v is not None}, samples
