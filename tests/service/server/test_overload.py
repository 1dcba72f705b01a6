"""More than can be answered: refused at once and cheaply, nothing queued for ever, and over as soon as the load is."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from isrf.contract.errors import OverloadError
from isrf.method.recommend.recommender import Recommender
from isrf.method.recommend.request import Ranked, RankingRequest
from service.api.routes.recommend import AT_ONCE
from service.app import create_app
from service.auth.keys import KeyEntry, KeyRing
from service.inference.engine import Engine
from service.inference.limits import FEW, LONG_S, ConcurrencyLimit
from service.server.graceful_shutdown import ACCEPTED_TOGETHER, DrainingServer
from service.server.protocol.http_protocol import HttpProtocol
from service.settings import Settings
from tests.service.auth.test_doors import make_key
from tests.service.releases import some_users
from tests.service.servers import ServiceProcess


class Busy:
    """An app whose one engine thread can be held at work."""

    def __init__(self, app: FastAPI, http: httpx.AsyncClient) -> None:
        self.app, self.http = app, http
        self.go_on = threading.Event()

    @property
    def engine(self) -> Engine:
        engine: Engine = self.app.state.running.releases.current.engine
        return engine

    async def hold(self) -> "asyncio.Task[bool]":
        begun = threading.Event()

        def stand_still() -> bool:
            begun.set()
            return self.go_on.wait(60)

        task = asyncio.create_task(self.engine.run("crowd", stand_still))
        await asyncio.to_thread(begun.wait, 60)
        return task

    def ask(self, user_id: str) -> "asyncio.Task[httpx.Response]":
        return asyncio.create_task(self.http.get(f"/recommend/{quote(user_id, safe='')}"))

    async def measured(self, name: str, admin_key: str = "") -> float:
        """A figure as Prometheus reads it."""
        lines = (await self.http.get("/metrics", headers={"X-API-Key": admin_key})).text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))

    async def until_waiting(self, count: int, admin_key: str = "") -> None:
        while await self.measured("isrf_model_queue", admin_key) < count:
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(tiny_release: Path, tmp_path: Path, **more: Any) -> AsyncIterator[Busy]:
    settings = Settings(
        releases_dir=tiny_release, state_dir=tmp_path, watch_releases_s=0, inference_threads=1, max_batch=2, **more
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as http,
    ):
        busy = Busy(app, http)
        yield busy
        busy.go_on.set()


@pytest.fixture
def users(tiny_release: Path) -> list[str]:
    return some_users(tiny_release / "current")


def check_refused(answer: httpx.Response, code: str = "overload.refused") -> None:
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert int(answer.headers["retry-after"]) >= 1


async def test_the_queue_has_an_end_and_kept_answers_are_given_all_the_while(
    tiny_release: Path, tmp_path: Path, users: list[str]
) -> None:
    async with running(tiny_release, tmp_path, max_waiting=3, deadline_s=60) as busy:
        kept = await busy.ask(users[0])
        assert kept.status_code == 200
        held = await busy.hold()
        waiting = [busy.ask(user_id) for user_id in users[1:4]]
        await busy.until_waiting(3)
        for user_id in users[4:9]:
            check_refused(await busy.ask(user_id))
        session = {"history": [kept.json()["items"][0]["item_id"]]}
        check_refused(await busy.http.post("/recommend", json=session))
        assert (await busy.ask(users[0])).json()["items"] == kept.json()["items"]
        busy.go_on.set()
        assert [(await one).status_code for one in waiting] == [200] * 3
        await held
        assert (await busy.ask(users[4])).status_code == 200, "and it is over"
        text = (await busy.http.get("/metrics")).text
        assert 'isrf_model_not_run_total{reason="refused"} 6.0' in text


async def test_who_waits_too_long_is_told_and_costs_nothing(
    tiny_release: Path, tmp_path: Path, users: list[str]
) -> None:
    async with running(tiny_release, tmp_path, deadline_s=0.05) as busy:
        assert (await busy.http.get("/popular")).status_code == 200
        held = await busy.hold()
        late = [busy.ask(user_id) for user_id in users[:2]]
        await busy.until_waiting(2)
        await asyncio.sleep(0.1)
        runs = await busy.measured("isrf_model_batch_size_count")
        busy.go_on.set()
        for one in late:
            check_refused(await one, "overload.expired")
        await held
        assert await busy.measured("isrf_model_batch_size_count") == runs


async def test_only_so_many_are_under_way_and_probes_are_answered(
    tiny_release: Path, tmp_path: Path, users: list[str]
) -> None:
    async with running(tiny_release, tmp_path, max_waiting=100, max_in_progress=4, deadline_s=60) as busy:
        held = await busy.hold()
        waiting = [busy.ask(user_id) for user_id in users[:4]]
        await busy.until_waiting(4)
        check_refused(await busy.http.get("/popular"))
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await busy.http.get(path)).status_code == 200, path
        busy.go_on.set()
        assert {(await one).status_code for one in waiting} == {200}
        await held
        assert (await busy.http.get("/popular")).status_code == 200


async def test_a_request_of_many_users_that_is_refused_leaves_no_work_behind(
    tiny_release: Path, tmp_path: Path, users: list[str]
) -> None:
    async with running(tiny_release, tmp_path, max_waiting=3, deadline_s=60) as busy:
        held = await busy.hold()
        check_refused(await busy.http.post("/recommend", json={"users": users[:20]}))
        at_work = [task.get_coro() for task in asyncio.all_tasks()]
        assert [one for one in at_work if "_for_users" in getattr(one, "__qualname__", "")] == []
        busy.go_on.set()
        await held
        assert (await busy.ask(users[0])).status_code == 200


async def test_each_user_of_a_batch_has_a_deadline_of_their_own(
    tiny_release: Path, tmp_path: Path, users: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that every run of the model moves on by a second: all users together take longer than one may."""
    runs: list[int] = []
    deadline_s = AT_ONCE + 1.0
    rank = Recommender.rank

    def rank_for_a_second(recommender: Recommender, requests: Sequence[RankingRequest], *more: Any) -> list[Ranked]:
        runs.append(len(requests))
        return rank(recommender, requests, *more)

    async with running(tiny_release, tmp_path, answer_cache_mb=0, deadline_s=deadline_s) as busy:
        monkeypatch.setattr(Recommender, "rank", rank_for_a_second)
        monkeypatch.setattr("service.inference.deadline.time", SimpleNamespace(monotonic=lambda: float(len(runs))))
        answer = await busy.http.post("/recommend", json={"users": users, "n": 3})
        assert answer.status_code == 200, answer.text
        assert [one["user_id"] for one in answer.json()["answers"]] == users
        assert len(runs) > deadline_s + 1, "or one deadline for all would have been enough"


