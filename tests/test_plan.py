"""The planner: what it knows of chips and models, and that its numbers are those of hand computation and of the compiler."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from models import DEEPSEEK, EVERYTHING, SMALL

from configs import qwen25, shop
from rljax import planning, tasks, transformer
from rljax.errors import UserError
from rljax.planning import collectives, lowering, operations, suggestions

BILLIONS = {  # as their publishers, or transformers, count them
    "gemma2_2b": 2.614,
    "gemma2_9b": 9.241,
    "gemma2_27b": 27.227,
    "qwen25_0.5b": 0.494,
    "qwen25_1.5b": 1.544,
    "qwen25_7b": 7.616,
    "qwen25_14b": 14.770,
    "qwen25_32b": 32.764,
    "qwen3_0.6b": 0.596,
    "qwen3_1.7b": 1.721,
    "qwen3_30b_a3b": 30.532,
    "llama3_8b": 8.030,
    "llama3_70b": 70.554,
    "deepseek_v3_671b": 671.026,
}
LATENT = ("heads", "kv_heads", "head_width", "latent", "query_latent", "rope_width", "value_width")
ROOT = Path(__file__).parent.parent


def small(**changes):
    c = shop.get_config()
    c.rl.update(dict(prompts=4, group_size=4, max_new_tokens=32, micro_batch=8, widths=()) | changes)
    return c


@pytest.mark.parametrize("name", planning.SHAPES)
def test_published_models_have_the_published_number_of_parameters(name):
    described = transformer.weight_specs(planning.SHAPES[name])
    leaves = jax.tree.leaves(described, is_leaf=lambda x: isinstance(x, transformer.WeightSpec))
    count = sum(jnp.prod(jnp.asarray(w.shape, jnp.float32)) for w in leaves)
    assert float(count) / 1e9 == pytest.approx(BILLIONS[name], rel=1e-3)


def test_chips_are_known_by_name_and_others_are_refused_with_the_list():
    assert planning.chip("H100").memory == 80e9
    with pytest.raises(UserError, match="v5e, v5p, v6e, a100, h100, h200"):
        planning.chip("abacus")


@pytest.mark.parametrize("config", [SMALL, EVERYTHING, DEEPSEEK], ids=["small", "everything", "deepseek"])
def test_counted_operations_of_a_forward_pass_are_the_compilers(config):
    if config.experts:  # a CPU multiplies every token with every expert
        config = transformer.Config(**{f: getattr(config, f) for f in ("vocab_size", *LATENT)}, layers=2)
    wide = dataclasses.replace(config, width=128, ff_width=512, vocab_size=1024)
    params = jax.eval_shape(lambda: transformer.init(wide, jax.random.key(0)))
    tokens = jax.ShapeDtypeStruct((4, 64), jnp.int32)
    cost = jax.jit(lambda p, t: transformer.forward(p, wide, t)).lower(params, tokens).cost_analysis()
    assert operations.forward(wide, 4, 64, 64) == pytest.approx(cost["flops"], rel=0.05)


def test_a_tokens_operations_count_only_the_experts_it_is_sent_to():
    model = planning.SHAPES["deepseek_v3_671b"]
    active = operations.matrices(model) + 2 * operations.head(model)
    assert active / 1e9 == pytest.approx(37.5, rel=0.02)  # 37 billion, as published, and the other table
    assert (operations.matrices(model, active=False) + 2 * operations.head(model)) / 1e9 == pytest.approx(
        671.0, rel=1e-3
    )


TEXT = """HloModule jit_f

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %sum = f32[8]{0} all-reduce(%x), channel_id=1, replica_groups=[4,2]<=[2,4]T(1,0), use_global_device_ids=true, to_apply=%add
  %some = (f32[2]{0}, bf16[4]{0}) all-gather(%a, %b), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
}

%open (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %w.1 = (s32[], f32[8]{0}) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}

