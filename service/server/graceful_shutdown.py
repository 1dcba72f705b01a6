"""uvicorn's server and supervisor with a graceful shutdown: the first signal drains requests, a second ends at once.

At the start, the server accepts many connections per turn of the event loop, so that a burst of callers is answered at
once, if only with refusals.
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

CLOSE_DELAY_S = 0.3
_POLL_S = 0.1
_TICKS = 10
"""Ten a second."""
_CLOSE = (b"connection", b"close")
ACCEPTED_TOGETHER = 16
"""Connections accepted per turn of the event loop; libuv accepts one per listening handle, and the others wait."""
SEND_BUFFER_BYTES = 64 * 1024
"""The kernel's send buffer: with a larger one, a slow reader looks like a caller who does not read."""


class DrainingServer(uvicorn.Server):
    """Accepts many connections at once; at the end it first stops listening, and closes connections a moment later.

    uvicorn closes connections that it has accepted and not yet read, so that their callers would get no answer. In
    between, every answer says that its connection closes, so that no caller sends the next request into a closed one.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        starting = asyncio.current_task()
        watching = asyncio.create_task(self._cancel_on_exit(starting))
        try:
            await super().startup(sockets)
        except asyncio.CancelledError:
            # There is no request to drain yet, and opening a release or a store may hang.
            if not self.should_exit or starting is None:
                raise
            # Otherwise the runner would treat SIGINT's own cancellation as one from outside.
            starting.uncancel()
        finally:
            watching.cancel()
        if not self.started:
            return
        loop = asyncio.get_running_loop()
        listening = [listener.fileno() for server in self.servers for listener in server.sockets]
        for number in listening:
            with socket.socket(fileno=os.dup(number)) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        for number in listening * (ACCEPTED_TOGETHER - 1):
            again = socket.socket(fileno=os.dup(number))
            self.servers.append(await loop.create_server(self._protocol, sock=again, backlog=self.config.backlog))

    async def _cancel_on_exit(self, starting: "asyncio.Task[None] | None") -> None:
        """Cancels the start when the server shall exit before it has started."""
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
            # The supervisor was killed: nobody would ever end this worker, and it would hold the port.
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        await asyncio.sleep(CLOSE_DELAY_S)
        await super().shutdown(sockets)


class LoneServer(DrainingServer):
    """The server of a process without workers: a second signal of either kind ends it at once.

    A worker must not end at the second signal: from a terminal it gets both the interrupt and its supervisor's signal.
    """

    def __init__(self, config: uvicorn.Config, *, page: str = "") -> None:
        """page: a path whose address is printed when the server has started."""
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
    """uvicorn's supervisor with workers that drain (a worker that replaces a dead one is uvicorn's own)."""

    cut_short = False

    def init_processes(self) -> None:
        for _ in range(self.processes_num):
            worker = DrainingWorker(self.config, self.sockets)
            worker.start()
            self.processes.append(worker)

    def handle_int(self) -> None:
        self._handle(signal.SIGINT)

    def handle_term(self) -> None:
        self._handle(signal.SIGTERM)

    def _handle(self, sent: signal.Signals) -> None:
        self.cut_short = self.should_exit.is_set()
        if sent == signal.SIGINT:
            super().handle_int()
        else:
            super().handle_term()

    def terminate_all(self) -> None:
        super().terminate_all()
        # Closes the supervisor's copy of the socket: callers would otherwise wait in it for a worker.
        for listener in self.sockets:
            listener.close()

    def join_all(self) -> None:
        for worker in self.processes:
            while worker.process.is_alive():
                worker.process.join(_POLL_S)
                self.handle_signals()
                if self.cut_short:
                    worker.process.kill()
