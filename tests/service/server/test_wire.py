"""HTTP as nobody should speak it: what has no end is ended, and what cannot be read is answered in its turn."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.auth.test_doors import Guarded, resident_bytes
from tests.service.hostile import Caller, guarded, head, many, seconds_since
from tests.service.servers import wait_until

ENDLESS = 20_000_000


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    process = guarded(
        tiny_release,
        tmp_path_factory.mktemp("wire"),
        {
            "protocol.connection_limit.MOST": 100,
            "protocol.transport.STALL_S": 1.0,
            "bodies.WINDOW_S": 20,
            "protocol.http_protocol.KEEP_ALIVE_S": 5,
        },
    )
    yield process.start()
    process.kill()


def pour(caller: Caller, piece: bytes, *, until_bytes: int = ENDLESS) -> int:
    """Sends the same again and again until it is cut off; how many bytes were sent."""
    sent = 0
    caller.line.settimeout(10)
    try:
        while sent < until_bytes:
            caller.line.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    return sent


@pytest.mark.parametrize("endless", [b"x" * 5000, b"X-More: y\r\n" * 500])
def test_a_trailer_without_end_is_cut_off(service: Guarded, endless: bytes) -> None:
    before = resident_bytes(service)
    with Caller(service) as caller:
        caller.send(head("POST", "/recommend", service.keys["read"], "Transfer-Encoding: chunked"))
        caller.send(b"f\r\n" + b'{"history": []}' + b"\r\n0\r\nX-Trailer: ")
        began = time.monotonic()
        assert pour(caller, endless) < ENDLESS
        problem = caller.answer().problem
        assert (problem["status"], problem["code"]) == (431, "request.head_too_large")
    assert seconds_since(began) < 10
    assert resident_bytes(service) - before < 20_000_000


def test_what_a_trailer_says_is_no_header(service: Guarded) -> None:
    with Caller(service) as caller:
        caller.send(head("POST", "/recommend", None, "Transfer-Encoding: chunked"))
        caller.send(b"f\r\n" + b'{"history": []}' + f"\r\n0\r\nX-API-Key: {service.keys['read']}\r\n\r\n".encode())
        assert caller.answer().status == 401
    with Caller(service) as caller:
        at_once = head("POST", "/recommend", None, "Transfer-Encoding: chunked") + b"f\r\n" + b'{"history": []}'
        caller.send(at_once + f"\r\n0\r\nX-API-Key: {service.keys['read']}\r\n\r\n".encode())
        assert caller.answer().status == 401
    with Caller(service) as caller:
        caller.send(head("POST", "/recommend", service.keys["read"], "Transfer-Encoding: chunked"))
        caller.send(
            b"f\r\n" + b'{"history": []}' + b"\r\n0\r\nX-Sum: 1\r\nX-Request-ID: late\r\n\r\n", head("GET", "/livez")
        )
        answer = caller.answer()
        assert answer.status == 200, "a small trailer does no harm"
        assert answer.headers["x-request-id"] != "late"
        assert caller.answer().status == 200


@pytest.mark.parametrize("piece", [b"x" * 5000, b"1;" + b"x" * 5000 + b"\r\n \r\n"])
def test_chunk_extensions_without_end_are_cut_off(service: Guarded, piece: bytes) -> None:
    with Caller(service) as caller:
        caller.send(head("POST", "/recommend", service.keys["read"], "Transfer-Encoding: chunked"), b"1;")
        caller.send(b"a\r\n{\r\n" if piece.endswith(b"\n") else b"")
        assert pour(caller, piece) < ENDLESS
        assert caller.answer().status == 431


def test_small_chunks_are_no_overhead(service: Guarded) -> None:
    body = b'{"history": []' + b" " * 50_000 + b"}"
    with Caller(service) as caller:
        caller.send(head("POST", "/recommend", service.keys["read"], "Transfer-Encoding: chunked"))
        caller.send(b"".join(b"1\r\n%c\r\n" % byte for byte in body), b"0\r\n\r\n")
        assert caller.answer().status == 200


REFUSED = {
    "a long url": (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\n\r\n", 431),
    "a longer url": (b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "a long query": (b"GET /popular?category=" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "many headers": (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", 431),
    "no host": (b"GET /livez HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\nHost: x\r\n\r\n", 400),
    "two hosts of HTTP/1.0": (b"GET /livez HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "a host that is none": (b"GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "hosts in one": (b"GET /livez HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "two lengths": (b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "length and chunks": (
        b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks and length": (
        b"POST /recommend HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        400,
    ),
    "another coding": (b"POST /recommend HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    "chunks twice": (b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 400, 400),
    "a length below zero": (b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    "a broken chunk": (b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_wire_refuses_is_a_problem_like_any_other(service: Guarded, what: str) -> None:
    sent, status = REFUSED[what]
    with Caller(service) as caller:
        answer = caller.send(sent).answer()
        problem = answer.problem
        assert answer.status == status
        assert problem["code"].partition(".")[0] in {"http", "request"}
        assert problem["fix"]
        assert (problem["request_id"] == "mine") == (b"X-Request-ID: mine" in sent)
        usual = service.call("GET", "/nothing", service.keys["read"]).headers
        for name, value in usual.items():
            if name not in {"content-length", "date", "x-request-id"}:
                assert answer.headers[name] == value, name
        assert answer.headers["connection"] == "close"
        assert caller.is_ended()
    assert (
        f'isrf_problems_total{{code="{problem["code"]}"}}'
        in service.call("GET", "/metrics", service.keys["admin"]).text
    )


def test_blanks_around_a_header_are_none_of_it(service: Guarded) -> None:
    key = service.keys["read"]
    request = f"GET /popular?n=1 HTTP/1.1\r\nHost: 127.0.0.1 \t \r\nX-API-Key: \t{key}  \r\nX-Request-ID: abc \r\n"
    with socket.create_connection(("127.0.0.1", service.port)) as caller:
        caller.settimeout(60)
        caller.sendall(f"{request}Connection: close \r\n\r\n".encode())
        answer = b""
        while piece := caller.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"x-request-id: abc\r\n" in answer


def test_http_1_0_needs_no_host(service: Guarded) -> None:
    with Caller(service) as caller:
        assert caller.send(b"GET /livez HTTP/1.0\r\n\r\n").answer().status == 200
    for host in ("localhost", "shop.example:80", "[::1]:8000", "10.0.0.1", "a_b", ""):
        with Caller(service) as caller:
            assert caller.send(f"GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).answer().status == 200


def test_garbage_behind_a_request_comes_after_its_answer(service: Guarded) -> None:
    asked = head("GET", "/recommend/somebody?n=50", service.keys["read"])
    whole = head("POST", "/recommend", service.keys["read"], "Content-Length: 15") + b'{"history": []}'
    broken = head("POST", "/recommend", service.keys["read"], "Transfer-Encoding: chunked") + b"zz\r\n"
    for pieces in ((asked, asked, b"\x00\x00 no http\r\n\r\n"), (asked, whole, broken), (whole, broken)):
        for together in (True, False):
            with Caller(service) as caller:
                caller.send(*([b"".join(pieces)] if together else pieces))
                for _ in pieces[:-1]:
                    answer = caller.answer()
                    assert (answer.status, "items" in json.loads(answer.body)) == (200, True)
                assert caller.answer().problem["code"] == "http.malformed"
                assert caller.is_ended()


def test_many_requests_in_one_go_are_answered_in_order(service: Guarded) -> None:
    ids = [f"r{number}" for number in range(3000)]
    asked = b"".join(head("GET", "/livez", None, f"X-Request-ID: {one}") for one in ids)
    with Caller(service) as caller:
        caller.send(asked)
        assert [caller.answer().headers["x-request-id"] for _ in ids] == ids
    mixed = head("POST", "/recommend", service.keys["read"], "Content-Length: 15") + b'{"history": []}'
    with Caller(service) as caller:
        caller.send((mixed + head("GET", "/livez")) * 50)
        assert {caller.answer().status for _ in range(100)} == {200}


@pytest.mark.slow
def test_who_sends_requests_without_end_and_reads_nothing_takes_no_memory(service: Guarded) -> None:
    before = resident_bytes(service)
    for asked in (head("GET", "/livez"), head("GET", "/popular", service.keys["read"]), head("GET", "/popular")):
        with Caller(service, receive_bytes=4096) as caller:
            assert pour(caller, asked * 100) < ENDLESS
    assert resident_bytes(service) - before < 60_000_000
    assert service.call("GET", "/livez", None).status_code == 200


@pytest.mark.slow
def test_who_does_not_read_a_large_answer_is_cut_off(service: Guarded) -> None:
    """Until then it counts among those of its key, not against others."""
    schema = head("GET", "/openapi.json", service.keys["read"])
    with many(service, 8, *[schema] * 40):
        assert service.call("GET", "/popular", service.keys["write"]).status_code == 200
        wait_until(
            lambda: "isrf_requests_in_progress 1.0" in service.call("GET", "/metrics", service.keys["admin"]).text,
            what="the end of who does not read",
        )
    slow = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    slow.request("GET", "/openapi.json", headers={"X-API-Key": service.keys["read"]})
    answer = slow.getresponse()
    time.sleep(2.5)
    assert len(answer.read()) > 50_000, "an answer that the system has taken is nobody's burden"
    slow.close()


def test_idle_connections_make_room(service: Guarded) -> None:
    with many(service, 300), many(service, 300, head("GET", "/livez")), many(service, 300, b"GET /li") as begun:
        for role in ("read", "write"):
            began = time.monotonic()
            assert service.call("GET", "/popular", service.keys[role]).status_code == 200
            assert seconds_since(began) < 10
        with Caller(service) as caller:
            assert caller.send(head("GET", "/livez")).answer().status == 200
        assert begun[0].is_ended(), "who was idle longest went"


@pytest.mark.slow
def test_blank_lines_keep_no_connection(service: Guarded) -> None:
    with Caller(service) as caller:
        assert caller.send(head("GET", "/livez")).answer().status == 200
        caller.send(b"\r\n")
        caller.line.settimeout(30)
        assert caller.is_ended()


def test_half_closed_connections_hold_nothing(service: Guarded) -> None:
    unfinished = head("POST", "/recommend", service.keys["read"], "Content-Length: 1000") + b"{"
    with many(service, 60, unfinished) as callers:
        for caller in callers:
            caller.line.shutdown(socket.SHUT_WR)
        wait_until(
            lambda: "isrf_requests_in_progress 1.0" in service.call("GET", "/metrics", service.keys["admin"]).text,
            what="the end of the half-closed",
        )


def test_a_body_behind_an_upgrade_is_refused_and_never_lost(service: Guarded) -> None:
    line = b'{"user_id": "u", "item_id": "x"}'
    for path in ("/import/events", "/interactions"):
        with Caller(service) as caller:
            upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", f"Content-Length: {len(line)}")
            caller.send(head("POST", path, service.keys["write"], *upgrade) + line)
            answer = caller.answer()
            assert (answer.status, answer.problem["code"]) == (400, "http.upgrade")


def test_an_upgrade_is_not_taken_and_the_request_is_answered(service: Guarded) -> None:
    for upgrade in ("websocket", "h2c"):
        with Caller(service) as caller:
            caller.send(head("GET", "/livez", None, "Connection: Upgrade", f"Upgrade: {upgrade}"))
            answer = caller.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
