"""A call ends in time whatever the network does: servers of raw sockets that drip, hang, flood and lie."""

import asyncio
import json
import socket
import threading
import time
import zlib
from typing import Any

import pytest
from isrf_client import AsyncClient, Client, ClientError, NoAnswerError, Patience, ProblemError, connection

from tests.clients.raw_servers import LONG_S, OK, answer_of, dripping, saying, server

KINDS = pytest.mark.parametrize("kind", [Client, AsyncClient])
QUICK = Patience(timeout_s=0.4, tries=2, deadline_s=0.6, first_pause_s=0.01)
SLACK_S = 1.5
"""For a busy machine; what is not bounded here goes on for 30 s."""


def ask(kind: type[Client] | type[AsyncClient], url: str, method: str, *arguments: Any, **options: Any) -> Any:
    patience = {name: options.pop(name, QUICK) for name in ("reads", "writes")}
    if kind is Client:
        with Client(url, **patience) as client:
            return getattr(client, method)(*arguments, **options)

    async def run() -> Any:
        async with AsyncClient(url, **patience) as client:
            return await getattr(client, method)(*arguments, **options)

    return asyncio.run(run())


@KINDS
@pytest.mark.parametrize(
    "talk",
    [
        dripping(OK + b"Content-Length: 100000\r\n\r\n", b"a"),
        dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        dripping(OK + b"X-Long: ", b"a"),
        dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        dripping(b"H", b""),
    ],
    ids=["body", "chunks", "head", "continue", "silent"],
)
@pytest.mark.parametrize("method", ["popular", "erase"])
def test_an_answer_that_drips_is_given_up_in_time(kind: Any, talk: Any, method: str) -> None:
    began = time.monotonic()
    with server(talk) as (url, requests), pytest.raises(NoAnswerError) as caught:
        ask(kind, url, method, *(["ann"] if method == "erase" else []))
    assert time.monotonic() - began < QUICK.deadline_s + SLACK_S
    assert caught.value.code == "client.timeout"
    assert caught.value.fix
    assert len(requests) == 2


