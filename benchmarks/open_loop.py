"""Sends requests at a fixed rate without waiting for answers; measures each from the time it was due.

    python benchmarks/open_loop.py < plan.json          (a `Plan`; prints a `LoadReport` as one JSON line)

If the server falls behind, the requests go on, and the time in any queue counts as latency. 70% of the requests are for
known users with new events since their last answer, 15% for users without new events, 10% for sessions, and 5% post the
events that change the next users. It knows nothing of the service except its address.
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
"""Events in one write; the mix reads as many changed users as the writes change."""

AHEAD = 400
"""Users between the reads and the writes, so that a user's write is answered before the read."""

SOON_MS = 100.0
PATIENCE_S = 10.0
LOOK_S = 0.05
"""Interval between two checks for requests older than `PATIENCE_S`."""


class Plan(NamedTuple):
    """What to send: where, how fast, and for which users."""

    port: int
    rate: float  # requests per second
    seconds: float
    seed: int
    users: Sequence[str]  # known users, read and changed in turn
    start: int  # the number of them read by earlier plans
    unchanged: Sequence[str]  # other users, already answered
    items: Sequence[str]


class LoadReport(NamedTuple):
    """What the load measured."""

    offered: int
    ok: int
    refused: int  # 503
    failed: int  # any other status, or no answer
    ok_per_s: float
    soon_per_s: float  # answered within SOON_MS
    ms: dict[str, float]  # percentiles of the answers with status 200
    ms_by_kind: dict[str, dict[str, float]]
    left_late_p99_ms: float  # how late this program itself sent requests
    next: int  # `start` of the next plan


class _TimedRequest(NamedTuple):
    kind: str
    due: float
    content: bytes


class _Connection(asyncio.Protocol):
    """One connection with one request at a time; calls `ended` with the status, 0 if it closed before the answer."""

    def __init__(self, ended: Callable[["_Connection", _TimedRequest, int], None]) -> None:
        self._ended = ended
        self._transport: Any = None
        self._received = b""
        self.request: _TimedRequest | None = None

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

    def ask(self, request: _TimedRequest) -> None:
        self.request = request
        self._transport.write(request.content)

    def give_up(self) -> None:
        """Aborts the connection without calling `ended`."""
        self.request = None
        if self._transport is not None:
            self._transport.abort()

    def _end(self, status: int) -> None:
        request, self.request = self.request, None
        if request is not None:
            self._ended(self, request, status)


def requests(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """Yields requests without end, as kind and bytes."""
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
    """Sends one plan. It uses no task and no timer per request, to leave the CPU to the service."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._idle: deque[_Connection] = deque()
        self._busy: dict[_Connection, None] = {}  # in the order of their requests
        self._connecting: dict[asyncio.Task[None], _TimedRequest] = {}
        self._answers: list[tuple[str, int, float]] = []
        self._left_late: list[float] = []

    async def __call__(self) -> LoadReport:
        plan, rng = self._plan, np.random.default_rng(self._plan.seed)
        # Independent callers have exponential times between requests.
        due = np.cumsum(rng.exponential(1 / plan.rate, int(plan.rate * plan.seconds))).tolist()
        # All requests are built first, so that building delays none.
        planned = [(kind, request) for (kind, request), _ in zip(requests(plan), due, strict=False)]
        started = time.perf_counter() + 0.01
        giving_up = asyncio.create_task(self._give_up_in_time())
        for (kind, request), moment in zip(planned, due, strict=True):
            wait = started + moment - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            self._send(_TimedRequest(kind, started + moment, request))
        while self._busy or self._connecting:
            await asyncio.sleep(LOOK_S)
        giving_up.cancel()
        for connection in self._idle:
            connection.give_up()
        return self._report(sum(kind == FRESH for kind, _ in planned))

    def _send(self, request: _TimedRequest) -> None:
        self._left_late.append(time.perf_counter() - request.due)
        while self._idle:
            # The one used last: connections that the server closed meanwhile are at the front.
            connection = self._idle.pop()
            if connection.is_open:
                self._send_on(connection, request)
                return
        task = asyncio.create_task(self._connect(request))
        self._connecting[task] = request
        task.add_done_callback(self._connecting.pop)

    async def _connect(self, request: _TimedRequest) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(max(0.0, request.due + PATIENCE_S - time.perf_counter())):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._ended), "127.0.0.1", self._plan.port
                )
        except (OSError, TimeoutError):
            self._record(request, 0)
        else:
            self._send_on(connection, request)

    def _send_on(self, connection: _Connection, request: _TimedRequest) -> None:
        self._busy[connection] = None
        connection.ask(request)

    def _ended(self, connection: _Connection, request: _TimedRequest, status: int) -> None:
        del self._busy[connection]
        if status:
            self._idle.append(connection)
        self._record(request, status)

    def _record(self, request: _TimedRequest, status: int) -> None:
        self._answers.append((request.kind, status, (time.perf_counter() - request.due) * 1e3))

    async def _give_up_in_time(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            before = time.perf_counter() - PATIENCE_S
            for connection in list(self._busy):
                request = connection.request
                if request is not None and request.due <= before:
                    del self._busy[connection]
                    connection.give_up()
                    self._record(request, 0)

    def _report(self, num_fresh: int) -> LoadReport:
        ok = [(kind, ms) for kind, status, ms in self._answers if status == 200]
        statuses = Counter(status for _, status, _ in self._answers)
        return LoadReport(
            offered=len(self._answers),
            ok=len(ok),
            refused=statuses[503],
            failed=len(self._answers) - len(ok) - statuses[503],
            ok_per_s=round(len(ok) / self._plan.seconds, 1),
            soon_per_s=round(sum(ms <= SOON_MS for _, ms in ok) / self._plan.seconds, 1),
            ms=_percentiles([ms for _, ms in ok]),
            ms_by_kind={kind: _percentiles([ms for answer_kind, ms in ok if answer_kind == kind]) for kind in MIX},
            left_late_p99_ms=round(float(np.percentile(self._left_late, 99)) * 1e3, 1),
            next=self._plan.start + num_fresh,
        )


def _percentiles(ms: Sequence[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(ms, q)), 2) for q in (50, 95, 99)} if ms else {}


async def ask(plan: Plan) -> LoadReport:
    """Sends the plan's requests on the running event loop."""
    return await _Run(plan)()


def run(plan: Plan) -> LoadReport:
    return uvloop.run(ask(plan))


if __name__ == "__main__":
    print(json.dumps(run(Plan(**json.load(sys.stdin)))._asdict()))
