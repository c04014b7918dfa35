"""The sampler, the comparison and the update of a config, lowered on abstract arrays and compiled: nothing is allocated.

These are the functions that ``experiments.rl`` runs, with the same arguments. ``Sizes`` is what the compiler says that each
device needs for one of them.
"""

import dataclasses
import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax import learner, sampler, transformer
from rljax.distributed import sharding
from rljax.learner import optimizer
from rljax.planning import collectives
from rljax.planning.collectives import Collective
from rljax.planning.static_memory import cached, sampler_weights
from rljax.structs import Rollout
from rljax.training import initial_state, settings
from rljax.training.settings import Settings
from rljax.transformer import lora

TOO_MUCH = re.compile(r"required for HLO temporaries \(([\d.]+)([BKMGT])\) exceeds")
KEPT_LAYERS = 2, 4  # turns of the longest run of like layers, where a program is too long to compile whole


class Sizes(NamedTuple):
    """Bytes of a compiled program on each device, and what its devices say to each other."""

    temporary: float
    output: float
    aliased: float  # of the output, what lies where an input did
    said: tuple[Collective, ...]
    read: bool = True  # whether that could be read


class Programs(NamedTuple):
    sample: Sizes
    greedy: Sizes | None
    compare: Sizes
    push: Sizes


def state_of(s: Settings) -> Any:
    """The training state as abstract arrays, each with its sharding."""
    state = jax.eval_shape(lambda: initial_state.new_state(s, s.config.rl, None, settings.algorithm(s.config.rl)))
    return placed(state, sharding.state_shardings(state, s.model, settings.offloaded(s.config.rl)))


def placed(shapes: Any, where: Any) -> Any:
    return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, where)


def rows(shapes: Any, layout: transformer.Layout) -> Any:
    """Abstract arrays whose first axis is split as rows are."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout.sharding(("rows",), x.shape)), shapes
    )


def lowered(s: Settings) -> dict[str, Any]:
    """The programs by name, each a function that lowers it; the update's arguments come from the ones before."""
    c, row, plan = s.config.rl, settings.algorithm(s.config.rl), settings.policy_update(s)
    slots, state = s.task.prompt_slots, state_of(s)
    split, layout = settings.split(s, c, slots), s.model.layout
    kind: Any = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    draw = functools.partial(
        sampler.sample,
        config=s.actor,
        max_new_tokens=c.max_new_tokens,
        temperature=c.temperature,
        top_k=c.top_k,
        top_p=c.top_p,
        stop_ids=s.task.tokenizer.stop_ids,
        weights=c.sampler_weights,
    )

    def sampled(**how: Any) -> Any:
        return jax.jit(lambda policy, prompt, mask, key: draw(policy, prompt=prompt, prompt_mask=mask, key=key, **how))

    asked = rows((kind("int32", c.prompts, slots), kind("bool", c.prompts, slots)), s.actor.layout)
    policy = state.params
    if c.lora.rank:
        policy = adapted(jax.eval_shape(lora.policy, state.params, state.frozen), s.model)

    n = c.prompts * c.group_size
    rollout = rows(
        Rollout(
            prompt=kind("int32", n, slots),
            prompt_mask=kind("bool", n, slots),
            response=kind("int32", n, c.max_new_tokens),
            mask=kind("bool", n, c.max_new_tokens),
            logprobs=kind("float32", n, c.max_new_tokens),
            finished=kind("bool", n),
        ),
        layout,
    )
    greedy = rows(kind("float32", c.prompts), layout) if row.looks_at("greedy") else None
    reward = rows(kind("float32", c.prompts, c.group_size), layout)
    compare = jax.jit(functools.partial(learner.compare, row=row, model=s.model, plan=plan, split=split))
    tx = optimizer.make(c.optimizer, s.model, c.steps * plan.steps)
    push = jax.jit(
        functools.partial(learner.push, row=row, model=s.model, optimizer=tx, plan=plan, split=split, start=slots),
        donate_argnums=0,
    )
    experience = lambda: jax.eval_shape(compare, state, rollout, reward, greedy=greedy)[0]
    out = {
        "sample": lambda: sampled(group_size=c.group_size).lower(policy, *asked, state.key),
        "compare": lambda: compare.lower(state, rollout, reward, greedy=greedy),
        "push": lambda: push.lower(state, rows(experience(), layout)),
    }
    if greedy is not None:
        out["greedy"] = lambda: sampled(group_size=1, greedy=True).lower(policy, *asked, state.key)
    return out


