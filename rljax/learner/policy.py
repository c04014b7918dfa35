"""Practice: compare attempts, then push the policy towards the better ones.

compare(state, rollout, reward) -> experience     what the row makes of the attempts, before anything is changed
push(state, experience) -> state                  one or several optimiser steps on it
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax import policy_gradient as pg
from rljax import rewards, transformer
from rljax.distributed import sharding
from rljax.learner.micro_batches import Batch, Metrics, Split, gradients, scored
from rljax.learner.update import apply, update
from rljax.structs import Rollout, TrainState
from rljax.transformer import lora, value_head

Array = jax.Array
COMPARE, CHOOSE = 1 << 29, (1 << 29) + 1  # what the step's key is folded with; rows and rounds use other numbers


@dataclasses.dataclass(frozen=True)
class CriticUpdate:
    """How the critic learns."""

    optimizer: optax.GradientTransformation
    clip: float = 0.2  # values stay this near those before the first update; 0: no clipping
    coef: float = 1.0  # weight of its loss; matters only to a critic that shares the policy's layers
    warmup: int = 0  # rollouts on which only the critic learns (VAPO's value pretraining)


@dataclasses.dataclass(frozen=True)
class PolicyUpdate:
    """The choices of a policy-gradient step that are not the algorithm's row."""

    max_new_tokens: int  # the constant that Dr. GRPO divides by
    group_size: int
    temperature: Array | float = 1.0
    updates: int = 1  # optimiser steps in one pass over a rollout, on disjoint random parts of it
    epochs: int = 1  # passes over each rollout
    refresh_reference: int = 0  # move the reference every so many optimiser steps; 0 means never
    mix_reference: float = 1.0  # to this mixture of the policy and itself; 1 copies the policy
    critic: CriticUpdate | None = None

    @property
    def steps(self) -> int:
        """Optimiser steps on each rollout."""
        return self.updates * self.epochs


def compare(
    state: TrainState,
    rollout: Rollout,
    reward: Array,
    *,
    row: pg.Algorithm,
    model: transformer.Config,
    plan: PolicyUpdate,
    split: Split,
    keep: Array | None = None,
    greedy: Array | None = None,
    terms: Array | None = None,
) -> tuple[Batch, Metrics]:
    """What the row makes of N = B G attempts with correctness ``reward`` [B, G]: the experience to learn from.

    ``terms`` [B, G, R] are what is learned from, summed, where that is not correctness alone; groups are still left out,
    and attempts called right, by correctness.

    Nothing is learned here, so every log-probability and value is that of the policy and critic before the first update,
    by the same code and at the same temperature. ``keep`` [B] bool leaves groups out; ``greedy`` [B] is the reward of each
    prompt's greedy response, where the row asks for it.
    """
    by_group = lambda x: rewards.by_group(x, plan.group_size)
    start = rollout.prompt.shape[1]
    response = lambda name: by_group(batch[name][:, start:]) if name in batch else None
    metrics: Metrics = {}
    batch = experience(rollout, learned_from(rollout, reward, row, plan, keep))
    batch |= before_updates(state, batch, row, model, plan, split, start)

    parts = [reward] if terms is None else list(jnp.moveaxis(terms, -1, 0))
    if row.name("truncated") == "soft":
        cache = row.option("truncated", "share") * plan.max_new_tokens
        overlong = by_group(rewards.soft_overlong(rollout.lengths, plan.max_new_tokens, cache))
        parts.append(overlong)
        metrics["overlong"] = overlong.mean()
    attempts = pg.Attempts(
        rewards=sum(parts[1:], parts[0]),
        mask=by_group(batch["counted"][:, start:]),
        logprobs=by_group(rollout.logprobs),
        key=jax.random.fold_in(state.step_key(), COMPARE),
        distinct=pg.distinct(by_group(rollout.response), by_group(rollout.mask)) if row.looks_at("distinct") else None,
        parts=jnp.stack(parts, -1),
        greedy=greedy,
        values=response("values"),
        penalty=response("penalty"),
    )
    advantage, returns = pg.compare(row, attempts)

    flat = lambda x: x.reshape(-1, *x.shape[2:])
    behind = lambda x: jnp.pad(flat(x), [(0, 0), (start, 0)])
    batch["advantage"] = flat(advantage) if advantage.ndim == 2 else behind(advantage)
    if row.name("surrogate") == "imitation":
        batch["counted"] &= (flat(advantage) > 0)[:, None]
    if row.positive_nll:
        batch["right"] = batch["counted"] & (flat(reward) >= 1)[:, None]
    tokens = jnp.maximum(jnp.sum(batch["counted"]), 1)
    metrics["counted"] = jnp.sum(batch["counted"]) / jnp.maximum(jnp.sum(rollout.mask), 1)
    if returns is not None:
        batch["returns"] = behind(returns)
        metrics["value/explained_variance"] = value_head.explained_variance(
            by_group(batch["values"][:, start:]), returns, attempts.mask
        )
    if row.name("correction") != "none":
        w = batch["correction"] = pg.correction_weights(row, batch["old"], batch["sampler"], batch["counted"])
        metrics |= {"correction/kept": jnp.sum(w > 0) / tokens, "correction/mean": jnp.sum(w) / tokens}
    return batch, metrics