@KINDS
def test_a_name_that_is_looked_up_for_long_is_given_up_in_time(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lets_go = threading.Event()
    real = socket.getaddrinfo

    def slow(host: Any, *rest: Any, **more: Any) -> Any:
        if host in ("shop.example", b"shop.example"):
            lets_go.wait(LONG_S)
            host = "127.0.0.1"
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with server(saying(OK + b"Content-Length: 12\r\n\r\n" + b'{"items":[]}')) as (url, requests):
        began = time.monotonic()
        # asyncio waits for the thread that looks it up only after the call has ended.
        threading.Timer(QUICK.deadline_s + 1.0, lets_go.set).start()
        took: list[float] = []

        def call() -> Any:
            try:
                return ask(kind, url.replace("127.0.0.1", "shop.example"), "popular")
            except NoAnswerError:
                took.append(time.monotonic() - began)
                raise

        with pytest.raises(NoAnswerError) as caught:
            call()
        assert caught.value.code == "client.timeout"
        if kind is Client:
            assert took[0] < QUICK.deadline_s + 0.8
        lets_go.set()
        time.sleep(0.3)
        assert not any(requests), "what was given up is not sent later"


@KINDS
def test_a_server_that_reads_nothing_is_given_up_in_time(kind: Any) -> None:
    def deaf(client: socket.socket, _: bytes) -> None:
        time.sleep(LONG_S)

    events = [{"user_id": "u" * 500, "item_id": "i" * 500} for _ in range(1000)] * 3
    with server(deaf) as (url, _):
        began = time.monotonic()
        with pytest.raises(NoAnswerError) as caught:
            ask(kind, url, "interactions", events)
    assert time.monotonic() - began < QUICK.deadline_s + SLACK_S
    assert len(caught.value.events) == 3000


def test_a_caller_is_not_held_up_by_others_and_connections_are_used_again() -> None:
    body = b'{"items":[]}'
    answer = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def talk(client: socket.socket, request: bytes) -> None:
        while request:
            client.sendall(answer)
            request = client.recv(65536)

    with server(talk) as (url, requests), Client(url) as client:
        for _ in range(5):
            client.popular()
        assert len(requests) == 1, "one connection"
        threads = [threading.Thread(target=client.popular) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(requests) <= 9


NOT_OURS = {
    "html": answer_of(b"<html>Welcome to the hotel's network"),
    "a list": answer_of(b"[]"),
    "a number": answer_of(b"7"),
    "null": answer_of(b"null"),
    "nothing": answer_of(b""),
    "another object": answer_of(b'{"ok": true}'),
    "items of another type": answer_of(b'{"items": 7}'),
    "no UTF-8": answer_of(b"\xff\xfe{}"),
    "deep": answer_of(b"[" * 200_000),
    "an empty 204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "broken gzip": answer_of(b"no gzip", head=b"Content-Encoding: gzip\r\n"),
}


@KINDS
@pytest.mark.parametrize("name", NOT_OURS)
def test_an_answer_that_is_none_of_ours_is_said_to_be_none(kind: Any, name: str) -> None:
    with server(saying(NOT_OURS[name])) as (url, _), pytest.raises(NoAnswerError) as caught:
        ask(kind, url, "popular")
    assert caught.value.code == "client.unreadable"
    assert caught.value.message
    assert caught.value.fix


@KINDS
@pytest.mark.parametrize("body", [b"{}", b'{"results": []}', b'{"results": [7]}', b'{"results": [{}]}', b"[]"])
def test_nothing_counts_as_posted_by_a_strange_answer(kind: Any, body: bytes) -> None:
    with server(saying(answer_of(body))) as (url, _), pytest.raises(NoAnswerError) as caught:
        ask(kind, url, "interactions", [{"user_id": "ann", "item_id": "a"}])
    assert caught.value.code == "client.unreadable"
    assert [event["user_id"] for event in caught.value.events] == ["ann"]


@KINDS
def test_nobody_is_erased_by_another_servers_page(kind: Any) -> None:
    for answer in (answer_of(b"<html>"), answer_of(b""), answer_of(b"{}", "202 Accepted")):
        with server(saying(answer)) as (url, _), pytest.raises(NoAnswerError) as caught:
            ask(kind, url, "erase", "ann")
        assert caught.value.code == "client.unreadable"


@KINDS
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect"])
def test_a_redirect_is_not_followed(kind: Any, status: str) -> None:
    with server(saying(answer_of(b'{"items":[]}'))) as (elsewhere, stolen):
        head = f"Location: {elsewhere}/popular\r\n".encode()
        with server(saying(answer_of(b"", status, head))) as (url, _), pytest.raises(ProblemError) as caught:
            ask(kind, url, "popular")
    assert caught.value.code == f"http.{status[:3]}"
    assert "base_url" in caught.value.fix
    assert stolen == []


@KINDS
@pytest.mark.parametrize("zipped", [False, True])
def test_a_huge_answer_is_given_up(kind: Any, zipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 100_000)
    body = json.dumps({"items": ["a" * 200_000]}).encode()
    packing = zlib.compressobj(wbits=31)
    zip_body = packing.compress(body) + packing.flush()
    answer = answer_of(zip_body, head=b"Content-Encoding: gzip\r\n") if zipped else answer_of(body)
    patience = Patience(timeout_s=LONG_S, tries=3, deadline_s=LONG_S)
    with server(saying(answer)) as (url, requests):
        with pytest.raises(NoAnswerError) as caught:
            ask(kind, url, "popular", reads=patience)
        assert caught.value.code == "client.too_large"
        assert len(requests) == 1, "nor asked for again"
        monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 1_000_000)
        assert len(ask(kind, url, "popular", reads=patience)["items"][0]) == 200_000


@KINDS
@pytest.mark.parametrize("problem", [b"[]", b'{"code": 7, "detail": null, "fix": [], "request_id": {}}', b"{" * 99_999])
def test_a_strange_problem_is_a_problem(kind: Any, problem: bytes) -> None:
    with server(saying(answer_of(problem, "404 Not Found"))) as (url, _), pytest.raises(ProblemError) as caught:
        ask(kind, url, "popular")
    error = caught.value
    assert (error.code, error.status, error.message) == ("http.404", 404, "HTTP 404 Not Found")
    assert error.fix


@KINDS
def test_a_retry_after_beyond_all_reason_is_no_crash(kind: Any) -> None:
    for value in (
        b"9" * 400,
        b"Mon, 01 Jan 99999 00:00:00 GMT",
        b"Mon, 01 Jan 2030 00:00:00 +99999999",
        b"-5",
        b"\xb2",
    ):
        busy = answer_of(b"", "503 Busy", b"Retry-After: " + value + b"\r\n")
        with server(saying(busy)) as (url, _), pytest.raises(ClientError) as caught:
            ask(kind, url, "popular")
        assert caught.value.code == "http.503"


@KINDS
@pytest.mark.parametrize(
    "user_id", ["x\n", "\n", "a\x00b", "a\r\nX-API-Key: b", "x ", " x", ".", "..", "a/../b", "\x7f\x85"]
)
def test_an_id_arrives_as_it_is(kind: Any, user_id: str) -> None:
    with server(saying(answer_of(b'{"items":[]}'))) as (url, requests):
        ask(kind, url, "recommend", user_id, category="a\nb", exclude=["y\n", 7])
        ask(kind, url, "recommend_session", [user_id], exclude=["y\n", 7])
    path, parameters = requests[0].split(b" ")[1].split(b"?")
    assert path == b"/recommend/" + b"".join(
        bytes([one]) if chr(one).isalnum() and one < 128 else b"%%%02X" % one for one in user_id.encode()
    ).replace(b"%2D", b"-")
    assert parameters == b"category=a%0Ab&exclude=y%0A&exclude=7"
    body = json.loads(requests[1].split(b"\r\n\r\n", 1)[1])
    assert body == {"history": [user_id], "exclude": ["y\n", "7"]}
