"""Calls a route and its dependencies without the framework, for a request whose query is already parsed.

The framework reads and checks every parameter of every request, though a query string always gives the same values. A
plan takes these values from its caller. It calls all the other dependencies of the route, in the framework's order.
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
    """A route together with the dependencies of its router and its app."""

    path: str
    dependant: Dependant


class PlannedCall(NamedTuple):
    """One call of a plan.

    Attributes:
        key: the dependency; the plan stores its value under this key.
        arguments: for each parameter the key of its value: `REQUEST`, the name of a path parameter, or another key.
        opens: whether the call returns a context that stays open until the route has answered.
    """

    key: Call
    call: Call
    arguments: dict[str, object]
    opens: bool


class DependencyPlan:
    """The calls of a route's dependencies and of the route itself, in order."""

    def __init__(self, route: Route, *, provided: Collection[Call]) -> None:
        """Collects the calls of a route.

        Args:
            provided: dependencies that the plan does not call; the caller of `answer` passes their values.

        Raises:
            LookupError: the route has a dependency that only the framework can call.
        """
        self._provided = provided
        self._steps: list[PlannedCall] = []
        self._add(route.dependant)

    async def answer(self, request: Request, path_params: Mapping[str, str], values: Mapping[Call, Any]) -> Response:
        """Returns the route's response; raises what a dependency or the route raises."""
        return await self._answer(0, {REQUEST: request, **path_params, **values})

    async def _answer(self, start: int, values: dict[Any, Any]) -> Response:
        """Runs the steps from `start` on; returns the value of the last one."""
        for next_step, step in enumerate(self._steps[start:], start=start + 1):
            value = step.call(**{name: values[source] for name, source in step.arguments.items()})
            if step.opens:
                async with value as values[step.key]:
                    return await self._answer(next_step, values)
            values[step.key] = await value
        response: Response = values[self._steps[-1].key]
        return response

    def _add(self, dependant: Dependant) -> Call:
        """Adds the steps of a dependency; returns the key of its value."""
        arguments: dict[str, object] = {}
        for dependency in dependant.dependencies:
            key = self._add(dependency)
            if dependency.name is not None:
                arguments[dependency.name] = key
        call = dependant.call
        if call is None:
            raise LookupError("a dependency without a call")
        if call in self._provided or any(step.key is call for step in self._steps):
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
            raise LookupError(f"only the framework can call {call}")
        self._steps.append(PlannedCall(call, asynccontextmanager(call) if opens else call, arguments, opens))
        return call


def effective_route(app: FastAPI, endpoint: Call) -> Route:
    """Returns the route of an endpoint as the app serves it; raises `LookupError` where there is none."""
    contexts: Callable[..., Any] = getattr(routing, "iter_route_contexts", iter)
    for route in contexts(app.routes):
        if getattr(route, "endpoint", None) is endpoint:
            found: Route = route
            return found
    raise LookupError(f"no route has the endpoint {endpoint}")
