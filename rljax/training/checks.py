"""Whether the parts of a run fit together. Every check raises UserError, with the keys and a way out, before any long work."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from rljax import policy_gradient as pg
from rljax import rewards, sampler, transformer
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.evaluation import make_budget
from rljax.tasks import SPLITS
from rljax.training.sizes import check_sizes
from rljax.transformer import lora


def check_run(run: Any, stages: Sequence[str]) -> None:
    """Raise UserError for what cannot work, in what all stages share and in these stages."""
    if jax.process_count() > 1 and run.mesh.actors:
        raise UserError(
            "mesh.actors: devices that only sample must be in the same process as those that learn: use one"
        )
    if run.aha.behaviour and run.aha.behaviour not in run.task.behaviours:
        raise UserError(
            f"report.aha.behaviour={run.aha.behaviour!r} is not counted in task {run.task.name}, choose from "
            f"{run.task.behaviours}"
        )
    if run.report.question and not (run.task.read_prompt and run.task.read_prompt(run.report.question)):
        raise UserError(
            f"report.question={run.report.question!r}: the answer to it is not known to task {run.task.name}: put a problem of "
            "this task in words that it uses, or leave it empty"
        )
    check_questions(run)
    longest = {"sft": run.sft.data.max_new_tokens, "rl": run.rl.sampling.max_new_tokens}
    for name in sorted({"rl", *stages} - {"pretrain"}):
        try:
            sampler.check_window(run.model, run.task.prompt_slots, longest[name])
        except UserError as e:
            raise UserError(f"{name}.max_new_tokens={longest[name]}: {e}") from None
    if run.evaluation.budget.is_on:
        make_budget(run.evaluation.budget, run.task, run.model, longest["rl"])
    check_sizes(run, stages)
    check_algorithm(run.rl, run.record["rl"])
    if unknown := [rule for rule in run.selection.rules if rule not in pg.ALGORITHMS]:
        raise UserError(f"selection.rules: {unknown[0]!r} is unknown, choose from {sorted(pg.ALGORITHMS)}")
    run.rl.problems.check(run.task)
    run.rl.sampling.check_limit("rl.")
    for name in stages:
        check_stage(run, run.stage(name))
    if "sft" in run.stages and not run.sft.data.file and run.sft.data.max_new_tokens < run.task.demonstration_slots:
        raise UserError(
            f"sft.max_new_tokens={run.sft.data.max_new_tokens}, but demonstrations of {run.task.name!r} with these task.options "
            f"have up to {run.task.demonstration_slots} tokens: raise it (and model.max_length with it), or make the task shorter"
        )


def check_questions(run: Any) -> None:
    """Raise UserError where an evaluation would have no question to ask."""
    split, sizes = run.evaluation.split, {name: run.task.num_questions(name) for name in SPLITS}
    if sizes[split] != 0:
        return
    parts = ", ".join(f"{size} in {name}" for name, size in sizes.items())
    way_out = "name another one with --config.eval.split"
    if split != "train":
        way_out = (
            f"a file of your own gives about every twentieth question to {split}: give it more questions (about 60), name files "
            "to evaluate on with --config.task.options.test, or ask training questions with --config.eval.split=train"
        )
    raise UserError(
        f"eval.split={split!r}: the data have {sum(sizes.values())} questions that can be asked, and none for this split ({parts}): "
        f"{way_out}"
    )


def check_starts(starts: Mapping[str, str], weights: str) -> None:
    """Raise UserError where a stage starts from a model's folder and the config names none. It is checked before data is read."""
    for name, start in starts.items():
        if start == "weights" and not weights:
            raise UserError(f'{name}.start="weights", but no folder is named: --config.weights=FOLDER')


