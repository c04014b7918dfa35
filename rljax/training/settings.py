"""From a config to the objects that a run is made of, checked before any long work starts."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import evaluation, learner, pretrained, rewards, sampler, tasks, transformer
from rljax import policy_gradient as pg
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.learner import optimizer
from rljax.structs import ConfigTree, TrainState
from rljax.text.hf_tokenizer import load as load_tokenizer
from rljax.transformer import lora, value_head

STAGES = ("pretrain", "sft", "rl")
ARRAYS = {"seed": np.int32, "rl.temperature": np.float32, "rl.optimizer.learning_rate": np.float32}
Numbers = Mapping[str, Any]  # {dotted path of a setting, one of ARRAYS or rl.row.PART.OPTION: its value, maybe traced}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A resolved config: the world, the model, the devices."""

    config: ConfigTree
    task: tasks.Task
    model: transformer.Config  # laid out as the update wants it
    actor: transformer.Config  # the same, laid out as the sampler wants it
    numbers: Numbers = dataclasses.field(default_factory=dict)  # before the config's: arguments of a program

    def number(self, path: str) -> Any:
        """A setting of ARRAYS by its dotted path: the value of this run."""
        return self.numbers[path] if path in self.numbers else self.config[path]


def resolve(config: ConfigTree, running: str = "") -> Settings:
    """Build and check everything that every stage shares, and the stage that is ``running``.

    Raises UserError naming what does not fit.
    """
    if unknown := [name for name in config.stages if name not in STAGES]:
        raise UserError(f"stages={config.stages}: {unknown[0]!r} is no stage, choose from {STAGES}")
    tokenizer = load_tokenizer(config.weights) if config.weights else None
    if tokenizer is None:
        task = tasks.make_task(config.task.name, **config.task.options.to_dict())
        model = transformer.Config(vocab_size=task.tokenizer.size, **config.model.to_dict())
    else:
        if not tasks.takes_tokenizer(config.task.name):
            raise UserError(f"task {config.task.name}: {tasks.OWN_VOCABULARY}")
        model = architecture(config)
        task = tasks.make_task(config.task.name, tokenizer, **config.task.options.to_dict())
        pretrained.check_together(model, tokenizer, config.weights)
    model, actor = laid_out(config, model)
    check_report(config, task)
    longest = max(config[name].max_new_tokens for name in {"rl", *config.stages} - {"pretrain"})
    sampler.check_window(model, task.prompt_slots, longest)
    rewards.parse(config.rl.reward)
    algorithm(config.rl)
    check_distribution(config.rl, task)
    ways = ("", *transformer.LIGHTER)
    if config.rl.sampler_weights not in ways:
        raise UserError(f"rl.sampler_weights={config.rl.sampler_weights!r} is unknown, choose from {ways}")
    for stage in dict.fromkeys((*config.stages, *filter(None, [running]))):
        check_stage(config, model, stage)
    if "sft" in config.stages and not config.sft.file and config.sft.max_new_tokens < task.demonstration_slots:
        raise UserError(
            f"sft.max_new_tokens={config.sft.max_new_tokens}, but demonstrations of {task.name!r} have up to "
            f"{task.demonstration_slots} tokens: raise it (and model.max_length with it), or make the task shorter"
        )
    return Settings(config, task, model, actor)


def check_report(config: ConfigTree, task: tasks.Task) -> None:
    """Raise UserError where the report would look for what this task does not count, or for a share that is none."""
    aha = config.report.aha
    if aha.behaviour not in task.behaviours:
        raise UserError(
            f"report.aha.behaviour={aha.behaviour!r} is not counted in task {task.name}, choose from {task.behaviours}"
        )
    if not 0 < aha.share <= 1:
        raise UserError(f"report.aha.share={aha.share}: a share of responses, above 0 and at most 1")


def laid_out(config: ConfigTree, model: transformer.Config) -> tuple[transformer.Config, transformer.Config]:
    """The model on the mesh, as the update and as the sampler lay it out. Raises UserError where it does not fit."""
    m = config.mesh
    meshes = sharding.make_meshes(m.actors, **{axis: m[axis] for axis in sharding.AXES})
    both = []
    for name, mesh in zip(("learn", "sample"), meshes, strict=True):
        layout = sharding.layout(mesh, m[name], f"mesh.{name}")
        both.append(dataclasses.replace(model, layout=layout))
        sharding.weight_shardings(both[-1])
        transformer.check_devices(both[-1])
    return both[0], both[1]


