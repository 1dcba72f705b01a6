"""What each route declares, known before the route is reached: the role that it needs, and the body that it reads."""

from collections.abc import Iterable, Iterator
from re import Pattern
from typing import Any, Literal, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.auth.caller import ADMIN, READ, WRITE
from service.auth.keys import Role

LINES_PREFIX = "/import/"
"""Bodies that are taken line by line and never kept: it is their lines that are limited."""
_ROLES: tuple[tuple[Role, Any], ...] = (("read", READ), ("write", WRITE), ("admin", ADMIN))


class RouteRule(NamedTuple):
    role: Role | None
    """None: whoever comes in may call it."""
    body: Literal["none", "json", "lines"]


class _Known(NamedTuple):
    path: Pattern[str]
    methods: frozenset[str]
    rule: RouteRule


class RouteRules:
    """Of one app, whose routes are looked at when the first request with a body comes."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._known: list[_Known] | None = None

    def find(self, method: str, path: str) -> RouteRule | None:
        """None where no route would answer."""
        if self._known is None:
            self._known = [_known(route) for route in _flat(self._app.routes)]
        for one in self._known:
            if method in one.methods and one.path.match(path):
                return one.rule
        return None


def _flat(routes: Iterable[Any]) -> Iterator[APIRoute]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _flat(included.routes)
        elif isinstance(route, APIRoute):
            yield route


def _known(route: APIRoute) -> _Known:
    needed = {id(one.dependency) for one in route.dependencies}
    role = next((name for name, needs in _ROLES if id(needs.dependency) in needed), None)
    methods = frozenset(route.methods or ())
    if route.body_field is not None:
        return _Known(route.path_regex, methods, RouteRule(role, "json"))
    lines = route.path.startswith(LINES_PREFIX)
    return _Known(route.path_regex, methods, RouteRule(role, "lines" if lines else "none"))
