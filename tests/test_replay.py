"""`rljax replay` repeats a step bit for bit and says where it does not; sessions.jsonl says with what each session was made."""

import json
import shutil
import sys

import pytest
from test_train_step import tiny_config

from configs import shop
from experiments import replay, rl
from rljax.errors import UserError
from rljax.training import journal, provenance
from rljax.training.provenance import data_checksums, describe_changes, record_session
from rljax.training.replay import find_record
from rljax.training.workdir import hold_workdir


def config():
    return tiny_config(
        **{"rl.start": "", "rl.steps": 5, "rl.eval_every": 2, "rl.log_every": 1, "rl.prompts": 2, "rl.group_size": 4},
        **{"rl.reward": "correct + overlong(share=0.9)", "eval.problems": 2, "eval.attempts": 2, "eval.greedy": False},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    with hold_workdir(folder, config()):
        rl.run(config(), folder)
    return folder


def files(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_step_is_repeated_bit_for_bit_from_the_checkpoint_before_it(finished, capsys):
    before = files(finished)
    replay.run(config(), finished, step=4)
    said = capsys.readouterr().out
    recorded = find_record(finished, 4)
    assert "rl step 4, 2 steps from checkpoint 2" in said or "rl step 4, 4 steps from the start of rl" in said
    assert f"gradient norm {recorded['train/grad_norm']!r}, in metrics.jsonl {recorded['train/grad_norm']!r}" in said
    assert f"{len(recorded)} of {len(recorded)} numbers are those of metrics.jsonl, bit for bit" in said
    written = finished / "replay" / "rl_step_000004.jsonl"
    attempts = journal.read_records(written)
    assert len(attempts) == 8 and {a["problem"] for a in attempts} == {0, 1}
    lengths = sum(len(a["tokens"]) for a in attempts) / 8
    assert lengths == recorded["train/response_length/mean"], "the rollout is that of the step"
    assert recorded["train/reward"] == pytest.approx(sum(a["reward"] for a in attempts) / 8, abs=1e-6)
    assert {p: x for p, x in files(finished).items() if p != written} == before, "nothing else is written"


def test_a_number_that_differs_is_named_with_both_values(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    rows = journal.read_records(folder / "metrics.jsonl")
    row = next(r for r in rows if r["step"] == 5 and "train/grad_norm" in r)
    was = row["train/grad_norm"]
    row["train/grad_norm"] = was + 1e-6
    journal.replace_text(folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(
        UserError, match=r"step 5 is not repeated bit for bit: 1 numbers differ, train/grad_norm is"
    ) as e:
        replay.run(config(), folder, step=5)
    assert repr(was) in str(e.value) and "versions, flags and devices are those of its last session" in str(e.value)


@pytest.mark.parametrize(
    "step, said", [(0, "say which train step"), (9, "has no record of this train step; it has steps 1 to 5")]
)
def test_a_step_that_the_run_did_not_record_is_one_line(finished, step, said):
    with pytest.raises(UserError, match=said):
        replay.run(config(), finished, step=step)


# sessions.jsonl


def test_every_session_is_recorded_with_what_numbers_depend_on(finished, monkeypatch):
    (session,) = journal.read_records(finished / provenance.FILE)
    assert session["versions"]["jax"] and session["seed"] == 0 and session["devices"]["count"] >= 1
    assert "XLA_FLAGS" in session["flags"] and session["command"] == sys.argv
    assert not any("CACHE" in name for name in session["flags"])


def test_another_session_says_in_one_line_in_what_it_differs_and_an_equal_one_says_nothing(
    tmp_path, monkeypatch, caplog
):
    record_session(tmp_path, shop.get_config("short"))
    record_session(tmp_path, shop.get_config("short"))
    assert caplog.text == ""
    (tmp_path / provenance.FILE).open("a").write('{"torn')
    monkeypatch.setenv("XLA_FLAGS", "--xla_something=1")
    facts = provenance.code_facts()
    other = facts | {"versions": facts["versions"] | {"jax": "9.9.9"}, "commit": "abc"}
    monkeypatch.setattr(provenance, "code_facts", lambda: other)
    record_session(tmp_path, shop.get_config("short"))
    assert len(caplog.records) == 1
    assert f"jax {facts['versions']['jax']} (now 9.9.9)" in caplog.text and "other flags (XLA_FLAGS)" in caplog.text
    assert len(journal.read_records(tmp_path / provenance.FILE)) == 3, "the torn line is cut off"


def test_data_files_that_the_config_names_are_recorded_with_their_checksums(tmp_path):
    (tmp_path / "a.jsonl").write_text("one\n")
    (tmp_path / "b.jsonl").write_text("two\n")
    c = shop.get_config("short")
    c.sft.file = str(tmp_path / "a.jsonl")
    c.plugins = (str(tmp_path / "b.jsonl"),)
    before = data_checksums(c)
    assert before.keys() == {"sft.file", "plugins"} and before["sft.file"]["bytes"] == 4
    (tmp_path / "a.jsonl").write_text("One\n")
    after = data_checksums(c)
    assert describe_changes({"data": before}, {"data": after}) == "other data (sft.file)"
