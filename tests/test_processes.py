"""Several processes are one run: the numbers of one process, one writer, and an end of all where one of them is lost.

The processes are real, on this machine: two with one device each are compared with one that has two devices.
"""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from simulated import device_environment

from rljax.distributed import processes
from rljax.errors import UserError

PROGRESS = re.compile(r"\d+/\d+")  # only process 0 reports it; Gloo's own lines may be torn by its threads
ABORTED = -signal.SIGABRT  # how JAX ends a process whose peer is lost
STEPS, LOOK = {"pretrain": 30, "rl": 2}, {"pretrain": 10, "rl": 1}
SMALL = [
    "--config=configs/shop.py:short",
    "--config.model.layers=1",
    "--config.model.width=32",
    *(f"--config.{stage}.micro_batch=1024" for stage in ("pretrain", "sft", "rl")),
    "--config.sft.widths=()",
    "--config.rl.widths=()",
    "--config.rl.max_new_tokens=16",
    "--config.eval.greedy=False",
    "--config.pretrain.batch=8",
    *(f"--config.{stage}.steps={steps}" for stage, steps in STEPS.items()),
    *(f"--config.{stage}.eval_every={steps}" for stage, steps in LOOK.items()),
    *(f"--config.{stage}.log_every=1" for stage in STEPS),
]
HOSTED = ["--config.rl.start=", "--config.rl.reward=correct+0.1*format", "--config.mesh.data=2", "--config.mesh.fsdp=2"]
IN_PARTS = ["--config.rl.slots=4", "--config.rl.verify_parts=3"]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]


def launch(stage: str, *options: str, devices: int, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{stage}", *SMALL, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=device_environment(devices) | environment,
    )


def several(stage: str, *options: str, devices: int = 1, heartbeat: int = 30) -> list:
    """Two processes of one run."""
    common = [
        *options,
        f"--coordinator=127.0.0.1:{free_port()}",
        "--num_processes=2",
        f"--heartbeat_timeout={heartbeat}",
    ]
    return [launch(stage, *common, f"--process_id={i}", devices=devices) for i in range(2)]


def ends(process: subprocess.Popen) -> tuple[int, str, str]:
    """(exit status, its stdout, its stderr without the progress bar); the time limit only guards against a hang."""
    out, err = process.communicate(timeout=600)
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


