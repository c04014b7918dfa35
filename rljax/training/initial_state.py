"""What a stage starts from: parameters by name, and a training state that is laid out over the mesh."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import options, pretrained, transformer
from rljax.distributed import processes, sharding
from rljax.errors import UserError
from rljax.evaluation import Evaluation
from rljax.learner.loss_scale import init_loss_scale
from rljax.learner.optimizer import make_optimizer
from rljax.learner.reference import copy_reference, never_moves
from rljax.structs import KeyTag, TrainState
from rljax.training import journal, stage_checkpoints
from rljax.training.checkpoint_errors import OtherStateError
from rljax.training.config_files import flatten_config
from rljax.training.run import Run, Stage
from rljax.training.schema import STAGES
from rljax.training.teacher import parse_teacher
from rljax.transformer import lora, value_head
from rljax.transformer.lora import LoraOptions


class StageRecord(NamedTuple):
    """How a stage of some run learned, as far as what it learned depends on it."""

    start: str
    steps: int
    lora: LoraOptions


class RunRecord(NamedTuple):
    """Where a run lies, and how its stages learned."""

    workdir: Path
    seed: int
    weights: str
    stages: dict[str, StageRecord]
    finished: bool  # whether its stages must have come to their end


def new_state(run: Run, stage: Stage, params: Any, teacher: Any = None) -> TrainState:
    """The state that a stage starts from, laid out over the mesh; ``params`` None means random ones.

    For reinforcement learning it also holds what the algorithm needs: a reference, a critic, an entropy coefficient. The
    reference is ``teacher``, the parameters of ``teacher_params``, where the run has one.
    Parameters that lie where they should, as those of ``start_params`` do, are taken over: they are gone after the first step.
    """
    sharding.check_every_process_has_devices(run.model.layout)
    tx = make_optimizer(stage.optimizer, run.model, stage.optimizer_steps)
    key, frozen = jax.random.key(run.seed), None
    init = make_layout_init(run, stage)
    fixed = stage.name == "rl" and run.rl.algorithm.has_reference and never_moves(run.rl.update)

    if params is None:
        params = make_params_init(run.model)(key)
    else:
        params = jax.tree.map(take_over, params, sharding.weight_shardings(run.model))
    if stage.lora.rank:
        frozen = lora.Base(params, init(lambda: jnp.asarray(stage.lora.alpha / stage.lora.rank, jnp.float32)))
        names, rank = tuple(stage.lora.targets), stage.lora.rank
        tag = KeyTag.INIT_ADAPTERS
        params = init(lambda key: lora.init_adapters(run.model, names, rank, jax.random.fold_in(key, tag)), key)

    def other_parts(params: Any, frozen: Any, key: jax.Array, teacher: Any) -> dict[str, Any]:
        zeros = {name: jnp.zeros((), jnp.int32) for name in ("step", "cursor", "skipped", "skipped_total")}
        out: dict[str, Any] = zeros | {"opt_state": tx.init(params), "key": key}
        out["loss_scale"] = init_loss_scale(run.model)
        if frozen or fixed:
            compared = params if teacher is None else teacher
            out["fingerprint"] = lora.base_fingerprint(frozen or lora.Base(compared, jnp.ones(())))
        return out | (rl_parts(run, params, frozen, teacher) if stage.name == "rl" else {})

    parts = init(other_parts, params, frozen, key, teacher)
    return TrainState(params=params, frozen=frozen, reference_is_fixed=fixed, **parts)


def rl_parts(run: Run, params: Any, frozen: Any, teacher: Any) -> dict[str, Any]:
    """The parts of a state that the algorithm needs."""
    rl, out = run.rl, {}
    if rl.algorithm.has_reference and rl.teacher_model is not None:
        assert teacher is not None, "the parameters of rl.teacher must be read first: teacher_params"
        out["reference"] = copy_reference(teacher, rl.teacher_model, rl.update)
    elif rl.algorithm.has_reference:
        out["reference"] = copy_reference(params, run.model, rl.update, adapters=frozen is not None)
    if rl.algorithm.adapts_entropy:
        out["entropy_coef"] = jnp.zeros(())
    if rl.algorithm.looks_at("values"):
        tx = make_optimizer(rl.critic_optimizer, run.model, rl.optimizer_steps)
        out["critic"] = value_head.init_critic(lora.policy_params(params, frozen), rl.critic.trunk)
        out["critic_opt_state"] = tx.init(out["critic"])
    return out


def make_layout_init(run: Run, stage: Stage) -> Callable[..., Any]:
    """``init(make, *inputs)``: what ``make`` returns, made where the state of this stage has it."""

    def init(make: Callable[..., Any], *inputs: Any) -> Any:
        where = sharding.state_shardings(jax.eval_shape(make, *inputs), run.model, stage.offloaded)
        return jax.jit(make, out_shardings=where)(*inputs)

    return init


@functools.lru_cache(maxsize=8)  # many runs of one model are started in one process, with other seeds
def make_params_init(model: transformer.Config) -> Callable[[jax.Array], Any]:
    """``init(key of a run)``: random parameters of this model, made where they lie."""
    make = lambda key: transformer.init(model, jax.random.fold_in(key, KeyTag.INIT_PARAMS))
    return jax.jit(make, out_shardings=sharding.weight_shardings(model))


def take_over(x: jax.Array, where: jax.sharding.Sharding) -> jax.Array:
    """x itself where it lies so already, else a copy: two arrays on one buffer would not survive its donation."""
    if isinstance(x, jax.Array) and x.sharding == where:
        return x
    return jax.device_put(jnp.copy(x), where)


def start_params(run: Run, start: str, workdir: str | Path, merged: str | None = None) -> Any:
    """Parameters to start from, whole; adapters of a stage that learned some are merged into their base, as dtype ``merged``.

    ``start`` is "" for random parameters (None), "weights" for the folder of ``config.weights``, a stage of this workdir, or
    ``DIR:stage`` of another run. ``@STEP``, ``@best`` or ``@last`` behind the stage takes that checkpoint; without it, the
    newest. Raises UserError where that checkpoint does not exist, where the stage of this workdir has not finished, and where
    it holds another architecture.
    """
    if not start:
        return None
    sharding.check_every_process_has_devices(run.model.layout)
    folder, stage, step = parse_start(start)
    if stage == "weights":
        if not run.weights:
            raise UserError('start="weights", but no folder is named: --config.weights=FOLDER')
        return pretrained.read_params(run.weights, run.model, run.model.weight_dtype)
    return stage_params(run, read_record(run, Path(folder or workdir), own=not folder), stage, step, merged)


def teacher_params(run: Run) -> Any:
    """The parameters that ``rl.teacher`` names, whole; None where there is none. Raises UserError as ``start_params`` does."""
    if run.rl.teacher_model is None:
        return None
    folder, stage = parse_teacher(run.rl.update.teacher)
    if not stage:
        return pretrained.read_params(folder, run.rl.teacher_model, run.model.weight_dtype)
    return start_params(dataclasses.replace(run, model=run.rl.teacher_model), f"{folder}:{stage}", folder)


def at_step(stage: str, step: str) -> str:
    """The name of a stage's checkpoint: ``stage@step``, or the stage alone for its last one."""
    return f"{stage}@{step}" if step else stage


