"""What a shop's file was read as: said at the end of a run, kept in `report.json`, and shown by `inspect`."""

from typing import Any, NamedTuple

from isrf.contract.shown import printable, shown
from offline.reading.columns import Columns
from offline.reading.names import option
from offline.reading.separators import separator_name
from offline.reading.text_table import TextPart

ADDRESSES = (
    "some user ids look like e-mail addresses: ids are parts of URLs and of logs, so send ids that are none; "
    "offline.importers.values.person_id makes one of an address"
)
_NAMED = 12


class FileNotes(NamedTuple):
    """How one file was read.

    Attributes:
        file: its name.
        format: `csv`, `jsonl` or `parquet`.
        parts: names of its parts; empty for a single file.
        columns: what its header means; None for JSON Lines.
        encodings: of its parts, each once.
        separators: of its parts, each once.
        repeated_headers: rows that repeat the header, left out.
        remarks: sentences on values.
        facts: further entries for `report.json`.
    """

    file: str
    format: str
    parts: tuple[str, ...] = ()
    columns: Columns | None = None
    encodings: tuple[str, ...] = ()
    separators: tuple[str, ...] = ()
    repeated_headers: int = 0
    remarks: tuple[str, ...] = ()
    facts: dict[str, Any] = {}  # noqa: RUF012 - a default that nobody changes

    def as_json(self) -> dict[str, Any]:
        """For `report.json`."""
        return {
            "format": self.format,
            "parts": len(self.parts) or 1,
            "encodings": list(self.encodings),
            "separators": list(self.separators),
            "repeated_headers": self.repeated_headers,
            "remarks": list(self.remarks),
            **({} if self.columns is None else self.columns.as_json()),
            **self.facts,
        }

    def describe(self, *, others: str) -> list[str]:
        """Sentences for people.

        Args:
            others: what happens to columns that are not ours: `ignored`, or `attributes`.
        """
        how = [*(self.encodings and [" and ".join(self.encodings)])]
        how += [f"separated by {' and '.join(map(separator_name, self.separators))}"] if self.separators else []
        how += [f"{len(self.parts)} parts"] if self.parts else []
        sentences = [f"read as {', '.join(how)}"] if how else []
        if self.columns is not None:
            renamed = [
                f"{name} from {shown(self.columns.header[place])}"
                for name, place in self.columns.ours.items()
                if self.columns.header[place] != name
            ]
            sentences += [f"columns: {', '.join(renamed)}"] if renamed else []
            ignored = [printable(name) for name in self.columns.others]
            if ignored and others == "ignored":
                more = f" and {len(ignored) - _NAMED} more" if len(ignored) > _NAMED else ""
                sentences.append(f"columns that are not used: {', '.join(ignored[:_NAMED])}{more}")
            if others == "ignored":
                sentences += [
                    f"{shown(theirs)} may be meant as {name}: {option(name, theirs)}"
                    for name, names in self.columns.questions.items()
                    for theirs in names
                ]
        if self.repeated_headers:
            sentences.append(f"{self.repeated_headers} rows repeat the header and were left out")
        return [*sentences, *self.remarks]


def notes_of_text(file: str, names: tuple[str, ...], parts: list[TextPart], **more: Any) -> FileNotes:
    """The notes of a CSV file whose parts were read to their end."""
    return FileNotes(
        file,
        "csv",
        names,
        parts[0].columns,
        tuple(dict.fromkeys(part.encoding.describe() for part in parts)),
        tuple(dict.fromkeys(part.separator for part in parts)),
        sum(len(part.repeated_headers) for part in parts),
        **more,
    )
