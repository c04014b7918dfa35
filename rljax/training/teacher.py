"""The teacher of a run: which model it is, read and checked before any long work. ``initial_state`` reads its weights."""

import dataclasses
from pathlib import Path
from typing import Any

from rljax import pretrained, tasks, transformer
from rljax.errors import UserError
from rljax.tasks import Task
from rljax.text import Tokenizer
from rljax.text.hf_tokenizer import load_tokenizer
from rljax.training import journal
from rljax.training.schema import STAGES

COMPARED = 1000  # tokens whose texts are compared between two vocabularies, beside their sizes


def parse_teacher(teacher: str) -> tuple[str, str]:
    """ "DIR:stage[@step]" -> (DIR, "stage[@step]"); a Hugging Face folder -> (folder, ""). Raises UserError for a stage alone."""
    folder, _, stage = teacher.rpartition(":")
    if stage.partition("@")[0] not in STAGES:
        return teacher, ""
    if not folder:
        raise UserError(f"rl.teacher={teacher!r}: name the workdir of another run before the stage, DIR:{stage}")
    return folder, stage


def read_architecture(teacher: str, task: Task, model: transformer.Config) -> transformer.Config | None:
    """The Config of the model that ``rl.teacher`` names, laid out and computed as the policy's ``model``; None for "".

    Raises UserError where there is no such run or folder, and where its vocabulary is not that of ``task``.
    """
    if not teacher:
        return None
    folder, stage = parse_teacher(teacher)
    computed = {name: getattr(model, name) for name in pretrained.COMPUTE_FIELDS}
    if not stage:
        try:
            found, theirs = pretrained.read_config(folder, **computed), load_tokenizer(folder)
        except UserError as e:
            raise UserError(f"rl.teacher={teacher!r}: {e}, or the workdir and stage of a run, DIR:rl") from None
    elif config := journal.read_config(Path(folder)):
        found, theirs = run_architecture(config, model, computed), run_tokenizer(config)
    else:
        raise UserError(f"rl.teacher={teacher!r}: {folder} is not the workdir of a run, it has no config.json")
    if not same_vocabulary(theirs, task.tokenizer):
        raise UserError(
            f"rl.teacher={teacher!r}: its vocabulary is not that of task {task.name} with these options, so it cannot score "
            "these attempts: take a teacher that learned with the same task.options, or from the same tokenizer"
        )
    return dataclasses.replace(found, layout=model.layout)


def run_architecture(config: dict[str, Any], model: transformer.Config, computed: dict[str, Any]) -> transformer.Config:
    """The architecture of the run with this config.json; its vocabulary is compared afterwards."""
    if config["weights"]:
        return pretrained.read_config(config["weights"], **computed)
    said: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in config["model"].items()}
    return transformer.Config(**{**said, **computed, "vocab_size": model.vocab_size})


def run_tokenizer(config: dict[str, Any]) -> Tokenizer:
    """The tokenizer of the run with this config.json."""
    if config["weights"]:
        return load_tokenizer(config["weights"])
    return tasks.make_task(config["task"]["name"], **config["task"]["options"]).tokenizer


def same_vocabulary(a: Tokenizer, b: Tokenizer) -> bool:
    """Whether two tokenizers have as many tokens, of the same text where they are compared."""
    if a.size != b.size:
        return False
    compared = range(0, a.size, max(a.size // COMPARED, 1))
    return all(a.decode([i]) == b.decode([i]) for i in compared)
