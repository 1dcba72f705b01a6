"""Imports and exports of any size: the parts without a network, the streams against servers of raw sockets."""

import asyncio
import itertools
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from isrf_client import AsyncClient, Client, ClientError, InvalidCallError, NoAnswerError, Patience, ProblemError
from isrf_client.attempts import Outcome, Try

from tests.clients.python.test_attempts import LOST, Played, problem
from tests.clients.raw_servers import OK, answer_of, dripping, saying, server

KINDS = pytest.mark.parametrize("kind", [Client, AsyncClient])
QUICK = Patience(timeout_s=0.4, tries=2, deadline_s=0.8, first_pause_s=0.01)
SLACK_S = 1.5
"""For a busy machine; what is not bounded here goes on for 30 s."""
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def sent(step: Try) -> list[dict[str, Any]]:
    assert step.call.lines is not None
    return [json.loads(line) for line in step.call.lines.splitlines()]


def report(accepted: int, *refused: tuple[int, str], lines: int | None = None) -> httpx.Response:
    """An answer in which these (line, reason) are refused."""
    reasons: dict[str, int] = {}
    for _, reason in refused:
        reasons[reason] = reasons.get(reason, 0) + 1
    body = {
        "lines": accepted + len(refused) if lines is None else lines,
        "accepted": accepted,
        "duplicates": 0,
        "refused": len(refused),
        "reasons": reasons,
        "problems": [{"line": line, "reason": reason, "detail": "so"} for line, reason in refused],
        "problems_left_out": 0,
        "warnings": [{"code": "misnamed_field", "message": "so"}],
        "meta": {"request_id": "r"},
    }
    return httpx.Response(200, json=body)


def accepting(step: Try) -> Outcome:
    return report(len(sent(step)))


def items(count: int) -> Iterator[dict[str, Any]]:
    return ({"item_id": k, "price": None, "title": "Tea"} for k in range(count))


def test_records_are_read_and_sent_in_parts() -> None:
    read: list[int] = []

    def records() -> Iterator[dict[str, Any]]:
        for record in items(2500):
            read.append(record["item_id"])
            yield record

    read_before: list[int] = []

    def service(step: Try) -> Outcome:
        read_before.append(len(read))
        return accepting(step)

    played = Played(service)
    done = played.run(played.calls().import_items(records()))
    assert (done["lines"], done["accepted"], done["refused"], len(done["warnings"])) == (2500, 2500, 0, 1)
    assert read_before == [1000, 2000, 2500], "no more than a part is held"
    assert sent(played.tries[0])[7] == {"item_id": "7", "price": None, "title": "Tea"}
    own = {"item_id": "a", "context": "red", "session": 1, "history": [{"item_id": 7}], "session_id": None}
    named = Played(accepting)
    named.run(named.calls().import_users([own]))
    assert sent(named.tries[0]) == [own], "names of the shop's own"
    empty = Played(accepting)
    assert empty.run(empty.calls().import_items([]))["lines"] == 0
    assert empty.tries == []


def test_long_records_make_smaller_parts() -> None:
    played = Played(accepting)
    long = ({"item_id": k, "description": "x" * 200_000} for k in range(12))
    assert played.run(played.calls().import_items(long))["accepted"] == 12
    assert [len(sent(step)) for step in played.tries] == [6, 6]


def test_events_keep_their_ids_over_tries_and_in_the_error() -> None:
    outcomes: Iterator[Outcome] = iter(
        [LOST, problem(503, "store.unavailable"), report(1000), problem(500, "some.code")]
    )
    played = Played(lambda _: next(outcomes))
    source = iter([{"user_id": "ann", "item_id": str(k)} for k in range(2500)])
    with pytest.raises(ProblemError) as caught:
        played.run(played.calls().import_events(source))  # type: ignore[arg-type]
    first, second, third, last = (sent(step) for step in played.tries)
    assert first == second == third
    error = caught.value
    assert error.report is not None
    assert (error.report["lines"], error.report["accepted"]) == (1000, 1000)
    assert error.records == last
    assert "1000 records were imported" in str(error)
    again = Played(accepting)
    rest: Any = itertools.chain(error.records, source)
    assert again.run(again.calls().import_events(rest))["accepted"] == 1500
    assert sent(again.tries[0]) == last, "with the ids that were sent"


def test_refused_records_are_named_by_their_place_in_the_call() -> None:
    outcomes = iter([report(998, (3, "unknown_item"), (9, "malformed")), report(1, (2, "unknown_item"))])
    played = Played(lambda _: next(outcomes))
    done = played.run(played.calls().import_items(items(1002)))
    assert [(one["line"], one["reason"]) for one in done["problems"]] == [
        (3, "unknown_item"),
        (9, "malformed"),
        (1002, "unknown_item"),
    ]
    assert (done["accepted"], done["refused"]) == (999, 3)
    assert done["reasons"] == {"unknown_item": 2, "malformed": 1}
    many = Played(lambda step: report(0, *((k + 1, "unknown_item") for k in range(len(sent(step))))))
    done = many.run(many.calls().import_items(items(2500)))
    assert (len(done["problems"]), done["problems_left_out"], done["refused"]) == (1000, 1500, 2500)