def adapted(policy: Any, model: transformer.Config) -> Any:
    """Adapters beside their base lie whole, as the state has them; the base as weights do."""
    whole = model.layout.sharding((), ())
    where = sharding.weight_shardings(model)

    on: Any = lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)

    def one(at: Any, x: Any) -> Any:
        if isinstance(x, transformer.Adapted):
            return transformer.Adapted(on(x.base, at), on(x.down, whole), on(x.up, whole))
        return on(x, at)

    return jax.tree.map(one, where, policy)


def compiled(s: Settings, exact: bool = False) -> tuple[Programs, str]:
    """Sizes of every program, and how they were found where not by compiling the whole.

    The update's layers are one loop where ``scan_layers`` is on. The sampler's are not: beyond 12 of them it is compiled with 2
    and with 4 turns of the longest run of like layers, and the rest is a straight line, as are its cache and its weights: never
    a flatter one than theirs, since in a short program something else may be what needs most.
    """
    stages = sampler.stage_sizes(s.config.rl.max_new_tokens)
    turns = tuple(float(b - a) for a, b in zip([0, *stages[:-1]], stages, strict=True))
    found, note, whole = {}, "", lowered(s)
    for name, lower in whole.items():
        if s.model.layers <= 12 or exact or (s.model.scan_layers and name in ("compare", "push")):
            found[name] = sizes(lower(), turns)
            continue
        few, many = (with_turns(s, n) for n in KEPT_LAYERS)
        a, b = (sizes(lowered(x)[name](), turns) for x in (few, many))
        kept = 0.0
        if name == "sample":
            kept = cached(many) + sampler_weights(many) - cached(few) - sampler_weights(few)
        turns_more = (s.model.layers - many.model.layers) / (many.model.layers - few.model.layers)
        found[name] = line(a, b, turns_more, kept)
        note = f"by {few.model.layers} and {many.model.layers} layers"
    return Programs(found["sample"], found.get("greedy"), found["compare"], found["push"]), note


def sizes(program: Any, turns: tuple[float, ...]) -> Sizes:
    """Where a compiler (a TPU's) knows its device's memory and finds that a program does not fit, it says what that needs."""
    try:
        done = program.compile()
    except jax.errors.JaxRuntimeError as e:
        needed = TOO_MUCH.search(str(e))
        if not needed:
            raise
        return Sizes(float(needed[1]) * 2 ** (10 * "BKMGT".index(needed[2])), 0.0, 0.0, (), read=False)
    about = done.memory_analysis()
    try:
        said, read = tuple(collectives.read(done.as_text(), turns)), True
    except jax.errors.JaxRuntimeError:  # XLA cannot print some of the programs that a TPU's compiler makes
        said, read = (), False
    return Sizes(about.temp_size_in_bytes, about.output_size_in_bytes, about.alias_size_in_bytes, said, read)


def with_turns(s: Settings, turns: int) -> Settings:
    """The same with so many turns of the longest run of like layers."""
    first, period, repeats = max(s.model.stacks(), key=lambda run: run[1] * run[2])
    left = [i for i in range(s.model.layers) if not first + turns * period <= i < first + repeats * period]

    def cut(model: transformer.Config) -> transformer.Config:
        sliding = tuple(model.slides(i) for i in left) if model.sliding else ()
        routed = tuple(model.routes(i) for i in left) if model.routed else ()
        return dataclasses.replace(model, layers=len(left), sliding=sliding, routed=routed)

    return dataclasses.replace(s, model=cut(s.model), actor=cut(s.actor))


def line(a: Sizes, b: Sizes, beyond: float, kept: float) -> Sizes:
    """What a straight line through a and b has beyond b, in steps from a to b; temporaries grow by ``kept`` at least."""
    go = lambda x, y: y + beyond * (y - x)
    said = tuple(dataclasses.replace(c, times=-c.times * beyond) for c in a.said)
    said += tuple(dataclasses.replace(c, times=c.times * (1 + beyond)) for c in b.said)
    temporary = b.temporary + beyond * max(b.temporary - a.temporary, kept)
    return Sizes(temporary, go(a.output, b.output), go(a.aliased, b.aliased), said, a.read and b.read)