def architecture(config: ConfigTree) -> transformer.Config:
    """The folder's architecture, computed as ``config.model`` says. Raises UserError where that says another one."""
    said = config.model.to_dict()
    model = pretrained.read_config(config.weights, **{name: said[name] for name in pretrained.COMPUTED})
    defaults = {f.name: f.default for f in dataclasses.fields(transformer.Config)}
    for name, value in said.items():
        set_here = name not in (*pretrained.COMPUTED, "max_length") and value != defaults[name]
        if set_here and value != getattr(model, name):
            raise UserError(
                f"model.{name}={value!r}, but the model in weights={config.weights} has {getattr(model, name)!r}: with "
                f"weights only {', '.join(pretrained.COMPUTED)} can be chosen"
            )
    return model


def check_stage(config: ConfigTree, model: transformer.Config, name: str) -> None:
    """Raise UserError where a stage that reproduce runs cannot start, or learn adapters, as the config says."""
    stage = config[name]
    if name == "rl" and config.mesh.actors:
        check_ahead(stage)
    if stage.start == "weights" and not config.weights:
        raise UserError(f'{name}.start="weights", but no folder is named: --config.weights=FOLDER')
    for setting in offloaded(stage).values():
        sharding.check_host_memory(model.layout, f"{name}.{setting}")
    if not stage.lora.rank:
        return
    if stage.lora.rank < 0:
        raise UserError(f"{name}.lora.rank={stage.lora.rank}: must be at least 1, or 0 for no adapters")
    lora.targets(model, stage.lora.targets)
    if stage.optimizer.name == "muon":
        raise UserError(f"{name}.optimizer.name=muon knows whole matrices only: use adamw or sgd with {name}.lora")
    if name == "rl" and algorithm(stage).looks_at("values") and stage.critic.trunk == "own":
        raise UserError(
            "rl.lora.rank: a critic of its own would be a whole model that learns: use rl.critic.trunk=policy"
        )
    if name == "rl" and stage.mix_reference != 1.0:
        raise UserError("rl.lora.rank: adapters of two policies cannot be mixed: use rl.mix_reference=1")


def offloaded(stage: ConfigTree) -> dict[str, str]:
    """{part of the state whose arrays lie in host memory between updates: the setting of this stage that says so}."""
    found = {"opt_state": "optimizer.offload"} if stage.optimizer.offload else {}
    if "critic" in stage and stage.critic.optimizer.offload:
        found["critic_opt_state"] = "critic.optimizer.offload"
    return found


def check_ahead(rl: ConfigTree) -> None:
    """Raise UserError where attempts of the policy one step before would be learned from as if they were its own."""
    row = algorithm(rl)
    from_sampler = row.option("surrogate", "from_sampler") or row.name("surrogate") == "decoupled_ppo"
    if row.name("correction") == "none" and not from_sampler:
        raise UserError(
            f"mesh.actors samples one step ahead, with the policy before the update, which {rl.algorithm!r} does not correct "
            'for: add --config.rl.row.correction="token_truncate(hi=2.0)", or another of docs/algorithms.md'
        )
    if row.name("groups") == "refill":
        raise UserError("mesh.actors samples one step ahead: it cannot ask again for groups that agree (groups=refill)")


def row_of(s: Settings) -> pg.Algorithm:
    """The row of this run: what the config says, with its own numbers as the options they are of."""
    row = algorithm(s.config.rl)
    for path in [p for p in s.numbers if p.startswith("rl.row.")]:
        field, option = path.removeprefix("rl.row.").split(".")
        name, options = row.choice(field)
        row = dataclasses.replace(row, **{field: pg.choices.Choice(name, options | {option: s.numbers[path]})})
    return row


