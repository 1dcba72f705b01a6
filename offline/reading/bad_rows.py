"""Collects rows that cannot be used: counts them by kind, and keeps the first lines of each kind with their values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isrf.contract.errors import DataError
from isrf.contract.event_types import MAX_BYTES
from isrf.contract.ids import SESSION_PREFIX
from isrf.contract.item_fields import MAX_ID_BYTES, RIGHT
from offline.reading.lines import line_number, line_text

NUM_LINES_NAMED = 10
NUM_LINES_IN_MESSAGE = 5

_ID = f"1 to {MAX_ID_BYTES} bytes without control characters"
_OF_INTERACTIONS = {
    "missing_user_id": f"{_ID}; of a guest a session instead, such as the order's number: --column session_id=NAME",
    "bad_user_id": f"{_ID}, not beginning with {SESSION_PREFIX}",
    "bad_session_id": _ID,
    "bad_timestamp": "seconds since 1970, not negative, such as 1700000000, or milliseconds, or ISO 8601 such as "
    "2024-05-01T12:00:00Z, the same in the whole column; other forms with --time-format",
    "bad_position": "a whole number, such as 7",
    "bad_event": f"a name of at most {MAX_BYTES} bytes without control characters, such as purchase; empty, not nan or "
    "null, for a purchase",
    "bad_weight": "a number above 0, such as 1.5; empty for 1",
    "malformed_row": "as many fields as the header has, with one separator in the whole file, quotes doubled inside "
    "quotes",
    "item_refused": "an item whose own row in the catalogue can be read: see the other file's bad rows",
}
_OF_ANY_FILE = {
    "not_utf8": "text in UTF-8; another encoding with --set ingest.encoding=cp1252",
    "malformed_json": "one JSON object a line, without NaN",
    "duplicate_name": "every name once in an object",
    "duplicate_item": "one row for an item; of several that differ the one that says most is kept",
}


_OPTIONS = {
    "bad_price": "with a comma before the decimals: --decimal-comma",
    "bad_categories": "in CSV a JSON list or a path such as Kitchen > Cups; other separators with --category-separator",
    "bad_available": "in CSV also 1, 0, yes, no, in stock, out of stock",
    "bad_hidden": "in CSV also 1, 0, yes, no",
}
"""What a file may hold in addition, for kinds of `RIGHT`."""


def right_of(kind: str) -> str:
    """A description of valid values, for a kind of bad row."""
    own = _OF_INTERACTIONS.get(kind) or _OF_ANY_FILE.get(kind)
    return own or "; ".join(filter(None, (RIGHT[kind.split("_", 1)[1]], _OPTIONS.get(kind))))


class BadRows:
    """The bad rows of one file.

    A row is counted once, under the first kind that applies. Line numbers start at 1; for Parquet they are row numbers
    from 1. In a folder of parts each line is one of its part (`offline.reading.lines`). `right` says what would be
    valid for kinds that `right_of` does not know, or means otherwise.
    """

    def __init__(self, file: str, parts: Sequence[str] = (), right: Mapping[str, str] | None = None) -> None:
        self.file = file
        self.parts = parts
        self._right = {} if right is None else right
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[tuple[int, str]]] = {}

    def add(self, kind: str, lines: Sequence[int], values: Sequence[str] = ()) -> None:
        """Adds rows of one kind; without lines it does nothing.

        Args:
            kind: a stable name that `right_of` or `right` knows.
            lines: the rows' line numbers.
            values: the values of the first rows, as a message may show them; "" where there is nothing to show.
        """
        if not lines:
            return
        self._counts[kind] = self._counts.get(kind, 0) + len(lines)
        padded = [*values[:NUM_LINES_NAMED], *[""] * NUM_LINES_NAMED]
        first = [*self._first.get(kind, []), *zip(lines[:NUM_LINES_NAMED], padded, strict=False)]
        self._first[kind] = sorted(first)[:NUM_LINES_NAMED]

    def __len__(self) -> int:
        return sum(self._counts.values())

    def as_json(self) -> dict[str, Any]:
        """For `report.json`: per kind the number of rows, the first lines and values, and what would be valid."""
        return {
            kind: {
                "rows": self._counts[kind],
                "lines": [line_number(line) for line, _ in self._first[kind]],
                **({"places": [line_text(line, self.parts) for line, _ in self._first[kind]]} if self.parts else {}),
                "values": [value for _, value in self._first[kind]],
                "right": self._right_of(kind),
            }
            for kind in sorted(self._counts)
        }

    def describe(self) -> str:
        """One line for people: which kinds of bad rows were found in which lines, and what would be valid."""
        return "; ".join(
            f"{kind} {count} ({self._places(kind, NUM_LINES_IN_MESSAGE)}; right: {self._right_of(kind)})"
            for kind, count in sorted(self._counts.items())
        )

    def check(self, num_rows: int, max_share: float) -> None:
        """Refuses the file if more than `max_share` of its rows are bad.

        Raises:
            DataError: `data.too_many_bad_rows`, with kinds, lines and values.
        """
        if len(self) > max_share * num_rows:
            enough = math.ceil(len(self) / num_rows * 1000) / 1000
            leave_out = f", or leave them out with --max-bad-rows {enough:g}" if len(self) < num_rows else ""
            raise DataError(
                "data.too_many_bad_rows",
                f"{self.file}: {len(self)} of {num_rows} rows cannot be used, more than the allowed share of "
                f"{max_share:g}: {self.describe()}.",
                fix=f"Correct these rows{leave_out}.",
            )

    def _right_of(self, kind: str) -> str:
        return self._right.get(kind) or right_of(kind)

    def _places(self, kind: str, limit: int) -> str:
        first = self._first[kind][:limit]
        places = [(line_text(line, self.parts), value) for line, value in first]
        named = ", ".join(f"{place}: {value}" if value else place for place, value in places)
        return f"{named}{', …' if self._counts[kind] > len(first) else ''}"
