"""Defines the audit's findings, each with a verdict, and prints them as a table or as JSON."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from rich.table import Table
from rich.text import Text

FindingVerdict = Literal["ok", "note", "warning", "leak"]
_STYLES: dict[FindingVerdict, str] = {"ok": "green", "note": "dim", "warning": "yellow", "leak": "bold red"}


class Finding(NamedTuple):
    """One line of the audit.

    Attributes:
        line: stable name; callers may match on it.
        verdict: `leak` if held-out interactions reach training; `warning` if the figures need care; `note` if the
            audit does not judge.
        text: what the check found and what it compares this with.
        figures: the numbers behind the sentence.
    """

    line: str
    verdict: FindingVerdict
    text: str
    figures: dict[str, Any]


def has_leak(findings: Sequence[Finding]) -> bool:
    """Returns whether any finding is a leak."""
    return any(finding.verdict == "leak" for finding in findings)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Returns the findings for machines, as JSON data."""
    return {"leak": has_leak(findings), "findings": [finding._asdict() for finding in findings]}


def as_table(findings: Sequence[Finding]) -> Table:
    """Returns the findings for people, as a table."""
    table = Table("line", "verdict", "finding", show_lines=True)
    for finding in findings:
        table.add_row(finding.line, Text(finding.verdict, style=_STYLES[finding.verdict]), Text(finding.text))
    return table
