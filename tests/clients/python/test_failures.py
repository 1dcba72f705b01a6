"""Whatever fails below the clients is a `ClientError` with a code and a fix."""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any, TypeAlias

import httpx
import pytest
from isrf_client import AsyncClient, Client, ClientError, InvalidCallError, NoAnswerError, Patience, prepare

from tests.clients.raw_servers import OK, answer_of, saying, server

KINDS = pytest.mark.parametrize("kind", [Client, AsyncClient])
ONCE = Patience(timeout_s=5.0, tries=1, deadline_s=10.0)
EVENT: Any = {"user_id": "ann", "item_id": "a"}
Call: TypeAlias = tuple[str, list[Any]]
OF_OTHER_METHODS = ("HTTPStatusError", "CookieConflict")
"""Errors of methods of httpx that the clients never call."""


def failures_of(kind: Any, url: str, calls: list[Call]) -> list[ClientError]:
    """What each call of one client raises, of which an export is read to its end."""
    found: list[ClientError] = []

    def run() -> None:
        with Client(url, reads=ONCE, writes=ONCE, bulk=ONCE) as client:
            for method, arguments in calls:
                with pytest.raises(ClientError) as caught:
                    list(getattr(client, method)(*arguments))
                found.append(caught.value)

    async def run_async() -> None:
        async with AsyncClient(url, reads=ONCE, writes=ONCE, bulk=ONCE) as client:
            for method, arguments in calls:
                answer = getattr(client, method)(*arguments)
                with pytest.raises(ClientError) as caught:
                    await (anext(answer) if hasattr(answer, "__anext__") else answer)
                found.append(caught.value)

    run() if kind is Client else asyncio.run(run_async())
    assert all(error.message and error.fix for error in found)
    return found


def failure_of(kind: Any, url: str, method: str, *arguments: Any) -> ClientError:
    (error,) = failures_of(kind, url, [(method, [*arguments])])
    return error


def raised_by_httpx() -> Iterator[Exception]:
    """One of each error of httpx that sending a request can raise."""
    for name in httpx.__all__:
        error = getattr(httpx, name)
        # The first two are raised for a status and for cookies, and both by methods that the clients never call.
        if (
            isinstance(error, type)
            and issubclass(error, Exception)
            and name not in ("HTTPStatusError", "CookieConflict")
        ):
            try:
                yield error("so")
            except TypeError:
                yield error()


BELOW = [
    OSError("so"),
    ConnectionResetError(),
    BrokenPipeError(),
    TimeoutError(),
    socket.gaierror(-2, "unknown name"),
    ssl.SSLError(1, "so"),
    ssl.SSLCertVerificationError(1, "so"),
    ssl.SSLEOFError(8, "so"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "so"),
    UnicodeEncodeError("ascii", "ü", 0, 1, "so"),
    json.JSONDecodeError("so", "", 0),
    ValueError("so"),
    RuntimeError("so"),
    RecursionError("so"),
    NotImplementedError("so"),
]
CALLS: list[Call] = [
    ("popular", []),
    ("interactions", [[EVENT]]),
    ("import_items", [[{"item_id": "a"}]]),
    ("export_items", []),
]


@KINDS
def test_what_is_raised_below_is_a_client_error(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [*raised_by_httpx(), *BELOW]
    assert len(errors) > 30
    raising = iter([error for error in errors for _ in CALLS])

    def fail(*_: Any) -> Any:
        raise next(raising)

    async def fail_async(*_: Any) -> Any:
        raise next(raising)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", fail)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", fail_async)
    codes = {failure.code for failure in failures_of(kind, "http://shop.example", CALLS * len(errors))}
    assert codes == {"client.unreachable", "client.timeout", "client.unreadable", "client.invalid_url"}


@KINDS
def test_a_server_without_tls_is_not_reached_by_https(kind: Any) -> None:
    with server(saying(answer_of(b'{"items":[]}'))) as (url, _):
        error = failure_of(kind, url.replace("http:", "https:"), "popular")
    assert isinstance(error, NoAnswerError)
    assert error.code == "client.unreachable"


@KINDS
def test_a_handshake_that_fails_is_not_reached(kind: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # without a certificate: no cipher is shared

    def talk(client: socket.socket, hello: bytes) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(hello)
        try:
            context.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
        except ssl.SSLError:
            client.sendall(outgoing.read())

    with server(talk) as (url, _):
        assert failure_of(kind, url.replace("http:", "https:"), "popular").code == "client.unreachable"


@KINDS
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        OK + b"Content-Length: 100\r\n\r\n{",
        OK + b"Content-Length: many\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Bad Header\r\n\r\n",
        OK + b"X-Long: " + b"a" * 200_000,
        b"HTTP/1.1 \xff\xfe\r\n\r\n",
    ],
    ids=["closes", "ssh", "cut", "length", "chunks", "header", "long", "status"],
)
def test_what_breaks_http_is_unreachable(kind: Any, answer: bytes) -> None:
    with server(saying(answer)) as (url, _):
        assert {failure.code for failure in failures_of(kind, url, CALLS)} == {"client.unreachable"}


@KINDS
def test_an_event_keeps_its_id_over_the_callers_own_tries(kind: Any) -> None:
    """From `prepare`, from the event's own id, and from the error of a call that failed."""
    lost = failure_of(kind, "http://127.0.0.1:1", "interactions", [EVENT, {**EVENT, "event_id": "mine"}])
    first, own = lost.events
    assert own["event_id"] == "mine"
    assert first["event_id"]
    again = failure_of(kind, "http://127.0.0.1:1", "interactions", lost.events)
    assert again.events == lost.events
    (stored,) = prepare([EVENT])
    assert failure_of(kind, "http://127.0.0.1:1", "interactions", [stored]).events == [stored]
    imported = failure_of(kind, "http://127.0.0.1:1", "import_events", [EVENT])
    assert failure_of(kind, "http://127.0.0.1:1", "import_events", imported.records).records == imported.records


@KINDS
def test_a_wrong_call_of_each_kind_is_an_invalid_call(kind: Any) -> None:
    for method, arguments in (("recommend", [None]), ("interactions", ["abc"]), ("import_users", [7])):
        assert isinstance(failure_of(kind, "http://127.0.0.1:1", method, *arguments), InvalidCallError)
