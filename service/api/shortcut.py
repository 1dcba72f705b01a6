"""Answers calls for a user's list and a placement's items without the framework where their query was parsed before.

Most calls of a shop have the same query. The framework parses and checks it only once; after that the same query costs
a third. The route itself answers, and `service.api.dependency_plan` calls its other dependencies. Refusals take this
way too, because they must be cheap when there are many. All other calls go through the framework. Pure ASGI, inside of
the access middleware.
"""

import contextlib
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.dependency_plan import Call, DependencyPlan, Route, effective_route
from service.api.routes.placements import ITEMS_PATH, PlacedParameters, placed_parameters, placement_items
from service.api.routes.recommend import USER_PATH, recommend_user
from service.api.validation.inputs import query_by_parameters, session_by_query
from service.api.validation.parameters import KnownQueries, only_known_parameters

_USERS = USER_PATH.partition("{")[0]
_PLACEMENTS, _, _ITEMS = ITEMS_PATH.partition("{placement}")
_PARSED: frozenset[Call] = frozenset({only_known_parameters, query_by_parameters, session_by_query, placed_parameters})
"""Dependencies that read only the query."""


class _KnownCall(NamedTuple):
    """A call whose query is parsed.

    Attributes:
        values: of the dependencies that read only the query.
    """

    endpoint: Call
    path_params: dict[str, str]
    values: dict[Call, Any]


class _Planned(NamedTuple):
    route: Route
    plan: DependencyPlan | None  # None: the route has a dependency that only the framework can call


class Shortcut:
    """ASGI middleware that answers calls with a known query; the routes add to `queries`."""

    def __init__(self, app: ASGIApp, *, queries: KnownQueries) -> None:
        self._app, self._queries = app, queries
        self._planned: dict[Call, _Planned] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self._known_call(scope)
        planned = None if call is None else self._plan_of(scope["app"], call.endpoint)
        if call is None or planned is None or planned.plan is None:
            await self._app(scope, receive, send)
            return
        scope.update(route=planned.route, endpoint=call.endpoint, path_params=call.path_params)
        request = Request(scope, receive)
        try:
            response = await planned.plan.answer(request, call.path_params, call.values)
        except Exception as error:  # noqa: BLE001 - the app's handler answers, or the error is raised again
            response = await _problem(request, error)
        await response(scope, receive, send)

    def _known_call(self, scope: Scope) -> _KnownCall | None:
        """Returns the call where its query is known; None for every other call."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        path: str = scope["path"]
        if path.startswith(_USERS):
            query = self._queries.get(scope["query_string"])
            if query is None:
                return None
            values: dict[Call, Any] = {query_by_parameters: query, session_by_query: ()}
            return _KnownCall(recommend_user, {"user_id": path[len(_USERS) :]}, {only_known_parameters: None, **values})
        name = path[len(_PLACEMENTS) : -len(_ITEMS)]
        if path != f"{_PLACEMENTS}{name}{_ITEMS}" or "/" in name:
            return None
        placed = self._queries.get_placed(scope["query_string"])
        if placed is None:
            return None
        values = {only_known_parameters: None, placed_parameters: PlacedParameters(placed)}
        return _KnownCall(placement_items, {"placement": name}, values)

    def _plan_of(self, app: FastAPI, endpoint: Call) -> _Planned:
        """Returns the route of an endpoint and its plan."""
        planned = self._planned.get(endpoint)
        if planned is None:
            route, plan = effective_route(app, endpoint), None
            with contextlib.suppress(LookupError):
                plan = DependencyPlan(route, provided=_PARSED)
            planned = self._planned[endpoint] = _Planned(route, plan)
        return planned


async def _problem(request: Request, error: Exception) -> Response:
    """Returns the response of the app's error handler; raises the error where the app has none."""
    handlers = request.app.exception_handlers
    handler = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
    if handler is None:
        raise error
    response: Response = await handler(request, error)
    return response
