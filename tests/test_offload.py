"""Moments in host memory: the same bytes as on the devices, and they really lie there between updates."""

import json
from pathlib import Path

import jax
import pytest
import simulated
from offload_run import after_three_updates, after_two_train_steps, configured, kinds, moments, same_bytes

from experiments import rl
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.learner.optimizer import OptimizerOptions
from rljax.training import checkpoint, journal
from rljax.training.run import resolve


@pytest.mark.exhaustive
def test_a_compiled_train_step_of_two_updates_leaves_the_same_bytes_a_critic_included():
    here, there = (
        after_two_train_steps(configured(offload, **{"rl.algorithm": "orz_ppo"})) for offload in (False, True)
    )
    assert same_bytes(here, there)
    assert kinds(moments(here)) == kinds(there.params) == ["device"] and kinds(moments(there)) == ["pinned_host"]
    scalars = [x for x in jax.tree.leaves(there.opt_state) if not x.ndim]
    assert scalars and kinds(scalars) == ["device"]


@pytest.mark.parametrize("name, dtype, rank", [("muon", "", 0), ("adamw", "bfloat16", 2)])
def test_supervised_updates_leave_the_same_bytes_with_every_optimizer_that_has_moments(name, dtype, rank):
    of = {"pretrain.optimizer.name": name, "pretrain.optimizer.moment_dtype": dtype, "pretrain.lora.rank": rank}
    here, there = (after_three_updates(configured(offload, **of)) for offload in (False, True))
    assert same_bytes(here, there)
    assert kinds(moments(here)) == ["device"] and kinds(moments(there)) == ["pinned_host"]


def left_behind(folder: Path) -> tuple:
    """(metrics of every train step, checksums of everything in the last checkpoint)."""
    manager = checkpoint.open_manager(folder / "checkpoints" / "rl")
    sums = (Path(manager.directory) / str(manager.latest_step()) / "sums" / "metadata").read_text()
    manager.close()
    return [r for r in journal.read_records(folder / "metrics.jsonl") if "train/loss" in r], json.loads(sums)


@pytest.mark.exhaustive
def test_a_run_goes_on_with_moments_elsewhere_and_leaves_the_same_bytes(tmp_path):
    """From the devices to the host's memory, and back."""
    rl.run(configured(False), tmp_path / "once")
    rl.run(configured(False), tmp_path / "moved", stop=1)
    rl.run(configured(True), tmp_path / "moved", stop=2)
    rl.run(configured(False), tmp_path / "moved")
    assert left_behind(tmp_path / "moved") == left_behind(tmp_path / "once")


@pytest.mark.exhaustive  # the tests above move them on one device
def test_split_over_devices_moments_keep_their_layout_in_host_memory():
    found = simulated.on_devices(4, "offload_run.py")
    assert found["same bytes"] == [True] * 3  # with it; read back from a checkpoint, to there and from there
    assert found["moments"] == [["device"], ["pinned_host"], ["pinned_host"], ["device"]]
    assert found["weights"] == ["device"] and found["same parts"] and found["split"]


def test_where_devices_know_no_such_memory_it_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(sharding, "HOST_MEMORY", "elsewhere")
    with pytest.raises(UserError, match="optimizer.offload: devices of the platform 'cpu' know no memory elsewhere"):
        resolve(configured(True), "rl")
    resolve(configured(False), "rl")


def test_an_optimizer_without_moments_has_nothing_to_offload():
    with pytest.raises(UserError, match="name='sgd': it has no moments"):
        OptimizerOptions(name="sgd", offload=True).check("rl.optimizer.")
