"""Numbers of rows: the line in its file, and which part of a folder of parts it stands in, in one whole number."""

from collections.abc import Sequence

_PART = 1 << 40
"""More than the lines that a file can have."""


def first_line(part: int) -> int:
    """What to add to a line number in the part of this number, from 0."""
    return part * _PART


def line_number(line: int) -> int:
    """The line in its file, from 1."""
    return line % _PART


def line_text(line: int, parts: Sequence[str] = ()) -> str:
    """For messages: `line 7`, or `part-0001.csv line 7` where there are parts.

    Args:
        line: as in the tables of this package.
        parts: names of the parts; empty for a single file.
    """
    return f"{parts[line // _PART]} line {line_number(line)}" if parts else f"line {line_number(line)}"
