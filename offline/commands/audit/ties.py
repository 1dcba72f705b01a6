"""Counts equal timestamps and measures how much their order affects a transition table's score.

The table is the simplest model of order: it recommends the items that followed the user's last item in training, most
frequent first.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isrf.method.metrics import bootstrap_difference, bootstrap_mean, ndcg, ranks_of
from isrf.method.pair_counts import count_transitions
from offline.commands.audit.findings import Finding
from offline.commands.audit.shop import AuditedShop

K = 10
SAMPLES = 500
LENGTH = 100
MANY_TIES = 0.01
"""From this share of users with tied last events on, a report should also give figures with shuffled ties."""


def table_ndcg(shop: AuditedShop) -> NDArray[np.float64]:
    """Returns the transition table's NDCG@10 per test user, without items bought before; (R,) in order of user ids.

    The order of user ids does not change with the order of ties; the row numbers do.
    """
    table = count_transitions(shop.users, shop.items, num_items=shop.num_items, window=1, length=LENGTH).lists
    lists = np.full((len(shop.test.targets), K), -1, dtype=np.int64)
    for row, (history, bought) in enumerate(zip(shop.test.histories, shop.test.bought, strict=True)):
        followers = table.indices[table.row(history[-1])]
        free = followers[~np.isin(followers, bought)][:K]
        lists[row, : len(free)] = free
    by_id = np.argsort([shop.user_ids[user] for user in shop.test.users.tolist()])
    return ndcg(ranks_of(lists, shop.test.targets), K)[by_id]


def audit_table(values: NDArray[np.float64], evaluation: dict[str, Any] | None) -> Finding:
    """Returns the finding about the table's score: a warning if the release's list scores lower.

    Args:
        values: the output of `table_ndcg`.
        evaluation: the release's evaluation on the test split; None without a release.
    """
    table_mean, low, high = bootstrap_mean(values, samples=SAMPLES, seed=0)
    text = f"NDCG@{K} {table_mean:.4f} ({low:.4f} – {high:.4f}) on {len(values)} test users, seen items excluded"
    figures: dict[str, Any] = {f"NDCG@{K}": round(table_mean, 5), f"NDCG@{K}_95": [round(low, 5), round(high, 5)]}
    if evaluation is None:
        return Finding("transition table", "note", text, figures)
    release_ndcg = float(evaluation["fused"][f"NDCG@{K}"])
    return Finding(
        "transition table",
        "warning" if release_ndcg < table_mean else "ok",
        f"{text}; the release's fused list has {release_ndcg:.4f}",
        figures | {"release": release_ndcg},
    )


def audit_ties(report: dict[str, Any]) -> Finding:
    """Returns the finding about test events with the timestamp of the event before; `report` is that of `ingest`."""
    tied = int(report["users_with_tied_last_events"])
    users = int(report["counts"]["test"]) - int(report["sessions"]["test"])
    share = tied / max(users, 1)
    return Finding(
        "ties",
        "warning" if share >= MANY_TIES else "ok",
        f"the last event of {tied} of {users} users ({share:.1%}) has the timestamp of the event before it",
        {"users": users, "tied": tied},
    )


def audit_shuffling(original: tuple[str, NDArray[np.float64]], reordered: tuple[str, NDArray[np.float64]]) -> Finding:
    """Compares the transition table's scores under two orders of ties; each comes with the name of its order."""
    (words, values), (other_words, other_values) = original, reordered
    change, low, high = bootstrap_difference(other_values, values, samples=SAMPLES, seed=0)
    matters = low > 0 or high < 0
    return Finding(
        "shuffled ties",
        "warning" if matters else "ok",
        f"the transition table's NDCG@{K} with {other_words} is {other_values.mean():.4f}, with {words} "
        f"{values.mean():.4f}: {change:+.4f} ({low:+.4f} – {high:+.4f})"
        + ("; the order inside ties changes the score: report both figures" if matters else ""),
        {words: round(float(values.mean()), 5), other_words: round(float(other_values.mean()), 5)},
    )
