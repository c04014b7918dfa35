"""One policy-gradient step on one group of attempts, in a copy of the policy: the probability of each attempt before and after."""

import dataclasses
import functools
import math
import secrets
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import learner
from rljax import policy_gradient as pg
from rljax.errors import UserError
from rljax.learner.optimizer import OptimizerOptions, make_optimizer
from rljax.serving.aside import do_aside
from rljax.serving.engine import Work
from rljax.serving.groups import Group
from rljax.serving.policies import Policies, make_policy
from rljax.serving.programs import Programs
from rljax.serving.shapes import choose_shape
from rljax.structs import Experience, Rewards, Rollout, TrainState
from rljax.text import pad_batch

Array = jax.Array
ROWS = 4  # of a micro-batch: memory for activations of so many attempts
MARK = "~"  # behind it, the number of a changed copy


class Learned(NamedTuple):
    """What a step did."""

    copy: str  # the name of the changed copy
    steps: int  # taken in it so far
    before: list[float]  # log-probability of each attempt, nats, at the temperature of sampling
    after: list[float]
    said: str  # in one sentence


class Copies:
    """The training states of changed copies, beside the parameters that ``Policies`` keeps."""

    def __init__(self, policies: Policies, programs: Programs):
        self.policies, self.programs = policies, programs
        self.states: dict[str, TrainState] = {}
        self.learning = threading.Lock()

    def take_step(self, group: Group, name: str, algorithm: str, rate: float) -> Work:
        """Take a step on a group, in the copy ``name``, or in a new one of a policy of this name. Yields ``Learned`` at the end.

        Aside of the device's thread, so that others' attempts go on. Raises UserError for what the algorithm cannot do with this
        group.
        """
        policy = yield from self.policies.use(name)
        run = policy.source.run
        rows = make_rows(group, run.model.max_length)
        shape = rows.rollout.mask.shape
        how = bind_learner(run.model, algorithm, run.rl.optimizer, shape, rows.rollout.prompt.shape[1])
        state = self.states.get(name)
        if state is None:
            state = yield from do_aside(lambda: begin_state(how, policy.params, rate))
        inputs = (rows, jnp.float32(group.temperature or 1.0))
        score = yield from self.programs.use(how.score, state.params, *inputs)
        step = yield from self.programs.use(how.step, state, *inputs, jnp.float32(rate))

        def learn() -> Learned:
            with self.learning:  # two steps in one copy come one after the other
                now = self.states.get(name, state)
                before = np.asarray(score(now.params, *inputs))
                now = step(now, *inputs, jnp.float32(rate))
                after = np.asarray(score(now.params, *inputs))
                if not np.isfinite(after).all():
                    raise UserError(
                        f"rate: after a step of {rate:g} the policy has no finite probabilities: take a smaller one"
                    )
                new = name if MARK in name else f"{name}{MARK}{secrets.token_hex(2)}"
                self.policies.keep_copy(make_policy(new, policy.source, now.params))
                self.states = {k: v for k, v in (self.states | {new: now}).items() if k in self.policies.copies}
            first, last = (x[: len(group.responses)].astype(float).tolist() for x in (before, after))
            return Learned(new, int(now.step), first, last, describe_step(group.correct, first, last))

        yield (yield from do_aside(learn))

    def forget(self, name: str) -> None:
        """Give up a copy. Raises NoPolicyError where there is none."""
        self.policies.drop_copy(name)
        self.states.pop(name, None)


class Bound(NamedTuple):
    """Compiled functions of one architecture, algorithm and shape."""

    score: Any  # (params, experience, temperature) -> log-probability of each attempt [N]
    step: Any  # (state, experience, temperature, rate) -> state
    tx: Any  # rate -> the optimizer