def parse_start(start: str) -> tuple[str, str, str]:
    """ "DIR:stage@step" -> (folder, stage, step), "" for what is not said. Raises UserError for an unknown stage."""
    folder, _, rest = start.rpartition(":")
    stage, _, step = rest.partition("@")
    if stage not in (*STAGES, "weights"):
        raise UserError(f"start={start!r}: choose from weights, pretrain, sft, rl, or DIR:stage[@step] of another run")
    if step and not (step.isdigit() or step in ("best", "last")):
        raise UserError(f"start={start!r}: the step is a number, best or last")
    return folder, stage, step


def stage_params(run: Run, record: RunRecord, stage: str, step: str = "", merged: str | None = None) -> Any:
    """The parameters that a stage of a run has learned, whole; what adapters change is of dtype ``merged``, else as its base."""
    how = record.stages[stage]
    steps = how.steps if record.finished else None
    if not how.lora.rank:
        shape = jax.eval_shape(lambda: transformer.init(run.model, jax.random.key(0)))
        return load_params(run, record, stage, steps, shape, step)
    base = stage_start(run, record, stage)
    names, rank = tuple(how.lora.targets), how.lora.rank
    shape = jax.eval_shape(lambda: lora.init_adapters(run.model, names, rank, jax.random.key(0)))
    adapters = load_params(run, record, stage, steps, shape, step)
    scale: Any = np.float32(how.lora.alpha / rank)  # of numpy: an array would be this process's alone
    in_dtype = functools.partial(lora.merge_adapters, dtype=merged)
    merge = jax.jit(in_dtype, out_shardings=sharding.weight_shardings(run.model))
    return merge(adapters, lora.Base(base, scale))


