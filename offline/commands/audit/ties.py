"""Ties of time, and a last-item transition table: how much of a figure the order inside a tie may be.

The table is the smallest honest model of order: what followed the last item in training, most frequent first.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isrf.method.evidence import transition_lists
from isrf.method.metrics import bootstrap_difference, bootstrap_mean, ndcg, ranks_of
from offline.commands.audit.findings import Finding
from offline.commands.audit.shop import AuditedShop

K = 10
SAMPLES = 500
LENGTH = 100
MANY_TIES = 0.01
"""Share of users with tied last events from which on figures need a shuffled column."""


def table_ndcg(shop: AuditedShop) -> NDArray[np.float64]:
    """NDCG@10 of the transition table for every test user, items bought before excluded; (R,) in the order of user ids.

    Row numbers of users change with the order of ties, their ids do not.
    """
    table = transition_lists(shop.users, shop.items, num_items=shop.num_items, window=1, length=LENGTH)
    lists = np.full((len(shop.test.targets), K), -1, dtype=np.int64)
    for row, (history, bought) in enumerate(zip(shop.test.histories, shop.test.bought, strict=True)):
        followers = table.indices[table.row(history[-1])]
        free = followers[~np.isin(followers, bought)][:K]
        lists[row, : len(free)] = free
    by_id = np.argsort([shop.user_ids[user] for user in shop.test.users.tolist()])
    return ndcg(ranks_of(lists, shop.test.targets), K)[by_id]


def audit_table(values: NDArray[np.float64], evaluation: dict[str, Any] | None) -> Finding:
    """What the table alone scores; a warning for a release whose own list is below it.

    Args:
        values: of `table_ndcg`.
        evaluation: the release's on the test split, if there is one.
    """
    mean, low, high = bootstrap_mean(values, samples=SAMPLES, seed=0)
    text = f"NDCG@{K} {mean:.4f} ({low:.4f} – {high:.4f}) on {len(values)} test users, seen items excluded"
    figures: dict[str, Any] = {f"NDCG@{K}": round(mean, 5), f"NDCG@{K}_95": [round(low, 5), round(high, 5)]}
    if evaluation is None:
        return Finding("transition table", "note", text, figures)
    own = float(evaluation["fused"][f"NDCG@{K}"])
    return Finding(
        "transition table",
        "warning" if own < mean else "ok",
        f"{text}; the release's fused list {own:.4f}",
        figures | {"release": own},
    )


def audit_ties(report: dict[str, Any]) -> Finding:
    """How many users' test event stands at the same time as the event before it; `report` is ingest's."""
    tied, users = int(report["users_with_tied_last_events"]), int(report["counts"]["test"])
    share = tied / max(users, 1)
    return Finding(
        "ties",
        "warning" if share >= MANY_TIES else "ok",
        f"the last event of {tied} of {users} users ({share:.1%}) has the time of the one before it",
        {"users": users, "tied": tied},
    )


def audit_shuffling(as_given: tuple[str, NDArray[np.float64]], otherwise: tuple[str, NDArray[np.float64]]) -> Finding:
    """What another order of ties does to the transition table, user by user; both with the words for their order."""
    (words, values), (other_words, other_values) = as_given, otherwise
    change, low, high = bootstrap_difference(other_values, values, samples=SAMPLES, seed=0)
    matters = low > 0 or high < 0
    return Finding(
        "shuffled ties",
        "warning" if matters else "ok",
        f"the transition table's NDCG@{K} with {other_words} is {other_values.mean():.4f}, with {words} "
        f"{values.mean():.4f}: {change:+.4f} ({low:+.4f} – {high:+.4f})"
        + ("; the order inside a tie says something that time does not: report both" if matters else ""),
        {words: round(float(values.mean()), 5), other_words: round(float(other_values.mean()), 5)},
    )
