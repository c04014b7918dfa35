"""The server's addresses: the page and its files, /api for the page, /v1 for clients of OpenAI's protocol."""

from collections.abc import Sequence
from importlib import resources

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rljax.serving import openai_api, page_api
from rljax.serving.http import Guard, StatusError, error_response
from rljax.serving.state import State

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def make_app(state: State, hosts: Sequence[str] = ()) -> Starlette:
    """The application. ``hosts`` are the names by which it may be called; none: any."""
    return Starlette(
        routes=[*file_routes(), *page_api.routes(state), *openai_api.routes(state)],
        middleware=[Middleware(Guard, hosts=tuple(hosts))],
        exception_handlers={404: not_found, 405: not_found},
    )


def file_routes() -> list[Route]:
    """One address for each file of static/: there is no other way to a file."""

    def address(path: str, name: str, content: bytes) -> Route:
        async def handle(request: Request) -> Response:
            return Response(content, media_type=KINDS[name.rpartition(".")[2]])

        return Route(path, handle, methods=["GET"])

    files = {
        item.name: item.read_bytes()
        for item in resources.files("rljax.serving").joinpath("static").iterdir()
        if item.name.rpartition(".")[2] in KINDS
    }
    return [
        address("/", "index.html", files["index.html"]),
        *(address(f"/{name}", name, content) for name, content in sorted(files.items())),
    ]


async def not_found(request: Request, error: Exception) -> Response:
    """An address, or a method, that there is not."""
    status = getattr(error, "status_code", 404)
    fail = openai_api.openai_error if request.url.path.startswith("/v1/") else error_response
    return fail(StatusError(status, f"there is no {request.method} {request.url.path[:120]}"))
