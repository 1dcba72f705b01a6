"""Recognises what stands between the fields of a CSV file. It knows nothing of what columns mean."""

import csv
from collections.abc import Sequence
from pathlib import Path

from isrf.contract.errors import DataError
from isrf.contract.shown import shown

CANDIDATES = {",": "commas", ";": "semicolons", "\t": "tabs"}
NUM_LINES = 50
"""Lines below the header that are looked at."""


def separator_name(separator: str) -> str:
    """For people: `commas`."""
    return CANDIDATES.get(separator, shown(separator))


def recognise_separator(path: Path, header: str, lines: Sequence[str], setting: str = "auto") -> str:
    """What separates the fields of the header and of the first lines; a comma where there is one field only.

    Args:
        path: for the message.
        header: the first line.
        lines: lines below it.
        setting: `auto`, or the separator.

    Raises:
        DataError: `data.separator`, several separators fit equally well.
    """
    if setting != "auto":
        return setting
    widths = {separator: len(split_fields(header, separator) or ()) for separator in CANDIDATES}
    wide = [separator for separator, width in widths.items() if width > 1]
    if len(wide) < 2:
        return wide[0] if wide else ","
    fitting = {
        separator: sum(len(split_fields(line, separator) or ()) == widths[separator] for line in lines[:NUM_LINES])
        for separator in wide
    }
    best = max(fitting.values())
    chosen = [separator for separator, count in fitting.items() if count == best]
    if len(chosen) > 1:
        raise DataError(
            "data.separator",
            f"{path}: its fields may be separated by {' or '.join(map(separator_name, chosen))}: {shown(header)}.",
            fix=f"Name the separator: {' or '.join(map(_option, chosen))}.",
        )
    return chosen[0]


def _option(separator: str) -> str:
    return f"--set ingest.separator={'tab' if separator == chr(9) else repr(separator)}"


def split_fields(line: str, separator: str) -> list[str] | None:
    """The fields of one line, quotes resolved; None where a quote does not close, or more follows behind one."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except (csv.Error, StopIteration):
        return None
