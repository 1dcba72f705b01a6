"""`docker compose` by a real engine: both images built, started from nothing, killed under writes, trained, upgraded.

Skipped where no engine is (Debian 13: docker.io, docker-compose, docker-buildx, debootstrap). Run by `make soak`; `-s`
shows how long each part took. It leaves nothing behind but the builder's cache and the base images.
"""

import csv
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.service.servers import PATIENCE_S, at_least, wait_until
from tests.soak.compose_project import ComposeProject, base_images, why_no_engine

ROOT = Path(__file__).parents[2]
CLIENTS = 4
WRITES = 300

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(3 * 3600),
    pytest.mark.skipif(bool(why_no_engine()), reason=f"needs a Docker engine with compose: {why_no_engine()}"),
]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ComposeProject]:
    opened = ComposeProject(tmp_path, base_images())
    try:
        yield opened
    except BaseException:
        print(opened.logs("redis", "keys", "demo", "service")[-5000:])
        raise
    finally:
        opened.close()


def say(what: str, began: float) -> None:
    print(f"compose: {what}, {time.monotonic() - began:.0f} s", flush=True)


class Writers:
    """Clients that post events, each pair of user and item once, until somebody does not answer."""

    def __init__(self, project: ComposeProject, items: list[str]) -> None:
        self._url, self._key, self._items = project.url, project.key(), items
        self.accepted: set[tuple[str, str]] = set()
        self._life = 0

    def start(self) -> list[threading.Thread]:
        self._life += 1
        threads = [threading.Thread(target=self._write, args=(self._life, number)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        return threads

    def _write(self, life: int, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE_S, headers={"X-API-Key": self._key}) as http:
            for k in range(1_000_000):
                user, item = f"writer-{life}-{number}-{k // 20}", self._items[k % 20]
                event = {"user_id": user, "item_id": item, "event": "view", "event_id": f"{user}-{item}"}
                try:
                    answer = http.post("/interactions", json={"events": [event]})
                except httpx.TransportError:
                    return
                if answer.status_code == 503:
                    return
                if answer.json()["accepted"] == 1:
                    self.accepted.add((user, item))


def rows(project: ComposeProject) -> Counter[tuple[str, str]]:
    with (project.data / "interactions.csv").open(newline="") as file:
        return Counter((row["user_id"], row["item_id"]) for row in csv.DictReader(file))


def source_of(project: ComposeProject, user: str) -> str:
    answer = httpx.get(f"{project.url}/recommend/{user}", headers={"X-API-Key": project.key()}, timeout=PATIENCE_S)
    found: str = answer.raise_for_status().json()["meta"]["source"]
    return found


def check_smoke(project: ComposeProject) -> None:
    """The calls of `examples/smoke.py`, whose shopper is the demo shop's."""
    command = [sys.executable, str(ROOT / "examples/smoke.py"), "--url", project.url, "--data", str(project.data)]
    ended = subprocess.run(
        command, env=os.environ | {"ISRF_API_KEY": project.key()}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_compose_builds_starts_survives_and_learns(project: ComposeProject) -> None:
    began = time.monotonic()
    project.build()
    say(f"images built, service {project.size_mb('service')} MB, offline {project.size_mb('offline')} MB", began)

    began = time.monotonic()
    project.up()
    say("first start from nothing, with a training of the demo shop", began)
    key, first = project.key(), project.readiness()["release_id"]
    for name in ("interactions.csv", "items.jsonl"):
        project.compose("cp", f"demo:/var/lib/isrf/demo/{name}", str(project.data / name))
        (project.data / name).chmod(0o666)
    check_smoke(project)

    began = time.monotonic()
    project.compose("down")
    project.up()
    say("down and second start", began)
    assert (project.key(), project.readiness()["release_id"]) == (key, first), "nothing was made anew"

    began = time.monotonic()
    with (project.data / "interactions.csv").open(newline="") as file:
        items = sorted({row["item_id"] for row in csv.DictReader(file)})[:20]
    writers = Writers(project, items)
    for victim in ("service", "redis"):
        _die_under_writes(project, writers, partial(project.kill, victim))
        restarts = project.container(victim)["RestartCount"]
        _die_under_writes(project, writers, partial(project.crash, victim))
        assert project.container(victim)["RestartCount"] > restarts, "the engine started it again"
    accepted = set(writers.accepted)
    say(f"killed and crashed under writes, {len(accepted)} events accepted", began)
    assert source_of(project, max(accepted)[0]) == "sequence"

    began = time.monotonic()
    before = rows(project)
    project.train("ingest", "--from-redis", "env", "--data", "/data")
    learned = rows(project) - before
    assert accepted <= set(learned), f"{len(accepted - set(learned))} accepted events are missing"
    assert set(learned.values()) == {1}, "no event counts twice"
    say(f"`ingest --from-redis env` added {len(learned)} events, none is missing", began)

    began = time.monotonic()
    project.train()
    wait_until(lambda: project.readiness().get("release_id") not in (None, first), what="the service follows")
    say("trained on what Redis held; the service follows", began)


def test_an_upgrade_keeps_keys_and_what_was_accepted(project: ComposeProject, tiny_release: Path) -> None:
    project.build()
    project.bring(tiny_release)
    project.up()
    key, release, old = project.key(), project.readiness()["release_id"], project.container("service")["Image"]
    items = [json.loads(line)["item_id"] for line in (tiny_release / "current/items.jsonl").read_text().splitlines()]
    events = [{"user_id": "ann", "item_id": item, "event_id": f"before-{item}"} for item in items[:3]]
    headers = {"X-API-Key": key}
    posted = httpx.post(f"{project.url}/interactions", json={"events": events}, headers=headers, timeout=PATIENCE_S)
    assert posted.json()["accepted"] == 3
    began = time.monotonic()
    project.mark("second")
    project.build()
    project.up()
    say("upgraded to another image", began)
    assert project.container("service")["Image"] != old
    assert (project.key(), project.readiness()["release_id"]) == (key, release)
    assert source_of(project, "ann") == "sequence", "known from Redis alone"
    again = httpx.post(f"{project.url}/interactions", json={"events": events}, headers=headers, timeout=PATIENCE_S)
    assert again.json()["duplicates"] == 3


def _die_under_writes(project: ComposeProject, writers: Writers, die: Callable[[], None]) -> None:
    wanted = len(writers.accepted) + WRITES
    threads = writers.start()
    wait_until(partial(at_least, wanted, writers.accepted), what="the writes")
    die()
    for thread in threads:
        thread.join()
    project.compose("up", "--detach", "--no-build")
    project.wait_until_ready()
