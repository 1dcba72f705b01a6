"""A real HTTP server on loopback that speaks the OpenAI protocol and misbehaves on a script.

`LlmServer(script)` runs in a thread; `script(request, nth)` says what each call gets.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

HANG = -1
"""As a status: take the request and never answer."""

CLOSE = -2
"""As a status: take the request and close the connection."""


@dataclass
class Reply:
    content: str | None = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: asyncio.Event | None = None  # not before this, and then
    delay_s: float = 0.0  # later
    refusal: str | None = None
    body: dict[str, Any] | None = None  # a whole body in place of a chat completion
    finish_reason: str = "stop"


Script = Callable[[dict[str, Any], int], Reply]


def good_answer(request: dict[str, Any]) -> str:
    """An answer that fits the asked schema, made of the request's first data words so that answers differ."""
    schema = request["response_format"]["json_schema"]["schema"]
    told = request["messages"][-1]["content"]
    return json.dumps({name: f"{name} of {sum(told.encode()) % 9973}" for name in schema["properties"]})


class LlmServer:
    """Serves while the context is open; `requests` and `answered` are every call received and fully answered."""

    def __init__(self, script: Script | None = None, *, port: int = 0) -> None:
        self._script = script or (lambda request, _nth: Reply(good_answer(request)))
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self.requests: list[dict[str, Any]] = []
        self.answered: list[dict[str, Any]] = []
        self.in_flight = 0
        self.max_in_flight = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        request = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))))
        request["_path"] = head[0].split()[1]
        request["_headers"] = headers
        self.requests.append(request)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            reply = self._script(request, len(self.requests) - 1)
            if reply.after:
                await reply.after.wait()
            if reply.delay_s:
                await asyncio.sleep(reply.delay_s)
            if reply.status == HANG:
                await reader.read()  # until the client gives up
                return False
            if reply.status == CLOSE:
                return False
            writer.write(_render(request, reply))
            await writer.drain()
            self.answered.append(request)
        finally:
            self.in_flight -= 1
        return True


def _render(request: dict[str, Any], reply: Reply) -> bytes:
    if reply.body is not None:
        body = reply.body
    elif reply.status != 200:
        body = {"error": {"message": "scripted", "type": "server_error", "code": None}}
    else:
        message = {"role": "assistant", "content": reply.content, "refusal": reply.refusal}
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": None}
        body = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request.get("model", ""),
            "choices": [choice], "usage": usage,
        }  # fmt: skip
    payload = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {reply.status} Scripted", "content-type: application/json", f"content-length: {len(payload)}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload
