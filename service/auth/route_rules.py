"""What each route declares, known before the route is reached: path, methods, and of each the role and the body.

Read off the routes themselves. An id is the whole rest of its path, slashes included.
"""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.auth.caller import ADMIN, READ, WRITE
from service.auth.keys import Role

BodyKind = Literal["json", "lines"]
"""A JSON document; or JSON Lines of whatever content type, taken line by line and never kept."""
_ROLES: tuple[tuple[Role, Any], ...] = (("read", READ), ("write", WRITE), ("admin", ADMIN))
_ALIKE = 0.8
"""How alike a path must be to one that there is, of 1, to be told."""


class RouteRule(NamedTuple):
    """Of one method of a path; `role` None: whoever comes in may call it."""

    role: Role | None
    body: BodyKind | None


class KnownPath(NamedTuple):
    """A path that there is.

    Attributes:
        path: the route's own spelling, as logs and metrics name it.
        parameter: the id that is the rest of the path, "" where there is none.
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
    """Of one app, whose routes are looked at when the first request comes."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._whole: dict[str, KnownPath] = {}
        self._with_id: dict[str, KnownPath] = {}

    def find(self, path: str) -> KnownPath | None:
        """None where there is no such path."""
        if not self._whole:
            self._read()
        found = self._whole.get(path)
        if found is not None:
            return found
        return next((known for before, known in self._with_id.items() if path.startswith(before)), None)

    def rule(self, method: str, path: str) -> RouteRule | None:
        """None where no route would answer."""
        known = self.find(path)
        return None if known is None else known.methods.get(method)

    def rest(self, path: str) -> str:
        """The id in a path that has one."""
        return next((path[len(before) :] for before in self._with_id if path.startswith(before)), "")

    def hint(self, path: str) -> str:
        """What may have been meant by a path that there is not."""
        plain = "/" + path.strip("/\r\n").lower()
        if plain in self._whole:
            return f"Call {plain}."
        if plain + "/" in self._with_id:
            return f"Call {plain}/ followed by an id."
        known = [*self._whole, *self._with_id]
        alike = difflib.get_close_matches(plain[:100], known, n=1, cutoff=_ALIKE)
        return f"Call {alike[0]}, if that is what was meant." if alike else "GET /openapi.json lists what there is."

    def _read(self) -> None:
        for route in _flat(self._app.routes):
            before, _, rest = route.path.partition("{")
            parameter = rest.partition(":")[0]
            known = (self._with_id if parameter else self._whole).setdefault(
                before, KnownPath(route.path, parameter, {})
            )
            known.methods.update(dict.fromkeys(route.methods or (), _rule(route)))


def _flat(routes: Iterable[Any]) -> Iterator[APIRoute]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _flat(included.routes)
        elif isinstance(route, APIRoute):
            yield route


def _rule(route: APIRoute) -> RouteRule:
    needed = {id(one.dependency) for one in route.dependencies}
    role = next((name for name, needs in _ROLES if id(needs.dependency) in needed), None)
    if route.body_field is not None:
        return RouteRule(role, "json")
    # A route that reads its body by itself says so to the document.
    return RouteRule(role, "lines" if "requestBody" in (route.openapi_extra or {}) else None)
