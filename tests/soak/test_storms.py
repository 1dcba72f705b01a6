"""Long storms: the service killed 20 times, Redis 5 times and gone for a minute. Run by `make soak`."""

import json
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import httpx
import pytest

from isrf.contract.event_log import NUM_BUCKETS, read_event, stream_key
from offline.commands.loop_back.take_in import take_in
from tests.service.servers import PATIENCE_S, RedisServer, ServiceProcess, at_least, check_soon, wait_until

pytestmark = pytest.mark.soak

CLIENTS = 8


class Storm:
    """Clients that post single events for as long as somebody answers, and remember what was accepted."""

    def __init__(self, url: str, item_ids: list[str]) -> None:
        self._url, self._items = url, item_ids
        self.accepted: set[tuple[str, str]] = set()
        self._life = 0

    def start(self) -> list[threading.Thread]:
        self._life += 1
        threads = [threading.Thread(target=self._client, args=(self._life, number)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        return threads

    def _client(self, life: int, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE_S) as http:
            for k in range(1_000_000):
                name = f"u{number}-{k % 10}", f"{life}-{number}-{k}"
                posted = {"user_id": name[0], "item_id": self._items[k % 300], "event_id": name[1], "event": "view"}
                try:
                    answer = http.post("/interactions", json={"events": [posted]})
                except httpx.TransportError:
                    return
                if answer.status_code == 503:
                    return
                if answer.json()["accepted"] == 1:
                    self.accepted.add(name)


def items_of(demo_release: Path) -> list[str]:
    lines = (demo_release / "current" / "items.jsonl").read_text().splitlines()
    return [json.loads(line)["item_id"] for line in lines]


def kept(server: RedisServer) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    with server.client() as client:
        for bucket in range(NUM_BUCKETS):
            for _, fields in client.xrange(stream_key(bucket)):
                event = read_event(fields[b"e"])
                found[event.user_id, event.event_id] += 1
    return found


@pytest.mark.parametrize(("victim", "lives"), [("service", 20), ("redis", 5)])
def test_kill_9_in_a_storm_loses_no_accepted_event_and_doubles_none(
    demo_release: Path, tmp_path: Path, own_redis: RedisServer, victim: str, lives: int
) -> None:
    process = ServiceProcess(demo_release, tmp_path / "service", REDIS_URL=own_redis.url).start()
    storm = Storm(process.url, items_of(demo_release))
    try:
        for _ in range(lives):
            wanted = len(storm.accepted) + 400
            threads = storm.start()
            wait_until(partial(at_least, wanted, storm.accepted), what="the storm")
            (process if victim == "service" else own_redis).kill()
            for thread in threads:
                thread.join()
            (process if victim == "service" else own_redis).start()
            wait_until(lambda: httpx.get(f"{process.url}/readyz").json()["status"] == "ready", what="recovery")
        held = kept(own_redis)
        assert storm.accepted <= set(held)
        assert set(held.values()) == {1}
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "interactions.csv").write_text("user_id,item_id,timestamp\nann,cup,1\n")
        assert take_in(own_redis.url, tmp_path / "data").events == sum(held.values())
    finally:
        process.kill()


def test_redis_gone_for_a_minute(demo_release: Path, tmp_path: Path, own_redis: RedisServer) -> None:
    process = ServiceProcess(demo_release, tmp_path / "service", REDIS_URL=own_redis.url).start()
    item = items_of(demo_release)[0]
    try:
        with httpx.Client(base_url=process.url, timeout=PATIENCE_S) as http:
            assert http.post("/interactions", json={"events": [{"user_id": "u", "item_id": item}]}).is_success
            own_redis.kill()
            taken, end = [], time.monotonic() + 60
            while time.monotonic() < end:
                began = time.monotonic()
                answer = http.get("/recommend/u")
                taken.append(time.monotonic() - began)
                assert answer.json()["meta"]["source"].startswith("bundle:")
                assert (
                    http.post("/interactions", json={"events": [{"user_id": "u", "item_id": item}]}).status_code == 503
                )
                time.sleep(0.05)
            check_soon(taken, wait_s=1.0)
            own_redis.start()
            wait_until(lambda: http.get("/readyz").json()["status"] == "ready", what="recovery")
            assert http.get("/recommend/u").json()["meta"]["source"] == "sequence"
    finally:
        process.kill()
