"""The policy-gradient update: optimizer steps on the batch that ``compute_advantages`` returns."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax import policy_gradient as pg
from rljax.distributed import sharding
from rljax.learner.loss_scale import current_scale, update_loss_scale
from rljax.learner.micro_batches import Batch, Metrics, gradients, score_rows
from rljax.learner.policy import PolicyLearner
from rljax.learner.update import apply_gradients, apply_optimizer
from rljax.structs import KeyTag, TrainState
from rljax.transformer import lora, value_head

Array = jax.Array


def update_policy(learner: PolicyLearner, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """(state after ``learner.update.steps`` optimizer steps on one rollout's batch, metrics of the update).

    Advantages are in the batch, so its rows can be shuffled. With one step the old policy is the policy itself (ratio 1).
    With several steps it is the policy before the first step.
    """
    rows, options = batch["tokens"].shape[0], learner.update

    def row_order(epoch: int) -> Array:
        if options.updates == 1:
            return jnp.arange(rows)
        return jax.random.permutation(jax.random.fold_in(state.step_key(), rows + epoch), rows)

    order = jnp.concatenate([row_order(epoch) for epoch in range(options.epochs)]).reshape(options.steps, -1)
    step = functools.partial(optimizer_step, learner, batch)
    state, metrics = jax.lax.scan(step, state, (jnp.arange(options.steps), order))
    metrics = {k: combine_steps(k, v) for k, v in metrics.items()}
    return sharding.constrain_state(state.replace(step=state.step + 1), learner.model), metrics


def combine_steps(name: str, values: Array) -> Array:
    """One metric of a rollout from its values [steps].

    It is the last of a counter and of the loss's scale, the largest of a maximum, else the mean.
    """
    if name.startswith("skipped") or name == "loss_scale":
        return values[-1]
    return values.max() if name.endswith("max") else values.mean()


def optimizer_step(
    learner: PolicyLearner, batch: Batch, state: TrainState, numbered_rows: tuple[Array, Array]
) -> tuple[TrainState, Metrics]:
    """(state after one optimizer step on some rows of the batch, metrics).

    ``numbered_rows`` is (number of the step within its rollout [], indices of the rows [n]).
    """
    # The rows, and the weight of each token
    algorithm, (number, rows) = learner.algorithm, numbered_rows
    part = jax.tree.map(lambda x: x[rows], batch) if learner.update.steps > 1 else batch
    part, metrics = part | token_weights(learner, part), {}
    coef = algorithm.option("entropy", "coef")
    entropy_coef = 0.0 if coef is None else coef
    if algorithm.ranks_tokens:  # over the whole optimizer batch, scored by the parameters before this step
        state, part, entropy_coef, metrics = choose_tokens(learner, state, part, number, entropy_coef)

    # The gradient
    loss = make_policy_loss(learner, state.reference, state.frozen, entropy_coef)
    params = {"policy": state.params} | ({"critic": state.critic} if learner.critic else {})
    constrain = lambda x: sharding.constrain_state(x, learner.model)
    grads, summed = gradients(loss, params, part, learner.micro_batching, constrain, current_scale(state))
    state, scale_metrics = update_loss_scale(state, grads)

    # The update of the policy and of the critic
    freeze = state.step < learner.critic.options.warmup if learner.critic else False
    state, update_metrics = apply_gradients(state, grads["policy"], learner.optimizer, freeze)
    if learner.critic:
        norm = optax.tree.norm(grads["critic"])
        critic, critic_opt_state = apply_optimizer(
            state.critic, grads["critic"], state.critic_opt_state, learner.critic.optimizer, jnp.isfinite(norm)
        )
        state = state.replace(critic=critic, critic_opt_state=critic_opt_state)
        update_metrics["value/grad_norm"] = norm
    for name in ("ratio", "sampler"):  # effective sample size as a share of the batch: (mean w)^2 / mean w^2
        summed[f"{name}/ess"] = summed[f"{name}/mean"] ** 2 / jnp.maximum(summed.pop(f"{name}/square"), 1e-30)
    return refresh_reference(learner, state, number), summed | update_metrics | scale_metrics | metrics


def token_weights(learner: PolicyLearner, part: Batch) -> Batch:
    """{"weight": weights in the loss, "mean_weight": weights in means over tokens}, [N, S] each.

    "correct_weight" is added for an algorithm with an NLL term on correct attempts. All sum over the whole optimizer batch.
    """
    mean = lambda mask: pg.weights(mask, "token_mean")
    sizes = dict(group_size=learner.group_size, const=learner.max_new_tokens)
    weight = pg.token_weights(learner.algorithm, part["loss_mask"], **sizes)
    out = {"weight": weight, "mean_weight": mean(part["loss_mask"])}
    return out | ({"correct_weight": mean(part["correct_mask"])} if learner.algorithm.positive_nll else {})


def choose_tokens(
    learner: PolicyLearner, state: TrainState, part: Batch, number: Array, entropy_coef: Array | float
) -> tuple[TrainState, Batch, Array | float, Metrics]:
    """(state, batch, entropy coefficient, metrics), with "chosen" in the batch: the tokens that the algorithm singles out.

    Also adapts the entropy coefficient: it is 0 where the batch's mean entropy is above its target.
    """
    algorithm, metrics = learner.algorithm, {}
    score = lambda b: learner.score(state.params, b, state.frozen)
    logp, entropy = score_rows(score, part, learner.prompt_slots, learner.micro_batching)
    key = jax.random.fold_in(jax.random.fold_in(state.step_key(), KeyTag.CHOOSE_TOKENS), number)
    old_logprobs = part["old_logprobs"] if "old_logprobs" in part else logp
    chosen = pg.choose_tokens(algorithm, logp, entropy, old_logprobs, part["advantage"], part["loss_mask"], key)
    if chosen is not None:
        part = part | {"chosen": chosen}
        metrics["chosen"] = jnp.sum(part["mean_weight"] * chosen)
    if algorithm.adapts_entropy:
        low = jnp.sum(part["mean_weight"] * pg.where_counted(entropy, part["loss_mask"])) <= algorithm.option(
            "entropy", "target"
        )
        entropy_coef = jnp.where(low, state.entropy_coef, 0.0)
        step = algorithm.option("entropy", "step")
        state = state.replace(entropy_coef=jnp.clip(state.entropy_coef + jnp.where(low, step, -step), 0.0, 1.0))
        metrics["entropy_coef"] = entropy_coef
    return state, part, entropy_coef, metrics


def make_policy_loss(
    learner: PolicyLearner, reference: Any, frozen: lora.Base | None, entropy_coef: Array | float
) -> Callable[[Any, Batch], tuple[Array, Metrics]]:
    """``loss({"policy", "critic"}, micro_batch) -> (its share of the loss, its share of each logged mean)``."""
    algorithm, start = learner.algorithm, learner.prompt_slots

    def loss(params: Any, batch: Batch) -> tuple[Array, Metrics]:
        # The response's columns, scored
        logp, entropy = learner.score(params["policy"], batch, frozen)
        b = {name: x[:, start:] if x.ndim > 1 else x for name, x in batch.items() if name != "packed"}
        mask, advantage, mean_weight = b["loss_mask"], b["advantage"], b["mean_weight"]
        counted = lambda x: pg.where_counted(x, mask)  # NaN times a weight of 0 would be NaN
        logp, entropy = counted(logp), counted(entropy)
        behaviour_logprobs, ref_logprobs = counted(b["behaviour_logprobs"]), counted(b.get("ref_logprobs"))
        old_logprobs = counted(b["old_logprobs"]) if "old_logprobs" in b else pg.stop_gradient(logp)
        if ref_logprobs is None and reference is not None:
            ref_logprobs = counted(pg.stop_gradient(learner.score_reference(reference, batch, frozen)))

        # The loss
        surrogate_inputs = dict(behaviour_logprobs=behaviour_logprobs, chosen=b.get("chosen"))
        more_inputs = dict(ref_logprobs=ref_logprobs, correction=b.get("correction"))
        token_losses = pg.token_loss(algorithm, logp, old_logprobs, advantage, mask, **more_inputs, **surrogate_inputs)
        total = jnp.sum(b["weight"] * token_losses)
        if algorithm.name("entropy") != "none":
            total -= entropy_coef * jnp.sum(mean_weight * entropy)
        if algorithm.positive_nll:
            total -= algorithm.positive_nll * jnp.sum(b["correct_weight"] * logp)

        # The metrics: the ratio of policy to old policy, and of old policy to sampler
        ratio, sampler_ratio = pg.ratio(logp, old_logprobs), pg.ratio(old_logprobs, behaviour_logprobs)
        gap = jnp.abs(logp - behaviour_logprobs)
        metrics = {
            "entropy": jnp.sum(mean_weight * entropy),
            "ratio/mean": jnp.sum(mean_weight * ratio),
            "ratio/square": jnp.sum(mean_weight * ratio**2),
            "ratio/max": jnp.max(jnp.where(mask, ratio, 0.0)),
            "clip_fraction": jnp.sum(
                mean_weight * pg.clipped(algorithm, logp, old_logprobs, advantage, mask, **surrogate_inputs)
            ),
            "sampler/mean": jnp.sum(mean_weight * sampler_ratio),
            "sampler/square": jnp.sum(mean_weight * sampler_ratio**2),
            "sampler_gap": jnp.sum(mean_weight * gap),
            "sampler_gap/max": jnp.max(jnp.where(mask, gap, 0.0)),
        }
        if ref_logprobs is not None:
            metrics["kl"] = jnp.sum(mean_weight * pg.k3(logp, ref_logprobs))
            metrics["kl/k1"] = jnp.sum(mean_weight * pg.k1(logp, ref_logprobs))

        # The critic
        if learner.critic:
            policy, clip = lora.policy_params(params["policy"], frozen), learner.critic.options.clip or None
            v = value_head.critic_values(params["critic"], policy, learner.model, batch["tokens"], batch["mask"], start)
            errors = pg.value_clipped(counted(v), counted(b["values"]), counted(b["returns"]), clip=clip)
            value = jnp.sum(mean_weight * errors)
            total += learner.critic.options.coef * value
            metrics["value/loss"] = value
        return total, jax.tree.map(pg.stop_gradient, metrics)

    return loss


def refresh_reference(learner: PolicyLearner, state: TrainState, number: Array) -> TrainState:
    """The state with the KL reference moved towards the policy, if a refresh is due after this optimizer step."""
    options = learner.update
    if state.reference is None or not options.refresh_reference:
        return state
    due = (state.step * options.steps + number + 1) % options.refresh_reference == 0
    share = options.mix_reference
    mix = lambda p, r: jnp.where(due, share * p.astype(r.dtype) + (1 - share) * r, r).astype(r.dtype)
    return state.replace(reference=jax.tree.map(mix, state.params, state.reference))
