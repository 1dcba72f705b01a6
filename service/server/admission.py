"""Who has been let in gets a place: while their body comes one, while they are answered another.

The role is judged by the route's own declaration before a byte of the body is read. A sender of a body holds a place
among the senders only: neither at the model nor among the requests under way, which would keep others out for as long
as the sender likes. No caller holds all places of a kind. Pure ASGI, inside of the access middleware.
"""

from contextlib import ExitStack

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from isrf.contract.errors import IsrfError
from service.api.problems import send_problem
from service.api.validation.json_bounds import check_json
from service.auth.caller import OPEN, Caller, check_role
from service.auth.route_rules import RouteRules
from service.inference.caller_limits import CallerLimits, share_of
from service.server.bodies import (
    LINES_WINDOW_S,
    CallerLeft,
    SteadyBody,
    declares_body,
    given_again,
    whole_body,
)
from service.server.load_shedding import QUIET, LoadShedder
from service.server.protocol.request_connection import CONNECTION
from service.telemetry.metrics import Metrics

MAX_SENDERS, MAX_SENDERS_OF_ONE = 512, 128
"""Bodies that are on their way; those that came with their head are none."""
MAX_VISITORS, MAX_VISITORS_OF_ONE = 64, 16
"""Requests for what needs no key: who has none must not take the places of those who have one."""
MAX_IMPORTS, MAX_IMPORTS_OF_ONE = 16, 8
"""Bodies of lines: each may hold a batch of long ones."""


class AdmissionMiddleware:
    """`max_in_progress` requests may be answered at a time."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        rules: RouteRules,
        load_shedder: LoadShedder,
        metrics: Metrics,
        max_in_progress: int,
        max_body_bytes: int,
    ) -> None:
        self._app, self._rules, self._load_shedder, self._metrics = app, rules, load_shedder, metrics
        self._max_body_bytes = max_body_bytes
        many = "overload.too_many_at_once"
        self._answered = CallerLimits(max_in_progress, per_caller=share_of(max_in_progress), code=many, what="requests")
        self._senders = CallerLimits(MAX_SENDERS, per_caller=MAX_SENDERS_OF_ONE, code=many, what="unfinished bodies")
        self._imports = CallerLimits(MAX_IMPORTS, per_caller=MAX_IMPORTS_OF_ONE, code=many, what="imports")
        self._visitors = CallerLimits(MAX_VISITORS, per_caller=MAX_VISITORS_OF_ONE, code=many, what="requests")
        load_shedder.apart = lambda: self._senders.taken + self._imports.taken
        load_shedder.answered = lambda: self._answered.taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self._app(scope, receive, send)
        elif scope["path"] in OPEN or not declares_body(scope["headers"]):
            places = self._visitors if scope["path"] in OPEN else self._answered
            try:
                place = places.take(scope["state"]["caller"].name)
            except IsrfError as error:
                await send_problem(error, scope, send, metrics=self._metrics)
                return
            with place:
                await self._answer(scope, receive, send)
        else:
            await self._with_body(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            # In the middle of a body that is taken piece by piece: nobody is left to answer.
            return
        connection = scope.get("extensions", {}).get(CONNECTION)
        if connection is not None:
            # An answer that is not read is still under way.
            await connection.answer_was_read()

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as held:
            try:
                receive = await self._admitted(scope, receive, held)
            except IsrfError as error:
                await send_problem(error, scope, send, metrics=self._metrics)
                return
            except CallerLeft:
                return
            await self._answer(scope, receive, send)

    async def _admitted(self, scope: Scope, receive: Receive, held: ExitStack) -> Receive:
        """What the app reads the body from; `IsrfError` for who may not go on."""
        caller: Caller = scope["state"]["caller"]
        rule = self._rules.rule(scope["method"], scope["path"])
        if rule is None or rule.body is None:
            held.enter_context(self._answered.take(caller.name))
            return receive
        check_role(caller, rule.role)
        if rule.body == "lines":
            held.enter_context(self._imports.take(caller.name))
            return SteadyBody(receive, window_s=LINES_WINDOW_S).receive
        body = await self._body(scope, receive, caller)
        scope["state"]["body_was_read"] = True
        check_json(body)
        held.enter_context(self._answered.take(caller.name))
        held.enter_context(self._load_shedder.at_model(scope["method"], scope["raw_path"], caller.name))
        return given_again(body, receive)

    async def _body(self, scope: Scope, receive: Receive, caller: Caller) -> bytes:
        connection = scope.get("extensions", {}).get(CONNECTION)
        if connection is not None and connection.body_is_there():
            return await whole_body(receive, max_bytes=self._max_body_bytes)
        with self._senders.take(caller.name):
            return await whole_body(receive, max_bytes=self._max_body_bytes)