def test_what_the_store_could_not_accept_is_sent_again() -> None:
    busy = "store_unavailable"
    outcomes = iter([report(2, (2, busy), (4, "unknown_item"), (5, busy)), report(1, (1, busy)), report(1)])
    played = Played(lambda _: next(outcomes))
    done = played.run(played.calls().import_items(items(5)))
    assert [[one["item_id"] for one in sent(step)] for step in played.tries] == [list("01234"), ["1", "4"], ["1"]]
    assert (done["lines"], done["accepted"], done["refused"]) == (5, 4, 1)
    assert done["problems"] == [{"line": 4, "reason": "unknown_item", "detail": "so"}]
    assert done["reasons"] == {"unknown_item": 1}
    patience = Patience(timeout_s=1.0, tries=2, deadline_s=10.0)
    never = Played(lambda step: report(0, *((k + 1, busy) for k in range(len(sent(step))))))
    done = never.run(never.calls(bulk=patience).import_items(items(2)))
    assert (done["refused"], [one["line"] for one in done["problems"]], len(never.tries)) == (2, [1, 2], 2)


def test_all_parts_share_one_deadline() -> None:
    played = Played(accepting, takes_s=3.0)
    patience = Patience(timeout_s=4.0, tries=2, deadline_s=10.0)
    with pytest.raises(NoAnswerError) as caught:
        played.run(played.calls(bulk=patience).import_items(items(9000)))
    assert caught.value.code == "client.timeout"
    assert played.now_s == pytest.approx(10.0, abs=0.01)
    assert caught.value.report is not None
    assert caught.value.report["lines"] == 4000


@pytest.mark.parametrize("wrong", [None, "abc", {"item_id": "a"}, 7, ["a"], [None], [{"price": math.nan}]])
@pytest.mark.parametrize("method", ["import_items", "import_users", "import_events"])
def test_what_is_no_record_is_refused(method: str, wrong: Any) -> None:
    played = Played(accepting)
    with pytest.raises(InvalidCallError) as caught:
        played.run(getattr(played.calls(), method)(wrong))
    assert caught.value.code == "client.invalid_value"
    assert played.tries == []


def test_an_invalid_record_says_what_came_before() -> None:
    played = Played(accepting)
    records = [*items(1002), {"item_id": 7.5}]
    with pytest.raises(InvalidCallError, match=r"records\[1002\].item_id") as caught:
        played.run(played.calls().import_items(records))
    assert caught.value.report is not None
    assert caught.value.report["lines"] == 1000
    assert [record["item_id"] for record in caught.value.records] == ["1000", "1001"]


STRANGE = [
    {"problems": []},
    {"problems": [7]},
    {"lines": 2},
    {"accepted": "1"},
    {"problems": [{"line": 9, "reason": "x"}]},
    {"reasons": []},
]


@pytest.mark.parametrize("change", STRANGE, ids=str)
def test_a_strange_report_is_none(change: dict[str, Any]) -> None:
    body = json.loads(report(1).content) | change
    if change == {"problems": []}:
        del body["lines"]
    played = Played(lambda _: httpx.Response(200, json=body))
    with pytest.raises(NoAnswerError) as caught:
        played.run(played.calls().import_items(items(1)))
    assert caught.value.code == "client.unreadable"


def export(kind: Any, url: str, *, most: int | None = None, bulk: Patience = QUICK) -> list[Any]:
    """The lines of an export, `most` at most."""
    found: list[Any] = []
    if kind is Client:
        with Client(url, bulk=bulk) as client:
            found += itertools.islice(client.export_items(), most)
        return found

    async def run() -> list[Any]:
        async with AsyncClient(url, bulk=bulk) as client:
            async for line in client.export_items():
                found.append(line)
                if len(found) == most:
                    break
        return found

    return asyncio.run(run())


def chunks(*pieces: bytes, end: bool = True) -> bytes:
    return CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces) + (b"0\r\n\r\n" if end else b"")


@KINDS
def test_lines_come_as_they_arrive(kind: Any) -> None:
    came = threading.Event()

    def talk(client: socket.socket, _: bytes) -> None:
        client.sendall(chunks(b'{"a": 1}\n{"a"', end=False))
        came.wait(10.0)
        client.sendall(b'b\r\n: "\xc3\xbc"}\n\n{}\r\n1\r\n\n\r\n0\r\n\r\n')

    patient = Patience(timeout_s=20.0, tries=1, deadline_s=30.0)
    found: list[Any] = []

    async def run(url: str) -> None:
        async with AsyncClient(url, bulk=patient) as client:
            async for line in client.export_events():
                found.append(line)
                came.set()

    with server(talk) as (url, requests):
        if kind is AsyncClient:
            asyncio.run(run(url))
        else:
            with Client(url, bulk=patient) as client:
                for line in client.export_events():
                    found.append(line)
                    came.set()
    assert found == [{"a": 1}, {"a": "ü"}, {}]
    assert requests[0].startswith(b"GET /export/events ")


