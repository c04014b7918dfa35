"""Write tests/parity/fixtures: what torch and transformers compute for every case. --check compares instead.

    python -m tests.parity.write_fixtures [--check] [FAMILY ...]

One file a family, one line a case. A main case has the config.json that transformers wrote, the tensors' shapes, logits
[2, 24, V], two prompts with their greedy responses, and of every tensor's gradient its norm and its products with two
probes. A variant has the shapes that differ and the logits of the last 6 of 12 tokens, [1, 6, V]; a case of defaults
has these logits, all shapes and the config.json.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import cases, noise
from .expected import COLUMNS, FEW, FIXTURES, LAST, LEAST, ROWS, SHARDED, packed, probed, unpacked


def main_case(name: str, folder: Path) -> dict[str, Any]:
    from . import reference

    family, config = (cases.CASES[name][key] for key in ("family", "config"))
    model = reference.write(folder / "a", config, family)
    out: dict[str, Any] = {"written": reference.written(folder / "a")}
    out["shapes"] = {name: list(x.shape) for name, x in sorted(reference.tensors(folder / "a").items())}
    tokens = noise.tokens(ROWS, COLUMNS, config["vocab_size"])
    out["logits"] = packed(reference.logits(model, tokens))
    out["prompts"], out["greedy"] = reference.clear_responses(model, config["vocab_size"])
    gradient = reference.gradient(model, tokens, folder / "b")
    assert sorted(gradient) == list(out["shapes"])
    out["gradient"] = packed(np.array([probed(name, gradient[name]) for name in out["shapes"]]))
    return out


def other_case(name: str, done: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A variant, or (without a base) a case of defaults."""
    from . import reference

    case = cases.CASES[name]
    config, base = case["config"], case["base"]
    model = reference.write(folder, config, case["family"])
    shapes = {name: list(x.shape) for name, x in sorted(reference.tensors(folder).items())}
    logits = reference.logits(model, noise.tokens(1, FEW, config["vocab_size"]))[:, -LAST:]
    if not base:
        return {"written": reference.written(folder), "shapes": shapes, "logits": packed(logits)}
    usual = done[base]
    if logits.shape[-1] == (size := cases.CASES[base]["config"]["vocab_size"]):
        effect = np.abs(logits[0] - unpacked(usual["logits"], ROWS, COLUMNS, size)[0, FEW - LAST : FEW]).max()
        if effect < LEAST:
            raise ValueError(f"{name} changes the logits by {effect:.1e} only: choose another value")
    gone = {name: None for name in usual["shapes"] if name not in shapes}
    differ = {name: shape for name, shape in shapes.items() if usual["shapes"].get(name) != shape}
    return {"shapes": gone | differ, "logits": packed(logits)}


def family_text(family: str) -> str:
    import torch
    import transformers

    done: dict[str, Any] = {}
    for name in cases.main_cases(family) + [n for n in cases.CASES if cases.CASES[n]["family"] == family]:
        if name not in done:
            with tempfile.TemporaryDirectory() as folder:
                is_main = name in cases.MAIN
                done[name] = main_case(name, Path(folder)) if is_main else other_case(name, done, Path(folder))
    lines = ",\n".join(f"{json.dumps(n)}: {json.dumps(x, separators=(',', ':'))}" for n, x in done.items())
    versions = json.dumps({"torch": torch.__version__, "transformers": transformers.__version__})
    return f'{{"versions": {versions},\n"cases": {{\n{lines}\n}}}}\n'


def write_sharded(folder: Path) -> str:
    """A folder as transformers writes it: bfloat16, in several files. -> its logits in float32, as JSON."""
    from . import reference

    config = cases.CASES["qwen3_moe/c"]["config"] | {"hidden_size": 16, "dtype": "bfloat16", "vocab_size": 32}
    reference.write(folder, config, "qwen3_moe", dtype="bfloat16", max_shard_size="4KB")
    logits = reference.logits(reference.read(folder), noise.tokens(ROWS, COLUMNS, 32))
    return json.dumps({"shape": list(logits.shape), "logits": packed(logits)}) + "\n"


# ---------------------------------------------------------------------------------------------------------------------
# Comparing.


def differences(new: Any, old: Any, path: str = "") -> list[str]:
    """Where two fixtures differ: packed numbers by more than 1e-5 (root of the mean square: another processor sums in
    another order, and single numbers wander further), anything else at all."""
    if isinstance(new, dict) and isinstance(old, dict):
        keys = sorted({*new, *old})
        return [d for k in keys for d in differences(new.get(k), old.get(k), f"{path}/{k}")]
    if path.endswith(("/logits", "/gradient")) and isinstance(old, str) and len(new) == len(old):
        new, old = unpacked(new, -1), unpacked(old, -1)
        away = np.sqrt(np.mean(((new - old) / np.maximum(1, np.abs(old))) ** 2))
        return [f"{path}: by {away:.1e}"] if not away < 1e-5 else []
    return [] if new == old else [f"{path}: {str(new)[:100]} is now, {str(old)[:100]} was"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=cases.FAMILIES)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    found: list[str] = []
    for family in args.families:
        path, text = FIXTURES / f"{family}.json", family_text(family)
        if args.check:
            found += differences(json.loads(text), json.loads(path.read_text()), family)
        else:
            path.write_text(text)
        print(f"{family}: {len(text) / 1000:.0f} kB", flush=True)
    expected = SHARDED.with_suffix(".json")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if args.check else SHARDED
        if not args.check and folder.exists():
            for old in folder.iterdir():
                old.unlink()
        text = write_sharded(folder)
        if args.check:
            found += differences(json.loads(text), json.loads(expected.read_text()), "sharded_folder")
            names = {p.name for p in folder.iterdir()} ^ {p.name for p in SHARDED.iterdir()}
            found += [f"sharded_folder: {name} is in one of both only" for name in sorted(names)]
        else:
            expected.write_text(text)
    if found:
        sys.exit("\n".join(["the fixtures differ from what transformers computes:", *found]))


if __name__ == "__main__":
    main()