def test_a_gate_refuses_whom_it_does_not_hold() -> None:
    gate = ConcurrencyLimit(2)
    with gate, gate, pytest.raises(OverloadError), gate:
        raise AssertionError("unreachable")
    with gate, gate:
        pass


def test_a_gate_is_full_with_few_inside_where_they_take_long() -> None:
    now = 0.0
    gate = ConcurrencyLimit(64, clock=lambda: now)
    with contextlib.ExitStack() as inside:
        for _ in range(FEW):
            inside.enter_context(gate)
        now = LONG_S / 2
        inside.enter_context(gate)
        now = 1.1 * LONG_S
        with pytest.raises(OverloadError), gate:
            raise AssertionError("unreachable")
    with contextlib.ExitStack() as inside:
        for _ in range(FEW):
            now += LONG_S
            inside.enter_context(gate)


@pytest.mark.slow
async def test_the_way_around_the_framework_gives_the_same_answers(
    tiny_release: Path, tmp_path: Path, users: list[str]
) -> None:
    """A query goes the long way once and the short way from then on."""
    async with running(tiny_release, tmp_path, answer_cache_mb=0, deadline_s=60) as busy:
        strange = ["a/b", "%2F", "a b", "日本語", "🦊"]
        for query in ("", "?n=3", "?n=3&explain=true", "?exclude=x,y", "?category=none&include_seen=true"):
            for user_id in [users[0], *strange]:
                path = f"/recommend/{quote(user_id, safe='')}{query}"
                first, second = [await busy.http.get(path, headers={"X-Request-ID": "r"}) for _ in range(2)]
                assert first.status_code == second.status_code == 200
                one, other = first.json(), second.json()
                # Nothing is kept here, so each list is one of its own.
                assert one["meta"].pop("recommendation_id") != other["meta"].pop("recommendation_id")
                assert one == other
                assert one["user_id"] == user_id
                assert {**first.headers, "etag": ""} == {**second.headers, "etag": ""}
        known = busy.app.state.queries
        assert known.get(b"n=3") is not None
        assert known.get(b"exclude=x,y") is None, "the catalogue has a say in it"
        for query in ("?n=0", "?m=3", "?n=3&n=3"):
            for _ in range(2):
                assert (await busy.http.get(f"/recommend/ann{query}")).status_code == 422
        for user_id in ("%00", "%ff", "x" * 600):
            assert (await busy.http.get(f"/recommend/{user_id}")).status_code == 422
        text = (await busy.http.get("/metrics")).text
        assert 'route="/recommend/{user_id:path}"' in text
        assert 'route="none"' not in text