def algorithm(rl: ConfigTree) -> pg.Algorithm:
    """The named row, with whatever ``rl.row`` sets in its place. Raises UserError for what cannot be trained."""
    if rl.algorithm not in pg.ALGORITHMS:
        raise UserError(f"rl.algorithm={rl.algorithm!r} is unknown, choose from {sorted(pg.ALGORITHMS)}")
    changes = {k: v for k, v in rl.row.to_dict().items() if v is not None}
    row = dataclasses.replace(pg.ALGORITHMS[rl.algorithm], **changes)
    advantage, attempts = row.name("advantage"), rl.prompts * rl.group_size
    if rl.group_size < 2 and advantage in pg.NEEDS_GROUP:
        raise UserError(
            f"rl.group_size={rl.group_size}, but the advantage {advantage!r} of {rl.algorithm!r} compares the attempts at one "
            "prompt: use a group of 2 or more, or rl.row.advantage=raw"
        )
    if rl.group_size < 2 and row.name("groups") != "all":
        raise UserError(
            f"rl.group_size={rl.group_size} with groups={row.choice('groups')}: a group of one never disagrees"
        )
    most, k = rl.group_size - (row.option("advantage", "baseline") == "loo"), row.option("advantage", "k")
    if k is not None and not 1 <= k <= most:
        raise UserError(
            f"rl.row.advantage={row.choice('advantage')}: k must be 1 to {most} at rl.group_size={rl.group_size}"
        )
    if advantage in pg.BINARY and rewards.parse(rl.reward) != rewards.CORRECT:
        raise UserError(
            f"rl.reward={rl.reward!r}, but the advantage {advantage!r} of {rl.algorithm!r} takes a reward for right or wrong: "
            "use rl.reward=correct, or another algorithm"
        )
    parts = len(rewards.parse(rl.reward)) + (row.name("truncated") == "soft")
    if advantage == "gdpo" and (parts < 2 or len(row.option("advantage", "weights")) not in (0, parts)):
        raise UserError(
            f"rl.row.advantage={row.choice('advantage')} normalises several rewards and weighs each, but rl.reward={rl.reward!r} "
            f"with truncated={row.choice('truncated')} has {parts}: add a term to rl.reward, or give as many weights"
        )
    if rl.temperature <= 0:
        raise UserError(
            f"rl.temperature={rl.temperature}: a greedy policy has no gradient, train at a temperature above 0"
        )
    from_sampler = row.option("surrogate", "from_sampler") or row.name("surrogate") == "decoupled_ppo"
    if (rl.top_p < 1 or rl.top_k) and row.name("correction") == "none" and not from_sampler:
        raise UserError(
            f"rl.top_p={rl.top_p}, rl.top_k={rl.top_k}: attempts come from a truncated distribution, whose log-probabilities "
            "are not those of the policy that learns: use top_p=1 and top_k=0, or correct with "
            "rl.row.correction=token_truncate"
        )
    if rl.updates < 1 or rl.epochs < 1 or attempts % rl.updates:
        raise UserError(
            f"rl.updates={rl.updates}, rl.epochs={rl.epochs}: updates must divide the {attempts} attempts of a rollout, and "
            "both be at least 1"
        )
    if rl.updates > 1 and row.name("aggregation") == "prompt_mean":
        raise UserError(
            f"rl.updates={rl.updates} splits groups over optimiser steps, but the aggregation prompt_mean averages within "
            "them: use rl.updates=1 or another aggregation"
        )
    if row.looks_at("values") and rl.critic.trunk not in value_head.TRUNKS:
        raise UserError(f"rl.critic.trunk={rl.critic.trunk!r} is unknown, choose from {value_head.TRUNKS}")
    if row.looks_at("values") and rl.critic.optimizer.name == "muon":
        raise UserError("rl.critic.optimizer.name=muon knows the policy's matrices only: use adamw or sgd")
    return row


def policy_update(s: Settings) -> learner.PolicyUpdate:
    """How the policy (and, where the row has one, its critic) learns from a rollout."""
    c = s.config.rl
    value = None
    if algorithm(c).looks_at("values"):
        tx = optimizer.make(c.critic.optimizer, s.model, c.steps * c.updates * c.epochs)
        value = learner.CriticUpdate(tx, c.critic.clip, c.critic.coef, c.critic.warmup)
    return learner.PolicyUpdate(
        max_new_tokens=c.max_new_tokens,
        group_size=c.group_size,
        temperature=s.number("rl.temperature"),
        updates=c.updates,
        epochs=c.epochs,
        refresh_reference=c.refresh_reference,
        mix_reference=c.mix_reference,
        critic=value,
    )


