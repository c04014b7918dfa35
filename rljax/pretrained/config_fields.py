"""The fields of a Hugging Face config.json that the families share: read and written, and those that nothing reads."""

import math
from typing import Any

from rljax.errors import UserError

# Fields that do not change what a model computes. Any other field that is not read is named in a warning.
IGNORED_FIELDS = {
    *("architectures", "model_type", "transformers_version", "_name_or_path", "auto_map", "dtype", "torch_dtype"),
    *("use_cache", "initializer_range", "pretraining_tp", "cache_implementation", "tokenizer_class"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "output_router_logits", "router_aux_loss_coef", "aux_loss_alpha"),
    *("seq_aux", "ep_size", "_attn_implementation", "chunk_size_feed_forward", "return_dict", "default_theta"),
    *("output_attentions", "output_hidden_states", "id2label", "label2id", "problem_type", "task_specific_params"),
    *("num_nextn_predict_layers", "num_mtp_layers"),  # rljax.pretrained.folder reads them
    # Names of control tokens, and settings of generation that old files hold
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
HARMLESS_VALUES = {"attention_dropout": 0, "is_encoder_decoder": False}  # any other value is named in the warning
# Ranges of the fields that are numbers. A damaged one could otherwise ask for all memory before a tensor is looked at.
WIDTHS = dict.fromkeys(
    "hidden_size intermediate_size moe_intermediate_size head_dim num_attention_heads num_key_value_heads v_head_dim "
    "qk_nope_head_dim qk_rope_head_dim kv_lora_rank q_lora_rank".split(),
    (1, 1 << 24),
)
COUNTS = dict.fromkeys(
    "n_routed_experts num_experts num_experts_per_tok n_shared_experts first_k_dense_replace decoder_sparse_step "
    "max_window_layers n_group topk_group sliding_window_pattern".split(),
    (0, 1 << 20),
)
LENGTHS = dict.fromkeys("vocab_size max_position_embeddings original_max_position_embeddings".split(), (1, 1 << 31))
WHOLE_NUMBERS = WIDTHS | COUNTS | LENGTHS | {"num_hidden_layers": (1, 10_000), "sliding_window": (0, 1 << 31)}
POSITIVE_NUMBERS = ("rms_norm_eps", "rope_theta", "rope_local_base_freq", "query_pre_attn_scalar")
SWITCHES = (
    "tie_word_embeddings",
    "use_sliding_window",
    "attention_bias",
    "mlp_bias",
    "norm_topk_prob",
    "rope_interleave",
)
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


class Fields:
    """The fields of a config.json, or of an object inside it. A call reads one field. A field that is null counts as missing."""

    def __init__(self, data: dict[str, Any], where: str, path: str = ""):
        """``where``: the file, for messages. ``path``: the names of the objects around these fields, "rope_scaling." or ""."""
        self.data, self.where, self.path = data, where, path
        self.seen: set[str] = set()
        self.sections: dict[str, Fields] = {}

    def __call__(self, name: str, *default: Any) -> Any:
        """The field, or the default. Raises UserError for a missing field without a default."""
        self.seen.add(name)
        value = self.data.get(name)
        if value is None and not default:
            raise UserError(f"{self.where}: the field {self.path + name!r} is missing")
        if value is None:
            return default[0]
        if wanted := describe_wanted(name, value):
            raise UserError(f"{self.where}: {self.path}{name} must be {wanted}, not {str(value)[:40]!r}")
        return value

    def get_nullable(self, name: str, default: Any) -> Any:
        """The field, None where it is null; the default only where it is missing."""
        self.seen.add(name)
        return self.data.get(name, default)

    def section(self, name: str) -> "Fields":
        """The fields of the object ``name``, whose fields are then read one by one. Without fields where it is missing."""
        if name not in self.sections:
            value = self(name, {})
            if not isinstance(value, dict):
                raise TypeError(f"{self.path}{name} is no object")
            self.sections[name] = Fields(value, self.where, f"{self.path}{name}.")
        return self.sections[name]

    def require(self, name: str, only: Any) -> None:
        """Raise UserError where a field has another value than the only one that is computed here."""
        value = self(name, only)
        if value != only:
            raise UserError(f"{self.where}: {self.path}{name}={value!r} is not supported, only {only!r}")

    def confirm(self, name: str, value: Any) -> None:
        """Count a field as read where it repeats what another field said. One that says otherwise is named in the warning."""
        if self.data.get(name) == value:
            self.seen.add(name)

    def unread_names(self) -> list[str]:
        """Names of the fields that nothing has read and that may change what the model computes, with those inside objects."""
        out = []
        for name in sorted(self.data):
            value = self.data[name]
            if name in self.sections:
                out += self.sections[name].unread_names()
            elif name not in self.seen and value is not None and (self.path or not is_ignored(name, value)):
                out.append(self.path + name)
        return out


def describe_wanted(name: str, value: Any) -> str:
    """What a field must be, where it is not; else ""."""
    low, high = WHOLE_NUMBERS.get(name, (0, 0))
    if high and not (type(value) is int and low <= value <= high):
        return f"a whole number from {low} to {high}"
    if name in POSITIVE_NUMBERS and not (type(value) in (int, float) and 0 < value < 1e30):
        return "a positive number"
    return "true or false" if name in SWITCHES and type(value) is not bool else ""


def is_ignored(name: str, value: Any) -> bool:
    """Whether a field of config.json does not change what a model computes."""
    return name in IGNORED_FIELDS or (name in HARMLESS_VALUES and value == HARMLESS_VALUES[name])


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
) -> tuple[float, Fields | None]:
    """(base, fields of the scaling) of all layers, or of the layers of one ``kind``; None where nothing is scaled.

    Current files have ``rope_parameters``, one dict for each kind of layer where these differ. Older files have
    ``rope_theta`` and ``rope_scaling``, which wins where both exist. The other one is read only where it says the same.
    """
    old, new = f.section("rope_scaling"), f.section("rope_parameters")
    if any(isinstance(v, dict) for v in new.data.values()):
        new = new.section(kind)
    said = old if old.data and kind != "sliding_attention" else new
    stated = next((x for x in (said.data.get("rope_theta"), new.data.get("rope_theta")) if x is not None), None)
    theta = f(legacy_base, base) if stated is None else stated
    if wanted := describe_wanted("rope_theta", theta):
        raise UserError(f"{f.where}: rope_theta must be {wanted}, not {str(theta)[:40]!r}")
    for fields, name in ((said, "rope_theta"), (new, "rope_theta"), (f, legacy_base)):
        fields.confirm(name, theta)
    partial = said("partial_rotary_factor", None) or f("partial_rotary_factor", 1.0)
    if partial != 1.0:
        raise UserError(f"{f.where}: partial_rotary_factor={partial} is not supported, only 1.0")
    rope_type = rope_type_of(said)
    for name, value in old.data.items() if said is old else ():
        new.confirm(name, value)
    new.confirm("rope_type", rope_type)
    return float(theta), None if rope_type == "default" else said


