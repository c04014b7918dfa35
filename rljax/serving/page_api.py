"""The addresses under /api, which the page calls."""

import functools
import math
from typing import Any

import jax
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rljax import transformer
from rljax.serving.asking import advantage_fields, attempt_lines
from rljax.serving.fields import FieldError, Fields, check_known, read_number, read_text, read_whole
from rljax.serving.groups import find_algorithm, usable_algorithms
from rljax.serving.http import StatusError, Stream, in_thread, make_route, read_json, run
from rljax.serving.learning import MARK
from rljax.serving.pieces import split_pieces
from rljax.serving.policies import NoPolicyError, Source, policy_names
from rljax.serving.questions import LAST_PROBLEM, draw_problem
from rljax.serving.records import has_finished, read_run
from rljax.serving.state import State


def routes(state: State) -> list[Route]:
    """The addresses of the page."""

    def address(path: str, answer: Any, method: str) -> Route:
        return make_route(f"/api/{path}", method, functools.partial(answer, state))

    return [
        address("status", get_status, "GET"),
        address("runs/{run}", get_run, "GET"),
        address("problem", post_problem, "POST"),
        address("ask", post_ask, "POST"),
        address("advantages", post_advantages, "POST"),
        address("step", post_step, "POST"),
        address("reset", post_reset, "POST"),
    ]


def name_of(state: State, fields: Fields) -> str:
    """The policy that a request names, or the default one. Raises NoPolicyError where there is none."""
    name = read_text(fields, "model", longest=300) or state.policies.default(state.default_source)
    state.policies.find(name)
    return name


async def get_status(state: State, request: Request) -> Response:
    """What there is to ask, and what the device does."""
    try:
        default = state.policies.default(state.default_source)
    except NoPolicyError:
        default = None
    return JSONResponse(
        {
            "sources": [describe_source(source) for source in list(state.policies.sources.values())],
            "copies": list(state.policies.copies),
            "default": default,
            "algorithms": usable_algorithms(),
            "limits": {"attempts": state.limits.attempts, "max_tokens": state.limits.max_new_tokens},
            "device": state.engine.count(),
            "training": state.progress(),
        }
    )


def describe_source(source: Source) -> dict[str, Any]:
    """A source as the page needs it."""
    run = source.run
    model, task = run.sampler_model, run.task
    return {
        "name": source.name,
        "is_folder": source.is_folder,
        "policies": policy_names(source),
        "task": task.name,
        "problems": task.num_questions("test"),
        "max_tokens": min(run.rl.sampling.max_new_tokens, model.max_length - 1),
        "window": model.max_length,
        "parameters": count_parameters(model),
        "vocabulary": model.vocab_size,
        "behaviours": list(task.behaviours),
        "stop": list(task.stop_strings),
        "rate": float(run.rl.optimizer.learning_rate),
        "finished": source.is_folder or has_finished(source),
    }


@functools.lru_cache(maxsize=16)
def count_parameters(model: transformer.Config) -> int:
    """The number of parameters of an architecture."""
    is_spec = lambda x: isinstance(x, transformer.WeightSpec)
    return sum(math.prod(w.shape) for w in jax.tree.leaves(transformer.weight_specs(model), is_leaf=is_spec))


async def get_run(state: State, request: Request) -> Response:
    """The records of a run from number ``after`` on."""
    source = state.policies.sources.get(request.path_params["run"])
    after = request.query_params.get("after", "0")
    if source is None or source.is_folder:
        raise StatusError(404, "there is no run of this name")
    if not after.isdecimal() or len(after) > 9:
        raise FieldError("after", "must be a whole number")
    return JSONResponse(read_run(source, int(after)))


async def post_problem(state: State, request: Request) -> Response:
    """The prompt of a held-out problem."""
    fields = await read_json(request)
    check_known(fields, frozenset(("model", "problem")))
    number = read_whole(fields, "problem", 0, 0, LAST_PROBLEM)
    source = state.policies.find(name_of(state, fields))
    question = await in_thread(state.helpers, lambda: draw_problem(source, number))
    tokenizer, ids = source.run.task.tokenizer, list(question.ids)
    begin = list(tokenizer.begin_ids)
    shown = ids[len(begin) :] if ids[: len(begin)] == begin else ids  # a prompt of a person gets them too
    return JSONResponse({"prompt": tokenizer.decode(shown), "ids": ids, "pieces": split_pieces(tokenizer, ids)})


async def post_ask(state: State, request: Request) -> Response:
    """Attempts, line by line."""
    fields = await read_json(request)
    return Stream(attempt_lines(state, name_of(state, fields), fields), "application/x-ndjson")


async def post_advantages(state: State, request: Request) -> Response:
    """What an algorithm would push in a group, and how hard."""
    fields = await read_json(request)
    check_known(fields, frozenset(("group", "algorithm")))
    group = state.groups.find(read_text(fields, "group", longest=20))
    algorithm = read_text(fields, "algorithm", "grpo", 40)
    return JSONResponse(await in_thread(state.helpers, lambda: advantage_fields(group, algorithm)))


async def post_step(state: State, request: Request) -> Response:
    """A policy-gradient step on a group, in a copy of the policy."""
    fields = await read_json(request)
    check_known(fields, frozenset(("group", "algorithm", "model", "rate")))
    group = state.groups.find(read_text(fields, "group", longest=20))
    algorithm = read_text(fields, "algorithm", "grpo", 40)
    find_algorithm(algorithm)
    name = read_text(fields, "model", longest=300) or group.policy
    source = state.policies.find(name)
    if source.name != group.policy.partition("/")[0]:
        raise FieldError("model", "the group was sampled from another model")
    rate = read_number(fields, "rate", float(source.run.rl.optimizer.learning_rate), 0.0, 1.0)
    learned = await run(state.engine, state.copies.take_step(group, name, algorithm, rate))
    return JSONResponse(learned._asdict() | {"is_copy": MARK in learned.copy})


async def post_reset(state: State, request: Request) -> Response:
    """Give up a changed copy."""
    fields = await read_json(request)
    check_known(fields, frozenset(("model",)))
    state.copies.forget(read_text(fields, "model", longest=300))
    return JSONResponse({"dropped": True})
