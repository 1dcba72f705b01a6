"""Bodies that do not come: whoever sends one holds a place of their own, for a while, and keeps nobody waiting."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.inference.admission import MAX_BROWSERS_OF_ONE, MAX_SENDERS_OF_ONE
from tests.service.auth.test_doors import ROLES, Guarded, routes
from tests.service.hostile import Caller, guarded, head, many, seconds_since
from tests.service.servers import wait_until

UNFINISHED = ("Content-Length: 1000",)
BIG = ("Content-Length: 1000000",)


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """As served, but that no body has a deadline soon enough to come between."""
    process = guarded(tiny_release, tmp_path_factory.mktemp("patient"), {"bodies.WINDOW_S": 60, "bodies.BODY_S": 60})
    yield process.start()
    process.kill()


@pytest.fixture(scope="module")
def hasty(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Whose windows are short."""
    process = guarded(
        tiny_release,
        tmp_path_factory.mktemp("hasty"),
        {
            "bodies.WINDOW_S": 0.5,
            "admission.LINES_WINDOW_S": 1.0,
            "protocol.unread_body.DISCARD_S": 0.5,
            "protocol.http_protocol.HEAD_S": 60,
        },
    )
    yield process.start()
    process.kill()


def until_nobody_is_inside(service: Guarded) -> None:
    wait_until(
        lambda: "isrf_requests_in_progress 1.0" in service.call("GET", "/metrics", service.keys["admin"]).text,
        what="the end of those who hung up",
    )


def test_unfinished_bodies_keep_nobody_from_an_answer(service: Guarded) -> None:
    keys = service.keys
    held = [
        many(service, 100, head("POST", "/recommend", keys["read"], *UNFINISHED), b"{"),
        many(service, 20, head("POST", "/rank", keys["read"], "Transfer-Encoding: chunked"), b"1\r\n{\r\n"),
        many(service, 8, head("POST", "/import/events", keys["write"], *BIG), b"{"),
        many(service, 100, head("POST", "/interactions", keys["write"], *BIG), b"{" * 1000),
    ]
    with contextlib.ExitStack() as stack:
        for one in held:
            stack.enter_context(one)
        for role in ("read", "write", "admin"):
            assert service.call("GET", "/recommend/somebody", keys[role]).status_code == 200
            assert service.call("POST", "/recommend", keys[role], json={"history": []}).status_code == 200
        event = {"events": [{"user_id": "a", "item_id": "b"}]}
        assert service.call("POST", "/interactions", keys["admin"], json=event).status_code == 200
        assert service.call("POST", "/import/events", keys["admin"], content=b"{}\n").status_code == 200
        for path in ("/livez", "/readyz", "/metrics"):
            assert service.call("GET", path, keys["admin"]).status_code == 200


def test_one_key_finds_an_end_of_places_for_bodies_and_another_does_not(service: Guarded) -> None:
    until_nobody_is_inside(service)
    unfinished = head("POST", "/recommend", service.keys["read"], *UNFINISHED) + b"{"
    with many(service, MAX_SENDERS_OF_ONE, unfinished), Caller(service) as one_more:
        problem = one_more.send(unfinished).answer().problem
        assert (problem["status"], problem["code"]) == (503, "overload.too_many_at_once")
        answer = service.call("POST", "/recommend", service.keys["write"], json={"history": []})
        assert answer.status_code == 200
        with Caller(service) as other:
            other.send(head("POST", "/recommend", service.keys["write"], "Content-Length: 15"), b'{"history"')
            time.sleep(0.05)
            assert other.send(b": []}").answer().status == 200
        whole = head("POST", "/recommend", service.keys["read"], "Content-Length: 15") + b'{"history": []}'
        with Caller(service) as at_once:
            assert at_once.send(whole).answer().status == 200, "a body that came with its head waits for nothing"
    wait_until(
        lambda: service.call("POST", "/recommend", service.keys["read"], json={"history": []}).status_code == 200,
        what="the places that hung up",
    )


def test_one_address_leaves_others_places_of_a_browsers_key(service: Guarded) -> None:
    until_nobody_is_inside(service)
    unfinished = head("POST", "/beacon", service.keys["browser"], *UNFINISHED) + b"{"
    with many(service, MAX_BROWSERS_OF_ONE, unfinished), Caller(service) as one_more:
        assert one_more.send(unfinished).answer().problem["code"] == "overload.too_many_at_once"
        with Caller(service, address="127.0.0.2") as other:
            other.send(unfinished)
            time.sleep(0.05)
            assert other.send(b" " * 999).answer().problem["code"] == "beacon.invalid"


def test_150_bodies_that_may_not_be_posted_are_refused_unread(service: Guarded) -> None:
    with many(service, 150) as callers:
        for caller in callers:
            problem = caller.send(head("POST", "/interactions", service.keys["read"], *BIG)).answer().problem
            assert (problem["status"], problem["code"]) == (403, "key.insufficient")
            assert caller.is_ended()


def test_every_route_judges_the_role_before_the_body(service: Guarded) -> None:
    judged = 0
    for method, path, needed in routes():
        address = path.replace("{user_id:path}", "somebody").replace("{item_id:path}", "something")
        for role in ROLES[: ROLES.index(needed)] if needed else ():
            for more in (*BIG, "Transfer-Encoding: chunked"):
                with Caller(service) as caller:
                    asked = head(method, address, service.keys[role], more, "Expect: 100-continue")
                    assert caller.send(asked).answer().problem["code"] == "key.insufficient", (method, path, role)
                    judged += 1
    assert judged > 20


