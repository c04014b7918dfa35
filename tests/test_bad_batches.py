"""A step whose gradient is not finite is skipped and counted, and its batch is saved for a person to look at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vmapped_configs import make_config

from experiments import rl, sft
from rljax.errors import UserError
from rljax.learner import policy_update
from rljax.structs import TrainState
from rljax.training import bad_batches
from rljax.training.bad_batches import MAX_FILES, BadBatches
from rljax.training.journal import read_records

LIGHT = {"rl.updates": 1, "rl.widths": (), "rl.top_p": 1.0, "eval.greedy": False, "eval.problems": 2}


def test_the_batches_of_skipped_rl_steps_are_those_of_the_metrics(tmp_path, capsys, monkeypatch):
    """Every gradient from the third step on is NaN."""
    real = policy_update.apply_gradients

    def bad_gradients(state, grads, *given):
        factor = jnp.where(state.step >= 2, jnp.nan, 1.0)
        return real(state, jax.tree.map(lambda g: g * factor, grads), *given)

    monkeypatch.setattr(policy_update, "apply_gradients", bad_gradients)
    config = make_config(**LIGHT, **{"rl.steps": 20, "rl.max_skipped": 12, "rl.eval_every": 100, "rl.log_every": 1})
    with pytest.raises(UserError, match="the gradient was not finite 12 steps in a row"):
        rl.run(config, tmp_path)
    files = sorted((tmp_path / "bad_batches").iterdir())
    assert len(files) == MAX_FILES and all(f.name.startswith("rl_step_0") for f in files)
    records = {r["step"]: r for r in read_records(tmp_path / "metrics.jsonl")}
    for file in files:
        batch, record = np.load(file), records[int(file.stem[-6:])]
        assert batch["parameters_unchanged"] and batch["tokens"].shape == batch["loss_mask"].shape
        assert batch["correct"].mean() == pytest.approx(record["train/reward"])
        assert batch["loss_mask"].sum() == pytest.approx(record["train/response_length/mean"] * len(batch["tokens"]))
    said = capsys.readouterr().out
    assert f"the gradient was not finite, the step is skipped; its batch is in {files[0]}" in said
    assert said.count("its batch is in") == MAX_FILES


@pytest.mark.exhaustive
def test_the_batch_of_a_skipped_supervised_step_is_saved_and_the_run_goes_on(tmp_path, capsys, monkeypatch):
    config = make_config(**LIGHT, **{"sft.start": "", "sft.steps": 6, "sft.eval_every": 6})
    real, calls = sft.make_supervised_step, []

    def one_bad_step(*given):
        update, measure = real(*given)

        def step(state, batch):
            calls.append(batch)
            state, metrics = update(state, batch)
            bad = len(calls) >= 3
            return state, metrics | {"skipped_steps": jnp.int32(bad), "skipped_in_a_row": jnp.int32(len(calls) == 3)}

        return step, measure

    monkeypatch.setattr(sft, "make_supervised_step", one_bad_step)
    sft.run(config, tmp_path)
    (file,) = (tmp_path / "bad_batches").iterdir()
    assert file.name == "sft_step_000003.npz" and str(file) in capsys.readouterr().out
    for name, x in np.load(file).items():
        np.testing.assert_array_equal(x, calls[2][name])


def state():
    return TrainState(step=jnp.int32(0), params={}, opt_state=(), key=jnp.int32(0), cursor=jnp.int32(0))


def test_skips_that_only_search_the_scale_of_float16_are_not_saved_but_those_that_stay_are(tmp_path):
    bad = BadBatches(tmp_path, "rl", state(), lambda state, step: {"tokens": np.arange(3)})
    see = lambda n, row: bad.see(state(), n, {"loss_scale": 1.0, "skipped_steps": n, "skipped_in_a_row": row})
    assert [bool(see(n, row)) for n, row in [(1, 1), (2, 2), (3, 3), (4, 4)]] == [False, False, True, True]


def test_a_batch_that_cannot_be_made_again_is_one_line_and_no_end(tmp_path):
    def fail(state, step):
        raise RuntimeError("out of memory\nand more")

    bad = BadBatches(tmp_path, "rl", state(), fail)
    said = bad.see(state(), 4, {"skipped_steps": 1.0, "skipped_in_a_row": 1.0})
    assert "could not be saved (RuntimeError: out of memory)" in said and "\n" not in said
    assert BadBatches(tmp_path, "rl", state(), None).see(state(), 4, {"skipped_steps": 1.0}) == ""
    late = BadBatches(
        tmp_path, "rl", state(), lambda state, step: {"x": np.zeros(2), "parameters_unchanged": np.array(False)}
    )
    assert "responses of later parameters" in late.see(state(), 5, {"skipped_steps": 1.0})
    assert bad_batches.MIN_SCALED_SKIPS > 1
