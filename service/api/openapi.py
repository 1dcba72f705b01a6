"""The API's document: every error one component, so that a generated client has one class for it."""

from typing import Any

from fastapi import FastAPI

from service.api.problems import MEDIA_TYPE, Problem

_TEMPLATE = "#/components/{kind}/{name}"
PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": _TEMPLATE.format(kind="schemas", name=Problem.__name__)}}}
"""The content of every error answer."""


class Api(FastAPI):
    """A FastAPI app whose document refers to what many routes share."""

    def openapi(self) -> dict[str, Any]:
        """Made once."""
        if not self.openapi_schema:
            self.openapi_schema = _with_components(super().openapi())
        return self.openapi_schema


def _with_components(document: dict[str, Any]) -> dict[str, Any]:
    """Answers that are the same under one status become components; a route's own stay where they are."""
    components = document["components"]
    schema = Problem.model_json_schema(ref_template=_TEMPLATE.format(kind="schemas", name="{model}"))
    components["schemas"] |= {Problem.__name__: schema, **schema.pop("$defs", {})}
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
