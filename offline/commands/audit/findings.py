"""What the audit says: one finding a line, with a verdict, and the whole as a table or as JSON."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from rich.table import Table
from rich.text import Text

FindingVerdict = Literal["ok", "note", "warning", "leak"]
_STYLES: dict[FindingVerdict, str] = {"ok": "green", "note": "dim", "warning": "yellow", "leak": "bold red"}


class Finding(NamedTuple):
    """One line of the audit.

    Attributes:
        line: stable name, callers may match on it.
        verdict: `leak` where held-out interactions reach what they must not; `warning` where figures need care; `note`
            where nothing is judged.
        text: what was found, against what it was held.
        figures: the numbers behind the sentence.
    """

    line: str
    verdict: FindingVerdict
    text: str
    figures: dict[str, Any]


def has_leak(findings: Sequence[Finding]) -> bool:
    """Whether any line is a leak."""
    return any(finding.verdict == "leak" for finding in findings)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The audit for machines."""
    return {"leak": has_leak(findings), "findings": [finding._asdict() for finding in findings]}


def as_table(findings: Sequence[Finding]) -> Table:
    """The audit for people."""
    table = Table("line", "verdict", "what was found", show_lines=True)
    for finding in findings:
        table.add_row(finding.line, Text(finding.verdict, style=_STYLES[finding.verdict]), Text(finding.text))
    return table
