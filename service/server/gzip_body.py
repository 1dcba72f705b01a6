"""Inflates a gzip body of a request piece by piece, so that a small body that stands for gigabytes is refused early.

It knows no routes and no limit of a body's size; `service.server.bodies` counts the bytes, received and inflated.
"""

import asyncio
import zlib

from starlette.types import Message, Receive

from isrf.contract.errors import RequestError

PIECE_BYTES = 64 * 1024
"""Inflated bytes of one message, at most."""
MOST_TIMES = 100
"""How many times its own size a body may inflate to: events and items have 5 to 20 times, zeros 1000 times."""
FREE_BYTES = 1024 * 1024
"""Inflated bytes for which the times do not count."""
SLICE_BYTES = 16 * 1024
"""Bytes that are inflated at a time: each part of the body copies what follows it in its slice."""
PAUSE_BYTES = 64 * 1024
"""Received bytes after which other requests go on, also where they inflate to nothing."""
BYTES_A_PART = 1024
"""Received bytes for each gzip part, at least: to begin a part takes time, however short it is."""
FREE_PARTS = 100
"""Parts for which their size does not count."""
_GZIP = 16 + zlib.MAX_WBITS


class GzipBody:
    """Wraps ASGI's `receive`, whose body is gzip, of one part or of several one after the other.

    Raises from `receive`:
        RequestError: `request.malformed_gzip`, also for many parts with nearly nothing in them; `request.too_large`
            where it inflates to too many times its size.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._parser = zlib.decompressobj(_GZIP)
        self._waiting = memoryview(b"")  # received, and not given to the parser yet
        self._input = b""  # given to the parser, and not inflated yet
        self._holds_more = False  # whether the parser may return more without input
        self._has_ended = False
        self._num_received = self._num_inflated = self._num_since_pause = 0
        self._num_parts = 1

    async def receive(self) -> Message:
        """Returns the next message of the inflated body; `more_body` is false for an empty one at the end."""
        while True:
            if self._num_since_pause >= PAUSE_BYTES:
                self._num_since_pause = 0
                await asyncio.sleep(0)
            if self._input or self._holds_more:
                piece = self._inflated()
                if piece:
                    # Other requests go on between the pieces of a large body.
                    await asyncio.sleep(0)
                    return {"type": "http.request", "body": piece, "more_body": True}
            elif self._waiting:
                self._input, self._waiting = bytes(self._waiting[:SLICE_BYTES]), self._waiting[SLICE_BYTES:]
                self._num_since_pause += len(self._input)
            elif self._has_ended:
                if not self._parser.eof:
                    raise _malformed("it ends early")
                return {"type": "http.request", "body": b"", "more_body": False}
            else:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._waiting = memoryview(message.get("body", b""))
                self._num_received += len(self._waiting)
                self._has_ended = not message.get("more_body", False)

    def _inflated(self) -> bytes:
        if self._parser.eof:
            self._input = self._input.lstrip(b"\0")  # some programs fill up with zeros
            self._holds_more = False
            if not self._input:
                return b""
            self._num_parts += 1
            if self._num_parts > max(FREE_PARTS, self._num_received // BYTES_A_PART):
                raise _malformed(f"it has more than one part per {BYTES_A_PART} bytes")
            self._parser = zlib.decompressobj(_GZIP)
        try:
            piece = self._parser.decompress(self._input, PIECE_BYTES)
        except zlib.error as error:
            raise _malformed(str(error).partition(": ")[2] or str(error)) from None
        self._input = self._parser.unused_data if self._parser.eof else self._parser.unconsumed_tail
        self._holds_more = len(piece) == PIECE_BYTES
        self._num_inflated += len(piece)
        if self._num_inflated > max(FREE_BYTES, MOST_TIMES * self._num_received):
            raise RequestError(
                "request.too_large",
                f"The body inflates to more than {MOST_TIMES} times its size.",
                fix="Send it uncompressed.",
            )
        return piece


def _malformed(why: str) -> RequestError:
    return RequestError(
        "request.malformed_gzip",
        f"the body is no valid gzip: {why}.",
        fix="Send all that gzip writes, or send the body uncompressed without Content-Encoding.",
    )
