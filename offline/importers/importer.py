"""What an importer is, and the records that it yields. `offline.importers.folder` checks and writes them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

from offline.importers.report import ImportReport


class ImportedItem(NamedTuple):
    """A row of the catalogue.

    Attributes:
        line: where it stands (`offline.reading.lines`).
        fields: `item_id` and other fields as in a line of `items.jsonl`; those that are not ours are attributes.
    """

    line: int
    fields: dict[str, Any]


class ImportedEvent(NamedTuple):
    """A row of the interactions.

    Attributes:
        line: where it stands.
        item_id: the shop's id.
        timestamp: seconds since 1970.
        event: an event type of the contract, or the shop's own.
        user_id: the account; "" for a visitor without one.
        session_id: the visit; "" where the source has none. One of the two ids is needed.
        weight: pieces; above 0.
    """

    line: int
    item_id: str
    timestamp: float
    event: str
    user_id: str = ""
    session_id: str = ""
    weight: float = 1.0


Imported: TypeAlias = ImportedItem | ImportedEvent


class Importer(Protocol):
    """Reads the files of one shop system.

    Attributes:
        name: what the command line calls it, such as `shopify`.
        description: one line on what it makes.
        reads: one line on which files it takes.
    """

    name: str
    description: str
    reads: str

    def read(self, files: Sequence[Path], report: ImportReport) -> Iterator[Imported]:
        """Yields the records of all files.

        A value that cannot be read is given to `report.refuse`, a row that is left out on purpose to
        `report.leave_out`. Nothing is guessed.

        Raises:
            DataError: a file is none that it reads.
        """
        ...
