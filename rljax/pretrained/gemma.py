"""Gemma 2, and the text part of Gemma 3."""

from typing import Any

from rljax.errors import UserError
from rljax.pretrained import config_fields, tensor_names
from rljax.pretrained.config_fields import Fields
from rljax.transformer import Config

ARCHITECTURES = {"gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM"}
CAPS = {
    "gemma2": (50.0, 30.0),
    "gemma3_text": (None, None),
}  # soft-caps of the attention and of the logits, where a file does not say
GELU_NAMES = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
# Fields that the files of the larger models leave out: the defaults of transformers
DEFAULT_FIELDS = dict(num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=131_072, vocab_size=262_208)


def config_from_hf(f: Fields) -> dict[str, Any]:
    model_type = f("model_type")
    if model_type == "gemma3_text":
        f.data = DEFAULT_FIELDS | {
            name: value for name, value in f.data.items() if value is not None or name not in DEFAULT_FIELDS
        }
    out = config_fields.common_from_hf(f, activation="hidden_activation", head_width=256, tied=True)
    if "hidden_activation" not in f.data:
        out["activation"] = "gelu_tanh"
    if f.data.get("hidden_act") in GELU_NAMES:
        f("hidden_act")  # older files mean the tanh form by each of these names
    bias = f("attention_bias", False)
    caps = CAPS[model_type]
    sliding, window = sliding_layers(f, out["layers"], 2 if model_type == "gemma2" else 6), f("sliding_window", 4096)
    out |= dict(
        norm_plus_one=True,
        post_norms=True,
        scale_embedding=True,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=model_type == "gemma3_text",
        attention_scale=f("query_pre_attn_scalar", 256) ** -0.5,
        attention_softcap=f.get_nullable("attn_logit_softcapping", caps[0]),
        logit_softcap=f.get_nullable("final_logit_softcapping", caps[1]),
        sliding=sliding if any(sliding) else (),
        window=window if any(sliding) else None,
    )
    if model_type == "gemma2":
        base, said = config_fields.rope_from_hf(f)
        return out | dict(rope_base=base, rope_scaling=config_fields.rope_scaling_from_hf(f, said))
    base, said = config_fields.rope_from_hf(f, "full_attention", 1_000_000.0)
    local, scaled = config_fields.rope_from_hf(f, "sliding_attention", 10_000.0, "rope_local_base_freq")
    if scaled is not None:
        raise UserError(f"{f.where}: scaled rotary positions of sliding layers are not supported")
    return out | dict(
        rope_base=base,
        rope_scaling=config_fields.rope_scaling_from_hf(f, said),
        rope_base_sliding=local if any(sliding) else None,
    )


def sliding_layers(f: Fields, layers: int, pattern: int) -> tuple[bool, ...]:
    """Which layers have a sliding window: as ``layer_types`` says, else all but every ``pattern``-th."""
    kinds, pattern = f("layer_types", None), f("sliding_window_pattern", pattern)
    if kinds is not None:
        f("_sliding_window_pattern", None)  # transformers writes it beside layer_types
        return tuple(kind == "sliding_attention" for kind in kinds)
    return tuple(bool((i + 1) % pattern) for i in range(layers))


def config_to_hf(c: Config, model_type: str) -> dict[str, Any]:
    scale = c.attention_scale or c.head_width**-0.5
    square = float(f"{scale**-2:.12g}")
    out = config_fields.common_to_hf(c) | dict(
        attention_bias=c.qkv_bias,
        query_pre_attn_scalar=int(square) if square == int(square) else square,
        attn_logit_softcapping=c.attention_softcap,
        final_logit_softcapping=c.logit_softcap,
        sliding_window=c.window or 4096,
        layer_types=config_fields.layer_types_to_hf([c.is_sliding(i) for i in range(c.layers)]),
    )
    out["hidden_activation"] = out["hidden_act"]
    parameters = config_fields.rope_to_hf(c.rope_base, c.rope_scaling)
    if model_type == "gemma2":
        return out | config_fields.with_legacy_rope(parameters)
    local = config_fields.rope_to_hf(c.rope_base_sliding or 10_000.0, ())
    out |= config_fields.with_legacy_rope(parameters) | {"rope_local_base_freq": local["rope_theta"]}
    return out | {"rope_parameters": {"full_attention": parameters, "sliding_attention": local}}


def tensor_keys(c: Config) -> dict[tensor_names.Path, tensor_names.TensorKey]:
    return tensor_names.dense_keys(c) | {
        ("attention_post_norm",): tensor_names.TensorKey("post_attention_layernorm.weight"),
        ("mlp_norm",): tensor_names.TensorKey("pre_feedforward_layernorm.weight"),
        ("mlp_post_norm",): tensor_names.TensorKey("post_feedforward_layernorm.weight"),
    }
