"""Refuses calls with an unknown path, a wrong method or a wrong type of body; answers HEAD and OPTIONS.

One place checks the calls of all routes, so that no route redirects, drops a line break of a path or reads a body of
the wrong type. It reads no body itself. Pure ASGI, inside of the access middleware: callers without access learn
nothing about the paths.
"""

import contextlib
from typing import NoReturn

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isrf.contract.errors import RequestError
from isrf.contract.ids import id_problem
from service.api.problems import send_problem
from service.auth.caller import may_call
from service.auth.route_rules import BodyKind, KnownPath, RouteRules
from service.auth.signatures import SIGNED
from service.telemetry.metrics import Metrics

HEAD_ONLY = "isrf.head_only"
"""Set in the scope of a HEAD, which the app sees as a GET: its answer does not count as shown."""
GZIP_BODY = "isrf.gzip_body"
"""Set in the scope of a call whose body is gzip."""
_GZIP = frozenset({"gzip", "x-gzip"})
_SHOWN = 80
"""Characters of a header in a message."""


class _Enough(Exception):  # noqa: N818 - nothing went wrong here
    """Stops a streamed answer to HEAD, whose body is not needed."""


class CallCheck:
    """ASGI middleware that checks each call; it runs before `service.server.admission`, which uses the same rules."""

    def __init__(self, app: ASGIApp, *, rules: RouteRules, metrics: Metrics) -> None:
        self._app, self._rules, self._metrics = app, rules, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[str, str] = {}
        try:
            path = self._checked(scope, headers)
        except RequestError as error:
            await send_problem(error, scope, send, metrics=self._metrics, headers=headers)
            return
        if scope["method"] == "OPTIONS":
            allow = [(b"allow", path.allow.encode())]
            await send({"type": "http.response.start", "status": 204, "headers": allow})
            await send({"type": "http.response.body", "body": b""})
        elif scope["method"] == "HEAD":
            await self._head(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _checked(self, scope: Scope, headers: dict[str, str]) -> KnownPath:
        """Returns the path of a call; raises `RequestError` and fills `headers` where no route accepts the call."""
        called, method = scope["path"], scope["method"]
        path = self._rules.find(called)
        if path is None:
            raise RequestError("http.not_found", "There is no such resource.", fix=self._rules.hint(called))
        # The framework's patterns ignore a trailing line break and match no other one.
        problem = id_problem(self._rules.rest(called)) if path.parameter and "\n" in called else None
        if problem:
            kind = path.parameter.removesuffix("_id")
            code = f"request.invalid_{path.parameter}"
            raise RequestError(code, f"the {path.parameter} {problem}.", fix=f"Send the shop's own {kind} id.")
        if method not in path.methods and not (method == "HEAD" and "GET" in path.methods) and method != "OPTIONS":
            scope["route"] = path
            headers["Allow"] = path.allow
            raise RequestError(
                "http.method_not_allowed", "This resource does not take this method.", fix=f"It takes {path.allow}."
            )
        rule = path.methods.get(method)
        # The route itself refuses callers without the right to call it.
        if rule is not None and rule.body is not None and may_call(scope["state"]["caller"], rule.role):
            scope["route"] = path
            _check_body(rule.body, scope, headers)
        return path

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers HEAD as GET, without the body."""
        as_get = {**scope, "method": "GET", HEAD_ONLY: True}

        async def without_body(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send({"type": "http.response.body", "body": b""})
            if message.get("more_body", False):
                raise _Enough

        with contextlib.suppress(_Enough):
            await self._app(as_get, receive, without_body)
        if "route" in as_get:
            scope["route"] = as_get["route"]


def _check_body(kind: BodyKind, scope: Scope, headers: dict[str, str]) -> None:
    """Refuses a body of the wrong media type or encoding, and fills the `headers` of the refusal; notes gzip."""
    sent = {b"content-type": "", b"content-encoding": "", b"transfer-encoding": ""}
    for name, value in scope["headers"]:
        if name in sent:
            sent[name] = ",".join(filter(None, (sent[name], value.decode("latin-1").strip())))
    encoding, transfer = (sent[name].lower() for name in (b"content-encoding", b"transfer-encoding"))
    if encoding not in {"", "identity"} and scope["path"] in SIGNED:
        headers["Accept-Encoding"] = "identity"
        raise RequestError(
            "request.unsupported_encoding",
            f"a signed body comes as it was signed, without Content-Encoding; this one has "
            f"{sent[b'content-encoding'][:_SHOWN]}.",
            fix="Send it uncompressed.",
        )
    if encoding in _GZIP:
        scope[GZIP_BODY] = True
    elif encoding not in {"", "identity"}:
        headers["Accept-Encoding"] = "gzip, identity"
        raise RequestError(
            "request.unsupported_encoding",
            f"the service accepts bodies with Content-Encoding gzip or without one; this one has "
            f"{sent[b'content-encoding'][:_SHOWN]}.",
            fix="Compress it with gzip, once, or send it uncompressed.",
        )
    if transfer not in {"", "chunked"}:
        raise RequestError(
            "request.unsupported_encoding",
            f"the service accepts bodies with Transfer-Encoding chunked or without one; this one has "
            f"{sent[b'transfer-encoding'][:_SHOWN]}.",
            fix="Name gzip in Content-Encoding instead.",
        )
    written = sent[b"content-type"]
    media_type = written.partition(";")[0].strip().lower()
    if kind == "json":
        if media_type != "application/json" and not _is_json(media_type):
            _refuse("JSON", written, "application/json", headers)
    elif kind == "lines" and (
        media_type.startswith("multipart/") or (media_type == "text/plain" and not scope["state"]["caller"].key_id)
    ):
        # Other types are accepted: curl sends every body as a form.
        _refuse("JSON Lines", written, "application/x-ndjson", headers)


def _is_json(media_type: str) -> bool:
    return media_type.startswith("application/") and media_type.endswith("+json") and "," not in media_type


def _refuse(what: str, written: str, accepted: str, headers: dict[str, str]) -> NoReturn:
    headers["Accept"] = accepted
    sent = f"with Content-Type: {written[:_SHOWN]}" if written else "without a Content-Type"
    raise RequestError(
        "request.unsupported_media_type",
        f"this call accepts {what}, and the body comes {sent}.",
        fix=f"Send the header Content-Type: {accepted}.",
    )
