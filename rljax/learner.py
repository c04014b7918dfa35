"""One optimiser step, supervised or by policy gradient: (state, batch) -> (state, metrics).

The batch is split into micro-batches inside the jit. Rows are sorted by length first and each micro-batch is computed
at the smallest of a few widths that holds it, so that padding is hardly ever multiplied. Every token's weight in the
loss was fixed from the whole batch before the split: the sum over micro-batches *is* the loss, whatever their number.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from rljax import policy_gradient as pg
from rljax import sharding, supervised, transformer
from rljax.structs import Rollout, TrainState

Array = jax.Array
Batch = dict[str, Array]  # arrays [N, S] (by column) or [N] (by row); "mask" [N, S] marks real tokens
Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Split:
    """How a batch is computed: ``rows`` at a time (0: all), each micro-batch cut to one of ``widths`` columns."""

    rows: int = 0
    widths: tuple[int, ...] = ()
    mesh: Mesh | None = None

    def micro_batches(self, batch: Batch) -> tuple[Array, Batch, Array]:
        """(index of the width [M], batch of arrays [M, rows, ...], row that stands at each place [M, rows]).

        Places that no row fills hold row number N, and zeros.
        """
        count, columns = batch["mask"].shape
        rows = min(self.rows or count, count)
        lengths = jnp.max(jnp.where(batch["mask"], jnp.arange(1, columns + 1), 0), -1)
        order, extra = jnp.argsort(lengths), -count % rows

        def split(x: Array, fill: int = 0) -> Array:
            pad = [(0, extra)] + [(0, 0)] * (x.ndim - 1)
            x = jnp.pad(x, pad, constant_values=fill).reshape(-1, rows, *x.shape[1:])
            return sharding.constrain(x, self.mesh, None, "rows")

        longest = split(lengths[order]).max(-1)
        width = jnp.sum(longest[:, None] > jnp.asarray(self.steps(columns)[:-1], jnp.int32), -1)
        return width, jax.tree.map(lambda x: split(x[order]), batch), split(order, count)

    def steps(self, columns: int) -> tuple[int, ...]:
        return (*sorted(w for w in set(self.widths) if w < columns), columns)

    def at_width(self, compute: Callable[[Batch], Any], pad: bool = False) -> Callable[[Array, Batch], Any]:
        """``compute`` on the columns that the width of this index keeps; ``pad`` widens the result again."""

        def call(index: Array, batch: Batch) -> Any:
            columns = batch["mask"].shape[1]

            def cut(width: int) -> Callable[[Batch], Any]:
                narrow = lambda x: x[:, :width] if x.ndim > 1 else x
                widen = lambda x: jnp.pad(x, [(0, 0), (0, columns - width)])
                return lambda b: jax.tree.map(widen if pad else lambda x: x, compute(jax.tree.map(narrow, b)))

            return jax.lax.switch(index, [cut(w) for w in self.steps(columns)], batch)

        return call


def gradients(
    loss: Callable[[Any, Batch], tuple[Array, Metrics]], params: Any, batch: Batch, split: Split
) -> tuple[Any, Metrics]:
    """Gradient of the batch's loss and its metrics, added up micro-batch by micro-batch in float32.

    ``loss(params, micro_batch)`` returns this micro-batch's share of the loss and of each metric; metrics whose name
    ends in "max" are combined by maximum instead.
    """
    width, micro, _ = split.micro_batches(batch)
    compute = split.at_width(lambda b: jax.value_and_grad(loss, has_aux=True)(params, b))

    def step(total: Any, xs: Any) -> tuple[Any, None]:
        (value, metrics), grads = compute(*xs)
        metrics = metrics | {"loss": value}
        grads = jax.tree.map(lambda a, b: a + b.astype(jnp.float32), total[0], grads)
        return (grads, {k: join(k, total[1][k], v) for k, v in metrics.items()}), None

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    names = jax.eval_shape(loss, params, jax.tree.map(lambda x: x[0], micro))[1]
    start = zeros, {k: jnp.zeros((), jnp.float32) for k in [*names, "loss"]}
    return jax.lax.scan(step, start, (width, micro))[0]


def join(name: str, a: Array, b: Array) -> Array:
    return jnp.maximum(a, b) if name.endswith("max") else a + b


def update(state: TrainState, grads: Any, optimizer: optax.GradientTransformation) -> tuple[TrainState, Metrics]:
    """Apply the gradient; where it is not finite leave parameters and optimiser as they are, and count it."""
    norm = optax.global_norm(grads)
    fine = jnp.isfinite(norm)
    safe = jax.tree.map(lambda g, p: jnp.where(fine, g, 0.0).astype(p.dtype), grads, state.params)
    updates, opt_state = optimizer.update(safe, state.opt_state, state.params)
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, old)
    state = state.replace(
        params=keep(optax.apply_updates(state.params, updates), state.params),
        opt_state=keep(opt_state, state.opt_state),
        skipped=jnp.where(fine, 0, state.skipped + 1),
        skipped_total=state.skipped_total + ~fine,
    )
    counts = {"skipped_steps": state.skipped_total, "skipped_in_a_row": state.skipped}
    return state, {"grad_norm": norm} | counts


def supervised_step(
    state: TrainState, batch: Batch, *, model: transformer.Config, optimizer: optax.GradientTransformation, split: Split
) -> tuple[TrainState, Metrics]:
    """One step of next-token learning on ``batch``: tokens, mask (real), learn (counted in the loss), all [N, S]."""
    grads, metrics = gradients(next_token_loss(model), state.params, weighted(batch), split)
    state, more = update(state, grads, optimizer)
    tokens = jnp.sum(batch["learn"], dtype=jnp.float32)
    return state.replace(step=state.step + 1), metrics | more | {"tokens": tokens}


def supervised_loss(params: Any, batch: Batch, *, model: transformer.Config, split: Split) -> Array:
    """Loss of a held-out batch in nats a token."""
    width, micro, _ = split.micro_batches(weighted(batch))
    compute = split.at_width(lambda b: next_token_loss(model)(params, b)[0])
    return jax.lax.map(lambda xs: compute(*xs), (width, micro)).sum()


def weighted(batch: Batch) -> Batch:
    return batch | {"weight": supervised.weights(batch["learn"] & batch["mask"])}


def next_token_loss(model: transformer.Config) -> Callable[[Any, Batch], tuple[Array, Metrics]]:
    """The loss of a micro-batch and its share of the logged means."""

    def loss(params: Any, b: Batch) -> tuple[Array, Metrics]:
        logp, entropy = transformer.token_logprobs(params, model, b["tokens"], b["mask"])
        weight = b["weight"][:, 1:]
        return supervised.loss(logp, weight), {"entropy": jnp.sum(weight * jax.lax.stop_gradient(entropy))}

    return loss


@dataclasses.dataclass(frozen=True)
class PolicyUpdate:
    """The choices of a policy-gradient step that are not the algorithm's row."""

    max_new_tokens: int  # the constant that Dr. GRPO divides by
    group_size: int
    temperature: Array | float = 1.0
    updates: int = 1  # optimiser steps on each rollout, on disjoint random parts of it
    refresh_reference: int = 0  # replace the reference every so many optimiser steps; 0 means never