ENTRY %main (a: f32[8], /*index=1*/b: f32[8]) -> f32[8] {
  %w.2 = (s32[], f32[8]{0}) while(%t), condition=%cond, body=%open
  %one = f32[16]{0} all-gather(%a), replica_groups=mesh['a'=2,'b'=4], device_ids=([8]) {'b'}, dimensions={0}
}
"""


def test_collectives_are_counted_with_the_turns_of_the_loops_around_them():
    found = {c.kind + str(c.size): c for c in collectives.read(TEXT, (10.0,))}
    summed, gathered = found["all-reduce32"], found["all-gather64"]
    assert (summed.times, summed.group, summed.within, summed.sent) == (30, 2, 8, 32)
    assert (found["all-gather16"].times, found["all-gather16"].group, found["all-gather16"].within) == (30, 4, 4)
    assert (gathered.times, gathered.group, gathered.within, gathered.sent) == (1, 4, 4, 48)


def test_groups_of_devices_are_read_in_each_form_that_the_compiler_writes():
    of = lambda text: collectives.members(f"x), replica_groups={text}, more").tolist()
    assert of("{{0,2},{1,3}}") == of("[2,2]<=[2,2]T(1,0)") == of("mesh['a'=2,'b'=2] {'a'}") == [[0, 2], [1, 3]]
    assert of("mesh['a'=2,'b'=4] {'b':(2)2}") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert of("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}") == [[0, 1], [2, 3]]


def test_a_plan_on_one_device_holds_its_state_and_the_compilers_temporaries():
    plan = planning.make_plan(planning.resolve_abstract(small()))
    count = transformer.count(jax.eval_shape(lambda: transformer.init(plan.run.model, jax.random.key(0))))
    m = plan.memory
    assert m.state["weights"] == 4 * count and m.state["optimiser"] == pytest.approx(8 * count, abs=64)
    assert m.state["reference"] == m.state["critic"] == 0
    assert m.peak == max(m.phases.values()) > sum(m.state.values()) + m.updating["gradients"]
    assert plan.tokens == 4 * 4 * 32 and plan.note == ""
    assert not plan.programs.sample.said and not plan.programs.update.said


def test_moments_in_host_memory_are_counted_there_and_not_on_the_device():
    here, there = (small(), small())
    there.rl.optimizer.offload = True
    plan, other = (planning.make_plan(planning.resolve_abstract(c)).memory for c in (here, there))
    moments = plan.state["optimiser"] - other.state["optimiser"]
    assert (plan.host, other.host) == (0, moments) and 0 < other.state["optimiser"] < 64
    assert other.phases["sample"] == plan.phases["sample"] - moments and other.peak <= plan.peak


def test_knobs_are_turned_until_the_plan_fits_and_only_those_that_help_are_kept():
    plan = planning.make_plan(planning.resolve_abstract(small()))
    again = lambda config: planning.make_plan(planning.resolve_abstract(config))
    wanted = 0.75 * plan.memory.peak
    flags, after = planning.search_settings(small(), plan, wanted, again)
    assert after.memory.peak <= wanted and flags
    assert planning.search_settings(small(), plan, plan.memory.peak, again) == ({}, plan)
    assert "--config." in suggestions.as_flags(flags)


def test_long_programs_are_sized_by_a_straight_line_through_short_ones():
    c = small()
    c.model.layers = 14
    s = planning.resolve_abstract(c)
    (line, note), (exact, whole) = lowering.compile_programs(s), lowering.compile_programs(s, exact=True)
    assert (note, whole) == ("by 2 and 4 layers", "")
    for name in ("sample", "update"):
        assert getattr(line, name).temporary == pytest.approx(getattr(exact, name).temporary, rel=0.1)


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--mesh", "data=0"], "not AXIS=NUMBER"),
        (["--mesh", "rows=2"], "not AXIS=NUMBER"),
        (["--chip", "abacus"], "--chip=abacus: not known"),
        (["--model", "gpt5"], "--model=gpt5: neither a folder"),
        (["--efficiency", "2"], "--efficiency=2.0"),
        (["--mesh", "fsdp=3"], "cannot be split over fsdp=3"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(flags, says):
    done = script("--config", "configs/shop.py", *flags)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and says in done.stderr
    assert done.stderr.count("\n") == 1


def test_weights_on_each_device_of_a_mesh_are_as_computed_by_hand():
    sizes = dict(prompts=4, group_size=2, max_new_tokens=32, micro_batch=4)
    changed = [f"--config.rl.{name}={value}" for name, value in sizes.items()]
    changed += ["--config.model.heads=4", "--config.model.kv_heads=4"]
    done = script(
        "--config", "configs/shop.py", "--mesh", "fsdp=2,tensor=4", "--chip", "v5e", "--json", "yes", *changed
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    c, vocab = shop.get_config().model, tasks.make_task("shop").tokenizer.size
    matrices = 4 * c.width * 4 * c.head_width + 3 * c.width * c.ff_width  # of a layer, split over all eight
    norms = 2 * c.layers * c.width + c.width  # whole everywhere
    tables = 2 * vocab * c.width / (8 if vocab % 4 == 0 else 2)
    assert told["bytes"]["state"]["weights"] == 4 * (c.layers * matrices / 8 + norms + tables)
    assert told["devices"] == 8 and "fits" in done.stdout
    assert told["sent"]["update"]["all-gather"][0] > 0 and told["sent"]["update"]["all-reduce"][0] > 0
    assert told["roofline"]["v5e"]["tokens_per_second"] > 0


def test_a_config_of_a_published_model_needs_no_folder():
    c = qwen25.get_config()
    s = planning.resolve_abstract(c, "qwen25_1.5b")
    assert s.model.layers == 28 and s.model.scan_layers and s.task.prompt_slots == 512
    with pytest.raises(UserError, match="name a model"):
        planning.resolve_abstract(c)


def script(*flags):
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "experiments.plan", *flags]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