def learned_from(rollout: Rollout, reward: Array, row: pg.Algorithm, plan: PolicyUpdate, keep: Array | None) -> Array:
    """[N, T] bool: the sampled tokens, without those of truncated responses or of groups that the row leaves out."""
    counted = rollout.mask
    if row.name("truncated") == "mask":
        counted &= rollout.finished[:, None]
    if row.name("groups") != "all":
        keep = rewards.mixed(reward) if keep is None else keep & rewards.mixed(reward)
    return counted if keep is None else counted & jnp.repeat(keep, plan.group_size)[:, None]


def before_updates(
    state: TrainState,
    batch: Batch,
    row: pg.Algorithm,
    model: transformer.Config,
    plan: PolicyUpdate,
    split: Split,
    start: int,
) -> Batch:
    """What the row needs of policy, reference and critic as they are now: old, ref, penalty and values, [N, S]."""
    score, out = scorer(model, plan, start, state.frozen), {}
    if plan.steps > 1 or row.kl_in == "reward" or row.name("correction") != "none":
        out["old"] = scored(lambda b: score(state.params, b)[0], batch, start, split)
    if row.kl_in == "reward":
        out["ref"] = scored(lambda b: score(state.reference, b)[0], batch, start, split)
        out["penalty"] = row.option("kl", "coef") * pg.kl.ESTIMATORS[row.name("kl")](out["old"], out["ref"])
    if row.looks_at("values"):
        policy = lora.policy(state.params, state.frozen)
        value = lambda b: value_head.values(state.critic, policy, model, b["tokens"], b["mask"], start)
        out["values"] = scored(value, batch, start, split)
    return out


def experience(rollout: Rollout, counted: Array) -> Batch:
    """Prompt and response side by side, [N, P + T], and beside them what the loss reads; ``counted`` [N, T] bool."""
    behind = lambda x: jnp.concatenate([jnp.zeros(rollout.prompt.shape, x.dtype), x], 1)
    return {
        "tokens": jnp.concatenate([rollout.prompt, rollout.response], 1),
        "mask": jnp.concatenate([rollout.prompt_mask, rollout.mask], 1),
        "counted": behind(counted),
        "sampler": behind(rollout.logprobs),
    }


def scorer(model: transformer.Config, plan: PolicyUpdate, start: int, frozen: lora.Base | None = None) -> Any:
    """``score(params, batch) -> (logprobs, entropy)`` of the response, [n, S - start], at the sampling temperature.

    ``params`` are adapters where there is something ``frozen`` that they are attached to.
    """

    def score(params: Any, b: Batch) -> tuple[Array, Array]:
        policy = lora.policy(params, frozen)
        return transformer.token_logprobs(policy, model, b["tokens"], b["mask"], plan.temperature, start)

    return score