def policy_step(
    state: TrainState,
    rollout: Rollout,
    advantage: Array,
    *,
    row: pg.Algorithm,
    model: transformer.Config,
    optimizer: optax.GradientTransformation,
    plan: PolicyUpdate,
    split: Split,
) -> tuple[TrainState, Metrics]:
    """Make attempts with a positive advantage [N] likelier: ``plan.updates`` optimiser steps on one rollout.

    With one step, pi_old is the policy itself (ratio 1, its gradient exact); with several, the log-probabilities of the
    parameters before the first step are computed first, by the same code at the same temperature.
    """
    batch = rollout_batch(rollout, advantage, row)
    prompt_slots = rollout.prompt.shape[1]
    score = lambda params, b: transformer.token_logprobs(
        params, model, b["tokens"], b["mask"], plan.temperature, prompt_slots
    )
    if plan.updates > 1:
        batch["old"] = scored(lambda b: score(state.params, b)[0], batch, prompt_slots, split)

    def one(state: TrainState, xs: Any) -> tuple[TrainState, Metrics]:
        number, part = xs
        grads, metrics = gradients(policy_loss(state.reference, row, score, prompt_slots), state.params, part, split)
        state, more = update(state, grads, optimizer)
        if state.reference is not None and plan.refresh_reference:
            due = (state.step * plan.updates + number + 1) % plan.refresh_reference == 0
            state = state.replace(
                reference=jax.tree.map(lambda p, r: jnp.where(due, p, r), state.params, state.reference)
            )
        return state, metrics | more

    # Groups are compared before this point: rows may now be shuffled freely.
    rows = batch["tokens"].shape[0]
    shuffle = jax.random.permutation(jax.random.fold_in(state.step_key(), rows), rows) if plan.updates > 1 else None
    part = lambda x: (x if shuffle is None else x[shuffle]).reshape(plan.updates, -1, *x.shape[1:])
    parts = token_weights(jax.tree.map(part, batch), row, plan)
    state, metrics = jax.lax.scan(one, state, (jnp.arange(plan.updates), parts))
    last = lambda k, v: v[-1] if k.startswith("skipped") else v.max() if k.endswith("max") else v.mean()
    metrics = {k: last(k, v) for k, v in metrics.items()}
    return state.replace(step=state.step + 1), metrics


