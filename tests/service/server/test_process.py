"""The service as a process: starting, stopping, being killed; with Redis gone, and back; several replicas."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.service.releases import shopper_of
from tests.service.servers import PATIENCE_S, RedisServer, ServiceProcess, at_least, check_soon, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def shopper(tiny_release: Path) -> str:
    return shopper_of(tiny_release / "current")


@pytest.fixture
def catalogue(tiny_release: Path) -> list[str]:
    lines = (tiny_release / "current" / "items.jsonl").read_text().splitlines()
    return [json.loads(line)["item_id"] for line in lines]


@pytest.fixture
def service(tiny_release: Path, tmp_path: Path) -> Iterator[ServiceProcess]:
    process = ServiceProcess(tiny_release, tmp_path / "service")
    yield process
    process.kill()


def test_the_service_imports_nothing_of_the_offline_half() -> None:
    code = (
        "import sys, service.app, service.__main__\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'offline'}\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & heavy), 'isrf.nn' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[] False"


def test_a_call_of_the_model_or_of_faiss_takes_one_thread() -> None:
    """FAISS in a new thread too: what is set after OpenMP was loaded holds for the thread that set it alone."""
    code = (
        "import service.app, faiss, threading\n"
        "threading.Thread(target=lambda: print(faiss.omp_get_max_threads())).start()"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ended.stdout.strip() == "1"


def test_a_folder_without_release_ends_the_command_with_3(tmp_path: Path) -> None:
    code, error = ServiceProcess(tmp_path, tmp_path).refused()
    assert (code, error.count("\n")) == (3, 1)
    assert "error: bundle.no_release: " in error


def test_a_broken_release_is_refused_without_a_traceback(tiny_release: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree((tiny_release / "current").resolve(), tmp_path / "broken")
    (tmp_path / "broken" / "popularity.npy").write_bytes(b"")
    code, error = ServiceProcess(tmp_path / "broken", tmp_path).refused()
    assert code == 3
    assert error.splitlines()[-1].startswith("error: bundle.hash_mismatch: popularity.npy")
    assert "Traceback" not in error


def test_a_second_process_on_one_state_folder_is_refused(tiny_release: Path, service: ServiceProcess) -> None:
    service.start()
    second = ServiceProcess(tiny_release, service.folder)
    code, error = second.refused()
    assert code == 3
    assert "store.locked" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert httpx.get(f"{service.url}/readyz", timeout=PATIENCE_S).json()["status"] == "ready"


@pytest.mark.parametrize(("sent", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_a_signal_lets_accepted_requests_finish_and_ends_with_0(
    redis_server: RedisServer,
    service: ServiceProcess,
    shopper: str,
    sent: signal.Signals,
    workers: int,
) -> None:
    if workers > 1:
        service.command += ["--workers", str(workers)]
        service.environment["REDIS_URL"] = redis_server.url
    service.start()
    statuses: list[int] = []
    dropped: list[Exception] = []

    def client() -> None:
        while True:
            try:
                # A connection for each: one that was accepted must be answered, one that never was is refused or reset.
                statuses.append(httpx.get(f"{service.url}/recommend/{shopper}", timeout=PATIENCE_S).status_code)
            except (httpx.ConnectError, httpx.ReadError):
                return
            except httpx.TransportError as error:
                dropped.append(error)
                return

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    wait_until(lambda: len(statuses) > 40, what="load")
    assert service.stop(sent) == 0
    for thread in clients:
        thread.join()
    assert (set(statuses), dropped) == ({200}, [])


def test_a_redis_url_that_is_none_is_refused_without_quoting_it(tiny_release: Path, tmp_path: Path) -> None:
    for url in ("nonsense", "redis://user:secret/word@localhost:x/0"):
        code, error = ServiceProcess(tiny_release, tmp_path, REDIS_URL=url).refused()
        assert (code, "config.redis_url" in error.splitlines()[-1]) == (3, True)
        assert "secret" not in error


def test_kill_9_loses_no_accepted_event_over_http(service: ServiceProcess, catalogue: list[str]) -> None:
    accepted: list[dict[str, str]] = []
    for life in range(2):
        service.start()

        def client(number: int, life: int = life) -> None:
            with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as http:
                for k in range(100_000):
                    event_id = f"{life}-{number}-{k}"
                    posted = {"user_id": f"u{number}", "item_id": catalogue[k % 500], "event_id": event_id}
                    try:
                        answer = http.post("/interactions", json={"events": [posted]})
                    except httpx.TransportError:
                        return
                    if answer.json()["results"][0]["status"] == "accepted":
                        accepted.append(posted)

        clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        wanted = len(accepted) + 100
        for thread in clients:
            thread.start()
        wait_until(partial(at_least, wanted, accepted), what="the storm")
        service.kill()
        for thread in clients:
            thread.join()
    service.start()
    with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as http:
        for start in range(0, len(accepted), 500):
            body = http.post("/interactions", json={"events": accepted[start : start + 500]}).json()
            assert (body["accepted"], body["refused"]) == (0, 0)


def test_reads_go_on_without_redis_and_all_comes_back(
    tiny_release: Path, tmp_path: Path, own_redis: RedisServer, shopper: str, catalogue: list[str]
) -> None:
    process = ServiceProcess(tiny_release, tmp_path / "service", REDIS_URL=own_redis.url).start()
    try:
        with httpx.Client(base_url=process.url, timeout=PATIENCE_S) as http:
            first = http.get(f"/recommend/{shopper}").json()
            bought = first["items"][0]["item_id"]
            event = {"user_id": shopper, "item_id": bought, "event_id": "e1"}
            assert http.post("/interactions", json={"events": [event]}).json()["accepted"] == 1
            own_redis.kill()
            taken = []
            for _ in range(15):
                began = time.monotonic()
                answer = http.get(f"/recommend/{shopper}")
                taken.append(time.monotonic() - began)
                body = answer.json()
                assert (body["meta"]["source"], len(body["items"])) == ("bundle:sequence", 10)
                assert [warning["code"] for warning in body["warnings"]] == ["store_unavailable"]
            assert body["items"] == first["items"]
            check_soon(taken, wait_s=1.0)
            assert http.get("/recommend/nobody").json()["meta"]["source"] == "bundle:popular"
            refused = http.post("/interactions", json={"events": [event]})
            assert (refused.status_code, refused.json()["code"]) == (503, "store.unavailable")
            assert int(refused.headers["retry-after"]) >= 1
            assert http.get("/readyz").json()["status"] == "degraded"
            assert http.get("/users/" + shopper).json()["meta"]["source"] == "bundle"
            own_redis.start()
            wait_until(lambda: http.get("/readyz").json()["status"] == "ready", what="recovery")
            body = http.get(f"/recommend/{shopper}").json()
            assert body["meta"]["source"] == "sequence"
            assert bought not in [item["item_id"] for item in body["items"]]
            assert http.post("/interactions", json={"events": [event]}).json()["duplicates"] == 1
        assert own_redis.url not in process.log
    finally:
        process.kill()


def test_a_service_starts_without_redis_and_finds_it_later(
    tiny_release: Path, tmp_path: Path, own_redis: RedisServer, shopper: str
) -> None:
    own_redis.kill()
    process = ServiceProcess(tiny_release, tmp_path / "service", REDIS_URL=own_redis.url).start()
    try:
        assert (
            httpx.get(f"{process.url}/recommend/{shopper}", timeout=PATIENCE_S).json()["meta"]["source"]
            == "bundle:sequence"
        )
        own_redis.start()
        wait_until(
            lambda: httpx.get(f"{process.url}/readyz", timeout=PATIENCE_S).json()["status"] == "ready", what="recovery"
        )
        assert (
            httpx.get(f"{process.url}/recommend/{shopper}", timeout=PATIENCE_S).json()["meta"]["source"] == "sequence"
        )
    finally:
        process.kill()


def test_what_one_worker_accepted_every_other_shows(
    tiny_release: Path, tmp_path: Path, redis_server: RedisServer, catalogue: list[str]
) -> None:
    with redis_server.client() as client:
        client.flushall()
    processes = [
        ServiceProcess(tiny_release, tmp_path / "one", REDIS_URL=redis_server.url),
        ServiceProcess(tiny_release, tmp_path / "two", "--workers", "2", REDIS_URL=redis_server.url),
    ]
    try:
        urls = [process.start().url for process in processes]
        for k in range(20):
            someone = uuid.uuid4().hex
            posted = {"user_id": someone, "item_id": catalogue[k]}
            # A connection of its own per request: the two workers take turns by accident, not by rule.
            assert (
                httpx.post(f"{urls[k % 2]}/interactions", json={"events": [posted]}, timeout=PATIENCE_S).json()[
                    "accepted"
                ]
                == 1
            )
            assert httpx.get(f"{urls[1 - k % 2]}/users/{someone}", timeout=PATIENCE_S).json()["history"] == [
                catalogue[k]
            ]
        text = httpx.get(f"{urls[1]}/metrics", timeout=PATIENCE_S).text
        counted = next(line for line in text.splitlines() if line.startswith("isrf_events_total"))
        assert counted.endswith(" 10.0"), "both workers' events, whichever of them answers"
        assert processes[1].stop() == 0
    finally:
        for process in processes:
            process.kill()


def test_a_hundred_reads_at_once_compute_the_interests_once(
    service: ServiceProcess, shopper: str, catalogue: list[str]
) -> None:
    service.start()

    def computed() -> float:
        text = httpx.get(f"{service.url}/metrics", timeout=PATIENCE_S).text
        lines = [line for line in text.splitlines() if line.startswith('isrf_group_cache_total{result="computed"}')]
        return float(lines[0].split()[-1]) if lines else 0.0

    before = computed()
    answers: list[str] = []

    def read() -> None:
        answers.append(json.dumps(httpx.get(f"{service.url}/recommend/{shopper}", timeout=PATIENCE_S).json()["items"]))

    threads = [threading.Thread(target=read) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 100
    assert len(set(answers)) == 1
    assert computed() - before == 1
