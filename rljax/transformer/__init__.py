"""A decoder-only transformer as pure functions over a pytree of parameters. A model family is one ``Config``.

    config.py              Config: the architecture
    parameters.py          init, and the shape, logical axes and initial values of every weight
    sequence.py            forward, hidden_states: whole sequences at once
    packed_sequences.py    prompts and responses one behind the other, without padding
    scoring.py             token_logprobs: the log-probability of each token, and the entropy
    decoding.py            prefill, grow_cache, decode: one token at a time, with a cache
    layer.py               one layer: its attention, what it caches, its feed-forward block
    attention.py           scores, softmax and mixing: RoPE, grouped queries, QK-norm, sliding windows, soft-caps
    latent_attention.py    multi-head latent attention (DeepSeek)
    mixture_of_experts.py  routed and shared experts
    splash.py              attention by the TPU's Pallas kernel
    blocks.py              RMSNorm, RoPE, the dense block, embedding and head
    products.py            products whose backward pass runs in the dtype of the forward pass
    grouped_products.py    the products of experts: one matrix for each group of rows
    weight_formats.py      a matrix as an array, as int8, or with a LoRA change beside it
    layout.py              the device mesh, and how arrays are sharded over it
    lora.py                low-rank adapters: the only parameters that learn
    value_head.py          the critic of PPO

Letters in shapes: B rows, S columns, D width, H query heads, K key/value heads, R = H / K query heads for each key head,
E head width, F feed-forward width, V vocabulary. A weight has the shape ``[in, ..., out]``. Every matrix product
accumulates in float32. Logits and log-softmax are float32, whatever the dtype of the activations is.
"""

from rljax.transformer.attention import check_attention_kernel
from rljax.transformer.config import PACKED_ATTENTION, Config, Params
from rljax.transformer.decoding import Cache, decode, grow_cache, prefill
from rljax.transformer.layout import Layout
from rljax.transformer.packed_sequences import PackedSequences
from rljax.transformer.parameters import (
    WeightSpec,
    count,
    init,
    logical_axes,
    stack_layers,
    unstack_layers,
    weight_specs,
)
from rljax.transformer.scoring import packed_token_logprobs, token_logprobs
from rljax.transformer.sequence import forward, hidden_states, token_positions
from rljax.transformer.weight_formats import (
    WEIGHT_FORMATS,
    Int8Matrix,
    LoraMatrix,
    constrain_params,
    param_shardings,
    quantize_params,
)

__all__ = [
    "PACKED_ATTENTION",
    "WEIGHT_FORMATS",
    "Cache",
    "Config",
    "Int8Matrix",
    "Layout",
    "LoraMatrix",
    "PackedSequences",
    "Params",
    "WeightSpec",
    "check_attention_kernel",
    "constrain_params",
    "count",
    "decode",
    "forward",
    "grow_cache",
    "hidden_states",
    "init",
    "logical_axes",
    "packed_token_logprobs",
    "param_shardings",
    "prefill",
    "quantize_params",
    "stack_layers",
    "token_logprobs",
    "token_positions",
    "unstack_layers",
    "weight_specs",
]
