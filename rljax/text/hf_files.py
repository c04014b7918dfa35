"""Any tokenizer as the files of a Hugging Face folder, for export.

transformers' AutoTokenizer loads them, with the same ids for a text and the same text for ids. Differences:

    specials   there "<eos>" in a text becomes the special id; here only with specials=True
    unknown    there a symbol outside the vocabulary raises a plain exception of the library; here a UserError
    <bos>      there it begins every text, unless add_special_tokens=False is given
"""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from rljax.text.byte_tokenizer import ByteTokenizer
from rljax.text.hf_tokenizer import FolderTokenizer
from rljax.text.token_bytes import byte_letters
from rljax.text.word_tokenizer import SPECIALS, SYMBOL, SymbolTokenizer


def tokenizer_files(tokenizer: SymbolTokenizer | ByteTokenizer | FolderTokenizer) -> dict[str, str]:
    """File name -> text. For a FolderTokenizer: the texts that were read, without config.json, which is the model's."""
    if isinstance(tokenizer, FolderTokenizer):
        return {name: text for name, text in tokenizer.files if name != "config.json"}
    library = _symbols(tokenizer) if isinstance(tokenizer, SymbolTokenizer) else _octets()
    library.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    bos = SPECIALS[1]
    library.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.bos)]
    )
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIALS, strict=True))
    ids = {"pad_token_id": tokenizer.pad, "bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,  # transformers' value for no limit
        **names,
    }
    return {
        "tokenizer.json": library.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, indent=2),
        "generation_config.json": json.dumps(ids, indent=2),
    }


def _octets() -> Tokenizer:
    """Byte-level BPE without merges."""
    library = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(byte_letters())}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    return library


def _symbols(tokenizer: SymbolTokenizer) -> Tokenizer:
    """One word for each symbol. The unknown word is not in the vocabulary, so that the library refuses it too."""
    library = Tokenizer(models.WordLevel(tokenizer.ids, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.Split(Regex(SYMBOL.pattern), behavior="removed", invert=True)
    library.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),  # a space before every symbol but the first
            decoders.Fuse(),
            decoders.Replace(Regex(r" (?=[.,;?])"), ""),  # word_tokenizer.TIGHT, in two steps
            decoders.Replace(Regex(r"(?<=\$) "), ""),
        ]
    )
    return library
