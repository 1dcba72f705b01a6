"""The load generator: the mix it says, and latencies from the moment that a request was due, answered late or never."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import open_loop
import pytest

USERS = [f"u{k}" for k in range(1000)]


def plan(**more: Any) -> dict[str, Any]:
    fixed = {"port": 0, "rate": 100.0, "seconds": 1.0, "seed": 0, "start": 0, "unchanged": ["same"]}
    return fixed | {"users": USERS, "items": ["x", "y"]} | more


def test_the_mix_is_what_it_says_and_every_fresh_user_was_changed_before() -> None:
    made = list(islice(open_loop.requests(open_loop.Plan(**plan())), 4000))
    counts = Counter(kind for kind, _ in made)
    for kind, share in open_loop.MIX.items():
        assert abs(counts[kind] / len(made) - share) < 0.02, kind
    changed: set[str] = set()
    unchanged_since = 0
    for kind, request in made:
        if kind == "write":
            changed |= {event["user_id"] for event in json.loads(request.partition(b"\r\n\r\n")[2])["events"]}
        elif kind == "fresh":
            user_id = request.split(b"/")[2].split(b"?")[0].decode()
            unchanged_since += int(user_id[1:]) >= open_loop.AHEAD and user_id not in changed
            changed.discard(user_id)
    assert unchanged_since < 0.15 * counts["fresh"]


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """The port of a server whose connections are all closed at the end."""
    writers: list[asyncio.StreamWriter] = []

    async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(kept, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_server_that_answers_late_is_asked_on_and_every_answer_is_counted() -> None:
    """One answer at a time, 50 ms each, five times of that asked for: most wait, and their waiting is seen."""
    turn, num_asked = asyncio.Lock(), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_asked
        while head := await reader.readuntil(b"\r\n\r\n"):
            size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            await reader.readexactly(size)
            num_asked += 1
            refused = num_asked % 10 == 0
            async with turn:
                await asyncio.sleep(0 if refused else 0.05)
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok" % (503 if refused else 200))

    async with listening(serve) as port:
        process = await asyncio.create_subprocess_exec(
            sys.executable, open_loop.__file__, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        out, _ = await process.communicate(json.dumps(plan(port=port)).encode())
    seen = json.loads(out)
    assert seen["offered"] == num_asked == 100
    assert (seen["ok"], seen["refused"], seen["failed"]) == (90, 10, 0)
    assert seen["ms"]["p50"] > 1000, "half of 4.5 s of work came in 1 s"
    assert seen["soon_per_s"] < 20


async def test_who_gets_no_answer_is_counted_as_failed_and_no_longer_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first two callers are hung up on, the third is never answered, the others are."""
    monkeypatch.setattr(open_loop, "PATIENCE_S", 4.0)
    num_asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_asked
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0))
            num_asked += 1
            if num_asked <= 2:
                break
            if num_asked > 3:
                writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\no")
                await asyncio.sleep(0)
                writer.write(b"k")

    async with listening(serve) as port:
        seen = await open_loop.ask(open_loop.Plan(**plan(port=port)))
    assert (seen.offered, seen.ok, seen.refused, seen.failed) == (100, 97, 0, 3)
