"""Killed anywhere, the same command goes on and leaves the same bytes as a run that was never stopped."""

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

STAGES = {"pretrain": 12, "sft": 12, "rl": 6}
OPTIONS = [
    "--config=configs/shop.py:short",
    "--config.model.layers=1",
    "--config.model.width=32",
    "--config.pretrain.batch=8",
    "--config.sft.batch=8",
    "--config.sft.micro_batch=0",
    "--config.sft.widths=()",
    "--config.rl.widths=()",
    "--config.eval.problems=8",
    "--config.eval.greedy=False",
    "--config.rl.prompts=2",
    "--config.sft.max_new_tokens=94",
    "--config.rl.max_new_tokens=24",
    "--config.eval.attempts=2",
    "--config.rl.updates=2",
    "--config.rl.algorithm=orz_ppo",  # a critic, a reference, an adapting coefficient, dynamic sampling: all there is
    "--config.rl.row.kl=k3(coef=0.001)",
    "--config.rl.row.entropy=adaptive(target=2.0)",
    "--config.rl.row.groups=refill(rounds=2)",
    "--config.rl.refresh_reference=3",
    "--config.rl.mix_reference=0.5",
    *(f"--config.{stage}.steps={steps}" for stage, steps in STAGES.items()),
    *(f"--config.{stage}.eval_every=2" for stage in STAGES),
    *(f"--config.{stage}.log_every=1" for stage in STAGES),
]


def arguments(workdir: Path) -> list[str]:
    return [*OPTIONS, f"--workdir={workdir}"]


def start(stage: str, workdir: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", f"experiments.{stage}", *arguments(workdir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(stage: str, workdir: Path) -> None:
    """The stage's command, from where it is to its end, in this process: to start another costs as much as the stage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [stage, *arguments(workdir)])
        importlib.import_module(f"experiments.{stage}").main()


def lines(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def unfinished_checkpoints(stage: str, workdir: Path) -> list[Path]:
    return list((workdir / "checkpoints" / stage).glob("*.orbax-checkpoint-tmp*"))


def wait_until(happened: Callable[[], bool], process: subprocess.Popen, pause: float) -> None:
    for _ in range(int(240 / pause)):
        if process.poll() is not None or happened():
            return
        time.sleep(pause)
    raise AssertionError("the run does nothing")


def kill(process: subprocess.Popen) -> bool:
    """SIGKILL; False where the process had ended before that."""
    running = process.poll() is None
    process.kill()
    process.communicate()
    return running


def kill_at_a_random_moment(stage: str, workdir: Path, rng: random.Random) -> bool:
    """Start the stage and kill it a little after it wrote some lines."""
    before, more = lines(workdir), rng.randint(1, 4)
    process = start(stage, workdir)
    wait_until(lambda: abs(lines(workdir) - before) >= more, process, 0.01)
    time.sleep(rng.random() * 0.25)
    return kill(process)


def kill_while_it_saves(stage: str, workdir: Path) -> bool:
    """Start the stage and kill it while a checkpoint of its own is half written."""
    before = set(unfinished_checkpoints(stage, workdir))
    process = start(stage, workdir)
    wait_until(lambda: bool(set(unfinished_checkpoints(stage, workdir)) - before), process, 0.001)
    return kill(process) and bool(unfinished_checkpoints(stage, workdir))


def left_behind(workdir: Path) -> dict[str, bytes]:
    """What must not depend on kills: metrics, samples, and the checksums of every array of the last checkpoints."""
    files = [workdir / "metrics.jsonl", *sorted((workdir / "samples").glob("*.jsonl"))]
    out = {f.name: f.read_bytes() for f in files}
    for stage, steps in STAGES.items():
        sums = json.loads((workdir / "checkpoints" / stage / str(steps) / "sums" / "metadata").read_text())
        assert len(sums["params"]) > 5 and len(sums["rest"]) > 5
        out[stage] = json.dumps(sums, sort_keys=True).encode()
    return out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    for stage in STAGES:
        finish(stage, workdir)
    return workdir


@pytest.mark.exhaustive
def test_killed_at_any_moment_and_while_it_saves_in_each_stage_the_run_ends_with_the_same_bytes(undisturbed, tmp_path):
    rng = random.Random(os.environ.get("RLJAX_KILL_SEED", "1"))
    for stage in STAGES:
        assert kill_at_a_random_moment(stage, tmp_path, rng), f"{stage} finished before it could be killed"
        assert any(kill_while_it_saves(stage, tmp_path) for _ in range(3)), f"{stage} was never killed while it saved"
        finish(stage, tmp_path)
    expected, found = left_behind(undisturbed), left_behind(tmp_path)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


def test_a_finished_stage_is_not_run_again(undisturbed):
    before = left_behind(undisturbed)
    finish("rl", undisturbed)
    assert left_behind(undisturbed) == before


def test_the_runs_parameters_really_moved(undisturbed):
    sums = [
        json.loads((undisturbed / "checkpoints" / stage / str(steps) / "sums" / "metadata").read_text())["params"]
        for stage, steps in STAGES.items()
    ]
    assert sums[0] != sums[1]
    records = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert {r["stage"] for r in records} == set(STAGES)
    losses = [r["train/loss"] for r in records if r["stage"] == "sft" and "train/loss" in r]
    assert losses[-1] < losses[0]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(undisturbed, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(undisturbed, workdir)
    data = max(
        (workdir / "checkpoints" / "sft" / str(STAGES["sft"]) / "params").rglob("*"),
        key=lambda p: p.is_file() and p.stat().st_size,
    )
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0x10
    data.write_bytes(content)
    finish("sft", workdir)
    found, expected = left_behind(workdir), left_behind(undisturbed)
    lines_of = lambda files: sorted(files.pop("metrics.jsonl").splitlines())
    assert lines_of(found) == lines_of(expected)  # the repeated lines of SFT now stand after those of RL
    assert found == expected


def test_an_interrupt_saves_says_so_and_continues(undisturbed, tmp_path):
    process = start("pretrain", tmp_path)
    wait_until(lambda: lines(tmp_path) >= 4, process, 0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "the same command continues" in output.strip().splitlines()[-1]
    assert "Traceback" not in output
    finish("pretrain", tmp_path)
    mine = [r for r in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    theirs = [r for r in (undisturbed / "metrics.jsonl").read_text().splitlines() if '"pretrain"' in r]
    assert mine == theirs
