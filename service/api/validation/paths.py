"""Which paths there are, the methods of each, and the body that each takes: read off the API's own document.

An id is the whole rest of its path, slashes included. What pages there are beside the API is said to it.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

BodyKind = Literal["json", "lines"]
"""A JSON document, or JSON Lines, of whatever content type."""
_JSON = "application/json"
_ALIKE = 0.8
"""How alike a path must be to one that there is, of 1, to be told."""


class KnownPath(NamedTuple):
    """A path of the API, or a page.

    Attributes:
        path: the route's own spelling, as logs and metrics name it.
        parameter: the id that is the rest of the path, "" where there is none.
        methods: what each takes; None for no body.
    """

    path: str
    parameter: str
    methods: Mapping[str, BodyKind | None]

    @property
    def allow(self) -> str:
        """The value of the header Allow."""
        more = ["HEAD"] if "GET" in self.methods else []
        return ", ".join(sorted([*self.methods, *more, "OPTIONS"]))


class KnownPaths:
    """Of one app."""

    def __init__(self, document: Mapping[str, Any], pages: Collection[str]) -> None:
        """`document` is the OpenAPI document."""
        self._whole: dict[str, KnownPath] = {page: KnownPath(page, "", {"GET": None}) for page in pages}
        self._with_id: dict[str, KnownPath] = {}
        for template, operations in document["paths"].items():
            before, _, parameter = template.rstrip("}").partition("{")
            methods = {method.upper(): _body_kind(operation) for method, operation in operations.items()}
            path = KnownPath(template.replace("}", ":path}"), parameter, methods)
            (self._with_id if parameter else self._whole)[before] = path

    def find(self, path: str) -> KnownPath | None:
        """None where there is no such path."""
        found = self._whole.get(path)
        if found is not None:
            return found
        return next((known for before, known in self._with_id.items() if path.startswith(before)), None)

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
        alike = difflib.get_close_matches(plain[:100], [*self._whole, *self._with_id], n=1, cutoff=_ALIKE)
        return f"Call {alike[0]}, if that is what was meant." if alike else "GET /openapi.json lists what there is."


def _body_kind(operation: Mapping[str, Any]) -> BodyKind | None:
    if "requestBody" not in operation:
        return None
    return "json" if _JSON in operation["requestBody"]["content"] else "lines"
