"""The fields of a Hugging Face config.json that the families share: read and written, and those that nothing reads."""

import math
from typing import Any

from rljax.errors import UserError

# Fields that do not change what a model computes. Any other field that is not read is named in a warning.
IGNORED_FIELDS = {
    *("architectures", "model_type", "transformers_version", "_name_or_path", "auto_map", "dtype", "torch_dtype"),
    *("use_cache", "initializer_range", "attention_dropout", "pretraining_tp", "cache_implementation", "hidden_act"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "output_router_logits", "router_aux_loss_coef", "aux_loss_alpha"),
    *("seq_aux", "ep_size", "num_key_value_heads", "_attn_implementation", "chunk_size_feed_forward", "return_dict"),
    *("output_attentions", "output_hidden_states", "is_encoder_decoder", "id2label", "label2id", "problem_type"),
    *("tokenizer_class", "task_specific_params", "max_window_layers", "sliding_window", "use_sliding_window"),
    *("default_theta", "head_dim", "qk_head_dim", "num_nextn_predict_layers", "num_mtp_layers", "moe_layer_freq"),
    "_sliding_window_pattern",
}
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
IGNORED_FIELDS |= {  # names of control tokens, and settings of generation that old files hold
    *(
        "unk_token_id",
        "sep_token_id",
        "cls_token_id",
        "mask_token_id",
        "decoder_start_token_id",
        "do_sample",
        "num_beams",
    ),
    *("temperature", "top_k", "top_p", "max_new_tokens", "repetition_penalty", "bad_words_ids", "suppress_tokens"),
}


class Fields:
    """The fields of a config.json. A call reads one field. A field that is null counts as missing."""

    def __init__(self, data: dict[str, Any], where: str):
        self.data, self.where, self.seen = data, where, set()

    def __call__(self, name: str, *default: Any) -> Any:
        """The field, or the default. Raises UserError for a missing field without a default."""
        self.seen.add(name)
        value = self.data.get(name)
        if value is None and not default:
            raise UserError(f"{self.where}: the field {name!r} is missing")
        return default[0] if value is None else value

    def get_nullable(self, name: str, default: Any) -> Any:
        """The field, None where it is null; the default only where it is missing."""
        self.seen.add(name)
        return self.data.get(name, default)

    def require(self, name: str, only: Any) -> None:
        """Raise UserError where a field has another value than the only one that is computed here."""
        value = self(name, only)
        if value != only:
            raise UserError(f"{self.where}: {name}={value!r} is not supported, only {only!r}")

    def unread_names(self) -> list[str]:
        """Names of the fields that nothing has read and that may change what the model computes."""
        return sorted(set(self.data) - self.seen - IGNORED_FIELDS)


