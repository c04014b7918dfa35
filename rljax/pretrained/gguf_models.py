"""A GGUF file as the Hugging Face folder that it was made from: the fields of config.json, and tensors by their names there.

llama.cpp's converter changes some tensors, which is undone as they are read. The rows of Llama's query and key stand in the order
in which they are rotated there. Gemma's norms have 1 added. Quantised numbers are widened, to float32 and then to the dtype asked for.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.errors import UserError
from rljax.pretrained.safetensors_files import StoredTensor
from rljax.text.gguf_files import GGUF, StoredMatrix, open_gguf, widen

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}  # -> model_type
TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
TOP |= {"output.weight": "lm_head.weight"}
LAYER = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_output": "self_attn.o_proj"}
LAYER |= {f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"} | {f"attn_{x}_norm": f"self_attn.{x}_norm" for x in "qk"}
LAYER |= {f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")}
GEMMA = {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm"}
GEMMA |= {"post_ffw_norm": "post_feedforward_layernorm"}
ROPE_FACTORS = "rope_freqs.weight"  # Llama 3.1's scaled positions: what each frequency is divided by
SMALL_FLOATS = {"F32": "F32", "F16": "F16"}  # kinds that are kept; everything else counts as bfloat16


class Opened(NamedTuple):
    """An open file, with what ``safetensors`` offers of one: ``get_slice(name)[slices]``."""

    found: GGUF

    def get_slice(self, name: str) -> "TensorView":
        return TensorView(self.found, tensor_names(self.found)[name], *undone(self.found, name))


class TensorView(NamedTuple):
    """A tensor under its Hugging Face name. Only the rows that are asked for are read and widened."""

    found: GGUF
    name: str  # in the file
    row_order: np.ndarray | None  # row i of ours is row_order[i] of the file
    subtract: float

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, *columns = index if isinstance(index, tuple) else (index,)
        matrix: StoredMatrix = self.found.tensors[self.name]
        try:
            x = widen(matrix, rows if self.row_order is None else self.row_order[rows])
        except NotImplementedError:
            raise UserError(
                f"{self.found.path}: the tensor {self.name} is stored as {matrix.kind}, which the package gguf cannot widen: "
                "take a file with another quantisation, for example Q8_0 or Q4_K_M"
            ) from None
        x = x - np.float32(self.subtract) if self.subtract else x
        return x[(slice(None), *columns)]


@contextlib.contextmanager
def open_file(file: Path) -> Iterator[Opened]:
    """The open file."""
    yield Opened(open_gguf(file))


def list_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by their Hugging Face names. Their dtype is that which they are rounded to where none is asked for."""
    found = open_gguf(file)
    stored = {ours: found.tensors[theirs] for ours, theirs in tensor_names(found).items()}
    return {name: StoredTensor(file, SMALL_FLOATS.get(m.kind, "BF16"), m.shape) for name, m in stored.items()}


def tensor_names(found: GGUF) -> dict[str, str]:
    """Hugging Face's name -> the file's. A tensor that is not known here keeps its name."""
    layer = LAYER | (GEMMA if found("general.architecture") == "gemma3" else {})
    out = {}
    for theirs in found.tensors:
        ours = TOP.get(theirs, theirs)
        if theirs.startswith("blk.") and theirs.count(".") == 3:
            _, number, name, kind = theirs.split(".")
            ours = f"model.layers.{number}.{layer[name]}.{kind}" if name in layer else theirs
        if theirs != ROPE_FACTORS:  # read with the fields
            out[ours] = theirs
    return out


def undone(found: GGUF, name: str) -> tuple[np.ndarray | None, float]:
    """What is undone as a tensor is read: the order of its rows, or None, and what was added to it."""
    arch = found("general.architecture")
    if arch == "gemma3" and name.endswith("norm.weight"):
        return None, 1.0
    if arch != "llama" or not any(f".{part}_proj." in name for part in "qk"):
        return None, 0.0
    heads = found("llama.attention.head_count")
    heads = heads if ".q_proj." in name else found("llama.attention.head_count_kv", heads)
    rows = found.tensors[tensor_names(found)[name]].shape[0]
    # the file has the pairs that are rotated together side by side; here they are half a head apart
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1), 0.0


