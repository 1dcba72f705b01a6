"""Gives each admitted request its places: one while its body arrives, another while it is answered.

It checks the role by the route's declaration before it reads a byte of the body. While a body arrives, its request
holds a place only among the senders, neither at the model nor among the requests in progress: a slow sender must not
keep others out. No caller holds all places of a kind, and who needs no key holds none of those with one. Pure ASGI,
inside of the access middleware.
"""

from contextlib import ExitStack

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from isrf.contract.errors import IsrfError
from service.api.problems import send_problem
from service.api.validation.calls import GZIP_BODY
from service.api.validation.json_bounds import check_json
from service.auth.caller import OPEN, Caller, check_role
from service.auth.route_rules import RouteRules
from service.auth.signatures import SIGNED
from service.inference.admission import AdmissionController
from service.inference.caller_limits import CallerLimits
from service.server.bodies import (
    CallerLeft,
    declares_body,
    lines_body,
    replayed,
    whole_body,
)
from service.server.load_shedding import QUIET, LoadShedder
from service.server.protocol.request_connection import CONNECTION
from service.telemetry.metrics import Metrics


class AdmissionMiddleware:
    """ASGI middleware that takes the places of `service.inference.admission` for each request."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        rules: RouteRules,
        admission: AdmissionController,
        load_shedder: LoadShedder,
        metrics: Metrics,
        max_body_bytes: int,
    ) -> None:
        self._app, self._rules, self._metrics = app, rules, metrics
        self._admission, self._load_shedder = admission, load_shedder
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self._app(scope, receive, send)
            return
        with ExitStack() as places:
            try:
                receive = await self._admitted(scope, receive, places)
            except IsrfError as error:
                await send_problem(error, scope, send, metrics=self._metrics)
                return
            except CallerLeft:
                return
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            # The caller disconnected during a body of lines: there is nobody to answer.
            return
        connection = scope.get("extensions", {}).get(CONNECTION)
        if connection is not None:
            # A request stays in progress until its answer is read.
            await connection.answer_was_read()

    async def _admitted(self, scope: Scope, receive: Receive, places: ExitStack) -> Receive:
        """Takes the places for a request; returns the `receive` for the app; raises `IsrfError` or `CallerLeft`."""
        caller: Caller = scope["state"]["caller"]
        if caller.network:
            places.enter_context(self._admission.browsers.take(caller.network))
        answers = self._answers(scope["path"])
        reads_body = scope["path"] not in OPEN and declares_body(scope["headers"])
        rule = self._rules.rule(scope["method"], scope["path"]) if reads_body else None
        if rule is None or rule.body is None:
            places.enter_context(answers.take(caller.name))
            return receive
        check_role(caller, rule.role)
        if rule.body == "lines":
            places.enter_context(self._admission.imports.take(caller.name))
            return lines_body(receive, is_gzip=GZIP_BODY in scope)
        body = await self._body(scope, receive, caller)
        scope["state"]["body_was_read"] = True
        if rule.body == "json":
            check_json(body)
        places.enter_context(answers.take(caller.name))
        call = self._load_shedder.model_call(scope["method"].encode(), scope["raw_path"], caller.name)
        if call is not None:
            places.enter_context(self._admission.at_model(call))
        return replayed(body, receive)

    def _answers(self, path: str) -> CallerLimits:
        """Returns the places for requests of a path that are being answered."""
        if path in OPEN:
            return self._admission.visitors
        return self._admission.deliveries if path in SIGNED else self._admission.requests

    async def _body(self, scope: Scope, receive: Receive, caller: Caller) -> bytes:
        connection = scope.get("extensions", {}).get(CONNECTION)
        is_gzip = GZIP_BODY in scope
        if connection is not None and connection.body_is_there():
            return await whole_body(receive, max_bytes=self._max_body_bytes, is_gzip=is_gzip)
        is_signed = scope["path"] in SIGNED
        senders = self._admission.unfinished_deliveries if is_signed else self._admission.senders
        with senders.take(caller.name):
            return await whole_body(receive, max_bytes=self._max_body_bytes, is_gzip=is_gzip)
