"""A rollout and its rewards -> the batch that the policy learns from, with advantages."""

import functools

import jax
import jax.numpy as jnp

from rljax import policy_gradient as pg
from rljax.learner.micro_batches import Batch, Metrics, score_rows
from rljax.learner.policy import PolicyLearner
from rljax.structs import Experience, KeyTag, Rollout, TrainState
from rljax.transformer import lora, value_head

Array = jax.Array


def compute_advantages(
    learner: PolicyLearner, state: TrainState, experience: Experience, keep: Array | None = None
) -> tuple[Batch, Metrics]:
    """(batch, metrics) of N = B G attempts: tokens, advantages and the other inputs of the loss.

    Nothing is learned here. Log-probabilities and values are those of the policy and the critic before the first update,
    computed by the same code and at the same temperature as in the update. ``experience.rewards.correct`` decides which
    groups are left out and which attempts are correct. Advantages are of the sum of ``experience.rewards.terms``. ``keep``
    [B] bool leaves out further groups, where it is False.

    The batch holds arrays [N, S = P + T] (tokens, mask, loss_mask, behaviour_logprobs and, where the algorithm needs them,
    old_logprobs, ref_logprobs, penalty, values, returns, correction, correct_mask), ``advantage`` [N] or [N, S], ``group``
    [N] (the number of the prompt), and the rollout's ``sampling_mask`` [N, T, bytes] if it has one.
    """
    from rljax import rewards  # not above: updates alone then need no tokenizers and templates

    # The batch, and what policy and critic say about it
    algorithm, start = learner.algorithm, learner.prompt_slots
    rollout, scored = experience.rollout, experience.rewards
    by_group = lambda x: rewards.by_group(x, learner.group_size)
    response_columns = lambda name: by_group(batch[name][:, start:]) if name in batch else None
    batch = make_policy_batch(rollout, make_loss_mask(learner, experience, keep))
    batch["group"] = jnp.arange(rollout.mask.shape[0], dtype=jnp.int32) // learner.group_size
    batch |= score_before_updates(learner, state, batch)

    # Advantages within each group
    reward_terms, metrics = list(jnp.moveaxis(scored.terms, -1, 0)), {}
    if algorithm.name("truncated") == "soft":
        margin = algorithm.option("truncated", "share") * learner.max_new_tokens
        overlong = by_group(rewards.soft_overlong(rollout.lengths, learner.max_new_tokens, margin))
        reward_terms.append(overlong)
        metrics["overlong"] = overlong.mean()
    distinct, known = algorithm.looks_at("distinct"), ~jnp.isnan(scored.terms.sum(-1))
    attempts = pg.Attempts(
        rewards=functools.reduce(jnp.add, reward_terms),
        mask=by_group(batch["loss_mask"][:, start:]),
        logprobs=by_group(rollout.logprobs),
        key=jax.random.fold_in(state.step_key(), KeyTag.ADVANTAGES),
        distinct=pg.distinct(by_group(rollout.response), by_group(rollout.mask), known) if distinct else None,
        reward_terms=jnp.stack(reward_terms, -1),
        greedy=scored.greedy,
        values=response_columns("values"),
        penalty=response_columns("penalty"),
        ref_logprobs=response_columns("ref_logprobs"),
    )
    advantage, returns = pg.compute_advantages(algorithm, attempts)

    # Advantages in the batch's shape, and the masks that depend on them
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    pad_prompt = lambda x: jnp.pad(flat(x), [(0, 0), (start, 0)])
    batch["advantage"] = flat(advantage) if advantage.ndim == 2 else pad_prompt(advantage)
    if algorithm.name("surrogate") == "imitation":
        batch["loss_mask"] &= (flat(advantage) > 0)[:, None]
    if algorithm.positive_nll:
        batch["correct_mask"] = batch["loss_mask"] & (flat(scored.correct) >= 1)[:, None]

    # Returns, corrections and metrics
    num_tokens = jnp.maximum(jnp.sum(batch["loss_mask"]), 1)
    metrics["counted"] = jnp.sum(batch["loss_mask"]) / jnp.maximum(jnp.sum(rollout.mask), 1)
    if returns is not None:
        batch["returns"] = pad_prompt(returns)
        metrics["value/explained_variance"] = value_head.explained_variance(
            by_group(batch["values"][:, start:]), returns, attempts.mask
        )
    if algorithm.name("correction") != "none":
        w = pg.correction_weights(algorithm, batch["old_logprobs"], batch["behaviour_logprobs"], batch["loss_mask"])
        batch["correction"] = w
        metrics |= {"correction/kept": jnp.sum(w > 0) / num_tokens, "correction/mean": jnp.sum(w) / num_tokens}
    return batch, metrics


