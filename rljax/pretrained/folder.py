"""Read a Hugging Face folder, or a GGUF file: its architecture, and its tensors onto the devices.

Files are mapped into memory. Each device's part of each weight is read alone and sent to the device. So a host holds one part
at a time beside what the devices hold, whatever the size of the model.
"""

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from rljax import transformer
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.pretrained import deepseek, gemma, gguf_models, llama, qwen
from rljax.pretrained.config_fields import Fields, is_ignored
from rljax.pretrained.safetensors_files import StoredTensor, list_tensors
from rljax.pretrained.tensor_files import open_file
from rljax.pretrained.tensor_names import LAYER, TOP, TensorKey
from rljax.pretrained.unused_tensors import has_own_head, head_name, unknown_tensors
from rljax.text.gguf_files import is_gguf
from rljax.text.hub import resolve_folder
from rljax.transformer import Config, Params, WeightSpec

LOG = logging.getLogger(__name__)
FAMILIES: dict[str, ModuleType] = {
    name: module for module in (llama, qwen, gemma, deepseek) for name in module.ARCHITECTURES
}
# Fields of a Config that say how a model is computed, which no folder says. Every other field is the architecture.
COMPUTE_FIELDS = ("weight_dtype", "dtype", "cache_dtype", "remat", "scan_layers", "logprob_chunk")
COMPUTE_FIELDS += ("attention", "attention_chunk", "expert_chunk")
# Fields of a model of text and images that do not concern its language model, or that are read.
IMAGE_FIELDS = {"text_config", "vision_config", "tie_word_embeddings", "quantization_config", "mm_tokens_per_image"}
IMAGE_FIELDS |= {f"{name}_token_{kind}" for name in ("image", "boi", "eoi") for kind in ("index", "id")}


class WeightTensors(NamedTuple):
    """A weight of ours, and the names of the tensors that it is made of."""

    weight: WeightSpec
    key: TensorKey
    names: dict[tuple[int, ...], str]  # by index along its axes over layers and experts; {(): name} where it has none


# Architecture


def read_config(path: str | Path, **options: Any) -> Config:
    """The Config of a folder, a hub name or a GGUF file. ``options`` set the fields that say how it is computed.

    The dtype of weights and activations is the folder's unless given. A warning names every field that nothing reads, at all
    depths. A head that differs from the embedding is kept, with a warning, also where the config says that the two are tied.
    Raises UserError for a missing folder, an unknown architecture, or a field that is not computed here.
    """
    path = resolve_folder(path)
    about, model_type, outside = read_config_json(path)
    fields = Fields(about, str(path if is_gguf(path) else path / "config.json"))
    try:
        found = FAMILIES[model_type].config_from_hf(fields)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as e:
        raise UserError(f"{fields.where}: a field cannot be read ({type(e).__name__}: {e})") from None
    if unread := sorted(fields.unread_names() + outside):
        LOG.warning(f"{fields.where}: unknown fields are ignored: {', '.join(unread)}")
    if found["tied_head"] and folder_has_own_head(path):
        LOG.warning(
            f"{path}: config.json says tie_word_embeddings, but lm_head.weight differs from the embedding: it is kept as a "
            "head of its own"
        )
        found["tied_head"] = False
    dtype = str(about.get("dtype") or about.get("torch_dtype") or "float32").removeprefix("torch.")
    computed: dict[str, Any] = {"weight_dtype": dtype, "dtype": dtype} | options
    for name in ("weight_dtype", "dtype"):
        if computed[name] not in ("float32", "bfloat16", "float16"):
            raise UserError(f"{path}: {name}={computed[name]!r} is unknown, choose from float32, bfloat16 and float16")
    return Config(**found, **computed)


