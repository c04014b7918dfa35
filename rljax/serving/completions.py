"""Completions for clients of OpenAI's protocol: several prompts, several choices of each, with log-probabilities and stops."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from rljax.serving.aside import Aside
from rljax.serving.engine import Work
from rljax.serving.pieces import TextStream, held_back
from rljax.serving.scoring import Scored, score_texts
from rljax.serving.state import State
from rljax.serving.streaming import Ask, Columns, stream_attempts
from rljax.text import StopStrings, Tokenizer

LOWEST = -9999.0  # written for a log-probability of minus infinity, which JSON does not have


class Entry(NamedTuple):
    """One token as ``logprobs`` tells it."""

    token: str
    logprob: float | None  # None: the first token of a text, which has nothing before it
    tops: list[tuple[str, float]]


class Part(NamedTuple):
    """More of one choice."""

    choice: int
    text: str
    entries: list[Entry]
    finish: str | None = None  # "stop" or "length", with the last part
    count: int = 0  # tokens that were sampled, with the last part


class Choice:
    """One choice while it is sampled. Text that may become a stop string is held back, with its tokens."""

    def __init__(self, number: int, tokenizer: Tokenizer, stops: StopStrings | None, stop_ids: Sequence[int]):
        self.number, self.tokenizer, self.stops, self.stop_ids = number, tokenizer, stops, stop_ids
        self.stream, self.text, self.sent = TextStream(tokenizer), "", 0
        self.entries: list[Entry] = []
        self.entries_sent, self.ended = 0, False

    def add(self, columns: Columns, row: int) -> Part | None:
        """The next part, where there is one."""
        if self.ended:
            return None
        for j in columns.live[row].nonzero()[0].tolist():
            token = int(columns.tokens[row, j])
            if token in self.stop_ids:
                self.stream.ids.append(token)
                continue
            self.text += self.stream.add(token)
            tops = zip(columns.top_ids[row, j].tolist(), columns.top_logprobs[row, j].tolist(), strict=True)
            self.entries.append(entry(self.tokenizer, token, float(columns.logprobs[row, j]), tops))
        if columns.finished[row]:
            return self.end("stop")
        held = held_back(self.text, self.stops.strings) if self.stops else 0
        return None if held else self.take(self.text, len(self.entries))

    def end(self, finish: str) -> Part:
        """The last part: what is left before the stop."""
        self.ended = True
        ids, text, count = self.stream.ids, self.text, len(self.entries)
        if finish == "stop" and self.stops and ids and ids[-1] not in self.stop_ids:
            found = self.stops.count_before(ids)
            if found is not None:
                count, rest = found
                text = self.tokenizer.decode(ids[:count]) + rest
        elif not ids or ids[-1] not in self.stop_ids:
            text += self.stream.end()
        part = self.take(text, count) or Part(self.number, "", [])
        return part._replace(finish=finish, count=len(ids))

    def take(self, text: str, count: int) -> Part | None:
        """What of the text and of the tokens was not sent yet."""
        new, entries = text[self.sent :], self.entries[self.entries_sent : count]
        self.sent, self.entries_sent = max(self.sent, len(text)), max(self.entries_sent, count)
        return Part(self.number, new, entries) if new or entries else None


def entry(tokenizer: Tokenizer, token: int, logprob: float | None, tops: Any) -> Entry:
    """A token with its alternatives, as text."""
    name = lambda i: tokenizer.decode([i])
    return Entry(name(token), finite(logprob), [(name(i), finite(x) or 0.0) for i, x in tops])


def finite(logprob: float | None) -> float | None:
    return None if logprob is None else logprob if math.isfinite(logprob) else LOWEST


def prompt_entries(tokenizer: Tokenizer, ids: Sequence[int], scored: Scored) -> list[Entry]:
    """The tokens of a prompt that is echoed."""
    out = [Entry(tokenizer.decode(ids[:1]), None, [])]
    for n in range(1, len(ids)):
        tops = zip(scored.top_ids[n].tolist(), scored.top_logprobs[n].tolist(), strict=True)
        out.append(entry(tokenizer, ids[n], float(scored.logprobs[n]), tops))
    return out


def complete(state: State, name: str, asks: Sequence[Ask], echo: bool, tops: int | None) -> Work:
    """The work of the device: all choices of all prompts, part by part. Choice c of prompt p has number ``p * n + c``.

    ``tops`` is the number of alternatives that are wanted; None: no log-probabilities. An ask for 0 tokens samples none.
    """
    policy = yield from state.policies.use(name)
    config, tokenizer = policy.source.run.sampler_model, policy.source.run.task.tokenizer
    scored: Sequence[Scored | None] = [None] * len(asks)
    if echo and tops is not None:
        texts = [ask.prompt for ask in asks]
        scored = yield from score_texts(state.programs, policy.sampling, config, texts, max(tops, 1))
    for number, (ask, of_prompt) in enumerate(zip(asks, scored, strict=True)):
        first = number * ask.attempts
        choices = [Choice(first + c, tokenizer, ask.stops, ask.stop_ids) for c in range(ask.attempts)]
        if echo:
            entries = [] if of_prompt is None else prompt_entries(tokenizer, ask.prompt, of_prompt)
            yield from (Part(choice.number, tokenizer.decode(ask.prompt), entries) for choice in choices)
        if ask.max_new_tokens:
            for columns in stream_attempts(state.programs, policy.sampling, config, ask):
                if isinstance(columns, Aside):
                    yield columns
                    continue
                yield None
                yield from filter(None, (choice.add(columns, row) for row, choice in enumerate(choices)))
        yield from (choice.end("length") for choice in choices if not choice.ended)
