"""The first signal drains, a second one ends: callers who are being answered are, whatever connection they came on."""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.releases import shopper_of
from tests.service.servers import PATIENCE_S, RedisServer, ServiceProcess, SlowProxy, wait_until

HANGS_S = 600.0


@pytest.mark.parametrize(
    ("sent", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2), (signal.SIGINT, 2)]
)
def test_callers_on_connections_that_they_keep_lose_no_answer(
    tiny_release: Path, tmp_path: Path, redis_server: RedisServer, sent: signal.Signals, workers: int
) -> None:
    """Each is told on its last answer that the connection ends, and finds the door closed when it knocks again."""
    service = ServiceProcess(
        tiny_release, tmp_path / "service", "--workers", str(workers), REDIS_URL=redis_server.url
    ).start()
    shopper = shopper_of(tiny_release / "current")
    statuses: list[int] = []
    last: list[str | None] = []
    lost: list[Exception] = []

    def client() -> None:
        with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as http:
            kept = None
            while True:
                try:
                    answer = http.get(f"/recommend/{shopper}")
                except httpx.ConnectError:
                    last.append(kept)
                    return
                except httpx.ReadError as error:
                    # A new connection that nobody had accepted when the door closed is reset: no call was begun on it.
                    if kept != "close":
                        lost.append(error)
                    return
                except httpx.TransportError as error:
                    lost.append(error)
                    return
                statuses.append(answer.status_code)
                kept = answer.headers.get("connection")

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    try:
        wait_until(lambda: len(statuses) > 40, what="load")
        assert service.stop(sent) == 0
        for thread in clients:
            thread.join()
        assert (set(statuses), lost) == ({200}, [])
        assert set(last) <= {"close"}, "who finds the door closed was told before"
    finally:
        service.kill()


@pytest.fixture
def stuck(tiny_release: Path, tmp_path: Path, own_redis: RedisServer) -> Iterator[tuple[ServiceProcess, SlowProxy]]:
    """A service whose Redis can be made to take longer than anybody waits."""
    proxy = SlowProxy(own_redis.port)
    # Nothing else asks meanwhile: it is the write that hangs.
    waits = {"ISRF_REDIS_WRITE_TIMEOUT_S": "60", "ISRF_ITEMS_POLL_S": "60"}
    service = ServiceProcess(tiny_release, tmp_path / "service", REDIS_URL=proxy.url, **waits)
    yield service, proxy
    service.kill()
    proxy.close()


def under_way(service: ServiceProcess) -> float:
    """Requests that the service is about to answer, this one among them."""
    text = httpx.get(f"{service.url}/metrics").text
    return sum(
        float(number) for number in re.findall(r"^isrf_requests_in_progress(?:{.*})? (\S+)$", text, re.MULTILINE)
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_what_would_take_long(
    stuck: tuple[ServiceProcess, SlowProxy], tiny_release: Path, workers: int, second: signal.Signals
) -> None:
    service, proxy = stuck
    service.command += ["--workers", str(workers)]
    service.start()
    item = httpx.get(f"{service.url}/popular").json()["items"][0]["item_id"]
    proxy.delay_s = HANGS_S
    ended: list[object] = []

    def write() -> None:
        try:
            body = {"events": [{"user_id": "ann", "item_id": item}]}
            ended.append(httpx.post(f"{service.url}/interactions", json=body, timeout=PATIENCE_S).status_code)
        except httpx.TransportError as error:
            ended.append(error)

    writing = threading.Thread(target=write)
    writing.start()
    wait_until(lambda: under_way(service) > 1 and proxy.waiting > 0, what="the write to hang")
    assert service.process is not None
    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not service.is_listening(), what="the door to close")
    assert service.exit_code() is None
    assert ended == []
    # Long before the write would have given up (60 s) or the grace (30 s) ended.
    service.process.send_signal(second)
    assert service.process.wait(timeout=20) == 1
    writing.join()


def test_workers_end_with_a_supervisor_that_was_killed(
    tiny_release: Path, tmp_path: Path, redis_server: RedisServer
) -> None:
    service = ServiceProcess(tiny_release, tmp_path / "service", "--workers", "2", REDIS_URL=redis_server.url).start()
    # One that is still opening the release would hear of it afterwards only.
    wait_until(lambda: service.log.count('"event": "ready"') == 2, what="the second worker")
    assert service.process is not None
    service.process.kill()
    service.process.wait()
    try:
        wait_until(lambda: not service.is_listening(), what="the workers' end")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(service.process.pid, signal.SIGKILL)
