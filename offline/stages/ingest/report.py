"""What later stages read from ingest's `report.json`."""

import json
from pathlib import Path

from isrf.contract.event_types import STANDARD

REPORT_FILE = "report.json"


def excluding_types(ingest: Path) -> list[str]:
    """The event types that take their item off the user's list, as the service has it."""
    path = ingest / REPORT_FILE
    found = json.loads(path.read_text()) if path.exists() else {}
    types: list[str] = found.get("excluding", sorted(STANDARD.excluding))
    return types
