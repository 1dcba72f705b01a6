"""Checks the database's pages for damage: at the start, and further in the background where that takes long.

SQLite checks about 200 MB per second; the time of a start must not grow with the events of a year.
"""

import sqlite3
import threading
from collections.abc import Callable

FIRST_S = 1.0
"""How long a start waits for the check."""


def find_damage(db: sqlite3.Connection, within_s: float | None = None) -> str | None:
    """Returns the damage that it finds, "" for none; None where it could not check all pages in time."""
    timer = None if within_s is None else threading.Timer(within_s, db.interrupt)
    if timer is not None:
        timer.start()
    try:
        found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if "interrupt" in str(error):
            return None
        raise
    finally:
        if timer is not None:
            timer.cancel()
            timer.join()
    return "" if found == "ok" else found.replace("\n", " ")


class BackgroundCheck:
    """Checks the whole database, in a thread of its own."""

    def __init__(self, db: sqlite3.Connection, on_damage: Callable[[str], None]) -> None:
        """db: read-only, closed by this object. on_damage: called in the thread with the damage."""
        self._db, self._on_damage = db, on_damage
        self._thread = threading.Thread(target=self._look, name="state-look", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stops the check."""
        while self._thread.is_alive():
            self._db.interrupt()
            self._thread.join(timeout=0.05)
        self._db.close()

    def _look(self) -> None:
        try:
            damage = find_damage(self._db)
        except sqlite3.Error as error:
            damage = str(error)
        if damage:
            self._on_damage(damage)
