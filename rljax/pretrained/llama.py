"""Llama 3.x, and DeepSeek-R1-Distill-Llama."""

from typing import Any

from rljax.pretrained import config_fields, tensor_names
from rljax.pretrained.config_fields import Fields
from rljax.transformer import Config

ARCHITECTURES = {"llama": "LlamaForCausalLM"}


def config_from_hf(f: Fields) -> dict[str, Any]:
    base, said = config_fields.rope_from_hf(f)
    bias = f("attention_bias", False)
    return config_fields.common_from_hf(f) | dict(
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=f("mlp_bias", False),
        rope_base=base,
        rope_scaling=config_fields.rope_scaling_from_hf(f, said),
    )


def config_to_hf(c: Config, model_type: str) -> dict[str, Any]:
    out = config_fields.common_to_hf(c) | config_fields.with_legacy_rope(
        config_fields.rope_to_hf(c.rope_base, c.rope_scaling)
    )
    return out | dict(attention_bias=c.qkv_bias, mlp_bias=c.mlp_bias)


tensor_keys = tensor_names.dense_keys
