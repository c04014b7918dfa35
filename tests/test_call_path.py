"""From the train step to the loss of a token there are six functions, and none of them sees the config tree."""

import re
import traceback
from pathlib import Path

import jax
import pytest

import rljax
from configs import shop
from experiments import rl
from rljax import policy_gradient, transformer
from rljax.training import initial_state
from rljax.training.run import resolve

ROOT = Path(rljax.__file__).parent
# those that build a Run from the tree, or run whole configs
DOOR = ("training/schema.py", "training/run.py", "training/config_files.py", "training/command_line.py",
        "training/workdir.py", "training/provenance.py", "planning/abstract_run.py", "planning/suggestions.py", "serving/policies.py", "structs.py")  # fmt: skip


class Reached(Exception):
    pass


def test_six_frames_lead_from_the_train_step_to_the_loss_of_a_token(monkeypatch):
    def token_loss(*args, **known):
        raise Reached

    monkeypatch.setattr(policy_gradient, "token_loss", token_loss)
    config = shop.get_config("short")
    config.model.layers, config.model.width, config.rl.max_new_tokens, config.rl.widths = 1, 32, 8, ()
    run = resolve(config, "rl")
    state = initial_state.new_state(run, run.rl, transformer.init(run.model, jax.random.key(0)))
    with pytest.raises(Reached) as caught:
        rl.make_train_step(run)(state)
    folders = str(ROOT), str(Path(rl.__file__).parent), __file__
    frames = [f for f in traceback.extract_tb(caught.value.__traceback__) if f.filename.startswith(folders)]
    names = [f.name for f in frames if not f.name.startswith(("<", "test_"))]  # lambdas bind arguments
    assert names == ["train_step", "update_policy", "optimizer_step", "gradients", "loss", "token_loss"]


def test_below_the_door_nobody_reads_the_config_tree():
    files = [p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).as_posix() not in DOOR]
    files = [p for p in files if not p.is_relative_to(ROOT / "ablation")]  # an ablation is made of configs
    readers = [
        p.name
        for p in files
        if re.search(r"\bConfigTree\b|ml_collections|\.config\.(rl|sft|pretrain)\b", p.read_text())
    ]
    assert readers == []
