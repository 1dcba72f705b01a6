"""docs/reference/helm-values.md out of the chart's values.yaml, and the service's settings in the chart's schema.

The chart's `settings` take every setting of the service that the chart does not make of other values. Their schema
comes from `service.settings`, so that Helm refuses a wrong one before anything is installed.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from docs.generate.markdown import code, field_sentences, page, prose, table
from docs.generate.settings import by_variable, variable
from service.settings import SECRETS, Settings

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "isrf"
SCHEMA = CHART / "values.schema.json"
NOT_IN_A_CLUSTER = {"ISRF_DEMO", "ISRF_STATE_DIR"}
"""What is for development mode, and for the store of one process."""
_ALONE = "Service and pods"
"""The heading of the values that are in no group."""
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum")
_KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<rest>.*)")


class ChartValue(NamedTuple):
    """A value of the chart that has a sentence; it may hold others that have none."""

    path: tuple[str, ...]
    default: Any
    sentence: str


def chart_values() -> Iterator[ChartValue]:
    """Yields the values that values.yaml explains, in its order; the comment above a key is its sentence."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)
    path: list[str] = []
    sentence: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            sentence.append(line.strip().removeprefix("#").strip())
            continue
        found = _KEY.match(line)
        if found is not None:
            path = [*path[: len(found["indent"]) // 2], found["key"]]
            if sentence:
                yield ChartValue(tuple(path), _at(defaults, path), " ".join(sentence))
        sentence = []


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def helm_page() -> str:
    """Returns the page of the chart's values."""
    groups: dict[str, list[list[str]]] = {_ALONE: []}
    for one in chart_values():
        default = json.dumps(one.default, ensure_ascii=False)
        rows = groups.setdefault(one.path[0] if len(one.path) > 1 else _ALONE, [])
        rows.append([code(".".join(one.path)), code(default), one.sentence])
    return page(
        "Helm values",
        prose(
            "The values of the chart in `deploy/helm/isrf`, with their defaults. The chart's schema refuses unknown "
            "names and wrong values, and says which. How to use the chart: [From compose to a "
            "cluster](../guides/cluster.md)."
        ),
        *(f"## {group}\n\n{table(('Value', 'Default', 'Meaning'), rows)}" for group, rows in groups.items()),
    )


def schema_text() -> str:
    """Returns the chart's schema with the settings that the service has now."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    schema["properties"]["settings"]["properties"] = dict(_settings())
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def made_by_the_chart() -> set[str]:
    """Returns the settings that the chart makes of other values."""
    template = (CHART / "templates" / "service" / "deployment.yaml").read_text(encoding="utf-8")
    return set(re.findall(r"\bISRF_[A-Z_]+\b", template))


def _settings() -> Iterator[tuple[str, dict[str, Any]]]:
    known = Settings.model_json_schema(by_alias=False)["properties"]
    sentences = field_sentences(Settings)
    left_out = made_by_the_chart() | NOT_IN_A_CLUSTER | set(SECRETS)
    for name in Settings.model_fields:
        if variable(name) not in left_out:
            yield variable(name), {"description": by_variable(sentences[name]), **_form(known[name])}


def _form(field: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a setting as it is written: lists and experiments are texts."""
    for one in field.get("anyOf", [field]):
        if one.get("type") in ("integer", "number", "boolean", "string"):
            bounds = {name: one[name] for name in _BOUNDS if name in one}
            return bounds if "enum" in bounds else {"type": one["type"], **bounds}
    return {"type": "string"}
