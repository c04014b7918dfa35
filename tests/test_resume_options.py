"""Exact state under every option: a run that is killed and interrupted again and again ends as one that was never disturbed.

Kills are exceptions at chosen points here, so that one compiled train step serves all runs of an option. ``test_resume`` kills
whole processes, ``test_sharding`` stops a run that samples one step ahead, ``test_processes`` a run of several processes.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from test_train_step import generous, tiny_config

from experiments import rl
from rljax import evaluation, transformer
from rljax.ablation import vmap_groups, vmapped
from rljax.training import checkpoint_saver, initial_state, journal, loop
from rljax.training.rl_steps import compile_train_step, is_hosted
from rljax.training.run import resolve
from rljax.training.schema import CheckpointOptions
from rljax.training.signals import Interrupted
from tests import exhaustive

STEPS = 6
SIZES = {"rl.start": "", "rl.steps": STEPS, "rl.eval_every": 2, "rl.log_every": 1, "rl.prompts": 2, "rl.group_size": 4}
REWARDS = {"rl.reward": "correct + overlong(share=0.9)"}  # an untrained model is never right, but its lengths differ
OPTIONS = {  # what goes together is one program: each of its parts has state of its own in the checkpoint
    "critic, asked again, curriculum, sampling mask, moving reference, adaptive entropy, two updates": {
        **{"rl.algorithm": "orz_ppo", "rl.row.groups": "refill(rounds=2)", "rl.updates": 2},
        **{"task.options.fewest": 3, "rl.levels.rise": 4, "rl.top_p": 0.9, "rl.keep_sampling_mask": True},
        **{"rl.row.kl": "k3(coef=0.1)", "rl.refresh_reference": 3, "rl.mix_reference": 0.5},
        "rl.row.entropy": "adaptive(target=2.0)",
    },
    "adapters": {"rl.lora.rank": 2, "rl.algorithm": "grpo"},
    "verifier in workers, loss scale": {
        **{"rl.reward": "correct + overlong(share=0.9) + 0.5*format", "workers": 1},
        **{"model.dtype": "float16", "model.weight_dtype": "float16"},
    },
    "two vmapped runs": {},
}
POINTS = ("in step 1", "after the records of step 3", "before the save of step 4", "asked to stop in step 5")


class Killed(BaseException):
    """Nothing after this instant happens."""


def evaluate(params):
    """A number of the parameters, instead of the evaluation, whose problems and noise depend on no state."""
    return {"eval/loss": float(np.asarray(jax.tree.leaves(params)[0], np.float64).mean())}, []


class Trained:
    """One option: its train step, compiled once, and the runs with it."""

    def __init__(self, name):
        self.name, self.vmapped = name, name == "two vmapped runs"
        changes = SIZES | REWARDS | OPTIONS[name]
        config = tiny_config()
        with config.unlocked():
            config.update_from_flattened_dict(changes)
        self.configs = [config]
        if self.vmapped:
            self.configs = [tiny_config(**changes, seed=seed) for seed in (0, 1)]
        self.runs = [resolve(config, "rl") for config in self.configs]
        if "sampling" in name:  # groups must differ in what is right, or none is mixed
            self.runs = [dataclasses.replace(run, task=generous(run.task)) for run in self.runs]
        assert is_hosted(self.runs[0]) == ("workers" in name)
        if self.vmapped:
            self.mesh = vmapped.make_run_mesh(2, jax.devices()[:1])
            numbers = vmap_groups.stack_numbers(self.configs)[1]
            run = vmapped.with_run_axis(self.runs[0])
            self.train_step = vmapped.vmap_train_step(rl.make_train_step, run, numbers, self.mesh)
        else:
            self.train_step = compile_train_step(rl.make_train_step, self.runs[0])
        self.start = self.make_state()

    def new_state(self):
        return jax.tree.map(lambda x: x.copy(), self.start)

    def make_state(self):
        params = lambda run: transformer.init(run.model, jax.random.key(3)) if run.rl.lora.rank else None
        states = [initial_state.new_state(run, run.rl, params(run)) for run in self.runs]
        if not self.vmapped:
            return states[0]
        where = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec(vmapped.DEVICE_AXIS))
        return jax.device_put(evaluation.stack_runs(states), where)

    def train(self, folder, in_step=lambda step: None):
        def step(state):
            in_step(int(np.max(state.step)) + 1)
            return self.train_step(state)

        run = self.runs[0]
        settings = dict(loop=run.rl.loop, keep=CheckpointOptions(), score="-eval/loss", loggers=())
        each = [folder / str(r) for r in range(len(self.runs))]
        of_all = lambda params: [evaluate(jax.tree.map(lambda x, r=r: x[r], params)) for r in range(len(self.runs))]
        if self.vmapped:
            return loop.train_runs("rl", self.new_state(), step, of_all, workdir=folder, runs=each, **settings)
        return loop.train("rl", self.new_state(), step, evaluate, workdir=folder, **settings)


def left_behind(folder: Path):
    files = sorted([*folder.rglob("metrics.jsonl"), *folder.rglob("sums/metadata"), *folder.rglob("manifest/metadata")])
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("option", exhaustive.cases(OPTIONS, lambda option: "critic" not in option))
def test_a_run_that_is_killed_and_interrupted_ends_as_one_that_was_never_disturbed(option, tmp_path, monkeypatch):
    trained = Trained(option)
    trained.train(tmp_path / "once")
    expected = left_behind(tmp_path / "once")
    for point in POINTS:
        with monkeypatch.context() as patch, pytest.raises((Killed, Interrupted)):
            disturb(trained, tmp_path / "again", point, patch)
    trained.train(tmp_path / "again")
    found = left_behind(tmp_path / "again")
    assert found.keys() == expected.keys() and len(found) >= 5, list(found)
    assert [name for name in expected if found[name] != expected[name]] == []
    records = [json.loads(line) for name in found if "metrics" in name for line in found[name].splitlines()]
    assert any(r.get("train/grad_norm", 0) > 0 for r in records), "something was learned"


def disturb(trained, folder, point, patch):
    """Run until ``point``, where the run is killed or asked to stop."""
    requests, save, write = loop.stop_requests, checkpoint_saver.Saver.save, journal.Journal.write_metrics
    step_of = int(point.split()[-1])

    def in_step(step):
        if point.startswith("in step") and step == step_of:
            raise Killed
        if point.startswith("asked") and step == step_of:
            with requests() as asked:
                asked.asked.set()

    def killed_at_save(saver, step, *args, **about):
        if point.startswith("before the save") and step == step_of:
            raise Killed
        return save(saver, step, *args, **about)

    def killed_after_records(log, step, *args, **more):
        write(log, step, *args, **more)
        if point.startswith("after the records") and step == step_of:
            raise Killed

    patch.setattr(checkpoint_saver.Saver, "save", killed_at_save)
    patch.setattr(journal.Journal, "write_metrics", killed_after_records)
    with requests():
        trained.train(folder, in_step)
