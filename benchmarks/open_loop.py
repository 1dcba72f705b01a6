"""Requests at a rate that does not wait for answers; each is timed from the moment that it was meant to leave.

    python benchmarks/open_loop.py < plan.json          (a `Plan`; prints a `Seen` as one JSON line)

A server that falls behind is asked on all the same, and what queues, here or there, counts as latency. Of the requests
70% are of known users who have changed since they were last answered, 15% of users who have not, 10% of sessions, and
5% post the events that change the users to come. It knows nothing of the service but its address.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import uvloop

FRESH, UNCHANGED, SESSION, WRITE = "fresh", "unchanged", "session", "write"
MIX = {FRESH: 0.70, UNCHANGED: 0.15, SESSION: 0.10, WRITE: 0.05}
EVENTS = 14
"""In one write: as many users are read afresh as were changed."""
AHEAD = 400
"""Users between the one that is read and those that are changed: their writes are long answered."""
SOON_MS = 100.0
PATIENCE_S = 10.0
LOOK_S = 0.05
"""How often it is looked who has lost patience."""


class Plan(NamedTuple):
    port: int
    rate: float  # requests per second
    seconds: float
    seed: int
    users: Sequence[str]  # known ones, read and changed in turn
    start: int  # how many of them were read before
    unchanged: Sequence[str]  # others, already answered
    items: Sequence[str]


class Seen(NamedTuple):
    offered: int
    ok: int
    refused: int  # 503
    failed: int  # any other answer, or none
    ok_per_s: float
    soon_per_s: float  # answered within SOON_MS
    ms: dict[str, float]  # of what was answered with 200, percentiles
    ms_by_kind: dict[str, dict[str, float]]
    left_late_p99_ms: float  # how late this program itself was
    next: int  # `start` of a plan that goes on


class _Asked(NamedTuple):
    kind: str
    due: float
    request: bytes


class _Connection(asyncio.Protocol):
    """One request at a time; `ended` is called with its status, 0 where the connection ended before the answer."""

    def __init__(self, ended: Callable[["_Connection", _Asked, int], None]) -> None:
        self._ended = ended
        self._transport: Any = None
        self._received = b""
        self.asked: _Asked | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._end(0)

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = received[:end].lower()
        size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(received) >= end + 4 + size:
            self._received = b""
            self._end(int(head[9:12]))

    def ask(self, asked: _Asked) -> None:
        self.asked = asked
        self._transport.write(asked.request)

    def give_up(self) -> None:
        """Nothing is told of it."""
        self.asked = None
        if self._transport is not None:
            self._transport.abort()

    def _end(self, status: int) -> None:
        asked, self.asked = self.asked, None
        if asked is not None:
            self._ended(self, asked, status)


def requests(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """Without an end; kind and bytes."""
    rng = random.Random(plan.seed)
    kinds, weights = list(MIX), list(MIX.values())
    read = changed = plan.start
    changed += AHEAD
    users = plan.users
    while True:
        (kind,) = rng.choices(kinds, weights)
        if kind == FRESH:
            yield kind, _get(users[read % len(users)])
            read += 1
        elif kind == UNCHANGED:
            yield kind, _get(rng.choice(plan.unchanged))
        elif kind == SESSION:
            yield kind, _post("/recommend", {"history": rng.choices(plan.items, k=3), "n": 10})
        else:
            events = [
                {"user_id": users[(changed + k) % len(users)], "item_id": rng.choice(plan.items), "event": "view"}
                for k in range(EVENTS)
            ]
            changed += EVENTS
            yield kind, _post("/interactions", {"events": events})


def _get(user_id: str) -> bytes:
    return f"GET /recommend/{quote(user_id, safe='')}?n=10 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _post(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


class _Run:
    """No task and no timer of its own for a request: what the load costs is not there for the service."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._idle: deque[_Connection] = deque()
        self._busy: dict[_Connection, None] = {}  # in the order in which they were asked
        self._connecting: dict[asyncio.Task[None], _Asked] = {}
        self._answers: list[tuple[str, int, float]] = []
        self._left_late: list[float] = []

    async def __call__(self) -> Seen:
        plan, rng = self._plan, np.random.default_rng(self._plan.seed)
        # Independent callers: the times between them are exponential.
        due = np.cumsum(rng.exponential(1 / plan.rate, int(plan.rate * plan.seconds))).tolist()
        # Made before the first leaves: what making them takes must delay none.
        made = [(kind, request) for (kind, request), _ in zip(requests(plan), due, strict=False)]
        began = time.perf_counter() + 0.01
        giving_up = asyncio.create_task(self._give_up_in_time())
        for (kind, request), moment in zip(made, due, strict=True):
            wait = began + moment - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            self._leave(_Asked(kind, began + moment, request))
        while self._busy or self._connecting:
            await asyncio.sleep(LOOK_S)
        giving_up.cancel()
        for one in self._idle:
            one.give_up()
        return self._seen(sum(kind == FRESH for kind, _ in made))

    def _leave(self, asked: _Asked) -> None:
        self._left_late.append(time.perf_counter() - asked.due)
        while self._idle:
            # The one used last: those that the server has closed meanwhile lie at the bottom.
            connection = self._idle.pop()
            if connection.is_open:
                self._ask(connection, asked)
                return
        task = asyncio.create_task(self._connect(asked))
        self._connecting[task] = asked
        task.add_done_callback(self._connecting.pop)

    async def _connect(self, asked: _Asked) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(max(0.0, asked.due + PATIENCE_S - time.perf_counter())):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._ended), "127.0.0.1", self._plan.port
                )
        except (OSError, TimeoutError):
            self._note(asked, 0)
        else:
            self._ask(connection, asked)

    def _ask(self, connection: _Connection, asked: _Asked) -> None:
        self._busy[connection] = None
        connection.ask(asked)

    def _ended(self, connection: _Connection, asked: _Asked, status: int) -> None:
        del self._busy[connection]
        if status:
            self._idle.append(connection)
        self._note(asked, status)

    def _note(self, asked: _Asked, status: int) -> None:
        self._answers.append((asked.kind, status, (time.perf_counter() - asked.due) * 1e3))

    async def _give_up_in_time(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            before = time.perf_counter() - PATIENCE_S
            for connection in list(self._busy):
                asked = connection.asked
                if asked is not None and asked.due <= before:
                    del self._busy[connection]
                    connection.give_up()
                    self._note(asked, 0)

    def _seen(self, num_fresh: int) -> Seen:
        ok = [(kind, ms) for kind, status, ms in self._answers if status == 200]
        statuses = Counter(status for _, status, _ in self._answers)
        return Seen(
            offered=len(self._answers),
            ok=len(ok),
            refused=statuses[503],
            failed=len(self._answers) - len(ok) - statuses[503],
            ok_per_s=round(len(ok) / self._plan.seconds, 1),
            soon_per_s=round(sum(ms <= SOON_MS for _, ms in ok) / self._plan.seconds, 1),
            ms=_percentiles([ms for _, ms in ok]),
            ms_by_kind={kind: _percentiles([ms for of, ms in ok if of == kind]) for kind in MIX},
            left_late_p99_ms=round(float(np.percentile(self._left_late, 99)) * 1e3, 1),
            next=self._plan.start + num_fresh,
        )


def _percentiles(ms: Sequence[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(ms, q)), 2) for q in (50, 95, 99)} if ms else {}


async def ask(plan: Plan) -> Seen:
    """Sends the plan's requests on the running loop."""
    return await _Run(plan)()


def run(plan: Plan) -> Seen:
    return uvloop.run(ask(plan))


if __name__ == "__main__":
    print(json.dumps(run(Plan(**json.load(sys.stdin)))._asdict()))