@contextlib.asynccontextmanager
async def listening(tiny_release: Path, tmp_path: Path, **more: Any) -> AsyncIterator[tuple[Busy, int]]:
    """The app behind the protocol and the server that it is served with, and its port."""
    settings = Settings(
        releases_dir=tiny_release, state_dir=tmp_path, watch_releases_s=0, inference_threads=1, max_batch=1, **more
    )
    app = create_app(settings)
    server = DrainingServer(uvicorn.Config(app, port=0, http=HttpProtocol, log_config=None, access_log=False))
    runtime = asyncio.create_task(server.serve())
    while not server.started:
        assert not runtime.done(), runtime.result()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        busy = Busy(app, http)
        try:
            yield busy, port
        finally:
            busy.go_on.set()
            server.should_exit = True
            await runtime


async def test_a_key_is_looked_up_once_for_a_request(
    tiny_release: Path, tmp_path: Path, users: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(tmp_path / "keys.json", "write")
    looked: list[bytes] = []
    find = KeyRing.find

    def counted(ring: KeyRing, presented: bytes) -> KeyEntry | None:
        looked.append(presented)
        return find(ring, presented)

    monkeypatch.setattr(KeyRing, "find", counted)
    async with listening(tiny_release, tmp_path, api_keys_file=tmp_path / "keys.json") as (busy, _):
        answers = [
            await busy.http.get(f"/recommend/{quote(users[0], safe='')}", headers={"X-API-Key": key}),
            await busy.http.post("/recommend", json={"users": users[:2]}, headers={"X-API-Key": key}),
            await busy.http.get("/popular", headers={"X-API-Key": "isrf_wrong"}),
            await busy.http.get("/popular"),
        ]
    assert [one.status_code for one in answers] == [200, 200, 401, 401]
    assert looked == [key.encode(), key.encode(), b"isrf_wrong"]


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    return head, await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))


async def test_who_comes_when_the_model_is_full_is_turned_away_before_anything_is_made_of_it(
    tiny_release: Path, tmp_path: Path, users: list[str]
) -> None:
    async with listening(tiny_release, tmp_path, max_waiting=2, deadline_s=60) as (busy, _):
        kept = await busy.ask(users[0])
        assert kept.status_code == 200
        held = await busy.hold()
        # One could run, two may wait.
        inside = [busy.ask(user_id) for user_id in users[1:3]]
        await busy.until_waiting(2)
        with structlog.testing.capture_logs() as told:
            refused = [await busy.ask(user_id) for user_id in users[3:6]]
            sent = {"history": [kept.json()["items"][0]["item_id"]]}
            refused.append(await busy.http.post("/recommend", json=sent, headers={"X-Request-ID": "my-own"}))
            while not told:
                await asyncio.sleep(0.05)
        for one in refused:
            check_refused(one)
            assert one.json()["request_id"] == one.headers["x-request-id"]
            for name, value in kept.headers.items():
                if name not in {"cache-control", "content-length", "content-type", "date", "etag", "x-request-id"}:
                    assert one.headers[name] == value, name
        assert refused[-1].headers["x-request-id"] == "my-own"
        assert [(line["event"], line.get("count")) for line in told] == [("turned_away", 4)], "of one line each"
        assert (await busy.ask(users[0])).json()["items"] == kept.json()["items"]
        assert (await busy.http.get("/popular")).status_code == 200
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await busy.http.get(path)).status_code == 200, path
        text = (await busy.http.get("/metrics")).text
        assert 'isrf_problems_total{code="overload.refused"} 4.0' in text
        assert 'isrf_model_not_run_total{reason="refused"} 4.0' in text
        assert 'isrf_request_seconds_count{method="GET",route="none",status="503"} 3.0' in text
        busy.go_on.set()
        assert [(await one).status_code for one in inside] == [200] * 2
        await held
        assert (await busy.ask(users[4])).status_code == 200, "and it is over"


