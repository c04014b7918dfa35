"""SIGINT and SIGTERM: in every phase the run says one line, and goes on later as if it had never been stopped."""

import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_stage

from rljax.structs import TrainState
from rljax.training import journal, loop
from rljax.training.schema import CheckpointOptions, LoopOptions
from rljax.training.signals import GRACE, SAME, Interrupted, StopRequests, stop_requests

TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


class Recorded:
    """Stop requests with a clock that a test sets, and what they print."""

    def __init__(self, monkeypatch):
        self.now, self.ended, self.announced = 100.0, [], []
        self.requests = StopRequests(self.ended.append, self.announced.append, lambda: self.now)
        monkeypatch.setattr(signal, "getsignal", lambda number: self.requests)

    def signal(self, number, handled=True):
        self.requests.note(number)
        if handled:
            self.requests(number, None)


@pytest.fixture
def recorded(monkeypatch):
    return Recorded(monkeypatch)


def test_where_nothing_would_be_lost_the_first_signal_ends_the_program_with_the_line_of_the_stage(recorded):
    with recorded.requests.stage(lambda: "rl 0/9: stopped by {signal}"):
        recorded.signal(TERM)
    assert recorded.ended == ["rl 0/9: stopped by SIGTERM"] and recorded.announced == []


def test_a_deferred_signal_is_announced_at_once_and_a_second_one_ends_the_program(recorded):
    with recorded.requests.stage(lambda: "stopped by {signal}"):
        recorded.requests.defer(lambda: "{signal} came, saving")
        recorded.signal(TERM)
        assert recorded.requests.is_set() and recorded.announced == ["SIGTERM came, saving"] and recorded.ended == []
        recorded.now += 2 * SAME
        recorded.signal(INT)
        assert recorded.announced == ["SIGTERM came, saving"] and recorded.ended == ["stopped by SIGINT"]


def test_copies_of_one_signal_count_once(recorded):
    recorded.requests.defer(lambda: "saving")
    for _ in range(3):
        recorded.signal(TERM)
        recorded.now += SAME / 2.1
    assert recorded.announced == ["saving"] and recorded.ended == []


def test_a_main_thread_that_cannot_handle_a_signal_is_ended_by_the_other_thread(recorded):
    recorded.signal(TERM, handled=False)
    recorded.requests.check()
    assert recorded.ended == [] and recorded.requests.seconds_until_end() == GRACE
    recorded.now += GRACE
    recorded.requests.check()
    recorded.requests(TERM, None)  # too late: the line is said once
    assert len(recorded.ended) == 1


def test_a_step_that_takes_long_is_not_ended_by_one_signal_but_by_two(recorded):
    recorded.requests.defer(lambda: "saving")
    recorded.signal(TERM, handled=False)
    recorded.now += 1000
    recorded.requests.check()
    assert recorded.ended == []
    recorded.signal(TERM, handled=False)
    recorded.now += GRACE
    recorded.requests.check()
    assert len(recorded.ended) == 1


def test_a_grace_ends_a_step_that_takes_too_long(recorded):
    recorded.requests.defer(lambda: "saving", grace=30.0)
    recorded.signal(TERM, handled=False)
    assert recorded.requests.seconds_until_end() == 30.0
    recorded.now += 29.0
    recorded.requests.check()
    assert recorded.ended == []
    recorded.now += 1.0
    recorded.requests.check()
    assert len(recorded.ended) == 1


def test_a_second_signal_ends_the_program_before_its_grace_has_passed(recorded):
    recorded.requests.defer(lambda: "saving", grace=3000.0)
    recorded.signal(TERM, handled=False)
    recorded.now += 2 * SAME
    recorded.signal(INT, handled=False)
    assert recorded.requests.seconds_until_end() == GRACE


def test_the_grace_of_a_stage_ends_with_it(recorded):
    with recorded.requests.stage(lambda: "a"):
        recorded.requests.defer(lambda: "b", grace=5.0)
    assert recorded.requests.grace == 0.0 and recorded.requests.later is None


