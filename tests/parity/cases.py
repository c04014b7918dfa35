"""The models compared with transformers: three or more a family, and one more for every field that changes logits.

``CASES`` maps a name to {"family", "config", "base"}: ``config`` holds the fields of a config.json as transformers 5
spells them, ``base`` is None for a main case ("qwen2/a") and for a variant ("qwen2/a:rms_norm_eps") the main case from
which it differs in that one field (with a second one only where the first cannot change alone). The cases named
"x/defaults" say nothing but sizes: what a config.json leaves out means transformers' default. Everything is tiny, and
numbers are chosen so that each field shows: windows shorter than the row of tokens, a ramp of yarn that ends inside the
head, an epsilon beside which the mean square is not everything.
"""

import copy
from typing import Any

Fields = dict[str, Any]
DTYPE = {"dtype": "float32"}  # as the fixtures' weights are; other ones are tested live and in sharded_folder

# ---------------------------------------------------------------------------------------------------------------------
# Ropes.


def default(theta: float) -> Fields:
    return {"rope_type": "default", "rope_theta": theta}


def linear(theta: float, factor: float) -> Fields:
    return {"rope_type": "linear", "rope_theta": theta, "factor": factor}


def llama3(theta: float) -> Fields:
    return default(theta) | {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }


def yarn(theta: float, original: int | None = 64, **more: Any) -> Fields:
    rope = default(theta) | {"rope_type": "yarn", "factor": 4.0}
    return rope | ({"original_max_position_embeddings": original} if original else {}) | more


# ---------------------------------------------------------------------------------------------------------------------
# Main cases. Those of a family differ from each other in every field that matters.

LLAMA: Fields = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_parameters": default(10_000.0),
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
}
QWEN2: Fields = {
    "model_type": "qwen2",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_parameters": default(10_000.0),
    "use_sliding_window": False,
    "sliding_window": 5,  # not used: as in the hub's files, which give one and switch it off
    "max_window_layers": 1,
    "tie_word_embeddings": True,
}
QWEN3: Fields = QWEN2 | {"model_type": "qwen3", "head_dim": 12, "attention_bias": False}
GEMMA2: Fields = {
    "model_type": "gemma2",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_parameters": default(10_000.0),
    "attention_bias": False,
    "query_pre_attn_scalar": 8,
    "sliding_window": 4,
    "final_logit_softcapping": 5.0,
    "attn_logit_softcapping": 2.0,
}
GEMMA3: Fields = {
    "model_type": "gemma3_text",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"full_attention": default(100_000.0), "sliding_attention": default(10_000.0)},
    "attention_bias": False,
    "query_pre_attn_scalar": 8,
    "sliding_window": 4,
    "sliding_window_pattern": 2,
}
MOE: Fields = {
    "model_type": "qwen3_moe",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_parameters": default(10_000.0),
    "attention_bias": False,
    "use_sliding_window": False,
    "sliding_window": 5,
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 8,
    "num_experts_per_tok": 2,
    "num_experts": 4,
    "norm_topk_prob": True,
    "mlp_only_layers": [],
    "tie_word_embeddings": False,
}
DEEPSEEK: Fields = {
    "model_type": "deepseek_v3",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "moe_intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_shared_experts": 1,
    "n_routed_experts": 8,
    "routed_scaling_factor": 2.5,
    "kv_lora_rank": 10,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 4,
    "qk_nope_head_dim": 6,
    "n_group": 4,
    "topk_group": 2,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_parameters": yarn(100.0, beta_fast=4, beta_slow=1, mscale=1.0, mscale_all_dim=0.6),
    "rope_interleave": True,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
}
# What b and c have in common against a.
WIDER = {
    "vocab_size": 36,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-2,
}
OTHER = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "hidden_act": "gelu",
    "rms_norm_eps": 1e-3,
}


def gemma(sizes: Fields) -> Fields:
    """``sizes`` with the activation under Gemma's name."""
    return {k: v for k, v in sizes.items() if k != "hidden_act"} | {"hidden_activation": sizes["hidden_act"]}