@pytest.mark.slow
async def test_callers_on_their_way_to_the_model_are_counted_too(
    tiny_release: Path, tmp_path: Path, users: list[str]
) -> None:
    """Those who come in one moment all find an empty queue."""
    async with listening(tiny_release, tmp_path, max_waiting=1, deadline_s=60) as (busy, port):
        lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        # Nothing is read in between: all are there in one turn of the loop.
        for (_, writer), user_id in zip(lines, users, strict=False):
            writer.write(f"GET /recommend/{quote(user_id, safe='')} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        heads = [(await read_answer(reader))[0] for reader, _ in lines]
        for _, writer in lines:
            writer.close()
        text = (await busy.http.get("/metrics")).text
        # One may run and one wait; what came in was answered, and all others were turned away at the door.
        assert 'isrf_request_seconds_count{method="GET",route="none",status="503"}' in text
        assert 'route="/recommend/{user_id:path}",status="503"' not in text
        assert {head.split(b" ", 2)[1] for head in heads} == {b"200", b"503"}
        for user_id in users[12:16]:
            assert (await busy.ask(user_id)).status_code == 200, "who was counted in was counted out"


async def test_callers_of_one_list_are_one_caller_to_the_model(
    tiny_release: Path, tmp_path: Path, users: list[str]
) -> None:
    """It is made once for all of them: a page that many open at once is no overload."""
    async with listening(tiny_release, tmp_path, max_waiting=2, deadline_s=60) as (busy, _):
        held = await busy.hold()
        alike = [busy.ask(users[0]) for _ in range(40)]
        await busy.until_waiting(1)
        other = busy.ask(users[1])
        await busy.until_waiting(2)
        check_refused(await busy.ask(users[2]))
        alike += [busy.ask(users[0]) for _ in range(10)]
        busy.go_on.set()
        answers = [await one for one in alike]
        assert {one.status_code for one in answers} == {200}
        assert len({json.dumps(one.json()["items"]) for one in answers}) == 1
        assert (await other).status_code == 200
        await held
        text = (await busy.http.get("/metrics")).text
        assert 'isrf_group_cache_total{result="computed"} 2.0' in text
        for user_id in users[3:7]:
            assert (await busy.ask(user_id)).status_code == 200, "who was counted in was counted out"


async def test_callers_who_share_nothing_are_counted_one_by_one(
    tiny_release: Path, tmp_path: Path, users: list[str]
) -> None:
    """Where no answer is kept, each of them has a list of their own made."""
    async with listening(tiny_release, tmp_path, max_waiting=2, deadline_s=60, answer_cache_mb=0) as (busy, _):
        held = await busy.hold()
        alike = [busy.ask(users[0]) for _ in range(2)]
        await busy.until_waiting(2)
        for _ in range(3):
            check_refused(await busy.ask(users[0]))
        busy.go_on.set()
        assert [(await one).status_code for one in alike] == [200] * 2
        await held


async def test_so_many_are_under_way_at_the_wire_and_a_refusal_leaves_the_connection_usable(
    tiny_release: Path, tmp_path: Path, users: list[str]
) -> None:
    async with listening(tiny_release, tmp_path, max_waiting=100, max_in_progress=2, deadline_s=60) as (busy, port):
        held = await busy.hold()
        inside = [busy.ask(user_id) for user_id in users[:2]]
        await busy.until_waiting(2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        post = b"POST /interactions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        for pieces in (
            [b"GET /popular HTTP/1.1\r\nHost: localhost\r\n\r\n"],
            [post + b"{}       "],
            [post, b"{}  ", b"     "],
        ):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.02)
            head, body = await read_answer(reader)
            assert head.startswith(b"HTTP/1.1 503 "), head
            assert b"connection: close" not in head
            assert json.loads(body)["code"] == "overload.refused"
        # Two at once: the second is answered after the first, and as any other.
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /popular HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_answer(reader))[0].startswith(b"HTTP/1.1 200 ")
        assert (await read_answer(reader))[0].startswith(b"HTTP/1.1 503 ")
        writer.close()
        for more in (b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"Transfer-Encoding: chunked\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /recommend HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n")
            head, _ = await read_answer(reader)
            assert head.startswith(b"HTTP/1.1 503 "), head
            assert b"connection: close" in head
            assert await reader.read() == b"", "what would follow cannot be told from a body"
            writer.close()
        busy.go_on.set()
        assert {(await one).status_code for one in inside} == {200}
        await held
        assert (await busy.http.get("/popular")).status_code == 200


