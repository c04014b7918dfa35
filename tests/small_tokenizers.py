"""Small tokenizers in the shapes of the real ones, and texts for them, for the tests of Hugging Face tokenizers."""

import functools
import json

from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from rljax.text import (
    FolderTokenizer,
)

LINES = (
    "Question: Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
    "How many clips did Natalia sell altogether in April and May?\n\nAnswer: 48 / 2 = 24 clips in May.\n#### 72",
    "def double(x):\n    return 2 * x\n\n\nprint(double(21))  # naïve café 数学 🚀",
    "user system assistant think im_start im_end tool_call <h1> title </h1> <|im | end|> eos bos",
)
SPLIT = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.content }}<|im_end|>{% endfor %}<think><tool_call>[TOOL]"


# Small tokenizers in the shape of the real ones


def octets() -> pre_tokenizers.ByteLevel:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def byte_level() -> Tokenizer:
    """Llama-3's and Qwen's: byte-level BPE, words that are in the vocabulary stay whole."""
    library = Tokenizer(models.BPE(ignore_merges=True))
    library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), octets()])
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(LINES, trainer)
    library.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    plain = ["<think>", "</think>", "<tool_call>", "[TOOL]", "<|fim|>"]
    library.add_tokens([AddedToken(text, normalized=False) for text in plain])
    return library


def gemma() -> Tokenizer:
    """Gemma's: spaces are letters, what is not in the vocabulary is written in bytes, blank lines and HTML are tokens."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    plain = ["\n", "\n\n", "▁▁", "▁▁▁▁", "<h1>", "</h1>"]
    codes = [f"<0x{i:02X}>" for i in range(256)]
    library = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    library.normalizer = normalizers.Replace(" ", "▁")
    library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[*specials, *plain, *codes], show_progress=False)
    library.train_from_iterator(LINES, trainer)
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bos = library.token_to_id("<bos>")
    library.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    read = json.loads(library.to_str())
    read["added_tokens"] = [
        t | {"special": t["content"] in specials} for t in read["added_tokens"] if t["content"] not in codes
    ]
    return Tokenizer.from_str(json.dumps(read))


def llama2() -> Tokenizer:
    """Llama-2's: a space before what begins a text, and only there."""
    library = gemma()
    library.normalizer = normalizers.Sequence([])
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    library.decoder = decoders.Sequence(steps)
    return library


def known_marks() -> Tokenizer:
    """The worst case: words end at spaces only, and all marks are words of the vocabulary."""
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    marks = {text: 256 + i for i, text in enumerate(("<pad>", "<bos>", "<eos>", "Ġ<think>", "<think>"))}
    library = Tokenizer(models.BPE(vocab=letters | marks, merges=[], ignore_merges=True))
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "merged_with_next"), octets()])
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<pad>", "<bos>", "<eos>", "<think>"])
    return library


def stripping() -> Tokenizer:
    """Marks that swallow the blanks beside them, or stand alone as words only."""
    library = byte_level()
    library.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("[SEP]", rstrip=True)])
    library.add_special_tokens([AddedToken("<both>", lstrip=True, rstrip=True), AddedToken("<word>", single_word=True)])
    library.add_special_tokens(["<mask>2"])  # of two that begin alike, the longer is meant
    return library


MADE = {
    "byte level": (byte_level, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": CHAT}),
    "gemma": (gemma, {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}),
    "llama2": (llama2, {"bos_token": "<bos>", "eos_token": "<eos>"}),
    "known marks": (known_marks, {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}),
    "stripping": (stripping, {"eos_token": "<|im_end|>", "chat_template": CHAT}),
}


@functools.cache
def made(name: str) -> tuple[FolderTokenizer, Tokenizer]:
    """(ours, the library's) of one of these."""
    build, config = MADE[name]
    text = build().to_str()
    files = (("tokenizer.json", text), ("tokenizer_config.json", json.dumps(config)))
    return FolderTokenizer(files, name), Tokenizer.from_str(text)


def write(path, library: Tokenizer, config: dict | None = None, **files):
    """A folder; ``files`` by name with _ for the dot."""
    path.mkdir(exist_ok=True)
    (path / "tokenizer.json").write_text(library.to_str())
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        stem, _, suffix = name.rpartition("_")
        (path / f"{stem}.{suffix}").write_text(text)
    return path


def whole(library: Tokenizer, text: str) -> list[int]:
    """What transformers' encode(text, add_special_tokens=False) does."""
    return library.encode(text, add_special_tokens=False).ids


def control_ids(tokenizer: FolderTokenizer) -> set[int]:
    return {i for i in map(tokenizer.token, tokenizer.control_tokens) if i is not None}


def texts(tokenizer: FolderTokenizer) -> st.SearchStrategy[str]:
    """Texts of everything, with marks, broken marks and blanks more often than chance has them."""
    pieces = [
        *tokenizer.control_tokens,
        *(m[1:] for m in tokenizer.control_tokens),
        *(m[:-1] for m in tokenizer.control_tokens),
    ]
    pieces += [" ", "  ", "\n", "\n\n", "\t", "<h1>", "</h1>", "▁▁", "Nata", "lia", " clips", "7", "数学", "e\u0301"]
    return st.lists(st.one_of(st.sampled_from(pieces), st.text(max_size=6)), max_size=12).map("".join)


def free(tokenizer: FolderTokenizer) -> st.SearchStrategy[str]:
    """Texts in which there is no mark, nor what could become one."""
    return texts(tokenizer).map(lambda text: text.replace("<", "(").replace("[", "("))
