"""Architectures of published models, for measurements without their weights."""

from typing import Any

from rljax.transformer import Config

GEMMA: dict[str, Any] = dict(
    vocab_size=256_000,
    layers=26,
    width=2304,
    heads=8,
    kv_heads=4,
    head_width=256,
    ff_width=9216,
    max_length=8192,
    activation="gelu_tanh",
    norm_plus_one=True,
    post_norms=True,
    window=4096,
    sliding=(True, False),
    attention_scale=256**-0.5,
    attention_softcap=50.0,
    logit_softcap=30.0,
    tied_head=True,
    scale_embedding=True,
)
QWEN25: dict[str, Any] = dict(
    vocab_size=151_936, max_length=32_768, rope_base=1e6, qkv_bias=True, tied_head=True, kv_heads=2
)
QWEN3: dict[str, Any] = dict(
    vocab_size=151_936, max_length=40_960, rope_base=1e6, qk_norm=True, tied_head=True, kv_heads=8
)
QWEN3 |= dict(layers=28, heads=16, head_width=128)

SHAPES = {
    "gemma2_2b": Config(**GEMMA),
    "qwen25_0.5b": Config(**QWEN25, layers=24, width=896, heads=14, head_width=64, ff_width=4864),
    "qwen25_1.5b": Config(**QWEN25, layers=28, width=1536, heads=12, head_width=128, ff_width=8960),
    "qwen3_0.6b": Config(**QWEN3, width=1024, ff_width=3072),
    "qwen3_1.7b": Config(**QWEN3, width=2048, ff_width=6144),
}
