"""The metrics on a port of their own, without a key: one thread serves few callers, as the service's own port does.

The same protocol serves both, so heads, idle connections and callers who do not read have the same bounds here. What
the metrics say is made once for all who ask within a second: scrapes in a row must not take the processor's time.
"""

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
"""How old what is told may be."""


class _FewConnections(HttpProtocol):
    max_connections = MAX_CONNECTIONS


def serve_metrics(metrics: Metrics, host: str, port: int) -> None:
    """Serves from now on until the process ends; `OSError` where the port cannot be had."""
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
    threading.Thread(target=server.run, args=([listening],), name="metrics", daemon=True).start()


def _app_of(metrics: Metrics) -> ASGIApp:
    made, made_at = b"", float("-inf")

    def exposition() -> bytes:
        nonlocal made, made_at
        if time.monotonic() - made_at > KEPT_S:
            made, made_at = metrics.exposition(), time.monotonic()
        return made

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        found = scope["path"] in {"/metrics", "/"}
        read = scope["method"] in {"GET", "HEAD"}
        status = 200 if found and read else 405 if found else 404
        body = exposition() if status == 200 else b""
        lines = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    return app
