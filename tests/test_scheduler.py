"""How an ablation's runs are computed: which form is chosen, what a group is, and what is left of one that is stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from vmapped_configs import config_of, generous

from experiments import ablate, reproduce
from rljax import ablation
from rljax.ablation import Ablation, process_pool, scheduler, vmapped
from rljax.errors import UserError
from rljax.tasks import shop

ARMS = {"a": (), "rate": ("rl.optimizer.learning_rate=3e-3",), "G=8": ("rl.group_size=8",)}


def runs_in(workdir, arms=ARMS, seeds=(0, 1), **changes):
    return ablation.runs_of(Ablation(arms=arms), config_of(**changes), seeds, workdir, workdir / "starts")


@pytest.mark.parametrize("backend, form", [("cpu", "processes"), ("gpu", "together"), ("tpu", "together")])
def test_the_form_is_chosen_by_the_device(backend, form, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert scheduler.choose_form("auto") == form and scheduler.choose_form("together") == "together"
    with pytest.raises(UserError, match="choose from auto, processes, together"):
        scheduler.choose_form("threads")
    if backend != "cpu":
        with pytest.raises(UserError, match=f"one process holds a {backend}"):
            scheduler.choose_form("processes")


def labels(groups):
    return [[r.label for r in group] for group in groups]


def test_runs_that_differ_in_numbers_are_a_group_and_no_larger_than_asked(tmp_path):
    runs = runs_in(tmp_path)
    alike = ["a, seed 0", "rate, seed 0", "a, seed 1", "rate, seed 1"]
    assert labels(scheduler.groups_of(runs, "rl", 0)) == [alike, ["G=8, seed 0", "G=8, seed 1"]]
    assert labels(scheduler.groups_of(runs, "rl", 3)) == [alike[:3], alike[3:], ["G=8, seed 0", "G=8, seed 1"]]
    assert max(map(len, scheduler.groups_of(runs, "sft", 0))) == 1, "only RL has a form for many"


def test_a_run_that_cannot_be_beside_others_is_by_itself_and_it_is_said_why(tmp_path, capsys):
    runs = runs_in(tmp_path, {"a": ()}, **{"rl.reward": "correct + 0.5*format"})
    assert labels(scheduler.groups_of(runs, "rl", 0)) == [["a, seed 0"], ["a, seed 1"]]
    assert "a, seed 0 and 1 more: task 'shop'" in capsys.readouterr().out


@pytest.fixture
def recorded(monkeypatch):
    """Runs that only write down that they ran; "stop" in the list makes a group stop after its first checkpoint."""
    done = []

    def leave(config, folder):
        (Path(folder) / "checkpoints" / "rl" / str(config.rl.steps)).mkdir(parents=True)

    def alone(config, folder):
        done.append([config.seed])
        leave(config, folder)

    def many(make_train_step, configs, folders, group):
        vmapped.check_members(group, folders)
        if "stop" in done:
            done.remove("stop")
            (group / "checkpoints" / "rl" / "1").mkdir(parents=True)
            raise KeyboardInterrupt
        done.append([c.seed for c in configs])
        for config, folder in zip(configs, folders, strict=True):
            leave(config, folder)

    monkeypatch.setitem(reproduce.STAGES, "rl", alone)
    monkeypatch.setattr(vmapped, "train_together", many)
    return done


def test_every_run_is_done_once_alike_ones_together(recorded, tmp_path):
    runs = runs_in(tmp_path, {"a": (), "G=8": ("rl.group_size=8",)})
    scheduler.run_as_programs(ablate.EXPERIMENTS, runs[:3], "rl", tmp_path, 0)
    assert recorded == [[0, 1], [0]] and not any((tmp_path / "together").iterdir())
    scheduler.run_as_programs(ablate.EXPERIMENTS, runs, "rl", tmp_path, 0)
    assert recorded == [[0, 1], [0], [1]]


def test_a_stopped_group_goes_on_as_it_was_also_where_more_is_asked_for(recorded, tmp_path):
    recorded.append("stop")
    with pytest.raises(KeyboardInterrupt):
        scheduler.run_as_programs(ablate.EXPERIMENTS, runs_in(tmp_path, {"a": ()}), "rl", tmp_path, 0)
    assert recorded == []
    with pytest.raises(UserError, match=r"was stopped, and \S+seed_1 is one of its runs: ask for that too, or remove"):
        scheduler.run_as_programs(ablate.EXPERIMENTS, runs_in(tmp_path, {"a": ()}, seeds=[0]), "rl", tmp_path, 0)
    scheduler.run_as_programs(ablate.EXPERIMENTS, runs_in(tmp_path, {"a": ()}, seeds=[0, 1, 2, 3]), "rl", tmp_path, 0)
    assert recorded == [[0, 1], [2, 3]] and not any((tmp_path / "together").iterdir())


def test_a_group_that_fails_does_not_keep_others_from_running(recorded, tmp_path, monkeypatch):
    def fails(config, folder):
        raise UserError("no luck")

    monkeypatch.setitem(reproduce.STAGES, "rl", fails)
    runs = [*runs_in(tmp_path, {"G=8": ("rl.group_size=8",)}, seeds=[0]), *runs_in(tmp_path, {"a": ()})]
    with pytest.raises(UserError, match="1 of 2 runs failed, the first: no luck; the others are kept"):
        scheduler.run_as_programs(ablate.EXPERIMENTS, runs, "rl", tmp_path, 0)
    assert recorded == [[0, 1]]


def test_programs_leave_what_processes_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(shop, "score", generous)
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        runs = runs_in(tmp_path, {"a": (), "rate": ("rl.optimizer.learning_rate=3e-3",)}, seeds=[3])
        scheduler.run_as_programs(ablate.EXPERIMENTS, runs, "rl", tmp_path, 0)
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    lines = [ablation.line_of(r.folder, "rl", r.arm, r.seed, r.changes) for r in runs]
    assert [(x["arm"], x["steps"]) for x in lines] == [("a", [0, 2, 3]), ("rate", [0, 2, 3])]
    assert all((r.folder / "samples" / "rl_step_000003.jsonl").exists() for r in runs)


SETTINGS = {
    "rl.start": "",
    "rl.steps": 9999,
    "rl.max_new_tokens": 8,
    "rl.widths": "(4,)",
    "rl.eval_every": 9999,
    "model.layers": 1,
    "checkpoint.keep_best": 0,
    "workers": 0,
}


def test_a_terminated_ablation_stops_its_runs_which_save(tmp_path):
    command = [sys.executable, "-m", "experiments.ablate", "--config=configs/shop.py:short", f"--workdir={tmp_path}"]
    command += ["--seeds=1", "--processes=1", *(f"--config.{k}={v}" for k, v in SETTINGS.items())]
    run = tmp_path / "default" / "seed_0"
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True) as process:
        try:
            for _ in range(1200):
                if (run / "metrics.jsonl").exists() and "train/" in (run / "metrics.jsonl").read_text():
                    break
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 130
        finally:
            process.kill()
        assert "the same command continues" in process.stderr.read()
    assert "stopped at step" in (run / "log.txt").read_text()
    assert any((run / "checkpoints" / "rl").glob("[1-9]*"))


def test_a_start_is_made_once_for_all_that_begin_from_it(tmp_path):
    def made(start, config):
        for stage in config.stages:
            (start / "checkpoints" / stage / str(config[stage].steps)).mkdir(parents=True)

    runs = runs_in(tmp_path, **{"rl.start": "sft"})
    first, second = scheduler.missing_starts(runs)
    assert (first.seed, second.seed) == (0, 1)
    made(first.start, first.start_config)
    assert [r.seed for r in scheduler.missing_starts(runs)] == [1]


def test_a_termination_is_an_interrupt_while_runs_are_waited_for():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), process_pool.sigterm_as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) == before
