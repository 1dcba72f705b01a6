"""An erased user stays erased: after a restart, with a newer release from older data, on every replica."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.releases import id_of, named_copy, point, shopper_of, two_releases
from tests.service.servers import PATIENCE_S, RedisServer, ServiceProcess, wait_until
from tests.service.told import reload, served


def another_release(tiny_release: Path, folder: Path) -> Path:
    """A releases folder whose `current` is named anew and holds the same, older data."""
    named_copy(tiny_release / "current", folder, "r-newer")
    point(folder, "r-newer")
    return folder


def told(service: ServiceProcess, user_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{service.url}/users/{user_id}", timeout=PATIENCE_S).json()
    return answer


@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "redis"])
def test_erased_over_restart_and_a_newer_release_from_older_data(
    tiny_release: Path, own_redis: RedisServer, tmp_path: Path, embedded: bool
) -> None:
    environment = {} if embedded else {"REDIS_URL": own_redis.url}
    shopper = shopper_of(tiny_release / "current")
    before = ServiceProcess(tiny_release, tmp_path / "service", **environment).start()
    assert told(before, shopper)["known"]
    assert httpx.delete(f"{before.url}/users/{shopper}", timeout=PATIENCE_S).status_code == 204
    before.stop()
    newer = another_release(tiny_release, tmp_path / "newer-releases")
    for releases in (tiny_release, newer):
        after = ServiceProcess(releases, tmp_path / "service", **environment).start()
        try:
            assert (told(after, shopper)["known"], told(after, shopper)["history"]) == (False, [])
            source = httpx.get(f"{after.url}/recommend/{shopper}", timeout=PATIENCE_S).json()["meta"]
            assert source["source"] == "popular"
            assert releases is tiny_release or source["release_id"] == id_of(newer / "r-newer")
        finally:
            after.stop()


def test_erased_on_one_replica_is_erased_on_all(tiny_release: Path, own_redis: RedisServer, tmp_path: Path) -> None:
    shopper = shopper_of(tiny_release / "current")
    environment = {"REDIS_URL": own_redis.url, "ISRF_CROWD_EPOCH_S": "1"}
    replicas = [ServiceProcess(tiny_release, tmp_path / str(k), **environment).start() for k in range(2)]
    try:
        assert all(told(replica, shopper)["known"] for replica in replicas)
        assert httpx.delete(f"{replicas[0].url}/users/{shopper}", timeout=PATIENCE_S).status_code == 204
        assert [told(replica, shopper)["known"] for replica in replicas] == [False, False]
        event = {"user_id": shopper, "item_id": items(replicas[1])[0]}
        assert (
            httpx.post(f"{replicas[1].url}/interactions", json={"events": [event]}, timeout=PATIENCE_S).json()[
                "accepted"
            ]
            == 1
        )
        wait_until(lambda: told(replicas[0], shopper)["history"] == [event["item_id"]], what="the fresh user")
    finally:
        for replica in replicas:
            replica.stop()


def test_an_erased_user_stays_erased_on_every_replica_over_a_reload(
    tiny_release: Path, tmp_path: Path, own_redis: RedisServer
) -> None:
    releases = two_releases(tiny_release / "current", tmp_path / "releases")
    environment = {"REDIS_URL": own_redis.url, "ISRF_CROWD_EPOCH_S": "1", "ISRF_WATCH_RELEASES_S": "0"}
    user_id = shopper_of(releases / "current")
    replicas = [ServiceProcess(releases, tmp_path / str(k), **environment).start() for k in range(2)]

    def known() -> set[tuple[bool, int]]:
        bodies = [httpx.get(f"{one.url}/users/{user_id}", timeout=PATIENCE_S).json() for one in replicas]
        return {(body["known"], len(body["history"])) for body in bodies}

    try:
        assert httpx.delete(f"{replicas[0].url}/users/{user_id}").status_code == 204
        assert known() == {(False, 0)}
        point(releases, "r-b")
        assert [reload(one).status_code for one in replicas] == [200, 200]
        assert known() == {(False, 0)}
        own_redis.kill()
        point(releases, "r-a")
        # Nobody can be asked now, and it is still known here.
        assert [reload(one).status_code for one in replicas] == [200, 200]
        assert known() == {(False, 0)}
        assert {served(one) for one in replicas} == {id_of(releases / "r-a")}
    finally:
        for one in replicas:
            one.kill()


def items(service: ServiceProcess) -> list[str]:
    return [item["item_id"] for item in httpx.get(f"{service.url}/popular?n=5", timeout=PATIENCE_S).json()["items"]]
