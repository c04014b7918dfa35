"""Read a Hugging Face folder: its architecture, and its tensors onto the mesh.

Weights are mapped, not read: each device's part of each weight is copied from the file straight to it, so that a host
holds no more than one part at a time beside the devices, whatever the size of the model.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from rljax import transformer
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.pretrained import deepseek, gemma, llama, qwen, tensors
from rljax.pretrained.config_fields import Fields
from rljax.pretrained.tensor_names import LAYER, TOP, Key
from rljax.pretrained.tensors import Place
from rljax.transformer import Config, Params, Weight

LOG = logging.getLogger(__name__)
FAMILIES: dict[str, ModuleType] = {
    name: module for module in (llama, qwen, gemma, deepseek) for name in module.ARCHITECTURES
}
# How a model is computed, which no folder says; every other field of a Config is the architecture.
COMPUTED = ("weight_dtype", "dtype", "cache_dtype", "remat", "scan_layers", "logprob_chunk")
COMPUTED += ("attention", "attention_chunk", "expert_chunk")


class Leaf(NamedTuple):
    """A weight of ours: where it stands in the parameters, and the tensors that it is made of."""

    weight: Weight
    key: Key
    names: dict[tuple[int, ...], str]  # by number within the axes that run over layers and experts; {(): name} without


# Architecture


def read_config(path: str | Path, **how: Any) -> Config:
    """The architecture of a folder; ``how`` sets the fields that say how it is computed.

    The dtype of weights and activations is the folder's unless given. Raises UserError for a folder that is not there, an
    unknown architecture, or a field that no model here computes.
    """
    about, model_type = read_about(path)
    fields = Fields(about, str(Path(path) / "config.json"))
    try:
        found = FAMILIES[model_type].read(fields)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as e:
        raise UserError(f"{fields.where}: a field cannot be read ({type(e).__name__}: {e})") from None
    if unread := fields.unread():
        LOG.warning(f"{fields.where}: nothing here knows {', '.join(unread)}: left out")
    dtype = str(about.get("dtype") or about.get("torch_dtype") or "float32").removeprefix("torch.")
    computed: dict[str, Any] = {"weight_dtype": dtype, "dtype": dtype} | how
    for name in ("weight_dtype", "dtype"):
        if computed[name] not in ("float32", "bfloat16", "float16"):
            raise UserError(f"{path}: {name}={computed[name]!r}: choose from float32, bfloat16 and float16")
    return Config(**found, **computed)


def read_about(path: str | Path) -> tuple[dict[str, Any], str]:
    """(the fields of config.json that describe the language model, its model type)."""
    folder = Path(path).expanduser()
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise UserError(f"{path} holds a LoRA adapter alone: merge it into its model first (peft's merge_and_unload)")
    if not (folder / "config.json").is_file():
        raise UserError(f"{path}: there is no config.json in it: give the folder of a Hugging Face model")
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type = about["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}/config.json cannot be read ({type(e).__name__}: {e})") from None
    if model_type == "gemma3" and "text_config" in about:  # the language model of one that sees images too
        outside = {k: v for k, v in about.items() if k in ("dtype", "torch_dtype", "tie_word_embeddings")}
        about = outside | about["text_config"]
        model_type = about["model_type"] = "gemma3_text"
    if about.get("quantization_config"):
        kind = about["quantization_config"].get("quant_method", "quantised")
        raise UserError(f"{path}: its weights are {kind}: convert the model to bfloat16 first")
    if model_type not in FAMILIES:
        raise UserError(f"{path}: model_type {model_type!r} is not known here, only {', '.join(sorted(FAMILIES))}")
    return about, model_type


# Tensors


def read_params(path: str | Path, config: Config, dtype: str | None = None) -> Params:
    """The parameters of a folder, where ``config.layout`` has them, as ``dtype`` (None: as each tensor is stored).

    Raises UserError, before anything is read, for a tensor that is missing, has another shape than the config says, or
    belongs to nothing, and for a file that is cut off.
    """
    about, model_type = read_about(path)
    found = find_tensors(Path(path).expanduser())
    family = FAMILIES[model_type]
    more = {"interleaved": about.get("rope_interleave") is not False} if family is deepseek else {}
    root, described = root_of(found, path), transformer.weights(config)
    leaves = plan(config, family.KEYS(config, **more), root)
    check(found, leaves, config, about, root, str(path))
    is_weight = lambda x: isinstance(x, Weight)
    tree = jax.tree.structure(described, is_leaf=is_weight)
    one = SingleDeviceSharding(jax.devices()[0])
    whole = jax.tree.map(lambda _: one, described, is_leaf=is_weight)
    layout = sharding.weight_shardings(config) if config.layout.mesh else whole
    placed = [read_leaf(found, leaf, where, dtype) for leaf, where in zip(leaves, jax.tree.leaves(layout), strict=True)]
    return jax.tree.unflatten(tree, placed)


def read_leaf(found: dict[str, Place], leaf: Leaf, where: jax.sharding.Sharding, dtype: str | None) -> jax.Array:
    """One weight: each device's part is copied out of the mapped file."""
    w, key = leaf.weight, leaf.key
    kept = tensors.DTYPES[found[next(iter(leaf.names.values()))].dtype]
    wanted = np.dtype(jax.numpy.dtype((w.dtype or dtype) if dtype else kept))

    def part(index: Any) -> np.ndarray:
        """The part of the weight at this tuple of slices, copied once."""
        places = [range(*s.indices(n)) for s, n in zip(index, w.shape, strict=True)]
        out = np.empty([len(r) for r in places], wanted)
        for at in np.ndindex(*out.shape[: w.held]):
            name = leaf.names[tuple(r[i] for r, i in zip(places, at, strict=False))]
            out[at] = key.ours(found[name].view(), w)[index[w.held :]]
        return out

    return jax.make_array_from_callback(w.shape, where, part)