def rollout_batch(rollout: Rollout, advantage: Array, row: pg.Algorithm) -> Batch:
    """Prompt and response side by side, [N, P + T], and beside them what the loss reads."""
    behind = lambda x: jnp.concatenate([jnp.zeros(rollout.prompt.shape, x.dtype), x], 1)
    counted = rollout.mask & (advantage[:, None] > 0) if row.imitate else rollout.mask
    return {
        "tokens": jnp.concatenate([rollout.prompt, rollout.response], 1),
        "mask": jnp.concatenate([rollout.prompt_mask, rollout.mask], 1),
        "counted": behind(counted),
        "sampler": behind(rollout.logprobs),
        "advantage": advantage,
    }


def token_weights(parts: Batch, row: pg.Algorithm, plan: PolicyUpdate) -> Batch:
    """Add each optimiser batch's token weights: of the loss ("weight") and of logged token means ("mean")."""
    loss = lambda m: pg.weights(m, row.aggregation, group_size=plan.group_size, constant=plan.max_new_tokens)
    mean = lambda m: pg.weights(m, "token_mean")
    return parts | {"weight": jax.vmap(loss)(parts["counted"]), "mean": jax.vmap(mean)(parts["counted"])}


def scored(logprobs: Callable[[Batch], Array], batch: Batch, start: int, split: Split) -> Array:
    """[N, S] log-probabilities of a batch's response tokens, micro-batch by micro-batch, zero before ``start``."""
    width, micro, order = split.micro_batches(batch)
    compute = split.at_width(lambda b: jnp.pad(logprobs(b), [(0, 0), (start, 0)]), pad=True)
    out = jax.lax.map(lambda xs: compute(*xs), (width, micro))
    rows, columns = batch["tokens"].shape
    return jnp.zeros((rows, columns)).at[order.reshape(-1)].set(out.reshape(-1, columns), mode="drop")


def policy_loss(
    reference: Any, row: pg.Algorithm, score: Callable[[Any, Batch], tuple[Array, Array]], start: int
) -> Callable[[Any, Batch], tuple[Array, Metrics]]:
    """The loss of a micro-batch and its share of each logged mean."""

    def loss(params: Any, b: Batch) -> tuple[Array, Metrics]:
        logp, entropy = score(params, b)
        sampler, weight, mean = (b[k][:, start:] for k in ("sampler", "weight", "mean"))
        old = b["old"][:, start:] if "old" in b else pg.stop(logp)
        ref = None if reference is None else pg.stop(score(reference, b)[0])
        ratio, live = pg.stop(pg.ratio(logp, old)), mean > 0
        outside = (ratio < 1 - row.clip_low) | (ratio > 1 + row.clip_high)
        metrics = {
            "entropy": jnp.sum(mean * entropy),
            "ratio/mean": jnp.sum(mean * ratio),
            "ratio/max": jnp.max(jnp.where(live, ratio, 0.0)),
            "clip_fraction": jnp.sum(mean * outside),
            "sampler_gap": jnp.sum(mean * jnp.abs(logp - sampler)),
            "sampler_gap/max": jnp.max(jnp.where(live, jnp.abs(logp - sampler), 0.0)),
        }
        if ref is not None:
            metrics |= {"kl": jnp.sum(mean * pg.k3(logp, ref)), "kl/k1": jnp.sum(mean * pg.k1(logp, ref))}
        return jnp.sum(weight * pg.token_loss(row, logp, old, b["advantage"], ref)), jax.tree.map(pg.stop, metrics)

    return loss
