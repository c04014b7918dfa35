"""A config, read once: everything that a run is made of, built and checked before any long work starts.

``resolve`` is the door. Behind it nobody sees the config tree: each room is handed the small frozen object that it declares.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from rljax import learner, options, pretrained, rewards, sampler, tasks, transformer
from rljax import policy_gradient as pg
from rljax.distributed import sharding
from rljax.distributed.options import MeshOptions
from rljax.errors import UserError
from rljax.evaluation import BudgetOptions, Evaluate, EvaluationOptions, make_evaluator
from rljax.learner.optimizer import OptimizerOptions
from rljax.structs import ConfigTree
from rljax.tasks.curriculum import Levels, ProblemOptions
from rljax.tasks.stage_data import PretrainingData, SFTData
from rljax.text.hf_tokenizer import load_tokenizer
from rljax.training import checks, teacher
from rljax.training.journal import to_plain
from rljax.training.loggers import check_loggers
from rljax.training.schema import (
    STAGES,
    AhaOptions,
    CheckpointOptions,
    LoopOptions,
    ReportOptions,
    RunOptions,
    SelectionOptions,
    build_section,
    check_config,
)
from rljax.transformer.lora import LoraOptions

ARRAYS = {"seed": np.int32, "rl.temperature": np.float32, "rl.optimizer.learning_rate": np.float32}


@dataclasses.dataclass(frozen=True)
class Stage:
    """What every stage has."""

    name: str
    start: str
    loop: LoopOptions
    optimizer: OptimizerOptions
    lora: LoraOptions
    micro_batching: learner.MicroBatching

    @property
    def optimizer_steps(self) -> int:
        """Updates that the learning-rate schedule spans."""
        return self.loop.steps

    @property
    def offloaded(self) -> dict[str, str]:
        """{part of the state whose arrays lie in host memory between updates: the setting that says so}."""
        return {"opt_state": f"{self.name}.optimizer.offload"} if self.optimizer.offload else {}


@dataclasses.dataclass(frozen=True)
class Pretraining(Stage):
    data: PretrainingData


@dataclasses.dataclass(frozen=True)
class FineTuning(Stage):
    data: SFTData


@dataclasses.dataclass(frozen=True)
class Reinforcement(Stage):
    problems: ProblemOptions
    sampling: sampler.Sampling
    reward: tuple[rewards.Term, ...]
    algorithm: pg.Algorithm
    update: learner.UpdateOptions
    critic: learner.CriticOptions
    critic_optimizer: OptimizerOptions
    teacher_model: transformer.Config | None = (
        None  # of ``rl.teacher``; None where the reference is a copy of the policy
    )

    @property
    def optimizer_steps(self) -> int:
        return self.loop.steps * self.update.steps

    @property
    def offloaded(self) -> dict[str, str]:
        critic = {"critic_opt_state": "rl.critic.optimizer.offload"} if self.critic_optimizer.offload else {}
        return super().offloaded | critic


@dataclasses.dataclass(frozen=True)
class Run:
    """A resolved config: the world, the model, the devices, and every stage."""

    seed: Any  # int, or a traced int32 []
    workers: int
    max_unscored: float
    weights: str
    stages: tuple[str, ...]
    log: tuple[str, ...]
    task: tasks.Task
    model: transformer.Config  # laid out for the update
    sampler_model: transformer.Config  # the same model, laid out for sampling
    mesh: MeshOptions
    checkpoint: CheckpointOptions
    evaluation: EvaluationOptions
    pretrain: Pretraining
    sft: FineTuning
    rl: Reinforcement
    selection: SelectionOptions
    report: ReportOptions
    aha: AhaOptions
    record: Mapping[str, Any]  # the config as config.json says it, for records and loggers alone

    def stage(self, name: str) -> Any:
        """The settings of one stage."""
        return {"pretrain": self.pretrain, "sft": self.sft, "rl": self.rl}[name]

    def evaluator(self, full_problems: int = 16, short_samples: bool = False) -> Evaluate:
        """``evaluate(params)`` as the config asks for it. The arguments say which samples it returns (``make_evaluators``)."""
        settings = dict(full_problems=full_problems, short_samples=short_samples, workers=self.workers)
        sampling = self.rl.sampling
        settings |= dict(max_unscored=self.max_unscored, max_new_tokens=sampling.max_new_tokens, slots=sampling.slots)
        evaluate = make_evaluator(self.task, self.sampler_model, self.evaluation, seed=self.seed, **settings)
        if not self.mesh.actors:
            return evaluate
        return lambda params: evaluate(sharding.reshard_params(params, self.sampler_model))

    def numbers(self) -> dict[str, np.ndarray]:
        """{path: value, a scalar array} of what may be an argument of a compiled train step."""
        rl = self.rl
        values = {
            "seed": self.seed,
            "rl.temperature": rl.sampling.temperature,
            "rl.optimizer.learning_rate": rl.optimizer.learning_rate,
        }
        values |= {f"rl.row.{part}.{option}": x for (part, option), x in rl.algorithm.number_options().items()}
        return {path: np.asarray(value, ARRAYS.get(path, np.float32)) for path, value in values.items()}

    def with_numbers(self, numbers: Mapping[str, Any]) -> "Run":
        """The same run with these values, which may be traced, in the place of its own."""
        rl, of_algorithm = self.rl, {}
        for path, value in numbers.items():
            if path.startswith("rl.row."):
                part, name = path.removeprefix("rl.row.").split(".")
                of_algorithm[part, name] = value
        temperature = numbers.get("rl.temperature", rl.sampling.temperature)
        rate = numbers.get("rl.optimizer.learning_rate", rl.optimizer.learning_rate)
        rl = dataclasses.replace(
            rl,
            algorithm=rl.algorithm.with_numbers(of_algorithm),
            sampling=dataclasses.replace(rl.sampling, temperature=temperature),
            optimizer=dataclasses.replace(rl.optimizer, learning_rate=rate),
        )
        return dataclasses.replace(self, seed=numbers.get("seed", self.seed), rl=rl)


def resolve(config: ConfigTree, running: str = "") -> Run:
    """Build and check everything that every stage shares, the stages of the config, and the one that is ``running``.

    Raises UserError naming what does not fit.
    """
    check_config(config)
    shared = build_section(RunOptions, config, "")
    options.load_plugins(shared.plugins)
    check_loggers(shared.log)
    if unknown := [name for name in shared.stages if name not in STAGES]:
        raise UserError(f"stages={shared.stages}: {unknown[0]!r} is not a stage, choose from {STAGES}")
    names = tuple(dict.fromkeys((*shared.stages, *filter(None, [running]))))
    checks.check_starts({name: config[name].start for name in names if "start" in config[name]}, shared.weights)
    task, model = make_world(config, shared.weights)
    run = build_run(config, task, *lay_out(config, model))
    checks.check_run(run, names)
    return run


def make_world(config: ConfigTree, weights: str) -> tuple[tasks.Task, transformer.Config]:
    """The task and the model's architecture: the config's own, or those that fit the folder ``weights``."""
    name, task_options = config.task.name, config.task.options.to_dict()
    tokenizer = load_tokenizer(weights) if weights else None
    if tokenizer is None:
        task = tasks.make_task(name, **task_options)
        return task, transformer.Config(vocab_size=task.tokenizer.size, **config.model.to_dict())
    if not tasks.takes_tokenizer(name):
        raise UserError(f"task {name}: {tasks.OWN_VOCABULARY}")
    model = folder_architecture(config, weights)
    task = tasks.make_task(name, tokenizer, **task_options)
    pretrained.check_vocabulary(model, tokenizer, weights)
    return task, model


def folder_architecture(config: ConfigTree, weights: str) -> transformer.Config:
    """The folder's architecture, computed as ``config.model`` says. Raises UserError where that says another one."""
    said = config.model.to_dict()
    model = pretrained.read_config(weights, **{name: said[name] for name in pretrained.COMPUTE_FIELDS})
    defaults = {f.name: f.default for f in dataclasses.fields(transformer.Config)}
    for name, value in said.items():
        set_here = name not in (*pretrained.COMPUTE_FIELDS, "max_length") and value != defaults[name]
        if set_here and value != getattr(model, name):
            raise UserError(
                f"model.{name}={value!r}, but the model in weights={weights} has {getattr(model, name)!r}: with "
                f"weights only {', '.join(pretrained.COMPUTE_FIELDS)} can be chosen"
            )
    return model


