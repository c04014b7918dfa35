"""The optimizer: an optax chain and a learning-rate schedule, built from options of the config."""

import dataclasses
import functools
import math
from typing import Any

import jax
import optax

from rljax import transformer
from rljax.errors import UserError
from rljax.learner.master_weights import with_master_weights
from rljax.options import defaults, option

SCHEDULES = ("constant", "linear", "cosine")
OPTIMIZERS = ("adamw", "muon", "sgd")
CLIP_SCOPES = ("group", "all")
UNUSED = {"sgd": ("b1", "b2", "eps")}  # options that an optimizer has no use for
LARGEST_BFLOAT16_DECAY = (
    0.995  # neighbours in bfloat16 differ by up to 1/128 of themselves, and half of it is rounded away
)


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """The options of an optimizer and its learning-rate schedule."""

    name: str = option(
        "adamw",
        "optimizer; muon moves the layers' matrices, adamw (with Nesterov momentum) the rest",
        choices=OPTIMIZERS,
    )
    learning_rate: jax.Array | float = option(1e-3, "peak learning rate", low=0.0)
    schedule: str = option(
        "cosine", "after the warm-up: constant, or falling to `final` times the peak", choices=SCHEDULES
    )
    warmup: int = option(20, "updates of linear warm-up", low=0)
    final: float = option(0.1, "learning rate at the end, as a share of the peak", low=0.0)
    b1: float = option(0.9, "adamw's decay of the first moment, below 1; muon's momentum is .95", low=0.0, high=1.0)
    b2: float = option(0.95, "adamw's decay of the second moment, below 1", low=0.0, high=1.0)
    eps: float = option(
        1e-8, "added to adamw's root of the second moment, and to the norm that muon divides by", above=0.0
    )
    weight_decay: float = option(0.01, "decoupled weight decay of matrices; norms and biases never decay", low=0.0)
    decay_embeddings: bool = option(True, "whether weight_decay also acts on the embedding and the head")
    clip_norm: float = option(1.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    clip_scope: str = option(
        "group", "whose norm is clipped: muon's and adamw's weights apart, or all together", choices=CLIP_SCOPES
    )
    moment_dtype: str = option(
        "", "dtype of adamw's first moment; '': float32, or wider weights' own", choices=("", "bfloat16", "float32")
    )
    offload: bool = option(False, "whether moments and master weights lie in host memory between updates")

    def check(self, where: str) -> None:
        """Raise UserError for settings that exclude each other. ``where`` is the prefix of their keys, as in "rl.optimizer."."""
        if self.moment_dtype and self.name != "adamw":
            raise UserError(
                f"{where}moment_dtype={self.moment_dtype!r} with name={self.name!r}: only adamw keeps its first moment in "
                "another dtype"
            )
        if self.moment_dtype == "bfloat16" and self.b1 > LARGEST_BFLOAT16_DECAY:
            raise UserError(
                f"{where}b1={self.b1!r} with moment_dtype='bfloat16': the first moment would never decay, because a change by 1 - b1 of "
                f"itself is less than bfloat16 can tell: use b1={LARGEST_BFLOAT16_DECAY} or less, or moment_dtype='float32'"
            )
        if self.offload and self.name == "sgd":
            raise UserError(f"{where}offload=True with name='sgd': it has no moments that could be offloaded")
        known = defaults(OptimizerOptions)
        for name in UNUSED.get(self.name, ()):
            if getattr(self, name) != known[name]:
                raise UserError(
                    f"{where}{name}={getattr(self, name)!r} with name={self.name!r}: it has no moments, leave {name} at "
                    f"{known[name]!r}"
                )
        if self.schedule == "constant" and self.final != known["final"]:
            raise UserError(
                f"{where}final={self.final!r} with schedule='constant': the learning rate never falls, leave final at "
                f"{known['final']!r} or choose linear or cosine"
            )
        for name in ("b1", "b2"):
            if getattr(self, name) >= 1.0:
                raise UserError(
                    f"{where}{name}={getattr(self, name)!r}: must be below 1, or the moment stays 0 for ever"
                )


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
    """Clipping by the norm, then AdamW, SGD with decoupled weight decay, or Muon.

    Parameters of fewer bits than float32 get master weights (``with_master_weights``). ``steps`` is the number of updates that
    the schedule spans. The learning rate may be a traced array. Raises UserError for options that exclude each other.
    """
    return with_master_weights(make_plain_optimizer(options, model, steps))


def make_plain_optimizer(
    options: OptimizerOptions, model: transformer.Config, steps: int
) -> optax.GradientTransformation:
    """``make_optimizer`` without master weights."""
    options.check("optimizer.")
    schedule, clip = make_schedule(options, steps), optax.clip_by_global_norm(options.clip_norm or math.inf)
    mask = functools.partial(decay_mask, embeddings=options.decay_embeddings)
    if options.name == "sgd":
        decay = optax.add_decayed_weights(options.weight_decay, mask)
        return optax.chain(clip, decay, optax.sgd(schedule))
    adam: dict[str, Any] = dict(b1=options.b1, b2=options.b2, eps=options.eps, weight_decay=options.weight_decay)
    if options.name == "adamw":
        return optax.chain(clip, optax.adamw(schedule, mask=mask, mu_dtype=options.moment_dtype or None, **adam))
    groups: dict[Any, Any] = {
        "muon": optax.contrib.muon(
            schedule,
            eps=options.eps,
            weight_decay=options.weight_decay,
            muon_weight_dimension_numbers=lambda params: muon_dimensions(model),
            consistent_rms=0.2,
        ),
        "adamw": optax.adamw(schedule, mask=mask, nesterov=True, **adam),
    }
    if options.clip_scope == "all":
        return optax.chain(clip, optax.partition(groups, lambda params: optimizer_groups(model)))
    # Muon's step does not depend on the size of its gradient. A huge gradient of one embedding, in a norm of all weights,
    # would scale the gradients of the matrices down to nothing.
    clipped: dict[Any, Any] = {name: optax.chain(clip, group) for name, group in groups.items()}
    return optax.partition(clipped, lambda params: optimizer_groups(model))


def decay_mask(params: Any, *, embeddings: bool = True) -> Any:
    """A pytree of bools: which weights decay. Matrices do, norms and biases do not, also where layers are stacked.

    The embedding and the head of the vocabulary decay only with ``embeddings``.
    """

    def decays(path: Any, x: jax.Array) -> bool:
        name = str(getattr(path[-1], "key", ""))
        return x.ndim > 1 and not name.endswith(("norm", "bias")) and (embeddings or name not in ("embedding", "head"))

    return jax.tree_util.tree_map_with_path(decays, params)


def optimizer_groups(model: transformer.Config) -> Any:
    """A pytree like the weights: "muon" for the matrices of the layers, "adamw" for all other weights."""
    from optax.contrib import MuonDimensionNumbers

    is_leaf = lambda x: x is None or isinstance(x, MuonDimensionNumbers)
    return jax.tree.map(lambda x: "adamw" if x is None else "muon", muon_dimensions(model), is_leaf=is_leaf)


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
