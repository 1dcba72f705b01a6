"""Serves the metrics on a port of their own, without a key, in one thread for few callers.

It uses the protocol of the service's own port, with the same limits for heads, idle connections and callers who do not
read. Requests within a second share one exposition, so that frequent scrapes cost little CPU time.
"""

import atexit
import socket
import threading
import time

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from service.server.protocol.http_protocol import HttpProtocol
from service.telemetry.metrics import CONTENT_TYPE, Metrics

MAX_CONNECTIONS = 32
BACKLOG = 64
KEPT_S = 1.0
"""How long an exposition is reused."""
THREAD = "metrics"
_END_S = 5.0
"""How long the process's end waits for the thread, which looks ten times a second whether it shall end."""


class _FewConnections(HttpProtocol):
    max_connections = MAX_CONNECTIONS


def serve_metrics(metrics: Metrics, host: str, port: int) -> None:
    """Serves until the process ends; raises `OSError` where the port cannot be bound.

    The thread ends before the interpreter does: a loop that still ran then would crash the process (SIGSEGV), and a
    drained service would not end with 0.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    config = uvicorn.Config(
        _app_of(metrics),
        http=_FewConnections,
        ws="none",
        loop="uvloop",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name=THREAD, daemon=True)
    thread.start()

    def end() -> None:
        server.should_exit = server.force_exit = True
        thread.join(_END_S)

    atexit.register(end)


def _app_of(metrics: Metrics) -> ASGIApp:
    made, made_at = b"", float("-inf")

    def exposition() -> bytes:
        nonlocal made, made_at
        if time.monotonic() - made_at > KEPT_S:
            made, made_at = metrics.exposition(), time.monotonic()
        return made

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        is_known = scope["path"] in {"/metrics", "/"}
        is_read = scope["method"] in {"GET", "HEAD"}
        status = 200 if is_known and is_read else 405 if is_known else 404
        body = exposition() if status == 200 else b""
        lines = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    return app