def test_a_crowd_of_new_connections_is_heard_at_once() -> None:
    """An event loop that accepts one connection in each of its turns leaves the others unheard while it is busy."""
    count = 4 * ACCEPTED_TOGETHER

    async def nobody(_scope: object, _receive: object, _send: object) -> None:
        raise AssertionError("nothing is asked")

    async def turns() -> int:
        server = DrainingServer(
            uvicorn.Config(nobody, port=0, http=HttpProtocol, lifespan="off", log_config=None, loop="uvloop")
        )
        runtime = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        address = server.servers[0].sockets[0].getsockname()
        lines = [socket.create_connection(address, timeout=60) for _ in range(count)]
        taken = 0
        while len(server.server_state.connections) < count:
            taken += 1
            await asyncio.sleep(0)
        for line in lines:
            line.close()
        server.should_exit = True
        await runtime
        with socket.socket() as probe:
            assert probe.connect_ex(address) != 0, "every handle of the port is closed"
        return taken

    assert uvloop.run(turns()) < count / 2


@pytest.mark.slow
def test_a_head_that_does_not_come_is_not_waited_for(tiny_release: Path, tmp_path: Path) -> None:
    service = ServiceProcess(tiny_release, tmp_path)
    # The process serves with a shorter patience; the protocol is the one that it always has.
    patched = "import service.server.protocol.http_protocol as protocol, sys; protocol.HEAD_S = 0.2\n"
    patched += "from service.__main__ import main; sys.exit(main())"
    service.command[1:3] = ["-c", patched]
    service.start()
    try:
        for begun in (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n", b"G"):
            with socket.create_connection(("127.0.0.1", service.port), timeout=60) as line:
                line.sendall(begun)
                assert line.recv(4096).startswith(b"HTTP/1.1 408 ")
        for unused in (b"", b"\r\n"):
            with socket.create_connection(("127.0.0.1", service.port), timeout=60) as line:
                line.sendall(unused)
                assert line.recv(4096) == b"", "a browser's connection ahead of use gets no answer to nothing"
        assert httpx.get(f"{service.url}/livez").status_code == 200
    finally:
        service.kill()


@pytest.mark.slow
def test_what_lives_as_long_as_the_process_is_kept_out_of_the_garbage_collectors_way(
    tiny_release: Path, tmp_path: Path
) -> None:
    """It would look at all of it again and again, and nothing else would run meanwhile."""
    service = ServiceProcess(tiny_release, tmp_path)
    counted = "import atexit, gc, sys; atexit.register(lambda: print('apart:', gc.get_freeze_count(), flush=True)); "
    service.command[1:3] = ["-c", counted + "from service.__main__ import main; sys.exit(main())"]
    service.start()
    try:
        assert service.stop() == 0
        (count,) = [int(line.split()[1]) for line in service.log.splitlines() if line.startswith("apart:")]
        assert count > 50_000
    finally:
        service.kill()