def read_config_json(folder: Path) -> tuple[dict[str, Any], str, list[str]]:
    """(the fields of config.json, or of a GGUF file, that describe the language model, its model type, unknown other fields).

    The last is [] but for a model of text and images, whose language model is an object inside.
    """
    if is_gguf(folder):
        about = gguf_models.read_fields(folder)
        return about, about["model_type"], []
    path, outside = folder, []
    adapters = [folder / name for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")]
    if adapters[0].is_file() and not (folder / "config.json").is_file():
        raise UserError(f"{path} holds only a LoRA adapter: merge it into its model first (peft's merge_and_unload)")
    if adapters[0].is_file() and any(file.is_file() for file in adapters[1:]):
        raise UserError(
            f"{path} holds a LoRA adapter beside the model, which would be ignored: merge it first (peft's "
            "merge_and_unload), or move adapter_* away to use the model without it"
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"{path}: there is no config.json in it: give the folder of a Hugging Face model")
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type = about["model_type"]
        if not isinstance(model_type, str):
            raise ValueError(f"model_type is {str(model_type)[:40]}, want a text")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise UserError(f"{path}/config.json cannot be read ({type(e).__name__}: {e})") from None
    if model_type == "gemma3" and "text_config" in about:  # the language model inside a model of text and images
        outside = [k for k, v in about.items() if k not in IMAGE_FIELDS and not is_ignored(k, v) and v is not None]
        kept = ("dtype", "torch_dtype", "tie_word_embeddings", "quantization_config")
        about = {k: v for k, v in about.items() if k in kept} | about["text_config"]
        model_type = about["model_type"] = "gemma3_text"
    if about.get("quantization_config"):
        kind = about["quantization_config"].get("quant_method", "quantised")
        raise UserError(f"{path}: its weights are {kind}: convert the model to bfloat16 first")
    if model_type not in FAMILIES:
        raise UserError(f"{path}: model_type {model_type!r} is not known here, only {', '.join(sorted(FAMILIES))}")
    return about, model_type, outside


def folder_has_own_head(folder: Path) -> bool:
    """``has_own_head`` of a folder. False where its tensors cannot be read: ``read_params`` says what is wrong with them."""
    try:
        found = find_tensors(folder)
        return has_own_head(found, name_prefix(found, folder))
    except UserError:
        return False


# Tensors


def read_params(path: str | Path, config: Config, dtype: str | None = None) -> Params:
    """The parameters of a folder, a hub name or a GGUF file, sharded as ``config.layout`` says.

    ``dtype``: the dtype of the weights (None: as each tensor is stored). Raises UserError, before any weight is read, for a
    damaged file, and for a tensor that is missing, unknown, or of another shape than the config says.
    """
    path = resolve_folder(path)
    about, model_type, _ = read_config_json(path)
    found = find_tensors(path)
    family = FAMILIES[model_type]
    options = {"interleaved": about.get("rope_interleave") is not False} if family is deepseek else {}
    prefix, specs = name_prefix(found, path), transformer.weight_specs(config)
    leaves = tensors_of_weights(config, family.tensor_keys(config, **options), prefix)
    check_tensors(found, leaves, config, about, prefix, str(path))
    is_spec = lambda x: isinstance(x, WeightSpec)
    tree = jax.tree.structure(specs, is_leaf=is_spec)
    device = SingleDeviceSharding(jax.devices()[0])
    single = jax.tree.map(lambda _: device, specs, is_leaf=is_spec)
    shardings = sharding.weight_shardings(config) if config.layout.mesh else single
    placed = [
        read_weight(found, leaf, where, dtype) for leaf, where in zip(leaves, jax.tree.leaves(shardings), strict=True)
    ]
    return jax.tree.unflatten(tree, placed)


def read_weight(
    found: dict[str, StoredTensor], tensors: WeightTensors, sharding: jax.sharding.Sharding, dtype: str | None
) -> jax.Array:
    """One weight with this sharding: each device's part is read from the file alone."""
    w, key = tensors.weight, tensors.key
    stored_dtype = found[next(iter(tensors.names.values()))].dtype
    wanted = np.dtype(jax.numpy.dtype((w.dtype or dtype) if dtype else stored_dtype))

    def read_part(index: Any) -> np.ndarray:
        """The part of the weight at this tuple of slices. One that is not stacked is not copied after it is read."""
        inner = index[w.stacked_axes :]
        if not w.stacked_axes:
            return read_matrix(tensors.names[()], inner)
        ranges = [range(*s.indices(n)) for s, n in zip(index, w.shape, strict=True)]
        out = np.empty([len(r) for r in ranges], wanted)
        for at in np.ndindex(*out.shape[: w.stacked_axes]):
            out[at] = read_matrix(tensors.names[tuple(r[i] for r, i in zip(ranges, at, strict=False))], inner)
        return out

    def read_matrix(name: str, index: tuple[slice, ...]) -> np.ndarray:
        with open_file(found[name].file) as opened:  # opened for each part: a file kept open would stay in memory
            return key.from_hf(opened.get_slice(name), w, index).astype(wanted, copy=False)

    return jax.make_array_from_callback(w.shape, sharding, read_part)


def find_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder by name, from one file or from the files that an index names.

    Where there are both, it is the one file, as in transformers, with a warning.
    """
    if is_gguf(folder):
        return gguf_models.list_tensors(folder)
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if single.is_file() and any(folder.glob("model-*-of-*.safetensors")):
        LOG.warning(f"{folder}: {single.name} is read; the files model-*-of-*.safetensors beside it are not")
    if single.is_file() or not index.is_file():
        if single.is_file():
            return list_tensors(single)
        there = sorted(folder.glob("*.safetensors"))
        if len(there) == 1:
            return list_tensors(there[0])
        old = " (only pickled weights: save them with safe_serialization=True)" if list(folder.glob("*.bin")) else ""
        raise UserError(f"{folder}: it has neither model.safetensors nor model.safetensors.index.json{old}")
    try:
        by_name = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(by_name.values()))
        if wrong := next((file for file in files if Path(file).name != file or "\0" in file), None):
            raise ValueError(f"{wrong!r} is no name of a file in the folder")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as e:
        raise UserError(f"{index} cannot be read ({type(e).__name__}: {e})") from None
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder}: {missing[0]} is missing, {len(missing)} of the {len(files)} files that the index names"
        )
    by_file = {file: list_tensors(folder / file) for file in files}
    if absent := sorted(name for name, file in by_name.items() if name not in by_file[file]):
        raise UserError(f"{folder}: the index says {by_name[absent[0]]} holds {absent[0]}, but it does not")
    every = {name: tensor for tensors in by_file.values() for name, tensor in tensors.items()}
    return every | {name: by_file[file][name] for name, file in by_name.items()}


def name_prefix(found: dict[str, StoredTensor], path: str | Path) -> str:
    """The prefix of the language model's tensor names: "model.", or a longer one in a model of text and images."""
    tables = [name for name in found if name.endswith("embed_tokens.weight") and ".layers." not in name]
    prefixes = [name.removesuffix("embed_tokens.weight") for name in tables]
    if len(prefixes) != 1:
        raise UserError(f"{path}: {len(prefixes)} tensors are called embed_tokens.weight, there must be exactly one")
    return prefixes[0]


def tensors_of_weights(
    config: Config, keys: dict[tuple[str, ...], TensorKey], prefix: str = "model."
) -> list[WeightTensors]:
    """The tensors that each weight of ``config`` is made of, in the order of the leaves of the parameters."""
    described = transformer.weight_specs(config)
    flat = jax.tree_util.tree_flatten_with_path(described, is_leaf=lambda x: isinstance(x, WeightSpec))[0]
    return [tensors_of_weight(path, w, config, keys, prefix) for path, w in flat]


def tensors_of_weight(
    path: Any, w: WeightSpec, config: Config, keys: dict[tuple[str, ...], TensorKey], prefix: str
) -> WeightTensors:
    first, *rest = [step.key if isinstance(step, jax.tree_util.DictKey) else step.idx for step in path]
    if first == "head":
        return WeightTensors(w, TensorKey("lm_head.weight"), {(): head_name(prefix)})
    if first != "layers":
        return WeightTensors(w, TOP[(first,)], {(): prefix + TOP[(first,)].name})
    numbers = [n for n in rest if isinstance(n, int)]
    key = keys[tuple(n for n in rest if isinstance(n, str))]
    if config.scan_layers:
        start, period, repeats = config.layer_stacks()[numbers[0]]
        layers = {(n,): start + numbers[1] + n * period for n in range(repeats)}
    else:
        layers = {(): numbers[0]}
    many = [(e,) for e in range(config.experts)] if "{expert}" in key.name else [()]
    name = lambda layer, expert: prefix + (LAYER + key.name).format(layer=layer, expert=expert[0] if expert else "")
    return WeightTensors(w, key, {(*at, *e): name(layer, e) for at, layer in layers.items() for e in many})


def check_tensors(
    found: dict[str, StoredTensor],
    leaves: list[WeightTensors],
    config: Config,
    about: dict[str, Any],
    prefix: str,
    path: str,
) -> None:
    """Raise UserError unless the folder's tensors are exactly those of the config."""
    wanted = {name: leaf.key.hf_shape(leaf.weight) for leaf in leaves for name in leaf.names.values()}
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"{path}: the tensor {missing[0]} is missing{and_more(missing)}")
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise UserError(
                f"{path}: the tensor {name} has the shape {list(found[name].shape)}, the config says {list(shape)}"
            )
        _ = found[name].dtype  # raises UserError for a dtype that cannot be read
    if extra := list(unknown_tensors(found, wanted, config, about, prefix)):
        raise UserError(
            f"{path}: the tensor {extra[0]} is not part of the model that the config describes{and_more(extra)}"
        )


def and_more(names: list[str]) -> str:
    """How many names there are beside the first, in brackets."""
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
