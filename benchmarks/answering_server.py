"""A server with OpenAI's protocol that answers every call after a fixed time and uses little CPU itself.

    python benchmarks/answering_server.py LATENCY_S

Prints its address. The answers follow the requested schema. It parses only the HTTP that the benchmark's client sends.
"""

import asyncio
import hashlib
import sys
from typing import Any

import orjson
import uvloop


class Answering(asyncio.Protocol):
    """One connection; it answers a call `latency_s` after the last byte of the call arrived."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._received = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end]).lower()
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self._received) < end + 4 + size:
                return
            body = bytes(self._received[end + 4 : end + 4 + size])
            del self._received[: end + 4 + size]
            asyncio.get_running_loop().call_later(self._latency_s, self._transport.write, answer(body))


def answer(body: bytes) -> bytes:
    """Returns a complete HTTP response; different requests get different answers."""
    request = orjson.loads(body)
    fields = request["response_format"]["json_schema"]["schema"]["properties"]
    digest = hashlib.blake2b(body, digest_size=8).hexdigest()
    message = {"role": "assistant", "content": orjson.dumps({name: f"{name} of {digest}" for name in fields}).decode()}
    payload = orjson.dumps({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    })  # fmt: skip
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


async def serve(latency_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(latency_s), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(float(sys.argv[1])))
