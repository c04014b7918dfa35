"""Lower the programs of a train step on abstract arrays and compile them. Nothing is allocated and nothing runs.

The programs are the sampler, the advantages, the policy update, and the sampler of an evaluation. They are the functions of ``training.rl_steps``, with the
same settings. A ``CompiledProgram`` has the memory that the compiler reports for one program, and its collectives.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax import learner, sampler, transformer
from rljax.distributed import sharding
from rljax.evaluation import divide_attempts, divide_greedy
from rljax.planning import collectives
from rljax.planning.collectives import Collective
from rljax.planning.operations import update_shape
from rljax.planning.static_memory import kv_cache_bytes, sampler_weight_bytes
from rljax.structs import Experience, Problems, Rewards, Rollout
from rljax.training import initial_state
from rljax.training.rl_steps import make_learner
from rljax.training.run import Run
from rljax.transformer import lora

OUT_OF_MEMORY = re.compile(r"required for HLO temporaries \(([\d.]+)([BKMGT])\) exceeds")
MAX_COMPILED_LAYERS = 12  # a program with more unrolled layers is extrapolated from shorter ones
EXTRAPOLATION_REPEATS = 2, 4  # repeats of the largest layer stack in the two programs that are extrapolated from


class CompiledProgram(NamedTuple):
    """Bytes of one compiled program on each device, and its collectives."""

    temporary: float
    output: float
    aliased: float  # the part of the output that reuses the memory of donated inputs
    collectives: tuple[Collective, ...]
    has_hlo_text: bool = True  # False: the compiler gave no text, so the collectives are unknown


class Programs(NamedTuple):
    sample: CompiledProgram
    greedy: CompiledProgram | None  # the greedy attempts, for an advantage that needs them
    advantages: CompiledProgram
    update: CompiledProgram
    evaluate: CompiledProgram  # one call of the sampler at the settings of ``eval``
    evaluate_greedy: CompiledProgram | None = None  # the same of its greedy attempts: more prompts, each with one row


def abstract_state(run: Run) -> Any:
    """Return the training state of the RL stage as abstract arrays, each with its sharding."""
    model = run.rl.teacher_model
    teacher = None if model is None else jax.eval_shape(lambda: transformer.init(model, jax.random.key(0)))
    state = jax.eval_shape(lambda teacher: initial_state.new_state(run, run.rl, None, teacher), teacher)
    return with_shardings(state, sharding.state_shardings(state, run.model, run.rl.offloaded))


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Return abstract arrays with these shapes and shardings. Both arguments are pytrees of one structure."""
    return jax.tree.map(with_sharding, shapes, shardings)


def with_sharding(x: Any, where: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)


def with_row_sharding(shapes: Any, layout: transformer.Layout) -> Any:
    """Return abstract arrays with these shapes, their first axis sharded as the rows of a batch."""
    return jax.tree.map(lambda x: with_sharding(x, layout.sharding(("rows",), x.shape)), shapes)


def with_lora_shardings(policy: Any, model: transformer.Config) -> Any:
    """Return abstract policy parameters with shardings: each base weight as usual, the adapters replicated."""
    replicated = model.layout.sharding((), ())

    def add_sharding(where: Any, x: Any) -> Any:
        if isinstance(x, transformer.LoraMatrix):
            return transformer.LoraMatrix(
                with_sharding(x.base, where), with_sharding(x.down, replicated), with_sharding(x.up, replicated)
            )
        return with_sharding(x, where)

    return jax.tree.map(add_sharding, sharding.weight_shardings(model), policy)


