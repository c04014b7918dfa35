"""A run that cannot be here: without its tokenizer, its weights or its devices."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rljax import pretrained, sampler, tasks, transformer
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.planning.published_models import SHAPES
from rljax.structs import ConfigTree
from rljax.training import checks, run
from rljax.training.run import Run


def resolve_abstract(config: ConfigTree, model_name: str = "", devices: Any = None) -> Run:
    """The run of a config for planning: its task is a stand-in with what shapes depend on, so that no tokenizer is needed.

    ``model_name`` is a published architecture, or a folder with a config.json; "" the config's own. ``devices`` default to
    those that are here. Raises UserError for what does not fit.
    """
    if config.mesh.actors:
        raise UserError("plans know no mesh.actors: plan those that learn and those that sample each by themselves")
    config = config.copy_and_resolve_references()
    for stage in ("pretrain", "sft", "rl"):
        config[stage].start = ""  # whatever it starts from, its weights have these shapes
    name, slots, stop_ids = model_name or config.weights, config.task.options.get("prompt_slots", 512), (0,)
    said = config.model.to_dict()
    computed = {field: said[field] for field in pretrained.COMPUTE_FIELDS}
    if not name:
        if tasks.takes_tokenizer(config.task.name):
            raise UserError(
                f"task {config.task.name} says no vocabulary: name a model, --model=one of {', '.join(SHAPES)}"
            )
        own = tasks.make_task(config.task.name, **config.task.options.to_dict())
        model = transformer.Config(vocab_size=own.tokenizer.size, **said)
        slots, stop_ids = own.prompt_slots, own.tokenizer.stop_ids
    elif name in SHAPES:
        model = dataclasses.replace(SHAPES[name], **computed)
    elif (Path(name).expanduser() / "config.json").is_file():
        model = pretrained.read_config(name, **computed)
    else:
        raise UserError(f"--model={name}: neither a folder with a config.json nor one of {', '.join(SHAPES)}")
    task: Any = SimpleNamespace(prompt_slots=slots, tokenizer=SimpleNamespace(stop_ids=stop_ids), levels=None)
    found = run.build_run(config, task, *run.lay_out(config, model, devices))
    sampler.check_window(model, slots, found.rl.sampling.max_new_tokens)
    checks.check_algorithm(found.rl)
    checks.check_stage(found, found.rl)
    sharding.check_rows_divide(found.rl.problems.prompts, found.sampler_model.layout, "rl.prompts")
    return found
