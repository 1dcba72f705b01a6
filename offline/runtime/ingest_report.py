"""Reads values of the stage `ingest`'s `report.json` for later stages."""

import json
from pathlib import Path

from isrf.contract.event_types import STANDARD

REPORT_FILE = "report.json"


def learned_until(ingest: Path) -> float:
    """The moment until which the events are known, seconds."""
    report = json.loads((ingest / REPORT_FILE).read_text())
    return float(report["learned_until"]["events"])


def type_weights(ingest: Path) -> dict[str, float]:
    """The weight of each event type of the shop's file."""
    report = json.loads((ingest / REPORT_FILE).read_text())
    weights: dict[str, float] = report["event_weights"]
    return weights


def excluding_types(ingest: Path) -> list[str]:
    """The event types that take their item off the user's list."""
    path = ingest / REPORT_FILE
    report = json.loads(path.read_text()) if path.exists() else {}
    types: list[str] = report.get("excluding", sorted(STANDARD.excluding))
    return types
