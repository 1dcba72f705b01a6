"""Callers who hang up, read slowly or not at all: small apps behind the protocol and the server of the service."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest
import uvicorn
import uvloop
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.server.graceful_shutdown import DrainingServer
from service.server.protocol import transport as gentle
from service.server.protocol.http_protocol import HttpProtocol
from tests.service.hostile import head

PIECE, LARGE = b"x" * 65536, 400


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, protocol: type[HttpProtocol] = HttpProtocol) -> AsyncIterator[tuple[str, int]]:
    """Its address."""
    config = uvicorn.Config(app, port=0, http=protocol, lifespan="off", log_config=None, access_log=False)
    server = DrainingServer(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield host, port
    finally:
        server.should_exit = server.force_exit = True
        await task


class Endless:
    """An export that has no end."""

    def __init__(self) -> None:
        self.begun = self.ended = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        try:
            await StreamingResponse(self._pieces())(scope, receive, send)
        finally:
            self.ended += 1

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            yield b"a line\n"
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("pipelined", [1, 2, 5])
def test_who_hangs_up_ends_what_was_made_for_them(pipelined: int) -> None:
    """However many requests wait behind it, and none of those is begun."""

    async def run() -> None:
        app = Endless()
        async with serving(app) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(head("GET", "/export") * pipelined)
            assert await reader.read(1000)
            writer.close()
            async with asyncio.timeout(20):
                while not app.ended:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert (app.begun, app.ended) == (1, 1)

    uvloop.run(run())


@pytest.mark.slow
def test_who_reads_slowly_is_not_taken_for_one_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as more is read than must be: the kernel must not hold so much that nothing seems to move."""
    monkeypatch.setattr(gentle, "STALL_S", 3.0)

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(PIECE * LARGE, headers={"connection": "close"})(scope, receive, send)

    def read_slowly(address: tuple[str, int]) -> int:
        """50 KB a second, of which 1 must be read, and then the rest; how much came."""
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.settimeout(30)
            line.connect(address)
            line.sendall(head("GET", "/"))
            came, end = 0, time.monotonic() + 8
            while time.monotonic() < end:
                came += len(line.recv(5000))
                time.sleep(0.1)
            # Whoever was cut off has still to read what the kernel holds.
            return came + read_all(line)

    async def run() -> None:
        async with serving(large) as address:
            assert await asyncio.to_thread(read_slowly, address) > LARGE * len(PIECE)

    uvloop.run(run())


def test_who_does_not_read_makes_room_where_all_connections_are_taken() -> None:
    class Few(HttpProtocol):
        max_connections: int = 4

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        content = PIECE * (LARGE if scope["path"] == "/large" else 1)
        await Response(content, headers={"connection": "close"})(scope, receive, send)

    def ask(stack: contextlib.ExitStack, address: tuple[str, int], path: str) -> socket.socket:
        line = stack.enter_context(socket.create_connection(address, timeout=30))
        line.sendall(head("GET", path))
        assert line.recv(15) == b"HTTP/1.1 200 OK"
        return line

    def take_all_connections(address: tuple[str, int]) -> None:
        with contextlib.ExitStack() as stack:
            unread = [ask(stack, address, "/large") for _ in range(Few.max_connections)]
            for _ in range(2):
                assert read_all(ask(stack, address, "/small")) > len(PIECE)
            assert read_all(unread[0]) < LARGE * len(PIECE), "who has read nothing for the longest time is cut off"

    async def run() -> None:
        async with serving(large, Few) as address:
            await asyncio.to_thread(take_all_connections, address)

    uvloop.run(run())


def read_all(line: socket.socket) -> int:
    came = 0
    while piece := line.recv(1 << 16):
        came += len(piece)
    return came
