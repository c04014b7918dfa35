"""The optimiser: an optax chain and a learning-rate schedule from a config."""

import math
from typing import Any

import jax
import optax

from rljax import transformer
from rljax.errors import UserError
from rljax.structs import ConfigTree

Rate = jax.Array | float


def schedule(config: ConfigTree, steps: int, rate: Rate | None = None) -> optax.Schedule:
    """Learning rate by update: linear warm-up, then constant, linear or cosine to ``final`` times the peak.

    ``rate`` is the peak in place of the config's, and may be traced.
    """
    peak, warm = config.learning_rate if rate is None else rate, config.warmup
    rest = max(steps - warm, 1)
    shapes = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, peak * config.final, rest),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, config.final),
    }
    if config.schedule not in shapes:
        raise UserError(f"optimizer: schedule={config.schedule!r} is unknown, choose from {sorted(shapes)}")
    if not warm:
        return shapes[config.schedule]()
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warm), shapes[config.schedule]()], [warm])


def make(
    config: ConfigTree, model: transformer.Config, steps: int, rate: Rate | None = None
) -> optax.GradientTransformation:
    """Global-norm clipping, then AdamW, Muon (matrices of the layers; AdamW for the rest) or SGD.

    ``config``: name, learning_rate, schedule, warmup, final, b1, b2, eps, weight_decay, clip_norm, moment_dtype, offload. ``steps`` is
    the number of updates that the schedule spans, ``rate`` a peak in place of the config's. Norms and biases never decay.
    """
    by_update = schedule(config, steps, rate)
    adam = dict(b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay)
    kinds = {
        "adamw": lambda: optax.adamw(by_update, mask=decays, mu_dtype=config.moment_dtype or None, **adam),
        "muon": lambda: optax.contrib.muon(
            by_update,
            weight_decay=config.weight_decay,
            adam_b1=config.b1,
            adam_b2=config.b2,
            muon_weight_dimension_numbers=lambda params: muon_dimensions(model),
            consistent_rms=0.2,
        ),
        "sgd": lambda: optax.sgd(by_update),
    }
    if config.moment_dtype and (config.name != "adamw" or config.moment_dtype not in ("bfloat16", "float32")):
        raise UserError(
            f"optimizer: moment_dtype={config.moment_dtype!r} with name={config.name!r}: only adamw keeps its first moment in "
            "another dtype, bfloat16 or float32"
        )
    if config.offload and config.name == "sgd":
        raise UserError("optimizer: offload=True with name='sgd': it keeps no moments that could lie elsewhere")
    if config.name not in kinds:
        raise UserError(f"optimizer: name={config.name!r} is unknown, choose from {sorted(kinds)}")
    return optax.chain(optax.clip_by_global_norm(config.clip_norm or math.inf), kinds[config.name]())


def decays(params: Any) -> Any:
    """Which weights decay: matrices, stacked ones too, by their names and not by their axes."""

    def one(path: Any, x: jax.Array) -> bool:
        name = str(getattr(path[-1], "key", ""))
        return x.ndim > 1 and not name.endswith(("norm", "bias"))

    return jax.tree_util.tree_map_with_path(one, params)


def muon_dimensions(model: transformer.Config) -> Any:
    """Which axes of each weight Muon treats as a matrix's rows and columns; None leaves the weight to AdamW."""
    from optax.contrib import MuonDimensionNumbers

    def one(w: transformer.Weight) -> Any:
        if "vocab" in w.axes or not w.spread:
            return None
        held = [i for i, axis in enumerate(w.axes) if axis in ("layer", "expert")]  # each matrix of a stack by itself
        inputs = range(len(held), len(held) + w.inputs)
        inward = tuple(i for i, axis in enumerate(w.axes) if axis == "embed") or tuple(inputs)
        other = tuple(i for i in range(len(w.shape)) if i not in (*held, *inward))
        return MuonDimensionNumbers(inward, other)

    return jax.tree.map(one, transformer.weights(model), is_leaf=lambda x: isinstance(x, transformer.Weight))
