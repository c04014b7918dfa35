"""What all addresses share: bodies of requests, errors of one line, lines that are streamed, and who may ask."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rljax.errors import UserError
from rljax.serving.engine import BusyError, Engine, Told, Work
from rljax.serving.fields import MAX_BODY, read_body
from rljax.serving.policies import NoPolicyError

T = TypeVar("T")

BODY_SECONDS = 30.0  # in which the body of a request has to come
LONGEST_ERROR = 600  # characters
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}


class StatusError(UserError):
    """An error with a status of its own."""

    def __init__(self, status: int, said: str):
        super().__init__(said)
        self.status = status


def status_of(error: UserError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, StatusError):
        return error.status
    if isinstance(error, BusyError):
        return 503
    if isinstance(error, NoPolicyError):
        return 404
    return 500 if str(error).startswith("internal error") else 400


def one_line(error: UserError | str) -> str:
    """What is wrong, in one line that is not long: it may repeat what the request said, half characters and all."""
    said = " ".join(str(error).encode(errors="replace").decode().split())
    return said if len(said) <= LONGEST_ERROR else f"{said[:LONGEST_ERROR]}..."


def error_response(error: UserError) -> Response:
    """One line of JSON that says what is wrong."""
    status = status_of(error)
    retry = {"retry-after": "2"} if status == 503 else {}
    return JSONResponse({"error": one_line(error)}, status, headers=retry)


def make_route(
    path: str,
    method: str,
    answer: Callable[[Request], Awaitable[Response]],
    fail: Callable[[UserError], Response] = error_response,
) -> Route:
    """An address whose errors of the user become answers."""

    async def handle(request: Request) -> Response:
        try:
            return await answer(request)
        except UserError as e:
            return fail(e)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it

    return Route(path, handle, methods=[method])


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises UserError for one that is too large or too slow, or is no JSON object."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise StatusError(415, "send JSON, with the header content-type: application/json")
    body = b""
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY:
                    raise StatusError(413, f"the request is larger than {MAX_BODY} bytes")
    except TimeoutError:
        raise StatusError(408, "the rest of the request did not come") from None
    return read_body(body)


async def in_thread(threads: Executor, compute: Callable[[], T]) -> T:
    """Something that takes a moment, while the server answers others."""
    return await asyncio.get_running_loop().run_in_executor(threads, compute)


async def follow(engine: Engine, work: Work) -> AsyncGenerator[Any, None]:
    """What the device yields of this work. Leaving it early stops the work. Raises UserError where the work fails."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Told]()

    def tell(told: Told) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server ends
            loop.call_soon_threadsafe(queue.put_nowait, told)

    ticket = engine.submit(work, tell)
    try:
        while not (told := await queue.get()).ended:
            if told.value is not None:
                yield told.value
        if told.error is not None:
            raise told.error
    finally:
        ticket.stop()


async def run(engine: Engine, work: Work) -> Any:
    """The last value that the device yields of this work."""
    last = None
    async with contextlib.aclosing(follow(engine, work)) as values:
        async for value in values:
            last = value
    return last


@contextlib.asynccontextmanager
async def until_client_leaves(receive: Receive) -> AsyncIterator[None]:
    """Run the block, and end it early where the client leaves. An error of the block comes out as it is."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            yield
            group.cancel_scope.cancel()
    except BaseExceptionGroup as e:  # a task group packs even a single error
        raise e.exceptions[0] from None


class Stream(Response):
    """Chunks of bytes as they come. The first one is waited for: an error before it has a status. A client that leaves ends them."""

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], kind: str, fail: Callable[[UserError], Response] = error_response
    ):
        self.chunks, self.kind, self.fail, self.background = chunks, kind, fail, None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with until_client_leaves(receive):
            await self._send(scope, receive, send)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        part = lambda body, more: send({"type": "http.response.body", "body": body, "more_body": more})
        async with contextlib.aclosing(self.chunks) as chunks:
            try:
                first = await anext(chunks, b"")
            except UserError as e:
                await self.fail(e)(scope, receive, send)
                return
            kind = [(b"content-type", self.kind.encode()), (b"x-accel-buffering", b"no")]
            await send({"type": "http.response.start", "status": 200, "headers": kind})
            await part(first, True)
            async for chunk in chunks:
                await part(chunk, True)
            await part(b"", False)


async def collect(request: Request, values: AsyncGenerator[Any, None], into: Callable[[Any], None]) -> bool:
    """Take all values, unless the client leaves first; returns whether all came."""
    done = False
    async with until_client_leaves(request.receive), contextlib.aclosing(values) as each:
        async for value in each:
            into(value)
        done = True
    return done


def json_line(value: Any) -> bytes:
    """One line of JSON. It holds no NaN, and no character that ends a line."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode() + b"\n"


class Guard:
    """Adds the headers of every answer, and refuses requests from pages of other addresses.

    ``hosts`` are the names by which the server may be called; none: any. A page elsewhere could otherwise ask by a name that
    points here, or by a form.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...] = ()):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    out[name] = value
            await send(message)

        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts and host_name(host) not in self.hosts:
            refused: ASGIApp = error_response(StatusError(421, f"this server is not called {host[:80]!r}"))
        elif origin is not None and origin.partition("://")[2] != host:
            refused = error_response(StatusError(403, f"a page of {origin[:80]!r} may not ask this server"))
        else:
            refused = self.app
        await refused(scope, receive, send_guarded)


def host_name(host: str) -> str:
    """``localhost:8000`` -> ``localhost``, ``[::1]:8000`` -> ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host