def lay_out(
    config: ConfigTree, model: transformer.Config, devices: Any = None
) -> tuple[transformer.Config, transformer.Config]:
    """The model on the mesh, as the update and as the sampler lay it out. Raises UserError where it does not fit.

    ``devices`` are those of the mesh; None: the ones that are here.
    """
    mesh = build_section(MeshOptions, config, "mesh")
    if devices is None:
        meshes = sharding.make_learn_and_sample_meshes(mesh.actors, **mesh.sizes)
    else:
        meshes = (sharding.mesh_from_devices(list(devices), **mesh.sizes),) * 2
    both = []
    for name, one in zip(("learn", "sample"), meshes, strict=True):
        layout = sharding.make_layout(one, config.mesh[name], f"mesh.{name}")
        both.append(dataclasses.replace(model, layout=layout))
        sharding.weight_shardings(both[-1])
        if devices is None:
            transformer.check_attention_kernel(both[-1])
    return both[0], both[1]


def build_run(config: ConfigTree, task: Any, model: transformer.Config, sampler_model: transformer.Config) -> Run:
    """The objects of every section of the tree, for this task and this model."""
    shared = build_section(RunOptions, config, "")
    asked = build_section(EvaluationOptions, config, "eval", budget=build_section(BudgetOptions, config, "eval.budget"))
    known = getattr(task, "num_questions", lambda split: None)(asked.split)  # asked twice, a question would count twice
    return Run(
        seed=shared.seed,
        workers=shared.workers,
        max_unscored=shared.max_unscored,
        weights=shared.weights,
        stages=shared.stages,
        log=shared.log,
        task=task,
        model=model,
        sampler_model=sampler_model,
        mesh=build_section(MeshOptions, config, "mesh"),
        checkpoint=build_section(CheckpointOptions, config, "checkpoint"),
        evaluation=dataclasses.replace(
            asked,
            problems=min(asked.problems, known or asked.problems),
            rows=asked.rows or config.rl.prompts * config.rl.group_size,
        ),
        pretrain=Pretraining(
            **stage_settings(config, "pretrain", 0, model), data=build_section(PretrainingData, config, "pretrain")
        ),
        sft=FineTuning(
            **stage_settings(config, "sft", task.prompt_slots, model), data=build_section(SFTData, config, "sft")
        ),
        rl=build_rl(config, task, model),
        selection=build_section(SelectionOptions, config, "selection"),
        report=build_section(ReportOptions, config, "report"),
        aha=build_section(AhaOptions, config, "report.aha"),
        record=to_plain(config.to_dict()),
    )


