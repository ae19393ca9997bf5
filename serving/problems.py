"""Every error as an RFC 9457 problem document, and which exception becomes which."""

import logging
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias

from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.types import ExceptionHandlersMap
from msgspec import UNSET, Meta, Struct, UnsetType

from serving import metrics
from serving.contract import ContractError
from serving.redis.turn import RedisUnavailable

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1

_DETAILS = {
    HTTPStatus.NOT_FOUND: "There is nothing at this path; /schema tells what there is.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This path does not take this method; see Allow.",
}

_Request: TypeAlias = Request[Any, Any, State]


class ParameterError(Struct, frozen=True):
    """One parameter that was refused, and why."""

    parameter: str
    detail: str


class Problem(Struct, frozen=True, kw_only=True):
    """An RFC 9457 problem document; its type is about:blank, so the status says the kind."""

    status: int
    title: Annotated[str, Meta(description="The name of the status.")]
    detail: Annotated[str, Meta(description="What is wrong, and what to do.")]
    errors: Annotated[
        list[ParameterError] | UnsetType, Meta(description="The parameters at fault, if any.")
    ] = UNSET


def refused(parameter: str, reason: object) -> ValidationException:
    """The exception to raise for a bad value of a parameter."""
    return ValidationException(extra=[{"key": parameter, "message": str(reason)}])


def busy() -> Problem:
    """What a request is told that comes while too many are at work."""
    return _problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests are at work; try again soon."
    )


def unauthorized(detail: str) -> Problem:
    """What a request is told that bears no API key, or a wrong one."""
    return _problem(HTTPStatus.UNAUTHORIZED, detail)


def too_many_requests(seconds: int) -> Problem:
    """What a request is told whose caller has had all requests of the next ``seconds``."""
    return _problem(
        HTTPStatus.TOO_MANY_REQUESTS, f"You ask more often than you may; wait {seconds} s."
    )


def _problem(status: int, detail: str, errors: list[ParameterError] | UnsetType = UNSET) -> Problem:
    title = HTTPStatus(status).phrase
    return Problem(status=status, title=title, detail=detail, errors=errors)


def _response(problem: Problem, headers: dict[str, str] | None = None) -> Response[Problem]:
    return Response(problem, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def _unavailable(detail: str) -> Response[Problem]:
    return _response(
        _problem(HTTPStatus.SERVICE_UNAVAILABLE, detail), {"Retry-After": str(RETRY_AFTER_SECONDS)}
    )


def _parameter_errors(error: ValidationException) -> list[ParameterError]:
    if isinstance(error.__cause__, KeyError):  # how litestar says what is missing
        return [ParameterError(parameter=str(error.__cause__.args[0]), detail="It is required.")]
    return [
        ParameterError(parameter=message["key"], detail=message["message"])
        for message in error.extra or ()
        if isinstance(message, dict) and "key" in message
    ]


def _on_bad_parameters(_: _Request, error: ValidationException) -> Response[Problem]:
    errors = _parameter_errors(error)
    names = ", ".join(dict.fromkeys(each.parameter for each in errors))
    detail = f"Refused: {names}." if errors else error.detail
    return _response(_problem(error.status_code, detail, errors or UNSET))


def _on_http_error(_: _Request, error: HTTPException) -> Response[Problem]:
    status = HTTPStatus(error.status_code)
    return _response(_problem(status, _DETAILS.get(status, error.detail)), error.headers)


def _on_unavailable(_: _Request, __: RedisUnavailable) -> Response[Problem]:
    metrics.redis_failures.labels("unavailable").inc()
    return _unavailable("Redis does not answer; try again soon.")


def _on_foreign_value(_: _Request, error: ContractError) -> Response[Problem]:
    metrics.redis_failures.labels("contract").inc()
    logger.error("%s", error)
    return _unavailable(f"{error}.")


def _on_unexpected(request: _Request, error: Exception) -> Response[Problem]:
    logger.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    return _response(_problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The service's log says why."))


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    ValidationException: _on_bad_parameters,
    HTTPException: _on_http_error,
    RedisUnavailable: _on_unavailable,
    ContractError: _on_foreign_value,
    Exception: _on_unexpected,
}


def _documented(description: str, example: Problem) -> ResponseSpec:
    return ResponseSpec(
        Problem,
        description=description,
        media_type=MEDIA_TYPE,
        generate_examples=False,
        examples=[Example(value=example)],
    )


BAD_REQUEST = _documented(
    "A parameter is not valid; errors says which.",
    _problem(400, "Refused: limit.", [ParameterError("limit", "Expected `int` <= 100")]),
)
ACCESS_RESPONSES = {
    401: _documented(
        "No API key was sent, or one that is not in force. Only where the service has API keys.",
        unauthorized("Send an API key, as Authorization: Bearer KEY or X-API-Key: KEY."),
    ),
    429: _documented(
        "The caller asks more often than it may; Retry-After says in how many seconds to ask "
        "again. Only where the service has a rate limit.",
        too_many_requests(1),
    ),
}
"""What a route that is not open to all may answer instead."""

UNAVAILABLE = _documented(
    "Redis is away, too slow, or holds a value that this release cannot read. "
    "Retry-After says in how many seconds to ask again.",
    _problem(503, "Redis does not answer; try again soon."),
)
