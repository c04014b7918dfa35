"""The planner: its tables of chips and models, and its numbers beside hand computation and beside the compiler's."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tiny_folder
from models import DEEPSEEK, EVERYTHING, SMALL

from configs import qwen25, shop, smollm2
from experiments import plan as script
from rljax import planning, tasks, transformer
from rljax.errors import UserError
from rljax.planning import abstract_run, collectives, lowering, operations, table

BILLIONS = {  # of parameters, as their publishers or transformers count them
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


def small_config(**changes):
    c = shop.get_config()
    c.model.layers = 1
    sizes = dict(prompts=4, group_size=4, max_new_tokens=32, micro_batch=8, widths=(), updates=1)
    c.rl.update(sizes | changes)
    c.eval.attempts = 4  # an evaluation is the program that samples
    return c


@functools.cache
def small_plan():
    return planning.make_plan(planning.resolve_abstract(small_config()))


@pytest.mark.parametrize("name", planning.PUBLISHED_MODELS)
def test_published_models_have_the_published_number_of_parameters(name):
    specs = transformer.weight_specs(planning.PUBLISHED_MODELS[name])
    leaves = jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, transformer.WeightSpec))
    count = sum(jnp.prod(jnp.asarray(w.shape, jnp.float32)) for w in leaves)
    assert float(count) / 1e9 == pytest.approx(BILLIONS[name], rel=1e-3)


def test_an_unknown_chip_is_refused_with_the_list_of_chips():
    assert planning.get_chip("H100").memory == 80e9
    with pytest.raises(UserError, match="v5e, v5p, v6e, a100, h100, h200"):
        planning.get_chip("abacus")


@pytest.mark.parametrize("config", [SMALL, EVERYTHING, DEEPSEEK], ids=["small", "everything", "deepseek"])
def test_counted_flops_of_a_forward_pass_equal_the_compilers_count(config):
    if config.experts:  # a CPU computes every expert for every token
        config = transformer.Config(**{f: getattr(config, f) for f in ("vocab_size", *LATENT)}, layers=2)
    wide = dataclasses.replace(config, width=128, ff_width=512, vocab_size=1024)
    params = jax.eval_shape(lambda: transformer.init(wide, jax.random.key(0)))
    tokens = jax.ShapeDtypeStruct((4, 64), jnp.int32)
    cost = jax.jit(lambda p, t: transformer.forward(p, wide, t)).lower(params, tokens).cost_analysis()
    assert operations.forward_flops(wide, 4, 64, 64) == pytest.approx(cost["flops"], rel=0.05)


def test_active_parameters_include_only_the_experts_that_a_token_is_routed_to():
    model = planning.PUBLISHED_MODELS["deepseek_v3_671b"]
    tables = 2 * operations.unembedding_parameters(model)  # the embedding and the unembedding
    active, total = (operations.matrix_parameters(model, active_only) + tables for active_only in (True, False))
    assert active / 1e9 == pytest.approx(37.5, rel=0.02)  # the published 37 billion count one of the two tables
    assert total / 1e9 == pytest.approx(671.0, rel=1e-3)


HLO_TEXT = """HloModule jit_f

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %sum = f32[8]{0} all-reduce(%x), channel_id=1, replica_groups=[4,2]<=[2,4]T(1,0), use_global_device_ids=true, to_apply=%add
  %gathered = (f32[2]{0}, bf16[4]{0}) all-gather(%a, %b), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %w.1 = (s32[], f32[8]{0}) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}

