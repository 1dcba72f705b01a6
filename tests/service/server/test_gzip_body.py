"""A gzip body is read like the body that it holds, and no further than it may be."""

import asyncio
import gzip
import zlib
from collections.abc import Iterable

import pytest
from starlette.types import Message

from isrf.contract.errors import RequestError
from service.server.bodies import lines_body, whole_body
from service.server.gzip_body import FREE_BYTES, FREE_PARTS, MOST_TIMES, PIECE_BYTES, GzipBody

TEXT = b"".join(b'{"item_id": "%d"}\n' % number for number in range(20_000))


class Sender:
    """Sends a body in parts, and counts those that were asked for."""

    def __init__(self, parts: Iterable[bytes], *, leaves: bool = False) -> None:
        self._parts, self._leaves = list(parts), leaves
        self.num_sent = 0

    async def receive(self) -> Message:
        if self.num_sent == len(self._parts):
            return {"type": "http.disconnect"}
        self.num_sent += 1
        more = self._leaves or self.num_sent < len(self._parts)
        return {"type": "http.request", "body": self._parts[self.num_sent - 1], "more_body": more}


def in_parts(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def pieces_of(sender: Sender) -> list[bytes]:
    async def read() -> list[bytes]:
        body, found = GzipBody(sender.receive), list[bytes]()
        while True:
            message = await body.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            found.append(message["body"])
            if not message["more_body"]:
                return found

    return asyncio.run(read())


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_it_is_the_body_that_was_compressed_however_it_arrives(size: int) -> None:
    text = TEXT[:20_000] if size == 1 else TEXT
    pieces = pieces_of(Sender(in_parts(gzip.compress(text), size)))
    assert b"".join(pieces) == text
    assert max(map(len, pieces)) <= PIECE_BYTES


@pytest.mark.parametrize("size", [3, 1 << 20])
def test_parts_one_after_the_other_are_one_body(size: int) -> None:
    body = gzip.compress(b"one\n") + gzip.compress(b"") + gzip.compress(b"two\n") + b"\0" * 512
    assert b"".join(pieces_of(Sender(in_parts(body, size)))) == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"history": []}', "incorrect header check"),
        (zlib.compress(b"{}"), "incorrect header check"),
        (gzip.compress(TEXT, mtime=0)[:-9], "it ends early"),
        (gzip.compress(b"{}", mtime=0)[:5], "it ends early"),
        (gzip.compress(b"{}", mtime=0)[:-8] + b"\1" * 8, "incorrect data check"),
        (gzip.compress(b"{}", mtime=0) + b"more", "incorrect header check"),
    ],
)
def test_what_is_no_gzip_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(RequestError, match=why) as refused:
        pieces_of(Sender([body]))
    assert refused.value.code == "request.malformed_gzip"


def test_a_sender_who_leaves_has_sent_no_body() -> None:
    with pytest.raises(ConnectionError):
        pieces_of(Sender([gzip.compress(TEXT)[:500]], leaves=True))


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    parser = zlib.compressobj(9, wbits=31)
    parts = [parser.compress(bytes(1 << 20)) for _ in range(64)]
    sender = Sender([part for part in [*parts, parser.flush()] if part])
    with pytest.raises(RequestError, match=f"more than {MOST_TIMES} times its size") as refused:
        asyncio.run(_drained(sender))
    assert refused.value.code == "request.too_large"
    assert sender.num_sent * (1 << 20) < 2 * FREE_BYTES + (1 << 20)


async def _drained(sender: Sender) -> None:
    receive = lines_body(sender.receive, is_gzip=True)
    while (await receive())["more_body"]:
        pass


def test_the_bound_of_a_body_holds_for_what_it_inflates_to() -> None:
    sender = Sender(in_parts(gzip.compress(TEXT), 256))
    with pytest.raises(RequestError) as refused:
        asyncio.run(whole_body(sender.receive, max_bytes=10_000, is_gzip=True))
    assert refused.value.code == "request.too_large"
    assert sender.num_sent < len(gzip.compress(TEXT)) // 256 // 2
    sender = Sender([gzip.compress(TEXT)])
    assert asyncio.run(whole_body(sender.receive, max_bytes=len(TEXT), is_gzip=True)) == TEXT


def test_a_body_that_inflates_to_nothing_is_too_large_as_well() -> None:
    empty_blocks = b"\x00\x00\x00\xff\xff" * 10_000  # of deflate; one part
    sender = Sender(in_parts(gzip.compress(b"")[:10] + empty_blocks, 1000))
    with pytest.raises(RequestError) as refused:
        asyncio.run(whole_body(sender.receive, max_bytes=10_000, is_gzip=True))
    assert refused.value.code == "request.too_large"
    assert sender.num_sent == 11


def test_parts_that_hold_next_to_nothing_have_an_end() -> None:
    part = gzip.compress(b"")
    assert b"".join(pieces_of(Sender([part * FREE_PARTS]))) == b""
    with pytest.raises(RequestError, match="more than one part per 1024 bytes") as refused:
        pieces_of(Sender(in_parts(part * 5000, 1000)))
    assert refused.value.code == "request.malformed_gzip"
    large = gzip.compress(TEXT)
    assert len(large) > 10_000
    assert b"".join(pieces_of(Sender([large * 2 * FREE_PARTS]))) == TEXT * 2 * FREE_PARTS


def test_others_go_on_while_a_body_inflates_to_nothing() -> None:
    body, rounds = gzip.compress(b"")[:10] + b"\x00\x00\x00\xff\xff" * 200_000, 0

    async def read() -> None:
        nonlocal rounds
        reading = asyncio.ensure_future(GzipBody(Sender([body]).receive).receive())
        while not reading.done():
            rounds += 1
            await asyncio.sleep(0)
        with pytest.raises(RequestError, match="it ends early"):
            reading.result()

    asyncio.run(read())
    assert rounds >= len(body) // (64 * 1024)
