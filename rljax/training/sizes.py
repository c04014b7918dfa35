"""Whether the sizes of a run can be computed at all: products of settings, each of which is within its own range.

Row, step and token numbers are int32 on the devices. No device holds an array of a tebibyte. Every check raises UserError in one
line that says what would be asked for.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax

from rljax import transformer
from rljax.errors import UserError
from rljax.options import MAX_INT

MAX_PARAMETERS = 10**14
MAX_ARRAY_BYTES = 2**40  # of one array on one device


def check_sizes(run: Any, stages: Sequence[str]) -> None:
    """Raise UserError where the model, the rows of these stages, or the evaluation are too many to be numbered or held."""
    specs = jax.tree.leaves(
        transformer.weight_specs(run.model), is_leaf=lambda x: isinstance(x, transformer.WeightSpec)
    )
    count = sum(math.prod(w.shape) for w in specs)
    if count > MAX_PARAMETERS:
        model = run.model
        raise UserError(
            f"model.layers={model.layers:,}, width={model.width:,}, heads={model.heads:,}, head_width={model.head_width:,}, "
            f"ff_width={model.ff_width:,}, experts={model.experts:,} are {count:.3g} parameters: at most {MAX_PARAMETERS:.3g}"
        )
    for name in stages:
        check_stage_sizes(run, run.stage(name))
    e, tokens = run.evaluation, run.task.prompt_slots + run.rl.sampling.max_new_tokens
    check_product(
        {"eval.problems": e.problems, "eval.attempts": e.attempts, "columns": tokens}, "tokens in an evaluation"
    )


def check_stage_sizes(run: Any, stage: Any) -> None:
    """Raise UserError where a stage's rows, tokens or steps cannot be numbered, or its micro-batches cannot be held."""
    name, prompt_slots = stage.name, run.task.prompt_slots
    if name == "rl":
        rows = {"rl.prompts": stage.problems.prompts, "rl.group_size": stage.sampling.group_size}
        columns, scored = prompt_slots + stage.sampling.max_new_tokens, stage.sampling.max_new_tokens
        asked = {"rl.prompts": stage.problems.prompts}
    elif name == "sft":
        rows = asked = {"sft.batch": stage.data.batch}
        columns, scored = prompt_slots + stage.data.max_new_tokens, stage.data.max_new_tokens
    else:
        rows = asked = {"pretrain.batch": stage.data.batch}
        columns = scored = stage.data.length
        if columns > run.model.max_length:
            raise UserError(
                f"pretrain.length={columns}: a page must fit the model's window, model.max_length={run.model.max_length}"
            )
    check_product(rows | {"columns": columns}, "tokens in a batch")
    check_product({f"{name}.steps": stage.loop.steps} | asked, "problems in the stage")
    if name == "rl":
        check_product({"rl.levels.rise": stage.problems.levels.rise} | asked, "problems asked meanwhile")
        check_product({"selection.steps": run.selection.steps} | asked, "problems asked")
        updates = {"rl.updates": stage.update.updates, "rl.epochs": stage.update.epochs}
        check_product({"rl.steps": stage.loop.steps} | updates, "optimizer steps")

    # the largest arrays of a micro-batch
    model, count = run.model, min(stage.micro_batching.rows or math.prod(rows.values()), math.prod(rows.values()))
    shards = model.layout.num_shards("rows") * model.layout.num_shards("columns")
    if packing := stage.micro_batching.packing:
        packed = packing.max_sequences(math.prod(rows.values()), columns)
        check_product({f"{name}.packing": packing.columns, "sequences": packed}, "packed columns")
        count, columns = packing.sequences_at_once(count, columns, model.layout.num_shards("rows")), packing.columns
        scored = columns
    scores = count * model.heads * columns * min(columns, model.attention_chunk or columns) * 4
    if model.attention == "own":
        check_bytes(
            scores / shards / model.layout.num_shards("heads"),
            f"attention scores: {name}.micro_batch, {columns:,} columns",
            "use model.attention_chunk or shorter rows",
        )
    logits = count * min(scored, model.logprob_chunk or scored) * model.vocab_size * 4
    check_bytes(
        logits / shards / model.layout.num_shards("vocab"),
        f"logits: {name}.micro_batch, {scored:,} columns",
        "use model.logprob_chunk or a smaller micro_batch",
    )


def check_product(factors: dict[str, int], what: str) -> None:
    """Raise UserError where the product of these settings is more than an int32 can number."""
    product = math.prod(factors.values())
    if product > MAX_INT:
        said = " x ".join(f"{key}={value:,}" if "." in key else f"{value:,} {key}" for key, value in factors.items())
        raise UserError(f"{said}: {product:,} {what}, at most {MAX_INT:,}")


def check_bytes(size: float, what: str, remedy: str) -> None:
    """Raise UserError where one array needs more bytes than any device has."""
    if size > MAX_ARRAY_BYTES:
        raise UserError(f"{what} need {size / 1e9:,.0f} GB on a device, at most {MAX_ARRAY_BYTES / 1e9:,.0f}: {remedy}")
