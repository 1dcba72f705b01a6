"""Around every request: its id, the limit of its body, one log line, one measurement. Pure ASGI, nothing buffered."""

import re
import time
import uuid

import structlog
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observe import Metrics
from service.problems import INTERNAL, MEDIA_TYPE, problem_body

_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_QUIET = {"/livez", "/readyz", "/metrics"}

_log = structlog.get_logger("service")


class RequestMiddleware:
    """Wraps the app inside Starlette's own error middleware."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, max_body_bytes: int) -> None:
        self._app, self._metrics, self._max_body_bytes = app, metrics, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status, started = 500, False

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                if _declared_length(headers) > self._max_body_bytes:
                    await self._problem(413, "request.too_large", self._too_large(), request_id, answer)
                else:
                    await self._app(scope, self._limited(receive), answer)
            except Exception as error:
                _log.error("unexpected_error", error_type=type(error).__name__, exc_info=error)
                if started:
                    raise
                await self._problem(500, "internal", INTERNAL, request_id, answer)
            finally:
                self._account(scope, status, time.perf_counter() - began)

    def _limited(self, receive: Receive) -> Receive:
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._max_body_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return limited

    def _too_large(self) -> str:
        return f"The body has more than {self._max_body_bytes} bytes; send it in parts."

    async def _problem(self, status: int, code: str, detail: str, request_id: str, send: Send) -> None:
        self._metrics.problems.labels(code).inc()
        body = problem_body(status, code, detail, request_id=request_id)
        # The rest of the body is not read, so the connection cannot be used again.
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's pattern, never the path: paths hold user_ids and would make a time series each.
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(route, scope["method"], str(status)).observe(seconds)
        if route not in _QUIET:
            _log.info("request", method=scope["method"], route=route, status=status, ms=round(seconds * 1e3, 2))


def _request_id(sent: bytes | None) -> str:
    if sent is not None and _SANE_REQUEST_ID.fullmatch(sent):
        return sent.decode()
    return uuid.uuid4().hex


def _declared_length(headers: dict[bytes, bytes]) -> int:
    value = headers.get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0
