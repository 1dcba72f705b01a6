"""How many connections a process has: where there are too many, those that were idle longest make room."""

import heapq
import resource
from collections.abc import Collection
from functools import cache
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

    def make_way(self) -> None: ...


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


def make_room(connections: Collection[Any], limit: int | None, active_user: IdleConnection) -> bool:
    """Whether one more connection, which is counted already, may stay."""
    most = _most() if limit is None else limit
    if len(connections) <= most:
        return True
    idle: list[IdleConnection] = [one for one in connections if one.idle_since is not None and one is not active_user]
    for one in heapq.nsmallest(max(1, len(idle) // ROOM_OF), idle, key=_idle_since):
        one.make_way()
    return bool(idle)


def _idle_since(one: IdleConnection) -> float:
    return one.idle_since or 0.0


_most = cache(most_connections)
