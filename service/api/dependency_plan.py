"""A route's dependencies as a list of calls, made once: where nothing is left to parse, it answers as the route does.

The framework reads and checks every parameter of every request. What it makes of a query string is the same each time;
a plan takes that as given and calls everything else that the route declares, in the framework's order.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

from fastapi import FastAPI, Request, Response, routing
from fastapi.dependencies.models import Dependant

Call = Callable[..., Any]
REQUEST = object()


class Route(Protocol):
    """A route with what its router and its app ask of it, too."""

    path: str
    dependant: Dependant


class PlannedCall(NamedTuple):
    """One call.

    Attributes:
        key: the dependency, under which its value is found.
        arguments: where the value of each parameter is found: `REQUEST`, a path parameter's name, another's key.
        opens: whether the call gives a context that stays open until the route has answered.
    """

    key: Call
    call: Call
    arguments: dict[str, object]
    opens: bool


class DependencyPlan:
    """What a route's dependencies and the route itself do, in order."""

    def __init__(self, route: Route, *, given: Collection[Call]) -> None:
        """Every dependency is called but those that are `given`: their values come with each request.

        Raises:
            LookupError: the route has a dependency that only the framework can call.
        """
        self._given = given
        self._steps: list[PlannedCall] = []
        self._add(route.dependant)

    async def answer(self, request: Request, path_params: Mapping[str, str], values: Mapping[Call, Any]) -> Response:
        """The route's answer; raises what a dependency or the route raises."""
        return await self._answer(0, {REQUEST: request, **path_params, **values})

    async def _answer(self, place: int, found: dict[Any, Any]) -> Response:
        """From the step of this place on."""
        for count, step in enumerate(self._steps[place:], start=place + 1):
            value = step.call(**{name: found[source] for name, source in step.arguments.items()})
            if step.opens:
                async with value as found[step.key]:
                    return await self._answer(count, found)
            found[step.key] = await value
        response: Response = found[self._steps[-1].key]
        return response

    def _add(self, dependant: Dependant) -> Call:
        """The key of its value."""
        arguments: dict[str, object] = {}
        for one in dependant.dependencies:
            key = self._add(one)
            if one.name is not None:
                arguments[one.name] = key
        call = dependant.call
        if call is None:
            raise LookupError("a dependency without a call")
        if call in self._given or any(step.key is call for step in self._steps):
            return call
        for name in (dependant.request_param_name, dependant.http_connection_param_name):
            if name is not None:
                arguments[name] = REQUEST
        for field in dependant.path_params:
            if field.field_info.annotation is str and not field.field_info.metadata:
                arguments[field.name] = field.alias
        opens = inspect.isasyncgenfunction(call)
        is_async = opens or inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)
        is_plain = dependant.use_cache and getattr(dependant, "concurrency", None) is None
        if not is_async or not is_plain or set(arguments) != set(inspect.signature(call).parameters):
            raise LookupError(f"{call} needs the framework")
        self._steps.append(PlannedCall(call, asynccontextmanager(call) if opens else call, arguments, opens))
        return call


def effective_route(app: FastAPI, endpoint: Call) -> Route:
    """The route of an endpoint as the app serves it; `LookupError` where there is none."""
    contexts: Callable[..., Any] = getattr(routing, "iter_route_contexts", iter)
    for route in contexts(app.routes):
        if getattr(route, "endpoint", None) is endpoint:
            found: Route = route
            return found
    raise LookupError(f"{endpoint} is no route's")
