"""Knows each route's path, methods, roles and bodies before the route runs.

It reads them from the routes' own declarations. An id is the whole rest of its path, including slashes.
"""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.auth.caller import ADMIN, BROWSER, READ, WRITE
from service.auth.keys import Role

BodyKind = Literal["json", "lines", "whole"]
"""A JSON document; JSON Lines of most content types, read line by line and never held as a whole; or a body of any
type, which the route reads as a whole and checks itself."""
LINES = "application/x-ndjson"
_ROLES: tuple[tuple[Role, Any], ...] = (("browser", BROWSER), ("read", READ), ("write", WRITE), ("admin", ADMIN))
AMPERSAND = "Parameters begin with ? and are joined by &, as in /popular?n=5&explain=true."
"""What to do about a path with an & that stands in the place of a ?."""
_MIN_SIMILARITY = 0.8
"""How similar a known path must be to an unknown one, from 0 to 1, for the hint to name it."""


class RouteRule(NamedTuple):
    """The role and the body of one method of a path; `role` None: every admitted caller may call it."""

    role: Role | None
    body: BodyKind | None


class KnownPath(NamedTuple):
    """A path of the API.

    Attributes:
        path: the route's pattern, as in logs and metrics.
        parameter: the name of the id in the path, "" where there is none.
    """

    path: str
    parameter: str
    methods: dict[str, RouteRule]

    @property
    def allow(self) -> str:
        """The value of the header Allow."""
        more = ["HEAD"] if "GET" in self.methods else []
        return ", ".join(sorted([*self.methods, *more, "OPTIONS"]))


class RouteRules:
    """The rules of an app's routes, which it reads at the first request."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._whole: dict[str, KnownPath] = {}
        self._with_id: dict[str, KnownPath] = {}
        self._within: dict[tuple[str, str], KnownPath] = {}  # what stands before the id, and after it

    def find(self, path: str) -> KnownPath | None:
        """Returns the known path of a request's path; None where there is none."""
        if not self._whole:
            self._read()
        found = self._whole.get(path)
        if found is not None:
            return found
        within = next((known for ends, known in self._within.items() if _is_within(path, *ends)), None)
        return within or next((known for before, known in self._with_id.items() if path.startswith(before)), None)

    def rule(self, method: str, path: str) -> RouteRule | None:
        """Returns the rule of a call; None where no route would answer."""
        known = self.find(path)
        return None if known is None else known.methods.get(method)

    def rest(self, path: str) -> str:
        """Returns the id in a path that has one, else ""."""
        for before, after in self._within:
            if _is_within(path, before, after):
                return path[len(before) : -len(after)]
        return next((path[len(before) :] for before in self._with_id if path.startswith(before)), "")

    def hint(self, path: str) -> str:
        """Suggests a known path in place of an unknown one."""
        if "&" in path:
            return AMPERSAND
        plain = "/" + path.strip("/\r\n").lower()
        if plain in self._whole:
            return f"Call {plain}."
        if plain + "/" in self._with_id:
            return f"Call {plain}/ followed by an id."
        known = [*self._whole, *self._with_id]
        alike = difflib.get_close_matches(plain[:100], known, n=1, cutoff=_MIN_SIMILARITY)
        return f"Call {alike[0]}, if you mean that." if alike else "GET /openapi.json lists all calls."

    def _read(self) -> None:
        for route in _flat(self._app.routes):
            before, _, rest = route.path.partition("{")
            inner, _, after = rest.partition("}")
            parameter = inner.partition(":")[0]
            new = KnownPath(route.path, parameter, {})
            if after:
                known = self._within.setdefault((before, after), new)
            else:
                known = (self._with_id if parameter else self._whole).setdefault(before, new)
            known.methods.update(dict.fromkeys(route.methods or (), _rule(route)))


def _is_within(path: str, before: str, after: str) -> bool:
    """Whether a path is an id between the two."""
    return path.startswith(before) and path.endswith(after) and len(path) > len(before) + len(after)


def _flat(routes: Iterable[Any]) -> Iterator[APIRoute]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _flat(included.routes)
        elif isinstance(route, APIRoute):
            yield route


def _rule(route: APIRoute) -> RouteRule:
    needed = {id(dependency.dependency) for dependency in route.dependencies}
    role = next((name for name, needs in _ROLES if id(needs.dependency) in needed), None)
    if route.body_field is not None:
        return RouteRule(role, "json")
    # A route that reads its body itself declares it in `openapi_extra`.
    content = (route.openapi_extra or {}).get("requestBody", {}).get("content", {})
    return RouteRule(role, "lines" if LINES in content else "whole" if content else None)
