"""The JSON of OpenAI's completions and chat completions: what is asked, and what is answered."""

import secrets
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from rljax.serving.completions import Entry, Part
from rljax.serving.fields import (
    FieldError,
    Fields,
    check_known,
    read_flag,
    read_number,
    read_temperature,
    read_texts,
    read_whole,
)
from rljax.serving.streaming import MANY_TOPS

SHARED = ("model", "max_tokens", "temperature", "top_p", "n", "stream", "stream_options", "stop", "seed")
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
NEUTRAL = {"presence_penalty": (0, 0.0), "frequency_penalty": (0, 0.0), "logit_bias": ({},), "best_of": (1,)}
NEUTRAL |= {"suffix": ("",), "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False)}
NEUTRAL |= {"response_format": ({"type": "text"},)}  # fields that may be sent where they ask for nothing
COMPLETION = frozenset((*SHARED, *IGNORED, *NEUTRAL, "prompt", "echo", "logprobs"))
CHAT = frozenset((*SHARED, *IGNORED, *NEUTRAL, "messages", "logprobs", "top_logprobs", "max_completion_tokens"))


class Wanted(NamedTuple):
    """The settings of a request."""

    max_tokens: int | None
    temperature: float
    top_p: float
    n: int
    seed: int
    stop: tuple[str, ...]
    stream: bool
    usage: bool  # whether a stream ends with the numbers of tokens
    echo: bool
    tops: int | None  # None: no log-probabilities


def read_wanted(fields: Fields, chat: bool, most: int) -> Wanted:
    """The settings of a request, at most ``most`` choices. Raises FieldError for one that is out of range or not done here."""
    check_known(fields, CHAT if chat else COMPLETION)
    for name, allowed in NEUTRAL.items():
        value = fields.get(name)
        if value is not None and value not in allowed and not (name == "best_of" and value == fields.get("n", 1)):
            raise FieldError(name, "is not supported here: leave it out")
    options = fields.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise FieldError("stream_options", "must be an object")
    length = "max_completion_tokens" if fields.get("max_completion_tokens") is not None else "max_tokens"
    given = fields.get(length) is not None
    return Wanted(
        max_tokens=read_whole(fields, length, 0, 1 if chat else 0, 1 << 20) if given else None,
        temperature=read_temperature(fields),
        top_p=max(read_number(fields, "top_p", 1.0, 0.0, 1.0), 1e-6),
        n=read_whole(fields, "n", 1, 1, most),
        seed=read_whole(fields, "seed", secrets.randbelow(1 << 31), -(1 << 63), (1 << 63) - 1) % (1 << 31),
        stop=read_texts(fields, "stop", 16),
        stream=read_flag(fields, "stream"),
        usage=bool(options and read_flag(options, "include_usage")),
        echo=False if chat else read_flag(fields, "echo"),
        tops=read_tops(fields, chat),
    )


def read_tops(fields: Fields, chat: bool) -> int | None:
    """How many alternatives of each token are wanted; None: no log-probabilities."""
    if not chat:
        value = fields.get("logprobs")
        return None if value is None or value is False else read_whole(fields, "logprobs", 0, 0, MANY_TOPS)
    if not read_flag(fields, "logprobs"):
        if fields.get("top_logprobs"):
            raise FieldError("top_logprobs", "needs logprobs=true")
        return None
    return read_whole(fields, "top_logprobs", 0, 0, MANY_TOPS)


def read_prompts(fields: Fields, most: int) -> list[str | list[int]]:
    """The prompts of a completion: a text, a list of texts, ids, or a list of lists of ids."""
    found: Any = fields.get("prompt")
    is_ids = lambda x: isinstance(x, list) and x and all(type(i) is int for i in x)
    prompts: Any = [found] if isinstance(found, str) or is_ids(found) else found
    if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) or is_ids(p) for p in prompts):
        raise FieldError("prompt", "must be a text, ids, or a list of either")
    if len(prompts) > most:
        raise FieldError("prompt", f"has {len(prompts)} prompts, at most {most}")
    return prompts


