"""The tokenizer of a GGUF file, as the files that a Hugging Face folder would hold.

    gpt2     byte-level BPE: tokens and merges are stored, and a name says how texts are split before (``SPLITS``)
    llama    SentencePiece BPE: tokens have scores. Two tokens are merged where their union is a token, the best score first

What ends a response is what ends it in llama.cpp: the tokens that the file names, and control tokens with one of the texts ``ENDS``.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from rljax.errors import UserError
from rljax.text.gguf_files import GGUF, open_gguf

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # the format's kinds of tokens; 2 is unknown, 6 a byte
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{REST}"
# How texts are split before they are tokens, by the field tokenizer.ggml.pre: llama.cpp's names, the rules of the models' own
# tokenizer.json. "": as in GPT-2; "digits": that, with each digit apart; else a pattern.
SPLITS = {name: "" for name in ("gpt-2", "gpt2")}
SPLITS |= {name: "digits" for name in ("smollm", "starcoder", "refact", "command-r")}
SPLITS |= {name: LLAMA3 for name in ("llama-bpe", "llama3", "llama-v3")}
SPLITS |= {name: QWEN2 for name in ("qwen2", "deepseek-r1-qwen")}
ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>")
ENDS += ("<｜end▁of▁sentence｜>",)
ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def has_tokenizer(path: str | Path) -> bool:
    """Whether a GGUF file holds a tokenizer."""
    return "tokenizer.ggml.tokens" in open_gguf(path).fields


def gguf_tokenizer_files(path: str | Path) -> dict[str, str]:
    """File name -> text, of tokenizer.json and the files beside it. Raises UserError for a kind of tokenizer not known here."""
    found = open_gguf(path)
    if not has_tokenizer(path):
        raise UserError(f"tokenizer: {path} holds none")
    tokens, kind = found("tokenizer.ggml.tokens"), found("tokenizer.ggml.model")
    kinds = found("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    if kind not in ("gpt2", "llama"):
        raise UserError(f"tokenizer: {path} has one of the kind {kind!r}, only gpt2 and llama are known here")
    if kind == "llama":  # the converter has written spaces in these, and only in these
        tokens = [t.replace(" ", "▁") if k == USER_DEFINED else t for t, k in zip(tokens, kinds, strict=True)]
    try:
        library = make_byte_level(found, tokens, kinds) if kind == "gpt2" else make_sentence_piece(found, tokens, kinds)
        special = lambda t: AddedToken(t, special=True, normalized=False)
        plain = lambda t: AddedToken(t, special=False, normalized=False)
        library.add_tokens(
            [
                special(t) if k == CONTROL else plain(t)
                for t, k in zip(tokens, kinds, strict=True)
                if k in (CONTROL, USER_DEFINED)
            ]
        )
        names = {role: tokens[i] for role, i in named_ids(found).items()}
        if begins_with_bos(found, kind):
            begin = names["bos_token"]
            library.post_processor = processors.TemplateProcessing(
                single=f"{begin} $A", special_tokens=[(begin, named_ids(found)["bos_token"])]
            )
        ends = list(dict.fromkeys(find_ends(found, tokens, kinds)))
    except UserError:
        raise
    except Exception as e:  # the library raises plain Exceptions
        raise UserError(f"tokenizer: {path} is damaged ({type(e).__name__}: {' '.join(str(e).split())})") from None
    files = {
        "tokenizer.json": library.to_str(),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | names),
        "generation_config.json": json.dumps({"eos_token_id": ends} if ends else {}),
    }
    template = found("tokenizer.chat_template", "")
    return files | ({"chat_template.jinja": template} if template else {})


def named_ids(found: GGUF) -> dict[str, int]:
    """The ids of the tokens that begin, end and pad texts, and of the unknown one, by Hugging Face's names."""
    ids = {role: found(f"tokenizer.ggml.{name}_token_id", None) for role, name in ROLES.items()}
    return {role: int(i) for role, i in ids.items() if i is not None}


def begins_with_bos(found: GGUF, kind: str) -> bool:
    """Whether every text begins with the token that begins texts. Where the file does not say: as in llama.cpp."""
    by_default = kind == "llama" or SPLITS.get(found("tokenizer.ggml.pre", "")) == LLAMA3
    return "bos_token" in named_ids(found) and bool(found("tokenizer.ggml.add_bos_token", by_default))


def find_ends(found: GGUF, tokens: list[str], kinds: list[int]) -> Iterator[int]:
    """Ids that end a response."""
    for name in ("eos", "eot", "eom"):
        if (i := found(f"tokenizer.ggml.{name}_token_id", None)) is not None:
            yield int(i)
    yield from (i for i, token in enumerate(tokens) if kinds[i] == CONTROL and token in ENDS)


def make_byte_level(found: GGUF, tokens: list[str], kinds: list[int]) -> Tokenizer:
    """Byte-level BPE, without its added tokens."""
    split = SPLITS.get(name := found("tokenizer.ggml.pre", "default"))
    if split is None:
        raise UserError(
            f"tokenizer: {found.path} splits texts as {name!r} (tokenizer.ggml.pre), which is not known here, only "
            f"{', '.join(sorted(SPLITS))}"
        )
    merges: Any = [tuple(pair.split(" ")) for pair in found("tokenizer.ggml.merges")]
    vocab = {t: i for i, t in enumerate(tokens) if kinds[i] != UNUSED}
    library = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=split == LLAMA3))
    if split in ("", "digits"):
        steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if split else []
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False))
    else:
        steps = [pre_tokenizers.Split(Regex(split), "isolated")]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    if split == QWEN2:
        library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.Sequence(steps)
    library.decoder = decoders.ByteLevel()
    return library


def make_sentence_piece(found: GGUF, tokens: list[str], kinds: list[int]) -> Tokenizer:
    """SentencePiece's BPE, without its added tokens: a space is the letter "▁", other characters may be written in bytes."""
    vocab = {t: i for i, t in enumerate(tokens) if kinds[i] != UNUSED}
    unknown = named_ids(found).get("unk_token")
    library = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges_of_scores(tokens, kinds, found("tokenizer.ggml.scores")),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = found("tokenizer.ggml.add_space_prefix", True)  # as Llama 2, which puts a space before what begins a text
    if prefix:
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        library.normalizer = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    library.decoder = decoders.Sequence(steps)
    return library


def merges_of_scores(tokens: list[str], kinds: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece vocabulary, the first ones first: every pair of tokens whose union is a token too.

    The union's score decides, then the length of the parts. Tokens that the model's makers have added come before, as their
    ids do. These are the merges that transformers makes of such a vocabulary.
    """
    ids = {t: i for i, t in enumerate(tokens) if kinds[i] in (NORMAL, USER_DEFINED)}
    found = []
    for token, i in ids.items():
        pairs = [(token[:n], token[n:]) for n in range(1, len(token))]
        pairs = sorted((ids[a], ids[b], a, b) for a, b in pairs if a in ids and b in ids)
        rank = (1, -i) if kinds[i] == USER_DEFINED else (0, scores[i])
        found += [(*rank, len(a), len(b), a, b) for *_, a, b in pairs]
    found.sort(key=lambda x: x[:4], reverse=True)
    return [(a, b) for *_, a, b in found]