@pytest.mark.parametrize("path", ["/recommend", "/rank", "/interactions", "/import/events", "/import/items"])
def test_a_body_that_does_not_come_is_told_so(hasty: Guarded, path: str) -> None:
    chunked = head("POST", path, hasty.keys["admin"], "Transfer-Encoding: chunked")
    unfinished = (head("POST", path, hasty.keys["admin"], *UNFINISHED) + b"{", chunked + b"1\r\n{\r\n", chunked)
    began = time.monotonic()
    with many(hasty, len(unfinished)) as callers:
        for caller, sent in zip(callers, unfinished, strict=True):
            caller.send(sent)
        for caller in callers:
            answer = caller.answer()
            assert (answer.status, answer.problem["code"]) == (408, "http.slow_body")
            assert answer.headers["connection"] == "close"
            assert caller.is_ended()
            assert seconds_since(began) < 30


def test_a_body_that_trickles_is_told_so(hasty: Guarded) -> None:
    for more, piece in (("Content-Length: 100000", b" "), ("Transfer-Encoding: chunked", b"1\r\n \r\n")):
        with Caller(hasty) as caller:
            caller.send(head("POST", "/recommend", hasty.keys["read"], more))
            stop = threading.Event()

            def trickle(caller: Caller = caller, piece: bytes = piece, stop: threading.Event = stop) -> None:
                with contextlib.suppress(OSError):
                    while not stop.wait(0.05):
                        caller.send(piece)

            trickling = threading.Thread(target=trickle)
            trickling.start()
            assert caller.answer().problem["code"] == "http.slow_body"
            stop.set()
            trickling.join()


@pytest.mark.slow
def test_a_body_may_take_its_time_as_long_as_it_comes(hasty: Guarded) -> None:
    line = b'{"user_id": "steady", "item_id": "none"}\n' * 40
    with Caller(hasty) as caller:
        caller.send(head("POST", "/import/events", hasty.keys["write"], f"Content-Length: {12 * len(line)}"))
        for _ in range(12):
            time.sleep(0.15)
            caller.send(line)
        answer = caller.answer()
        assert (answer.status, json.loads(answer.body)["lines"]) == (200, 480)


def test_an_import_that_ends_midway_says_what_was_taken_in(hasty: Guarded) -> None:
    lines = b'{"user_id": "midway", "item_id": "none"}\n' * 7
    with Caller(hasty) as caller:
        caller.send(head("POST", "/import/events", hasty.keys["write"], *BIG), lines, b'{"user_id"')
        assert "lines 1 to 7 were imported" in caller.answer().problem["detail"]


def test_who_hangs_up_midway_leaves_no_trace(service: Guarded) -> None:
    for path in ("/recommend", "/import/events"):
        with many(service, 8, head("POST", path, service.keys["admin"], *UNFINISHED), b"{") as callers:
            for caller in callers[::2]:
                caller.line.shutdown(1)
    until_nobody_is_inside(service)
    assert "unexpected_error" not in service.log


def test_100_continue_is_said_to_who_may_send(service: Guarded) -> None:
    with Caller(service) as caller:
        body = b'{"history": []}'
        caller.send(head("POST", "/recommend", service.keys["read"], "Content-Length: 15", "Expect: 100-continue"))
        assert caller.line.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert caller.send(body).answer().status == 200
    with Caller(service) as caller:
        caller.send(head("POST", "/recommend", "wrong", "Content-Length: 15", "Expect: 100-continue"))
        assert caller.answer().status == 401


UNREAD = (
    ("GET", "/popular", 200),
    ("DELETE", "/users/a", 204),
    ("GET", "/livez", 200),
    ("POST", "/nothing", 404),
    ("DELETE", "/popular", 405),
)


def test_a_small_body_that_no_route_reads_may_follow_late(hasty: Guarded) -> None:
    for method, path, status in UNREAD:
        with Caller(hasty) as caller:
            caller.send(head(method, path, hasty.keys["admin"], "Content-Length: 20"))
            if status == 204:
                assert caller.line.recv(4096).startswith(b"HTTP/1.1 204 ")
            else:
                assert caller.answer().status == status
            again = head("GET", "/livez")
            if status < 400:
                assert caller.send(b"x" * 20, again).answer().status == 200


@pytest.mark.slow
def test_a_body_that_no_route_reads_holds_nothing(hasty: Guarded) -> None:
    def held_s(method: str, path: str) -> float:
        with Caller(hasty) as caller:
            caller.send(head(method, path, hasty.keys["admin"], "Transfer-Encoding: chunked"))
            began = time.monotonic()
            with contextlib.suppress(OSError):
                while seconds_since(began) < 30:
                    caller.send(b"1\r\nx\r\n")
                    time.sleep(0.05)
            return seconds_since(began)

    with ThreadPoolExecutor(len(UNREAD)) as pool:
        waits = {(method, path): pool.submit(held_s, method, path) for method, path, _ in UNREAD}
    assert {name: wait.result() for name, wait in waits.items() if wait.result() >= 20} == {}


def test_who_is_refused_while_sending_reads_why(service: Guarded) -> None:
    """A connection that is closed on a caller who sends is reset, and the answer with it."""
    for key, path, size, status in (
        ("wrong", "/interactions", 1_500_000, 401),
        (service.keys["read"], "/interactions", 1_500_000, 403),
        (service.keys["write"], "/interactions", 3_000_000, 413),
    ):
        for _ in range(5):
            with Caller(service) as caller:
                caller.send(head("POST", path, key, f"Content-Length: {size}"))
                for _ in range(size // 50_000):
                    caller.send(b" " * 50_000)
                assert caller.answer().status == status


def test_httpx_reads_a_refusal_of_a_large_body(service: Guarded) -> None:
    with httpx.Client(base_url=service.url, timeout=60) as http:
        for _ in range(3):
            answer = http.post("/interactions", content=b" " * 1_900_000, headers={"X-API-Key": "wrong"})
            assert answer.status_code == 401
