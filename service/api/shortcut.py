"""`GET /recommend/{user_id}` without the framework, where its query was read before: most calls of a shop are alike.

What the framework reads and checks of a query is the same every time; once it has, the same query costs a third. The
route itself answers, and whatever else it depends on is called as it declares it (`service.api.dependency_plan`). So
are refusals, which must be cheap when there are many. Whatever is not exactly such a call goes the long way. Pure ASGI,
inside of the access middleware.
"""

from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.dependency_plan import Call, DependencyPlan, Route, effective_route
from service.api.routes.recommend import USER_PATH, recommend_user
from service.api.validation.inputs import session_by_query, wanted_by_query
from service.api.validation.parameters import KnownQueries, only_known_parameters
from service.recommend.query_models import ListQuery

_PREFIX = USER_PATH.partition("{")[0]
_BY_QUERY: frozenset[Call] = frozenset({only_known_parameters, wanted_by_query, session_by_query})
"""Dependencies that look at the query alone."""


class Shortcut:
    """`queries` are learned by the route."""

    def __init__(self, app: ASGIApp, *, queries: KnownQueries) -> None:
        self._app, self._queries = app, queries
        self._route: Route | None = None
        self._plan: DependencyPlan | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = self._wanted(scope)
        plan = None if wanted is None else self._plan_of(scope["app"])
        if wanted is None or plan is None:
            await self._app(scope, receive, send)
            return
        path_params = {"user_id": scope["path"][len(_PREFIX) :]}
        scope.update(route=self._route, endpoint=recommend_user, path_params=path_params)
        request = Request(scope, receive)
        values: dict[Call, Any] = {only_known_parameters: None, wanted_by_query: wanted, session_by_query: ()}
        try:
            response = await plan.answer(request, path_params, values)
        except Exception as error:  # noqa: BLE001 - the app has an answer, or it is raised again
            response = await _problem(request, error)
        await response(scope, receive, send)

    def _wanted(self, scope: Scope) -> ListQuery | None:
        """What is asked for by a query that is known; None for every other call."""
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(_PREFIX):
            return None
        return self._queries.get(scope["query_string"])

    def _plan_of(self, app: FastAPI) -> DependencyPlan | None:
        """None where the route has come to depend on something that only the framework can call."""
        if self._route is None:
            self._route = effective_route(app, recommend_user)
            try:
                self._plan = DependencyPlan(self._route, given=_BY_QUERY)
            except LookupError:
                self._plan = None
        return self._plan


async def _problem(request: Request, error: Exception) -> Response:
    """The app's own answer to an error; raises the error where it has none."""
    handlers = request.app.exception_handlers
    handler = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
    if handler is None:
        raise error
    response: Response = await handler(request, error)
    return response
