"""Turns errors into `application/problem+json` (RFC 9457), and maps error codes to HTTP statuses.

`code` is stable, and callers match on it; `detail` and `fix` are for people. Responses reveal nothing internal:
`service.server.middleware` logs an unexpected error with its trace and answers with the request id.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Scope, Send

from isrf.contract.errors import (
    AccessError,
    BundleError,
    ConfigError,
    DataError,
    IsrfError,
    OverloadError,
    RequestError,
    StageError,
    StoreError,
)
from isrf.contract.known_fields import message_of
from service.auth.route_rules import AMPERSAND
from service.recommend.placements.rule_fields import with_rule
from service.telemetry.metrics import Metrics

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
MAX_REPORTED_ERRORS = 20
INTERNAL = "The service failed; search its log for the request_id."

STATUS_OF_CODE: dict[str, int] = {
    "request.malformed_json": 400,
    "beacon.invalid": 400,
    "request.malformed_gzip": 400,
    "http.bad_host": 400,
    "http.slow_body": 408,
    "request.too_large": 413,
    "request.invalid": 422,
    "request.head_too_large": 431,
    "request.unsupported_media_type": 415,
    "request.unsupported_encoding": 415,
    "http.not_found": 404,
    "http.method_not_allowed": 405,
    "request.unknown_item": 404,
    "recommendation.gone": 404,
    "key.missing": 401,
    "key.unknown": 401,
    "key.several": 401,
    "webhook.signature": 401,
    "rate.limited": 429,
    "item.unreadable": 409,
    "item.too_many": 409,
    "placement.unknown": 404,
    "placement.too_many": 409,
    "placement.changed": 409,
}
"""Codes whose status differs from that of their class."""

CODE_OF_STATUS: dict[int, str] = {
    400: "request.malformed_json",
    404: "http.not_found",
    405: "http.method_not_allowed",
    413: "request.too_large",
}
"""Codes for requests that the framework refuses."""

STATUS_OF_CLASS: tuple[tuple[type[IsrfError], int], ...] = (
    (RequestError, 422),
    (AccessError, 403),
    (StoreError, 503),
    (OverloadError, 503),
    (BundleError, 409),
    (ConfigError, 500),
    (DataError, 500),
    (StageError, 500),
)

_JSON = "Send JSON in UTF-8; name gzip in Content-Encoding where you compress it."
_log = structlog.get_logger("service")


BODY_CLASSES = ("SessionRequest", "UsersRequest")
"""Class names of the bodies of a route that accepts several (`service.api.schemas.requests.RecommendRequest`)."""


class Fault(BaseModel):
    """An invalid field of a request."""

    where: str = Field(description="Path of the field in the request: `query.n`, `body.history.3`.")
    message: str


class Problem(BaseModel):
    """The body of every error response."""

    type: str = Field(description="`urn:isrf:problem:` and the code.")
    title: str
    status: int
    code: str = Field(description="Stable; match on this.")
    detail: str
    fix: str | None = None
    request_id: str
    errors: list[Fault] | None = Field(default=None, description="Each invalid field and what is wrong with it.")


def status_of(error: IsrfError) -> int:
    """Returns the HTTP status of an error."""
    if error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    return next((status for kind, status in STATUS_OF_CLASS if isinstance(error, kind)), 500)


def problem_body(
    status: int,
    code: str,
    detail: str,
    *,
    request_id: str,
    fix: str = "",
    errors: Sequence[Mapping[str, str]] = (),
) -> bytes:
    """Returns a problem as JSON."""
    body: dict[str, Any] = {
        "type": f"urn:isrf:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }
    if fix:
        body["fix"] = fix
    if errors:
        body["errors"] = errors
    return orjson.dumps(body)


def _retry_after(error: IsrfError, status: int) -> dict[str, str]:
    seconds = getattr(error, "retry_after_s", RETRY_AFTER_S if status == 503 else None)
    return {} if seconds is None else {"Retry-After": str(seconds)}


async def send_problem(
    error: IsrfError, scope: Scope, send: Send, *, metrics: Metrics, headers: Mapping[str, str] | None = None
) -> None:
    """Answers with a problem outside of the app, where its error handlers do not run."""
    metrics.problems.labels(error.code).inc()
    status = status_of(error)
    body = problem_body(status, error.code, error.message, request_id=scope["state"]["request_id"], fix=error.fix)
    lines = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    lines += [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    lines += [(name.lower().encode(), value.encode()) for name, value in _retry_after(error, status).items()]
    has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
    if has_body and not scope["state"].get("body_was_read"):
        # With an unread body the connection cannot be used again.
        lines.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


def _where(loc: Sequence[str | int]) -> str:
    """Returns the path of an invalid field as the caller wrote it, without the name of the body's class."""
    section, *parts = loc
    if len(parts) > 1 and section == "body" and parts[0] in BODY_CLASSES:
        parts = parts[1:]
    return ".".join(str(part) for part in (section, *parts))[:200]


def install_problem_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Makes the app answer expected errors with problems; `service.server.middleware` answers the unexpected ones."""

    def answer(
        request: Request, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Response:
        metrics.problems.labels(code).inc()
        request_id = getattr(request.state, "request_id", "")
        content = problem_body(status, code, detail, request_id=request_id, **more)
        return Response(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)

    async def service_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, IsrfError)
        status = status_of(error)
        if status == 500:
            _log.error("unexpected_error", code=error.code, exc_info=error)
            return answer(request, 500, "internal", INTERNAL)
        headers = _retry_after(error, status)
        if error.code == "http.slow_body":
            headers["Connection"] = "close"
        return answer(request, status, error.code, error.message, headers, fix=error.fix)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = CODE_OF_STATUS.get(error.status_code, f"http.{error.status_code}")
        detail = {404: "There is no such resource.", 405: "This resource does not take this method."}.get(
            error.status_code, str(error.detail)
        )
        if code == "request.malformed_json":
            # The parser has limits of its own, such as the number of digits.
            detail = "The parser cannot read the body as JSON; it may contain a number with thousands of digits."
            return answer(request, error.status_code, code, detail, error.headers, fix=_JSON)
        fix = AMPERSAND if error.status_code == 404 and "&" in request.url.path else ""
        return answer(request, error.status_code, code, detail, error.headers, fix=fix)

    async def validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = error.errors()
        for details in found:
            if details["type"] == "json_invalid":
                detail = f"The body is not valid JSON: {details['ctx']['error']} at character {details['loc'][-1]}."
                return answer(request, 400, "request.malformed_json", detail, fix=_JSON)
        # Values are left out on purpose: they may be huge, or secret.
        errors = [
            {"where": _where(details["loc"]), "message": with_rule(details["loc"], message_of(details))[:300]}
            for details in found[:MAX_REPORTED_ERRORS]
        ]
        detail = "; ".join(f"{fault['where']}: {fault['message']}" for fault in errors[:3])
        return answer(request, 422, "request.invalid", detail, errors=errors)

    app.add_exception_handler(IsrfError, service_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, validation_error)
