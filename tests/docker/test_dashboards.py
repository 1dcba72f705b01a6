"""Dashboard and alert rules name what the service exports: metrics and labels, no others."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from service.telemetry import metrics

DOCKER = Path(__file__).parents[2] / "docker"
LE = {"le"}


def series_of(kind: type[MetricWrapperBase], name: str, labels: set[str]) -> dict[str, set[str]]:
    if kind is Histogram:
        return {f"{name}_bucket": labels | LE, f"{name}_count": labels, f"{name}_sum": labels}
    return {f"{name}_total" if kind is Counter else name: labels}


def exported() -> dict[str, set[str]]:
    """Series by name, with their labels: those of every metric that the service makes."""
    series: dict[str, set[str]] = {"up": {"job", "instance"}}

    def noted(kind: type[MetricWrapperBase]) -> Callable[..., MetricWrapperBase]:
        def make(name: str, text: str, labels: Sequence[str] = (), **options: Any) -> MetricWrapperBase:
            series.update(series_of(kind, name, set(labels)))
            return kind(name, text, labels, **options)

        return make

    with pytest.MonkeyPatch.context() as patch:
        for kind in (Counter, Gauge, Histogram):
            patch.setattr(metrics, kind.__name__, noted(kind))
        metrics.Metrics()
    assert len(series) > 30
    return series


def expressions() -> Iterator[tuple[str, str]]:
    rules = yaml.safe_load((DOCKER / "prometheus" / "alerts.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in json.loads((DOCKER / "grafana" / "dashboards" / "isrf.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_and_label_is_exported(where: str, expression: str) -> None:
    series = exported()
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', expression)
    used = re.findall(r"\b(?:isrf_\w+|up)\b", bare)
    assert used, where
    assert set(used) <= series.keys(), where
    allowed = set().union(*(series[name] for name in used))
    grouped = re.findall(r"(?:by|ignoring|on) \(([^)]*)\)", bare)
    labels = {label.strip() for group in grouped for label in group.split(",")}
    labels |= set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"\"", bare))
    assert labels <= allowed, where


def test_every_metric_is_watched() -> None:
    shown = " ".join(expression for _, expression in expressions())
    names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported()}
    assert [name for name in sorted(names) if name not in shown] == []


def test_every_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((DOCKER / "prometheus" / "alerts.yaml").read_text())
    for rule in rules["groups"][0]["rules"]:
        assert rule["annotations"]["summary"], rule
        assert rule["annotations"]["fix"], rule
        assert rule["labels"]["severity"] in {"page", "warn"}


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((DOCKER / "grafana" / "dashboards" / "isrf.json").read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