def find_tensors(folder: Path) -> dict[str, Place]:
    """Every tensor of a folder by name, from one file or from those that an index names."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if not index.is_file():
        if single.is_file():
            return tensors.places(single)
        there = sorted(folder.glob("*.safetensors"))
        if len(there) == 1:
            return tensors.places(there[0])
        old = " (only pickled weights: save them with safe_serialization=True)" if list(folder.glob("*.bin")) else ""
        raise UserError(f"{folder}: there is no model.safetensors and no model.safetensors.index.json in it{old}")
    try:
        by_name = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(by_name.values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as e:
        raise UserError(f"{index} cannot be read ({type(e).__name__}: {e})") from None
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder}: {missing[0]} is missing, {len(missing)} of the {len(files)} files that the index names"
        )
    found = {name: place for file in files for name, place in tensors.places(folder / file).items()}
    if absent := sorted(set(by_name) - set(found)):
        raise UserError(f"{folder}: the index says {by_name[absent[0]]} holds {absent[0]}, but it does not")
    return found


def root_of(found: dict[str, Place], path: str | Path) -> str:
    """What stands before the names of the language model: "model." or, in one that sees images, more."""
    tables = [name for name in found if name.endswith("embed_tokens.weight") and ".layers." not in name]
    roots = [name.removesuffix("embed_tokens.weight") for name in tables]
    if len(roots) != 1:
        raise UserError(f"{path}: {len(roots)} tensors are called embed_tokens.weight, there must be one")
    return roots[0]


def plan(config: Config, of_layer: dict[tuple[str, ...], Key], root: str = "model.") -> list[Leaf]:
    """For each weight of ``config``, in the order of its leaves, the tensors that it is made of."""
    described = transformer.weights(config)
    flat = jax.tree_util.tree_flatten_with_path(described, is_leaf=lambda x: isinstance(x, Weight))[0]
    return [leaf_of(path, w, config, of_layer, root) for path, w in flat]


def leaf_of(path: Any, w: Weight, config: Config, of_layer: dict[tuple[str, ...], Key], root: str) -> Leaf:
    first, *rest = [step.key if isinstance(step, jax.tree_util.DictKey) else step.idx for step in path]
    if first == "head":
        return Leaf(w, Key("lm_head.weight"), {(): head_of(root)})
    if first != "layers":
        return Leaf(w, TOP[(first,)], {(): root + TOP[(first,)].name})
    numbers = [n for n in rest if isinstance(n, int)]
    key = of_layer[tuple(n for n in rest if isinstance(n, str))]
    if config.scan_layers:
        start, period, repeats = config.stacks()[numbers[0]]
        layers = {(n,): start + numbers[1] + n * period for n in range(repeats)}
    else:
        layers = {(): numbers[0]}
    many = [(e,) for e in range(config.experts)] if "{expert}" in key.name else [()]
    name = lambda layer, expert: root + (LAYER + key.name).format(layer=layer, expert=expert[0] if expert else "")
    return Leaf(w, key, {(*at, *e): name(layer, e) for at, layer in layers.items() for e in many})


def head_of(root: str) -> str:
    """The head stands beside the model."""
    return "language_model.lm_head.weight" if root == "language_model.model." else "lm_head.weight"


def check(
    found: dict[str, Place], leaves: list[Leaf], config: Config, about: dict[str, Any], root: str, path: str
) -> None:
    """Raise UserError unless the folder's tensors are exactly those of the config."""
    wanted = {name: leaf.key.shape(leaf.weight) for leaf in leaves for name in leaf.names.values()}
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"{path}: the tensor {missing[0]} is missing{more(missing)}")
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise UserError(
                f"{path}: the tensor {name} has the shape {list(found[name].shape)}, the config says {list(shape)}"
            )
        if found[name].dtype not in tensors.DTYPES:
            found[name].view()
    if extra := list(unknown(found, wanted, config, about, root)):
        raise UserError(f"{path}: the tensor {extra[0]} belongs to nothing that the config describes{more(extra)}")


def more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def unknown(
    found: dict[str, Place], wanted: dict[str, Any], config: Config, about: dict[str, Any], root: str
) -> Iterator[str]:
    """Names of tensors that are neither used nor known to be of no use."""
    spare = about.get("num_nextn_predict_layers", about.get("num_mtp_layers", 0)) or 0
    for name in sorted(set(found) - set(wanted)):
        layer = name.removeprefix(f"{root}layers.").partition(".")[0]
        of_no_use = (
            name.endswith("rotary_emb.inv_freq")  # computed here
            or (config.tied_head and name == head_of(root))  # the embedding once more
            or (root != "model." and not name.startswith(root))  # the part that sees images
            or (
                spare and layer.isdigit() and config.layers <= int(layer) < config.layers + spare
            )  # predicts two tokens
        )
        if not of_no_use:
            yield name
