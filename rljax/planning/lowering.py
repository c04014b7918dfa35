"""The sampler, the advantages and the update of a run, lowered on abstract arrays and compiled: nothing is allocated.

These are the functions of ``training.rl_steps``, bound to the same settings. ``Sizes`` is what the compiler says that each
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
from rljax.planning import collectives
from rljax.planning.collectives import Collective
from rljax.planning.static_memory import cached, sampler_weights
from rljax.structs import Experience, Problems, Rewards, Rollout
from rljax.training import initial_state
from rljax.training.rl_steps import make_learner
from rljax.training.run import Run
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
    advantages: Sizes
    update: Sizes


def state_of(run: Run) -> Any:
    """The training state of reinforcement learning as abstract arrays, each with its sharding."""
    state = jax.eval_shape(lambda: initial_state.new_state(run, run.rl, None))
    return place_abstract(state, sharding.state_shardings(state, run.model, run.rl.offloaded))


def place_abstract(shapes: Any, where: Any) -> Any:
    return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, where)


def abstract_rows(shapes: Any, layout: transformer.Layout) -> Any:
    """Abstract arrays whose first axis is split as rows are."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout.sharding(("rows",), x.shape)), shapes
    )


def lower_programs(run: Run) -> dict[str, Any]:
    """The programs of a train step by name, each a function that lowers it; the update's inputs come from the one before."""
    rl, sampling, prompts = run.rl, run.rl.sampling, run.rl.problems.prompts
    slots, state, layout = run.task.prompt_slots, state_of(run), run.model.layout
    kind: Any = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))

    def lower_sampler(greedy: bool) -> Any:
        draw = sampler.make_sampler(sampling, run.sampler_model, greedy=greedy)
        program = jax.jit(lambda policy, prompt, mask, key: draw(policy, Problems(prompt, mask, ()), key))
        return program.lower(policy, *asked, state.key)

    asked = abstract_rows((kind("int32", prompts, slots), kind("bool", prompts, slots)), run.sampler_model.layout)
    policy = state.params
    if rl.lora.rank:
        policy = place_adapted(jax.eval_shape(lora.policy_params, state.params, state.frozen), run.model)

    rows = prompts * sampling.group_size
    rollout = jax.eval_shape(lambda: Rollout.empty(rows, slots, sampling.max_new_tokens))
    with_greedy = rl.algorithm.looks_at("greedy")
    correct = kind("float32", prompts, sampling.group_size)
    greedy = kind("float32", prompts) if with_greedy else None
    terms = kind("float32", prompts, sampling.group_size, len(rl.reward))
    experience = abstract_rows(Experience(rollout, Rewards(correct, terms, {}, greedy)), layout)
    policy_learner = make_learner(run)
    advantages = jax.jit(functools.partial(learner.compute_advantages, policy_learner))
    update = jax.jit(functools.partial(learner.update_policy, policy_learner), donate_argnums=0)
    batch = lambda: jax.eval_shape(advantages, state, experience)[0]
    out = {
        "sample": lambda: lower_sampler(greedy=False),
        "advantages": lambda: advantages.lower(state, experience),
        "update": lambda: update.lower(state, abstract_rows(batch(), layout)),
    }
    return out | ({"greedy": lambda: lower_sampler(greedy=True)} if with_greedy else {})


def place_adapted(policy: Any, model: transformer.Config) -> Any:
    """Adapters beside their base lie whole, as the state has them; the base as weights do."""
    whole = model.layout.sharding((), ())
    where = sharding.weight_shardings(model)

    on: Any = lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)

    def one(at: Any, x: Any) -> Any:
        if isinstance(x, transformer.LoraMatrix):
            return transformer.LoraMatrix(on(x.base, at), on(x.down, whole), on(x.up, whole))
        return on(x, at)

    return jax.tree.map(one, where, policy)


def compile_programs(run: Run, exact: bool = False) -> tuple[Programs, str]:
    """Sizes of every program, and how they were found where not by compiling the whole.

    The update's layers are one loop where ``scan_layers`` is on. The sampler's are not: beyond 12 of them it is compiled with 2
    and with 4 turns of the longest run of like layers, and the rest is a straight line, as are its cache and its weights: never
    a flatter one than theirs, since in a short program something else may be what needs most.
    """
    stages = sampler.stage_sizes(run.rl.sampling.max_new_tokens)
    turns = tuple(float(b - a) for a, b in zip([0, *stages[:-1]], stages, strict=True))
    found, note, whole = {}, "", lower_programs(run)
    for name, lower in whole.items():
        if run.model.layers <= 12 or exact or (run.model.scan_layers and name in ("advantages", "update")):
            found[name] = sizes(lower(), turns)
            continue
        few, many = (with_layers(run, n) for n in KEPT_LAYERS)
        a, b = (sizes(lower_programs(x)[name](), turns) for x in (few, many))
        kept = 0.0
        if name == "sample":
            kept = cached(many) + sampler_weights(many) - cached(few) - sampler_weights(few)
        turns_more = (run.model.layers - many.model.layers) / (many.model.layers - few.model.layers)
        found[name] = extrapolate(a, b, turns_more, kept)
        note = f"by {few.model.layers} and {many.model.layers} layers"
    return Programs(found["sample"], found.get("greedy"), found["advantages"], found["update"]), note


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


def with_layers(run: Run, turns: int) -> Run:
    """The same with so many turns of the longest run of like layers."""
    first, period, repeats = max(run.model.layer_stacks(), key=lambda run: run[1] * run[2])
    left = [i for i in range(run.model.layers) if not first + turns * period <= i < first + repeats * period]

    def cut(model: transformer.Config) -> transformer.Config:
        sliding = tuple(model.is_sliding(i) for i in left) if model.sliding else ()
        routed = tuple(model.has_experts(i) for i in left) if model.routed else ()
        return dataclasses.replace(model, layers=len(left), sliding=sliding, routed=routed)

    return dataclasses.replace(run, model=cut(run.model), sampler_model=cut(run.sampler_model))


def extrapolate(a: Sizes, b: Sizes, beyond: float, kept: float) -> Sizes:
    """What a straight line through a and b has beyond b, in steps from a to b; temporaries grow by ``kept`` at least."""
    go = lambda x, y: y + beyond * (y - x)
    said = tuple(dataclasses.replace(c, times=-c.times * beyond) for c in a.said)
    said += tuple(dataclasses.replace(c, times=c.times * (1 + beyond)) for c in b.said)
    temporary = b.temporary + beyond * max(b.temporary - a.temporary, kept)
    return Sizes(temporary, go(a.output, b.output), go(a.aliased, b.aliased), said, a.read and b.read)
