"""A request of the page for attempts: checked, sampled, verified while it is sampled, and told line by line.

{"type": "start", ...}     the prompt as tokens
{"type": "tokens", ...}    some tokens of each attempt
{"type": "verdict", ...}   right or wrong and why, of an attempt that has ended
{"type": "group", ...}     what all of them say together
{"type": "error", ...}     in one line, where sampling fails behind the start
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Iterator
from typing import Any, NamedTuple

from rljax.errors import UserError
from rljax.json_lines import shorten_float
from rljax.serving.engine import Work
from rljax.serving.fields import FieldError, Fields, check_known, read_number, read_temperature, read_texts, read_whole
from rljax.serving.groups import Group, find_algorithm, group_advantages, summarize_group
from rljax.serving.http import follow, in_thread, json_line, one_line
from rljax.serving.pieces import TextStream, split_pieces
from rljax.serving.policies import NoPolicyError, Source
from rljax.serving.questions import Question, read_question
from rljax.serving.shapes import check_window
from rljax.serving.state import Limits, State
from rljax.serving.streaming import Ask, Columns, prepare_attempts, stream_attempts
from rljax.serving.verdicts import Verdict, judge_of, verdict_fields
from rljax.text import StopStrings, Tokenizer, find_stop_strings

KNOWN = frozenset(
    ("model", "problem", "prompt", "form", "answer", "attempts", "temperature", "top_p", "max_tokens", "seed", "stop")
)
LAST_SEED = (1 << 31) - 1


class Sampling(NamedTuple):
    """How a request wants to sample, checked as far as no prompt is needed."""

    attempts: int
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    stops: StopStrings | None


class Began(NamedTuple):
    """What is known before the first token."""

    question: Question
    ask: Ask


def read_sampling(source: Source, fields: Fields, limits: Limits) -> Sampling:
    """The settings of a request. Raises FieldError for one that is out of its range."""
    task, window = source.run.task, source.run.sampler_model.max_length
    most = min(limits.max_new_tokens, window - 1)
    usual = min(source.run.rl.sampling.max_new_tokens, most)
    texts = read_texts(fields, "stop", 8)
    try:
        stops = find_stop_strings(task.tokenizer, texts) if texts else task.stops
    except UserError as e:
        raise FieldError("stop", str(e)) from None
    return Sampling(
        attempts=read_whole(fields, "attempts", 8, 1, limits.attempts),
        max_new_tokens=read_whole(fields, "max_tokens", usual, 1, most),
        temperature=read_temperature(fields),
        top_p=read_number(fields, "top_p", 1.0, 0.001, 1.0),
        seed=read_whole(fields, "seed", 0, 0, LAST_SEED),
        stops=stops,
    )


def make_ask(source: Source, ids: tuple[int, ...], how: Sampling, **more: Any) -> Ask:
    """The prompt and the settings together. Raises UserError where they do not fit in the window."""
    check_window(len(ids), how.max_new_tokens, source.run.sampler_model.max_length)
    given: dict[str, Any] = how._asdict() | {"stop_ids": tuple(source.run.task.tokenizer.stop_ids)} | more
    return Ask(prompt=ids, **given)


def sample_question(state: State, name: str, fields: Fields, how: Sampling) -> Work:
    """The work of the device: read the policy, draw the problem (yields ``Began``), sample (``Columns``)."""
    policy = yield from state.policies.use(name)
    question = read_question(policy.source, fields)
    ask = make_ask(policy.source, question.ids, how)
    yield Began(question, ask)
    yield from stream_attempts(state.programs, policy.sampling, policy.source.run.sampler_model, ask)


class Attempts:
    """The attempts of a request so far, on the host."""

    def __init__(self, tokenizer: Tokenizer, count: int):
        self.tokenizer = tokenizer
        self.texts = [TextStream(tokenizer) for _ in range(count)]
        self.sampled: list[list[float]] = [[] for _ in range(count)]
        self.finished = [False] * count
        self.names: dict[int, str] = {}

    def add(self, columns: Columns) -> list[dict[str, Any]]:
        """The new tokens of each attempt, as JSON has them."""
        rows = []
        for n in range(len(self.texts)):
            places = columns.live[n].nonzero()[0]
            if places.size:
                ids = columns.tokens[n, places].tolist()
                self.sampled[n] += columns.sampled[n, places].tolist()
                tops = [self.alternatives(columns, n, j) for j in places]
                logprobs = [shorten_float(x) for x in columns.logprobs[n, places].tolist()]
                pieces = [self.texts[n].add(i) for i in ids]
                rows.append({"row": n, "ids": ids, "pieces": pieces, "logprobs": logprobs, "tops": tops})
        self.finished = columns.finished.tolist()
        return rows

    def alternatives(self, columns: Columns, row: int, place: int) -> list[tuple[str, float]]:
        """[(text, log-probability)] of the likeliest tokens at one place."""
        pairs = zip(columns.top_ids[row, place].tolist(), columns.top_logprobs[row, place].tolist(), strict=True)
        return [(self.name(i), shorten_float(x)) for i, x in pairs if math.isfinite(x)]

    def name(self, token: int) -> str:
        """A token alone as text; decoding is slower than a look."""
        if token not in self.names:
            self.names[token] = self.tokenizer.decode([token])
        return self.names[token]


async def attempt_lines(state: State, name: str, fields: Fields) -> AsyncGenerator[bytes, None]:
    """The lines of a request. Raises UserError before the first one for whatever is wrong with the request."""
    check_known(fields, KNOWN)
    source = state.policies.find(name)
    how = await in_thread(state.helpers, lambda: read_sampling(source, fields, state.limits))
    task, began, attempts = source.run.task, None, Attempts(source.run.task.tokenizer, how.attempts)
    judge, loop = judge_of(task, source.run.workers), asyncio.get_running_loop()
    judged: dict[int, asyncio.Future[Verdict]] = {}
    told: set[int] = set()

    def begin_verdict(row: int) -> None:
        ids, finished = tuple(attempts.texts[row].ids), attempts.finished[row]
        assert began is not None
        judged[row] = loop.run_in_executor(state.judges, judge, began.question, ids, finished, how.stops)

    def lines_of_verdicts() -> Iterator[bytes]:
        for row, future in judged.items():
            if row not in told and future.done():
                told.add(row)
                yield json_line({"type": "verdict", "row": row, **verdict_fields(future.result())})

    async with contextlib.aclosing(follow(state.engine, sample_question(state, name, fields, how))) as values:
        try:
            async for value in values:
                if isinstance(value, Began):
                    began = value
                    yield json_line({"type": "start", "model": name, **prompt_fields(task.tokenizer, value)})
                    continue
                rows = attempts.add(value)
                yield json_line({"type": "tokens", "rows": rows})
                for row, finished in enumerate(attempts.finished):
                    if finished and row not in judged:
                        begin_verdict(row)
                for line in lines_of_verdicts():
                    yield line
            assert began is not None
            for row in range(how.attempts):
                if row not in judged:
                    begin_verdict(row)
            for row in range(how.attempts):
                await judged[row]
                for line in lines_of_verdicts():
                    yield line
            verdicts = [judged[row].result() for row in range(how.attempts)]
            yield json_line(await loop.run_in_executor(state.judges, end_group, state, name, began, attempts, verdicts))
        except UserError as e:
            if began is None:
                raise
            yield json_line({"type": "error", "error": one_line(e)})


def prompt_fields(tokenizer: Tokenizer, began: Began) -> dict[str, Any]:
    """The prompt as tokens, and what was asked."""
    ask, ids = began.ask, list(began.ask.prompt)
    shown = {"attempts": ask.attempts, "max_tokens": ask.max_new_tokens, "seed": ask.seed}
    return {"ids": ids, "pieces": split_pieces(tokenizer, ids), "known": began.question.record is not None, **shown}


def end_group(state: State, name: str, began: Began, attempts: Attempts, verdicts: list[Verdict]) -> dict[str, Any]:
    """Keep the group for a gradient step, and say what its attempts say together."""
    ask, task = began.ask, state.policies.find(name).run.task
    correct = tuple(math.nan if v.correct is None else v.correct for v in verdicts)
    group = Group(
        policy=name,
        prompt=ask.prompt,
        responses=tuple(tuple(text.ids) for text in attempts.texts),
        finished=tuple(attempts.finished),
        logprobs=tuple(map(tuple, attempts.sampled)),
        correct=correct,
        temperature=ask.temperature,
        max_new_tokens=ask.max_new_tokens,
    )
    summary = summarize_group(
        correct, [len(r) for r in group.responses], [v.attempt for v in verdicts], task.same_answer
    )
    return {"type": "group", "group": state.groups.keep(group), "summary": summary}


def advantage_fields(group: Group, algorithm: str) -> dict[str, Any]:
    """The advantage of each attempt of a group. Raises UserError where the algorithm cannot say."""
    return {"advantages": group_advantages(find_algorithm(algorithm), group.correct, group.responses)}


def warm_up(state: State) -> None:
    """Let the device compile what the page asks first. Does not wait for it; does nothing where there is no policy yet."""
    try:
        name = state.policies.default(state.default_source)
    except NoPolicyError:
        return
    how = read_sampling(state.policies.find(name), {}, state.limits)
    state.engine.submit(sample_first(state, name, how), lambda told: None)


def sample_first(state: State, name: str, how: Sampling) -> Work:
    """The work of ``warm_up``: attempts at the first problem, and what longer ones need."""
    policy = yield from state.policies.use(name)
    source = policy.source
    ask = make_ask(source, read_question(source, {"problem": 0}).ids, how)
    yield from stream_attempts(state.programs, policy.sampling, source.run.sampler_model, ask)
    yield from prepare_attempts(state.programs, policy.sampling, source.run.sampler_model, ask)
