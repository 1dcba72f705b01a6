"""Finds accounts that are no person (a till, a shared guest account, a crawler), and persons with two owners."""

from typing import Any

import numpy as np

from isrf.contract.shown import shown
from isrf.method.order import most_counted
from offline.commands.audit.findings import Finding
from offline.commands.audit.shop import AuditedShop

NUM_NAMED = 10


def audit_accounts(shop: AuditedShop) -> Finding:
    """Returns the finding about users and sessions with so many training events that only their latest count."""
    most = most_counted(len(shop.users))
    counts = np.bincount(shop.users, minlength=shop.num_users)
    large = np.flatnonzero(counts > most)
    large = large[np.argsort(-counts[large], kind="stable")]
    accounts = large[large < shop.num_users].tolist()
    num_sessions = len(large) - len(accounts)
    named = [
        f"{shown(shop.user_ids[row])} ({counts[row]:,} events, {counts[row] / len(shop.users):.1%} of all)"
        for row in accounts[:NUM_NAMED]
    ]
    text = f"{len(accounts)} users and {num_sessions} sessions have more than {most} training events"
    if len(large):
        listed = f": {', '.join(named)}{', …' if len(accounts) > NUM_NAMED else ''}" if named else ""
        text += (
            f"{listed}; only the latest {most} of each count. Is one of them a till, a shared guest account or a "
            "crawler? Write its rows with a session_id per visit and no user_id, or leave them out"
        )
    figures = {
        "most_counted": most,
        "accounts": {shop.user_ids[row]: int(counts[row]) for row in accounts},
        "sessions": num_sessions,
    }
    return Finding("large accounts", "warning" if len(large) else "ok", text, figures)


def audit_own_sessions(report: dict[str, Any]) -> Finding:
    """Returns the finding about sessions in which somebody logged in later; `report` is that of `ingest`."""
    pairs, left_out = int(report["own_sessions"]["pairs"]), int(report["own_sessions"]["left_out"])
    text = (
        f"{pairs} times a session without a user has events beside those of a user in the same session; "
        f"{left_out} of its events were kept out of training, because they show what is held out from the user"
    )
    return Finding("sessions of users", "ok", text, {"pairs": pairs, "left_out": left_out})
