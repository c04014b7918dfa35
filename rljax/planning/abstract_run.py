"""Build a Run for planning. Its tokenizer, its weights and its devices need not exist on this machine."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from rljax import pretrained, sampler, tasks, transformer
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.planning.published_models import PUBLISHED_MODELS
from rljax.structs import ConfigTree
from rljax.tasks import mixture
from rljax.text.gguf_files import is_gguf
from rljax.text.hf_tokenizer import load_tokenizer
from rljax.training import checks
from rljax.training.run import Run, build_run, lay_out

UNKNOWN_PROMPT_SLOTS = 512  # where a config leaves them to data that is not at hand
MEASURED_PROMPTS = 256


def resolve_abstract(config: ConfigTree, model_name: str = "", devices: Any = None) -> Run:
    """Return the Run of a config, for planning.

    Its task is a placeholder with the fields that array shapes depend on, and ``prompt_lengths`` [N]: tokens of prompts of
    the data, or None where the data or its tokenizer is not at hand.
    ``model_name`` is a published model or a folder with a config.json; "" means the model of the config.
    ``devices`` are the devices of the mesh; None means the devices of this machine.

    Raises UserError for an unknown model and for settings that do not work together.
    """
    if config.mesh.actors:
        raise UserError(
            "a plan cannot have mesh.actors: set mesh.actors=0, and plan the learning devices and the sampling devices "
            "separately"
        )
    config = config.copy_and_resolve_references()
    for stage in ("pretrain", "sft", "rl"):
        config[stage].start = ""  # the weights have the same shapes, whatever checkpoint the stage starts from

    name, prompt_slots, stop_ids = model_name or config.weights, config.task.options.get("prompt_slots", 0), (0,)
    prompt_lengths, stops = None, None  # of the data, where it and its tokenizer are at hand
    model_settings = config.model.to_dict()
    compute_settings = {field: model_settings[field] for field in pretrained.COMPUTE_FIELDS}
    known_models = ", ".join(PUBLISHED_MODELS)
    if not name:
        if tasks.takes_tokenizer(config.task.name):
            raise UserError(
                f"task {config.task.name} has no vocabulary of its own: name a model, --model=one of {known_models}"
            )
        task = tasks.make_task(config.task.name, **config.task.options.to_dict())
        model = transformer.Config(vocab_size=task.tokenizer.size, **model_settings)
        prompt_slots, stop_ids, stops = task.prompt_slots, task.tokenizer.stop_ids, task.stops
        prompt_lengths = measure_prompts(task)
    elif name in PUBLISHED_MODELS:
        model = dataclasses.replace(PUBLISHED_MODELS[name], **compute_settings)
    elif (Path(name).expanduser() / "config.json").is_file() or (is_gguf(name) and Path(name).expanduser().is_file()):
        model = pretrained.read_config(name, **compute_settings)
        tokenizer = load_tokenizer(name) if data_is_at_hand(config) else None
        if tokenizer is not None:
            task = tasks.make_task(config.task.name, tokenizer, **config.task.options.to_dict())
            prompt_slots, stop_ids, stops = task.prompt_slots, task.tokenizer.stop_ids, task.stops
            prompt_lengths = measure_prompts(task)
    else:
        raise UserError(
            f"--model={name}: neither a folder with a config.json, nor a GGUF file, nor one of {known_models}"
        )

    prompt_slots = prompt_slots or UNKNOWN_PROMPT_SLOTS
    placeholder: Any = SimpleNamespace(
        prompt_slots=prompt_slots,
        tokenizer=SimpleNamespace(stop_ids=stop_ids),
        stops=stops,
        levels=None,
        prompt_lengths=prompt_lengths,
    )
    run = build_run(config, placeholder, *lay_out(config, model, devices))
    sampling = run.rl.sampling
    sampler.check_window(model, prompt_slots, sampling.max_new_tokens)
    if not sampling.slots:  # as on an accelerator, wherever the plan is made
        slots = sampler.choose_slots(0, run.sampler_model.layout, "accelerator")
        run = dataclasses.replace(
            run, rl=dataclasses.replace(run.rl, sampling=dataclasses.replace(sampling, slots=slots))
        )
    checks.check_algorithm(run.rl)
    checks.check_stage(run, run.rl)
    sharding.check_rows_divide(run.rl.problems.prompts, run.sampler_model.layout, "rl.prompts")
    return run


def data_is_at_hand(config: ConfigTree) -> bool:
    """Whether the questions of the config are files on this machine, so that reading them downloads nothing."""
    options = config.task.options.to_dict()
    if config.task.name != "questions":
        return tasks.takes_tokenizer(config.task.name)  # such a world makes its own problems, for any tokenizer
    names = [
        *mixture.parse_mixture(options["datasets"]),
        *mixture.parse_mixture(options["test"] or options["datasets"]),
    ]
    is_local = lambda name: bool(options["path"]) or name == "countdown" or Path(name).expanduser().exists()
    return all(map(is_local, names))


def measure_prompts(task: tasks.Task) -> np.ndarray:
    """Return the tokens of some training prompts of a task: [N]."""
    return np.asarray(task.problems(0, jnp.arange(MEASURED_PROMPTS), "train").prompt_mask).sum(-1)
