"""How many connections a process has: where there are too many, those that were idle longest make room.

Where none is idle, those make room whose callers have not read their answers for the longest time.
"""

import heapq
import resource
from collections.abc import Collection
from functools import cache
from operator import attrgetter
from typing import Any, Protocol

MOST = 8192
KEPT_BACK = 512
"""Of the files that this process may open, for everything but connections."""
LEAST = 64
ROOM_OF = 16
"""One of so many idle connections is closed at a time, so that not each new one looks for another's end."""


class IdleConnection(Protocol):
    """A connection, as far as it is looked at here."""

    idle_since: float | None
    unread_since: float | None

    def close_for_another(self) -> None: ...


def open_more_files() -> None:
    """Raises this process's limit of open files, where it may, so that it holds as many connections as it should."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + 4 * KEPT_BACK
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def most_connections() -> int:
    """As many as the limit of open files has room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(LEAST, min(MOST, soft - KEPT_BACK))


def make_room(connections: Collection[Any], limit: int | None, new: IdleConnection) -> bool:
    """Whether one more connection, which is counted already, may stay."""
    most = _most() if limit is None else limit
    if len(connections) <= most:
        return True
    others: list[IdleConnection] = [one for one in connections if one is not new]
    for since in (_idle_since, _unread_since):
        found = [one for one in others if since(one) is not None]
        for one in heapq.nsmallest(max(1, len(found) // ROOM_OF), found, key=lambda one: since(one) or 0.0):
            one.close_for_another()
        if found:
            return True
    return False


_idle_since, _unread_since = attrgetter("idle_since"), attrgetter("unread_since")
_most = cache(most_connections)
