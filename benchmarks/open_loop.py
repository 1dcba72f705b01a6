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
from collections.abc import Iterator, Sequence
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


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._received = bytearray()
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(0)

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._answer is None or self._answer.done():
            return
        head = bytes(self._received[:end]).lower()
        size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._received) >= end + 4 + size:
            self._received.clear()
            self._answer.set_result(int(head[9:12]))

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        """The status of the answer, 0 where the connection ended."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()


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
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._idle: deque[_Connection] = deque()
        self._answers: list[tuple[str, int, float]] = []
        self._left_late: list[float] = []

    async def __call__(self) -> Seen:
        plan, rng = self._plan, np.random.default_rng(self._plan.seed)
        # Independent callers: the times between them are exponential.
        due = np.cumsum(rng.exponential(1 / plan.rate, int(plan.rate * plan.seconds)))
        asking: set[asyncio.Task[None]] = set()
        made = requests(plan)
        began = time.perf_counter() + 0.01
        num_fresh = 0
        for moment in due:
            kind, request = next(made)
            num_fresh += kind == FRESH
            wait = began + moment - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._one(kind, request, began + moment))
            asking.add(task)
            task.add_done_callback(asking.discard)
        if asking:
            await asyncio.wait(asking)
        for one in self._idle:
            one.end()
        return self._seen(num_fresh)

    async def _one(self, kind: str, request: bytes, due: float) -> None:
        self._left_late.append(time.perf_counter() - due)
        status, connection = 0, None
        try:
            async with asyncio.timeout(PATIENCE_S):
                connection = await self._connection()
                status = await connection.ask(request)
        except (OSError, TimeoutError):
            if connection is not None:
                connection.end()
        else:
            self._idle.append(connection)
        self._answers.append((kind, status, (time.perf_counter() - due) * 1e3))

    async def _connection(self) -> _Connection:
        while self._idle:
            # The one used last: those that the server has closed meanwhile lie at the bottom.
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(_Connection, "127.0.0.1", self._plan.port))[1]

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


def run(plan: Plan) -> Seen:
    return uvloop.run(_Run(plan)())


if __name__ == "__main__":
    print(json.dumps(run(Plan(**json.load(sys.stdin)))._asdict()))
