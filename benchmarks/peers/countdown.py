"""A model whose weights count down: the first sampled token says how long the response will be.

After the last token of a prompt, START, token n - 1 has the probability of a response of n tokens. After token k comes k - 1, and
token 0 ends the response. So each library samples responses of the lengths that a case asks for, with its own sampler and
without a hook. Only the embedding and the head are made for this. The layers are random. Their outputs are scaled down, so that
they do not disturb the count, and cost what they always cost.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

from rljax import pretrained, transformer

STOP = 0
STRENGTH = 24.0  # logit of the next token of the count; those of others are near 0
UNLIKELY = -20.0  # logit of a first token that no response begins with
SIGMA = 0.8  # of the logarithm of the length


def length_chances(lengths: str, mean: float, longest: int) -> np.ndarray:
    """[longest] chances of a response of 1, 2, ... tokens: "equal": of ``longest`` alone; "long": log-normal, cut off there."""
    if lengths == "equal":
        return np.eye(longest)[-1]
    below = lambda n: 0.5 * (1 + math.erf((math.log(n) - math.log(mean) + SIGMA**2 / 2) / (SIGMA * math.sqrt(2))))
    edges = np.array([0.0, *(below(n) for n in range(2, longest + 1)), 1.0])
    return np.diff(edges)


def draw_lengths(lengths: str, mean: float, longest: int, rows: int, seed: int = 0) -> np.ndarray:
    """[rows] lengths of responses."""
    chances = length_chances(lengths, mean, longest)
    return 1 + np.random.default_rng(seed).choice(longest, rows, p=chances)


def count_down(length: int) -> list[int]:
    """The response of this many tokens."""
    return list(range(length - 1, STOP - 1, -1))


def draw_prompts(vocab: int, prompts: int, columns: int, longest: int) -> np.ndarray:
    """[prompts, columns] int32: random tokens, then START. None of them is a token of the count or the padding."""
    tokens = np.random.default_rng(1).integers(longest, vocab - 2, (prompts, columns))
    tokens[:, -1] = vocab - 2
    return tokens.astype(np.int32)


def words(ids: Iterable[int]) -> str:
    """The text of these tokens. No word is a part of another: libraries look for special tokens inside of words too."""
    return " ".join(f"<{n}>" for n in ids)


def make_params(config: transformer.Config, chances: np.ndarray) -> transformer.Params:
    """Parameters of the model that counts down. START is token V - 2, padding V - 1. The head is not tied."""
    longest, width, vocab = len(chances), config.width, config.vocab_size
    params = jax.jit(transformer.init, static_argnums=0)(config, jax.random.key(0))
    for layer in params["layers"]:
        layer["out"]["kernel"] *= 0.1
        layer["down"] *= 0.1
    # Column 0 of the residual stream is START's alone
    embedding = np.array(params["embedding"], np.float32)
    embedding[:, 0] = 0
    embedding[vocab - 2] = np.eye(width)[0] * math.sqrt(width)
    head = np.zeros((width, vocab), np.float32)
    head[:, :longest] = STRENGTH / width * embedding[1 : longest + 1].T
    head[0] = UNLIKELY / math.sqrt(width)
    head[0, :longest] = np.maximum(np.log(np.maximum(chances, 1e-30)), UNLIKELY) / math.sqrt(width)
    dtype = params["embedding"].dtype
    return params | {"embedding": jnp.asarray(embedding, dtype), "head": jnp.asarray(head, dtype)}


def write_folder(folder: Path, config: transformer.Config, chances: np.ndarray) -> None:
    """A Hugging Face folder (Llama) with the model and a tokenizer of ``words``."""
    config = dataclasses.replace(config, tied_head=False, scan_layers=False, rope_base=1e6)
    pretrained.save(folder, config, make_params(config, chances), family="llama")
    vocab = config.vocab_size
    ids: dict[str, Any] = {"bos_token_id": None, "eos_token_id": STOP, "pad_token_id": vocab - 1}
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | ids))
    (folder / "generation_config.json").write_text(json.dumps(ids))
    unknown = words([1])
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({words([n]): n for n in range(vocab)}, unk_token=unknown)
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {
        "eos_token": words([STOP]),
        "pad_token": words([vocab - 1]),
        "unk_token": unknown,
        "padding_side": "left",
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | special)
    )
