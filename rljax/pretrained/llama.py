"""Llama 3.x, and DeepSeek-R1-Distill-Llama."""

from typing import Any

from rljax.pretrained import config_fields, tensor_names
from rljax.pretrained.config_fields import Fields
from rljax.transformer import Config

ARCHITECTURES = {"llama": "LlamaForCausalLM"}


def read(f: Fields) -> dict[str, Any]:
    base, said = config_fields.rope(f)
    bias = f("attention_bias", False)
    return config_fields.common(f) | dict(
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=f("mlp_bias", False),
        rope_base=base,
        rope_scaling=config_fields.scaling(f, said),
    )


def write(c: Config, model_type: str) -> dict[str, Any]:
    out = config_fields.written(c) | config_fields.both_forms(config_fields.rope_written(c.rope_base, c.rope_scaling))
    return out | dict(attention_bias=c.qkv_bias, mlp_bias=c.mlp_bias)


KEYS = tensor_names.dense