def make_loss_mask(learner: PolicyLearner, experience: Experience, keep: Array | None) -> Array:
    """[N, T] bool: the sampled tokens that are learned from.

    Attempts that could not be scored (reward NaN) are left out, and the truncated responses and groups that the algorithm
    leaves out.
    """
    from rljax import rewards  # as in ``compute_advantages``

    algorithm, rollout, scored = learner.algorithm, experience.rollout, experience.rewards
    mask = rollout.mask & ~jnp.isnan(scored.terms.sum(-1)).reshape(-1, 1)
    if algorithm.name("truncated") == "mask":
        mask &= rollout.finished[:, None]
    if algorithm.name("groups") != "all":
        mixed = rewards.mixed_groups(scored)
        keep = mixed if keep is None else keep & mixed
    return mask if keep is None else mask & jnp.repeat(keep, learner.group_size)[:, None]


def make_policy_batch(rollout: Rollout, loss_mask: Array) -> Batch:
    """The batch of a rollout: tokens, mask, loss_mask and behaviour_logprobs, [N, P + T], prompts before responses.

    ``loss_mask`` is [N, T]. The sampling mask of a rollout that has one stays as it is, [N, T, bytes]: it is large, and only
    responses have one.
    """
    kept = {} if rollout.sampling_mask is None else {"sampling_mask": rollout.sampling_mask}
    pad_prompt = lambda x: jnp.pad(x, [(0, 0), (rollout.prompt.shape[1], 0)])
    return {
        "tokens": jnp.concatenate([rollout.prompt, rollout.response], 1),
        "mask": jnp.concatenate([rollout.prompt_mask, rollout.mask], 1),
        "loss_mask": pad_prompt(loss_mask),
        "behaviour_logprobs": pad_prompt(rollout.logprobs),
    } | kept


def score_before_updates(learner: PolicyLearner, state: TrainState, batch: Batch) -> Batch:
    """The outputs of policy, reference and critic before the first update that the algorithm needs, [N, S] each.

    Keys: old_logprobs; ref_logprobs (for a teacher, or a KL term in the reward) and penalty (for that term); values.
    """
    algorithm, out = learner.algorithm, {}
    score = lambda measure: score_rows(measure, batch, learner.prompt_slots, learner.micro_batching)
    logprobs = lambda params: score(lambda b: learner.score(params, b, state.frozen)[0])
    if learner.update.steps > 1 or algorithm.kl_in == "reward" or algorithm.name("correction") != "none":
        out["old_logprobs"] = logprobs(state.params)
    if algorithm.kl_in == "reward" or algorithm.looks_at("ref_logprobs"):
        out["ref_logprobs"] = score(lambda b: learner.score_reference(state.reference, b, state.frozen))
    if algorithm.kl_in == "reward":
        estimate = pg.kl.ESTIMATORS[algorithm.name("kl")]
        out["penalty"] = algorithm.option("kl", "coef") * estimate(out["old_logprobs"], out["ref_logprobs"])
    if algorithm.looks_at("values"):
        policy = lora.policy_params(state.params, state.frozen)
        value = lambda b: value_head.critic_values(
            state.critic, policy, learner.model, b["tokens"], b["mask"], learner.prompt_slots
        )
        out["values"] = score(value)
    return out
