"""Whether the database's pages are sound: looked at before anybody is served, and on behind them where that takes long.

SQLite looks at some 200 MB in a second; a start must not grow with what was accepted in a year.
"""

import sqlite3
import threading
from collections.abc import Callable

FIRST_S = 1.0
"""How long a start waits for the look."""


def find_damage(db: sqlite3.Connection, within_s: float | None = None) -> str | None:
    """What is wrong with the database, "" for nothing; None where there was no time to see all of it."""
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


class LateLook:
    """The whole look, in a thread of its own."""

    def __init__(self, db: sqlite3.Connection, told: Callable[[str], None]) -> None:
        """`db` only reads, and is closed here; `told` hears of damage, in that thread."""
        self._db, self._told = db, told
        self._thread = threading.Thread(target=self._look, name="state-look", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stops looking."""
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
            self._told(damage)
