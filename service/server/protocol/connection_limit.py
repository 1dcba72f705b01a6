"""Limits the connections of a process: where there are too many, it closes those that are idle longest.

Where none is idle, it closes those whose callers have not read their answers for the longest time.
"""

import heapq
import resource
from collections.abc import Collection
from functools import cache
from operator import attrgetter
from typing import Any, Protocol

MOST = 8192
KEPT_BACK = 512
"""Open files that stay reserved for everything but connections."""
LEAST = 64
ROOM_OF = 16
"""One in this many idle connections is closed at a time, so that not every new connection has to search for one."""


class IdleConnection(Protocol):
    """The part of a connection that this module uses."""

    idle_since: float | None
    unread_since: float | None

    def close_for_another(self) -> None: ...


def open_more_files() -> None:
    """Raises the process's limit of open files, where that is allowed, so that it can hold `MOST` connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = MOST + 4 * KEPT_BACK
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def most_connections() -> int:
    """Returns how many connections the limit of open files allows."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(LEAST, min(MOST, soft - KEPT_BACK))


def make_room(connections: Collection[Any], limit: int | None, new: IdleConnection) -> bool:
    """Closes connections where there are too many; returns whether the new one, which is counted, may stay."""
    most = _most() if limit is None else limit
    if len(connections) <= most:
        return True
    others: list[IdleConnection] = [connection for connection in connections if connection is not new]
    for since in (_idle_since, _unread_since):
        found = [connection for connection in others if since(connection) is not None]
        num_closed = max(1, len(found) // ROOM_OF)
        for connection in heapq.nsmallest(num_closed, found, key=lambda candidate: since(candidate) or 0.0):
            connection.close_for_another()
        if found:
            return True
    return False


_idle_since, _unread_since = attrgetter("idle_since"), attrgetter("unread_since")
_most = cache(most_connections)
