"""`GET /recommend/{user_id}` without the framework, where its query was read before: most calls of a shop are alike.

What the framework reads and checks of a query is the same every time; once it has, the same query goes straight to
`service.api.routes.recommend.user_body`, the route's own work, and costs a third. So do refusals, which must be cheap
when there are many. Whatever is not exactly such a call goes the long way. Pure ASGI, inside of the access middleware.
"""

from types import SimpleNamespace
from urllib.parse import unquote_to_bytes

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from isrf.contract.errors import IsrfError
from isrf.contract.ids import id_problem
from service.api.context import AppContext, lease
from service.api.presenters import json_body
from service.api.problems import send_problem, status_of
from service.api.routes.recommend import USER_PATH, user_body
from service.api.validation.parameters import KnownQueries
from service.auth.keys import RANK
from service.auth.request_cost import charge
from service.telemetry.metrics import Metrics

_PREFIX = USER_PATH.partition("{")[0]
_ROUTE = SimpleNamespace(path=USER_PATH)
"""As logs and metrics name it."""


class Shortcut:
    """`queries` are learned by the route."""

    def __init__(self, app: ASGIApp, *, queries: KnownQueries, metrics: Metrics) -> None:
        self._app, self._queries, self._metrics = app, queries, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(_PREFIX):
            await self._app(scope, receive, send)
            return
        wanted = self._queries.get(scope["query_string"])
        user_id = scope["path"][len(_PREFIX) :]
        if wanted is None or not _is_sound(scope, user_id) or RANK[scope["state"]["caller"].role] < RANK["read"]:
            await self._app(scope, receive, send)
            return
        scope["route"] = _ROUTE
        running: AppContext = scope["app"].state.running
        try:
            await charge(scope, 1, wanted.n, explain=wanted.explain)
            with lease(running, user_id) as service:
                body = json_body(await user_body(Request(scope), user_id, wanted, service))
        except IsrfError as error:
            if status_of(error) == 500:
                raise
            await send_problem(error, scope, send, metrics=self._metrics)
            return
        headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _is_sound(scope: Scope, user_id: str) -> bool:
    if id_problem(user_id):
        return False
    if b"%" not in scope["raw_path"]:
        return True
    try:
        unquote_to_bytes(scope["raw_path"]).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