def push(
    state: TrainState,
    batch: Batch,
    *,
    row: pg.Algorithm,
    model: transformer.Config,
    optimizer: optax.GradientTransformation,
    plan: PolicyUpdate,
    split: Split,
    start: int,
) -> tuple[TrainState, Metrics]:
    """``plan.steps`` optimiser steps on the experience of one rollout whose responses begin at column ``start``.

    Groups have been compared: rows may now be shuffled freely. With one step pi_old is the policy itself (ratio 1, its
    gradient exact), with several it is the policy before the first.
    """
    rows = batch["tokens"].shape[0]

    def shuffled(epoch: int) -> Array:
        if plan.updates == 1:
            return jnp.arange(rows)
        return jax.random.permutation(jax.random.fold_in(state.step_key(), rows + epoch), rows)

    def one(now: TrainState, xs: tuple[Array, Array]) -> tuple[TrainState, Metrics]:
        number, chosen = xs
        part = jax.tree.map(lambda x: x[chosen], batch) if plan.steps > 1 else batch
        return optimizer_step(now, part, number, row, model, optimizer, plan, split, start)

    order = jnp.concatenate([shuffled(epoch) for epoch in range(plan.epochs)]).reshape(plan.steps, -1)
    state, metrics = jax.lax.scan(one, state, (jnp.arange(plan.steps), order))
    last = lambda k, v: v[-1] if k.startswith("skipped") else v.max() if k.endswith("max") else v.mean()
    metrics = {k: last(k, v) for k, v in metrics.items()}
    return sharding.constrain_state(state.replace(step=state.step + 1), model), metrics


def optimizer_step(
    state: TrainState,
    part: Batch,
    number: Array,
    row: pg.Algorithm,
    model: transformer.Config,
    optimizer: optax.GradientTransformation,
    plan: PolicyUpdate,
    split: Split,
    start: int,
) -> tuple[TrainState, Metrics]:
    """One optimiser step on one optimiser batch, the ``number``-th of its rollout."""
    score = scorer(model, plan, start, state.frozen)
    mean = lambda mask: pg.weights(mask, "token_mean")
    part = part | {
        "weight": pg.token_weights(row, part["counted"], group_size=plan.group_size, const=plan.max_new_tokens),
        "mean": mean(part["counted"]),
    }
    if row.positive_nll:
        part["right"] = mean(part["right"])
    coef, metrics = row.option("entropy", "coef"), {}
    bonus = 0.0 if coef is None else coef
    if row.ranks_tokens:  # in the whole optimiser batch, by the parameters that are about to move
        logp, entropy = scored(lambda b: score(state.params, b), part, start, split)
        key = jax.random.fold_in(jax.random.fold_in(state.step_key(), CHOOSE), number)
        data = (logp, entropy, part["old"] if "old" in part else logp, part["advantage"], part["counted"])
        special = pg.choose_tokens(row, *data, key)
        if special is not None:
            part["chosen"] = special
            metrics["chosen"] = jnp.sum(part["mean"] * special)
        if row.adapts_entropy:
            low = jnp.sum(part["mean"] * entropy) <= row.option("entropy", "target")
            bonus = jnp.where(low, state.entropy_coef, 0.0)
            step = row.option("entropy", "step")
            moved = jnp.clip(state.entropy_coef + jnp.where(low, step, -step), 0.0, 1.0)
            state = state.replace(entropy_coef=moved)
            metrics["entropy_coef"] = bonus

    loss = policy_loss(state.reference, state.frozen, row, model, plan, start, bonus)
    learn = {"policy": state.params} | ({"critic": state.critic} if plan.critic else {})
    grads, found = gradients(loss, learn, part, split, lambda x: sharding.constrain_state(x, model))
    hold = state.step < plan.critic.warmup if plan.critic else False
    state, more = update(state, grads["policy"], optimizer, hold)
    if plan.critic:
        norm = optax.tree.norm(grads["critic"])
        after = apply(state.critic, grads["critic"], state.critic_opt_state, plan.critic.optimizer, jnp.isfinite(norm))
        state = state.replace(critic=after[0], critic_opt_state=after[1])
        more["value/grad_norm"] = norm
    if state.reference is not None and plan.refresh_reference:
        due = (state.step * plan.steps + number + 1) % plan.refresh_reference == 0
        mix = lambda p, r: jnp.where(due, plan.mix_reference * p + (1 - plan.mix_reference) * r, r).astype(r.dtype)
        state = state.replace(reference=jax.tree.map(mix, state.params, state.reference))
    for name in ("ratio", "sampler"):  # (mean w)^2 / mean w^2: the share of the batch that the weights leave
        found[f"{name}/ess"] = found[f"{name}/mean"] ** 2 / jnp.maximum(found.pop(f"{name}/square"), 1e-30)
    return state, found | more | metrics


