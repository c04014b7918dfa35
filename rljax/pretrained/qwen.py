"""Qwen 2 and 2.5, DeepSeek-R1-Distill-Qwen, Qwen 3, and Qwen 3 with experts."""

from typing import Any

from rljax.pretrained import config_fields, tensor_names
from rljax.pretrained.config_fields import Fields
from rljax.transformer import Config

ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM"}


def config_from_hf(f: Fields) -> dict[str, Any]:
    model_type = f("model_type")
    f.require("use_mrope", False)
    base, said = config_fields.rope_from_hf(f)
    out = config_fields.common_from_hf(f, head_width=128 if model_type == "qwen3" else None)
    sliding = sliding_layers(f, out["layers"], model_type)
    out |= dict(
        rope_base=base,
        rope_scaling=config_fields.rope_scaling_from_hf(f, said),
        sliding=sliding if any(sliding) else (),
        window=f("sliding_window", 4096) if any(sliding) else None,
    )
    if model_type == "qwen2":
        return out | dict(qkv_bias=True)
    bias = f("attention_bias", False)
    out |= dict(qk_norm=True, qkv_bias=bias, out_bias=bias)
    if model_type == "qwen3":
        return out
    step, only_dense = f("decoder_sparse_step", 1), f("mlp_only_layers", [])
    routed = tuple((i + 1) % step == 0 and i not in only_dense for i in range(out["layers"]))
    experts = f("num_experts", f("num_local_experts", 128))
    return out | dict(
        experts=experts if any(routed) else 0,
        experts_per_token=f("num_experts_per_tok", 8),
        expert_width=f("moe_intermediate_size", 768),
        routed=() if all(routed) else routed,
        router_normalise=f("norm_topk_prob", False),
    )


def sliding_layers(f: Fields, layers: int, model_type: str) -> tuple[bool, ...]:
    """Which layers have a sliding window: none without ``use_sliding_window``; else as ``layer_types`` says, or the last.

    Qwen 3 with experts has no kinds of layers: all its layers slide, or none.
    """
    window = f.get_nullable("sliding_window", 4096)
    on = f("use_sliding_window", False) and window is not None
    kinds, first = f("layer_types", None), f("max_window_layers", 28)
    if model_type == "qwen3_moe":
        return (bool(on),) * layers
    if kinds is not None:
        return tuple(kind == "sliding_attention" for kind in kinds)
    return tuple(on and i >= first for i in range(layers))


def config_to_hf(c: Config, model_type: str) -> dict[str, Any]:
    sliding = [c.is_sliding(i) for i in range(c.layers)]
    out = config_fields.common_to_hf(c) | config_fields.with_legacy_rope(
        config_fields.rope_to_hf(c.rope_base, c.rope_scaling)
    )
    out |= dict(use_sliding_window=any(sliding), sliding_window=c.window if any(sliding) else None)
    if model_type != "qwen3_moe":
        first = sliding.index(True) if any(sliding) else c.layers
        out |= dict(layer_types=config_fields.layer_types_to_hf(sliding), max_window_layers=first)
    if model_type == "qwen2":
        return out
    out["attention_bias"] = c.qkv_bias
    if model_type == "qwen3":
        return out
    return out | dict(
        num_experts=c.experts,
        num_experts_per_tok=c.experts_per_token,
        moe_intermediate_size=c.expert_width,
        norm_topk_prob=c.router_normalise,
        decoder_sparse_step=1,
        mlp_only_layers=[i for i in range(c.layers) if not c.has_experts(i)],
    )


def tensor_keys(c: Config) -> dict[tensor_names.Path, tensor_names.TensorKey]:
    return tensor_names.dense_keys(c) | (tensor_names.expert_keys() if c.experts else {})
