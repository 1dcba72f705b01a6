"""uvicorn's server and supervisor, ending without dropping a request: the first signal drains, a second one ends.

And beginning so that who comes in a snapshot is heard at once, if only to be refused.
"""

import asyncio
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess, Process

DOOR_S = 0.3
_POLL_S = 0.1
_TICKS = 10
"""Ten a second."""
_CLOSE = (b"connection", b"close")
ACCEPTED_TOGETHER = 16
"""Connections in a turn of the event loop; libuv takes one for each listening handle, the others wait unheard."""
SEND_BUFFER_BYTES = 64 * 1024
"""The kernel's part of an answer that is not read yet: with more, who reads slowly looks like one who does not read."""


class DrainingServer(uvicorn.Server):
    """Opens the door wide, and when it ends closes it first and the connections a moment later.

    uvicorn closes connections that it has accepted and not yet read from, so their callers would get no answer.
    Meanwhile every answer says that its connection ends, so that nobody sends the next request into a closed one.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        starting = asyncio.current_task()
        told = asyncio.create_task(self._until_told(starting))
        try:
            await super().startup(sockets)
        except asyncio.CancelledError:
            # Nobody is being answered yet: there is nothing to drain, and what is being opened may hang.
            if not self.should_exit or starting is None:
                raise
            # Else the runner would take a second cancellation, SIGINT's own, for somebody else's.
            starting.uncancel()
        finally:
            told.cancel()
        if not self.started:
            return
        loop = asyncio.get_running_loop()
        listening = [one.fileno() for server in self.servers for one in server.sockets]
        for number in listening:
            with socket.socket(fileno=os.dup(number)) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        for number in listening * (ACCEPTED_TOGETHER - 1):
            again = socket.socket(fileno=os.dup(number))
            self.servers.append(await loop.create_server(self._protocol, sock=again, backlog=self.config.backlog))

    async def _until_told(self, starting: "asyncio.Task[None] | None") -> None:
        while not self.should_exit:
            await asyncio.sleep(_POLL_S)
        if starting is not None and not self.started:
            starting.cancel()

    def _protocol(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        supervisor = multiprocessing.parent_process()
        if counter % _TICKS == 0 and supervisor is not None and not supervisor.is_alive():
            # Killed: nobody would ever tell this worker to end, and it would hold the port.
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]
        for server in self.servers:
            server.close()
        for one in sockets or ():
            one.close()
        await asyncio.sleep(DOOR_S)
        await super().shutdown(sockets)


class LoneServer(DrainingServer):
    """The server of a process without workers: a second signal of either kind ends it.

    A worker must not take two for an end: from a terminal it gets the interrupt and its supervisor's signal as well.
    """

    def __init__(self, config: uvicorn.Config, *, page: str = "") -> None:
        """`page` is a path whose address is printed as soon as it can be opened."""
        super().__init__(config)
        self._page = page

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._page and self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"\n  Open http://{f'[{host}]' if ':' in host else host}:{port}{self._page}\n", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)


class DrainingWorker(Process):
    """A worker whose server drains."""

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = DrainingServer(config=self.config)
        return self._server


class DrainingWorkers(Multiprocess):
    """uvicorn's supervisor with workers that drain (one that replaces a dead worker is uvicorn's own)."""

    cut_short = False

    def init_processes(self) -> None:
        for _ in range(self.processes_num):
            worker = DrainingWorker(self.config, self.sockets)
            worker.start()
            self.processes.append(worker)

    def handle_int(self) -> None:
        self._told(signal.SIGINT)

    def handle_term(self) -> None:
        self._told(signal.SIGTERM)

    def _told(self, sent: signal.Signals) -> None:
        self.cut_short = self.should_exit.is_set()
        if sent == signal.SIGINT:
            super().handle_int()
        else:
            super().handle_term()

    def terminate_all(self) -> None:
        super().terminate_all()
        # The port is closed when nobody holds it any more; callers would wait in it for a worker that never comes.
        for one in self.sockets:
            one.close()

    def join_all(self) -> None:
        for worker in self.processes:
            while worker.process.is_alive():
                worker.process.join(_POLL_S)
                self.handle_signals()
                if self.cut_short:
                    worker.process.kill()
