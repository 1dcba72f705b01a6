"""OpenSearch's User Behavior Insights: the documents of the index `ubi_events`, as JSON Lines.

What a visitor did keeps the name that the shop gave it (`action_name`). An event with a `user_id` is that user's; one
without is a visit's: `session_id`, or the browser (`client_id`) where there is none.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isrf.contract.event_types import problem
from isrf.contract.shown import shown
from offline.importers.importer import Imported, ImportedEvent
from offline.importers.report import ImportReport
from offline.importers.rows import json_rows
from offline.importers.seen_items import SeenItems
from offline.importers.values import RIGHT_ID, is_no_id, plain_id, read_epoch, read_moment

SHOWN_ONLY = ("impression", "hover")
"""Words in the names of actions that say what a page showed, not what a visitor chose."""
_MILLISECONDS = 12
"""A number with at least so many digits is milliseconds: as seconds it would lie after the year 5000."""


class OpenSearchUbi:
    """Reads the events of User Behavior Insights."""

    name = "opensearch-ubi"
    description = "events from OpenSearch's User Behavior Insights"
    reads = "JSON Lines of the index ubi_events, the documents or the hits around them; also with .gz"

    def read(self, files: Sequence[Path], report: ImportReport) -> Iterator[Imported]:
        items = SeenItems()
        for part, path in enumerate(files):
            for line, record in json_rows(path, part, report):
                source = record.get("_source")
                event = _event(line, source if isinstance(source, Mapping) else record, items, report)
                if event is not None:
                    yield event
        yield from items


def _event(line: int, record: Mapping[str, Any], items: SeenItems, report: ImportReport) -> ImportedEvent | None:
    action = plain_id(record.get("action_name"))
    attributes = _mapping(record.get("event_attributes"))
    thing = _mapping(attributes.get("object"))
    item_id = plain_id(thing.get("object_id"))
    if not action or problem(action):
        right = "a name of the action, such as click or add_to_cart"
        report.refuse("bad_event", line, shown(record.get("action_name")), right=right)
        return None
    if not item_id:
        report.leave_out(f"are actions {shown(action)} without an object", line)
        return None
    if any(word in action.casefold() for word in SHOWN_ONLY):
        report.leave_out(f"are actions {shown(action)}, which only show an object", line)
        return None
    moment = _moment(record.get("timestamp"))
    if moment is None:
        right = "a moment in ISO 8601, or seconds or milliseconds since 1970"
        report.refuse("bad_timestamp", line, shown(record.get("timestamp")), right=right)
        return None
    if is_no_id(record.get("user_id")):
        report.refuse("bad_user_id", line, type(record["user_id"]).__name__, right=RIGHT_ID)
        return None
    user_id = plain_id(record.get("user_id"))
    sessions = map(plain_id, (record.get("session_id"), attributes.get("session_id"), record.get("client_id")))
    session_id = next(filter(None, sessions), "")
    if not user_id and not session_id:
        report.leave_out("are events without a user and without a session", line)
        return None
    items.add(line, item_id, title=plain_id(thing.get("name")) or plain_id(thing.get("description")))
    return ImportedEvent(line, item_id, moment, action, user_id, session_id)


def _moment(value: Any) -> float | None:
    text = plain_id(value)
    if text.isascii() and text.isdigit():
        return read_epoch(text, 1e3 if len(text) >= _MILLISECONDS else 1.0)
    return read_moment(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
