"""The KL reference: in the dtype of the products it is the same function, and one that never moves is not in checkpoints."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import EACH, params_of, tokens_of
from test_train_step import tiny_config

from experiments import rl
from rljax import transformer
from rljax.errors import UserError
from rljax.learner import UpdateOptions
from rljax.learner.policy_update import refresh_reference
from rljax.learner.reference import copy_reference
from rljax.planning.memory import compute_state_memory
from rljax.structs import TrainState
from rljax.training import checkpoint, initial_state
from rljax.training.run import resolve
from rljax.training.stage_checkpoints import restore_newest

FIXED, MOVING = UpdateOptions(), UpdateOptions(refresh_reference=2)
LOW = {"model.dtype": "bfloat16"}


def dtypes(tree):
    return {str(x.dtype) for x in jax.tree.leaves(tree)}


@EACH
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.exhaustive)])
def test_in_the_dtype_of_the_products_the_reference_gives_the_same_bits(config, dtype):
    model = dataclasses.replace(config, dtype=dtype)
    params, tokens = params_of(config), jnp.asarray(tokens_of(2, 12))
    score = jax.jit(lambda p: transformer.token_logprobs(p, model, tokens, tokens >= 0))
    reference = copy_reference(params, model, FIXED)
    assert dtypes(reference) == {"float32", dtype}  # norms, biases and routers stay
    is_low = lambda x: x.dtype == dtype
    kept = sum(x.size for x in jax.tree.leaves(reference) if not is_low(x))
    assert kept < 0.1 * transformer.count(params)
    for a, b in zip(score(params), score(reference), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_reference_that_moves_or_is_as_short_already_or_holds_adapters_keeps_its_dtypes():
    model = transformer.Config(vocab_size=8, dtype="bfloat16")
    params = transformer.init(model, jax.random.key(0))
    assert dtypes(copy_reference(params, model, MOVING)) == {"float32"}
    assert dtypes(copy_reference(params, model, FIXED, adapters=True)) == {"float32"}
    exact = copy_reference(params, dataclasses.replace(model, dtype="float32"), FIXED)
    jax.tree.map(np.testing.assert_array_equal, exact, params)
    assert dtypes(exact) == {"float32"}
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    assert dtypes(copy_reference(half, dataclasses.replace(model, dtype="float32"), FIXED)) == {"bfloat16"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_small_shares_of_the_policy_add_up_in_a_mixed_reference_whatever_the_dtype_of_the_weights(dtype):
    options = UpdateOptions(refresh_reference=1, mix_reference=0.001)
    params = {"w": jnp.linspace(0.5, 1.0, 64).astype(dtype)}
    reference = copy_reference(params, transformer.Config(vocab_size=8), options)
    zero, learner = jnp.zeros((), jnp.int32), SimpleNamespace(update=options)
    policy = {"w": (params["w"] * 1.02).astype(dtype)}
    state = TrainState(zero, policy, (), jax.random.key(0), zero, reference=reference)
    mix = lambda _, state: refresh_reference(learner, state, zero)
    after = jax.lax.fori_loop(0, 1000, mix, state).reference["w"]
    moved = (after - reference["w"]) / (policy["w"].astype(jnp.float32) - reference["w"])
    np.testing.assert_allclose(moved, 1 - 0.999**1000, atol=0.01)


def test_a_plan_counts_the_reference_in_the_dtype_that_it_is_kept_in():
    memory = lambda **changes: compute_state_memory(resolve(tiny_config(**{"rl.algorithm": "grpo"} | changes)))
    exact, low, moving = memory(), memory(**LOW), memory(**LOW, **{"rl.refresh_reference": 2})
    assert exact["reference"] == exact["weights"] == low["weights"] == moving["reference"]
    assert 0.5 <= low["reference"] / exact["reference"] < 0.51


# Checkpoints


def short(**changes):
    """Two checkpoints of a run whose rewards differ, with a KL term."""
    sizes = {"rl.start": "", "rl.steps": 4, "rl.eval_every": 2, "rl.prompts": 2, "rl.group_size": 4, "rl.updates": 2}
    evaluation = {"eval.problems": 2, "eval.attempts": 2, "eval.greedy": False}
    learning = {"rl.algorithm": "grpo", "rl.reward": "correct + overlong(share=0.9)", "rl.row.kl": "k3(coef=0.1)"}
    return tiny_config(**sizes | evaluation | learning | LOW | changes)


def sums(folder):
    return json.loads((folder / "checkpoints" / "rl" / "4" / "sums" / "metadata").read_text())


def left_behind(folder):
    return sums(folder), (folder / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose reference moves."""
    folder = tmp_path_factory.mktemp("finished")
    rl.run(short(**{"rl.refresh_reference": 3}), folder)
    return folder


