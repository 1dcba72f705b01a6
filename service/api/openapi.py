"""Makes the OpenAPI document; each error is one shared component, so that a generated client has one class for it."""

from typing import Any

from fastapi import FastAPI

from service.api.problems import MEDIA_TYPE, Problem
from service.api.schemas.beacons import Beacon

_TEMPLATE = "#/components/{kind}/{name}"
PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": _TEMPLATE.format(kind="schemas", name=Problem.__name__)}}}
"""The content of every error response."""


class Api(FastAPI):
    """A FastAPI app whose OpenAPI document shares the components that many routes have in common."""

    def openapi(self) -> dict[str, Any]:
        """Returns the OpenAPI document, which is made at the first call."""
        if not self.openapi_schema:
            self.openapi_schema = _with_components(super().openapi())
        return self.openapi_schema


def _with_components(document: dict[str, Any]) -> dict[str, Any]:
    """Turns error responses that are equal under one status into components; a route's own responses stay."""
    components = document["components"]
    # Of errors, and of a body that its route reads itself.
    for model in (Problem, Beacon):
        schema = model.model_json_schema(ref_template=_TEMPLATE.format(kind="schemas", name="{model}"))
        components["schemas"] |= {model.__name__: schema, **schema.pop("$defs", {})}
    shared: dict[str, Any] = components.setdefault("responses", {})
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if answer.get("content") != PROBLEM:
                    continue
                name = f"{Problem.__name__}{status}"
                if shared.setdefault(name, answer) == answer:
                    operation["responses"][status] = {"$ref": _TEMPLATE.format(kind="responses", name=name)}
    return document
