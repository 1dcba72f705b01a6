"""Callers without a key: whatever they hold or leave unread, who has a key finds every place."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.inference.admission import MAX_VISITORS_OF_ONE
from service.state.connect import open_store
from service.sync.store_probe import MAX_WAITING, StoreProbe
from service.telemetry.metrics import Metrics
from tests.service.auth.test_doors import Guarded, make_key
from tests.service.hostile import Caller, guarded, head, many, with_constants
from tests.service.releases import some_users
from tests.service.server.test_overload import listening
from tests.service.servers import AS_SERVED, RedisServer, settings_for, wait_until

PLACES = 16
"""Requests that may be under way."""


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """With few places; who does not read is not cut off while a test looks."""
    process = guarded(tiny_release, tmp_path_factory.mktemp("few"), {"protocol.transport.STALL_S": 120.0})
    process.environment["ISRF_MAX_IN_PROGRESS"] = str(PLACES)
    yield process.start()
    process.kill()


@contextmanager
def hanging(server: RedisServer) -> Iterator[None]:
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def under_way(service: Guarded) -> float:
    text = service.call("GET", "/metrics", service.keys["admin"]).text
    return float(text.partition("\nisrf_requests_in_progress ")[2].partition("\n")[0])


def check_answered(service: Guarded, count: int = 5) -> None:
    for role in ("read", "write"):
        answers = [service.call("GET", "/popular", service.keys[role]) for _ in range(count)]
        assert [one.status_code for one in answers] == [200] * count, answers[-1].text


@pytest.mark.slow
@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/popular", 401), ("/nothing", 401)])
def test_who_does_not_read_what_needs_no_key_takes_nobody_elses_place(service: Guarded, path: str, status: int) -> None:
    with Caller(service) as caller:
        assert caller.send(head("GET", path)).answer().status == status
    with many(service, 2 * PLACES, head("GET", path) * 900, receive_bytes=4096):
        wait_until(lambda: under_way(service) > PLACES + 4, what="answers that nobody reads")
        check_answered(service)


def test_visitors_have_places_of_their_own(service: Guarded) -> None:
    with many(service, 2 * PLACES, *[head("GET", "/openapi.json")] * 200, receive_bytes=4096):
        wait_until(lambda: under_way(service) > MAX_VISITORS_OF_ONE, what="visitors who read nothing")
        check_answered(service)
        answers = [service.call("GET", "/openapi.json", None) for _ in range(2)]
        assert {one.json()["code"] for one in answers} == {"overload.too_many_at_once"}, "and these have an end"


def test_probes_of_a_store_that_hangs_take_nobody_elses_place(
    tiny_release: Path, tmp_path: Path, own_redis: RedisServer
) -> None:
    service = Guarded(tiny_release, tmp_path / "s", REDIS_URL=own_redis.url, ISRF_MAX_IN_PROGRESS=str(PLACES))
    with_constants(service, {"service.state.redis.store.PROBE_S": 30.0})
    service.start()
    try:
        with hanging(own_redis), many(service, 3 * MAX_WAITING, head("GET", "/readyz")) as callers:
            wait_until(lambda: under_way(service) > 2 * PLACES, what="probes that wait")
            check_answered(service)
            assert httpx.get(f"{service.url}/livez").status_code == 200
            last = callers[-1].answer()
            assert last.status == 200, "who comes when enough others wait is told what was found last"
        assert b'"ready"' in last.body
        wait_until(lambda: under_way(service) == 1, what="the end of the probes")
    finally:
        service.kill()


async def test_the_store_is_asked_once_for_all_who_ask_together(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(settings_for(own_redis, tmp_path, **AS_SERVED))
    asked, ping = 0, store.ping

    async def counted() -> None:
        nonlocal asked
        asked += 1
        await ping()

    monkeypatch.setattr(store, "ping", counted)
    probe = StoreProbe(store, Metrics())
    assert await probe.is_up()
    with hanging(own_redis):
        waiting = [asyncio.create_task(probe.is_up()) for _ in range(MAX_WAITING + 5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1:] == [False] * (MAX_WAITING - 1) + [True] * 5, "the last were told what was true before"
        assert asked == 2
        assert not await probe.is_up()
    while not await probe.is_up():
        await asyncio.sleep(0.02)
    await probe.close()
    await store.close()


async def test_who_has_no_key_is_no_other_caller_at_the_model(tiny_release: Path, tmp_path: Path) -> None:
    """One key has all of the model while no other key calls."""
    users = some_users(tiny_release / "current")
    key, admin_key = (make_key(tmp_path / "keys.json", role) for role in ("read", "admin"))
    async with listening(
        tiny_release, tmp_path / "s", max_waiting=8, deadline_s=60, api_keys_file=tmp_path / "keys.json"
    ) as (busy, _):
        keyed = {"X-API-Key": key}
        held = await busy.hold()

        async def stranger() -> None:
            for presented in ({}, {"X-API-Key": "wrong"}):
                assert (await busy.http.get(f"/recommend/{users[0]}", headers=presented)).status_code == 401

        inside = []
        for number, user_id in enumerate(users[1:9]):
            await stranger()
            inside.append(asyncio.create_task(busy.http.get(f"/recommend/{user_id}", headers=keyed)))
            await busy.until_waiting(number + 1, admin_key)
        busy.go_on.set()
        assert [(await one).status_code for one in inside] == [200] * 8
        await held