def check_distribution(rl: ConfigTree, task: tasks.Task) -> None:
    """Raise UserError where the problems that RL asks, or the limit of responses, cannot be as ``rl`` says."""
    if rl.limit.until and not 0 < rl.limit.tokens < rl.max_new_tokens:
        raise UserError(
            f"rl.limit.tokens={rl.limit.tokens} until step {rl.limit.until}: it must be between 1 and "
            f"rl.max_new_tokens={rl.max_new_tokens}, less one"
        )
    if not any(rl.levels.to_dict().values()):
        return
    if task.levels is None:
        raise UserError(f"rl.levels: problems of task {task.name!r} have no levels here (shop has them with fewest=3)")
    lowest, highest = rl.levels.low or task.levels[0], rl.levels.high or task.levels[1]
    if not task.levels[0] <= lowest <= highest <= task.levels[1] or rl.levels.rise < 0:
        raise UserError(
            f"rl.levels: low={lowest}, high={highest}, rise={rl.levels.rise}: problems of {task.name!r} have levels "
            f"{task.levels[0]} to {task.levels[1]}, and rise is a number of steps"
        )


def levels_at(s: Settings, cursor: jax.Array) -> tuple[int, jax.Array | int] | None:
    """(lowest, highest) level of the problems from number ``cursor`` on; None: as the task draws them.

    With ``rl.levels.rise`` the levels open one after the other in equal parts of so many steps: from easy to hard.
    """
    c = s.config.rl
    if not any(c.levels.to_dict().values()) or s.task.levels is None:
        return None
    lowest, highest = c.levels.low or s.task.levels[0], c.levels.high or s.task.levels[1]
    if not c.levels.rise:
        return lowest, highest
    opened = cursor * (highest - lowest + 1) // (c.levels.rise * c.prompts)
    return lowest, jnp.minimum(lowest + opened, highest)


def round_key(state: TrainState, number: jax.Array) -> jax.Array:
    """The key of a round of dynamic sampling, apart from those of the rows and of the update."""
    return jax.random.fold_in(state.step_key(), (1 << 30) + number)


def split(s: Settings, stage: ConfigTree, prompt_slots: int) -> learner.Split:
    """How this stage's batches are computed; micro-batches are rounded up to whole rows a device."""
    layout = s.model.layout
    rows = -(-stage.micro_batch // layout.ways("rows")) * layout.ways("rows")
    return learner.Split(rows, tuple(prompt_slots + w for w in stage.widths), layout)


def evaluator(s: Settings, keep: int = 16, brief: bool = False) -> evaluation.Evaluate:
    """``evaluate(params)`` as ``config.eval`` asks for it; ``keep`` and ``brief`` say which attempts it returns."""
    look = evaluation.make(s.task, s.actor, seed=s.config.seed, **to_ask(s), keep=keep, brief=brief)
    return (lambda params: look(sharding.place_policy(params, s.actor))) if s.config.mesh.actors else look


def evaluator_of_runs(s: Settings, seeds: Sequence[int], lift: evaluation.Lift) -> evaluation.EvaluateRuns:
    """The same of runs that are computed together: ``evaluate(params [R, ...]) -> [(metrics, samples)]``."""
    return evaluation.of_runs(s.task, s.actor, seeds=seeds, lift=lift, **to_ask(s))


def to_ask(s: Settings) -> dict[str, Any]:
    """The arguments of an evaluation that come from the config."""
    e = s.config.eval
    problems = min(e.problems, s.task.num_questions(e.split) or e.problems)  # asked twice, a question would count twice
    return dict(
        split=e.split,
        problems=problems,
        attempts=e.attempts,
        max_new_tokens=s.config.rl.max_new_tokens,
        temperature=e.temperature,
        top_k=e.top_k,
        top_p=e.top_p,
        greedy=e.greedy,
        workers=s.config.workers,
    )


def loop(s: Settings, stage: str, workdir: str | Path, stop: int = 0) -> dict[str, Any]:
    """The arguments of ``stages.train`` that come from the config."""
    c = s.config[stage]
    return dict(
        steps=stop or c.steps,
        eval_every=c.eval_every,
        log_every=c.log_every,
        max_skipped=c.max_skipped,
        keep=(s.config.checkpoint.keep_latest, s.config.checkpoint.keep_best),
        workdir=workdir,
    )


def supervised(s: Settings, stage: ConfigTree, split: learner.Split) -> tuple[Callable, Callable]:
    """(update(state, batch) -> (state, metrics), measure(params, batch) -> held-out loss in nats a token), jitted."""
    tx = optimizer.make(stage.optimizer, s.model, stage.steps)
    update = functools.partial(learner.supervised_step, model=s.model, optimizer=tx, split=split)
    measure = jax.jit(functools.partial(learner.supervised_loss, model=s.model, split=split))
    return jax.jit(update, donate_argnums=0), lambda params, batch: float(measure(params, batch))