def under_srun(stage: str, *options: str) -> list:
    """Two processes of one run as srun starts them: no flags, the environment says it."""
    of_job = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    of_job["JAX_COORDINATOR_PORT"] = str(free_port())
    of_process = [{"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    return [launch(stage, *options, devices=1, **of_job, **of) for of in of_process]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Pretraining in two processes of one device, which srun starts, then RL in two that are told so by flags."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    for stage, start in (("pretrain", under_srun), ("rl", several)):
        first, second = well(*start(stage, f"--workdir={workdir}", "--config.rl.start=pretrain"))
        assert f"{STEPS[stage]:>5}/{STEPS[stage]}" in first and not PROGRESS.search(second)
        assert len(json.loads((workdir / "config.json").read_text())["devices"]) == 2
    return workdir


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The same in one process of two devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    for stage in ("pretrain", "rl"):
        well(launch(stage, f"--workdir={workdir}", "--config.rl.start=pretrain", devices=2))
    return workdir


def test_two_processes_write_the_bytes_that_one_process_with_as_many_devices_writes(one, two):
    """A sum over two devices has one order, so nothing may differ."""
    assert (two / "metrics.jsonl").read_bytes() == (one / "metrics.jsonl").read_bytes()
    assert samples(two) == samples(one) and len(samples(two)) > 30
    for stage in STEPS:
        assert sums(two, stage) == sums(one, stage)


@pytest.mark.exhaustive
def test_rewards_of_text_are_computed_where_the_rows_lie_and_known_everywhere(tmp_path):
    well(launch("rl", f"--workdir={tmp_path / 'one'}", *HOSTED, devices=4))
    well(*several("rl", f"--workdir={tmp_path / 'two'}", *HOSTED, *IN_PARTS, devices=2))
    assert_close(metrics(tmp_path / "two"), metrics(tmp_path / "one"))
    assert [s["tokens"] for s in samples(tmp_path / "two")] == [s["tokens"] for s in samples(tmp_path / "one")]


@pytest.mark.exhaustive
@pytest.mark.parametrize("began", ["in one", "in two"])
def test_a_run_goes_on_in_another_number_of_processes(began, one, two, tmp_path):
    source, workdir = {"in one": one, "in two": two}[began], tmp_path / "run"
    shutil.copytree(source, workdir)
    shutil.rmtree(workdir / "checkpoints" / "pretrain" / str(STEPS["pretrain"]))  # so it goes on from the one before
    options = [f"--workdir={workdir}", "--config.rl.start=pretrain"]
    well(*(several("pretrain", *options) if began == "in one" else [launch("pretrain", *options, devices=2)]))
    of_stage = lambda folder: [r for r in metrics(folder) if r["stage"] == "pretrain"]
    assert_close(of_stage(workdir), of_stage(source))
    assert len(of_stage(source)) == 34


def wait_for_metrics(workdir: Path, lines: int, running: list[subprocess.Popen]) -> None:
    """Wait until metrics.jsonl has this many lines; fails where a process ends before."""
    while len(metrics(workdir)) < lines:
        assert all(p.poll() is None for p in running), [p.communicate() for p in running if p.poll() is not None]
        time.sleep(0.02)


def assert_says_how_to_go_on(said: str) -> None:
    """One line of ours stands among what JAX prints."""
    ours = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(ours) == 1 and ours[0].endswith(processes.RESTART), said


@pytest.mark.exhaustive
def test_a_killed_process_ends_the_other_and_the_same_command_goes_on_to_the_same_bytes(two, tmp_path):
    victim, options = 0, [f"--workdir={tmp_path}", "--config.rl.start=pretrain"]  # 0 holds JAX's coordinator
    both = several("pretrain", *options, heartbeat=10)
    wait_for_metrics(tmp_path, 13, both)  # past the checkpoint of step 10
    both[victim].send_signal(signal.SIGKILL)
    status, _, said = ends(both[1 - victim])
    assert status in (1, ABORTED)  # the broken connection raises an error here, unless JAX is faster
    assert_says_how_to_go_on(said)
    status, _, said = ends(both[victim])
    assert status == -signal.SIGKILL
    assert said.startswith(f"error: process {victim} of 2 (host {socket.gethostname()}, pid {both[victim].pid})")
    well(*several("pretrain", *options))
    mine, theirs = [
        [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"pretrain"' in line]
        for folder in (tmp_path, two)
    ]
    assert mine == theirs
    assert sums(tmp_path, "pretrain") == sums(two, "pretrain")


@pytest.mark.exhaustive
def test_a_process_that_stands_still_ends_the_other_by_the_heartbeat_timeout(tmp_path):
    victim, both = 1, several("pretrain", f"--workdir={tmp_path}", "--config.pretrain.steps=3000", heartbeat=5)
    wait_for_metrics(tmp_path, 3, both)
    both[victim].send_signal(signal.SIGSTOP)
    status, _, said = ends(both[1 - victim])
    both[victim].kill()
    both[victim].communicate()
    assert status == ABORTED
    assert_says_how_to_go_on(said)
    assert "--heartbeat_timeout=5" in said


def test_a_signal_to_any_process_stops_all_after_the_same_step(tmp_path):
    both = several("pretrain", f"--workdir={tmp_path}", "--config.pretrain.steps=3000")
    wait_for_metrics(tmp_path, 3, both)
    both[1].send_signal(signal.SIGTERM)
    (status, _, said), (other, _, silent) = [ends(p) for p in both]
    assert (status, other) == (130, 130) and not silent, silent
    assert "pretrain: stopped at step" in said and "the same command continues" in said
    stopped = int(said.split("stopped at step ")[1].split()[0])
    assert (tmp_path / "checkpoints" / "pretrain" / str(stopped)).is_dir()


@pytest.mark.exhaustive
@pytest.mark.parametrize("came", [0, 1])
def test_a_process_that_never_comes_ends_those_that_came(came, tmp_path):
    flags = [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2", "--initialization_timeout=2"]
    status, _, said = ends(launch("pretrain", f"--workdir={tmp_path}", *flags, f"--process_id={came}", devices=1))
    assert status == ABORTED
    assert_says_how_to_go_on(said)
    assert "never came (--initialization_timeout=2)" in said


def test_what_process_0_refuses_is_one_line_there_and_ends_the_other(two):
    (status, _, said), (other, _, also) = [ends(p) for p in several("pretrain", f"--workdir={two}")]
    assert status == 1 and said.startswith("error: --workdir:") and len(said.splitlines()) == 1
    assert other in (1, ABORTED)
    assert_says_how_to_go_on(also)


@pytest.mark.exhaustive
def test_an_error_of_the_user_in_process_1_alone_is_one_line_there_and_ends_process_0(tmp_path):
    flags = [f"--workdir={tmp_path}", f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2"]
    flags.append("--heartbeat_timeout=5")
    healthy = launch("pretrain", *flags, "--process_id=0", devices=1)
    wrong = launch("pretrain", *flags, "--process_id=1", "--config.mesh.data=7", devices=1)
    status, _, said = ends(wrong)
    assert status == 1 and said.startswith("error: mesh: data=7 needs 7 devices") and len(said.splitlines()) == 1
    status, _, said = ends(healthy)
    assert status in (1, ABORTED)
    assert_says_how_to_go_on(said)


def test_under_srun_the_same_command_without_flags_is_one_run(two):
    """``two`` has looked at its devices and at who reports, the first test at its numbers."""
    assert [r["step"] for r in metrics(two) if r["stage"] == "pretrain" and "train/loss" in r] == list(range(1, 31))


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
    processes.initialize("", 0, -1, 60, 300)
    assert not jax.distributed.is_initialized()


@pytest.mark.parametrize("environment", [{"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"}, {"OMPI_COMM_WORLD_SIZE": "2"}])
def test_where_jax_cannot_detect_the_processes_one_line_names_the_flags(environment, tmp_path):
    status, _, said = ends(launch("pretrain", f"--workdir={tmp_path}", devices=1, **environment))
    assert status == 1 and len(said.splitlines()) == 1, said
    assert said.startswith("error: JAX could not start several processes (") and "give --coordinator=HOST:PORT" in said


@pytest.mark.parametrize(
    "flags, answer",
    [
        (("127.0.0.1:1", 0, -1, 60, 300), "give all three"),
        (("", 2, 0, 60, 300), "give all three"),
        (("127.0.0.1:1", 2, 2, 60, 300), "there are 2 processes, numbered from 0"),
        (("here", 2, 1, 60, 300), "write HOST:PORT"),
        (("127.0.0.1:1", 2, 0, 0, 300), "heartbeat_timeout=0: must be at least 1 second"),
        (("127.0.0.1:1", 2, 0, 60, 0), "initialization_timeout=0: must be at least 1 second"),
    ],
)
def test_flags_that_do_not_belong_together_are_refused_in_a_line(flags, answer):
    with pytest.raises(UserError, match=answer) as e:
        processes.initialize(*flags)
    assert "\n" not in str(e.value)
