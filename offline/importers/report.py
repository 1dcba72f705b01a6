"""What an import read, could not read, and left out: counted by kind, with the first lines and values."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from isrf.contract.shown import printable, shown
from offline.reading.bad_rows import BadRows
from offline.reading.lines import line_text

MAX_REASONS = 1000
"""More different reasons are counted as one: a source may hold any number of event names."""
NUM_REASONS_NAMED = 20
CAME_BACK = "are purchases that came back"
"""Of all importers: such rows are no purchase, and no `remove`, which would take back earlier purchases too."""
_OTHERS = "of other kinds"


class ImportReport:
    """The report of one import.

    Attributes:
        bad_rows: rows that could not be read; too many of them refuse the import.
        num_rows: rows that were read, whatever became of them. Importers count them.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        names = [path.name for path in files]
        self._parts = names if len(names) > 1 else []
        self._right: dict[str, str] = {}
        self.bad_rows = BadRows(", ".join(map(printable, names)), self._parts, self._right)
        self.num_rows = 0
        self._left_out: dict[str, tuple[int, int]] = {}  # reason → rows, the first line
        self._notes: dict[str, None] = {}

    def refuse(self, kind: str, line: int, value: str, *, right: str) -> None:
        """Counts a row that cannot be read.

        Args:
            kind: a stable name, such as `bad_price`.
            line: as `offline.reading.lines` numbers it.
            value: what stands there, as a message may show it (`isrf.contract.shown`); nothing personal.
            right: what would be right.
        """
        self._right.setdefault(kind, right)
        self.bad_rows.add(kind, [line], [value])

    def leave_out(self, reason: str, line: int, *, rows: int = 1) -> None:
        """Counts rows that are left out on purpose, such as those of cancelled orders."""
        if reason not in self._left_out and len(self._left_out) >= MAX_REASONS:
            reason = _OTHERS
        count, first = self._left_out.get(reason, (0, line))
        self._left_out[reason] = count + rows, first

    def note(self, sentence: str) -> None:
        """Adds a sentence on how the files were read; once, however often it is called."""
        self._notes[sentence] = None

    def note_unknown_items(self, named: Mapping[str, tuple[int, int]]) -> None:
        """Says how to train with events of items that the catalogue lacks, as sold products that are deleted since.

        Args:
            named: item_id → number of events, the first one's line.
        """
        if named:
            item_id, (_, line) = next(iter(named.items()))
            total = sum(count for count, _ in named.values())
            self.note(
                f"{total} interactions are of {len(named)} items that the catalogue lacks (first: "
                f"{line_text(line, self._parts)}, {shown(item_id)}): give inspect and run --unknown-items drop or "
                "--unknown-items create"
            )

    def describe(self) -> list[str]:
        """Sentences for people."""
        counted = sorted(self._left_out.items(), key=lambda entry: -entry[1][0])
        sentences = [
            f"left out: {count} rows {printable(reason, 120)} (first: {line_text(line, self._parts)})"
            for reason, (count, line) in counted[:NUM_REASONS_NAMED]
        ]
        if len(counted) > NUM_REASONS_NAMED:
            more = sum(count for _, (count, _) in counted[NUM_REASONS_NAMED:])
            sentences.append(f"left out: {more} rows for {len(counted) - NUM_REASONS_NAMED} more reasons")
        if len(self.bad_rows):
            sentences.append(f"{len(self.bad_rows)} rows could not be read: {self.bad_rows.describe()}")
        return [*self._notes, *sentences]
