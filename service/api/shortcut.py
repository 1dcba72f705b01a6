"""Answers `GET /recommend/{user_id}` without the framework where the same query was parsed before.

Most calls of a shop have the same query. The framework parses and checks it only once; after that the same query costs
a third. The route itself answers, and `service.api.dependency_plan` calls its other dependencies. Refusals take this
way too, because they must be cheap when there are many. All other calls go through the framework. Pure ASGI, inside of
the access middleware.
"""

from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.dependency_plan import Call, DependencyPlan, Route, effective_route
from service.api.routes.recommend import USER_PATH, recommend_user
from service.api.validation.inputs import query_by_parameters, session_by_query
from service.api.validation.parameters import KnownQueries, only_known_parameters
from service.recommend.query_models import ListQuery

_PREFIX = USER_PATH.partition("{")[0]
_BY_QUERY: frozenset[Call] = frozenset({only_known_parameters, query_by_parameters, session_by_query})
"""Dependencies that read only the query."""


class Shortcut:
    """ASGI middleware that answers calls with a known query; the route adds to `queries`."""

    def __init__(self, app: ASGIApp, *, queries: KnownQueries) -> None:
        self._app, self._queries = app, queries
        self._route: Route | None = None
        self._plan: DependencyPlan | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = self._known_query(scope)
        plan = None if query is None else self._plan_of(scope["app"])
        if query is None or plan is None:
            await self._app(scope, receive, send)
            return
        path_params = {"user_id": scope["path"][len(_PREFIX) :]}
        scope.update(route=self._route, endpoint=recommend_user, path_params=path_params)
        request = Request(scope, receive)
        values: dict[Call, Any] = {only_known_parameters: None, query_by_parameters: query, session_by_query: ()}
        try:
            response = await plan.answer(request, path_params, values)
        except Exception as error:  # noqa: BLE001 - the app's handler answers, or the error is raised again
            response = await _problem(request, error)
        await response(scope, receive, send)

    def _known_query(self, scope: Scope) -> ListQuery | None:
        """Returns the parsed query where it is known; None for every other call."""
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(_PREFIX):
            return None
        return self._queries.get(scope["query_string"])

    def _plan_of(self, app: FastAPI) -> DependencyPlan | None:
        """Returns the plan; None where the route has a dependency that only the framework can call."""
        if self._route is None:
            self._route = effective_route(app, recommend_user)
            try:
                self._plan = DependencyPlan(self._route, provided=_BY_QUERY)
            except LookupError:
                self._plan = None
        return self._plan


async def _problem(request: Request, error: Exception) -> Response:
    """Returns the response of the app's error handler; raises the error where the app has none."""
    handlers = request.app.exception_handlers
    handler = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
    if handler is None:
        raise error
    response: Response = await handler(request, error)
    return response