MAIN: dict[str, Fields] = {
    "llama/a": LLAMA,
    "llama/b": LLAMA
    | WIDER
    | {"head_dim": 8, "rope_parameters": llama3(100.0), "attention_bias": True, "mlp_bias": True}
    | {"tie_word_embeddings": True},
    "llama/c": LLAMA | OTHER | {"rope_parameters": yarn(100.0, attention_factor=1.5), "mlp_bias": True},
    "llama/d": LLAMA | {"rope_parameters": linear(50.0, 4.0), "attention_bias": True, "num_key_value_heads": 1},
    "qwen2/a": QWEN2,
    "qwen2/b": QWEN2
    | WIDER
    | {"rope_parameters": yarn(100.0, None), "use_sliding_window": True, "sliding_window": 4}
    | {"tie_word_embeddings": False},
    "qwen2/c": QWEN2
    | OTHER
    | {"rope_parameters": llama3(100.0), "use_sliding_window": True, "sliding_window": 3}
    | {"layer_types": ["sliding_attention", "full_attention"]},  # no number of layers says this
    "qwen3/a": QWEN3 | {"rope_parameters": linear(50.0, 4.0)},
    "qwen3/b": QWEN3
    | WIDER
    | {"head_dim": 8, "rope_parameters": yarn(100.0, beta_fast=4, beta_slow=1.5, truncate=False)}
    | {"attention_bias": True, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
    | {"tie_word_embeddings": False},
    "qwen3/c": QWEN3
    | OTHER
    | {"head_dim": 12, "rope_parameters": llama3(1_000.0), "use_sliding_window": True, "sliding_window": 3}
    | {"layer_types": ["sliding_attention", "full_attention"]},
    "gemma2/a": GEMMA2,
    "gemma2/b": GEMMA2
    | gemma(WIDER)
    | {"head_dim": 8, "rope_parameters": linear(500.0, 4.0), "attention_bias": True, "query_pre_attn_scalar": 4}
    | {"sliding_window": 6, "final_logit_softcapping": 3.0, "attn_logit_softcapping": None}
    | {"layer_types": ["full_attention", "full_attention", "sliding_attention"], "tie_word_embeddings": False},
    "gemma2/c": GEMMA2
    | gemma(OTHER)
    | {"head_dim": 12, "rope_parameters": yarn(100.0, attention_factor=1.2), "query_pre_attn_scalar": 24}
    | {"hidden_activation": "silu", "sliding_window": 3}
    | {"final_logit_softcapping": None, "attn_logit_softcapping": 1.0},
    "gemma3_text/a": GEMMA3,
    "gemma3_text/b": GEMMA3
    | gemma(WIDER)
    | {"head_dim": 8, "attention_bias": True, "query_pre_attn_scalar": 4, "sliding_window": 6}
    | {"rope_parameters": {"full_attention": linear(500.0, 4.0), "sliding_attention": default(50.0)}}
    | {"sliding_window_pattern": 3, "final_logit_softcapping": 3.0, "tie_word_embeddings": False},
    "gemma3_text/c": GEMMA3
    | gemma(OTHER)
    | {"head_dim": 12, "query_pre_attn_scalar": 24, "hidden_activation": "silu", "sliding_window": 3}
    | {"rope_parameters": {"full_attention": yarn(100.0), "sliding_attention": default(1_000.0)}}
    | {"layer_types": ["full_attention", "sliding_attention"]},
    "qwen3_moe/a": MOE,
    "qwen3_moe/b": MOE
    | WIDER
    | {"num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3], "head_dim": 8}
    | {"moe_intermediate_size": 12, "num_experts_per_tok": 3, "num_experts": 6, "norm_topk_prob": False}
    | {"rope_parameters": yarn(100.0), "attention_bias": True, "use_sliding_window": True, "sliding_window": 4},
    "qwen3_moe/c": {k: v for k, v in MOE.items() if k != "head_dim"}
    | OTHER
    | {"mlp_only_layers": [0], "moe_intermediate_size": 10, "num_experts_per_tok": 1, "num_experts": 3}
    | {"norm_topk_prob": False, "rope_parameters": linear(500.0, 4.0), "tie_word_embeddings": True},
    "deepseek_v3/a": DEEPSEEK,
    "deepseek_v3/b": DEEPSEEK
    | WIDER
    | {"num_key_value_heads": 4, "q_lora_rank": None, "kv_lora_rank": 8, "rope_interleave": False}
    | {"qk_rope_head_dim": 6, "v_head_dim": 10, "qk_nope_head_dim": 4, "moe_intermediate_size": 6}
    | {"n_shared_experts": 2, "n_routed_experts": 6, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2}
    | {"first_k_dense_replace": 2, "norm_topk_prob": False, "routed_scaling_factor": 1.5}
    | {"rope_parameters": default(500.0), "attention_bias": True},
    "deepseek_v3/c": DEEPSEEK
    | OTHER
    | {"num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 6, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8}
    | {"v_head_dim": 6, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2}
    | {"first_k_dense_replace": 0, "routed_scaling_factor": 1.0, "attention_bias": True, "tie_word_embeddings": True}
    | {"rope_parameters": yarn(50.0, attention_factor=1.3)},
}

# ---------------------------------------------------------------------------------------------------------------------
# Variants: the first field of each dict names it. A dot reaches into a dict.

ABSENT = object()  # the field is taken out
SIZES = [
    {"vocab_size": 29},
    {"hidden_size": 20},
    {"intermediate_size": 28},
    {"num_hidden_layers": 1},
    {"rms_norm_eps": 0.1},
    {"rope_parameters.rope_theta": 100.0},
    {"tie_word_embeddings": True},
]
HEADS = [{"num_attention_heads": 4}, {"num_key_value_heads": 1}]
YARN = [
    {"rope_parameters.rope_type": "linear", "rope_parameters": linear(100.0, 4.0)},
    {"rope_parameters.factor": 8.0},
    {"rope_parameters.original_max_position_embeddings": 32},
    {"rope_parameters.beta_fast": 2.0},
    {"rope_parameters.beta_slow": 3.0},
    {"rope_parameters.attention_factor": 0.7},
]
LLAMA3 = [
    {"rope_parameters.rope_type": "linear", "rope_parameters": linear(100.0, 4.0)},
    {"rope_parameters.factor": 8.0},
    {"rope_parameters.low_freq_factor": 2.0},
    {"rope_parameters.high_freq_factor": 8.0},
    {"rope_parameters.original_max_position_embeddings": 64},
]
SLIDING = [{"sliding_window": 3}, {"max_window_layers": 0}, {"use_sliding_window": False}]
GEMMAS = [
    {"hidden_activation": "silu"},
    {"head_dim": 8},
    {"attention_bias": True},
    {"query_pre_attn_scalar": 32},
    {"sliding_window": 2},
    {"tie_word_embeddings": False},
]

VARIANTS: dict[str, list[Fields]] = {
    "llama/a": [*SIZES, *HEADS, {"hidden_act": "gelu"}, {"head_dim": 12}, {"attention_bias": True}, {"mlp_bias": True}],
    "llama/b": LLAMA3,
    "llama/c": YARN,
    "llama/d": [{"rope_parameters.factor": 8.0}],
    "qwen2/a": [*SIZES[:-1], *HEADS, {"hidden_act": "gelu"}, {"tie_word_embeddings": False}],
    "qwen2/b": [*SLIDING, *YARN, {"rope_parameters.truncate": False}, {"max_position_embeddings": 128}],
    "qwen2/c": [{"layer_types": ["full_attention", "sliding_attention"]}, *LLAMA3],
    "qwen3/a": [*SIZES[:-1], *HEADS, {"hidden_act": "gelu"}, {"tie_word_embeddings": False}]
    + [{"head_dim": 8}, {"attention_bias": True}],
    "qwen3/b": [*SLIDING, *YARN, {"rope_parameters.truncate": True}],
    "qwen3/c": [{"layer_types": ["full_attention", "sliding_attention"]}, *LLAMA3],
    "gemma2/a": [*SIZES[:-1], *HEADS[:1], {"num_key_value_heads": 2}, *GEMMAS]
    + [{"layer_types": ["full_attention", "sliding_attention"]}]
    + [{"final_logit_softcapping": None}, {"attn_logit_softcapping": 0.5}],
    "gemma2/b": [{"rope_parameters.factor": 8.0}],
    "gemma2/c": YARN,
    "gemma3_text/a": [*SIZES[:5], *HEADS[:1], {"num_key_value_heads": 2}, *GEMMAS]
    + [{"sliding_window_pattern": 3}, {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}]
    + [{"final_logit_softcapping": 3.0}]
    + [{"rope_parameters.full_attention.rope_theta": 100.0}, {"rope_parameters.sliding_attention.rope_theta": 100.0}],
    "gemma3_text/b": [{"rope_parameters.full_attention.factor": 8.0}],
    "gemma3_text/c": [
        {path.replace("parameters.", "parameters.full_attention."): value for path, value in change.items()}
        for change in YARN[1:]
    ]
    + [{"rope_parameters.full_attention.rope_type": "linear"}],
    "qwen3_moe/a": [*SIZES[:2], *SIZES[3:], {"num_attention_heads": 4}, {"num_key_value_heads": 2}]
    + [{"hidden_act": "gelu"}, {"head_dim": 8}, {"attention_bias": True}, {"moe_intermediate_size": 12}]
    + [{"num_experts_per_tok": 3}, {"num_experts": 5}, {"norm_topk_prob": False}]
    + [{"decoder_sparse_step": 2}, {"mlp_only_layers": [1]}],
    "qwen3_moe/b": [{"intermediate_size": 28}, {"sliding_window": 3}, {"use_sliding_window": False}, *YARN],
    "qwen3_moe/c": [{"rope_parameters.factor": 8.0}],
    "deepseek_v3/a": [*SIZES[:5], {"rope_parameters.rope_theta": 1000.0}, *SIZES[6:]]
    + [{"num_attention_heads": 4, "num_key_value_heads": 4}]
    + [{"hidden_act": "gelu"}, {"moe_intermediate_size": 12}, {"n_shared_experts": 2}, {"n_routed_experts": 12}]
    + [{"routed_scaling_factor": 1.0}, {"kv_lora_rank": 8}, {"q_lora_rank": None}, {"qk_rope_head_dim": 4}]
    + [{"v_head_dim": 6}, {"qk_nope_head_dim": 8}, {"n_group": 2}, {"topk_group": 3}, {"num_experts_per_tok": 2}]
    + [{"first_k_dense_replace": 0}, {"norm_topk_prob": False}, {"rope_interleave": False}, {"attention_bias": True}]
    + [*YARN[1:], {"rope_parameters.truncate": False}]
    + [{"rope_parameters.mscale": 2.0}, {"rope_parameters.mscale_all_dim": 1.0}]
    + [{"rope_parameters.rope_type": "default", "rope_parameters": default(100.0)}],
    "deepseek_v3/b": [{"rope_parameters.rope_type": "linear", "rope_parameters.factor": 4.0}],
    "deepseek_v3/c": [{"rope_parameters.attention_factor": ABSENT}],
}

# Sizes and nothing else. The files of Gemma 3's larger models say even less: heads, their width and the length too are
# transformers' own.
SHAPES = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SHAPES += (
    "max_position_embeddings",
    "num_key_value_heads",
    "head_dim",
    "moe_intermediate_size",
    "num_experts",
    "kv_lora_rank",
    "q_lora_rank",
)
SHAPES += ("qk_rope_head_dim", "v_head_dim", "qk_nope_head_dim", "n_routed_experts")
DEFAULTS: dict[str, Fields] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {},
    "gemma3_text": dict.fromkeys(("num_attention_heads", "num_key_value_heads", "head_dim"), ABSENT)
    | {"max_position_embeddings": ABSENT, "num_hidden_layers": 7},  # every sixth layer is global
    "qwen3_moe": {"num_experts": 12},  # 8 of them a token
    "deepseek_v3": {"num_hidden_layers": 4, "n_routed_experts": 16},  # 3 layers are dense; 8 groups of 2, 4 chosen
}

# ---------------------------------------------------------------------------------------------------------------------
# Fields of a config.json that change no logit.

IGNORED: dict[str, str] = {
    "architectures": "the class's name; model_type says which family it is",
    "attention_dropout": "only in training",
    "bos_token_id": "the tokenizer's business",
    "dtype": "the weights' type: changes roundings, not the function; see live.py and sharded_folder",
    "eos_token_id": "where sampling stops",
    "initializer_range": "of random weights",
    "pad_token_id": "rows are masked here, whatever id stands in a pad",
    "transformers_version": "who wrote the file",
    "use_cache": "how to decode, not what",
    "llama.pretraining_tp": "of Megatron's checkpoints",
    "llama.max_position_embeddings": "a limit, not part of the function (where yarn lacks its original length it is one)",
    "qwen3.max_position_embeddings": "as llama's",
    "gemma2.max_position_embeddings": "as llama's",
    "gemma3_text.max_position_embeddings": "as llama's",
    "gemma3_text.attn_logit_softcapping": "transformers' Gemma 3 hands it to no attention; null in every published file",
    "qwen3_moe.max_position_embeddings": "as llama's",
    "qwen3_moe.output_router_logits": "what else is returned",
    "qwen3_moe.router_aux_loss_coef": "of a training loss",
    "deepseek_v3.max_position_embeddings": "as llama's",
    "deepseek_v3.pretraining_tp": "as llama's",
    "deepseek_v3.num_key_value_heads": "always the number of heads: the latent is expanded to every head",
    "deepseek_v3.head_dim": "transformers writes qk_rope_head_dim here",
    "deepseek_v3.qk_head_dim": "transformers writes the sum of both halves here",
    "deepseek_v3.num_nextn_predict_layers": "extra layers that predict the token after the next one; not loaded",
    "deepseek_v3.output_router_logits": "what else is returned",
}

# Names under which transformers 5 writes what it reads under another one.
WRITTEN_AS = {"num_local_experts": "num_experts", "_sliding_window_pattern": "sliding_window_pattern"}

# Values that change the logits and that rljax does not compute: load must refuse them rather than answer wrongly.
LOCAL = "rope_parameters.sliding_attention"
REFUSED: list[tuple[str, Fields]] = [
    ("llama/a", {"hidden_act": "relu"}),
    ("llama/a", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}}),
    ("llama/a", {"model_type": "gpt2"}),
    ("deepseek_v3/a", {"moe_layer_freq": 2}),
    ("gemma2/a", {"use_bidirectional_attention": True}),
    ("gemma3_text/a", {"use_bidirectional_attention": True}),
    ("gemma3_text/a", {f"{LOCAL}.rope_type": "linear", f"{LOCAL}.factor": 4.0}),
]