def test_a_hangup_stops_a_run_like_the_other_signals_unless_it_is_ignored_as_under_nohup():
    before = signal.signal(HUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        with stop_requests() as requests:
            assert signal.getsignal(HUP) is requests
        signal.signal(HUP, signal.SIG_IGN)
        with stop_requests() as requests:
            assert signal.getsignal(HUP) is signal.SIG_IGN and signal.getsignal(TERM) is requests
        assert signal.getsignal(HUP) is signal.SIG_IGN
    finally:
        signal.signal(HUP, before)


def test_another_handler_that_has_taken_over_is_left_alone(recorded, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)
    recorded.signal(TERM, handled=False)
    assert recorded.requests.seconds_until_end() is None


def test_a_block_within_a_block_shares_its_requests_and_the_handlers_come_back():
    before = [signal.getsignal(n) for n in (TERM, INT, HUP)]
    with stop_requests() as outer, stop_requests() as inner:
        assert inner is outer and signal.getsignal(TERM) is outer
    assert [signal.getsignal(n) for n in (TERM, INT, HUP)] == before


# A whole process

BUSY = """
import hashlib
from rljax.training.signals import stop_requests
with stop_requests() as asked, asked.stage(lambda: "rl: stopped by {signal} while it compiles: run it again"):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)  # like XLA: many minutes in C, without a Python instruction
"""


def test_a_process_that_is_busy_in_c_says_its_line_and_ends():
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(TERM)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130 and said == "rl: stopped by SIGTERM while it compiles: run it again\n"


def test_a_command_that_is_stopped_while_it_imports_says_one_line():
    code = "import os, signal; from rljax import __main__ as m\nwith m.end_with_line(): os.kill(os.getpid(), signal.SIGTERM)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr == "stopped by SIGTERM before the start: run the same command again\n"


SAVING = """
import os, signal, sys, time
sys.path.insert(0, "tests")
from pathlib import Path
import toy_stage
from rljax.training import checkpoint_saver, command_line

def slow(saver):
    if saver.writing == 5:  # the save that the first signal asked for: the second comes while it runs
        time.sleep(1.2)  # later than copies of one signal
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(600)
    finish(saver)

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
finish = checkpoint_saver.Saver.finish
checkpoint_saver.Saver.finish = slow
with command_line.one_line_errors():
    stop = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 5 else None
    toy_stage.train(Path(sys.argv[1]), in_step=stop)
"""


def test_a_second_signal_while_the_first_is_being_saved_leaves_the_last_checkpoint_good(tmp_path):
    done = subprocess.run([sys.executable, "-c", SAVING, tmp_path / "a"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 130, done.stderr
    announced, line = done.stderr.splitlines()
    assert "asked to stop by SIGTERM; it stops after this step, and saves" in announced
    newest = max(int(p.name) for p in (tmp_path / "a" / "checkpoints" / "rl").iterdir() if p.name.isdigit())
    assert line.startswith("rl: stopped by SIGHUP (rl 5/12: saving)") and newest in (4, 5)
    assert line.endswith(f"the same command continues from {tmp_path / 'a' / 'checkpoints' / 'rl' / str(newest)}")
    toy_stage.train(tmp_path / "a")
    toy_stage.train(tmp_path / "b")
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()
    assert toy_stage.checkpoints(tmp_path / "a") == toy_stage.checkpoints(tmp_path / "b")


# The loop of a stage


def new_state():
    return TrainState(jnp.int32(0), {"w": jnp.zeros(2)}, (), jax.random.key(0), jnp.int32(0))


def train_step(state):
    return state.replace(step=state.step + 1, params={"w": state.params["w"] + 1}), {"loss": state.params["w"].sum()}


def train(workdir, steps=4, signal_at=(), eval_every=2, in_step=None):
    """Train the toy; the evaluation of the steps ``signal_at`` gets a SIGTERM, or step ``in_step``."""
    evaluated = []

    def evaluate(params):
        step = int(params["w"][0])
        evaluated.append(step)
        if step in signal_at:
            os.kill(os.getpid(), TERM)
        return {"eval/loss": float(params["w"].sum())}, [{"text": f"step {step}"}]

    def one_step(state):
        if int(state.step) + 1 == in_step:
            os.kill(os.getpid(), TERM)
        return train_step(state)

    options = LoopOptions(steps=steps, log_every=1, eval_every=eval_every)
    settings = dict(keep=CheckpointOptions(), workdir=workdir, loggers=(), score="-eval/loss")
    state = loop.train("rl", new_state(), one_step, evaluate, loop=options, **settings)
    return state, evaluated


def test_a_signal_during_an_evaluation_saves_after_it_and_the_run_goes_on_from_there(tmp_path):
    with pytest.raises(Interrupted, match="stopped at step 2 of 4, all is saved: the same command continues"):
        train(tmp_path / "a", signal_at=(2,))
    assert (tmp_path / "a" / "checkpoints" / "rl" / "2").is_dir()
    state, evaluated = train(tmp_path / "a")
    assert evaluated == [4] and int(state.step) == 4
    train(tmp_path / "b")
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


def test_a_signal_during_a_step_saves_after_it(tmp_path):
    with pytest.raises(Interrupted, match="stopped at step 3 of 4"):
        train(tmp_path / "a", in_step=3)
    state, evaluated = train(tmp_path / "a")
    assert evaluated == [4] and int(state.step) == 4


def test_a_signal_at_the_very_end_of_a_stage_stops_what_follows_and_loses_nothing(tmp_path):
    with pytest.raises(Interrupted, match="all of its 4 steps were done; all is saved: the same command continues"):
        train(tmp_path, signal_at=(4,))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    state, evaluated = train(tmp_path)
    assert evaluated == [] and int(state.step) == 4 and (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("boundary", [2, 4])
def test_a_stage_that_is_resumed_exactly_at_a_boundary_trains_on(tmp_path, boundary):
    """At an evaluation with its checkpoint, and at the end of a stage that then gets more steps."""
    train(tmp_path / "a", steps=boundary)
    state, evaluated = train(tmp_path / "a", steps=8)
    assert int(state.step) == 8 and evaluated == list(range(boundary + 2, 9, 2))
    np.testing.assert_array_equal(state.params["w"], 8)
    train(tmp_path / "b", steps=8)
    read = lambda run: journal.read_records(tmp_path / run / "metrics.jsonl")
    assert read("a") == read("b")
    assert [r["step"] for r in read("a") if "train/loss" in r] == list(range(1, 9))