def lower_programs(run: Run) -> dict[str, Callable[[], Any]]:
    """Return the programs of a train step by name. Each value is a function without arguments that lowers the program.

    The inputs of each program have the shapes of the outputs of the program before it.
    """
    rl, sampling, prompts = run.rl, run.rl.sampling, run.rl.problems.prompts
    prompt_slots, state, layout = run.task.prompt_slots, abstract_state(run), run.model.layout
    rows = prompts * sampling.group_size
    needs_greedy = rl.algorithm.looks_at("greedy")
    array: Any = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))

    # sampling
    policy = state.params
    if rl.lora.rank:
        policy = with_lora_shardings(jax.eval_shape(lora.policy_params, state.params, state.frozen), run.model)

    def lower_sampler(
        sampling: sampler.Sampling, prompts: int, greedy: bool = False, to_learn_from: bool = False
    ) -> Any:
        sample = sampler.make_sampler(sampling, run.sampler_model, greedy=greedy, to_learn_from=to_learn_from)
        program = jax.jit(lambda policy, prompt, mask, key: sample(policy, Problems(prompt, mask, ()), key))
        prompt_and_mask = (array("int32", prompts, prompt_slots), array("bool", prompts, prompt_slots))
        return program.lower(policy, *with_row_sharding(prompt_and_mask, run.sampler_model.layout), state.key)

    # advantages
    masked_vocab = run.model.vocab_size if sampling.stores_sampling_mask else 0
    rollout = jax.eval_shape(lambda: Rollout.empty(rows, prompt_slots, sampling.max_new_tokens, masked_vocab))
    rewards = Rewards(
        correct=array("float32", prompts, sampling.group_size),
        terms=array("float32", prompts, sampling.group_size, len(rl.reward)),
        info={},
        greedy=array("float32", prompts) if needs_greedy else None,
    )
    experience = with_row_sharding(Experience(rollout, rewards), layout)
    policy_learner = make_learner(run)
    advantages = jax.jit(functools.partial(learner.compute_advantages, policy_learner))

    # update
    update = jax.jit(functools.partial(learner.update_policy, policy_learner), donate_argnums=0)
    batch = lambda: jax.eval_shape(advantages, state, experience)[0]

    programs: dict[str, Callable[[], Any]] = {
        "sample": lambda: lower_sampler(sampling, prompts, to_learn_from=True),
        "advantages": lambda: advantages.lower(state, experience),
        "update": lambda: update.lower(state, with_row_sharding(batch(), layout)),
    }
    if needs_greedy:
        programs["greedy"] = lambda: lower_sampler(sampling, prompts, greedy=True)
    asked, evaluated = evaluation_sampling(run)
    if not same_program(run, asked, evaluated):
        programs["evaluate"] = lambda: lower_sampler(evaluated, asked)
    if run.evaluation.greedy:
        programs["evaluate_greedy"] = lambda: lower_sampler(evaluated, greedy_prompts(run), greedy=True)
    return programs


def evaluation_sampling(run: Run) -> tuple[int, sampler.Sampling]:
    """Return (prompts, settings) of one call of the sampler in an evaluation."""
    options = run.evaluation
    parts = divide_attempts(options, options.attempts, run.sampler_model.layout)
    settings = dict(
        group_size=parts.attempts, top_k=options.top_k, top_p=options.top_p, temperature=options.temperature
    )
    own = run.rl.sampling
    base = sampler.Sampling(
        max_new_tokens=own.max_new_tokens, stop_ids=own.stop_ids, stop_strings=own.stop_strings, slots=own.slots
    )
    return parts.problems, dataclasses.replace(base, **settings)


def greedy_prompts(run: Run) -> int:
    """Return the prompts of one call of the sampler for the greedy attempts of an evaluation."""
    longest, layout = run.rl.sampling.max_new_tokens, run.sampler_model.layout
    return divide_greedy(run.evaluation, run.task.prompt_slots, longest, layout).problems


def same_program(run: Run, prompts: int, evaluated: sampler.Sampling) -> bool:
    """Whether an evaluation runs the same sampler as a rollout: of the same shapes, whatever the temperature above 0."""
    shapes = ("group_size", "max_new_tokens", "top_k", "top_p", "sampler_weights")
    same = all(getattr(evaluated, name) == getattr(run.rl.sampling, name) for name in shapes)
    stores_mask = run.rl.sampling.stores_sampling_mask
    return bool(same and not stores_mask and prompts == run.rl.problems.prompts and evaluated.temperature > 0)


def compile_programs(run: Run, exact: bool = False) -> tuple[Programs, str]:
    """Return (the compiled programs, a note on what was extrapolated; "" where nothing was).

    With ``scan_layers`` the layers of each program are one loop, and it is compiled whole. Otherwise the layers are unrolled.
    Beyond MAX_COMPILED_LAYERS layers such a program is compiled twice, with 2 and with 4
    repeats of the largest layer stack, and extrapolated linearly. The sampler's temporary memory is taken to grow at least as
    fast as its KV cache and its weights: in a short program another part may need the most memory, which would make the line too
    flat. ``exact`` compiles all layers.
    """
    of_update = (float(update_shape(run.rl, run.task.prompt_slots).micro_batches),)  # packed: as many as are needed
    prompts, all_rows = run.rl.problems.prompts, run.rl.problems.prompts * run.rl.sampling.group_size
    compiled, note = {}, ""
    for name, lower in lower_programs(run).items():
        alone = greedy_prompts(run)
        others = {
            "evaluate": evaluation_rows(run),
            "evaluate_greedy": (alone, alone),
            "greedy": (prompts, prompts),
        }
        rows = others.get(name, (prompts, all_rows))
        trip_counts = of_update if name in ("advantages", "update") else sampler_trip_counts(run, *rows)
        if run.model.layers <= MAX_COMPILED_LAYERS or exact or run.model.scan_layers:
            compiled[name] = compile_program(lower(), trip_counts)
            continue
        small, large = (with_repeats(run, repeats) for repeats in EXTRAPOLATION_REPEATS)
        a, b = (compile_program(lower_programs(shorter)[name](), trip_counts) for shorter in (small, large))
        min_growth = 0.0
        if name in ("sample", "evaluate", "evaluate_greedy"):
            min_growth = kv_cache_bytes(large, *rows) + sampler_weight_bytes(large)
            min_growth -= kv_cache_bytes(small, *rows) + sampler_weight_bytes(small)
        steps = (run.model.layers - large.model.layers) / (large.model.layers - small.model.layers)
        compiled[name] = extrapolate(a, b, steps, min_growth)
        note = f"extrapolated from {small.model.layers} and {large.model.layers} layers"
    return Programs(
        sample=compiled["sample"],
        greedy=compiled.get("greedy"),
        advantages=compiled["advantages"],
        update=compiled["update"],
        evaluate=compiled.get("evaluate", compiled["sample"]),
        evaluate_greedy=compiled.get("evaluate_greedy"),
    ), note


