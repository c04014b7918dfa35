"""Killed anywhere, the same command goes on and leaves the same bytes as a run that was never stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 3
STAGES = {"pretrain": 24, "sft": 24, "rl": 10}
OPTIONS = [
    "--config=configs/shop.py:short",
    "--config.model.layers=1",
    "--config.model.width=32",
    "--config.sft.micro_batch=0",
    "--config.sft.widths=()",
    "--config.rl.widths=()",
    "--config.eval.problems=8",
    "--config.eval.greedy=False",
    "--config.rl.prompts=2",
    "--config.rl.max_new_tokens=24",
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


def start(stage: str, workdir: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", f"experiments.{stage}", *OPTIONS, f"--workdir={workdir}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(stage: str, workdir: Path) -> None:
    process = start(stage, workdir)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def lines(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_at_a_random_moment(stage: str, workdir: Path, rng: random.Random) -> bool:
    """Start the stage and SIGKILL it a little after it wrote some lines; False where it had finished before that."""
    before, process = lines(workdir), start(stage, workdir)
    more = rng.randint(1, 4)
    for _ in range(24_000):
        if process.poll() is not None or abs(lines(workdir) - before) >= more:
            break
        time.sleep(0.01)
    else:
        raise AssertionError("the run writes nothing")
    time.sleep(rng.random() * 0.25)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return running


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


def test_killed_three_times_in_each_stage_the_run_ends_with_the_same_bytes(undisturbed, tmp_path):
    rng = random.Random(os.environ.get("RLJAX_KILL_SEED", "1"))
    for stage in STAGES:
        kills = sum(kill_at_a_random_moment(stage, tmp_path, rng) for _ in range(KILLS))
        assert kills >= 3, f"{stage} finished before it could be killed: {kills} kills"
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
    import shutil

    workdir = tmp_path / "copy"
    shutil.copytree(undisturbed, workdir)
    data = max(
        (workdir / "checkpoints" / "sft" / "24" / "params").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size
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
    for _ in range(24_000):
        if lines(tmp_path) >= 4:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "the same command continues" in output.strip().splitlines()[-1]
    assert "Traceback" not in output
    finish("pretrain", tmp_path)
    mine = [r for r in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    theirs = [r for r in (undisturbed / "metrics.jsonl").read_text().splitlines() if '"pretrain"' in r]
    assert mine == theirs
