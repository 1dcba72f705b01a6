"""Another release takes the served one's place: nothing dropped, nothing mixed, nothing served that is not sound."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from tests.service.load import Load
from tests.service.releases import (
    MARK,
    change_manifest,
    id_of,
    named_copy,
    point,
    seal,
    shopper_of,
    some_users,
    truncated,
    two_releases,
)
from tests.service.servers import PATIENCE_S, RedisServer, ServiceProcess, wait_until
from tests.service.told import counted, reload, served

SWITCHES = 5


@pytest.fixture
def releases(tiny_release: Path, tmp_path: Path) -> Path:
    return two_releases(tiny_release / "current", tmp_path / "releases")


@pytest.fixture
def service(releases: Path, tmp_path: Path) -> Iterator[ServiceProcess]:
    """Looks at `current` only when told to."""
    process = ServiceProcess(releases, tmp_path / "service", ISRF_WATCH_RELEASES_S="0")
    yield process
    process.kill()


def switch_under_load(service: ServiceProcess, releases: Path, switches: int, each: Callable[[], None]) -> Load:
    """`r-b`, `r-a`, `r-b`, …; `each` is called after each switch."""
    lines = (releases / "r-a" / "items.jsonl").read_text().splitlines()[:3]
    session = [json.loads(line)["item_id"] for line in lines]
    session += [item + MARK for item in session]
    with Load(service.url, some_users(releases / "r-a"), session) as load:
        load.await_answers(id_of(releases / "r-a"), 20)
        for k in range(switches):
            name = ("r-b", "r-a")[k % 2]
            release_id = id_of(releases / name)
            point(releases, name)
            told = reload(service)
            assert (told.status_code, told.json()["status"], told.json()["release_id"]) == (200, "switched", release_id)
            load.await_answers(release_id, 20)
            each()
    return load


def check_unmixed(load: Load, releases: Path) -> None:
    a, b = id_of(releases / "r-a"), id_of(releases / "r-b")
    assert load.wrong == []
    for release_id, items in load.answers:
        assert {item.endswith(MARK) for item in items} <= {release_id == b}, (release_id, items)
    assert {release_id for release_id, _ in load.answers} == {a, b}


@pytest.mark.slow
def test_reloads_under_load_drop_nothing_and_mix_nothing(service: ServiceProcess, releases: Path) -> None:
    service.start()
    load = switch_under_load(service, releases, SWITCHES, lambda: None)
    check_unmixed(load, releases)
    assert counted(service, 'isrf_reloads_total{code="",result="switched"}') == SWITCHES
    assert service.stop() == 0


@pytest.mark.slow
def test_an_event_counts_over_a_switch_and_an_items_release_decides_what_is_known(
    service: ServiceProcess, releases: Path
) -> None:
    service.start()
    item = json.loads((releases / "r-a" / "items.jsonl").read_text().splitlines()[0])["item_id"]

    def post(item_id: str) -> str:
        body = {"events": [{"user_id": "ann", "item_id": item_id}]}
        status: str = httpx.post(f"{service.url}/interactions", json=body).json()["results"][0]["status"]
        return status

    def source() -> str:
        found: str = httpx.get(f"{service.url}/recommend/ann").json()["meta"]["source"]
        return found

    assert [post(item), post(item + MARK), source()] == ["accepted", "refused", "sequence"]
    point(releases, "r-b")
    assert reload(service).status_code == 200
    # What she took is known, and of another release; nothing of it is lost.
    assert httpx.get(f"{service.url}/users/ann").json()["history"] == [item]
    assert [source(), post(item + MARK), source()] == ["popular", "accepted", "sequence"]
    wait_until(lambda: post(item) == "refused", what="the old release to be let go")
    point(releases, "r-a")
    assert reload(service).status_code == 200
    assert httpx.get(f"{service.url}/users/ann").json()["history"] == [item, item + MARK]
    bought = f'isrf_release_events_total{{effect="bought",release_id="{id_of(releases / "r-b")}"}}'
    assert counted(service, bought) == 1


def without_a_file(folder: Path) -> None:
    (folder / "histories.parquet").unlink()


def items_of_another_run(folder: Path) -> None:
    lines = (folder / "items.jsonl").read_text().splitlines(keepends=True)
    (folder / "items.jsonl").write_text("".join(lines[:-1]))
    seal(folder)


def vectors_of_another_run(folder: Path) -> None:
    vectors = np.load(folder / "item_vectors.npy")
    np.save(folder / "item_vectors.npy", np.random.default_rng(0).permutation(vectors))
    seal(folder)


def of_another_schema(folder: Path) -> None:
    change_manifest(folder, lambda manifest: manifest.update(schema_version=1))


def without_a_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


def of_another_user_id_type(folder: Path) -> None:
    """Nothing that the checks foresee: a table whose ids are lists."""
    users = pl.read_parquet(folder / "users.parquet")
    users.with_columns(user_id=pl.Series([["x"]] * len(users))).write_parquet(folder / "users.parquet")
    seal(folder)


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (truncated, "bundle.hash_mismatch"),
    (without_a_file, "bundle.missing_file"),
    (items_of_another_run, "bundle.array_mismatch"),
    (vectors_of_another_run, "bundle.golden_mismatch"),
    (of_another_schema, "bundle.schema_version"),
    (without_a_manifest, "bundle.no_release"),
    (of_another_user_id_type, "bundle.table"),
    (gone, "bundle.no_release"),
]


@pytest.mark.slow
def test_a_release_that_is_not_sound_is_refused_and_the_old_one_answers(
    service: ServiceProcess, releases: Path
) -> None:
    """One after the other on one service: each refusal must leave it as it was."""
    service.start()
    users = some_users(releases / "r-a")[:3]
    source = releases / "r-a"

    def answers() -> list[Any]:
        with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as http:
            return [http.get(f"/recommend/{user}").json()["items"] for user in users]

    before = answers()
    for k, (damage, code) in enumerate(DAMAGES):
        damage(named_copy(source, releases, f"r-{k}"))
        point(releases, f"r-{k}")
        refused = reload(service)
        assert (refused.status_code, refused.json()["code"]) == (409, code), refused.text
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["fix"]
        assert (served(service), answers()) == (id_of(releases / "r-a"), before)
        assert counted(service, f'isrf_reloads_total{{code="{code}",result="refused"}}') >= 1
    refusals = [json.loads(line) for line in service.log.splitlines() if "release_refused" in line]
    assert [line["code"] for line in refusals] == [code for _, code in DAMAGES]
    assert all(line["fix"] for line in refusals)
    point(releases, "r-a")
    assert reload(service).json()["status"] == "unchanged"
    point(releases, "r-b")
    b = id_of(releases / "r-b")
    assert (reload(service).json()["status"], served(service)) == ("switched", b)
    about = f'encoder="tfidf-svd",preset="demo",reasoner="attribute",release_id="{b}"'
    assert counted(service, f"isrf_release_info{{{about}")


@pytest.mark.slow
def test_two_who_reload_at_once_open_it_once(service: ServiceProcess, releases: Path) -> None:
    service.start()
    point(releases, "r-b")
    told: list[str] = []
    threads = [threading.Thread(target=lambda: told.append(reload(service).json()["status"])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["switched", "unchanged", "unchanged"]


def serves(service: ServiceProcess, release_id: str) -> bool:
    return served(service) == release_id


@pytest.mark.slow
def test_what_current_points_to_is_served_without_being_told_and_back_again(releases: Path, tmp_path: Path) -> None:
    service = ServiceProcess(releases, tmp_path / "watching", ISRF_WATCH_RELEASES_S="0.2").start()
    try:
        for name in ("r-b", "r-a"):
            point(releases, name)
            wanted = id_of(releases / name)
            wait_until(partial(serves, service, wanted), what=name)
        truncated(named_copy(releases / "r-a", releases, "r-broken"))
        point(releases, "r-broken")
        wait_until(lambda: "release_refused" in service.log, what="the refusal")
        # Seen five times a second, opened once.
        assert reload(service).status_code == 409
        assert service.log.count("release_refused") == 2
        assert served(service) == id_of(releases / "r-a")
        point(releases, "r-b")
        wait_until(lambda: served(service) == id_of(releases / "r-b"), what="the next sound release")
    finally:
        service.kill()


def test_every_worker_and_every_replica_sees_for_itself(
    releases: Path, tmp_path: Path, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        client.flushall()
    environment = {"REDIS_URL": redis_server.url, "ISRF_WATCH_RELEASES_S": "0.3"}
    processes = [
        ServiceProcess(releases, tmp_path / "one", **environment),
        ServiceProcess(releases, tmp_path / "two", "--workers", "2", **environment),
    ]
    user_id, b = shopper_of(releases / "r-a"), id_of(releases / "r-b")
    try:
        for process in processes:
            process.start()
        # A worker that comes later opens the new release at its start, and switches nothing.
        wait_until(lambda: processes[1].log.count('"event": "ready"') == 2, what="the second worker")
        point(releases, "r-b")

        def all_new() -> bool:
            # A connection of its own per request: either worker may answer it.
            each = httpx.Limits(max_keepalive_connections=0)
            with httpx.Client(timeout=PATIENCE_S, limits=each) as http:
                bodies = [http.get(f"{p.url}/recommend/{user_id}").json() for p in processes for _ in range(8)]
            return all(body["meta"]["release_id"] == b for body in bodies)

        wait_until(all_new, what="all workers")

        def both_switched() -> bool:
            # All that were asked may have been answered by one of the two workers.
            text = httpx.get(f"{processes[1].url}/metrics", timeout=PATIENCE_S).text
            return 'isrf_reloads_total{code="",result="switched"} 2.0' in text

        wait_until(both_switched, what="the other worker")
    finally:
        for process in processes:
            process.kill()
