"""Reads values of the stage `ingest`'s output, its `report.json` above all, for later stages and for commands."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from isrf.contract.event_types import STANDARD

REPORT_FILE = "report.json"


def ingest_report(ingest: Path) -> dict[str, Any]:
    """The whole report in the stage's output folder."""
    report: dict[str, Any] = json.loads((ingest / REPORT_FILE).read_text(encoding="utf-8"))
    return report


def num_users(ingest: Path) -> int:
    """The number of users; a `user_index` from there on is that of a session."""
    return int(pl.scan_parquet(ingest / "users.parquet").select(pl.len()).collect().item())


def learned_until(ingest: Path) -> float:
    """The moment until which the events are known, seconds."""
    return float(ingest_report(ingest)["learned_until"]["events"])


def type_weights(ingest: Path) -> dict[str, float]:
    """The weight of each event type of the shop's file."""
    weights: dict[str, float] = ingest_report(ingest)["event_weights"]
    return weights


def excluding_types(ingest: Path) -> list[str]:
    """The event types that take their item off the user's list."""
    report = ingest_report(ingest) if (ingest / REPORT_FILE).exists() else {}
    types: list[str] = report.get("excluding", sorted(STANDARD.excluding))
    return types
