"""Adapters: a pure transform of the parameters, and all that the optimizer, the checkpoints and the reference see."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from models import DEEPSEEK, EACH, SMALL, forward, near, params_of, tokens_of

from configs import shop
from experiments import export, rl, sft
from rljax import pretrained, transformer
from rljax.errors import UserError
from rljax.structs import Experience, Rewards
from rljax.training import checkpoint, initial_state, journal
from rljax.training.dynamic_sampling import one_round
from rljax.training.rl_steps import make_steps
from rljax.training.run import resolve
from rljax.training.stage_checkpoints import restore_newest
from rljax.transformer import lora

EVERY = ("query", "key", "value", "out", "gate", "up", "down")
OF = {SMALL: EVERY, DEEPSEEK: ("query_up", "kv_up", "kv_down", "out", "gate", "down")}


def names_of(config):
    return OF.get(config, ("query", "out", "up"))


def moved(adapters):
    """Adapters that do change something."""
    noise = lambda x: 0.1 * np.random.default_rng(x.size).normal(size=x.shape).astype(np.float32)
    return jax.tree.map(lambda x: x + noise(x), adapters)


@EACH
def test_fresh_adapters_change_nothing_and_moved_ones_what_they_add(config):
    params = params_of(config)
    adapters = lora.init_adapters(config, names_of(config), 3, jax.random.key(0))
    base, tokens = lora.Base(params, jnp.float32(2.0)), tokens_of(2, 9)
    plain = forward(params, config, tokens)
    near(forward(lora.policy_params(adapters, base), config, tokens), plain, 1e-5)
    changed = moved(adapters)
    beside, added = (forward(f(changed, base), config, tokens) for f in (lora.policy_params, lora.merge_adapters))
    near(beside, added, 1e-3)
    assert np.abs(beside - plain).max() > 0.05


@pytest.mark.exhaustive
def test_stacked_layers_and_experts_have_an_adapter_each():
    scanned = dataclasses.replace(DEEPSEEK, scan_layers=True)
    adapters = moved(lora.init_adapters(scanned, OF[DEEPSEEK], 2, jax.random.key(0)))
    experts = next(x for path, x in adapters.items() if "experts" in path and "gate" in path)
    assert experts["down"].shape == (1, 6, 16, 2) and experts["up"].shape == (1, 6, 2, 14)
    base = lora.Base(transformer.stack_layers(params_of(DEEPSEEK), scanned), jnp.float32(1.0))
    beside, added = (
        forward(f(adapters, base), scanned, tokens_of(2, 9)) for f in (lora.policy_params, lora.merge_adapters)
    )
    near(beside, added, 1e-3)


def test_only_the_named_matrices_are_adapted():
    adapters = lora.init_adapters(SMALL, ("query", "down"), 4, jax.random.key(0))
    assert {path.split("'")[-2] if "kernel" not in path else path.split("'")[-4] for path in adapters} == {
        "query",
        "down",
    }
    assert len(adapters) == 2 * SMALL.layers
    policy = lora.policy_params(adapters, lora.Base(params_of(SMALL), jnp.float32(1.0)))
    assert isinstance(policy["layers"][0]["query"]["kernel"], transformer.LoraMatrix)
    assert policy["layers"][0]["key"]["kernel"] is params_of(SMALL)["layers"][0]["key"]["kernel"]


def test_a_matrix_that_no_layer_has_is_refused_with_those_it_has():
    with pytest.raises(UserError, match="no layer has a matrix called 'querry', choose from .*'query'"):
        lora.init_adapters(SMALL, ("querry",), 2, jax.random.key(0))


@pytest.mark.parametrize("way", ["bfloat16", "int8"])
def test_quantized_weights_leave_a_low_rank_change_exact(way):
    adapters = moved(lora.init_adapters(SMALL, EVERY, 3, jax.random.key(0)))
    policy = lora.policy_params(adapters, lora.Base(params_of(SMALL), jnp.float32(1.0)))
    light = transformer.quantize_params(policy, SMALL, way)
    kernel = light["layers"][0]["query"]["kernel"]
    assert kernel.up is policy["layers"][0]["query"]["kernel"].up
    assert light["embedding"] is policy["embedding"] and light["layers"][0]["mlp_norm"].dtype == jnp.float32
    stored = kernel.base.values if way == "int8" else kernel.base
    assert str(stored.dtype) == way
    full, small = (forward(p, SMALL, tokens_of(2, 9)) for p in (policy, light))
    assert 1e-5 < np.abs(full - small).max() < 0.2


# ---------------------------------------------------------------------------------------------------------------------
# A run that learns adapters.


def config_of(**rows):
    c = shop.get_config("short")
    c.model.layers, c.model.width = 1, 32
    c.pretrain.steps, c.sft.steps, c.rl.steps = 2, 2, 4
    c.pretrain.batch = c.sft.batch = 4
    c.sft.max_new_tokens, c.sft.widths, c.sft.micro_batch = 94, (), 0
    c.rl.max_new_tokens, c.rl.widths, c.rl.micro_batch = 12, (), 0
    c.eval.problems, c.eval.attempts, c.eval.greedy = 2, 2, False
    c.rl.lora.rank, c.rl.lora.targets = 4, ("query", "value", "gate")
    c.rl.optimizer.warmup, c.rl.updates = 0, 1  # before its only update the policy is the reference: KL is 0
    c.rl.row.entropy = "bonus(coef=0.1)"  # no attempt is right yet: something to learn from
    c.rl.start = "sft"
    c.workers = 0
    c.update_from_flattened_dict(rows)
    return c


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of an SFT stage with whole weights, and of an RL stage with adapters on it that wants numbers."""
    from experiments import pretrain

    folder, c = tmp_path_factory.mktemp("lora"), config_of()
    (folder / "config.json").write_text(json.dumps({"config": json.loads(json.dumps(c.to_dict()))}))
    pretrain.run(c, folder)
    sft.run(c, folder)
    rl.run(c, folder)
    return folder, c