def common_from_hf(
    f: Fields, *, activation: str = "hidden_act", head_width: int | None = None, tied: bool = False
) -> dict:
    """The fields that every family has, as keyword arguments of a ``Config``."""
    width, heads, act = f("hidden_size"), f("num_attention_heads"), f(activation, "silu")
    if act not in ACTIVATIONS:
        raise UserError(f"{f.where}: {activation}={act!r} is unknown, choose from {sorted(ACTIVATIONS)}")
    f.require("use_bidirectional_attention", False)
    return dict(
        vocab_size=f("vocab_size"),
        layers=f("num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=f("num_key_value_heads", heads),
        head_width=f("head_dim", head_width or width // heads),
        ff_width=f("intermediate_size"),
        max_length=f("max_position_embeddings"),
        activation=ACTIVATIONS[act],
        norm_eps=f("rms_norm_eps", 1e-6),
        tied_head=f("tie_word_embeddings", tied),
    )


def common_to_hf(c: Any) -> dict[str, Any]:
    """The inverse of ``common_from_hf``."""
    return dict(
        vocab_size=c.vocab_size,
        num_hidden_layers=c.layers,
        hidden_size=c.width,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_width,
        intermediate_size=c.ff_width,
        max_position_embeddings=c.max_length,
        hidden_act={"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}[c.activation],
        rms_norm_eps=c.norm_eps,
        tie_word_embeddings=c.tied_head,
    )


# Rotary positions


def rope_from_hf(
    f: Fields, kind: str = "", base: float = 10_000.0, legacy_base: str = "rope_theta"
) -> tuple[float, dict]:
    """(base, fields of the scaling) of all layers, or of the layers of one ``kind``; {} where nothing is scaled.

    Current files have ``rope_parameters``, one dict for each kind of layer where these differ. Older files have
    ``rope_theta`` and ``rope_scaling``, which wins where both exist.
    """
    old, new = f("rope_scaling", {}), f("rope_parameters", {})
    nested = any(isinstance(v, dict) for v in new.values())
    said = dict(new.get(kind) or {}) if nested else dict(new)
    if old and (kind != "sliding_attention"):
        said = ({"rope_theta": said["rope_theta"]} if "rope_theta" in said else {}) | old
    theta = said.pop("rope_theta", None)
    fallback = f(legacy_base, None)
    theta = theta if theta is not None else fallback if fallback is not None else base
    named = {said.pop(name) for name in ("rope_type", "type") if name in said}
    partial = said.pop("partial_rotary_factor", None) or f("partial_rotary_factor", 1.0)
    if partial != 1.0:
        raise UserError(f"{f.where}: partial_rotary_factor={partial} is not supported, only 1.0")
    rope_type = (named - {"default"} or {"default"}).pop()
    return float(theta), ({} if rope_type == "default" else {"rope_type": rope_type} | said)


def rope_scaling_from_hf(f: Fields, said: dict[str, Any]) -> tuple:
    """The fields of a scaling as ``Config.rope_scaling``. Raises UserError for an unknown kind."""
    if not said:
        return ()
    kind, factor = said["rope_type"], said.get("factor")
    original = said.get("original_max_position_embeddings") or f("max_position_embeddings")
    if kind == "linear" and factor:
        return ("linear", float(factor))
    if kind == "llama3" and factor:
        return ("llama3", float(factor), float(said["low_freq_factor"]), float(said["high_freq_factor"]), int(original))
    if kind == "yarn":
        factor = factor or f("max_position_embeddings") / original
        stretch = said.get("attention_factor")
        if stretch is None:
            every, some = said.get("mscale_all_dim"), said.get("mscale")
            stretch = (
                yarn_attention_factor(factor, some) / yarn_attention_factor(factor, every)
                if every and some
                else yarn_attention_factor(factor)
            )
        fast, slow = said.get("beta_fast") or 32, said.get("beta_slow") or 1
        whole = said.get("truncate", True)
        return ("yarn", float(factor), float(fast), float(slow), int(original), float(stretch), bool(whole))
    raise UserError(
        f"{f.where}: rope_type={kind!r} with factor={factor} is not supported, only linear, llama3 and yarn"
    )


def yarn_attention_factor(factor: float, m: float = 1.0) -> float:
    """YaRN's factor of sine and cosine (arXiv 2309.00071, section 3.4)."""
    return 0.1 * m * math.log(factor) + 1.0 if factor > 1 else 1.0


def rope_to_hf(base: float, scaled: tuple, **more: Any) -> dict[str, Any]:
    """``rope_parameters`` for a base and a ``Config.rope_scaling``."""
    out: dict[str, Any] = {"rope_type": scaled[0] if scaled else "default", "rope_theta": base}
    if scaled:
        out["factor"] = scaled[1]
    if out["rope_type"] == "llama3":
        out |= dict(low_freq_factor=scaled[2], high_freq_factor=scaled[3], original_max_position_embeddings=scaled[4])
    if out["rope_type"] == "yarn":
        out |= dict(beta_fast=scaled[2], beta_slow=scaled[3], original_max_position_embeddings=scaled[4])
        out |= dict(attention_factor=scaled[5], truncate=scaled[6])
    return out | more


def with_legacy_rope(parameters: dict[str, Any]) -> dict[str, Any]:
    """``rope_parameters``, and the fields ``rope_theta`` and ``rope_scaling`` that older readers look for."""
    scaled = {k: v for k, v in parameters.items() if k != "rope_theta"}
    old = {"rope_theta": parameters["rope_theta"]}
    if parameters["rope_type"] != "default":
        old["rope_scaling"] = scaled | {"type": parameters["rope_type"]}
    return {"rope_parameters": parameters} | old


def layer_types_to_hf(sliding: list[bool]) -> list[str]:
    """``layer_types`` of a config.json."""
    return ["sliding_attention" if s else "full_attention" for s in sliding]
