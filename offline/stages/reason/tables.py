"""Builds the item and user feature tables of docs/concepts/bundle.md from the reasoners' answers."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from offline.stages.reason.schemas import ItemReasoning, Origin, Step, UserReasoning

ITEM_FIELDS = ("positive", "negative", "feature", "justification")
USER_FIELDS = ("likes", "dislikes", "core")


def item_table(answers: Sequence[ItemReasoning | None], origins: Origin | Sequence[Origin]) -> pl.DataFrame:
    """Returns item_index i32, `ITEM_FIELDS` and origin, row = item_index; all null where there is no answer."""
    return _table("item_index", ITEM_FIELDS, answers, origins)


def user_table(answers: Sequence[UserReasoning | None], origins: Origin | Sequence[Origin]) -> pl.DataFrame:
    """Returns user_index i32, `USER_FIELDS` and origin, row = user_index; all null where there is no answer."""
    return _table("user_index", USER_FIELDS, answers, origins)


def describe_tables(items: pl.DataFrame, users: pl.DataFrame) -> dict[str, Any]:
    """Counts the rows by origin and the rows without an answer, for the report."""

    def count(table: pl.DataFrame) -> dict[str, int]:
        origins = table["origin"].drop_nulls().value_counts().sort("origin")
        by_origin: dict[str, int] = dict(origins.iter_rows())
        return by_origin | {"rows": table.height, "unanswered": int(table["origin"].null_count())}

    return {"items": count(items), "users": count(users)}


def _table(
    index: str, fields: tuple[str, ...], answers: Sequence[Step | None], origins: Origin | Sequence[Origin]
) -> pl.DataFrame:
    of_row = [origins] * len(answers) if isinstance(origins, str) else origins
    columns: dict[str, list[str | None]] = {
        field: [getattr(answer, field) if answer else None for answer in answers] for field in fields
    }
    columns["origin"] = [origin if answer else None for answer, origin in zip(answers, of_row, strict=True)]
    table = pl.DataFrame(columns, schema=dict.fromkeys((*fields, "origin"), pl.String))
    return table.with_row_index(index).with_columns(pl.col(index).cast(pl.Int32))