@functools.lru_cache(maxsize=16)
def bind_learner(model: Any, algorithm: str, options: OptimizerOptions, shape: tuple[int, int], slots: int) -> Bound:
    """The learner of a group of this shape. Its learning rate is constant: there is no end that it could fall towards."""
    defaults = OptimizerOptions()
    constant = dict(schedule="constant", warmup=0, final=defaults.final, offload=False)
    tx = lambda rate: make_optimizer(dataclasses.replace(options, learning_rate=rate, **constant), model, 1)

    def learner_of(temperature: Array, rate: Array | float) -> learner.PolicyLearner:
        return learner.PolicyLearner(
            algorithm=pg.ALGORITHMS[algorithm],
            model=model,
            optimizer=tx(rate),
            prompt_slots=slots,
            max_new_tokens=shape[1],
            group_size=shape[0],
            temperature=temperature,
            micro_batching=learner.MicroBatching(rows=ROWS),
        )

    def score(params: Any, experience: Experience, temperature: Array) -> Array:
        how, rollout = learner_of(temperature, 0.0), experience.rollout
        batch = learner.make_policy_batch(rollout, rollout.mask)
        scored = learner.score_rows(lambda b: how.score(params, b)[0], batch, slots, how.micro_batching)
        return jnp.where(rollout.mask, scored[:, slots:], 0.0).sum(-1)

    def step(state: TrainState, experience: Experience, temperature: Array, rate: Array) -> TrainState:
        how = learner_of(temperature, rate)
        reference = state.reference  # kept also where this algorithm has no KL term
        state = state.replace(reference=reference if pg.ALGORITHMS[algorithm].has_reference else None)
        batch, _ = learner.compute_advantages(how, state, experience)
        return learner.update_policy(how, state, batch)[0].replace(reference=reference)

    return Bound(jax.jit(score), jax.jit(step), tx)


def begin_state(how: Bound, params: Any, rate: float) -> TrainState:
    """The state of a new copy: nothing is shared with the policy that is asked, because nothing is donated."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=how.tx(rate).init(params),
        key=jax.random.key(0),
        cursor=jnp.zeros((), jnp.int32),
        reference=params,  # of the KL term, where the algorithm has one
        reference_is_fixed=True,
    )


def make_rows(group: Group, window: int) -> Experience:
    """The group as an experience of one prompt. Rows that pad it have no verdict: nothing is learned from them."""
    longest = max(map(len, group.responses))
    shape = choose_shape(len(group.responses), len(group.prompt), max(longest, 1), window)
    prompt, prompt_mask = pad_batch([list(group.prompt)] * shape.rows, shape.prompt, 0, left=True)
    missing = shape.rows - len(group.responses)
    response, mask = pad_batch([*map(list, group.responses), *[[]] * missing], shape.response, 0)
    logprobs = np.zeros(mask.shape, np.float32)
    for n, row in enumerate(group.logprobs):
        logprobs[n, : len(row)] = row
    correct = np.asarray([[*group.correct, *[math.nan] * missing]], np.float32)
    finished = np.asarray([*group.finished, *[False] * missing])
    as_array = lambda *xs: map(jnp.asarray, xs)
    rollout = Rollout(*as_array(prompt, prompt_mask, response, mask, logprobs, finished))
    return Experience(rollout, Rewards(jnp.asarray(correct), jnp.asarray(correct[..., None]), {}))


def describe_step(correct: Sequence[float], before: Sequence[float], after: Sequence[float]) -> str:
    """What a step did to right and to wrong attempts, in one sentence."""
    change = [a - b for a, b in zip(after, before, strict=True)]
    parts = []
    for name, chosen in (("right", lambda c: c > 0), ("wrong", lambda c: c <= 0)):
        found = [d for d, c in zip(change, correct, strict=True) if chosen(c)]
        if found:
            parts.append(f"{name} attempts became {describe_factor(sum(found) / len(found))}")
    if len(parts) == 1:
        other = "wrong" if "right" in parts[0] else "right"
        parts.append(f"there was no {other} one to compare with")
    text = ", ".join(parts) or "no attempt has a verdict"
    return text[0].upper() + text[1:] + "."


def describe_factor(mean: float) -> str:
    """A mean change of log-probabilities, as a factor of probability (the geometric mean)."""
    if abs(mean) < 5e-4:
        return "neither likelier nor less likely"
    if mean > 0:
        return f"{format_factor(mean)} times likelier"
    return f"{format_factor(-mean)} times less likely"


def format_factor(nats: float) -> str:
    """``exp(nats)`` as in 1.003, 1.8 or 3,200."""
    factor = math.exp(min(nats, 14.0))
    if factor >= 1e6:
        return "over a million"
    if factor >= 100:
        return f"{float(f'{factor:.2g}'):,.0f}"
    return f"{factor:.3f}" if factor < 1.1 else f"{factor:.1f}"
