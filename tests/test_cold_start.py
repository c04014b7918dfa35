"""A cold start: which stages run with which settings. The stages themselves are tested elsewhere."""

import json

import pytest
import tiny_folder

from configs import shop, smollm2
from experiments import cold_start, collect, reproduce
from rljax.errors import UserError
from rljax.tasks import rejection_sampling
from rljax.training.run import resolve
from rljax.training.workdir import hold_workdir

FLAGS = dict(examples=2, problems=7, attempts=3, per_problem=2, at_least=5, epochs=1.5)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tiny_folder.make(tmp_path_factory.mktemp("model"), max_length=1024)
    return smollm2.get_config(f"weights={folder},level=1,cold,short")


def test_attempts_with_examples_are_collected_and_imitated_without_them(config, tmp_path, monkeypatch):
    asked, run = {}, []

    def collect_lines(config, workdir, stage, to, **flags):
        asked.update(flags, stage=stage, task=config.task.options.to_dict(), run=resolve(config))
        with pytest.raises(UserError, match="cold is in use by another process"), hold_workdir(workdir, config):
            pass
        with open(to, "w") as file:
            file.writelines(json.dumps({"index": n, "response": "The answer is 5."}) + "\n" for n in range(40))

    monkeypatch.setattr(collect, "run", collect_lines)
    monkeypatch.setattr(reproduce, "run", lambda config, workdir: run.append(config))
    for _ in range(2):  # the same command again continues
        cold_start.run(config, tmp_path / "cold", **FLAGS)
    assert (asked["stage"], asked["prompts"], asked["per_problem"], asked["at_least"]) == ("weights", 0, 2, 5)
    assert asked["task"]["examples"] == 2 and asked["task"]["level"] == "1"
    (first, again) = run
    assert first.to_dict() == again.to_dict()
    assert first.task.options.examples == 0 and first.stages == ("sft", "rl")
    assert first.sft.steps == 4, "1.5 times 40 lines, 16 a step"
    assert json.loads((tmp_path / "cold" / "config.json").read_text())["config"]["sft"]["file"] == first.sft.file
    short = resolve(first).task
    assert short.prompt_slots < asked["run"].task.prompt_slots
    rejection_sampling.read_sample_lines(first.sft.file)


@pytest.mark.parametrize(
    ("changes", "flags", "words"),
    [
        ({"task.options.examples": 3}, {}, "task.options.examples=3: a cold start has .* no examples; :cold sets them"),
        ({"sft.start": "pretrain"}, {}, "sft.start='pretrain'"),
        ({"stages": ("rl",)}, {}, r"stages=\('rl',\)"),
        ({}, {"examples": 0}, "--examples=0 .*at least one example"),
        ({}, {"epochs": 0.0}, "epochs above 0"),
        ({"sft.max_new_tokens": 4096}, {}, "sft.max_new_tokens=4096"),
        ({"sft.batch": 0}, {}, "sft.batch=0: must be at least 1"),
    ],
    ids=str,
)
def test_a_config_that_is_none_of_a_cold_start_is_refused_before_anything_is_sampled(
    changes, flags, words, config, tmp_path
):
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=words) as e:
        cold_start.run(config, tmp_path / "cold", **(FLAGS | flags))
    assert "\n" not in str(e.value) and not (tmp_path / "cold").exists()


def test_a_workdir_that_cannot_be_used_is_refused_before_anything_is_sampled(config, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "run", lambda *_, **__: pytest.fail("sampled"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir: cannot write to"):
        cold_start.run(config, tmp_path / "file" / "cold", **FLAGS)
    folder = tmp_path / "trained"
    with hold_workdir(folder, shop.get_config("short")):
        (folder / "metrics.jsonl").write_text('{"stage": "rl", "step": 3}\n')
    with pytest.raises(UserError, match=r"trained holds a run with .* use another --workdir"):
        cold_start.run(config, folder, **FLAGS)


def test_a_task_without_examples_has_no_cold_start(tmp_path):
    with pytest.raises(UserError, match="task shop have no worked examples"):
        cold_start.run(shop.get_config("short"), tmp_path, **FLAGS)


def test_a_file_without_prompts_is_collected_where_it_is_asked_for(config, tmp_path, monkeypatch):
    """Every attempt is called right here: a random model has none that is."""
    said = [
        {
            "problem": 0,
            "prompt": "Q: ...",
            "response": " The answer is 5.<eos>",
            "reward": 1.0,
            "length": 3,
            "tokens": [1],
        }
    ]
    monkeypatch.setattr(collect.initial_state, "start_params", lambda *_: None)
    monkeypatch.setattr(collect, "resolve", lambda config: Evaluated(said))
    for prompts, keys in (
        (1, {"index", "prompt", "response", "length", "tokens"}),
        (0, {"index", "response", "length", "tokens"}),
    ):
        path = tmp_path / f"{prompts}.jsonl"
        collect.run(config, tmp_path, "weights", to=str(path), prompts=prompts)
        assert json.loads(path.read_text()).keys() == keys
    with pytest.raises(UserError, match="was collected with kept=.*'prompts': 0"):
        collect.run(config, tmp_path, "weights", to=str(tmp_path / "0.jsonl"))


@pytest.mark.parametrize(
    "flags", [{"problems": 0}, {"attempts": -1}, {"per_problem": -1}, {"target": "xx"}, {"at_least": 9, "at_most": 8}]
)
def test_a_flag_that_leaves_nothing_to_collect_is_refused_before_anything_is_sampled(
    flags, config, tmp_path, monkeypatch
):
    monkeypatch.setattr(collect, "resolve", lambda config: pytest.fail("sampled"))
    with pytest.raises(UserError, match=f"--{next(iter(flags))}="):
        collect.run(config, tmp_path, "weights", **flags)


class Evaluated:
    """What ``collect`` needs of a run whose evaluation returned these samples."""

    def __init__(self, said):
        self.evaluator = lambda full_problems: lambda params: ({}, said)
        self.task = self
        self.tokenizer = tiny_folder.tokenizer()
