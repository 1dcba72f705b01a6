"""Imports a journal of the previous version once: replays its events into the tables that hold their effects.

The import is one transaction of the caller, so that a process that is killed leaves the journal as it was. It deletes
rows without an effect: duplicates, which the previous version kept in the journal.
"""

import math
import sqlite3
import time

import structlog

from isrf.contract.event_log import REMEMBER_S
from service.state import payload
from service.state.sqlite.users.effects import Effects, digest_of

PAGE = 500
LOG_EVERY_S = 5.0

_log = structlog.get_logger("service")


def take_over(db: sqlite3.Connection, secret: bytes) -> None:
    """Replays the journal; raises `StoreError` (`store.journal_corrupt`) for a row that the service did not write."""
    (total,) = db.execute("SELECT count(*) FROM journal").fetchone()
    began = logged_at = time.monotonic()
    _log.info("takeover_begins", events=total)
    accepted: dict[tuple[str, int], int] = {}
    after = done = duplicates = 0
    while True:
        query = "SELECT seq, payload FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
        rows = db.execute(query, (after, PAGE)).fetchall()
        if not rows:
            break
        after = rows[-1][0]
        effects = Effects(db, secret, 0.0)
        for seq, encoded in rows:
            event = payload.decode(encoded)
            # By the rule of that version: an event id was unique for its user, for a day.
            digest = digest_of(event.event_id)
            name, at = (event.user_id, digest), int(event.accepted_at)
            if accepted.get(name, -math.inf) > at - REMEMBER_S:
                db.execute("DELETE FROM journal WHERE seq = ?", (seq,))
                duplicates += 1
                continue
            accepted[name] = at
            effects.accept(event, digest, seq)
        effects.finish()
        done += len(rows)
        if time.monotonic() - logged_at > LOG_EVERY_S:
            logged_at = time.monotonic()
            _log.info("takeover_goes_on", events=done, of=total)
    _log.info("takeover_done", events=done, duplicates=duplicates, seconds=round(time.monotonic() - began, 1))
