"""Handles every request outside of the app: its id, size limits, the headers of its answer, metrics and a log line.

It drops a request whose caller is gone, and sends a large answer in pieces. Pure ASGI; it buffers nothing.
"""

import asyncio
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isrf.contract.errors import IsrfError, RequestError
from service.api.problems import INTERNAL, send_problem
from service.auth.route_rules import RouteRules
from service.inference.admission import AdmissionController
from service.server.bodies import too_large
from service.server.headers import ANSWERS_CARRY, REQUEST_ID, request_id_of
from service.server.load_shedding import QUIET
from service.server.protocol.head_checks import MAX_HEAD_BYTES, TOO_LARGE
from service.server.protocol.request_connection import CALLER_CONNECTION
from service.telemetry.metrics import Metrics
from service.telemetry.traces import Traces

PIECE_BYTES = 64 * 1024
"""Bytes of an answer that are written at a time."""

_log = structlog.get_logger("service")


class RequestMiddleware:
    """ASGI middleware around the app, inside of Starlette's own error middleware."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        rules: RouteRules,
        metrics: Metrics,
        traces: Traces | None,
        max_body_bytes: int,
        admission: AdmissionController,
    ) -> None:
        self._app, self._rules, self._metrics, self._traces = app, rules, metrics, traces
        self._max_body_bytes, self._admission = max_body_bytes, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = request_id_of(headers.get(REQUEST_ID))
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        self._admission.start_deadline(scope.get("extensions", {}).get(CALLER_CONNECTION))
        status, started = 500, False

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                lines = list(message["headers"])
                names = {name for name, _ in lines}
                lines += [line for line in ANSWERS_CARRY if line[0] not in names]
                lines.append((REQUEST_ID, request_id.encode()))
                message["headers"] = lines
            body = message.get("body", b"")
            # In pieces, so that a large answer neither blocks the loop nor fills the connection's buffer.
            if len(body) > PIECE_BYTES:
                for start in range(0, len(body), PIECE_BYTES):
                    last = start + PIECE_BYTES >= len(body)
                    more = message.get("more_body", False) if last else True
                    await send({**message, "body": body[start : start + PIECE_BYTES], "more_body": more})
                    await asyncio.sleep(0)
                return
            await send(message)

        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            self._metrics.in_progress.track_inprogress(),
            self._trace(scope["method"], headers, request_id) as traced,
        ):
            try:
                refusal = self._refusal(scope, headers)
                if refusal is None:
                    await self._app(scope, receive, answer)
                else:
                    await send_problem(refusal, scope, answer, metrics=self._metrics)
            except Exception as error:
                _log.error("unexpected_error", error_type=type(error).__name__, exc_info=error)
                if started:
                    raise
                await send_problem(IsrfError("internal", INTERNAL), scope, answer, metrics=self._metrics)
            finally:
                seconds = time.perf_counter() - began
                # The route's pattern, never the path: paths hold user_ids and would make a time series each.
                route = getattr(scope.get("route"), "path", "none")
                traced |= {"http.route": route, "http.response.status_code": status}
                self._account(scope, route, status, seconds)

    def _trace(
        self, method: str, headers: dict[bytes, bytes], request_id: str
    ) -> AbstractContextManager[dict[str, Any]]:
        return nullcontext({}) if self._traces is None else self._traces.request(method, headers, request_id)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> IsrfError | None:
        abandoned = self._admission.abandoned()
        if abandoned is not None:
            # A busy process must not work for callers who are gone.
            return abandoned
        head = sum(len(name) + len(value) for name, value in scope["headers"])
        if head + len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_HEAD_BYTES:
            return RequestError("request.head_too_large", TOO_LARGE, fix="Send lists in a body.")
        if _declared_length(headers) > self._max_body_bytes:
            rule = self._rules.rule(scope["method"], scope["path"])
            # In a body of lines, each line has a limit, and the body has none.
            return None if rule is not None and rule.body == "lines" else too_large(self._max_body_bytes)
        return None

    def _account(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        self._metrics.requests.labels(route, scope["method"], str(status)).observe(seconds)
        if route not in QUIET:
            caller = scope["state"].get("caller")
            _log.info(
                "request",
                method=scope["method"],
                route=route,
                status=status,
                ms=round(seconds * 1e3, 2),
                **({"key": caller.key_id} if caller and caller.key_id else {}),
            )


def _declared_length(headers: dict[bytes, bytes]) -> int:
    value = headers.get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0
