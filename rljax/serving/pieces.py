"""The text of a response, token by token, while it is sampled."""

from collections.abc import Sequence

from rljax.text import Tokenizer

UNFINISHED = "\ufffd"  # the end of a text whose last character is not complete


class TextStream:
    """Pieces of text whose sum is the text of all tokens. A token that does not complete a character has the piece ""."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, self.ids = tokenizer, []
        self.before, self.read = 0, 0  # ids from ``before`` on are decoded; the text of those up to ``read`` is out

    def add(self, token: int) -> str:
        """The piece of one more token."""
        self.ids.append(int(token))
        old = self.tokenizer.decode(self.ids[self.before : self.read])
        new = self.tokenizer.decode(self.ids[self.before :])
        if new.endswith(UNFINISHED) and len(self.ids) - self.read < 8 and not old.endswith(UNFINISHED):
            return ""
        self.before, self.read = self.read, len(self.ids)
        return new[len(old) :]

    def end(self) -> str:
        """What is left: characters that never became complete."""
        old = self.tokenizer.decode(self.ids[self.before : self.read])
        new = self.tokenizer.decode(self.ids[self.before :])
        self.before, self.read = self.read, len(self.ids)
        return new[len(old) :]


def split_pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The piece of each id; what never became a whole character belongs to the last one."""
    stream = TextStream(tokenizer)
    pieces = [stream.add(i) for i in ids]
    rest = stream.end()
    return [*pieces[:-1], pieces[-1] + rest] if pieces else []


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of a stop string."""
    longest = max(map(len, stops), default=0)
    for count in range(min(longest - 1, len(text)), 0, -1):
        if any(stop.startswith(text[-count:]) for stop in stops):
            return count
    return 0
