"""Formats figures with 95% intervals for a benchmark's table and JSON line."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from isrf.method.metrics import Interval

DIGITS = 5


def rounded(interval: Interval) -> list[float]:
    """Returns mean, low and high, rounded."""
    return [round(value, DIGITS) for value in interval]


def show(rows: Mapping[str, Mapping[str, object]], columns: Mapping[str, str], title: str) -> None:
    """Prints a table with one row per name; `columns` maps a heading to a key of the row."""
    table = Table("", *columns, title=title, title_justify="left")
    for name, row in rows.items():
        table.add_row(name, *(_cell(row.get(key, "")) for key in columns.values()))
    Console(width=150).print(table)


def _cell(figure: object) -> str:
    if not (isinstance(figure, list) and len(figure) == 3):
        return str(figure)
    mean, low, high = figure
    return f"{mean:+.4f} ({low:+.4f} … {high:+.4f})" if low < 0 or mean < 0 else f"{mean:.4f} ({low:.4f} … {high:.4f})"