ENTRY %main (a: f32[8], /*index=1*/b: f32[8]) -> f32[8] {
  %w.2 = (s32[], f32[8]{0}) while(%t), condition=%cond, body=%outer
  %whole = f32[16]{0} all-gather(%a), replica_groups=mesh['a'=2,'b'=4], device_ids=([8]) {'b'}, dimensions={0}
}
"""


def test_a_collective_is_counted_once_for_each_iteration_of_the_loops_around_it():
    found = {(c.kind, c.size): c for c in collectives.parse_collectives(HLO_TEXT, (10.0,))}
    reduced, gathered = found["all-reduce", 32], found["all-gather", 64]
    gathered_in_loop = found["all-gather", 16]
    assert (reduced.count, reduced.group_size, reduced.span, reduced.bytes_sent) == (30, 2, 8, 32)
    assert (gathered_in_loop.count, gathered_in_loop.group_size, gathered_in_loop.span) == (30, 4, 4)
    assert (gathered.count, gathered.group_size, gathered.span, gathered.bytes_sent) == (1, 4, 4, 48)


def test_replica_groups_are_parsed_in_each_form_that_xla_writes():
    groups = lambda text: collectives.parse_replica_groups(f"x), replica_groups={text}, more").tolist()
    assert (
        groups("{{0,2},{1,3}}") == groups("[2,2]<=[2,2]T(1,0)") == groups("mesh['a'=2,'b'=2] {'a'}") == [[0, 2], [1, 3]]
    )
    assert groups("mesh['a'=2,'b'=4] {'b':(2)2}") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert groups("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}") == [[0, 1], [2, 3]]


def test_a_plan_for_one_device_counts_the_state_and_the_temporaries_of_the_compiler():
    plan = small_plan()
    count = transformer.count(jax.eval_shape(lambda: transformer.init(plan.run.model, jax.random.key(0))))
    m = plan.memory
    assert m.state["weights"] == 4 * count and m.state["optimizer"] == pytest.approx(8 * count, abs=64)
    assert m.state["reference"] == m.state["critic"] == 0
    assert m.peak == max(m.phases.values()) > sum(m.state.values()) + m.updating["gradients"]
    assert plan.sampled_tokens == 4 * 4 * 32 and plan.note == ""
    assert not plan.programs.sample.collectives and not plan.programs.update.collectives


def test_moments_in_host_memory_are_counted_there_and_not_on_the_device():
    offloaded = small_config()
    offloaded.rl.optimizer.offload = True
    without, with_offload = small_plan().memory, planning.make_plan(planning.resolve_abstract(offloaded)).memory
    moments = without.state["optimizer"] - with_offload.state["optimizer"]
    assert (without.host, with_offload.host) == (0, moments) and 0 < with_offload.state["optimizer"] < 64
    assert with_offload.phases["sample"] == without.phases["sample"] - moments and with_offload.peak <= without.peak


@pytest.mark.exhaustive
def test_settings_are_changed_until_the_plan_fits_and_only_changes_that_help_are_kept():
    plan = small_plan()
    make_plan = lambda config: planning.make_plan(planning.resolve_abstract(config))
    limit = 0.75 * plan.memory.peak
    settings, after = planning.search_settings(small_config(), plan, limit, make_plan)
    assert after.memory.peak <= limit and settings
    assert planning.search_settings(small_config(), plan, plan.memory.peak, make_plan) == ({}, plan)
    assert "--config." in planning.format_flags(settings)


@pytest.mark.exhaustive
def test_the_memory_of_a_long_program_is_extrapolated_from_two_short_ones(monkeypatch):
    monkeypatch.setattr(lowering, "MAX_COMPILED_LAYERS", 7)
    c = small_config()
    c.model.layers = 8
    run = planning.resolve_abstract(c)
    (extrapolated, note), (exact, exact_note) = (lowering.compile_programs(run, exact) for exact in (False, True))
    assert (note, exact_note) == ("extrapolated from 2 and 4 layers", "")
    for name in ("sample", "update"):
        assert getattr(extrapolated, name).temporary == pytest.approx(getattr(exact, name).temporary, rel=0.1)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--mesh", "data=0"], "not AXIS=NUMBER"),
        (["--mesh", "rows=2"], "not AXIS=NUMBER"),
        (["--chip", "abacus"], "--chip=abacus: not known"),
        (["--efficiency", "2"], "--efficiency=2.0"),
    ],
)
def test_a_config_that_cannot_be_planned_is_refused_in_one_line(flags, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["plan", "--config", "configs/shop.py", *flags])
    with pytest.raises(SystemExit) as e:
        script.main()
    assert e.value.code == 1
    assert_one_line(capsys.readouterr().err, message)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--model", "gpt5"], "--model=gpt5: neither a folder"),
        (["--mesh", "fsdp=3"], "cannot be split over fsdp=3"),
    ],
)
def test_what_cannot_be_planned_on_these_devices_is_refused_in_one_line(flags, message):
    done = run_script("--config", "configs/shop.py", *flags)
    assert done.returncode == 1
    assert_one_line(done.stderr, message)


def assert_one_line(said, message):
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


@pytest.mark.exhaustive
def test_weights_on_each_device_of_a_mesh_are_as_computed_by_hand():
    sizes = dict(prompts=4, group_size=2, max_new_tokens=32, micro_batch=4)
    changed = [f"--config.rl.{name}={value}" for name, value in sizes.items()]
    changed += ["--config.model.heads=4", "--config.model.kv_heads=4"]
    done = run_script(
        "--config", "configs/shop.py", "--mesh", "fsdp=2,tensor=4", "--chip", "v5e", "--json", "yes", *changed
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    c, vocab = shop.get_config().model, tasks.make_task("shop").tokenizer.size
    matrices = 4 * c.width * 4 * c.head_width + 3 * c.width * c.ff_width  # of a layer, sharded over all eight devices
    norms = 2 * c.layers * c.width + c.width  # replicated
    tables = 2 * vocab * c.width / (8 if vocab % 4 == 0 else 2)
    assert printed["bytes"]["state"]["weights"] == 4 * (c.layers * matrices / 8 + norms + tables)
    assert printed["devices"] == 8 and "fits" in done.stdout
    assert printed["sent"]["update"]["all-gather"][0] > 0 and printed["sent"]["update"]["all-reduce"][0] > 0
    assert printed["roofline"]["v5e"]["tokens_per_second"] > 0


def test_a_published_model_is_planned_without_its_folder():
    c = qwen25.get_config()
    run = planning.resolve_abstract(c, "qwen25_1.5b")
    assert run.model.layers == 28 and run.model.scan_layers and run.task.prompt_slots == 512
    with pytest.raises(UserError, match="name a model"):
        planning.resolve_abstract(c)


def run_script(*flags):
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "experiments.plan", *flags]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.exhaustive
def test_a_plan_counts_evaluation_and_restoring_and_names_the_phase_that_needs_the_most_memory():
    c = small_config()
    c.eval.update(dict(problems=64, attempts=4))
    make = lambda: planning.make_plan(planning.resolve_abstract(c))
    as_rollout = make()
    assert list(as_rollout.memory.phases) == ["sample", "advantages", "update", "evaluate", "restore"]
    assert as_rollout.programs.evaluate is as_rollout.programs.sample, "the same rows, the same program"
    assert as_rollout.programs.evaluate_greedy is not None, "more prompts at once, each with one row"
    c.eval.greedy = False
    without = make()
    assert without.programs.evaluate_greedy is None
    assert without.memory.phases["evaluate"] < as_rollout.memory.phases["evaluate"]
    c.eval.update(dict(greedy=True, rows=256))
    many = make()
    assert many.memory.phases["evaluate"] > 2 * as_rollout.memory.phases["sample"]
    assert many.memory.largest_phase == "evaluate" and "in evaluate, of " in planning.format_memory(many, "h100")[-1]
    state = sum(many.memory.state.values())
    assert state < many.memory.phases["restore"] < 2 * state
    settings, after = planning.search_settings(
        c, many, 0.5 * many.memory.peak, lambda config: planning.make_plan(planning.resolve_abstract(config))
    )
    assert settings["eval.rows"] < 256 and after.memory.peak <= 0.5 * many.memory.peak


@pytest.mark.exhaustive
def test_a_plan_says_how_many_columns_are_computed_for_each_real_token():
    plan = planning.make_plan(planning.resolve_abstract(small_config(widths=(8, 16), packing=0)))
    assert plan.prompt_lengths is not None
    rates = table.columns_per_token(plan, plan.prompt_lengths)
    slots = plan.run.task.prompt_slots  # problems of shop fill them all
    assert rates == pytest.approx(dict(prompt=1.0, longest=1.0, eighth=(slots + 8) / (slots + 4)))
    assert table.format_padding(plan)[0].startswith(f"padding: prompts of {slots} tokens on average")
    unknown = planning.resolve_abstract(qwen25.get_config(), "qwen25_0.5b")
    assert unknown.task.prompt_lengths is None and unknown.rl.micro_batching.widths == (512 + 128, 512 + 256)


def test_prompts_of_data_that_is_at_hand_are_measured_with_the_folders_tokenizer(tmp_path):
    (tmp_path / "own.jsonl").write_text(
        "".join(json.dumps({"question": f"What is {n} and one?", "answer": n + 1}) + "\n" for n in range(60))
    )
    config = qwen25.get_config(f"data={tmp_path}/own.jsonl")
    config.task.options.update(decontaminate=0, template="plain", own_data_dir=str(tmp_path / "prepared"))
    assert abstract_run.data_is_at_hand(config) and not abstract_run.data_is_at_hand(qwen25.get_config())
    assert abstract_run.data_is_at_hand(smollm2.get_config()), "a world needs no data"
    run = planning.resolve_abstract(config, str(tiny_folder.make(tmp_path / "model", max_length=1024)))
    assert 0 < run.task.prompt_lengths.max() <= run.task.prompt_slots < 64