def rope_type_of(said: Fields) -> str:
    """The kind of a scaling: ``rope_type``, or ``type`` in older files, which is read beside it only where it says the same."""
    rope_type = said("rope_type", None) or said("type", "default")
    said.confirm("type", rope_type)
    return rope_type


def rope_scaling_from_hf(f: Fields, said: Fields | None) -> tuple:
    """The fields of a scaling as ``Config.rope_scaling``. Raises UserError for an unknown kind."""
    if said is None:
        return ()
    kind, factor = rope_type_of(said), said("factor", None)
    if kind == "linear" and factor:
        return ("linear", float(factor))
    if kind in ("llama3", "yarn"):
        original = said("original_max_position_embeddings", None) or f("max_position_embeddings")
    if kind == "llama3" and factor:
        return ("llama3", float(factor), float(said("low_freq_factor")), float(said("high_freq_factor")), int(original))
    if kind == "yarn":
        factor = factor or f("max_position_embeddings") / original
        stretch = yarn_stretch_from_hf(said, factor)
        fast, slow = said("beta_fast", None) or 32, said("beta_slow", None) or 1
        whole = said("truncate", True)
        return ("yarn", float(factor), float(fast), float(slow), int(original), float(stretch), bool(whole))
    raise UserError(
        f"{f.where}: rope_type={kind!r} with factor={factor} is not supported, only linear, llama3 and yarn"
    )


def yarn_stretch_from_hf(said: Fields, factor: float) -> float:
    """The factor of sine and cosine of a YaRN scaling by ``factor``.

    It is ``attention_factor``, or else YaRN's own factor times ``attn_factor``. transformers does not read ``attn_factor``;
    vLLM and SGLang do, and DeepSeek-R1-0528-Qwen3-8B needs it: it undoes YaRN's factor there (0.878 x 1.139 = 1). ``mscale``
    and ``mscale_all_dim`` count together only, as in transformers.
    """
    derived = yarn_attention_factor(factor)
    if said.data.get("mscale") and said.data.get("mscale_all_dim"):
        derived = yarn_attention_factor(factor, said("mscale")) / yarn_attention_factor(factor, said("mscale_all_dim"))
    derived *= said.data.get("attn_factor") or 1.0
    stretch = said("attention_factor", derived)
    if math.isclose(stretch, derived, rel_tol=1e-9):
        said("attn_factor", None)
    return stretch


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
        attn_factor = scaled[5] / yarn_attention_factor(scaled[1])
        if not math.isclose(attn_factor, 1.0, rel_tol=1e-9):
            out["attn_factor"] = attn_factor  # the same for vLLM and SGLang, which do not read attention_factor
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
