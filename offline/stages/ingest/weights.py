"""Weighs events: the weight of an event's type, from `[events]`, times the weight of its row in the shop's file.

What a weight counts for is said in docs/concepts/evidence.md. It knows no histories: a row that repeats another is left
out before, and the order of events does not depend on weights.
"""

from collections.abc import Mapping

import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.event_types import DISLIKE, MAX_WEIGHT, MIN_WEIGHT, REMOVE, EventVocabulary
from isrf.contract.shown import shown
from offline.stages.ingest.parts.spool import Spool

_COUNTED = ~pl.col("event").is_in([DISLIKE, REMOVE])
_NAMED = 5


def rows_by_type(interactions: Spool) -> pl.DataFrame:
    """How many rows each type and weight of the file has: `event`, `weight`, `rows`, in that order."""
    counts = interactions.gather(
        lambda part: part.group_by("event", "weight").agg(pl.len().cast(pl.Int64).alias("rows"))
    )
    return counts.group_by("event", "weight").agg(pl.col("rows").sum()).sort("event", "weight")


def type_weights(counts: pl.DataFrame, vocabulary: EventVocabulary) -> dict[str, float]:
    """The weight of each event type that counts, by type, in alphabetical order; `counts` as of `rows_by_type`."""
    types = counts.filter(_COUNTED)["event"].unique().sort().to_list()
    return {kind: vocabulary.weight(kind) for kind in types}


def weighed(events: pl.DataFrame, weights: Mapping[str, float]) -> pl.DataFrame:
    """The events with `weight` as it counts: 0 for a type of weight 0, else from `MIN_WEIGHT` to `MAX_WEIGHT`.

    Args:
        events: `event`, and the file's `weight`.
        weights: of the types (`type_weights`).
    """
    return events.with_columns(_product(weights).alias("weight"))


def check_weights(counts: pl.DataFrame) -> None:
    """Checks that some event counts.

    Args:
        counts: of training events, as `rows_by_type` returns them, with the weights of `weighed`.

    Raises:
        DataError: `data.no_weight`.
    """
    if counts.height and not (counts["weight"] > 0).any():
        types = counts["event"].unique().sort().to_list()
        num_events = counts["rows"].sum()
        raise DataError(
            "data.no_weight",
            f"all {num_events} training events have the weight 0; their types are "
            f"{', '.join(map(shown, types[:_NAMED]))}{', …' if len(types) > _NAMED else ''}.",
            fix="Give one of these types a weight above 0 in [events.weights].",
        )


def describe_weights(counts: pl.DataFrame, vocabulary: EventVocabulary) -> list[str]:
    """Sentences for people on weights that do nothing, or less than the shop may think; empty where there are none.

    Args:
        counts: as `rows_by_type` returns them, with the file's weights.
        vocabulary: with the weights of the types.
    """
    counted = counts.filter(_COUNTED)
    weights = type_weights(counts, vocabulary)
    numbers: dict[str, int] = dict(counted.group_by("event").agg(pl.col("rows").sum()).iter_rows())
    silent = [f"{shown(kind)} ({numbers[kind]} rows)" for kind, weight in weights.items() if weight == 0]
    absent = [name for name in vocabulary.weights if vocabulary.read(name) not in weights]
    product = _product(weights, bounded=False)
    above, below = (
        counted.filter(outside)["rows"].sum()
        for outside in (product > MAX_WEIGHT, (product > 0) & (product < MIN_WEIGHT))
    )
    values = counted["weight"].unique().head(2).to_list()
    found = [f"types of weight 0 teach nothing but their user's history: {', '.join(silent)}"] * bool(silent)
    found += [f"[events.weights] names {shown(name)}, a type that no row has" for name in absent]
    found += [f"{above} rows weigh more than {MAX_WEIGHT:g} and count as {MAX_WEIGHT:g}"] * (above > 0)
    found += [f"{below} rows weigh less than {MIN_WEIGHT:g} and count as {MIN_WEIGHT:g}"] * (below > 0)
    if len(values) == 1 and values[0] != 1:
        found.append(
            f"the column weight has the value {values[0]:g} in every row: it makes no difference between them, but "
            "live events weigh 1 beside it. Leave the column out if it is not meant so"
        )
    return found


def _product(weights: Mapping[str, float], *, bounded: bool = True) -> pl.Expr:
    of_type = pl.col("event").replace_strict(list(weights), list(weights.values()), return_dtype=pl.Float64)
    product = of_type * pl.col("weight")
    return pl.when(of_type == 0).then(0.0).otherwise(product.clip(MIN_WEIGHT, MAX_WEIGHT)) if bounded else product