def stage_settings(
    config: ConfigTree,
    name: str,
    prompt_slots: int,
    model: transformer.Config,
    algorithm: pg.Algorithm | None = None,
) -> dict[str, Any]:
    """What every stage has, of this one."""
    batches = build_section(learner.MicroBatchOptions, config, name)
    longest = config[name].length if name == "pretrain" else config[name].max_new_tokens
    return dict(
        name=name,
        start=config[name].start,
        loop=build_section(LoopOptions, config, name),
        optimizer=build_section(OptimizerOptions, config, f"{name}.optimizer"),
        lora=build_section(LoraOptions, config, f"{name}.lora"),
        micro_batching=learner.MicroBatching.from_options(
            batches,
            prompt_slots,
            longest,
            model.layout,
            shared_prompts=name == "rl",
            can_pack=not checks.packing_obstacle(name, model, algorithm),
        ),
    )


def build_rl(config: ConfigTree, task: Any, model: transformer.Config) -> Reinforcement:
    """The settings of reinforcement learning."""
    limit = build_section(sampler.LengthLimit, config, "rl.limit")
    algorithm = find_algorithm(config.rl.algorithm, config.rl.row.to_dict())
    stops = dict(stop_ids=tuple(task.tokenizer.stop_ids), stop_strings=task.stops)
    return Reinforcement(
        **stage_settings(config, "rl", task.prompt_slots, model, algorithm),
        problems=build_section(ProblemOptions, config, "rl", levels=build_section(Levels, config, "rl.levels")),
        sampling=build_section(sampler.Sampling, config, "rl", limit=limit, **stops),
        reward=rewards.parse_reward(config.rl.reward),
        algorithm=algorithm,
        update=build_section(learner.UpdateOptions, config, "rl"),
        critic=build_section(learner.CriticOptions, config, "rl.critic"),
        critic_optimizer=build_section(OptimizerOptions, config, "rl.critic.optimizer"),
        teacher_model=teacher.read_architecture(config.rl.teacher, task, model),
    )


def find_algorithm(name: str, changes: Mapping[str, Any]) -> pg.Algorithm:
    """The algorithm of this name, with some of its parts changed. Raises UserError for one that does not exist."""
    if name not in pg.ALGORITHMS:
        raise UserError(f"rl.algorithm={name!r} is unknown, choose from {sorted(pg.ALGORITHMS)}")
    return dataclasses.replace(pg.ALGORITHMS[name], **{k: v for k, v in changes.items() if v is not None})
