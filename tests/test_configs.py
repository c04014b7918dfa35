"""Configs are data: each one loads, agrees with the code, and takes its overrides."""

import dataclasses
import re
from pathlib import Path

import pytest
import tiny_folder

from configs import common
from rljax import policy_gradient as pg
from rljax import tasks, transformer
from rljax.training import config_files
from rljax.training.run import find_algorithm, resolve

ROOT = Path(__file__).parent.parent
FILES = sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem not in ("__init__", "common"))


def test_the_model_section_names_every_field_of_the_architecture_with_its_default():
    fields = {
        f.name: f.default for f in dataclasses.fields(transformer.Config) if f.name not in ("vocab_size", "layout")
    }
    ours = common.base().model.to_dict()
    assert ours.keys() == fields.keys()
    different = {k for k in fields if ours[k] != fields[k]}
    assert different == {"max_length"}, "the window is the one default that an experiment chooses"


def test_the_row_section_can_change_what_an_algorithm_is_made_of():
    names = {f.name for f in dataclasses.fields(pg.Algorithm)}
    assert set(common.base().rl.row) == names


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_config_loads_long_and_short(path, tmp_path):
    for arg in ("", ":short"):
        config = config_files.load_config(f"{path}{arg}")
        known = {
            f.name
            for f in dataclasses.fields(__import__(f"rljax.tasks.{config.task.name}", fromlist=["Options"]).Options)
        }
        assert set(config.task.options) <= known
        find_algorithm(config.rl.algorithm, config.rl.row)
        if config.task.name != "questions" and not config.weights:  # data and models are not here
            for section in {"recipe", "distillation"} & set(config):
                del config[section]  # of the script of this name, which resolves its runs without it
            run = resolve(config)
            assert run.model.vocab_size == run.task.tokenizer.size


def test_every_task_has_a_config():
    assert {config_files.load_config(str(p)).task.name for p in FILES} == set(tasks.TASKS)


def test_a_config_docstring_says_how_to_run_it():
    for path in FILES:
        assert re.search(r"make reproduce|rljax \w+ +--config \w+", path.read_text()), path


@pytest.mark.parametrize("name", ["smollm2", "gemma3_270m"])
@pytest.mark.parametrize("more", ["", ",cold", ",adapters=8", ",short,level=5"])
def test_a_real_models_config_fits_a_folder(name, more, tmp_path):
    folder = tiny_folder.make(tmp_path, max_length=1024)
    run = resolve(config_files.load_config(f"{ROOT}/configs/{name}.py:weights={folder}{more}"))
    cold = "cold" in more
    assert run.stages == (("sft", "rl") if cold else ("rl",)) and run.rl.start == ("sft" if cold else "weights")
    (record,) = run.task.problems(0, [0], "train").facts
    shown = run.task.tokenizer.decode(run.task.prompt_ids(record["question"]))
    assert shown.count("Q: ") == (1 if cold else 4) and record["level"] in ((5,) if "level=5" in more else (1, 2))
    longest = run.task.prompt_slots + run.rl.sampling.max_new_tokens
    assert longest <= run.rl.micro_batching.packing.columns <= 1024 and run.rl.lora.rank == (
        8 if "adapters" in more else 0
    )