# Answers


class Answer:
    """The answer to one request: its parts as chunks of a stream, or all of them as one object."""

    def __init__(self, model: str, chat: bool, wanted: Wanted, prompts: int, prompt_tokens: int):
        self.chat, self.wanted, self.prompt_tokens, self.sampled = chat, wanted, prompt_tokens, 0
        self.head = {"id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}", "created": int(time.time())}
        self.head |= {"model": model, "system_fingerprint": None}
        self.parts: list[list[Part]] = [[] for _ in range(prompts * wanted.n)]
        self.lengths = [0] * len(self.parts)  # characters of each choice so far

    def add(self, part: Part) -> None:
        """One more part."""
        self.parts[part.choice].append(part)
        self.sampled += part.count

    def chunk(self, part: Part) -> dict[str, Any]:
        """A part as a chunk of a stream."""
        is_first = not self.parts[part.choice]
        self.add(part)
        choice: dict[str, Any] = {"index": part.choice, "finish_reason": part.finish}
        choice["logprobs"] = self.logprobs(part.choice, part.entries) if part.entries else None
        if self.chat:
            choice["delta"] = ({"role": "assistant"} if is_first else {}) | {"content": part.text}
        else:
            choice["text"] = part.text
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return self.head | {"object": kind, "choices": [choice]} | ({"usage": None} if self.wanted.usage else {})

    def last_chunk(self) -> dict[str, Any]:
        """The chunk with the numbers of tokens."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return self.head | {"object": kind, "choices": [], "usage": self.usage()}

    def whole(self) -> dict[str, Any]:
        """Everything as one object."""
        choices = [self.whole_choice(number, parts) for number, parts in enumerate(self.parts)]
        kind = "chat.completion" if self.chat else "text_completion"
        return self.head | {"object": kind, "choices": choices, "usage": self.usage()}

    def whole_choice(self, number: int, parts: Sequence[Part]) -> dict[str, Any]:
        """One choice as a whole."""
        text, entries = "".join(part.text for part in parts), [e for part in parts for e in part.entries]
        wants = self.wanted.tops is not None
        out: dict[str, Any] = {"index": number, "finish_reason": parts[-1].finish if parts else "length"}
        out["logprobs"] = self.logprobs(number, entries) if wants else None
        if self.chat:
            return out | {"message": {"role": "assistant", "content": text, "refusal": None}}
        return out | {"text": text}

    def usage(self) -> dict[str, int]:
        """The numbers of tokens."""
        total = self.prompt_tokens + self.sampled
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.sampled, "total_tokens": total}

    def logprobs(self, number: int, entries: Sequence[Entry]) -> dict[str, Any] | None:
        """The log-probabilities of some tokens of a choice; None where they are not wanted."""
        if self.wanted.tops is None:
            return None
        if self.chat:
            return {"content": [self.chat_entry(e) for e in entries], "refusal": None}
        offsets = []
        for e in entries:
            offsets.append(self.lengths[number])
            self.lengths[number] += len(e.token)
        return {
            "tokens": [e.token for e in entries],
            "token_logprobs": [e.logprob for e in entries],
            "top_logprobs": [self.top_entry(e) for e in entries],
            "text_offset": offsets,
        }

    def top_entry(self, e: Entry) -> dict[str, float] | None:
        """{token: log-probability} of the likeliest tokens and the chosen one; the likelier of two with one text."""
        if e.logprob is None:
            return None
        out: dict[str, float] = {}
        for token, logprob in (*e.tops[: self.wanted.tops or 0], (e.token, e.logprob)):
            out[token] = max(out.get(token, logprob), logprob)
        return out

    def chat_entry(self, e: Entry) -> dict[str, Any]:
        """A token of a chat."""
        one = lambda token, logprob: {"token": token, "logprob": logprob, "bytes": list(token.encode())}
        tops = [one(*top) for top in e.tops[: self.wanted.tops or 0]]
        return one(e.token, e.logprob) | {"top_logprobs": tops}