def test_the_optimizer_sees_adapters_alone_and_what_they_hang_on_stays(finished):
    _, c = finished
    c.rl.update_from_flattened_dict({"row.kl": "k3(coef=0.1)"})
    run = resolve(c)
    steps, first = make_steps(run), jnp.int32(0)
    whole = transformer.init(run.model, jax.random.key(0))
    state = initial_state.new_state(run, run.rl, whole)
    c.rl.row.kl = None
    assert set(state.params) == set(state.reference) == set(lora.target_matrices(run.model, ("query", "value", "gate")))
    sizes = {x.size for x in jax.tree.leaves(state.opt_state) if x.ndim}
    assert sizes == {x.size for x in jax.tree.leaves(state.params)}
    problems = steps.ask(state, first)
    rollout, _ = steps.sample(state, problems, first)
    shown = jnp.asarray(np.random.default_rng(0).normal(size=(c.rl.prompts, c.rl.group_size)), jnp.float32)
    experience = Experience(rollout, Rewards(shown, shown[..., None], {}))
    batch, _ = steps.compute_advantages(state, one_round(lambda number: experience))
    before = jax.device_get(state.params)
    state, metrics = steps.update_policy(state, batch)
    jax.tree.map(np.testing.assert_array_equal, state.frozen.params, whole)
    ups = [np.abs(state.params[path]["up"] - before[path]["up"]).max() for path in before]
    assert float(metrics["grad_norm"]) > 0 and min(ups) > 0 and float(metrics["kl"]) == 0


def test_a_stage_with_adapters_keeps_no_copy_of_the_base_and_ends_as_its_merge(finished):
    folder, c = finished
    manager = checkpoint.open_manager(folder / "checkpoints" / "rl")
    args = ocp.args.Composite(sums=ocp.args.JsonRestore())  # the checksum of each array that was written
    held = manager.restore(manager.latest_step(), args=args).sums
    assert len(held["params"]) == 2 * 3 and not any("frozen" in path for path in held["rest"])
    manager.close()
    run = resolve(c)
    start, end = (initial_state.start_params(run, stage, folder) for stage in ("sft", "rl"))
    assert jax.tree.structure(start) == jax.tree.structure(end)
    different = jax.tree.map(lambda a, b: not np.array_equal(a, b), start, end)
    assert not different["embedding"] and not different["layers"][0]["key"]["kernel"]
    assert different["layers"][0]["query"]["kernel"] and different["layers"][0]["gate"]


def test_another_run_starts_from_the_merge(finished):
    folder, c = finished
    run = resolve(config_of(**{"rl.lora.rank": 0}))
    there = initial_state.start_params(run, f"{folder}:rl", "nowhere")
    jax.tree.map(np.testing.assert_array_equal, there, initial_state.start_params(resolve(c), "rl", folder))


def test_a_stopped_run_with_adapters_continues_bit_for_bit(finished, tmp_path):
    folder, c = finished
    for stop in (2, 0):
        arm = config_of(**{"rl.start": f"{folder}:sft"})
        rl.run(arm, tmp_path, stop=stop)
    ours, theirs = (
        [r for r in journal.read_records(f / "metrics.jsonl") if r["stage"] == "rl" and "train/loss" in r]
        for f in (tmp_path, folder)
    )
    assert ours == theirs and len(ours) == 4