def changed(config: Fields, change: Fields) -> Fields:
    """``config`` with every path of ``change`` set to its value, or taken out."""
    config = copy.deepcopy(config)
    for path, value in change.items():
        *outer, last = path.split(".")
        place = config
        for key in outer:
            place = place[key]
        place[last] = value
        if value is ABSENT:
            del place[last]
    return config


def all_cases() -> dict[str, Fields]:
    out = {}
    for name, config in MAIN.items():
        family = name.split("/")[0]
        out[name] = {"family": family, "config": config | DTYPE, "base": None}
        for change in VARIANTS.get(name, []):
            variant = {"family": family, "config": changed(config | DTYPE, change), "base": name}
            assert out.setdefault(f"{name}:{next(iter(change))}", variant) is variant, (name, change)
    for family, more in DEFAULTS.items():
        config = changed({k: v for k, v in MAIN[f"{family}/a"].items() if k in SHAPES} | DTYPE, more)
        out[f"{family}/defaults"] = {"family": family, "config": config, "base": None}
    return out


CASES = all_cases()
FAMILIES = list(DEFAULTS)


def main_cases(family: str) -> list[str]:
    return [name for name in MAIN if CASES[name]["family"] == family]


# ---------------------------------------------------------------------------------------------------------------------
# The same file as the hub has it.


def legacy(config: Fields) -> Fields:
    """``config`` as transformers 4 wrote it and the hub still has it: ropes in three fields, patterns for layer_types."""
    out = copy.deepcopy(config)
    out["torch_dtype"] = out.pop("dtype")
    rope = out.pop("rope_parameters", None)
    if rope and "full_attention" in rope:  # Gemma 3
        out["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if rope:
        out["rope_theta"] = rope.pop("rope_theta")
        kind = rope.pop("rope_type")
        # Older files say "type"; those of Llama 3 and Gemma 3 never did.
        key = "type" if kind in ("linear", "yarn") and config["model_type"] != "gemma3_text" else "rope_type"
        out["rope_scaling"] = None if kind == "default" else {key: kind, **rope}
    if "hidden_activation" in out:  # Gemma's files have both, and mean this one
        out["hidden_act"] = "gelu_pytorch_tanh"
    if out["model_type"] == "deepseek_v3":
        out |= {
            "num_nextn_predict_layers": 1,
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "moe_layer_freq": 1,
        }
        out |= {"ep_size": 1, "aux_loss_alpha": 0.001, "seq_aux": True}
    return out
