"""A journal of the version before, taken over once: its rows are replayed into the tables that hold their effects.

All of it is one transaction of the caller's: a process that is killed in the middle finds the journal as it was. Rows
that had no effect (an event id that was known, in a journal that kept duplicates) leave the record.
"""

import math
import sqlite3
import time

import structlog

from isrf.contract.event_log import REMEMBER_S
from service.state import payload
from service.state.sqlite.users.effects import Effects, digest_of

PAGE = 500
TOLD_EVERY_S = 5.0

_log = structlog.get_logger("service")


def take_over(db: sqlite3.Connection, secret: bytes) -> None:
    """Raises `StoreError` (`store.journal_corrupt`) on a row that nobody wrote."""
    (total,) = db.execute("SELECT count(*) FROM journal").fetchone()
    began = told = time.monotonic()
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
        for seq, kept in rows:
            event = payload.decode(kept)
            # What counted then: an id was its user's, and one of the last day.
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
        if time.monotonic() - told > TOLD_EVERY_S:
            told = time.monotonic()
            _log.info("takeover_goes_on", events=done, of=total)
    _log.info("takeover_done", events=done, duplicates=duplicates, seconds=round(time.monotonic() - began, 1))
