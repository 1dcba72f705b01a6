"""The account of rows that cannot be used: every one counted by kind, the first lines of each kind named."""

from collections.abc import Sequence
from typing import Any

from isrf.errors import DataError

NUM_LINES_NAMED = 10


class BadRows:
    """Bad rows of one file.

    A row is counted once, under the first kind that applies. Lines are the file's own (the first is 1); for Parquet,
    row numbers from 1.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._counts: dict[str, int] = {}
        self._lines: dict[str, list[int]] = {}

    def add(self, kind: str, lines: Sequence[int]) -> None:
        """Counts rows of one kind; no lines, no entry."""
        if not lines:
            return
        self._counts[kind] = self._counts.get(kind, 0) + len(lines)
        self._lines[kind] = sorted([*self._lines.get(kind, []), *lines])[:NUM_LINES_NAMED]

    def __len__(self) -> int:
        return sum(self._counts.values())

    def as_json(self) -> dict[str, Any]:
        """Kind → number of rows and the first lines, for `report.json`."""
        return {kind: {"rows": self._counts[kind], "lines": self._lines[kind]} for kind in sorted(self._counts)}

    def describe(self) -> str:
        """One line for people: what was found where."""
        return "; ".join(
            f"{kind} {entry['rows']} (line {', '.join(map(str, entry['lines']))}"
            f"{', …' if entry['rows'] > len(entry['lines']) else ''})"
            for kind, entry in self.as_json().items()
        )

    def check(self, num_rows: int, max_share: float) -> None:
        """Refuses the file if more than `max_share` of its rows are bad.

        Raises:
            DataError: `data.too_many_bad_rows`, with kinds and lines.
        """
        if len(self) > max_share * num_rows:
            raise DataError(
                "data.too_many_bad_rows",
                f"{self.file}: {len(self)} of {num_rows} rows cannot be used, more than the allowed share of "
                f"{max_share:g}: {self.describe()}.",
                fix="Correct these lines, or allow more with --max-bad-rows (setting ingest.max_bad_rows).",
            )
