"""Write a Hugging Face folder that transformers, vLLM and others load: config.json, safetensors, tokenizer."""

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

from rljax.errors import UserError
from rljax.pretrained import tensors
from rljax.pretrained.config_fields import Fields
from rljax.pretrained.folder import COMPUTED, FAMILIES, Leaf, plan
from rljax.text import Tokenizer, hf_files
from rljax.transformer import Config, Params

DEFAULTS = Config(vocab_size=1)
OF_EXPERTS = ("experts_per_token", "expert_width", "shared_width", "routed", "router")
OF_EXPERTS += ("router_normalise", "router_scale", "router_groups", "router_top_groups")
OF_LATENTS = ("query_latent", "rope_width", "value_width")


def save(
    path: str | Path,
    config: Config,
    params: Params,
    tokenizer: Tokenizer | None = None,
    *,
    family: str | None = None,
    shard_bytes: int = 5_000_000_000,
) -> str:
    """Write the folder ``path``; returns the model type it was written as.

    Tensors keep their dtype and their bits. The family is the first that has this architecture, unless named. The folder
    appears when it is whole. Raises UserError where no family has it, or where something is at ``path`` already.
    """
    path = vacant(path)
    model_type = family_of(config, family)
    leaves = plan(config, FAMILIES[model_type].KEYS(config))
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        draft.mkdir(parents=True)
    except OSError as e:
        raise UserError(f"cannot write to {path}: {e.strerror}") from None
    try:
        write_tensors(draft, leaves, jax.tree.leaves(params), shard_bytes)
        dtype = str(jax.tree.leaves(params)[0].dtype)
        about = {"architectures": [FAMILIES[model_type].ARCHITECTURES[model_type]], "model_type": model_type}
        about |= FAMILIES[model_type].write(config, model_type) | {"dtype": dtype, "torch_dtype": dtype}
        if tokenizer is not None:
            stops = list(tokenizer.stop_ids)
            about |= {"bos_token_id": tokenizer.bos, "pad_token_id": tokenizer.pad}
            about["eos_token_id"] = stops[0] if len(stops) == 1 else stops
            for name, text in hf_files.files(tokenizer).items():
                (draft / name).write_text(text, encoding="utf-8")
        (draft / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        if path.is_dir():
            path.rmdir()
        os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return model_type


def vacant(path: str | Path) -> Path:
    """The folder that is to be written. Raises UserError where something is there."""
    path = Path(path).expanduser().resolve()
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} is there already, and not empty: choose another folder")
    except OSError as e:
        raise UserError(f"cannot write to {path}: {e.strerror}") from None
    return path


def write_tensors(folder: Path, leaves: list[Leaf], arrays: list[jax.Array], shard_bytes: int) -> None:
    """One file, or several of at most ``shard_bytes`` (a larger tensor has one of its own) and their index."""
    about, where = {}, {}
    for leaf, x in zip(leaves, arrays, strict=True):
        for at, name in leaf.names.items():
            about[name], where[name] = (np.dtype(x.dtype), leaf.key.shape(leaf.weight)), (leaf, x, at)

    def of(name: str) -> np.ndarray:
        leaf, x, at = where[name]
        return leaf.key.theirs(np.asarray(jax.device_get(x[at] if at else x)), leaf.weight)

    files: list[list[str]] = [[]]
    for name in about:
        if files[-1] and tensors.nbytes(about[n] for n in [*files[-1], name]) > shard_bytes:
            files.append([])
        files[-1].append(name)
    if len(files) == 1:
        tensors.write(folder / "model.safetensors", about, of)
        return
    names = [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
    for file, held in zip(names, files, strict=True):
        tensors.write(folder / file, {name: about[name] for name in held}, of)
    index: dict[str, Any] = {"metadata": {"total_size": tensors.nbytes(about.values())}}
    index["weight_map"] = {name: file for file, held in zip(names, files, strict=True) for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


# Which family?


def family_of(config: Config, wanted: str | None = None) -> str:
    """The model type that has this architecture. Raises UserError with what stands in the way of the nearest one."""
    if wanted is not None and wanted not in FAMILIES:
        raise UserError(f"family={wanted!r} is not known, choose from {', '.join(sorted(FAMILIES))}")
    lacks = {name: differences(config, name) for name in ([wanted] if wanted else FAMILIES)}
    name = min(lacks, key=lambda n: len(lacks[n]))
    if lacks[name]:
        raise UserError(
            f"no Hugging Face architecture has this model's {', '.join(lacks[name])} together with the rest of it; "
            f"the nearest is {name}"
        )
    return name


def differences(config: Config, model_type: str) -> list[str]:
    """Fields of the architecture that a config.json of this type cannot say."""
    family = FAMILIES[model_type]
    try:
        about = json.loads(json.dumps(family.write(config, model_type))) | {"model_type": model_type}
        again = essence(Config(**family.read(Fields(about, model_type))))
    except (UserError, TypeError, ValueError, KeyError, ZeroDivisionError):
        return [f.name for f in dataclasses.fields(config)]
    return [name for name, value in essence(config).items() if not same(value, again[name])]


def essence(config: Config) -> dict[str, Any]:
    """The architecture alone, each function of it in one form."""
    c = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    out = {k: v for k, v in c.items() if k not in (*COMPUTED, "layout")}
    every = range(config.layers)
    out["sliding"], out["routed"] = [config.slides(i) for i in every], [config.routes(i) for i in every]
    if not any(out["sliding"]):
        out["window"] = out["rope_base_sliding"] = None
    if not any(out["routed"]):
        out |= {"experts": 0} | {k: getattr(DEFAULTS, k) for k in OF_EXPERTS if k != "routed"}
    if all(out["routed"]):
        out["ff_width"] = 0
    if not config.latent:
        out |= {k: 0 for k in OF_LATENTS}
    else:
        out["kv_heads"] = config.heads
    if out["attention_scale"] is None:
        out["attention_scale"] = config.head_width**-0.5
    return out


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-9)
    return a == b
