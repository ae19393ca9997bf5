"""The two pages for people, the start page and the API reference; neither needs another host."""

from pathlib import Path
from typing import Any, TypeAlias

from litestar import MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException, InternalServerException, NotFoundException
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.router import Router
from litestar.static_files import create_static_files_router

from serving.problems import EXCEPTION_HANDLERS

_Request: TypeAlias = Request[Any, Any, State]

_STATIC = Path(__file__).parent / "static"
_START = (_STATIC / "index.html").read_bytes()
_REFERENCE = (_STATIC / "reference.html").read_bytes()


@get("/", media_type=MediaType.HTML, include_in_schema=False)
async def start_page() -> bytes:
    """Say what runs here and where to look next."""
    return _START


class ReferencePage(OpenAPIRenderPlugin):
    """The OpenAPI document as a page: operations, parameters, answers, and a form to try each."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: _Request, openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """The page, which fetches /schema/openapi.json itself."""
        return _REFERENCE


def static_files() -> Router:
    """The pages' style sheet and script, under /static."""
    return create_static_files_router(
        path="/static",
        directories=[_STATIC],
        include_in_schema=False,
        exception_handlers={InternalServerException: _absent, ValueError: _absent},
    )


def _absent(request: _Request, _: Exception) -> Response[Any]:
    """What the file system takes for too long, below a file, or no path at all is not there."""
    handler: Any = EXCEPTION_HANDLERS[HTTPException]
    response: Response[Any] = handler(request, NotFoundException())
    return response
