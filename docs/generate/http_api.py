"""docs/reference/http-api.md: every route of the API's document, with the role that it asks for."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from docs.generate.errors import codes, status
from docs.generate.markdown import code, page, prose, table
from docs.generate.values import default_of
from service.api.openapi import resolved
from service.app import create_app
from service.auth.route_rules import RouteRules
from service.settings import Settings

TAGS = {
    "recommend": "Recommend",
    "interactions": "Events",
    "beacons": "Events from the browser",
    "webhooks": "Orders from shop systems",
    "users": "Users",
    "items": "Catalogue",
    "placements": "Placements",
    "bulk": "Import and export",
    "probes": "Probes and metrics",
    "admin": "Administration",
    "studio": "Studio",
}
_ID = "^[^\\x00-"
"""How the pattern of an id begins."""


def http_api_page() -> str:
    # Not `Settings()`, which would read the environment.
    app = create_app(Settings.model_construct())
    document = app.openapi()
    rules = RouteRules(app)
    routes = defaultdict(list)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            routes[operation["tags"][0]].append(_route(method.upper(), path, document, rules))
    assert set(routes) == set(TAGS)
    return page(
        "HTTP API",
        prose(
            "JSON over HTTP. The same is served as OpenAPI at `/openapi.json`, and as a page at `/docs`. Ids are the "
            "shop's own texts; an integer in JSON is its decimal text. Percent-encode ids in paths; a slash may stay. "
            "`HEAD` is answered as `GET` without a body, `OPTIONS` with what a path takes."
        ),
        prose(
            "A body is JSON with `Content-Type: application/json`, or JSON Lines for an import. Each may be compressed "
            "with `Content-Encoding: gzip`, but for the signed ones of `/webhooks/…`; the limits hold for what arrives "
            "and for what it inflates to. Answers with an `ETag` can be "
            "asked for [again](../guides/call.md#ask-again-and-get-nothing-new) with `If-None-Match`."
        ),
        prose(
            "With API keys every call but `/livez`, `/readyz`, `/openapi.json` and the files of the pages `/docs` "
            "and `/studio` needs a key in `X-API-Key`. "
            "A key has a role: `browser` (may only send beacons, with the key in the query), `read`, `write` (may read "
            "and send beacons too) or `admin` (may do everything)."
        ),
        *(
            part
            for tag, title in TAGS.items()
            for part in (f"## {title}", *(one for route in routes[tag] for one in route))
        ),
        "## Errors",
        prose(
            "Every error is `application/problem+json`, a [Problem](#problem). Each route that needs a key may answer "
            "with any of these. [Errors](errors.md) says what each code means."
        ),
        _problems(document),
        "## Bodies",
        *_schemas(document, _bodies(document)),
        "## Answers",
        *_schemas(document, set(document["components"]["schemas"]) - _bodies(document), answer=True),
    )


def _route(method: str, path: str, document: Mapping[str, Any], rules: RouteRules) -> Iterator[str]:
    operation = document["paths"][path][method.lower()]
    yield f"### `{method} {path}`"
    yield from (prose(part) for part in operation["description"].split("\n\n"))
    rule = rules.rule(method, path.replace("{user_id}", "x").replace("{item_id}", "x"))
    role = rule.role if rule is not None else None
    yield f"Role: {code(role) if role else 'none'}."
    parameters = [
        [
            code(one["name"]),
            _needed(one["schema"], one["required"]),
            _kind(one["schema"]),
            "Part of the path." if one["in"] == "path" and not one.get("description") else one["description"],
        ]
        for one in (resolved(document, part) for part in operation.get("parameters", []))
    ]
    if parameters:
        yield table(("Parameter", "Default", "Values", "Meaning"), parameters)
    if "requestBody" in operation:
        yield f"Body: {_content(operation['requestBody']['content'])}."
    yield f"Answer: {', '.join(_answers(document, operation['responses']))}."


def _answers(document: Mapping[str, Any], responses: Mapping[str, Any]) -> Iterator[str]:
    """The good ones, and errors that are the route's own."""
    for number, answer in responses.items():
        if number.startswith("2"):
            yield f"{number} {_content(answer.get('content', {}))}".strip()
        elif number == "304":
            yield "304 without a body"
        elif number == "409":
            yield f"409 [Problem](#problem) ({_described(document, answer).rstrip('.')})"


