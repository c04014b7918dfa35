"""`rljax checkpoints`: lists, verifies, compares and exports what is stored, without a config."""

import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_checkpoint_keeping import damage, folder_of
from toy_stage import train

from experiments import checkpoints as script
from rljax.training.checkpoint_report import read_arrays, split_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train(folder, steps=6)
    train(folder, steps=8, name="sft", stop_at=(5,))
    return folder


def say(capsys, monkeypatch, *argv, status=None):
    monkeypatch.setattr(sys, "argv", ["rljax checkpoints", *map(str, argv)])
    if status is None:
        script.main()
    else:
        with pytest.raises(SystemExit) as end:
            script.main()
        assert end.value.code == status
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


def test_checkpoints_are_listed_with_their_stage_step_score_and_arrays(finished, capsys, monkeypatch):
    lines, _ = say(capsys, monkeypatch, finished)
    assert [line.split()[:2] for line in lines] == [["rl", "4"], ["rl", "6"], ["sft", "2"], ["sft", "4"], ["sft", "5"]]
    assert "score -0.4000" in lines[0] and "2 + 6 arrays" in lines[0] and "1 x cpu" in lines[0]
    assert "stays while it is the newest" in lines[4]
    assert len(say(capsys, monkeypatch, finished, "--stage=rl")[0]) == 2


def test_verifying_names_the_damaged_checkpoint_and_its_array(finished, tmp_path, capsys, monkeypatch):
    lines, _ = say(capsys, monkeypatch, finished, "--verify=true")
    assert lines[-1] == "all 5 checkpoints are whole: every array has its checksum"
    shutil.copytree(finished, tmp_path / "run")
    damage(folder_of(tmp_path / "run", 6))
    shutil.rmtree(folder_of(tmp_path / "run", 4, "sft"))
    shutil.copytree(folder_of(tmp_path / "run", 2, "sft"), folder_of(tmp_path / "run", 4, "sft"))
    lines, errors = say(capsys, monkeypatch, tmp_path / "run", "--verify=true", status=1)
    assert "NOT WHOLE: its manifest says that it is step 2" in "\n".join(lines)
    assert [line.split(" is damaged")[0].rsplit("/", 2)[1:] for line in lines if " is damaged" in line] == [
        ["rl", "6"],
        ["sft", "4"],
    ]
    assert len(errors) == 1 and errors[0].startswith("error: 2 of 5 checkpoints are not whole")


def test_two_steps_are_compared_array_by_array(finished, capsys, monkeypatch):
    lines, _ = say(capsys, monkeypatch, finished, "--stage=rl", "--compare=4,6")
    assert [line.split(":")[0] for line in lines[:-1]] == ["params/n", "params/w", "rest/step"]
    assert "params/n: 4.0 and 6.0" in lines and lines[-1] == "5 arrays are equal bit for bit, 3 differ"
    assert say(capsys, monkeypatch, finished, "--stage=rl", "--compare=4,4")[0][-1].startswith("8 arrays are equal")


def test_an_exported_step_holds_the_bits_of_every_array(finished, tmp_path, capsys, monkeypatch):
    say(capsys, monkeypatch, finished, "--stage=rl", "--export=6", f"--to={tmp_path / 'a.safetensors'}")
    found = load_file(tmp_path / "a.safetensors")
    stored = read_arrays(folder_of(finished, 6), "params")
    assert len(found) == 8 and found["rest/step"] == 6 and found["rest/key"].shape == (2,)
    np.testing.assert_array_equal(found["params/w"], stored[("w",)])
    _, errors = say(
        capsys, monkeypatch, finished, "--stage=rl", "--export=6", f"--to={tmp_path / 'a.safetensors'}", status=1
    )
    assert errors[0].endswith("it exists already")


@pytest.mark.parametrize(
    "flags, said",
    [
        (["nowhere"], "nowhere has no checkpoint"),
        ([], "usage: rljax checkpoints WORKDIR"),
        (["RUN", "--stage=rl", "--compare=4"], "write two steps"),
        (["RUN", "--compare=4,6"], "--stage: say whose"),
        (["RUN", "--stage=rl", "--compare=4,7"], "keeps no checkpoint of step 7, only of 4, 6"),
        (["RUN", "--stage=rl", "--export=6"], "--to FILE"),
    ],
)
def test_what_cannot_be_done_is_one_line(finished, capsys, monkeypatch, flags, said):
    argv = [str(finished) if flag == "RUN" else flag for flag in flags]
    _, errors = say(capsys, monkeypatch, *argv, status=1)
    assert len(errors) == 1 and said in errors[0]


def test_paths_of_arrays_are_the_same_however_their_nodes_are_written():
    assert split_path("['opt_state'][0].mu['w.q']") == ("opt_state", "0", "mu", "w.q")
