"""More than can be answered: refused at once and cheaply, nothing queued for ever, and over as soon as the load is."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from isrf.errors import OverloadError
from service.app import create_app
from service.engine import Engine
from service.load import Gate
from service.settings import Settings
from tests.service.releases import some_users
from tests.service.servers import ServiceProcess


class Busy:
    """An app whose one engine thread can be held at work."""

    def __init__(self, app: FastAPI, http: httpx.AsyncClient) -> None:
        self.app, self.http = app, http
        self.go_on = threading.Event()

    @property
    def engine(self) -> Engine:
        engine: Engine = self.app.state.running.releases.current._engine
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

    async def until_waiting(self, count: int) -> None:
        while len(self.engine._batches._waiting) < count:
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(demo_release: Path, tmp_path: Path, **more: Any) -> AsyncIterator[Busy]:
    settings = Settings(
        releases_dir=demo_release, state_dir=tmp_path, watch_releases_s=0, inference_threads=1, max_batch=2, **more
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as http,
    ):
        busy = Busy(app, http)
        yield busy
        busy.go_on.set()


@pytest.fixture
def users(demo_release: Path) -> list[str]:
    return some_users(demo_release / "current")


def check_refused(answer: httpx.Response, code: str = "overload.refused") -> None:
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert int(answer.headers["retry-after"]) >= 1


async def test_the_queue_has_an_end_and_kept_answers_are_given_all_the_while(
    demo_release: Path, tmp_path: Path, users: list[str]
) -> None:
    async with running(demo_release, tmp_path, max_waiting=3, deadline_s=60) as busy:
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
    demo_release: Path, tmp_path: Path, users: list[str]
) -> None:
    async with running(demo_release, tmp_path, deadline_s=0.05) as busy:
        assert (await busy.http.get("/popular")).status_code == 200
        held = await busy.hold()
        late = [busy.ask(user_id) for user_id in users[:2]]
        await busy.until_waiting(2)
        await asyncio.sleep(0.1)
        runs = busy.engine._metrics.batch_size.collect()
        busy.go_on.set()
        for one in late:
            check_refused(await one, "overload.expired")
        await held
        assert busy.engine._metrics.batch_size.collect() == runs


async def test_only_so_many_are_under_way_and_probes_are_answered(
    demo_release: Path, tmp_path: Path, users: list[str]
) -> None:
    async with running(demo_release, tmp_path, max_waiting=100, max_in_progress=4, deadline_s=60) as busy:
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


async def test_a_request_of_many_users_waits_for_its_own_turn(
    demo_release: Path, tmp_path: Path, users: list[str]
) -> None:
    async with running(demo_release, tmp_path) as busy:
        answer = await busy.http.post("/recommend", json={"users": users[:20], "n": 3})
        assert answer.status_code == 200
        assert [one["user_id"] for one in answer.json()["answers"]] == users[:20]


def test_a_gate_refuses_whom_it_does_not_hold() -> None:
    gate = Gate(2)
    with gate, gate, pytest.raises(OverloadError), gate:
        raise AssertionError("unreachable")
    with gate, gate:
        pass


async def test_the_way_around_the_framework_gives_the_same_answers(
    demo_release: Path, tmp_path: Path, users: list[str]
) -> None:
    """A query goes the long way once and the short way from then on."""
    async with running(demo_release, tmp_path, answer_cache_mb=0) as busy:
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
                assert dict(first.headers) == dict(second.headers)
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


def test_a_head_that_does_not_come_is_not_waited_for(demo_release: Path, tmp_path: Path) -> None:
    service = ServiceProcess(demo_release, tmp_path)
    # The process serves with a shorter patience; the protocol is the one that it always has.
    patched = "import service.doors.wire as w, sys; w.HEAD_S = 0.2; from service.__main__ import main; sys.exit(main())"
    service.command[1:3] = ["-c", patched]
    service.start()
    try:
        for begun in (b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n"):
            with socket.create_connection(("127.0.0.1", service.port), timeout=60) as line:
                line.sendall(begun)
                assert line.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert httpx.get(f"{service.url}/livez").status_code == 200
    finally:
        service.kill()