def check_stage(run: Any, stage: Any) -> None:
    """Raise UserError where a stage cannot start, or cannot learn adapters, as its settings say."""
    name, rank = stage.name, stage.lora.rank
    stage.optimizer.check(f"{name}.optimizer.")
    for setting in stage.offloaded.values():
        sharding.check_host_memory(run.model.layout, setting)
    check_packing(run, stage)
    if name == "rl":
        check_ahead(run)
        check_parts(run)
        sharding.check_rows_divide(stage.problems.prompts, run.sampler_model.layout, "rl.prompts")
    if not rank:
        return
    lora.target_matrices(run.model, stage.lora.targets)
    if stage.optimizer.name == "muon":
        raise UserError(f"{name}.optimizer.name=muon knows whole matrices only: use adamw or sgd with {name}.lora.rank")
    if name == "rl" and stage.algorithm.looks_at("values") and stage.critic.trunk == "own":
        raise UserError(
            "rl.lora.rank: a critic of its own would be a whole model that learns: use rl.critic.trunk=policy"
        )
    if name == "rl" and stage.update.mix_reference != 1.0:
        raise UserError("rl.lora.rank: adapters of two policies cannot be mixed: use rl.mix_reference=1")


def check_packing(run: Any, stage: Any) -> None:
    """Raise UserError where rows cannot be packed into sequences as the settings of a stage say."""
    packing, algorithm = stage.micro_batching.packing, stage.algorithm if stage.name == "rl" else None
    obstacle = packing_obstacle(stage.name, run.model, algorithm) if packing else ""
    if packing and obstacle:
        raise UserError(f"{stage.name}.packing={packing.columns}: {obstacle}")


def packing_obstacle(name: str, model: transformer.Config, algorithm: pg.Algorithm | None) -> str:
    """Why the rows of the stage ``name`` cannot be packed, and what to set instead; "" where they can be."""
    if model.attention not in transformer.PACKED_ATTENTION:
        return (
            f"the attention kernel {model.attention!r} does not know packed sequences: use model.attention=own with "
            f"model.attention_chunk, or {name}.packing=0 with {name}.widths"
        )
    if model.layout.num_shards("columns") > 1:
        return f"mesh.learn.columns splits the columns of a row over devices: use {name}.packing=0"
    if algorithm and algorithm.looks_at("values"):
        return "a critic scores padded rows: use rl.packing=0 with rl.widths"
    return ""


def check_ahead(run: Any) -> None:
    """Raise UserError where attempts of the policy one step before would be learned from as if they were its own."""
    if not run.mesh.actors:
        return
    algorithm = run.rl.algorithm
    if not corrects_behaviour(algorithm):
        raise UserError(
            "mesh.actors samples one step ahead, with the policy before the update, which rl.algorithm does not correct "
            'for: add --config.rl.row.correction="token_truncate(hi=2.0)", or another of docs/algorithms.md'
        )
    if algorithm.name("groups") == "refill":
        raise UserError("mesh.actors samples one step ahead: it cannot ask again for groups that agree (groups=refill)")


def check_parts(run: Any) -> None:
    """Raise UserError where a rollout cannot be verified in parts, or gains nothing by it."""
    parts = run.rl.sampling.verify_parts
    if parts > 1 and not rewards.needs_host(run.task, run.rl.reward):
        raise UserError(
            f"rl.verify_parts={parts}: attempts at task {run.task.name} are verified on the device, in the program that samples "
            "them: use rl.verify_parts=0"
        )
    if parts > 1 and run.mesh.actors:
        raise UserError(
            f"rl.verify_parts={parts}: with mesh.actors attempts are verified while the next ones are sampled: use "
            "rl.verify_parts=0"
        )


def corrects_behaviour(algorithm: pg.Algorithm) -> bool:
    """Whether the algorithm weighs the difference between the behaviour policy and the one that learns."""
    from_sampler = algorithm.option("surrogate", "from_sampler") or algorithm.name("surrogate") == "decoupled_ppo"
    return bool(from_sampler) or algorithm.name("correction") != "none"