def load_params(run: Run, record: RunRecord, stage: str, steps: int | None, shape: Any, step: str) -> Any:
    """The stored parameters of a stage. Where they are of another model, the error also says in which settings the runs differ."""
    try:
        return stage_checkpoints.load_params(record.workdir, stage, steps, place_abstract(run, shape), step)
    except UserError as e:
        old = flatten_config(journal.read_config(record.workdir))
        new = flatten_config(dict(run.record))
        about = ["task.name", "weights", *(k for k in new if k.startswith(("model.", f"{stage}.lora.")))]
        different = [k for k in about if k in old and old[k] != new[k]]
        if not isinstance(e.__cause__, OtherStateError) or not different:
            raise
        said = ", ".join(f"{k}={old[k]!r}, not {new[k]!r}" for k in different[:3])
        raise UserError(f"{record.workdir} is a run of another model: {said} ({e})") from e


def stage_start(run: Run, record: RunRecord, stage: str) -> Any:
    """The parameters that a stage of a run started from."""
    start = record.stages[stage].start
    if not start:
        return make_params_init(run.model)(jax.random.key(record.seed))
    folder, before, step = parse_start(start)
    if before == "weights":
        return pretrained.read_params(record.weights, run.model, run.model.weight_dtype)
    theirs = read_record(run, Path(folder), own=False) if folder else record
    return stage_params(run, theirs, before, step)


def place_abstract(run: Run, shape: Any) -> Any:
    """Where each array of this shape is to lie, for a checkpoint that is read."""
    place = lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
    return jax.tree.map(place, shape, sharding.state_shardings(shape, run.model))


def read_record(run: Run, workdir: Path, own: bool) -> RunRecord:
    """How the stages of a run learned: of this run by its settings, of another by its config.json."""
    stages = {name: StageRecord(s.start, s.loop.steps, s.lora) for name, s in map(lambda n: (n, run.stage(n)), STAGES)}
    if own:
        return RunRecord(workdir, run.seed, run.weights, stages, finished=True)
    found = journal.read_config(workdir)
    for name in STAGES:
        said, now = found.get(name, {}), stages[name]
        adapters = options.build(LoraOptions, options.defaults(LoraOptions) | said.get("lora", {}), f"{name}.lora.")
        stages[name] = StageRecord(said.get("start", now.start), said.get("steps", now.steps), adapters)
    return RunRecord(workdir, found.get("seed", run.seed), found.get("weights", run.weights), stages, finished=False)


def known_evaluation(run: Run, start: str, workdir: str | Path) -> Evaluation | None:
    """The last evaluation of the stage that ``start`` names: the same problems, noise and parameters give the same numbers.

    None where there is none, or where that stage was evaluated otherwise. Of several processes only the first has the numbers.
    """
    found = read_evaluation(run, start, workdir) if processes.is_primary() else None
    return (found or ({}, [])) if processes.broadcast_from_primary(found is not None) else None


def read_evaluation(run: Run, start: str, workdir: str | Path) -> Evaluation | None:
    """The evaluation that the stage's records hold, where it asked what this run asks."""
    folder, stage, step = parse_start(start) if start else ("", "", "")
    folder = Path(folder or workdir)
    rows = [r for r in journal.read_records(folder / "metrics.jsonl") if r["stage"] == stage and "eval/pass@1" in r]
    found = journal.read_config(folder)
    if not rows or step or not found:
        return None
    same = all(found.get(name) == run.record[name] for name in ("seed", "eval", "task", "model", "weights"))
    if not same or found["rl"]["max_new_tokens"] != run.rl.sampling.max_new_tokens:
        return None
    if found[stage].get("lora", {}).get("rank"):  # merged, the policy is rounded
        return None
    samples = journal.read_samples(folder, stage, rows[-1]["step"])
    return {k: v for k, v in rows[-1].items() if k.startswith("eval/") and k != "eval/loss" and v is not None}, samples
