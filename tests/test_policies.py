"""Where policies come from: runs, model folders, and what is neither."""

import pytest

from rljax.errors import UserError
from rljax.serving.policies import NoPolicyError, Policies, find_checkpoints, open_source
from rljax.training.config_files import load_config
from tests import served, tiny_folder


def test_a_model_folder_is_asked_in_the_task_of_a_config(tmp_path):
    folder = tiny_folder.make(tmp_path / "model", max_length=1024)
    source = open_source(folder, load_config("smollm2:examples=0"), taken=("model",))
    assert source.is_folder and source.name == "model-2" and list(find_checkpoints(source)) == ["weights"]
    assert source.run.task.name == "fruit_text"
    policy = Policies([source]).load("model-2/weights")
    assert policy.params["embedding"].shape == (320, 32)


def test_a_folder_that_is_neither_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="there is no run in it"):
        open_source(tmp_path)
    with pytest.raises(UserError, match="has no tokenizer.json"):
        open_source(tmp_path, load_config("smollm2"))


def test_the_checkpoints_of_a_run_are_listed_as_they_are_written(tmp_path):
    source = served.make_source(tmp_path, steps=(20, 7))
    policies = Policies([source])
    assert policies.names() == ["toy/rl@7", "toy/rl@20"] and policies.default() == "toy/rl@20"
    (source.path / "checkpoints" / "rl" / "30").mkdir()
    assert policies.default("toy") == "toy/rl@30"
    for name in ("toy/rl@8", "toy", "toy/../rl@7", "other/rl@7", ""):
        with pytest.raises(NoPolicyError):
            policies.find(name)


def test_the_oldest_changed_copy_is_given_up(tmp_path):
    source = served.make_source(tmp_path)
    policies = served.make_policies(source)
    base = policies.load(served.NAME)
    for n in range(3):
        policies.keep_copy(base._replace(name=f"{served.NAME}~{n}"))
    assert policies.names()[1:] == [f"{served.NAME}~1", f"{served.NAME}~2"]
    with pytest.raises(NoPolicyError):
        policies.load(f"{served.NAME}~0")