def policy_loss(
    reference: Any,
    frozen: lora.Base | None,
    row: pg.Algorithm,
    model: transformer.Config,
    plan: PolicyUpdate,
    start: int,
    entropy_coef: Array | float,
) -> Any:
    """``loss(params, micro_batch) -> (its share of the loss, its share of each logged mean)``."""
    score = scorer(model, plan, start, frozen)

    def loss(params: Any, b: Batch) -> tuple[Array, Metrics]:
        logp, entropy = score(params["policy"], b)
        r = {name: x[:, start:] if x.ndim > 1 else x for name, x in b.items()}  # the response's columns
        weight, mean, live, sampler, advantage = (r[k] for k in ("weight", "mean", "counted", "sampler", "advantage"))
        old = r["old"] if "old" in r else pg.stop(logp)
        ref = r.get("ref")
        if ref is None and reference is not None:
            ref = pg.stop(score(reference, b)[0])
        data = dict(sampler=sampler, chosen=r.get("chosen"))
        tokens = pg.token_loss(row, logp, old, advantage, live, ref=ref, correction=r.get("correction"), **data)
        total = jnp.sum(weight * tokens)
        if row.name("entropy") != "none":
            total -= entropy_coef * jnp.sum(mean * entropy)
        if row.positive_nll:
            total -= row.positive_nll * jnp.sum(r["right"] * logp)

        ratio, drift = pg.ratio(logp, old), pg.ratio(old, sampler)
        gap = jnp.abs(logp - sampler)
        metrics = {
            "entropy": jnp.sum(mean * entropy),
            "ratio/mean": jnp.sum(mean * ratio),
            "ratio/square": jnp.sum(mean * ratio**2),
            "ratio/max": jnp.max(jnp.where(live, ratio, 0.0)),
            "clip_fraction": jnp.sum(mean * pg.clipped(row, logp, old, advantage, live, **data)),
            "sampler/mean": jnp.sum(mean * drift),
            "sampler/square": jnp.sum(mean * drift**2),
            "sampler_gap": jnp.sum(mean * gap),
            "sampler_gap/max": jnp.max(jnp.where(live, gap, 0.0)),
        }
        if ref is not None:
            metrics |= {"kl": jnp.sum(mean * pg.k3(logp, ref)), "kl/k1": jnp.sum(mean * pg.k1(logp, ref))}
        if plan.critic:
            policy = lora.policy(params["policy"], frozen)
            v = value_head.values(params["critic"], policy, model, b["tokens"], b["mask"], start)
            value = jnp.sum(mean * pg.value_clipped(v, r["values"], r["returns"], clip=plan.critic.clip or None))
            total += plan.critic.coef * value
            metrics["value/loss"] = value
        return total, jax.tree.map(pg.stop, metrics)

    return loss
