"""The addresses under /v1, for clients of OpenAI's protocol: models, completions, chat completions.

``logprobs`` are those of the policy at temperature 1, whatever is sampled from, as in vLLM. ``seed`` makes an answer repeatable;
all prompts of a request share its noise. Nothing is read from the authorization header.
"""

import contextlib
import functools
import json
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rljax.errors import UserError
from rljax.serving import openai_shapes as shapes
from rljax.serving.completions import Part, complete
from rljax.serving.conversations import encode_conversation, read_messages
from rljax.serving.fields import FieldError, Fields, read_text
from rljax.serving.http import Stream, collect, follow, in_thread, make_route, one_line, read_json, status_of
from rljax.serving.policies import NoPolicyError, Source
from rljax.serving.questions import encode_prompt
from rljax.serving.shapes import check_window
from rljax.serving.state import State
from rljax.serving.streaming import TOPS, Ask
from rljax.text import find_stop_strings

USUAL_TOKENS = 16  # of a completion that names no number, as OpenAI has it
KINDS = {
    400: "invalid_request_error",
    404: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
}


def routes(state: State) -> list[Route]:
    """The addresses for clients of OpenAI's protocol."""

    def address(path: str, answer: Any, method: str) -> Route:
        return make_route(f"/v1/{path}", method, functools.partial(answer, state), openai_error)

    return [
        address("models", list_models, "GET"),
        address("models/{model:path}", show_model, "GET"),
        address("completions", functools.partial(answer_request, chat=False), "POST"),
        address("chat/completions", functools.partial(answer_request, chat=True), "POST"),
    ]


def openai_error(error: UserError) -> Response:
    """An error in OpenAI's shape."""
    status = status_of(error)
    code = "model_not_found" if isinstance(error, NoPolicyError) else None
    about = {"message": one_line(error), "type": KINDS.get(status, "server_error")}
    about |= {"param": one_line(error.field) if isinstance(error, FieldError) else None, "code": code}
    return JSONResponse({"error": about}, status, headers={"retry-after": "2"} if status == 503 else {})


def describe_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "rljax"}


async def list_models(state: State, request: Request) -> Response:
    """All policies."""
    return JSONResponse({"object": "list", "data": [describe_model(name) for name in state.policies.names()]})


async def show_model(state: State, request: Request) -> Response:
    """One policy."""
    name = request.path_params["model"]
    state.policies.find(name)
    return JSONResponse(describe_model(name))


def find_model(state: State, fields: Fields) -> str:
    """The policy that a request names: itself, or its run or folder, whose last one it is then."""
    name = read_text(fields, "model", longest=300)
    if name in state.policies.sources or not name:
        return state.policies.default(name or state.default_source)
    state.policies.find(name)
    return name


def make_asks(state: State, source: Source, fields: Fields, wanted: shapes.Wanted, chat: bool) -> list[Ask]:
    """What is asked of the policy, one for each prompt. Raises FieldError for what it cannot be asked."""
    task, window = source.run.task, source.run.sampler_model.max_length
    if chat:
        prompts = [encode_conversation(task, read_messages(fields))]
    else:
        asked = shapes.read_prompts(fields, max(1, state.limits.choices // wanted.n))
        prompts = [encode_text(source, prompt) for prompt in asked]
    try:
        stops = find_stop_strings(task.tokenizer, wanted.stop) if wanted.stop else task.stops if chat else None
    except UserError as e:
        raise FieldError("stop", str(e)) from None
    asks = []
    for ids in prompts:
        usual = source.run.rl.sampling.max_new_tokens if chat else USUAL_TOKENS
        count = min(usual, window - len(ids)) if wanted.max_tokens is None else wanted.max_tokens
        if not ids or (count < 1 and not wanted.echo):
            raise FieldError("max_tokens" if ids else "prompt", "must be at least 1" if ids else "has no token")
        try:
            check_window(len(ids), max(count, 0), window)
        except UserError as e:
            raise FieldError("max_tokens", str(e)) from None
        how: dict[str, Any] = dict(temperature=wanted.temperature, top_p=wanted.top_p, seed=wanted.seed, stops=stops)
        more: dict[str, Any] = dict(
            stop_ids=tuple(task.tokenizer.stop_ids), tops=TOPS if (wanted.tops or 0) <= TOPS else wanted.tops
        )
        asks.append(Ask(tuple(ids), wanted.n, max(count, 0), **how, **more))
    return asks


def encode_text(source: Source, prompt: str | list[int]) -> list[int]:
    """The ids of a prompt, which may be ids already."""
    if isinstance(prompt, list):
        size = source.run.sampler_model.vocab_size
        if bad := [i for i in prompt if not 0 <= i < size]:
            raise FieldError("prompt", f"the id {bad[0]} is not in the vocabulary of {size}")
        return prompt
    try:
        return encode_prompt(source.run.task, read_text({"prompt": prompt}, "prompt"))
    except FieldError:
        raise
    except UserError as e:
        raise FieldError("prompt", str(e)) from None


async def answer_request(state: State, request: Request, chat: bool) -> Response:
    """A completion, as a stream of events or as one object."""
    fields = await read_json(request)
    name = find_model(state, fields)
    source = state.policies.find(name)
    wanted = shapes.read_wanted(fields, chat, state.limits.attempts)
    asks = await in_thread(state.helpers, lambda: make_asks(state, source, fields, wanted, chat))
    answer = shapes.Answer(name, chat, wanted, len(asks), sum(len(ask.prompt) for ask in asks))
    parts = follow(state.engine, complete(state, name, asks, wanted.echo, wanted.tops))
    if wanted.stream:
        return Stream(events(parts, answer), "text/event-stream; charset=utf-8", openai_error)
    if not await collect(request, parts, answer.add):
        return Response(status_code=499)  # nobody reads it: the client has left
    return JSONResponse(answer.whole())


async def events(parts: AsyncGenerator[Part, None], answer: shapes.Answer) -> AsyncGenerator[bytes, None]:
    """The parts as server-sent events. An error behind the first one is an event too."""
    event = lambda value: b"data: " + json.dumps(value, allow_nan=False).encode() + b"\n\n"
    began = False
    async with contextlib.aclosing(parts) as each:
        try:
            async for part in each:
                yield event(answer.chunk(part))
                began = True
        except UserError as e:
            if not began:
                raise
            yield event({"error": {"message": one_line(e), "type": "server_error", "param": None, "code": None}})
            return
    if answer.wanted.usage:
        yield event(answer.last_chunk())
    yield b"data: [DONE]\n\n"
