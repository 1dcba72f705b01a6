"""Finds our columns among a table's own: by name, in any case, or as `--column ours=theirs` names them.

Nothing is guessed: a name that may mean a column of ours leads to an error or a question with the option to write. It
knows no file.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from isrf.contract.errors import DataError
from isrf.contract.shown import printable, shown
from offline.reading.names import near_miss, option

_NAMED = 12


class Columns(NamedTuple):
    """What a table's columns mean.

    Attributes:
        ours: our name → place among the table's columns, from 0.
        others: the table's name → place, of columns that are not ours, without unnamed ones.
        header: the table's names, trimmed.
        questions: our optional column → the table's names that may mean it.
    """

    ours: dict[str, int]
    others: dict[str, int]
    header: tuple[str, ...]
    questions: dict[str, list[str]]

    def as_json(self) -> dict[str, Any]:
        """For `report.json`."""
        return {
            "columns": {name: self.header[place] for name, place in self.ours.items()},
            "other_columns": list(self.others),
            "questions": {name: [option(name, theirs) for theirs in names] for name, names in self.questions.items()},
        }


class Wanted(NamedTuple):
    """The columns of ours that a table of one kind may have.

    Attributes:
        known: our names.
        required: those that a table needs.
        names: other names for each of ours (`offline.reading.names`).
        order: of these at least one is needed; empty where none is.
    """

    known: Sequence[str]
    required: Sequence[str]
    names: Mapping[str, Collection[str]]
    order: Sequence[str] = ()


def find_columns(
    where: str, header: Sequence[str], wanted: Wanted, mapping: Mapping[str, Sequence[str]] | None = None
) -> Columns:
    """Finds our columns in a header.

    Args:
        where: the file, for messages.
        header: the table's own names.
        wanted: the columns of ours.
        mapping: our name → names of the shop's for it, each perhaps of another file.

    Raises:
        DataError: `data.no_header`, `data.missing_column`, `data.no_order`, `data.duplicate_column`.
    """
    names, ours = found_columns(where, header, wanted, mapping)
    plain = [name.casefold() for name in names]
    others: dict[str, int] = {}
    for place, name in enumerate(names):
        # A column of our own name that is none of `ours` was replaced by one that --column names.
        if name and place not in ours.values() and plain[place] not in ours:
            others.setdefault(name, place)
    _check_needed(where, names, ours, wanted)
    questions = {
        field: matches
        for field in wanted.known
        if field not in ours and (matches := [name for name in others if _may_mean(name, field, wanted, ours)])
    }
    return Columns(ours, others, names, questions)


def found_columns(
    where: str, header: Sequence[str], wanted: Wanted, mapping: Mapping[str, Sequence[str]] | None = None
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The trimmed names of a header, and our name → place of the columns that it has, whether all that it needs or not.

    Raises:
        DataError: `data.duplicate_column`.
    """
    names = tuple(name.strip().removeprefix("\ufeff").strip() for name in header)
    plain = [name.casefold() for name in names]
    ours: dict[str, int] = {}
    for field in wanted.known:
        mapped = {theirs.strip().casefold() for theirs in (mapping or {}).get(field, ())}
        places = [place for place, name in enumerate(plain) if name in mapped]
        places = places or [place for place, name in enumerate(plain) if name == field]
        if len(places) > 1:
            raise DataError(
                "data.duplicate_column",
                f"{where} has two columns for {field}: {' and '.join(shown(names[place]) for place in places)}.",
                fix="Keep one of them, or name the right one with --column.",
            )
        if places:
            ours[field] = places[0]
    return names, ours


def check_unique(where: str, columns: Columns) -> None:
    """Refuses a table of which two other columns have one name.

    Raises:
        DataError: `data.duplicate_column`.
    """
    taken = {columns.header[place] for place in columns.ours.values()}
    counts = Counter(name for name in columns.header if name and name not in taken)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise DataError(
            "data.duplicate_column",
            f"{where} has {counts[repeated[0]]} columns {shown(repeated[0])}.",
            fix="Keep one of them, or rename them.",
        )


def unused_mapping(mapping: Mapping[str, Sequence[str]], headers: Sequence[Sequence[str]]) -> DataError | None:
    """The error for a `--column` that names a column of no file; None where each names one."""
    present = {name.casefold() for header in headers for name in header}
    for ours, theirs in mapping.items():
        for name in theirs:
            if name.strip().casefold() not in present:
                listed = ", ".join(shown(known) for header in headers for known in header[:_NAMED])
                return DataError(
                    "data.unknown_column",
                    f"no file has a column {shown(name)}, which {option(ours, name)} names; the columns are {listed}.",
                    fix="Correct the option, or leave it out.",
                )
    return None


def _check_needed(where: str, names: Sequence[str], ours: Mapping[str, int], wanted: Wanted) -> None:
    missing = [name for name in wanted.required if name not in ours]
    no_order = bool(wanted.order) and not set(wanted.order) & set(ours)
    if not missing and not no_order:
        return
    options = [option(field, name) for field, name in possible_columns(names, ours, wanted)]
    if missing and not options and _holds_values(names):
        raise DataError(
            "data.no_header",
            f"{where} has no header: its first line holds the values {_listed(names)}.",
            fix="Write a first line with the columns' names, such as user_id,item_id,timestamp, with the separator of "
            "the file.",
        )
    hint = f" If it is one of these, add the option: {'; '.join(options)}." if options else ""
    if missing:
        raise DataError(
            "data.missing_column",
            f"{where} has no column {', '.join(missing)}; its columns are {_listed(names)}.",
            fix=f"Name the shop's own column with --column {missing[0]}=NAME.{hint}",
        )
    raise no_order_error(where, hint)


def no_order_error(where: str, hint: str = "") -> DataError:
    """The error for a table of events without an order."""
    return DataError(
        "data.no_order",
        f"{where} has neither timestamps nor positions, so the order of a user's events is unknown.",
        fix=f"Add a column `timestamp` (seconds since 1970) or `position` (rising whole numbers).{hint}",
    )


def possible_columns(names: Sequence[str], ours: Mapping[str, int], wanted: Wanted) -> list[tuple[str, str]]:
    """Our columns that a table needs and lacks, each with a name of the table's that may mean it."""
    missing = [name for name in wanted.required if name not in ours]
    if wanted.order and not set(wanted.order) & set(ours):
        missing += wanted.order
    return [
        (field, name)
        for field in missing
        for name in names
        if name.casefold() not in ours and _may_mean(name, field, wanted, ours)
    ]


def _may_mean(name: str, field: str, wanted: Wanted, ours: Mapping[str, int]) -> bool:
    return near_miss(name, [known for known in wanted.known if known not in ours], wanted.names) == field


def _holds_values(names: Sequence[str]) -> bool:
    """Whether a header looks like a row: a cell is a number."""
    return any(name.replace(".", "", 1).replace("-", "").isdigit() for name in names)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(printable(shown(name)) for name in names[:_NAMED]) + more
