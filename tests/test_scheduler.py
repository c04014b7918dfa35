"""How the runs of an ablation are computed: the choice of the form, the groups, and groups that were stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from vmapped_configs import make_config, score_first_number

from experiments import ablate, reproduce
from rljax import ablation
from rljax.ablation import Ablation, process_pool, scheduler, vmapped
from rljax.errors import UserError
from rljax.tasks import shop

ARMS = {"a": (), "rate": ("rl.optimizer.learning_rate=3e-3",), "G=8": ("rl.group_size=8",)}


def make_runs(workdir, arms=ARMS, seeds=(0, 1), **changes):
    return ablation.expand_runs(Ablation(arms=arms), make_config(**changes), seeds, workdir, workdir / "starts")


@pytest.mark.parametrize("backend, form", [("cpu", "processes"), ("gpu", "together"), ("tpu", "together")])
def test_the_form_depends_on_the_device(backend, form, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert scheduler.choose_form("auto") == form and scheduler.choose_form("together") == "together"
    with pytest.raises(UserError, match="unknown form, choose from auto, processes, together"):
        scheduler.choose_form("threads")
    if backend != "cpu":
        with pytest.raises(UserError, match=f"one process holds the {backend}"):
            scheduler.choose_form("processes")


def labels(groups):
    return [[r.label for r in group] for group in groups]


def test_runs_that_differ_in_numbers_are_a_group_of_at_most_the_given_size(tmp_path):
    runs = make_runs(tmp_path)
    same_program = ["a, seed 0", "rate, seed 0", "a, seed 1", "rate, seed 1"]
    assert labels(scheduler.make_groups(runs, "rl", 0)) == [same_program, ["G=8, seed 0", "G=8, seed 1"]]
    assert labels(scheduler.make_groups(runs, "rl", 3)) == [
        same_program[:3],
        same_program[3:],
        ["G=8, seed 0", "G=8, seed 1"],
    ]
    assert max(map(len, scheduler.make_groups(runs, "sft", 0))) == 1, "only RL can be vmapped"


def test_runs_that_cannot_be_vmapped_run_by_themselves_and_the_reason_is_printed(tmp_path, capsys):
    runs = make_runs(tmp_path, {"a": ()}, **{"rl.reward": "correct + 0.5*format"})
    assert labels(scheduler.make_groups(runs, "rl", 0)) == [["a, seed 0"], ["a, seed 1"]]
    assert "a, seed 0 and 1 more: task 'shop'" in capsys.readouterr().out


@pytest.fixture
def trained_seeds(monkeypatch):
    """A list of the seeds of each program that ran; nothing is trained. "stop" in the list stops the next group once."""
    seeds_of_programs = []

    def write_last_checkpoint(config, folder):
        (Path(folder) / "checkpoints" / "rl" / str(config.rl.steps)).mkdir(parents=True)

    def run_one(config, folder):
        seeds_of_programs.append([config.seed])
        write_last_checkpoint(config, folder)

    def run_group(make_train_step, configs, folders, group):
        vmapped.check_group_folder(group, folders)
        if "stop" in seeds_of_programs:
            seeds_of_programs.remove("stop")
            (group / "checkpoints" / "rl" / "1").mkdir(parents=True)
            raise KeyboardInterrupt
        seeds_of_programs.append([c.seed for c in configs])
        for config, folder in zip(configs, folders, strict=True):
            write_last_checkpoint(config, folder)

    monkeypatch.setitem(reproduce.STAGES, "rl", run_one)
    monkeypatch.setattr(vmapped, "train_vmapped_runs", run_group)
    return seeds_of_programs


def test_every_run_is_computed_once_and_runs_that_differ_in_numbers_are_one_program(trained_seeds, tmp_path):
    runs = make_runs(tmp_path, {"a": (), "G=8": ("rl.group_size=8",)})
    scheduler.run_as_vmapped_groups(ablate.EXPERIMENTS, runs[:3], "rl", tmp_path, 0)
    assert trained_seeds == [[0, 1], [0]] and not any((tmp_path / "together").iterdir())
    scheduler.run_as_vmapped_groups(ablate.EXPERIMENTS, runs, "rl", tmp_path, 0)
    assert trained_seeds == [[0, 1], [0], [1]]


def test_a_stopped_group_continues_with_the_same_runs_even_if_more_seeds_are_added(trained_seeds, tmp_path):
    trained_seeds.append("stop")
    with pytest.raises(KeyboardInterrupt):
        scheduler.run_as_vmapped_groups(ablate.EXPERIMENTS, make_runs(tmp_path, {"a": ()}), "rl", tmp_path, 0)
    assert trained_seeds == []
    with pytest.raises(
        UserError, match=r"is a stopped group, and its run \S+seed_1 is not in this ablation: .*or remove"
    ):
        scheduler.run_as_vmapped_groups(
            ablate.EXPERIMENTS, make_runs(tmp_path, {"a": ()}, seeds=[0]), "rl", tmp_path, 0
        )
    scheduler.run_as_vmapped_groups(
        ablate.EXPERIMENTS, make_runs(tmp_path, {"a": ()}, seeds=[0, 1, 2, 3]), "rl", tmp_path, 0
    )
    assert trained_seeds == [[0, 1], [2, 3]] and not any((tmp_path / "together").iterdir())


def test_a_group_that_fails_does_not_keep_others_from_running(trained_seeds, tmp_path, monkeypatch):
    def raise_error(config, folder):
        raise UserError("no luck")

    monkeypatch.setitem(reproduce.STAGES, "rl", raise_error)
    runs = [*make_runs(tmp_path, {"G=8": ("rl.group_size=8",)}, seeds=[0]), *make_runs(tmp_path, {"a": ()})]
    with pytest.raises(UserError, match="1 of 2 runs failed, the results of the others are kept. The first: no luck"):
        scheduler.run_as_vmapped_groups(ablate.EXPERIMENTS, runs, "rl", tmp_path, 0)
    assert trained_seeds == [[0, 1]]


@pytest.mark.exhaustive
def test_vmapped_runs_leave_the_same_files_as_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(shop, "score", score_first_number)
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        runs = make_runs(tmp_path, {"a": (), "rate": ("rl.optimizer.learning_rate=3e-3",)}, seeds=[3])
        scheduler.run_as_vmapped_groups(ablate.EXPERIMENTS, runs, "rl", tmp_path, 0)
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    results = [ablation.read_run_result(r.folder, "rl", r.arm, r.seed, r.changes) for r in runs]
    assert [(x["arm"], x["steps"]) for x in results] == [("a", [0, 2, 3]), ("rate", [0, 2, 3])]
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


@pytest.mark.exhaustive
def test_a_terminated_ablation_stops_its_runs_and_they_save_a_checkpoint(tmp_path):
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


def test_a_start_is_computed_once_for_all_runs_that_share_it(tmp_path):
    def write_checkpoints(start, config):
        for stage in config.stages:
            (start / "checkpoints" / stage / str(config[stage].steps)).mkdir(parents=True)

    runs = make_runs(tmp_path, **{"rl.start": "sft"})
    first, second = scheduler.missing_starts(runs)
    assert (first.seed, second.seed) == (0, 1)
    write_checkpoints(first.start, first.start_config)
    assert [r.seed for r in scheduler.missing_starts(runs)] == [1]


def test_a_sigterm_is_a_keyboard_interrupt_while_runs_are_computed():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), process_pool.sigterm_as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) == before
