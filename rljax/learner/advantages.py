"""From a rollout and its rewards to the batch that the policy learns from."""

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
    """(batch, metrics) of N = B G attempts: tokens, advantages and what else the loss of each token needs.

    Nothing is learned here. Every log-probability and value is that of the policy and critic before the first update, by the
    same code and at the same temperature. Groups are left out, and attempts called correct, by ``rewards.correct``; what is
    learned from is the sum of ``rewards.terms``. ``keep`` [B] bool leaves further groups out.

    The batch holds arrays [N, S = P + T] (tokens, mask, loss_mask, behaviour_logprobs and, where the algorithm needs them,
    old_logprobs, ref_logprobs, penalty, values, returns, correction, correct_mask) and ``advantage`` [N] or [N, S].
    """
    from rljax import rewards  # here, so that updates alone need no tokenizers and templates

    algorithm, start = learner.algorithm, learner.prompt_slots
    rollout, earned = experience.rollout, experience.rewards
    by_group = lambda x: rewards.by_group(x, learner.group_size)
    of_response = lambda name: by_group(batch[name][:, start:]) if name in batch else None
    batch = policy_batch(rollout, loss_mask(learner, experience, keep))
    batch |= score_before_updates(learner, state, batch)

    reward_terms, metrics = list(jnp.moveaxis(earned.terms, -1, 0)), {}
    if algorithm.name("truncated") == "soft":
        margin = algorithm.option("truncated", "share") * learner.max_new_tokens
        overlong = by_group(rewards.soft_overlong(rollout.lengths, learner.max_new_tokens, margin))
        reward_terms.append(overlong)
        metrics["overlong"] = overlong.mean()
    distinct = algorithm.looks_at("distinct")
    attempts = pg.Attempts(
        rewards=functools.reduce(jnp.add, reward_terms),
        mask=by_group(batch["loss_mask"][:, start:]),
        logprobs=by_group(rollout.logprobs),
        key=jax.random.fold_in(state.step_key(), KeyTag.ADVANTAGES),
        distinct=pg.distinct(by_group(rollout.response), by_group(rollout.mask)) if distinct else None,
        reward_terms=jnp.stack(reward_terms, -1),
        greedy=earned.greedy,
        values=of_response("values"),
        penalty=of_response("penalty"),
    )
    advantage, returns = pg.compute_advantages(algorithm, attempts)

    flat = lambda x: x.reshape(-1, *x.shape[2:])
    pad_prompt = lambda x: jnp.pad(flat(x), [(0, 0), (start, 0)])
    batch["advantage"] = flat(advantage) if advantage.ndim == 2 else pad_prompt(advantage)
    if algorithm.name("surrogate") == "imitation":
        batch["loss_mask"] &= (flat(advantage) > 0)[:, None]
    if algorithm.positive_nll:
        batch["correct_mask"] = batch["loss_mask"] & (flat(earned.correct) >= 1)[:, None]
    tokens = jnp.maximum(jnp.sum(batch["loss_mask"]), 1)
    metrics["counted"] = jnp.sum(batch["loss_mask"]) / jnp.maximum(jnp.sum(rollout.mask), 1)
    if returns is not None:
        batch["returns"] = pad_prompt(returns)
        metrics["value/explained_variance"] = value_head.explained_variance(
            by_group(batch["values"][:, start:]), returns, attempts.mask
        )
    if algorithm.name("correction") != "none":
        known = batch["old_logprobs"], batch["behaviour_logprobs"], batch["loss_mask"]
        w = batch["correction"] = pg.correction_weights(algorithm, *known)
        metrics |= {"correction/kept": jnp.sum(w > 0) / tokens, "correction/mean": jnp.sum(w) / tokens}
    return batch, metrics


def loss_mask(learner: PolicyLearner, experience: Experience, keep: Array | None) -> Array:
    """[N, T] bool: the sampled tokens, without those of truncated responses or of groups that the algorithm leaves out."""
    from rljax import rewards  # as above

    algorithm, rollout, correct = learner.algorithm, experience.rollout, experience.rewards.correct
    mask = rollout.mask
    if algorithm.name("truncated") == "mask":
        mask &= rollout.finished[:, None]
    if algorithm.name("groups") != "all":
        keep = rewards.mixed(correct) if keep is None else keep & rewards.mixed(correct)
    return mask if keep is None else mask & jnp.repeat(keep, learner.group_size)[:, None]


def policy_batch(rollout: Rollout, loss_mask: Array) -> Batch:
    """Prompt and response side by side, [N, P + T], with the loss mask and the behaviour policy's log-probabilities."""
    pad_prompt = lambda x: jnp.concatenate([jnp.zeros(rollout.prompt.shape, x.dtype), x], 1)
    return {
        "tokens": jnp.concatenate([rollout.prompt, rollout.response], 1),
        "mask": jnp.concatenate([rollout.prompt_mask, rollout.mask], 1),
        "loss_mask": pad_prompt(loss_mask),
        "behaviour_logprobs": pad_prompt(rollout.logprobs),
    }


def score_before_updates(learner: PolicyLearner, state: TrainState, batch: Batch) -> Batch:
    """What the algorithm needs of policy, reference and critic before the first update, [N, S] each.

    These are old_logprobs, ref_logprobs and penalty (for a KL term in the reward), and values.
    """
    algorithm, out = learner.algorithm, {}
    scored = lambda measure: score_rows(measure, batch, learner.prompt_slots, learner.micro_batching)
    logprobs = lambda params: scored(lambda b: learner.score(params, b, state.frozen)[0])
    if learner.update.steps > 1 or algorithm.kl_in == "reward" or algorithm.name("correction") != "none":
        out["old_logprobs"] = logprobs(state.params)
    if algorithm.kl_in == "reward":
        out["ref_logprobs"] = logprobs(state.reference)
        estimate = pg.kl.ESTIMATORS[algorithm.name("kl")]
        out["penalty"] = algorithm.option("kl", "coef") * estimate(out["old_logprobs"], out["ref_logprobs"])
    if algorithm.looks_at("values"):
        policy = lora.policy_params(state.params, state.frozen)
        value = lambda b: value_head.critic_values(
            state.critic, policy, learner.model, b["tokens"], b["mask"], learner.prompt_slots
        )
        out["values"] = scored(value)
    return out
