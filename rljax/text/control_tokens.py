"""The ``tokenizers`` library, restricted so that control tokens come from trusted text only.

The tokens of a vocabulary are of two kinds:

    ordinary   the tokens of the model itself, and added tokens that are text: Gemma's "\\n\\n" or "<h1>"
    control    special added tokens, and those that look like tags and occur in the chat template: Qwen's <think>

``encode_parts`` looks for control tokens in trusted parts only. It gives everything between two of them, trusted or not, to
the library as one run of ordinary text. So a question never becomes a control token, alone or together with the text around
it. A text without control tokens is tokenised as transformers does, also where the template and the question meet.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import AddedToken, Tokenizer

from rljax.errors import UserError

TAG = re.compile(r"<\S+>|\[\S+\]")
# Categories of the library's \w: a combining mark belongs to a word and a superscript does not, unlike in Python's.
WORD_CATEGORIES = ("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "Pc")
OTHER_WORD_RANGES = ((0x200C, 0x200D), (0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))
# The library's \s. Python's str.strip() has four characters more.
SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
# A token of our own before a run that follows a control token. Some tokenizers put a space before the beginning of a text,
# and such a run is not a beginning. The three characters have no meaning; a text that contains them is split, as one with
# the text of a control token is.
FENCE = "\U0010fffd\U0010fffe\U0010ffff"


def is_word_character(character: str) -> bool:
    """Whether the library's \\w matches the character."""
    if unicodedata.category(character) in WORD_CATEGORIES:
        return True
    return any(first <= ord(character) <= last for first, last in OTHER_WORD_RANGES)


class ControlledTokenizer:
    """A tokenizer around ``library``, the tokenizer of tokenizer.json, which then finds ordinary tokens only."""

    def __init__(self, library: Tokenizer, named: Iterable[str], vital: Iterable[str], template: str):
        """``named``: texts of tokens that are special because a file names them. ``vital``: those that begin, end or pad texts.

        A token that is not special is a control token if it looks like a tag and occurs in the chat template ``template``.
        """
        self.library = library  # never changed after __init__, like all fields
        self.size = max(library.get_vocab().values(), default=-1) + 1  # one more than the largest id
        added, named = library.get_added_tokens_decoder(), set(named)
        self.controls = {t.content: (i, t) for i, t in sorted(added.items()) if _is_control(t, named, template)}
        library.add_special_tokens([_special(t) for _, t in self.controls.values()])
        library.encode_special_tokens = True  # the library does not look for special tokens
        # The library gives the fence the next id. Where the ids have gaps this id may be in use: then there is no fence.
        next_id = max([library.get_vocab_size(with_added_tokens=False), *(i + 1 for i in added)])
        self.fence = FENCE if next_id >= self.size else ""
        if self.fence:
            library.add_tokens([AddedToken(FENCE, normalized=False)])
        self.forbidden = {i for i, _ in self.controls.values()} | ({next_id} if self.fence else set())
        unknown = getattr(library.model, "unk_token", None)
        if unknown in self.controls and unknown not in vital:
            self.forbidden.discard(self.controls[unknown][0])  # the id of characters that the vocabulary lacks
        longest = sorted(self.controls, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest)) or "(?!)")

    def begin_ids(self) -> tuple[int, ...]:
        """Ids that the library puts before every text."""
        first = self.library.encode(self.fence)
        added = itertools.takewhile(lambda pair: pair[1], zip(first.ids, first.special_tokens_mask, strict=True))
        return tuple(i for i, _ in added)

    def encode_parts(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of the parts (text, trusted), one after the other. Raises UserError for text that the vocabulary cannot express."""
        text, out, start = "".join(part for part, _ in parts), [], 0
        for found in self._find_controls(text, parts):
            i, token = self.controls[found[0]]
            run = text[start : found.start()]
            out += self._encode_run(run.rstrip(SPACE) if token.lstrip else run, inside=start > 0)
            out.append(i)
            start = found.end()
            if token.rstrip:
                start = len(text) - len(text[start:].lstrip(SPACE))
        return out + self._encode_run(text[start:], inside=start > 0)

    def decode(self, ids: Iterable[int]) -> str:
        """The text, with control tokens by name. Unknown ids are left out."""
        return self.library.decode([i for i in map(int, ids) if 0 <= i < self.size], skip_special_tokens=False)

    def _find_controls(self, text: str, parts: Sequence[tuple[str, bool]]) -> Iterator[re.Match[str]]:
        """The control tokens in the trusted parts. Neighbouring trusted parts count as one. ``text``: all parts together."""
        start = 0
        for trusted, group in itertools.groupby(parts, key=lambda part: bool(part[1])):
            stop = start + sum(len(part) for part, _ in group)
            for found in self.pattern.finditer(text, start, stop) if trusted else ():
                beside = text[max(found.start() - 1, 0) : found.start()] + text[found.end() : found.end() + 1]
                if not self.controls[found[0]][1].single_word or not any(map(is_word_character, beside)):
                    yield found
            start = stop

    def _encode_run(self, run: str, inside: bool) -> list[int]:
        """Ids of a run without control tokens. ``inside``: it is not the beginning of the text."""
        if not run:
            return []
        before = self.fence if inside else ""
        try:
            found = self.library.encode(before + run, add_special_tokens=False)
        except Exception as e:  # a plain Exception, from a vocabulary without an unknown token
            raise UserError(f"tokenizer: there are no ids for the text {run[:40]!r}: {e}") from None
        ids = found.ids[1:] if before else found.ids
        if self.forbidden.isdisjoint(ids):
            return ids
        # The vocabulary itself may contain the text of a control token. Split it after its first character, and try again.
        spans = found.offsets[1:] if before else found.offsets
        bad = [span for i, span in zip(ids, spans, strict=True) if i in self.forbidden]
        cuts = {start + 1 - len(before) for start, stop in bad if stop - start > 1} & set(range(1, len(run)))
        if not cuts:  # a control token of one character cannot be split: it is left out
            return [i for i in ids if i not in self.forbidden]
        pieces = itertools.pairwise([0, *sorted(cuts), len(run)])
        return [i for a, b in pieces for i in self._encode_run(run[a:b], inside or a > 0)]


def _is_control(token: AddedToken, named: set[str], template: str) -> bool:
    """Whether an added token is a control token."""
    is_tag = TAG.fullmatch(token.content) is not None and token.content in template
    return bool(token.content) and (token.special or token.content in named or is_tag)


def _special(token: AddedToken) -> AddedToken:
    """The token, made special."""
    return AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=True,
    )
