"""Several processes are one run: the numbers of one process, one writer, and a clear end where one of them is lost.

The processes are real, on this machine; 2 of 2 devices each are compared with 1 of 4.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rljax.distributed import processes
from rljax.errors import UserError

PATIENCE = 20
STEPS, LOOK = {"pretrain": 60, "rl": 4}, {"pretrain": 20, "rl": 2}
SMALL = [
    "--config=configs/shop.py:short",
    "--config.model.layers=1",
    "--config.model.width=32",
    *(f"--config.{stage}.micro_batch=0" for stage in ("pretrain", "sft", "rl")),
    "--config.sft.widths=()",
    "--config.rl.widths=()",
    "--config.rl.max_new_tokens=24",
    "--config.eval.greedy=False",
    "--config.pretrain.batch=8",
    *(f"--config.{stage}.steps={steps}" for stage, steps in STEPS.items()),
    *(f"--config.{stage}.eval_every={steps}" for stage, steps in LOOK.items()),
    *(f"--config.{stage}.log_every=1" for stage in STEPS),
]
HOSTED = ["--config.rl.start=", "--config.rl.reward=correct+0.1*format", "--config.mesh.data=2", "--config.mesh.fsdp=2"]
GONE = "start all of them again with the same command, the run continues from its last checkpoint"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]


def launch(stage: str, *options: str, devices: int, **environment: str) -> subprocess.Popen:
    quick = "--xla_backend_optimization_level=0"
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {quick}", "NPROC": "16"}
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{stage}", *SMALL, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | flags | environment,
    )


def several(stage: str, *options: str, processes: int = 2, devices: int = 2, patience=PATIENCE) -> list:
    common = [
        *options,
        f"--coordinator=127.0.0.1:{free_port()}",
        f"--num_processes={processes}",
        f"--patience={patience}",
    ]
    return [launch(stage, *common, f"--process_id={i}", devices=devices) for i in range(processes)]


def ends(process: subprocess.Popen) -> tuple[int, str, str]:
    """(exit status, what it said, its complaints)."""
    out, err = process.communicate(timeout=240)
    said = "".join(line for line in out.splitlines(True) if not line.startswith("[Gloo]"))
    return process.returncode, said, "".join(line for line in err.splitlines(True) if "step/s" not in line)


def well(*processes: subprocess.Popen) -> list[str]:
    """What each said; all must end well."""
    found = [ends(p) for p in processes]
    assert [status for status, _, _ in found] == [0] * len(found), found
    return [said for _, said, _ in found]


def metrics(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def samples(workdir: Path) -> list[dict]:
    return [json.loads(x) for f in sorted((workdir / "samples").iterdir()) for x in f.read_text().splitlines()]


def sums(workdir: Path, stage: str) -> dict:
    return json.loads((workdir / "checkpoints" / stage / str(STEPS[stage]) / "sums" / "metadata").read_text())


def assert_close(mine: list[dict], theirs: list[dict]) -> None:
    """Equal but for the last digit that is written: four parts of a sum are added in another order."""
    assert [r.keys() for r in mine] == [r.keys() for r in theirs]
    for a, b in zip(mine, theirs, strict=True):
        for name, value in a.items():
            if isinstance(value, float):
                assert value == pytest.approx(b[name], rel=2e-6, abs=2e-6), name
            else:
                assert value == b[name], name


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Pretraining in 2 processes of 2 devices, then RL."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    for stage in ("pretrain", "rl"):
        first, second = well(*several(stage, f"--workdir={workdir}", "--config.rl.start=pretrain"))
        assert f"{STEPS[stage]:>5}/{STEPS[stage]}" in first and not second  # only process 0 speaks
    return workdir


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The same in 1 process of 4 devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    for stage in ("pretrain", "rl"):
        well(launch(stage, f"--workdir={workdir}", "--config.rl.start=pretrain", devices=4))
    return workdir


def test_two_processes_learn_what_one_process_with_as_many_devices_learns(one, two):
    assert_close(metrics(two), metrics(one))
    mine, theirs = samples(two), samples(one)
    assert [s["tokens"] for s in mine] == [s["tokens"] for s in theirs] and len(mine) > 30
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a["logprobs"], b["logprobs"], atol=1.01e-4)  # of four digits, the last


def test_where_a_sum_has_two_parts_and_so_one_order_the_bytes_are_the_same(tmp_path):
    well(launch("pretrain", f"--workdir={tmp_path / 'one'}", devices=2))
    well(*several("pretrain", f"--workdir={tmp_path / 'two'}", devices=1))
    assert (tmp_path / "one" / "metrics.jsonl").read_bytes() == (tmp_path / "two" / "metrics.jsonl").read_bytes()
    assert sums(tmp_path / "one", "pretrain") == sums(tmp_path / "two", "pretrain")


def test_rewards_of_text_are_computed_where_the_rows_lie_and_known_everywhere(tmp_path):
    well(launch("rl", f"--workdir={tmp_path / 'one'}", *HOSTED, devices=4))
    well(*several("rl", f"--workdir={tmp_path / 'two'}", *HOSTED))
    assert_close(metrics(tmp_path / "two"), metrics(tmp_path / "one"))
    assert [s["tokens"] for s in samples(tmp_path / "two")] == [s["tokens"] for s in samples(tmp_path / "one")]


@pytest.mark.parametrize("began", ["in one", "in two"])
def test_a_run_goes_on_in_another_number_of_processes(began, one, two, tmp_path):
    source, workdir = {"in one": one, "in two": two}[began], tmp_path / "run"
    shutil.copytree(source, workdir)
    shutil.rmtree(workdir / "checkpoints" / "pretrain" / str(STEPS["pretrain"]))  # so it goes on from the one before
    options = [f"--workdir={workdir}", "--config.rl.start=pretrain"]
    well(*(several("pretrain", *options) if began == "in one" else [launch("pretrain", *options, devices=4)]))
    of_stage = lambda folder: [r for r in metrics(folder) if r["stage"] == "pretrain"]
    assert_close(of_stage(workdir), of_stage(source))
    assert len(of_stage(source)) == 64


def until_it_runs(workdir: Path, lines: int) -> None:
    give_up = time.time() + 400
    while len(metrics(workdir)) < lines:
        assert time.time() < give_up, "the run writes nothing"
        time.sleep(0.02)


def test_killed_a_process_ends_the_other_within_five_seconds_and_the_run_goes_on_to_the_same_bytes(two, tmp_path):
    options = [f"--workdir={tmp_path}", "--config.rl.start=pretrain"]
    for victim, lines in ((1, 24), (0, 44)):  # each past a checkpoint that the run then goes on from
        both = several("pretrain", *options)
        until_it_runs(tmp_path, lines)
        both[victim].send_signal(signal.SIGKILL)
        began = time.monotonic()
        status, _, said = ends(both[1 - victim])
        assert time.monotonic() - began < 5
        assert status == 1 and len(said.splitlines()) == 1, said
        assert f"error: process {victim} of 2 (host {socket.gethostname()}) is gone" in said and GONE in said
        assert ends(both[victim])[0] == -signal.SIGKILL
    well(*several("pretrain", *options))
    mine, theirs = [
        [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"pretrain"' in line]
        for folder in (tmp_path, two)
    ]
    assert mine == theirs
    assert sums(tmp_path, "pretrain") == sums(two, "pretrain")


def test_a_process_that_stands_still_ends_the_other_when_its_patience_is_over(tmp_path):
    both = several("pretrain", f"--workdir={tmp_path}", "--config.pretrain.steps=3000", patience=6)
    until_it_runs(tmp_path, 3)
    both[1].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    status, _, said = ends(both[0])
    took = time.monotonic() - began
    both[1].kill()
    both[1].communicate()
    assert status == 1 and 4 < took < 12
    assert "error: process 1 of 2" in said and "no sign of life for 6 seconds" in said and GONE in said


def test_a_signal_to_any_process_stops_all_after_the_same_step(tmp_path):
    both = several("pretrain", f"--workdir={tmp_path}", "--config.pretrain.steps=3000")
    until_it_runs(tmp_path, 3)
    both[1].send_signal(signal.SIGTERM)
    (status, _, said), (other, _, silent) = [ends(p) for p in both]
    assert (status, other) == (130, 130) and not silent, silent
    assert "pretrain: stopped at step" in said and "the same command continues" in said
    stopped = int(said.split("stopped at step ")[1].split()[0])
    assert (tmp_path / "checkpoints" / "pretrain" / str(stopped)).is_dir()


def test_those_that_never_came_are_named_in_every_process_that_did(tmp_path):
    where = [f"--workdir={tmp_path}", f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=4", "--patience=4"]
    here = [launch("pretrain", *where, f"--process_id={i}", devices=1) for i in (0, 2)]
    for status, _, said in map(ends, here):
        assert status == 1 and said.startswith("error: processes 1, 3 of 4 never came to 127.0.0.1"), said
        assert len(said.splitlines()) == 1
    alone = launch("pretrain", *where[:3], "--patience=2", "--process_id=3", devices=1)
    assert "error: process 0 of 4 never came" in ends(alone)[2]


def test_what_process_0_refuses_is_said_once_and_ends_all(two):
    (status, _, said), (other, _, silent) = [ends(p) for p in several("pretrain", f"--workdir={two}")]
    assert (status, other) == (1, 1)
    assert said.startswith("error: --workdir:") and len(said.splitlines()) == 1 and not silent


SAID = {
    "slurm": {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": "{i}",
        "SLURM_LOCALID": "{i}",
        "JAX_COORDINATOR_PORT": "{port}",
    },
    "ompi": {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "{i}",
        "OMPI_COMM_WORLD_LOCAL_RANK": "{i}",
        "JAX_COORDINATOR_PORT": "{port}",
    },
    "jobset": {
        "JAX_COORDINATOR_ADDRESS": "127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JOB_COMPLETION_INDEX": "{i}",
    },
}


@pytest.mark.parametrize("launcher", SAID)
def test_what_a_launcher_says_in_the_environment_is_read(launcher, monkeypatch):
    for name, value in SAID[launcher].items():
        monkeypatch.setenv(name, value.format(i=1, port=1234))
    assert processes.announced()
    address, count, me, devices = processes.detected(1)
    assert (address.rpartition(":")[2], count, me) == ("1234", 2, 1)
    assert devices == (None if launcher == "jobset" else [1])


def test_under_srun_the_same_command_without_flags_is_one_run(tmp_path):
    said = lambda i, port: {name: value.format(i=i, port=port) for name, value in SAID["slurm"].items()}
    short, port = [f"--workdir={tmp_path}", "--config.pretrain.steps=1"], free_port()
    first, second = well(*(launch("pretrain", *short, devices=1, **said(i, port)) for i in (0, 1)))
    assert "1/1  held-out loss" in first and not second
    assert len(json.loads((tmp_path / "config.json").read_text())["devices"]) == 2


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node1", "SLURM_NTASKS": "8"},  # in sbatch, without srun
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    ],
)
def test_an_environment_that_speaks_of_one_process_is_one_process(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.start("", 0, -1, 60)
    assert not processes._run


@pytest.mark.parametrize(
    "flags, answer",
    [
        (("127.0.0.1:1", 0, -1, 60), "give all three"),
        (("", 2, 0, 60), "give all three"),
        (("127.0.0.1:1", 2, 2, 60), "there are 2, numbered from 0"),
        (("here", 2, 1, 60), "write HOST:PORT"),
        (("127.0.0.1:1", 2, 0, 0), "at least 1 second"),
    ],
)
def test_flags_that_do_not_belong_together_are_refused_in_a_line(flags, answer):
    with pytest.raises(UserError, match=answer) as e:
        processes.start(*flags)
    assert "\n" not in str(e.value)
