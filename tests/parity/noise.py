"""Weights by name: nobody stores them, torch and JAX both make them from the tensor's name in the checkpoint."""

import zlib

import numpy as np


def normal(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 normal numbers that depend on ``key`` and nothing else (the stream of RandomState is frozen for good)."""
    return np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(shape)).astype(np.float32)


def noise(name: str, shape: tuple[int, ...], family: str, seed: int = 0) -> np.ndarray:
    """The weight of tensor ``name`` in a model of ``family``: every number away from 0 and from what it starts as.

    Spreads keep activations near 1, scores of attention and routers sharp enough that every field of a config shows,
    and logits apart enough that the likeliest token is no matter of rounding.
    """
    draw, kind = normal(f"{seed}:{name}", shape), name.rsplit(".", 2)[-2]
    if (
        "norm" in kind
    ):  # Gemma multiplies by 1 + w, the others by w; its blocks are doubled, for its embeddings are large
        mean = 1.0 if kind.startswith("post_") or not family.startswith("gemma") else 0.0
        return np.float32(mean) + np.float32(0.3) * draw
    if name.endswith("e_score_correction_bias"):  # scores are sigmoids, about 0.2 apart: this changes some choices
        return np.float32(0.15) * draw
    if name.endswith(".bias"):
        return np.float32(0.3) * draw
    spread = {"q_proj": 2.0, "q_b_proj": 1.5, "gate": 2.0, "lm_head": 1.5, "o_proj": 2.0, "down_proj": 2.0}.get(
        kind, 1.0
    )
    return np.float32(spread * shape[-1] ** -0.5) * draw


def tokens(rows: int, columns: int, vocab_size: int, seed: int = 0) -> np.ndarray:
    """Token ids [rows, columns], never 0: torch gives the row of the padding token no gradient, and Gemma pads with 0."""
    return np.random.RandomState(1000 + seed).randint(1, vocab_size, size=(rows, columns))
