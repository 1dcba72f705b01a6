"""What a replay measured: HR@10 and NDCG@10 with intervals, for all requests and by kind of request."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from isrf.method.interest import BoolArray
from isrf.method.metrics import bootstrap_by_user, hit_rate, ndcg
from offline.commands.replay.steps import Asked

CUTOFF = 10
WEEK_S = 7 * 86_400.0
LIVE_EVENTS = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5+": (5, 1 << 60)}
"""Kinds of request by how many events the user had in the replayed time before it."""


class Measured(NamedTuple):
    """Every request of a replay, in order."""

    users: NDArray[np.int64]  # (E,) a number per user
    times: NDArray[np.float64]  # (E,) seconds
    num_live: NDArray[np.int64]  # (E,)
    is_new_user: BoolArray  # (E,) the release does not know the user
    of_session: BoolArray  # (E,) of a visitor without an account
    is_new_item: BoolArray  # (E,) the release does not know the item
    has_history: BoolArray  # (E,) the request had a history to read
    ranks: NDArray[np.int64]  # (E,) of the event's item, −1 where the list lacks it

    @classmethod
    def of(cls, answers: Iterable[tuple[Asked, int]]) -> "Measured":
        numbers: dict[str, int] = {}
        rows = [
            (
                numbers.setdefault(one.event.user_id, len(numbers)),
                one.event.timestamp,
                one.num_live,
                one.is_new_user,
                one.event.of_session,
                one.is_new_item,
                bool(one.history),
                rank,
            )
            for one, rank in answers
        ]
        dtypes = (np.int64, np.float64, np.int64, *(np.bool_,) * 4, np.int64)
        columns = zip(*rows, strict=True) if rows else ((),) * len(dtypes)
        return cls(*(np.array(column, dtype=dtype) for column, dtype in zip(columns, dtypes, strict=True)))

    def kinds(self, since: float) -> Iterator[tuple[str, BoolArray]]:
        """Names of the kinds of request, and which requests are of each."""
        yield "all", np.ones(len(self.ranks), dtype=np.bool_)
        for name, (low, high) in LIVE_EVENTS.items():
            yield f"live events {name}", (self.num_live >= low) & (self.num_live <= high)
        yield "new users", self.is_new_user
        yield "sessions", self.of_session
        yield "without history", ~self.has_history
        yield "new items", self.is_new_item
        weeks = ((self.times - since) // WEEK_S).astype(np.int64)
        for week in range(int(weeks.max(initial=-1)) + 1):
            yield f"week {week + 1}", weeks == week


def describe(measured: Measured, *, since: float, samples: int, seed: int) -> dict[str, Any]:
    """By kind of request: how many, HR@10, NDCG@10 and its 95% interval over users."""
    found: dict[str, Any] = {}
    for name, which in measured.kinds(since):
        if not which.any():
            continue
        values = ndcg(measured.ranks[which], CUTOFF)
        interval = bootstrap_by_user(values, measured.users[which], samples=samples, seed=seed)
        found[name] = {
            "requests": int(which.sum()),
            "HR@10": round(float(hit_rate(measured.ranks[which], CUTOFF).mean()), 5),
            "NDCG@10": round(interval.mean, 5),
            "NDCG@10_95": [round(interval.low, 5), round(interval.high, 5)],
        }
    return found


def as_table(variants: dict[str, dict[str, Any]]) -> Table:
    """NDCG@10 by kind of request, a column per variant."""
    table = Table(title="NDCG@10 of a replay: asked before each event")
    table.add_column("requests")
    table.add_column("count", justify="right")
    for name in variants:
        table.add_column(name, justify="right")
    first = next(iter(variants.values()))
    for kind, figures in first.items():
        cells = [_cell(variant.get(kind)) for variant in variants.values()]
        table.add_row(kind, str(figures["requests"]), *cells)
    return table


def _cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "–"
    low, high = figures["NDCG@10_95"]
    return f"{figures['NDCG@10']:.4f} ({low:.4f}–{high:.4f})"
