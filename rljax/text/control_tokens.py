"""Control tokens come from trusted text only: the ``tokenizers`` library, with that rule around it.

The tokens of a vocabulary are of two kinds:

    ordinary   the model's own, and added tokens that are text: Gemma's "\\n\\n" or "<h1>"
    control    added tokens that are marks: special ones, and those like Qwen's <think> that the chat template speaks of

``join`` looks for control tokens in trusted parts only, and gives everything between two of them, trusted or not, to the
library as one run of ordinary text. So what a question says never becomes a mark, alone or together with the text around
it, and a text without marks is tokenised as transformers does, also where a template's word and a question's touch.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import AddedToken, Tokenizer

from rljax.errors import UserError

MARK = re.compile(r"<\S+>|\[\S+\]")
WORD = re.compile(r"\w")
# what \s is to the library; to Python's str it is four characters more
SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
# A token of our own before a run that follows a mark: some tokenizers put a space before what begins a text, and this run
# does not. Three characters that stand for nothing; a text that has them all the same is broken up as a mark would be.
FENCE = "\U0010fffd\U0010fffe\U0010ffff"


class Core:
    """``library`` is the tokenizer as tokenizer.json has it; from here on it is ours, and finds ordinary tokens only."""

    def __init__(self, library: Tokenizer, named: Iterable[str], vital: Iterable[str], template: str):
        """``named``: texts of tokens that are special because a file names them; ``vital``: those that begin and end texts.

        Of the tokens that are not special, those are marks that look like one and stand in ``template``.
        """
        self.library = library  # it and what follows are made once, and never changed
        self.size = max(library.get_vocab().values(), default=-1) + 1  # one more than the largest id
        added, named = library.get_added_tokens_decoder(), set(named)
        self.controls = {t.content: (i, t) for i, t in sorted(added.items()) if _is_control(t, named, template)}
        library.add_special_tokens([_special(t) for _, t in self.controls.values()])
        library.encode_special_tokens = True  # special tokens are not looked for
        # the library gives the next id; where ids have gaps that one may be taken, and we go without
        following = max([library.get_vocab_size(with_added_tokens=False), *(i + 1 for i in added)])
        self.fence = FENCE if following >= self.size else ""
        if self.fence:
            library.add_tokens([AddedToken(FENCE, normalized=False)])
        self.forbidden = {i for i, _ in self.controls.values()} | ({following} if self.fence else set())
        unknown = getattr(library.model, "unk_token", None)
        if unknown in self.controls and unknown not in vital:
            self.forbidden.discard(self.controls[unknown][0])  # what a character is that the vocabulary lacks
        longest = sorted(self.controls, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest)) or "(?!)")

    def begin(self) -> tuple[int, ...]:
        """Ids that the library puts before a text."""
        first = self.library.encode(self.fence)
        added = itertools.takewhile(lambda pair: pair[1], zip(first.ids, first.special_tokens_mask, strict=True))
        return tuple(i for i, _ in added)

    def join(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of the parts (text, trusted), one after the other. Raises UserError for what the vocabulary cannot say."""
        text, out, start = "".join(part for part, _ in parts), [], 0
        for found in self._marks(text, parts):
            i, token = self.controls[found[0]]
            run = text[start : found.start()]
            out += self._ordinary(run.rstrip(SPACE) if token.lstrip else run, inside=start > 0)
            out.append(i)
            start = found.end()
            if token.rstrip:
                start = len(text) - len(text[start:].lstrip(SPACE))
        return out + self._ordinary(text[start:], inside=start > 0)

    def decode(self, ids: Iterable[int]) -> str:
        """The text, control tokens by name; ids that are none are left out."""
        return self.library.decode([i for i in map(int, ids) if 0 <= i < self.size], skip_special_tokens=False)

    def _marks(self, text: str, parts: Sequence[tuple[str, bool]]) -> Iterator[re.Match[str]]:
        """The control tokens in the trusted parts, where neighbours count as one part; ``text`` is all of them."""
        start = 0
        for trusted, group in itertools.groupby(parts, key=lambda part: bool(part[1])):
            stop = start + sum(len(part) for part, _ in group)
            for found in self.pattern.finditer(text, start, stop) if trusted else ():
                beside = text[max(found.start() - 1, 0) : found.start()] + " " + text[found.end() : found.end() + 1]
                if not self.controls[found[0]][1].single_word or not WORD.search(beside):
                    yield found
            start = stop

    def _ordinary(self, run: str, inside: bool) -> list[int]:
        """Ids of a run without control tokens; ``inside`` says that it does not begin the text."""
        if not run:
            return []
        before = self.fence if inside else ""
        try:
            found = self.library.encode(before + run, add_special_tokens=False)
        except Exception as e:  # a bare one, of a vocabulary without a word for what is unknown
            raise UserError(f"tokenizer: there are no ids for the text {run[:40]!r}: {e}") from None
        ids = found.ids[1:] if before else found.ids
        if self.forbidden.isdisjoint(ids):
            return ids
        # The vocabulary itself may have a mark's text as a word. Break it after its first character, and look again.
        spans = found.offsets[1:] if before else found.offsets
        bad = [span for i, span in zip(ids, spans, strict=True) if i in self.forbidden]
        cuts = {start + 1 - len(before) for start, stop in bad if stop - start > 1} & set(range(1, len(run)))
        if not cuts:  # a mark of one character cannot be broken: it is left out
            return [i for i in ids if i not in self.forbidden]
        pieces = itertools.pairwise([0, *sorted(cuts), len(run)])
        return [i for a, b in pieces for i in self._ordinary(run[a:b], inside or a > 0)]


def _is_control(token: AddedToken, named: set[str], template: str) -> bool:
    mark = MARK.fullmatch(token.content) is not None and token.content in template
    return bool(token.content) and (token.special or token.content in named or mark)


def _special(token: AddedToken) -> AddedToken:
    return AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=True,
    )