def _content(content: Mapping[str, Any]) -> str:
    if not content:
        return "without a body"
    found = content.get("application/json")
    if found is not None:
        return _kind(found["schema"]) or "object"
    return code(next(iter(content)))


def _problems(document: Mapping[str, Any]) -> str:
    by_status = defaultdict(set)
    found = codes()
    for name in {one.code for one in found}:
        by_status[status([one for one in found if one.code == name])].add(name)
    texts = {
        number: _described(document, answer)
        for operations in document["paths"].values()
        for operation in operations.values()
        for number, answer in operation["responses"].items()
        if number.startswith(("4", "5"))
    }
    texts["409"] = "The release, or a new item, cannot be taken in now."
    texts["500"] = "A fault of the service; the log has it under the request_id."
    texts["405"] = "The path does not take this method."
    rows = []
    for number, text in sorted(texts.items()):
        names = sorted(name for name in by_status[number] if not name.startswith("bundle."))
        if number == "409":
            names.append("bundle.*")
        rows.append([number, text, ", ".join(_link(name) for name in names)])
    return table(("Status", "Meaning", "Codes"), rows)


def _link(name: str) -> str:
    return f"[{code(name)}](errors.md#{name.removesuffix('.*')})"


def _described(document: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    return str(resolved(document, answer)["description"])


def _bodies(document: Mapping[str, Any]) -> set[str]:
    """Names of the schemas that a caller sends."""
    found: set[str] = set()
    new = {
        name
        for operations in document["paths"].values()
        for operation in operations.values()
        for name in _named(operation.get("requestBody", {}))
    }
    while new:
        found |= new
        new = {name for one in new for name in _named(document["components"]["schemas"][one])} - found
    return found


def _named(schema: Any) -> Iterator[str]:
    """Schemas that one refers to, wherever in it."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rpartition("/")[2]
        elif _is_named(schema):
            yield schema["title"]
        for value in schema.values():
            yield from _named(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _named(value)


def _schemas(document: Mapping[str, Any], names: set[str], *, answer: bool = False) -> Iterator[str]:
    for name in sorted(names):
        schema = document["components"]["schemas"][name]
        yield f"### {name}"
        if schema.get("description"):
            yield from (prose(part) for part in schema["description"].split("\n\n"))
        needed = set(schema.get("required", ()))
        rows = []
        for field, one in schema.get("properties", {}).items():
            there = ("always" if field in needed else "not always") if answer else _needed(one, field in needed)
            rows.append([code(field), there, _kind(one), one.get("description", "")])
        yield table(("Field", "There" if answer else "Default", "Values", "Meaning"), rows)


def _needed(schema: Mapping[str, Any], needed: bool) -> str:
    return "needed" if needed else _default(schema)


def _default(schema: Mapping[str, Any]) -> str:
    return default_of(schema["default"]) if "default" in schema else "none"


def _is_named(schema: Mapping[str, Any]) -> bool:
    """Whether it is one of the document's schemas, written out where it is used."""
    return "properties" in schema and isinstance(schema.get("title"), str)


def _kind(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            *kinds, last = dict.fromkeys(_kind(one) for one in schema[several])
            return f"{' or '.join(kinds)}{',' * any(',' in one for one in kinds)} or {last}" if kinds else last
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if "const" in schema:
        return code(schema["const"])
    kind = schema.get("type")
    if kind == "array":
        most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
        items = _kind(schema.get("items", {})) or "values"
        return f"list of {'ids' if items == 'id' else items}{most}"
    if kind == "object" and _is_named(schema):
        return f"[{schema['title']}](#{schema['title'].lower()})"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"object of {_kind(values)}" if isinstance(values, dict) and _kind(values) else "object"
    if kind == "string":
        if schema.get("pattern", "").startswith(_ID):
            return "id"
        return "text" + (f", at most {schema['maxLength']} characters" if "maxLength" in schema else "")
    names = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "null": "null"}
    return names.get(str(kind), "") + _range(schema)


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    above = schema.get("exclusiveMinimum")
    if above is not None:
        return f", above {above:g}"
    return "" if low is None else f", at least {low:g}"
