"""Configs of published models, with the values of their config.json. Planning and benchmarks use them without the weights."""

from typing import Any

from rljax.transformer import Config

GEMMA2: dict[str, Any] = dict(
    vocab_size=256_000,
    max_length=8192,
    activation="gelu_tanh",
    norm_plus_one=True,
    post_norms=True,
    window=4096,
    sliding=(True, False),
    attention_softcap=50.0,
    logit_softcap=30.0,
    tied_head=True,
    scale_embedding=True,
)
QWEN25: dict[str, Any] = dict(rope_base=1e6, qkv_bias=True)
QWEN25_SMALL: dict[str, Any] = QWEN25 | dict(vocab_size=151_936, max_length=32_768, tied_head=True, kv_heads=2)
QWEN25_LARGE: dict[str, Any] = QWEN25 | dict(vocab_size=152_064, max_length=131_072, head_width=128)
QWEN3: dict[str, Any] = dict(vocab_size=151_936, max_length=40_960, rope_base=1e6, qk_norm=True, head_width=128)
QWEN3_SMALL: dict[str, Any] = QWEN3 | dict(layers=28, heads=16, kv_heads=8, tied_head=True)
LLAMA3: dict[str, Any] = dict(
    vocab_size=128_256, max_length=8192, rope_base=500_000.0, kv_heads=8, head_width=128, norm_eps=1e-5
)
YARN_MSCALE = (
    1.3688879454113936  # 0.1 ln 40 + 1: with mscale_all_dim = 1, DeepSeek-V3 scales its attention by the square
)

PUBLISHED_MODELS = {
    "gemma2_2b": Config(
        **GEMMA2,
        layers=26,
        width=2304,
        heads=8,
        kv_heads=4,
        head_width=256,
        ff_width=9216,
        attention_scale=256**-0.5,
    ),
    "gemma2_9b": Config(
        **GEMMA2,
        layers=42,
        width=3584,
        heads=16,
        kv_heads=8,
        head_width=256,
        ff_width=14_336,
        attention_scale=256**-0.5,
    ),
    "gemma2_27b": Config(
        **GEMMA2,
        layers=46,
        width=4608,
        heads=32,
        kv_heads=16,
        head_width=128,
        ff_width=36_864,
        attention_scale=144**-0.5,
    ),
    "qwen25_0.5b": Config(**QWEN25_SMALL, layers=24, width=896, heads=14, head_width=64, ff_width=4864),
    "qwen25_1.5b": Config(**QWEN25_SMALL, layers=28, width=1536, heads=12, head_width=128, ff_width=8960),
    "qwen25_7b": Config(**QWEN25_LARGE, layers=28, width=3584, heads=28, kv_heads=4, ff_width=18_944),
    "qwen25_14b": Config(**QWEN25_LARGE, layers=48, width=5120, heads=40, kv_heads=8, ff_width=13_824, norm_eps=1e-5),
    "qwen25_32b": Config(**QWEN25_LARGE, layers=64, width=5120, heads=40, kv_heads=8, ff_width=27_648, norm_eps=1e-5),
    "qwen3_0.6b": Config(**QWEN3_SMALL, width=1024, ff_width=3072),
    "qwen3_1.7b": Config(**QWEN3_SMALL, width=2048, ff_width=6144),
    "qwen3_30b_a3b": Config(
        **QWEN3,
        layers=48,
        width=2048,
        heads=32,
        kv_heads=4,
        ff_width=6144,
        experts=128,
        experts_per_token=8,
        expert_width=768,
    ),
    "llama3_8b": Config(**LLAMA3, layers=32, width=4096, heads=32, ff_width=14_336),
    "llama3_70b": Config(**LLAMA3, layers=80, width=8192, heads=64, ff_width=28_672),
    "deepseek_v3_671b": Config(  # without its multi-token prediction layer
        vocab_size=129_280,
        layers=61,
        width=7168,
        heads=128,
        kv_heads=128,
        head_width=192,
        ff_width=18_432,
        max_length=163_840,
        rope_scaling=("yarn", 40.0, 32.0, 1.0, 4096, 1.0, True),
        attention_scale=192**-0.5 * YARN_MSCALE**2,
        latent=512,
        query_latent=1536,
        rope_width=64,
        value_width=128,
        experts=256,
        experts_per_token=8,
        expert_width=2048,
        shared_width=2048,
        routed=(False,) * 3 + (True,) * 58,
        router="sigmoid",
        router_scale=2.5,
        router_groups=8,
        router_top_groups=4,
    ),
}
