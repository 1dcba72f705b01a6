"""The service on an object store: it starts from it, follows `current`, and goes on without it."""

from functools import partial
from pathlib import Path

import httpx
import pytest

from isrf.runtime.release_store.locations import StoreUrl
from isrf.runtime.release_store.objects import ObjectStore
from isrf.runtime.release_store.upload import publish_to_store
from tests.object_store import SECRET, Proxy
from tests.service.releases import id_of, named_copy, shopper_of
from tests.service.servers import PATIENCE_S, RedisServer, ServiceProcess, wait_until
from tests.service.told import counted, reload, served

pytestmark = pytest.mark.slow
UP = "isrf_release_store_up"


@pytest.fixture(scope="module")
def two(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("two")
    return tiny_release / "current", named_copy(tiny_release / "current", folder, "other")


def cached(service: ServiceProcess) -> set[str]:
    folders = (service.folder / "state" / "release-cache").glob("*/r-*")
    return {folder.name for folder in folders}


def test_the_service_follows_current_and_goes_on_without_the_store(
    proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = (id_of(release) for release in two)
    publish_to_store(two[0], ObjectStore(bucket))
    service = ServiceProcess(bucket, tmp_path, ISRF_WATCH_RELEASES_S="0.2").start()
    try:
        assert served(service) == first
        answer = httpx.get(f"{service.url}/recommend/{shopper_of(two[0])}", timeout=PATIENCE_S)
        assert answer.json()["meta"]["release_id"] == first
        publish_to_store(two[1], ObjectStore(bucket))
        wait_until(lambda: served(service) == second, what="the switch")
        assert counted(service, UP) == 1

        # The store is gone: the release stays, and every way to ask says so.
        proxy.fault = lambda _: "unavailable"
        refused = reload(service)
        assert (refused.status_code, refused.json()["code"]) == (409, "bundle.store_unreachable")
        told = httpx.get(f"{service.url}/readyz", timeout=PATIENCE_S).json()
        assert (told["status"], told["release_id"]) == ("ready", second)
        assert [one["code"] for one in told["warnings"]] == ["release_store_unreachable"]
        assert counted(service, UP) == 0

        # A restart serves what was served last.
        assert service.stop() == 0
        service.start()
        assert served(service) == second
        assert "release_store_unreachable" in service.log
        assert counted(service, UP) == 0

        proxy.fault = lambda _: None
        wait_until(lambda: counted(service, UP) == 1, what="the store")
        assert SECRET not in service.log
    finally:
        service.kill()


def test_without_store_and_cache_the_start_ends_with_one_sentence(
    proxy: Proxy, bucket: StoreUrl, tmp_path: Path
) -> None:
    proxy.fault = lambda _: "unavailable"
    code, said = ServiceProcess(bucket, tmp_path).refused()
    assert code == 3
    assert said.startswith("error: bundle.store_unreachable: ")
    assert "Traceback" not in said


def test_a_release_that_cannot_be_downloaded_leaves_the_served_one(
    proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = (id_of(release) for release in two)
    store = ObjectStore(bucket)
    publish_to_store(two[0], store)
    service = ServiceProcess(bucket, tmp_path, ISRF_WATCH_RELEASES_S="0").start()
    try:
        publish_to_store(two[1], store)
        size = (two[1] / "items.jsonl").stat().st_size
        store.put(f"{second}/items.jsonl", bytes(size))
        refused = reload(service)
        assert (refused.status_code, refused.json()["code"]) == (409, "bundle.hash_mismatch")
        assert served(service) == first
        assert cached(service) == {first}
        publish_to_store(two[1], store)  # repairs it
        assert reload(service).json()["release_id"] == second
    finally:
        service.kill()


def test_workers_share_one_download_and_an_old_release_leaves_the_full_cache(
    proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path], tmp_path: Path, redis_server: RedisServer
) -> None:
    first, second = (id_of(release) for release in two)
    third_folder = named_copy(two[0], tmp_path, "third")
    third = id_of(third_folder)
    size = sum(path.stat().st_size for path in two[0].resolve().rglob("*") if path.is_file())
    publish_to_store(two[0], ObjectStore(bucket))
    service = ServiceProcess(
        bucket,
        tmp_path / "service",
        "--workers",
        "2",
        REDIS_URL=redis_server.url,
        ISRF_WATCH_RELEASES_S="0.2",
        ISRF_RELEASE_CACHE_BYTES=str(max(1 << 20, int(2.5 * size))),
        ISRF_REDIS_DURABILITY="warn",
    ).start()
    try:
        for release, name in ((two[1], second), (third_folder, third)):
            publish_to_store(release, ObjectStore(bucket))
            wait_until(partial(_all_serve, service, name), what="the switch of both workers")
        assert third in cached(service)
        assert first not in cached(service)
        assert len(proxy.of("GET", "/recommender.onnx")) == 3
    finally:
        service.kill()


def _all_serve(service: ServiceProcess, release_id: str) -> bool:
    """Whichever of the workers answers."""
    return all(served(service) == release_id for _ in range(12))