def check_algorithm(rl: Any, said: Mapping[str, Any] | None = None) -> None:
    """Raise UserError where the algorithm cannot be trained with these groups, this reward and this sampling.

    ``said`` is the config's section: a message names the setting that a part of the algorithm comes from.
    """
    of = lambda part: "" if said is None or said["row"][part] is not None else f" of rl.algorithm={said['algorithm']}"
    algorithm, sampling, update = rl.algorithm, rl.sampling, rl.update
    advantage, group_size = algorithm.name("advantage"), sampling.group_size
    attempts, terms = rl.problems.prompts * group_size, rl.reward
    pg.check_inputs(algorithm)
    if group_size < 2 and advantage in pg.NEEDS_GROUP:
        raise UserError(
            f"rl.group_size={group_size}, but the advantage {advantage!r}{of('advantage')} compares the attempts at one prompt: use "
            "a group of 2 or more, or rl.row.advantage=raw"
        )
    if group_size < 2 and algorithm.name("groups") != "all":
        raise UserError(
            f"rl.group_size={group_size} with groups={algorithm.choice('groups')}{of('groups')}: a group of one never disagrees"
        )
    largest, k = group_size - (algorithm.option("advantage", "baseline") == "loo"), algorithm.option("advantage", "k")
    if k is not None and not 1 <= k <= largest:
        raise UserError(
            f"rl.row.advantage={algorithm.choice('advantage')}: k must be 1 to {largest} at rl.group_size={group_size}"
        )
    if advantage in pg.BINARY and terms != rewards.CORRECT:
        raise UserError(
            f"rl.reward has more than correct, but the advantage {advantage!r}{of('advantage')} takes a reward for right or "
            "wrong: use rl.reward=correct, or another algorithm"
        )
    parts = len(terms) + (algorithm.name("truncated") == "soft")
    if advantage == "gdpo" and (parts < 2 or len(algorithm.option("advantage", "weights")) not in (0, parts)):
        raise UserError(
            f"rl.row.advantage={algorithm.choice('advantage')} normalises several rewards and weighs each, but rl.reward "
            f"with truncated={algorithm.choice('truncated')} has {parts}: add a term to rl.reward, or give as many weights"
        )
    truncating = [f"rl.top_p={sampling.top_p}"] * (sampling.top_p < 1) + [f"rl.top_k={sampling.top_k}"] * (
        sampling.top_k > 0
    )
    if sampling.truncated and not sampling.keep_sampling_mask and not corrects_behaviour(algorithm):
        raise UserError(
            f"{', '.join(truncating)}: attempts come from a truncated distribution, whose "
            "log-probabilities are not those of the policy that learns: use rl.keep_sampling_mask=True, or top_p=1 and "
            "top_k=0, or correct with rl.row.correction=token_truncate"
        )
    if attempts % update.updates:
        raise UserError(
            f"rl.updates={update.updates} must divide the {attempts} attempts of a rollout, rl.prompts={rl.problems.prompts} x "
            f"rl.group_size={group_size}"
        )
    if update.updates > 1 and algorithm.name("aggregation") == "prompt_mean":
        raise UserError(
            f"rl.updates={update.updates} splits groups over optimizer steps, but the aggregation prompt_mean{of('aggregation')} "
            "averages within them: use rl.updates=1 or another aggregation"
        )
    check_teacher(rl)
    if algorithm.looks_at("values"):
        rl.critic_optimizer.check("rl.critic.optimizer.")
        if rl.critic_optimizer.name == "muon":
            raise UserError("rl.critic.optimizer.name=muon knows the policy's matrices only: use adamw or sgd")


def check_teacher(rl: Any) -> None:
    """Raise UserError where an algorithm lacks its teacher, a teacher would not be asked, or one would move."""
    algorithm, teacher = rl.algorithm, rl.update.teacher
    if algorithm.looks_at("ref_logprobs") and not teacher:
        raise UserError(
            f"rl.row.advantage={algorithm.choice('advantage')} follows a teacher, and none is named: --config.rl.teacher=DIR:stage of "
            "another run, or a Hugging Face folder"
        )
    if teacher and not algorithm.has_reference:
        raise UserError(
            f"rl.teacher={teacher!r}: this algorithm compares attempts with no reference, so that nobody would ask the teacher: use "
            'rl.algorithm=on_policy_distillation, or a KL term such as --config.rl.row.kl="k3(coef=0.01)"'
        )
    if teacher and rl.update.refresh_reference:
        raise UserError(
            f"rl.refresh_reference={rl.update.refresh_reference} would replace the teacher by the policy: use 0 with rl.teacher"
        )