@KINDS
@pytest.mark.parametrize(
    "talk",
    [
        dripping(CHUNKED, b"1\r\n \r\n", every_s=0.2),
        dripping(chunks(b'{"a": 1}\n', end=False), b"", every_s=0.2),
        dripping(chunks(b'{"a": 1}\n', end=False), b'9\r\n{"a": 1}\n\r\n', every_s=0.2),
        dripping(b"H", b"", every_s=0.2),
    ],
    ids=["bytes", "silence", "lines", "head"],
)
def test_an_export_that_drips_ends_at_the_deadline(kind: Any, talk: Any) -> None:
    began = time.monotonic()
    with server(talk) as (url, _), pytest.raises(NoAnswerError) as caught:
        export(kind, url)
    assert time.monotonic() - began < QUICK.deadline_s + SLACK_S
    assert caught.value.code == "client.timeout"


@KINDS
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (chunks(b'{"a": 1}\n', end=False), "client.unreachable"),
        (chunks(b'{"a": 1}\n{"a": '), "client.unreadable"),
        (chunks(b'{"a": 1}\nno\n'), "client.unreadable"),
        (chunks(b'{"a": 1}\n[]\n'), "client.unreadable"),
        (chunks(b'{"a": 1}\n\xff\n'), "client.unreadable"),
    ],
)
def test_a_cut_export_is_never_taken_for_a_whole_one(kind: Any, answer: bytes, code: str) -> None:
    with server(saying(answer)) as (url, requests), pytest.raises(NoAnswerError) as caught:
        export(kind, url)
    assert caught.value.code == code
    assert "cut after 1 lines" in caught.value.message
    assert len(requests) == 1, "what has begun is not asked for again"


@KINDS
def test_an_export_is_asked_for_again_until_it_begins(kind: Any) -> None:
    answers = iter([answer_of(b"", "503 Busy"), chunks(b'{"a": 1}\n')])
    with server(lambda client, _: client.sendall(next(answers))) as (url, requests):
        assert export(kind, url) == [{"a": 1}]
    assert len(requests) == 2
    refused = answer_of(b'{"code": "key.insufficient", "detail": "no", "fix": "do"}', "403 Forbidden")
    with server(saying(refused)) as (url, _), pytest.raises(ProblemError) as caught:
        export(kind, url)
    assert (caught.value.code, caught.value.message) == ("key.insufficient", "no")


@KINDS
def test_a_caller_who_leaves_early_ends_the_export(kind: Any) -> None:
    ended = threading.Event()

    def endless(client: socket.socket, _: bytes) -> None:
        client.sendall(CHUNKED)
        try:
            while True:
                client.sendall(b"a\r\n" + b'{"a": 10}\n' + b"\r\n")
        except OSError:
            ended.set()
            raise

    with server(endless) as (url, _):
        assert export(kind, url, most=3) == [{"a": 10}] * 3
        assert ended.wait(10.0)


def test_a_slow_reader_holds_few_pieces() -> None:
    size = 1 << 20
    written: list[int] = []

    def flood(client: socket.socket, _request: bytes) -> None:
        client.sendall(CHUNKED)
        line = b'{"a": "%s"}\n' % (b"x" * size)
        for _ in range(64):
            client.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            written.append(len(line))
        client.sendall(b"0\r\n\r\n")

    patient = Patience(timeout_s=20.0, tries=1, deadline_s=30.0)
    with server(flood) as (url, _), Client(url, bulk=patient) as client:
        lines = client.export_items()
        next(lines)
        time.sleep(0.5)
        assert len(written) < 32, "the rest waits in the network"
        assert sum(1 for _ in lines) == 63


@KINDS
def test_the_callers_own_failure_passes_through(kind: Any) -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield {"item_id": "a"}
        raise KeyError("the shop's own")

    async def run() -> None:
        async with AsyncClient("http://127.0.0.1:1") as client:
            await client.import_items(failing())

    with Client("http://127.0.0.1:1") as client, pytest.raises(KeyError, match="own"):
        asyncio.run(run()) if kind is AsyncClient else client.import_items(failing())


def test_every_failure_of_an_import_is_a_client_error() -> None:
    with Client("http://127.0.0.1:1", bulk=QUICK) as client, pytest.raises(ClientError) as caught:
        client.import_users([{"user_id": 1, "history": []}])
    assert caught.value.code == "client.unreachable"
    assert caught.value.records == [{"user_id": "1", "history": []}]
