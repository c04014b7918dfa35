"""The optimizer: an optax chain and a learning-rate schedule, built from options of the config."""

import dataclasses
import math
from typing import Any

import jax
import optax

from rljax import transformer
from rljax.errors import UserError
from rljax.options import option

SCHEDULES = ("constant", "linear", "cosine")
OPTIMIZERS = ("adamw", "muon", "sgd")


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """The options of an optimizer and its learning-rate schedule."""

    name: str = option("adamw", "optimizer; muon moves the layers' matrices, adamw the rest", choices=OPTIMIZERS)
    learning_rate: jax.Array | float = option(1e-3, "peak learning rate", low=0.0)
    schedule: str = option(
        "cosine", "after the warm-up: constant, or falling to `final` times the peak", choices=SCHEDULES
    )
    warmup: int = option(20, "updates of linear warm-up", low=0)
    final: float = option(0.1, "learning rate at the end, as a share of the peak", low=0.0)
    b1: float = option(0.9, "decay of the first moment", low=0.0, high=1.0)
    b2: float = option(0.95, "decay of the second moment", low=0.0, high=1.0)
    eps: float = option(1e-8, "added to the root of the second moment", low=0.0)
    weight_decay: float = option(0.01, "decoupled weight decay of matrices; norms and biases never decay", low=0.0)
    clip_norm: float = option(1.0, "largest norm of the whole gradient; 0: no clipping", low=0.0)
    moment_dtype: str = option(
        "", "dtype of adamw's first moment; '': as the weights", choices=("", "bfloat16", "float32")
    )
    offload: bool = option(False, "whether moments lie in host memory between updates")

    def check(self, where: str) -> None:
        """Raise UserError for settings that exclude each other. ``where`` is the prefix of their keys, as in "rl.optimizer."."""
        if self.moment_dtype and self.name != "adamw":
            raise UserError(
                f"{where}moment_dtype={self.moment_dtype!r} with name={self.name!r}: only adamw keeps its first moment in "
                "another dtype"
            )
        if self.offload and self.name == "sgd":
            raise UserError(f"{where}offload=True with name='sgd': it has no moments that could be offloaded")


def make_schedule(options: OptimizerOptions, steps: int) -> optax.Schedule:
    """The learning rate of each update: linear warm-up, then constant, linear or cosine over the rest of ``steps`` updates."""
    peak, warmup = options.learning_rate, options.warmup
    rest = max(steps - warmup, 1)
    shapes = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, peak * options.final, rest),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, options.final),
    }
    if not warmup:
        return shapes[options.schedule]()
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), shapes[options.schedule]()], [warmup])


def make_optimizer(options: OptimizerOptions, model: transformer.Config, steps: int) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW, SGD, or Muon (on the layers' matrices; AdamW on the other weights).

    ``steps`` is the number of updates that the schedule spans. The learning rate may be a traced array.
    """
    schedule = make_schedule(options, steps)
    adam: dict[str, Any] = dict(b1=options.b1, b2=options.b2, eps=options.eps, weight_decay=options.weight_decay)
    optimizers = {
        "adamw": lambda: optax.adamw(schedule, mask=decay_mask, mu_dtype=options.moment_dtype or None, **adam),
        "muon": lambda: optax.contrib.muon(
            schedule,
            weight_decay=options.weight_decay,
            adam_b1=options.b1,
            adam_b2=options.b2,
            muon_weight_dimension_numbers=lambda params: muon_dimensions(model),
            consistent_rms=0.2,
        ),
        "sgd": lambda: optax.sgd(schedule),
    }
    return optax.chain(optax.clip_by_global_norm(options.clip_norm or math.inf), optimizers[options.name]())


def decay_mask(params: Any) -> Any:
    """A pytree of bools: which weights decay. Matrices do, norms and biases do not, also where layers are stacked."""

    def decays(path: Any, x: jax.Array) -> bool:
        name = str(getattr(path[-1], "key", ""))
        return x.ndim > 1 and not name.endswith(("norm", "bias"))

    return jax.tree_util.tree_map_with_path(decays, params)


def muon_dimensions(model: transformer.Config) -> Any:
    """A pytree of MuonDimensionNumbers: the axes that Muon treats as a matrix's rows and columns. None: AdamW moves it."""
    from optax.contrib import MuonDimensionNumbers

    def dimensions(w: transformer.WeightSpec) -> Any:
        if "vocab" in w.axes or not w.init_std:
            return None
        batch_axes = [i for i, axis in enumerate(w.axes) if axis in ("layer", "expert")]  # a stack of matrices
        inputs = range(len(batch_axes), len(batch_axes) + w.input_axes)
        reduction = tuple(i for i, axis in enumerate(w.axes) if axis == "embed") or tuple(inputs)
        output = tuple(i for i in range(len(w.shape)) if i not in (*batch_axes, *reduction))
        return MuonDimensionNumbers(reduction, output)

    return jax.tree.map(
        dimensions, transformer.weight_specs(model), is_leaf=lambda x: isinstance(x, transformer.WeightSpec)
    )
