"""Compiles a condition on items, and evaluates it over all rows of a catalogue. Pure.

A condition reads columns of the attribute table, and values of the request: `now`, `user.bought` and `user.disliked`,
which are true or false for each item, and `context.NAME`, which the call brings as text. Where SQL's result is NULL,
because a value is missing, the condition does not hold.
"""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from polars.exceptions import PanicException, PolarsError

from isrf.contract.errors import RequestError
from isrf.contract.item_fields import AttributeType, ColumnType
from isrf.contract.shown import printable
from isrf.method.interest import BoolArray
from service.release.conditions.attributes import DTYPES, AttributeTable
from service.release.conditions.grammar import check_text
from service.release.conditions.parts import CONTEXT, KnownNames, internal_name

NOW, BOUGHT, DISLIKED = "now", "user.bought", "user.disliked"
ANY_CONTEXT = "context.*"
REQUEST_NAMES = frozenset({NOW, BOUGHT, DISLIKED, ANY_CONTEXT})
"""The values of a request that a condition may use; `context.*` is every name that begins with `context.`."""
_REQUEST_TYPES: Mapping[str, AttributeType] = {NOW: "time", BOUGHT: "boolean", DISLIKED: "boolean"}
NOW_STEP_S = 60
"""`now` is the beginning of the minute, so that masks and answers can be cached."""


@dataclass(frozen=True, kw_only=True)
class RequestValues:
    """The values of a request that its conditions may use.

    Attributes:
        now_s: seconds.
        bought, disliked: rows of the user's items.
        context: the call's own values by name, without `context.`.
    """

    now_s: float = 0.0
    bought: frozenset[int] = frozenset()
    disliked: frozenset[int] = frozenset()
    context: Mapping[str, str] = field(default_factory=dict)

    def value(self, name: str) -> Hashable:
        """Returns what a condition reads under a name; equal values give equal masks."""
        if name == NOW:
            return self.now_s // NOW_STEP_S * NOW_STEP_S
        if name in (BOUGHT, DISLIKED):
            return self.bought if name == BOUGHT else self.disliked
        return self.context.get(name.removeprefix(CONTEXT))


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """A compiled condition; threads may share it.

    Attributes:
        names: what it reads; the position of a name is its number in the expression.
        reads: the names among them that are values of the request.
        types: of the columns that it reads.
    """

    text: str
    expression: pl.Expr = field(repr=False)
    names: tuple[str, ...]
    reads: tuple[str, ...]
    types: Mapping[str, AttributeType]

    def values_key(self, values: RequestValues) -> tuple[Hashable, ...]:
        """Returns the values that it reads: equal ones give equal masks of one catalogue."""
        return tuple(values.value(name) for name in self.reads)

    def mask(self, table: AttributeTable, values: RequestValues) -> BoolArray:
        """(N,) bool: the items for which it holds. It takes up to some milliseconds: run it in a thread.

        Raises:
            RequestError: `condition.invalid`, the table does not have its columns with their types.
        """
        for name, kind in self.types.items():
            found = table.types.get(name)
            if found is None or found.type != kind:
                what = "does not exist any more" if found is None else f"is a {found.type} now, not a {kind}"
                raise RequestError("condition.invalid", f"the attribute {printable(name)} {what}.", fix="Change it.")
        columns: list[pl.Series] = []
        for number, name in enumerate(self.names):
            column = table.columns[name] if name in self.types else _request_column(name, values, len(table))
            columns.append(column.alias(internal_name(number)))
        found_rows = _evaluated(self.expression, columns, self.text)
        if len(found_rows) != len(table):
            # It reads no column at all.
            return np.full(len(table), bool(found_rows[0]), dtype=np.bool_)
        return found_rows.to_numpy()


def compile_condition(
    text: str, columns: Mapping[str, ColumnType], names: Collection[str] = REQUEST_NAMES
) -> Condition:
    """Compiles a condition.

    Args:
        text: what an SQL WHERE clause holds.
        columns: types of the catalogue's columns (`AttributeTable.types`).
        names: the values of the request that it may use, of `REQUEST_NAMES` and `context.NAME`; with `CONTEXT` alone,
            the call could have brought values.

    Raises:
        RequestError: `condition.invalid`, with the place and what to do.
    """
    allowed = {name: _REQUEST_TYPES.get(name, "text") for name in names if name not in (ANY_CONTEXT, CONTEXT)}
    of_columns = {name: column.type for name, column in columns.items()}
    known = KnownNames(
        types={**of_columns, **allowed},
        has_context=any(name.startswith(CONTEXT) for name in names),
        any_context=ANY_CONTEXT in names,
    )
    checked = check_text(text, known)
    try:
        expression = pl.sql_expr(checked.sql)
    except (PolarsError, PanicException) as error:
        raise _refusal(text, error) from None
    types = {name: of_columns[name] for name in checked.names if name in of_columns and name not in allowed}
    every: Mapping[str, AttributeType] = {**allowed, **types}
    empty = [
        pl.Series(internal_name(number), [], dtype=DTYPES[every.get(name, "text")])
        for number, name in enumerate(checked.names)
    ]
    _evaluated(expression, empty, text)
    return Condition(
        text=text,
        expression=expression,
        names=checked.names,
        reads=tuple(name for name in checked.names if name not in types),
        types=types,
    )


def _request_column(name: str, values: RequestValues, num_rows: int) -> pl.Series:
    if name in (BOUGHT, DISLIKED):
        rows = values.bought if name == BOUGHT else values.disliked
        mask = np.zeros(num_rows, dtype=np.bool_)
        mask[[row for row in rows if 0 <= row < num_rows]] = True
        return pl.Series(mask)
    value: Any = values.value(name)
    if name == NOW:
        value = datetime.fromtimestamp(value, UTC).replace(tzinfo=None)
    return pl.Series([value], dtype=DTYPES[_REQUEST_TYPES.get(name, "text")]).new_from_index(0, num_rows)


def _evaluated(expression: pl.Expr, columns: list[pl.Series], text: str) -> pl.Series:
    """Returns where the expression is true, without NULL; of one row where there are no columns."""
    try:
        result = pl.DataFrame(columns).select(expression.fill_null(value=False)).to_series()
    except (PolarsError, PanicException) as error:
        raise _refusal(text, error) from None
    if result.dtype != pl.Boolean:
        raise RequestError("condition.invalid", "the condition is not true or false.", fix="Compare an attribute.")
    return result


def _refusal(text: str, error: BaseException) -> RequestError:
    """Returns the refusal of what the checks before found right, such as a regular expression without its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith("error:")), lines[0] if lines else "no reason")
    message = f"the condition {printable(text)} cannot be evaluated: {printable(reason.removeprefix('error: '), 120)}."
    return RequestError("condition.invalid", message, fix="Check its patterns and values.")
