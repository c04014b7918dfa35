"""A small Hugging Face folder in one file of a few bits a weight, and back: for a machine that takes no more than so many bytes.

The numbers of a matrix are in groups of 32 along their row, each with the smallest number and a step, and stored as whole steps:
in 4 bits in the layers, in 6 bits in the embedding. These are the groups of a GGUF file of kind Q4_1, so that weights that came from one
lose little. The smallest number and the step are stored in 8 bits each, as shares of the largest in their matrix. Of the
range that a group covers the best of a few is taken, by the squared error.

Of the vocabulary only the first tokens are kept. Byte-level BPE numbers its tokens in the order in which they were merged, so the first ones
are a smaller vocabulary of the same kind: rarer words become several tokens.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from rljax.errors import UserError

GROUP = 32
BITS = {"embed_tokens": 6, "lm_head": 6}  # of these matrices; 4 of the others
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)  # of a group's range that is covered
VOCABULARY = 8_192
FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class Packed(NamedTuple):
    """A matrix of few bits a number."""

    codes: np.ndarray  # [bytes] uint8, the numbers of steps, one bit after the other
    lows: np.ndarray  # [groups] int8, the smallest number of each group, times 127 / the largest of all
    steps: np.ndarray  # [groups] uint8, times 255 / the largest of all
    largest: np.ndarray  # [2] float32, of lows and of steps
    shape: np.ndarray  # [2], and the bits of a number


def pack_matrix(x: np.ndarray, bits: int) -> Packed:
    """The matrix [rows, columns] in groups along its rows. Columns must be a multiple of ``GROUP``."""
    groups = x.astype(np.float32).reshape(-1, GROUP)
    top = (1 << bits) - 1
    low, high = groups.min(1), groups.max(1)
    best, error = (low, (high - low) / top), np.full(len(groups), np.inf, np.float32)
    for share in SHARES:
        first, step = low * share, np.maximum((high - low) * share / top, 1e-12)
        rounded = np.clip(np.round((groups - first[:, None]) / step[:, None]), 0, top)
        found = ((rounded * step[:, None] + first[:, None] - groups) ** 2).sum(1)
        better = found < error
        error = np.where(better, found, error)
        best = tuple(np.where(better, new, old) for new, old in zip((first, step), best, strict=True))
    largest = np.array([np.abs(best[0]).max(), best[1].max()], np.float32)
    lows = np.round(best[0] / largest[0] * 127).astype(np.int8)
    steps = np.maximum(np.round(best[1] / largest[1] * 255), 1).astype(np.uint8)
    first, step = lows * (largest[0] / 127), steps * (largest[1] / 255)
    codes = np.clip(np.round((groups - first[:, None]) / step[:, None]), 0, top).astype(np.uint8)
    places = np.arange(bits, dtype=np.uint8)
    stored = np.packbits((codes.reshape(-1, 1) >> places) & 1)
    return Packed(stored, lows, steps, largest, np.array([*x.shape, bits]))


def unpack_matrix(p: Packed) -> np.ndarray:
    """The matrix in float32."""
    rows, columns, bits = map(int, p.shape)
    found = np.unpackbits(p.codes, count=rows * columns * bits).reshape(-1, bits)
    codes = (found << np.arange(bits, dtype=np.uint8)).sum(1, dtype=np.uint8).reshape(-1, GROUP)
    first, step = p.lows * (p.largest[0] / 127), p.steps * (p.largest[1] / 255)
    return (codes * step[:, None] + first[:, None]).astype(np.float32).reshape(rows, columns)


def pack_folder(folder: Path, out: Path, vocabulary: int = VOCABULARY) -> dict[str, Any]:
    """Write the .npz of a folder with one file of tensors. Returns its bytes, and the error of the layers as a share of their size."""
    arrays: dict[str, np.ndarray] = {}
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in FILES if (folder / name).is_file()}
    about = json.loads(texts["config.json"])
    vocabulary = min(vocabulary, about["vocab_size"])
    texts["tokenizer.json"] = shorten_tokenizer(texts["tokenizer.json"], vocabulary, str(folder))
    texts["config.json"] = json.dumps(
        about | {"vocab_size": vocabulary, "dtype": "bfloat16", "torch_dtype": "bfloat16"}
    )
    squares, errors = 0.0, 0.0
    with safe_open(folder / "model.safetensors", "numpy") as opened:
        for name in opened.keys():
            x = opened.get_tensor(name)
            if x.ndim == 1:
                arrays[name] = x.astype(np.float32)
                continue
            if "embed_tokens" in name or "lm_head" in name:
                x = x[:vocabulary]
            if x.shape[1] % GROUP:
                raise UserError(f"{folder}: {name} has rows of {x.shape[1]}, which is no multiple of {GROUP}")
            packed = pack_matrix(x, next((bits for part, bits in BITS.items() if part in name), 4))
            arrays |= {f"{name}/{field}": value for field, value in packed._asdict().items()}
            if "layers." in name:
                squares += float((x.astype(np.float64) ** 2).sum())
                errors += float(((unpack_matrix(packed) - x.astype(np.float32)).astype(np.float64) ** 2).sum())
    arrays["texts"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    np.savez_compressed(out, **arrays)  # pyright: ignore[reportArgumentType]
    return {"bytes": out.stat().st_size, "relative_error": (errors / squares) ** 0.5, "vocabulary": vocabulary}


def unpack_folder(file: Path, folder: Path) -> None:
    """Write the Hugging Face folder of a packed file, its weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray] = {}
    with np.load(file) as arrays:
        for key in arrays.files:
            name, _, field = key.partition("/")
            if field == "codes":
                x = unpack_matrix(Packed(*(arrays[f"{name}/{f}"] for f in Packed._fields)))
                tensors[name] = x.astype(ml_dtypes.bfloat16)
            elif not field and name != "texts":
                tensors[name] = arrays[name].astype(ml_dtypes.bfloat16)
        for name, text in json.loads(arrays["texts"].tobytes()).items():
            (folder / name).write_text(text, encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")


def shorten_tokenizer(text: str, vocabulary: int, where: str) -> str:
    """A byte-level BPE tokenizer.json with its first tokens, and the merges that make them."""
    about = json.loads(text)
    model = about["model"]
    vocab = {token: i for token, i in model.get("vocab", {}).items() if i < vocabulary}
    kinds = json.dumps(about.get("pre_tokenizer"))
    if model.get("type") != "BPE" or "ByteLevel" not in kinds or len(vocab) < 256:
        raise UserError(f"{where}: only byte-level BPE tokenizers of 256 tokens or more are shortened")
    pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    model["vocab"], model["merges"] = vocab, [p for p in pairs if all(t in vocab for t in (*p, "".join(p)))]
    if beyond := [t["content"] for t in about["added_tokens"] if t["id"] >= vocabulary]:
        raise UserError(f"{where}: the token {beyond[0]} would be left out: keep more of the vocabulary")
    return json.dumps(about, ensure_ascii=False)


def main() -> None:
    p = argparse.ArgumentParser(prog="benchmarks.packed_weights", description=(__doc__ or "").split("\n")[0])
    p.add_argument("source", type=Path, help="a folder, or a packed file")
    p.add_argument("to", type=Path, help="the packed file, or the folder")
    p.add_argument("--vocabulary", type=int, default=VOCABULARY)
    a = p.parse_args()
    if a.source.is_dir():
        print(json.dumps(pack_folder(a.source, a.to, a.vocabulary)))
    else:
        unpack_folder(a.source, a.to)


if __name__ == "__main__":
    main()
