"""Which checkpoint of a stage is read: the one that is named, or an error; never another one in its place."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.errors import UserError
from rljax.structs import TrainState
from rljax.training import checkpoint
from rljax.training.initial_state import at_step, parse_start
from rljax.training.stage_checkpoints import load_params


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Checkpoints of the steps 4, 8 and 12, whose one parameter is the step; the best was step 8."""
    folder = tmp_path_factory.mktemp("run")
    manager = checkpoint.open_manager(folder / "checkpoints" / "rl")
    zero = jnp.zeros((), jnp.int32)
    for step in (4, 8, 12):
        params = {"w": jnp.full(3, float(step))}
        state = TrainState(step=zero + step, params=params, opt_state=(), key=jax.random.key(0), cursor=zero)
        checkpoint.save(manager, step, state)
    manager.wait_until_finished()
    manager.close()
    rows = [{"stage": "rl", "step": s, "eval/pass@1": x} for s, x in ((4, 0.1), (8, 0.9), (12, 0.5))]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def load(workdir, steps, step):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = {"w": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=one)}
    return np.asarray(load_params(workdir, "rl", steps, like, step)["w"])[0]


@pytest.mark.parametrize("step, found", [("", 12), ("last", 12), ("best", 8), ("4", 4), ("8", 8)])
def test_the_checkpoint_that_is_named_is_the_one_that_is_read(workdir, step, found):
    assert load(workdir, 12, step) == found


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(workdir):
    with pytest.raises(UserError, match="keeps no checkpoint of step 6, only of 4, 8, 12"):
        load(workdir, 12, "6")


def test_the_last_checkpoint_of_an_unfinished_stage_is_only_read_where_it_is_asked_for(workdir):
    with pytest.raises(UserError, match="stopped at step 12 of 20.*--step last"):
        load(workdir, 20, "")
    assert load(workdir, 20, "last") == 12


def test_a_start_names_a_run_a_stage_and_a_step():
    assert parse_start("runs/a:sft@8") == ("runs/a", "sft", "8") and parse_start(at_step("rl", "best")) == (
        "",
        "rl",
        "best",
    )
    assert parse_start("weights") == ("", "weights", "") and at_step("rl", "") == "rl"
    for wrong in ("runs/a:dpo", "rl@soon"):
        with pytest.raises(UserError, match="start="):
            parse_start(wrong)
