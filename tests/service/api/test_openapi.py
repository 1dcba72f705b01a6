"""The API's document is small, refers to what is shared, and every reference leads somewhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from service.api.openapi import resolved
from service.api.validation.parameters import query_parameters
from service.app import create_app
from service.settings import Settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(demo=True)).openapi()


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert len(found) > 40
    for reference in found:
        assert resolved(document, {"$ref": reference})


def test_the_problem_is_one_schema(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["Problem"]
    whole = json.dumps(document)
    assert whole.count("urn:isrf:problem:") == 1
    assert "$defs" not in whole
    assert schema["properties"]["errors"]["anyOf"][0]["items"] == {"$ref": "#/components/schemas/Fault"}
    refused = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                if not status.startswith(("4", "5")):
                    continue
                refused += 1
                content = resolved(document, answer)["content"]["application/problem+json"]
                assert content == {"schema": {"$ref": "#/components/schemas/Problem"}}, (method, path, status)
    assert refused > 150


def test_the_document_is_small(document: dict[str, Any]) -> None:
    assert len(json.dumps(document, separators=(",", ":"))) < 98_000


def test_what_routes_have_in_common_stands_once(document: dict[str, Any]) -> None:
    parameters = document["paths"]["/popular"]["get"]["parameters"]
    shared = [one["$ref"].rpartition("/")[2] for one in parameters if "$ref" in one]
    assert {"category", "filter", "explain", "offset"} <= set(shared)
    whole = json.dumps(document)
    for name in shared:
        assert whole.count(json.dumps(document["components"]["parameters"][name])) == 1


def test_a_generated_client_calls_each_route_by_a_name_of_its_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    assert {"recommend_user", "popular", "put_item", "demo_items", "studio_items"} <= set(names)


def test_it_says_where_the_service_is(document: dict[str, Any]) -> None:
    assert [one["url"] for one in document["servers"]] == ["/"]


def test_it_is_made_once() -> None:
    app = create_app(Settings())
    assert app.openapi() is app.openapi()


def test_a_generated_client_sends_no_field_of_an_item_that_it_was_not_given(document: dict[str, Any]) -> None:
    fields = document["components"]["schemas"]["ItemBody"]["properties"]
    assert len(fields) == 8
    assert not [name for name, schema in fields.items() if "default" in schema]


def test_the_parameters_that_a_route_knows_are_those_of_the_document(document: dict[str, Any]) -> None:
    num_parameters = 0
    routes: Iterator[Any] = iter(iter_route_contexts(create_app(Settings(demo=True)).routes))
    for route in routes:
        for method in route.methods if route.include_in_schema else ():
            documented = {
                parameter["name"]: parameter["schema"].get("type") == "array"
                for part in document["paths"][route.path_format][method.lower()].get("parameters", ())
                for parameter in (resolved(document, part),)
                if parameter["in"] == "query"
            }
            assert query_parameters(route.dependant) == documented, (method, route.path_format)
            num_parameters += len(documented)
    assert num_parameters > 50


def test_only_a_caller_who_wants_the_document_waits_for_its_making(tiny_release: Path, tmp_path: Path) -> None:
    app = create_app(Settings(releases_dir=tiny_release, state_dir=tmp_path / "state"))
    with TestClient(app) as client:
        assert client.get("/popular?n=3").status_code == 200
        assert client.get("/popular?m=3").json()["code"] == "request.unknown_parameter"
        assert app.openapi_schema is None
        assert client.get("/openapi.json").json()["info"]["title"] == "ISRF"
