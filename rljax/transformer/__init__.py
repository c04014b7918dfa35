"""A decoder-only transformer as pure functions over a pytree of parameters.

One attention serves every family: RMSNorm (also ``1 + w``), RoPE (base and scaling, one base for global and one for
sliding layers), grouped queries, QK-norm, biases, SwiGLU or GeGLU, tied or untied head, soft-caps, sliding windows by
layer, norms before and after a block, scaled embeddings. Beside it stand two rooms that a config opens: heads that keep a
latent (``latent.py``), and mixtures of experts (``experts.py``). A model family is a ``Config``.

Letters: B rows, S columns, D width, H query heads, K key/value heads, R = H / K queries a key head serves, E head
width, F feed-forward width, V vocabulary. Weights are stored as ``[in, ..., out]``. Every dot
accumulates in float32; logits appear, and the log-softmax is taken, in float32 whatever the activations are.
"""

from rljax.transformer.attention import check_devices
from rljax.transformer.config import Config, Params, Weight, count, init, logical_axes, stack, unstack, weights
from rljax.transformer.decoding import Cache, decode, grow, prefill
from rljax.transformer.layout import Layout
from rljax.transformer.sequence import features, forward, positions_of, token_logprobs
from rljax.transformer.weight_formats import LIGHTER, Adapted, Int8, laid_out, lighter, stored_shardings

__all__ = [
    "Adapted",
    "Cache",
    "Config",
    "Int8",
    "LIGHTER",
    "Layout",
    "Params",
    "Weight",
    "check_devices",
    "count",
    "decode",
    "features",
    "forward",
    "grow",
    "init",
    "laid_out",
    "lighter",
    "logical_axes",
    "positions_of",
    "prefill",
    "stack",
    "stored_shardings",
    "token_logprobs",
    "unstack",
    "weights",
]
