"""Text to token ids and back: one symbol a word or number, one a byte, or as a Hugging Face folder says.

All tokenizers share what the rest of the code reads:

    size       number of ids                          pad, bos, eos   ids; bos is None where there is none
    stop_ids   ids that end a response                begin           ids before every text that no chat template wrote
    encode     text -> ids                            decode          ids -> text, specials by name
    join       parts (text, trusted) -> ids           marks           the texts of the control tokens

Text from outside never turns into a control token: ``encode`` makes one only where ``specials=True`` is said, ``join`` only
from a part that is trusted.
"""

from collections.abc import Sequence

from rljax.text.byte_tokenizer import ByteTokenizer
from rljax.text.chat import render
from rljax.text.hf_tokenizer import FolderTokenizer
from rljax.text.padding import pad_batch
from rljax.text.word_tokenizer import SPECIALS, SYMBOL, SymbolTokenizer

Tokenizer = SymbolTokenizer | ByteTokenizer | FolderTokenizer


def prompt_ids(tokenizer: Tokenizer, parts: Sequence[tuple[str, bool]]) -> list[int]:
    """Ids of a prompt made of parts (text, trusted), with exactly one beginning.

    A text that a chat template wrote has the beginning in it, or is meant to have none: there ``tokenizer.join`` alone
    says what Hugging Face's ``apply_chat_template`` does.
    """
    ids, begin = tokenizer.join(parts), list(tokenizer.begin)
    return ids if ids[: len(begin)] == begin else begin + ids