def read_fields(file: Path) -> dict[str, Any]:
    """The fields of the config.json that the file was made from. Raises UserError for an architecture not known here."""
    found = open_gguf(file)
    arch = found("general.architecture")
    if arch not in ARCHITECTURES:
        raise UserError(
            f"{file}: the architecture {arch!r} cannot be read from a GGUF file, only {', '.join(ARCHITECTURES)}: take the "
            "model's Hugging Face folder"
        )
    get = lambda name, *default: found(f"{arch}.{name}", *default)
    if get("expert_count", 0):
        raise UserError(f"{file}: it has experts, which are not read from a GGUF file: take the model's folder")
    for name in ("attention.head_count", "attention.head_count_kv", "feed_forward_length"):
        if isinstance(get(name, 0), list):
            raise UserError(f"{file}: {arch}.{name} differs between layers, which is not computed here")
    if "token_embd.weight" not in found.tensors:
        raise UserError(f"{file}: the tensor token_embd.weight is missing")
    heads, width = get("attention.head_count"), get("embedding_length")
    head_width = get("attention.key_length", width // max(heads, 1))
    for name in ("rope.dimension_count", "attention.value_length"):
        if get(name, head_width) != head_width:
            raise UserError(f"{file}: {arch}.{name}={get(name)} in heads of {head_width}, which is not computed here")
    about = dict(
        model_type=ARCHITECTURES[arch],
        dtype=widened_dtype(found),
        hidden_size=width,
        num_hidden_layers=get("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=get("attention.head_count_kv", heads),
        head_dim=head_width,
        intermediate_size=get("feed_forward_length"),
        vocab_size=found.tensors["token_embd.weight"].shape[0],
        max_position_embeddings=get("context_length"),
        rms_norm_eps=get("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="output.weight" not in found.tensors,
    )
    rope = {"rope_theta": get("rope.freq_base", 1_000_000.0 if arch == "gemma3" else 10_000.0)} | read_scaling(found)
    if arch == "gemma3":
        return about | gemma_fields(found, about) | {"rope_parameters": {"full_attention": rope} | SLIDING}
    if arch == "llama":
        about["attention_bias"] = "blk.0.attn_q.bias" in found.tensors
    if arch == "qwen2":
        about.pop("head_dim")
    return about | {"rope_parameters": rope}


SLIDING = {"sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"}}


def gemma_fields(found: GGUF, about: dict[str, Any]) -> dict[str, Any]:
    """The fields that only Gemma 3 has. The file leaves out what llama.cpp knows of its sizes: the 27B is the one of 62 layers."""
    layers, width, heads = (about[k] for k in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    return dict(
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=width // heads if layers == 62 else about["head_dim"],
        sliding_window=found("gemma3.attention.sliding_window"),
        sliding_window_pattern=6,
        final_logit_softcapping=found("gemma3.final_logit_softcapping", None),
    )


def read_scaling(found: GGUF) -> dict[str, Any]:
    """How rotary positions are scaled, as ``rope_parameters`` says it."""
    get = lambda name, *default: found(f"{found('general.architecture')}.rope.scaling.{name}", *default)
    if ROPE_FACTORS in found.tensors:
        return read_llama3_scaling(found)
    kind = get("type", "none")
    if kind == "none":
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": get("factor")}
    if kind == "yarn":
        return {
            "rope_type": "yarn",
            "factor": get("factor"),
            "original_max_position_embeddings": get("original_context_length"),
        }
    raise UserError(f"{found.path}: rotary positions are scaled by {kind!r}, which is not read from a GGUF file")


def read_llama3_scaling(found: GGUF) -> dict[str, Any]:
    """Llama 3.1's scaling, of which the file holds the result alone. Raises UserError where it is none of the published ones."""
    stored = widen(found.tensors[ROPE_FACTORS], slice(None))
    scaling = dict(rope_type="llama3", factor=float(stored.max()), low_freq_factor=1.0, high_freq_factor=4.0)
    scaling["original_max_position_embeddings"] = 8192
    base = found("llama.rope.freq_base", 10_000.0)
    turns = 8192 * base ** (-np.arange(len(stored)) / len(stored)) / (2 * np.pi)  # of each frequency in those positions
    kept = np.clip((turns - 1.0) / (4.0 - 1.0), 0.0, 1.0)  # how much of a frequency stays as it is
    if not np.allclose(1 / (kept + (1 - kept) / scaling["factor"]), stored, rtol=1e-3):
        raise UserError(
            f"{found.path}: {ROPE_FACTORS} is not the scaling of Llama 3.1, 3.2 or 3.3: take the model's Hugging Face folder"
        )
    return scaling


def widened_dtype(found: GGUF) -> str:
    """The dtype of a model whose config asks for none: quantised numbers lose next to nothing in bfloat16."""
    kinds = {m.kind for m in found.tensors.values() if len(m.shape) > 1}
    return {frozenset({"F32"}): "float32", frozenset({"F16"}): "float16"}.get(frozenset(kinds), "bfloat16")