@pytest.mark.exhaustive
def test_adapters_do_not_go_on_from_other_weights_than_they_began_with(finished, tmp_path):
    folder, _ = finished
    arm = config_of(**{"rl.start": f"{folder}:sft"})
    rl.run(arm, tmp_path, stop=2)
    arm.rl.start = f"{folder}:pretrain"
    with pytest.raises(UserError, match="its adapters were learned on other weights"):
        rl.run(arm, tmp_path)


@pytest.mark.exhaustive
def test_a_stage_that_goes_on_does_not_hold_what_it_started_from_as_well(finished, tmp_path):
    folder, _ = finished
    arm = config_of(**{"rl.start": f"{folder}:sft", "rl.lora.rank": 0})
    rl.run(arm, tmp_path, stop=2)
    run = resolve(arm)
    params = initial_state.start_params(run, arm.rl.start, tmp_path)
    state = initial_state.new_state(run, run.rl, params)
    manager = checkpoint.open_manager(tmp_path / "checkpoints" / "rl")
    found = restore_newest(manager, state, "rl")
    manager.close()
    assert found[1] == 2 and all(x.is_deleted() for x in jax.tree.leaves((params, state.opt_state)))
    assert not any(x.is_deleted() for x in jax.tree.leaves(found[0]))


def test_every_matrix_but_the_router_is_adapted_where_none_is_named():
    paths = lora.target_matrices(DEEPSEEK, ())
    assert len(paths) > 3 and not any("router" in path or "norm" in path for path in paths)
    assert any("experts" in path for path in paths) and any("kv_up" in path for path in paths)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rl.lora.rank": -1}, "rl.lora.rank=-1: must be at least 0"),
        ({"rl.lora.targets": ("router",)}, "no layer has a matrix called 'router'"),
        ({"rl.optimizer.name": "muon"}, "muon knows whole matrices only"),
        ({"rl.algorithm": "orz_ppo"}, "use rl.critic.trunk=policy"),
        ({"rl.mix_reference": 0.5}, "adapters of two policies cannot be mixed"),
        ({"rl.sampler_weights": "int4"}, "rl.sampler_weights='int4': must be one of"),
        ({"rl.start": "weights"}, "no folder is named: --config.weights=FOLDER"),
        ({"stages": ("sft", "dpo")}, "'dpo' is not a stage"),
        ({"weights": "/nowhere"}, "there is no folder /nowhere"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_runs(changes, message):
    with pytest.raises(UserError, match=message):
        resolve(config_of(**changes))


def test_an_exported_policy_is_the_one_that_was_trained_with_its_adapters(finished, tmp_path):
    """Not the base alone: the folder's logits are those of the base with the trained adapters beside it."""
    folder, c = finished
    run = resolve(c)
    start = initial_state.start_params(run, "sft", folder)
    state = initial_state.new_state(run, run.rl, start)
    manager = checkpoint.open_manager(folder / "checkpoints" / "rl")
    state = restore_newest(manager, state, "rl")[0]
    manager.close()
    export.run(c, folder, "rl", str(tmp_path / "out"), "")
    model, exported, _ = pretrained.load(tmp_path / "out")
    tokens = tokens_of(2, 9)
    trained = forward(lora.policy_params(state.params, state.frozen), run.model, tokens)
    near(forward(exported, model, tokens), trained, 1e-5)
    moved_by = np.abs(trained - forward(state.frozen.params, run.model, tokens)).max()
    assert moved_by > 1e-3, "the adapters do change the policy"


def test_adapters_on_a_base_in_bfloat16_are_merged_in_float32_where_another_dtype_is_exported(
    finished, tmp_path, monkeypatch
):
    folder, c = finished
    exact = {}
    for dtype in ("float32", "bfloat16", None):
        monkeypatch.setattr(transformer.lora, "merge_adapters", on_a_base_in_bfloat16)
        export.run(c, folder, "rl", str(tmp_path / str(dtype)), dtype or "")
        exact[dtype] = jax.tree.leaves(pretrained.load(tmp_path / str(dtype))[1])
    sums, rounded, plain = exact["float32"], exact["bfloat16"], exact[None]
    assert all(x.dtype == jnp.float32 for x in sums)
    assert any((x != x.astype(jnp.bfloat16)).any() for x in sums), "the sums were rounded to the base's dtype"
    for a, b, d in zip(sums, rounded, plain, strict=True):
        np.testing.assert_array_equal(a.astype(jnp.bfloat16), b)
        np.testing.assert_array_equal(b, d)


def on_a_base_in_bfloat16(params, base, dtype=None, merge=lora.merge_adapters):
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), base.params)
    return merge(params, lora.Base(low, base.factor), dtype)
