"""Makes the OpenAPI document, small and with what routes share as components, so that a generated client has it once.

Errors of one status are one component, and so are query parameters that are the same on several routes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.api.problems import MEDIA_TYPE, Problem
from service.api.schemas.beacons import Beacon

_TEMPLATE = "#/components/{kind}/{name}"
PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": _TEMPLATE.format(kind="schemas", name=Problem.__name__)}}}
"""The content of every error response."""
_NAMES_A_TYPE = frozenset({"properties", "enum"})
"""A schema with one of these becomes a type of its own in a generated client, called by its title."""


class Api(FastAPI):
    """A FastAPI app whose OpenAPI document shares the components that many routes have in common."""

    def openapi(self) -> dict[str, Any]:
        """Returns the OpenAPI document, which is made at the first call."""
        if not self.openapi_schema:
            self.openapi_schema = _with_components(super().openapi())
        return self.openapi_schema


def operation_id(route: APIRoute) -> str:
    """Returns a route's name, by which generated clients call it."""
    return route.name


def resolved(document: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what a part of the document refers to; the part itself where it is no reference."""
    if "$ref" not in part:
        return part
    found = document
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


def _with_components(document: dict[str, Any]) -> dict[str, Any]:
    document["servers"] = [{"url": "/", "description": "The service that this document comes from."}]
    components = document["components"]
    # Of errors, and of a body that its route reads itself.
    for model in (Problem, Beacon):
        schema = model.model_json_schema(ref_template=_TEMPLATE.format(kind="schemas", name="{model}"))
        components["schemas"] |= {model.__name__: schema, **schema.pop("$defs", {})}
    _without_plain_titles([components["schemas"], document["paths"]])
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    components["responses"] = _shared_problems(operations)
    components["parameters"] = _shared_parameters(operations)
    return document


def _shared_problems(operations: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns error responses that are equal under one status, and refers to them; a route's own responses stay."""
    shared: dict[str, Any] = {}
    for operation in operations:
        for status, answer in operation["responses"].items():
            if answer.get("content") != PROBLEM:
                continue
            name = f"{Problem.__name__}{status}"
            if shared.setdefault(name, answer) == answer:
                operation["responses"][status] = {"$ref": _TEMPLATE.format(kind="responses", name=name)}
    return shared


def _shared_parameters(operations: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns parameters that stand on several routes, the most frequent of each name, and refers to them."""
    for parameter in _parameters(operations):
        if parameter["schema"].get("description") == parameter.get("description"):
            parameter["schema"].pop("description", None)
    texts = Counter(map(_text, _parameters(operations)))
    shared: dict[str, Any] = {}
    for text, times in texts.most_common():
        if times > 1:
            parameter = orjson.loads(text)
            shared.setdefault(parameter["name"], parameter)
    for operation in operations:
        for place, parameter in enumerate(operation.get("parameters", ())):
            if shared.get(parameter["name"]) == parameter:
                reference = {"$ref": _TEMPLATE.format(kind="parameters", name=parameter["name"])}
                operation["parameters"][place] = reference
    return dict(sorted(shared.items()))


def _parameters(operations: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for operation in operations:
        yield from operation.get("parameters", ())


def _text(parameter: Mapping[str, Any]) -> bytes:
    return orjson.dumps(parameter, option=orjson.OPT_SORT_KEYS)


def _without_plain_titles(schema: Any) -> None:
    """Removes the titles of fields, which only repeat their names."""
    if isinstance(schema, list):
        for one in schema:
            _without_plain_titles(one)
    elif isinstance(schema, dict):
        if isinstance(schema.get("title"), str) and not _NAMES_A_TYPE & schema.keys():
            del schema["title"]
        for one in schema.values():
            _without_plain_titles(one)
