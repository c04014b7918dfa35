"""Text to token ids and back, and the chat and prompt templates.

    word_tokenizer.py   one id for each word or number: the tokenizer of the small tasks
    byte_tokenizer.py   one id for each byte
    hf_tokenizer.py     the tokenizer of a Hugging Face folder          hub.py   a folder, or a name on the hub
    control_tokens.py   its ids, such that only trusted text makes control tokens
    token_bytes.py      the bytes of each of its tokens        stop_strings.py   texts that end a response
    hf_files.py         any tokenizer as the files of a Hugging Face folder
    chat.py             a conversation as one text, by a model's chat template
    templates.py        prompt templates by name: R1-Zero, Oat, ...     padding.py   rows of ids as one array

All tokenizers have these fields and methods:

    size            number of ids                       pad, bos, eos    ids; bos is None where there is none
    stop_ids        ids that end a response             begin_ids        ids that begin every text without a chat template
    encode          text -> ids                         decode           ids -> text; control tokens by name
    encode_parts    parts (text, trusted) -> ids        control_tokens   texts of the control tokens
    token_bytes     bytes of each id, where ids are not whole words

Text from outside never becomes a control token: ``encode`` makes one only with ``specials=True``, ``encode_parts`` only from
a trusted part.
"""

from collections.abc import Iterable, Sequence

from rljax.text.byte_tokenizer import ByteTokenizer
from rljax.text.chat import render_chat
from rljax.text.hf_tokenizer import FolderTokenizer
from rljax.text.hub import resolve_folder
from rljax.text.padding import pad_batch
from rljax.text.stop_strings import StopStrings, check_stop_strings, find_stop_strings
from rljax.text.word_tokenizer import SPECIALS, SYMBOL, SymbolTokenizer

Tokenizer = SymbolTokenizer | ByteTokenizer | FolderTokenizer


def prompt_ids(tokenizer: Tokenizer, parts: Sequence[tuple[str, bool]]) -> list[int]:
    """Ids of a prompt made of parts (text, trusted), with ``begin_ids`` exactly once.

    A text from a chat template contains its beginning, or is meant to have none. Use ``tokenizer.encode_parts`` for it, as
    Hugging Face's ``apply_chat_template`` does.
    """
    ids, begin = tokenizer.encode_parts(parts), list(tokenizer.begin_ids)
    return ids if ids[: len(begin)] == begin else begin + ids


def find_control_tokens(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The control tokens whose names occur in some of the texts. ``encode`` makes ordinary text of them."""
    found = {name for text in texts for name in tokenizer.control_tokens if name in text}
    return [name for name in tokenizer.control_tokens if name in found]


def describe_control_tokens(tokenizer: Tokenizer, lines: Iterable[tuple[int, str]]) -> str:
    """What to say of texts, each with the number of its line, that hold the names of control tokens; "" where none does."""
    bad = [(number, text) for number, text in lines if any(name in text for name in tokenizer.control_tokens)]
    if not bad:
        return ""
    names = ", ".join(map(repr, find_control_tokens(tokenizer, (text for _, text in bad))))
    return (
        f"{names} in {len(bad)} of them (the first is line {bad[0][0]}) is learned as letters, not as a control token"
    )
