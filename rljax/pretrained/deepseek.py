"""DeepSeek-V3, the architecture of DeepSeek-R1: latent attention, shared and routed experts, YaRN."""

import math
from typing import Any

import numpy as np

from rljax.pretrained import config_fields, tensor_names
from rljax.pretrained.config_fields import Fields, yarn_attention_factor
from rljax.transformer import Config

ARCHITECTURES = {"deepseek_v3": "DeepseekV3ForCausalLM"}


def config_from_hf(f: Fields) -> dict[str, Any]:
    f.require("topk_method", "noaux_tc")
    f.require("scoring_func", "sigmoid")
    f.require("moe_layer_freq", 1)
    base, said = config_fields.rope_from_hf(f)
    out = config_fields.common_from_hf(f)
    plain, rotated = f("qk_nope_head_dim", 128), f("qk_rope_head_dim", 64)
    f("rope_interleave", True)
    f.confirm("qk_head_dim", plain + rotated)
    routed = tuple(i >= f("first_k_dense_replace", 3) for i in range(out["layers"]))
    scaled, scale, every = (
        config_fields.rope_scaling_from_hf(f, said),
        (plain + rotated) ** -0.5,
        said("mscale_all_dim", None) if said else None,
    )
    bias, experts = f("attention_bias", False), f("n_routed_experts", 256)
    return out | dict(
        kv_heads=out["heads"],
        head_width=plain + rotated,
        rope_base=base,
        rope_scaling=scaled,
        attention_scale=scale * yarn_attention_factor(scaled[1], every) ** 2 if every else None,
        qkv_bias=bias,
        out_bias=bias,
        latent=f("kv_lora_rank", 512),
        query_latent=f.get_nullable("q_lora_rank", 1536) or 0,
        rope_width=rotated,
        value_width=f("v_head_dim", 128),
        experts=experts if any(routed) else 0,
        experts_per_token=f("num_experts_per_tok", 8),
        expert_width=f("moe_intermediate_size", 2048),
        shared_width=f("moe_intermediate_size", 2048) * f("n_shared_experts", 1),
        routed=() if all(routed) else routed,
        router="sigmoid",
        router_normalise=f("norm_topk_prob", True),
        router_scale=f("routed_scaling_factor", 2.5),
        router_groups=f("n_group", 8),
        router_top_groups=f("topk_group", 4),
    )


def config_to_hf(c: Config, model_type: str) -> dict[str, Any]:
    routed = [c.has_experts(i) for i in range(c.layers)]
    out = config_fields.common_to_hf(c) | dict(
        head_dim=c.rope_width,
        qk_nope_head_dim=c.head_width - c.rope_width,
        qk_rope_head_dim=c.rope_width,
        v_head_dim=c.value_width,
        kv_lora_rank=c.latent,
        q_lora_rank=c.query_latent or None,
        rope_interleave=True,
        attention_bias=c.qkv_bias,
        first_k_dense_replace=routed.index(True) if any(routed) else c.layers,
        moe_intermediate_size=c.expert_width or 1,
        n_shared_experts=c.shared_width // max(c.expert_width, 1),
        n_routed_experts=c.experts or 1,
        num_experts_per_tok=c.experts_per_token,
        norm_topk_prob=c.router_normalise,
        routed_scaling_factor=c.router_scale,
        n_group=c.router_groups,
        topk_group=c.router_top_groups,
        topk_method="noaux_tc",
        scoring_func="sigmoid",
        num_nextn_predict_layers=0,
    )
    more = {}
    if c.rope_scaling[:1] == ("yarn",) and c.attention_scale is not None:
        # other readers compute the attention scale from mscale_all_dim, and the factor of sine and cosine from mscale
        log = 0.1 * math.log(c.rope_scaling[1])
        sharp = (c.attention_scale * c.head_width**0.5) ** 0.5
        exact = lambda x: float(f"{x:.12g}")
        more = dict(mscale_all_dim=exact((sharp - 1) / log), mscale=exact((c.rope_scaling[5] * sharp - 1) / log))
    parameters = config_fields.rope_to_hf(c.rope_base, c.rope_scaling, **more)
    if more:
        del parameters["attention_factor"]
        parameters.pop("attn_factor", None)
    return out | config_fields.with_legacy_rope(parameters)


def tensor_keys(c: Config, interleaved: bool = True) -> dict[tensor_names.Path, tensor_names.TensorKey]:
    """``interleaved``: the two elements of a rotated pair are neighbours in the file; here they are half a head apart."""
    pairs = np.arange(c.rope_width)
    if interleaved:
        pairs = np.concatenate([pairs[0::2], pairs[1::2]])
    order = lambda before: np.concatenate([np.arange(before), before + pairs])
    head, down = order(c.head_width - c.rope_width), order(c.latent)
    out = {path: key for path, key in tensor_names.dense_keys(c).items() if path[0] not in ("key", "value")}
    return (
        out
        | {
            ("query", "kernel"): tensor_names.TensorKey("self_attn.q_proj.weight", head),
            ("query_down", "kernel"): tensor_names.TensorKey("self_attn.q_a_proj.weight"),
            ("query_down", "bias"): tensor_names.TensorKey("self_attn.q_a_proj.bias"),
            ("query_latent_norm",): tensor_names.TensorKey("self_attn.q_a_layernorm.weight"),
            ("query_up", "kernel"): tensor_names.TensorKey("self_attn.q_b_proj.weight", head),
            ("kv_down", "kernel"): tensor_names.TensorKey("self_attn.kv_a_proj_with_mqa.weight", down),
            ("kv_down", "bias"): tensor_names.TensorKey("self_attn.kv_a_proj_with_mqa.bias", down),
            ("kv_latent_norm",): tensor_names.TensorKey("self_attn.kv_a_layernorm.weight"),
            ("kv_up", "kernel"): tensor_names.TensorKey("self_attn.kv_b_proj.weight"),
            ("router", "bias"): tensor_names.TensorKey("mlp.gate.e_score_correction_bias"),
        }
        | tensor_names.expert_keys()
        | tensor_names.feed_forward_keys("mlp.shared_experts.", ("shared",))
    )
