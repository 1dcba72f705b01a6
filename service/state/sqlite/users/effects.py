"""Applies events to the tables, all effects of an event or none, as `script.lua` does in Redis.

It runs inside the caller's transaction. It uses the four effects, and knows nothing of event types.
"""

import hashlib
import secrets
import sqlite3
from collections.abc import Sequence

from isrf.contract.event_log import REMEMBER_S, read_tombstone, tombstone_name
from service.state import payload
from service.state.events import Event
from service.state.records import KEPT_HISTORY, Applied
from service.state.sqlite.schema import tombstone_text
from service.state.sqlite.users.erased_ids import look_up_erased
from service.state.sqlite.users.followed import followed_by

TICK_S = 1e-6
"""An event without a timestamp gets one this much later than its user's latest moment."""


def digest_of(event_id: str) -> int:
    """Returns 64 bits by which the journal finds an event id; the rows tell ids with equal digests apart."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest(), signed=True)


class _User:
    """The state of one user during a transaction."""

    def __init__(self, db: sqlite3.Connection, secret: bytes, user_id: str) -> None:
        row = db.execute("SELECT id, latest FROM users WHERE user_id = ?", (user_id,)).fetchone()
        self.user_id = user_id
        self.id: int | None = None
        self.latest = -1.0
        if row is not None:
            self.id, self.latest = row
        stone = tombstone_text(db, tombstone_name(secret, user_id))
        self.erased_at = -1.0 if stone is None else read_tombstone(stone.encode()).erased_at
        self.accepted = self.active = 0


class Effects:
    """Applies events in one transaction; `finish` must follow `accept`."""

    def __init__(self, db: sqlite3.Connection, secret: bytes, now: float) -> None:
        """now: when the events are accepted, in seconds; it replaces `Event.accepted_at`."""
        self._db, self._secret, self._now = db, secret, now
        self._users: dict[str, _User] = {}

    def take(self, events: Sequence[Event]) -> list[Applied]:
        """Applies events in order and finishes; returns the outcome of each."""
        applied = [self._take(event) for event in events]
        self.finish()
        return applied

    @property
    def accepted_of(self) -> list[str]:
        """The users with accepted events, most recently active last."""
        moved = [user for user in self._users.values() if user.active]
        return [user.user_id for user in sorted(moved, key=lambda user: user.active)]

    def accept(self, event: Event, digest: int, seq: int | None = None) -> None:
        """Applies all effects of an event.

        Args:
            digest: of its id (`digest_of`).
            seq: its row in the journal, None for an event that is not in the journal yet.
        """
        user = self._user(event.user_id)
        if user.id is None:
            query = "INSERT INTO users (user_id, nonce, count, latest, active) VALUES (?, ?, 0, 0, 0)"
            user.id = self._db.execute(query, (event.user_id, secrets.token_hex(6))).lastrowid
        assert user.id is not None
        if seq is None:
            # What an erased user did before is not read again.
            tail = event.tail if user.erased_at < 0 else ()
            encoded = payload.encode(event, followed_by(self._db, user.id, event, tail))
            query = "INSERT INTO journal (user_id, payload, digest) VALUES (?, ?, ?)"
            seq = self._db.execute(query, (event.user_id, encoded, digest)).lastrowid
        else:
            self._db.execute("UPDATE journal SET digest = ? WHERE seq = ?", (digest, seq))
        assert seq is not None
        self._touch(user.id, event)
        user.accepted += 1
        user.active = seq
        user.latest = max(user.latest, event.timestamp)

    def finish(self) -> None:
        """Updates the users' versions, and cuts their histories to the limit."""
        for user in self._users.values():
            if not user.accepted:
                continue
            self._db.execute(
                "UPDATE users SET count = count + ?, latest = ?, active = ? WHERE id = ?",
                (user.accepted, user.latest, user.active, user.id),
            )
            self._db.execute(
                "DELETE FROM history WHERE user = ? AND (timestamp, item_id, assigned) < "
                "(SELECT timestamp, item_id, assigned FROM history WHERE user = ? "
                "ORDER BY timestamp DESC, item_id DESC, assigned DESC LIMIT 1 OFFSET ?)",
                (user.id, user.id, KEPT_HISTORY - 1),
            )

    def _take(self, event: Event) -> Applied:
        event = event._replace(accepted_at=self._now)
        user = self._user(event.user_id)
        digest = digest_of(event.event_id)
        first = self._named_by(event, digest)
        if first is not None:
            same = (first.user_id, first.item_id, first.event) == (event.user_id, event.item_id, event.event)
            return Applied("duplicate") if same else Applied("reused", first.item_id, first.event)
        outcome = look_up_erased(self._db, self._secret, event)
        if outcome is not None:
            return Applied(outcome)
        if event.assigned:
            event = event._replace(timestamp=max(event.timestamp, max(user.latest, user.erased_at) + TICK_S))
        elif event.timestamp <= user.erased_at:
            return Applied("erased")
        self.accept(event, digest)
        return Applied("accepted")

    def _named_by(self, event: Event, digest: int) -> Event | None:
        """Returns the event of the last day with the same id, or None."""
        query = "SELECT payload FROM journal WHERE digest = ? ORDER BY seq DESC"
        for (encoded,) in self._db.execute(query, (digest,)):
            first = payload.decode(encoded)
            if first.event_id == event.event_id and int(first.accepted_at) > int(event.accepted_at) - REMEMBER_S:
                return first
        return None

    def _user(self, user_id: str) -> _User:
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = _User(self._db, self._secret, user_id)
        return user

    def _touch(self, user: int, event: Event) -> None:
        """Updates history and marks. `removed` at t cancels everything up to t, in any order of arrival."""
        query = "SELECT bought, disliked, removed FROM marks WHERE user = ? AND item_id = ?"
        found = self._db.execute(query, (user, event.item_id)).fetchone()
        bought, disliked, removed = found or (None, None, None)
        t = event.timestamp
        if event.effect == "R":
            self._mark(user, event.item_id, bought, disliked, _later(removed, t))
            query = "DELETE FROM history WHERE user = ? AND item_id = ? AND timestamp <= ?"
            self._db.execute(query, (user, event.item_id, t))
        elif event.effect == "D":
            self._mark(user, event.item_id, bought, _later(disliked, t), removed)
        else:
            if event.effect == "B":
                self._mark(user, event.item_id, _later(bought, t), disliked, removed)
            if removed is None or t > removed:
                query = "INSERT OR IGNORE INTO history (user, timestamp, item_id, assigned) VALUES (?, ?, ?, ?)"
                self._db.execute(query, (user, t, event.item_id, event.assigned))

    def _mark(self, user: int, item_id: str, *moments: float | None) -> None:
        query = "INSERT OR REPLACE INTO marks (user, item_id, bought, disliked, removed) VALUES (?, ?, ?, ?, ?)"
        self._db.execute(query, (user, item_id, *moments))


def _later(known: float | None, t: float) -> float:
    return t if known is None else max(known, t)