def holds_reference(folder):
    return any(path.startswith("['reference']") for path in sums(folder)["rest"])


@pytest.mark.parametrize("refresh", [pytest.param(0, marks=pytest.mark.exhaustive), 3])
def test_a_run_goes_on_with_its_reference_which_is_stored_only_where_it_moves(finished, tmp_path, refresh):
    changes = {"rl.refresh_reference": refresh}
    once = finished
    if not refresh:
        once = tmp_path / "once"
        rl.run(short(**changes), once)
    rl.run(short(**changes), tmp_path / "twice", stop=2)
    rl.run(short(**changes), tmp_path / "twice")
    assert left_behind(once) == left_behind(tmp_path / "twice")
    assert holds_reference(once) == bool(refresh)
    rows = [json.loads(line) for line in (once / "metrics.jsonl").read_text().splitlines()]
    assert any(row.get("train/kl", 0) > 0 for row in rows)


def states(seed=0):
    """(state of a new run, its reference as it was kept before: whole, in float32)."""
    run = resolve(short(seed=seed))
    state = initial_state.new_state(run, run.rl, None)
    return state, jax.tree.map(jnp.copy, state.params)


def save_as_before(folder, state, reference):
    """A checkpoint as older versions wrote it: with the reference, without a fingerprint."""
    manager = checkpoint.open_manager(folder)
    older = state.replace(reference=reference, reference_is_fixed=False, fingerprint=None, step=jnp.int32(3))
    checkpoint.save(manager, 3, older)
    manager.wait_until_finished()
    return manager


def test_an_older_checkpoint_that_holds_the_reference_is_read(tmp_path):
    state, reference = states()
    expected = jax.tree.map(np.asarray, state.reference)
    manager = save_as_before(tmp_path, state, reference)
    found = restore_newest(manager, state, "rl")
    assert found and int(found[0].step) == 3
    jax.tree.map(np.testing.assert_array_equal, found[0].reference, expected)
    assert "reference" not in checkpoint.state_without_params(found[0])
    manager.close()


def test_a_run_does_not_go_on_with_another_reference_than_it_began_with(tmp_path):
    manager = save_as_before(tmp_path, *states())
    with pytest.raises(UserError, match="rl: its policy and its KL reference began with other weights") as error:
        restore_newest(manager, states(seed=1)[0], "rl")
    assert "\n" not in str(error.value)
    manager.close()


def test_a_checkpoint_with_other_parts_is_refused_with_the_part_that_is_missing(tmp_path):
    state, reference = states()
    manager = save_as_before(tmp_path, state, reference)
    with pytest.raises(
        UserError, match=r"it lacks rest\['entropy_coef'\]: other settings or an older version"
    ) as error:
        checkpoint.restore(manager, state.replace(entropy_coef=jnp.zeros(())))
    assert "\n" not in str(error.value)
    manager.close()


@pytest.mark.exhaustive
def test_a_run_whose_start_is_gone_says_so_in_one_line(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "start")
    config = short(**{"rl.start": f"{tmp_path / 'start'}:rl"})
    rl.run(config, tmp_path / "run", stop=2)
    shutil.rmtree(tmp_path / "start")
    with pytest.raises(UserError, match=f"{tmp_path / 'start'}: stage 'rl' has not run") as error:
        rl.run(config, tmp_path / "run")
    assert "\n" not in str(error.value)