def sampler_trip_counts(run: Run, prompts: int, rows: int) -> tuple[float, ...]:
    """Return the trip counts of the sampler's loops where every response has its maximum length.

    One loop for each size of the cache. Or one over all turns of the slots, and in it one over the slots that get a new prompt.
    """
    columns = run.rl.sampling.max_new_tokens
    at_once = sampler.rows_at_once(run.rl.sampling.slots, rows, prompts, run.sampler_model.layout)
    if at_once < rows:
        return rows / at_once * columns, 1.0
    stages = sampler.stage_sizes(columns)
    return tuple(float(end - start) for start, end in zip([0, *stages[:-1]], stages, strict=True))


def evaluation_rows(run: Run) -> tuple[int, int]:
    """Return (prompts, rows) of one call of the sampler in an evaluation."""
    prompts, sampling = evaluation_sampling(run)
    return prompts, prompts * sampling.group_size


def compile_program(lowered: Any, trip_counts: tuple[float, ...]) -> CompiledProgram:
    """Compile a lowered program. ``trip_counts`` are those of the loops whose trip count the compiler does not know.

    The TPU compiler knows the memory of its device and refuses a program that does not fit. Its error message has the bytes
    of temporary memory that the program needs, and these are returned.
    """
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        needed = OUT_OF_MEMORY.search(str(e))
        if not needed:
            raise
        temporary = float(needed[1]) * 2 ** (10 * "BKMGT".index(needed[2]))
        return CompiledProgram(temporary, 0.0, 0.0, (), has_hlo_text=False)
    try:
        found, has_text = tuple(collectives.parse_collectives(program.as_text(), trip_counts)), True
    except jax.errors.JaxRuntimeError:  # XLA cannot print some programs of the TPU compiler
        found, has_text = (), False
    memory = program.memory_analysis()
    return CompiledProgram(
        memory.temp_size_in_bytes, memory.output_size_in_bytes, memory.alias_size_in_bytes, found, has_text
    )


def with_repeats(run: Run, repeats: int) -> Run:
    """Return the run with only this many repeats of its largest layer stack; the other layers stay."""
    first, period, all_repeats = max(run.model.layer_stacks(), key=lambda stack: stack[1] * stack[2])
    removed = range(first + repeats * period, first + all_repeats * period)
    kept = [i for i in range(run.model.layers) if i not in removed]

    def keep_layers(model: transformer.Config) -> transformer.Config:
        sliding = tuple(model.is_sliding(i) for i in kept) if model.sliding else ()
        routed = tuple(model.has_experts(i) for i in kept) if model.routed else ()
        return dataclasses.replace(model, layers=len(kept), sliding=sliding, routed=routed)

    return dataclasses.replace(run, model=keep_layers(run.model), sampler_model=keep_layers(run.sampler_model))


def extrapolate(a: CompiledProgram, b: CompiledProgram, steps: float, min_growth: float) -> CompiledProgram:
    """Extrapolate linearly from program a through the longer program b: b + steps * (b - a).

    Temporary memory grows by at least ``min_growth`` bytes a step. The collectives of a are subtracted by negative counts.
    """
    line = lambda x, y: y + steps * (y - x)
    found = tuple(dataclasses.replace(c, count=-c.count * steps) for c in a.collectives)
    found += tuple(dataclasses.replace(c, count=c.count * (1 + steps)) for c in b.collectives)
    return CompiledProgram(
        temporary=b.temporary + steps * max(b.temporary - a.temporary, min_growth),
        output=line(a.output, b.output),
        aliased=line(a.aliased, b.aliased),
        collectives=found,
        has_hlo_text=a.has_hlo_text and b.has_hlo_text,
    )
