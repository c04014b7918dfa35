"""Llama 3.x, and DeepSeek-R1-Distill-Llama."""

from typing import Any

from rljax.pretrained import fields, keys
from rljax.pretrained.fields import Fields
from rljax.transformer import Config

ARCHITECTURES = {"llama": "LlamaForCausalLM"}


def read(f: Fields) -> dict[str, Any]:
    base, said = fields.rope(f)
    bias = f("attention_bias", False)
    return fields.common(f) | dict(
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=f("mlp_bias", False),
        rope_base=base,
        rope_scaling=fields.scaling(f, said),
    )


def write(c: Config, model_type: str) -> dict[str, Any]:
    out = fields.written(c) | fields.both_forms(fields.rope_written(c.rope_base, c.rope_scaling))
    return out | dict(attention_bias=c.qkv_bias, mlp_bias=c.mlp_bias)


KEYS = keys.dense
