"""Write a Hugging Face folder that transformers, vLLM and others load: config.json, safetensors, tokenizer files."""

import dataclasses
import json
import math
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from rljax.errors import UserError
from rljax.pretrained.config_fields import Fields
from rljax.pretrained.folder import COMPUTE_FIELDS, FAMILIES, WeightTensors, tensors_of_weights
from rljax.text import Tokenizer, hf_files
from rljax.transformer import Config, Params

DEFAULTS = Config(vocab_size=1)
EXPERT_FIELDS = ("experts_per_token", "expert_width", "shared_width", "routed", "router")
EXPERT_FIELDS += ("router_normalise", "router_scale", "router_groups", "router_top_groups")
LATENT_FIELDS = ("query_latent", "rope_width", "value_width")


def save(
    path: str | Path,
    config: Config,
    params: Params,
    tokenizer: Tokenizer | None = None,
    *,
    family: str | None = None,
    shard_bytes: int = 2_000_000_000,
) -> str:
    """Write the folder ``path`` and return the model type that it was written as.

    Tensors keep their dtype and their bits. The model type is the first that has this architecture, or ``family``. The
    folder appears only when it is complete. A host holds one file of about ``shard_bytes`` at a time beside the parameters.
    Raises UserError where no family has this architecture, or where something exists at ``path``.
    """
    path = check_empty_folder(path)
    model_type = choose_model_type(config, family)
    leaves = tensors_of_weights(config, FAMILIES[model_type].tensor_keys(config))
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        draft.mkdir(parents=True)
    except OSError as e:
        raise UserError(f"cannot write to {path}: {e.strerror}") from None
    try:
        write_tensors(draft, leaves, jax.tree.leaves(params), shard_bytes)
        dtype = str(jax.tree.leaves(params)[0].dtype)
        about = {"architectures": [FAMILIES[model_type].ARCHITECTURES[model_type]], "model_type": model_type}
        about |= FAMILIES[model_type].config_to_hf(config, model_type) | {"dtype": dtype, "torch_dtype": dtype}
        if tokenizer is not None:
            stops = list(tokenizer.stop_ids)
            about |= {"bos_token_id": tokenizer.bos, "pad_token_id": tokenizer.pad}
            about["eos_token_id"] = stops[0] if len(stops) == 1 else stops
            for name, text in hf_files.tokenizer_files(tokenizer).items():
                (draft / name).write_text(text, encoding="utf-8")
        (draft / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        if path.is_dir():
            path.rmdir()
        os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return model_type


def check_empty_folder(path: str | Path) -> Path:
    """The absolute path of a folder that is to be written. Raises UserError where something exists there."""
    path = Path(path).expanduser().resolve()
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} is there already, and not empty: choose another folder")
    except OSError as e:
        raise UserError(f"cannot write to {path}: {e.strerror}") from None
    return path


def write_tensors(folder: Path, weights: list[WeightTensors], arrays: list[jax.Array], shard_bytes: int) -> None:
    """Write one file, or several of at most ``shard_bytes`` and their index. A larger tensor has a file of its own."""
    sources = {name: (w, x, at) for w, x in zip(weights, arrays, strict=True) for at, name in w.names.items()}
    size = lambda name: (
        sources[name][1].dtype.itemsize * math.prod(sources[name][0].key.hf_shape(sources[name][0].weight))
    )

    def host_array(name: str) -> np.ndarray:
        w, x, at = sources[name]
        return np.ascontiguousarray(w.key.to_hf(np.asarray(jax.device_get(x[at] if at else x)), w.weight))

    files: list[list[str]] = [[]]
    for name in sources:
        if files[-1] and sum(map(size, [*files[-1], name])) > shard_bytes:
            files.append([])
        files[-1].append(name)
    several = len(files) > 1
    file_names = [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
    for file, names in zip(file_names if several else ["model.safetensors"], files, strict=True):
        save_file({name: host_array(name) for name in names}, folder / file, {"format": "pt"})
    if several:
        index: dict[str, Any] = {"metadata": {"total_size": sum(map(size, sources))}}
        index["weight_map"] = {name: file for file, names in zip(file_names, files, strict=True) for name in names}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


# The choice of a family


def choose_model_type(config: Config, wanted: str | None = None) -> str:
    """The first model type that has this architecture, or ``wanted``. Raises UserError with what the nearest one lacks."""
    if wanted is not None and wanted not in FAMILIES:
        raise UserError(f"family={wanted!r} is not known, choose from {', '.join(sorted(FAMILIES))}")
    lacks = {name: inexpressible_fields(config, name) for name in ([wanted] if wanted else FAMILIES)}
    name = min(lacks, key=lambda n: len(lacks[n]))
    if lacks[name]:
        raise UserError(
            f"no Hugging Face architecture has this model's {', '.join(lacks[name])} together with the rest of it; "
            f"the nearest is {name}"
        )
    return name


def inexpressible_fields(config: Config, model_type: str) -> list[str]:
    """Fields of the architecture that a config.json of this model type cannot express."""
    family = FAMILIES[model_type]
    try:
        about = json.loads(json.dumps(family.config_to_hf(config, model_type))) | {"model_type": model_type}
        again = canonical_architecture(Config(**family.config_from_hf(Fields(about, model_type))))
    except (UserError, TypeError, ValueError, KeyError, ZeroDivisionError):
        return [f.name for f in dataclasses.fields(config)]
    return [name for name, value in canonical_architecture(config).items() if not values_equal(value, again[name])]


def canonical_architecture(config: Config) -> dict[str, Any]:
    """The architecture without how it is computed, in one form for all configs that compute the same function."""
    c = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    out = {k: v for k, v in c.items() if k not in (*COMPUTE_FIELDS, "layout")}
    every = range(config.layers)
    out["sliding"], out["routed"] = [config.is_sliding(i) for i in every], [config.has_experts(i) for i in every]
    if not any(out["sliding"]):
        out["window"] = out["rope_base_sliding"] = None
    if not any(out["routed"]):
        out |= {"experts": 0} | {k: getattr(DEFAULTS, k) for k in EXPERT_FIELDS if k != "routed"}
    if all(out["routed"]):
        out["ff_width"] = 0
    if not config.latent:
        out |= {k: 0 for k in LATENT_FIELDS}
    else:
        out["kv_heads"] = config.heads
    if out["attention_scale"] is None:
        out["attention_scale"] = config.head_width**-0.5
    return out


def values_equal(a: Any, b: Any) -> bool:
    """Whether two values of a field are equal; floats to a relative error of 1e-9."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(values_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-9)
    return a == b
