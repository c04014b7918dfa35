"""A stage's policy as a Hugging Face folder, for transformers, vLLM and everything that reads one.

    rljax export --workdir runs/shop --stage rl --to exported
    rljax export ... --dtype bfloat16

Adapters are merged, in float32; the tokenizer goes with it. Tensors keep their bits unless ``--dtype`` says another precision.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from rljax import pretrained, transformer
from rljax.errors import UserError
from rljax.structs import ConfigTree
from rljax.training import command_line, initial_state
from rljax.training.command_line import Flag
from rljax.training.run import resolve


def run(config: ConfigTree, workdir: Path, stage: str, to: str, dtype: str, step: str = "") -> None:
    if jax.process_count() > 1:
        raise UserError("export: one process writes the folder; start it alone, it reads what several have trained")
    if not to:
        raise UserError("--to FOLDER: say where the exported policy shall lie")
    if dtype not in ("", "float32", "bfloat16", "float16"):
        raise UserError(f"--dtype {dtype}: choose from float32, bfloat16 and float16")
    pretrained.check_empty_folder(to)
    run = resolve(config)
    pretrained.choose_model_type(run.model)  # before anything is read
    merged = "float32" if dtype else None  # rounded once, to what is asked for
    params = initial_state.start_params(run, initial_state.at_step(stage, step), workdir, merged)
    if dtype:
        kept = lambda w, x: x.astype(jnp.dtype(w.dtype or dtype))  # a router's bias stays precise
        params = jax.tree.map(
            kept, transformer.weight_specs(run.model), params, is_leaf=lambda x: isinstance(x, transformer.WeightSpec)
        )
    family = pretrained.save(to, run.model, params, run.task.tokenizer)
    print(f"{stage} of {workdir}, {transformer.count(params):,} parameters, written to {to} as {family}")


def main() -> None:
    command_line.main(
        run,
        use="read",
        stage=Flag("rl", "the stage whose policy is exported"),
        to=Flag("", "the folder to write, which must not exist yet"),
        dtype=Flag("", "float32, bfloat16 or float16; without it tensors keep their bits"),
        step=Flag("", "the checkpoint: a step, best or last; without it the last, of a finished stage"),
    )


if __name__ == "__main__":
    main()
