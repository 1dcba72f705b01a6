"""Releases in a real object store, over HTTP: a reader opens what was published, whatever goes wrong."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from isrf.contract.errors import BundleError, ConfigError, StageError
from isrf.runtime.bundle.manifests import read_manifest
from isrf.runtime.bundle.reader import verify_files
from isrf.runtime.limits.time_limit import TimeLimit
from isrf.runtime.release_store.cache import ReleaseCache
from isrf.runtime.release_store.current import read_current, switch_current
from isrf.runtime.release_store.locations import StoreUrl, location_of
from isrf.runtime.release_store.objects import ObjectStore
from isrf.runtime.release_store.remote import RemoteReleases
from isrf.runtime.release_store.upload import publish_to_store
from tests.object_store import SECRET, Fault, Proxy, Request, StoreServer, environment, variables
from tests.service.releases import id_of, named_copy

pytestmark = pytest.mark.slow
PIECE = 16 << 10
LARGE = "recommender.onnx"


@pytest.fixture(scope="module")
def two(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two releases."""
    folder = tmp_path_factory.mktemp("two")
    return tiny_release / "current", named_copy(tiny_release / "current", folder, "other")


@pytest.fixture(scope="module")
def published(store_server: StoreServer, two: tuple[Path, Path]) -> StoreUrl:
    """A place in the store where the first of the two releases is; shared: do not change it."""
    url = StoreUrl("s3", "shops", "published/releases")
    with environment(store_server.address):
        publish_to_store(two[0], ObjectStore(url))
    return url


def reader(bucket: StoreUrl, root: Path, *, most_bytes: int = 1 << 30, timeout_s: float = 5.0) -> RemoteReleases:
    cache = ReleaseCache(root, bucket, most_bytes=most_bytes)
    return RemoteReleases(ObjectStore(bucket, timeout_s=timeout_s), cache, piece_bytes=PIECE)


def fetched(releases: RemoteReleases) -> Path:
    return releases.fetch(releases.current_id(), TimeLimit(60)).folder


def once(method: str, end: str, fault: Fault) -> Callable[[Request], Fault | None]:
    """That fault for the first such request."""
    left = [fault]
    return lambda one: left.pop() if left and one.method == method and one.path.endswith(end) else None


def size_of(release: Path) -> int:
    return sum(path.stat().st_size for path in release.rglob("*") if path.is_file())


def test_a_reader_opens_what_was_published(
    proxy: Proxy, published: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = fetched(reader(published, tmp_path))
    assert folder.name == id_of(two[0])
    verify_files(folder, read_manifest(two[0]))


def test_files_go_up_first_then_the_manifest_then_current(
    proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path]
) -> None:
    done = publish_to_store(two[0], ObjectStore(bucket))
    assert done.guarded
    assert done.uploaded == len(read_manifest(two[0]).files) + 1
    written = [one.path.removeprefix(f"{bucket.prefix}/") for one in proxy.of("PUT")]
    first = written.index("current")
    assert written[first - 1] == f"{id_of(two[0])}/manifest.json"
    assert all(name.startswith(id_of(two[0])) for name in written[:first])


def test_publishing_again_uploads_nothing_and_repairs_what_was_overwritten(
    proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    store = ObjectStore(bucket)
    publish_to_store(two[0], store)
    assert publish_to_store(two[0], store).uploaded == 0
    name = f"{id_of(two[0])}/{LARGE}"
    store.put(name, bytes((two[0] / LARGE).stat().st_size))
    with pytest.raises(BundleError) as refused:
        fetched(reader(bucket, tmp_path))
    assert refused.value.code == "bundle.hash_mismatch"
    assert publish_to_store(two[0], store).uploaded == 2
    verify_files(fetched(reader(bucket, tmp_path)), read_manifest(two[0]))


def test_a_store_that_lists_nothing_is_opened_all_the_same(
    proxy: Proxy, published: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    proxy.fault = lambda one: "lists nothing"
    fetched(reader(published, tmp_path))
    assert not [one for one in proxy.requests if "list-type" in one.query]


@pytest.mark.parametrize("fault", ["hang", "cut", "half", "drop", "unavailable"])
def test_a_file_that_comes_badly_once_is_complete_in_the_end(
    fault: Fault, proxy: Proxy, published: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    proxy.fault = once("GET", LARGE, fault)
    folder = fetched(reader(published, tmp_path, timeout_s=1.0))
    verify_files(folder, read_manifest(two[0]))


def test_a_killed_download_goes_on_where_it_ended(
    proxy: Proxy, published: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    stops = 2 * PIECE
    proxy.fault = lambda one: "hang" if one.path.endswith(LARGE) and _start(one) >= stops else None
    process = subprocess.Popen(
        [sys.executable, "-c", _FETCH, str(published), str(tmp_path), str(PIECE)],
        env=os.environ | variables(proxy.address),
    )
    assert proxy.hanging.acquire(timeout=60)
    part = reader(published, tmp_path).cache.partial(id_of(two[0]))
    _wait_for_size(part / LARGE, stops)
    process.send_signal(signal.SIGKILL)
    process.wait()
    proxy.fault, before = (lambda _: None), len(proxy.requests)
    copy = reader(published, tmp_path).fetch(id_of(two[0]), TimeLimit(60))
    assert copy.downloaded is not None
    assert copy.downloaded.resumed >= stops
    starts = [_start(one) for one in proxy.requests[before:] if one.path.endswith(f"/{LARGE}")]
    assert min(starts) == stops
    verify_files(copy.folder, read_manifest(two[0]))


def test_what_an_earlier_attempt_left_of_a_damaged_file_is_not_trusted(
    proxy: Proxy, published: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    releases = reader(published, tmp_path)
    part = releases.cache.partial(id_of(two[0]))
    (part / LARGE).write_bytes(b"x" * 1000)
    (part / "items.jsonl").write_bytes(b"x" * (1 << 20))
    verify_files(fetched(releases), read_manifest(two[0]))


def test_processes_of_a_machine_download_a_release_once(
    proxy: Proxy, published: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    before = len(proxy.requests)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _FETCH, str(published), str(tmp_path), str(8 << 20)],
            env=os.environ | variables(proxy.address),
        )
        for _ in range(2)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert len([one for one in proxy.requests[before:] if one.path.endswith(f"/{LARGE}")]) == 1


def test_of_two_jobs_that_publish_at_once_one_wins_and_the_other_is_told(
    proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    together, outcomes, left = threading.Barrier(2), dict[str, str](), [1, 2]

    def at_the_switch(one: Request) -> Fault | None:
        if one.method == "PUT" and one.path.endswith("/current") and left:
            left.pop()
            together.wait(60)
        return None

    def publish(release: Path) -> None:
        try:
            publish_to_store(release, ObjectStore(bucket))
            outcomes[id_of(release)] = "published"
        except StageError as error:
            outcomes[id_of(release)] = error.code

    proxy.fault = at_the_switch
    jobs = [threading.Thread(target=publish, args=(release,)) for release in two]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert sorted(outcomes.values()) == ["publish.overtaken", "published"]
    winner = next(name for name, outcome in outcomes.items() if outcome == "published")
    assert fetched(reader(bucket, tmp_path)).name == winner
    # The other tries again, and then its release is served.
    loser = next(release for release in two if id_of(release) != winner)
    proxy.fault = lambda _: None
    assert publish_to_store(loser, ObjectStore(bucket)).uploaded == 0
    assert read_current(ObjectStore(bucket)).release_id == id_of(loser)


def test_a_switch_whose_answer_is_lost_counts(proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path]) -> None:
    store = ObjectStore(bucket, timeout_s=1.0)
    store.put_if("current", b"r-1\n", None)
    seen = read_current(store)
    store.put("current", b"r-2\n")  # our own write, whose answer did not come, so that it is sent again
    assert switch_current(store, "r-2", seen)


@pytest.mark.parametrize("fault", ["no conditions", "ignores conditions"])
def test_a_store_without_conditional_writes_is_named(
    fault: Fault, proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    proxy.fault = lambda one: fault
    assert not publish_to_store(two[0], ObjectStore(bucket)).guarded
    assert not publish_to_store(two[1], ObjectStore(bucket)).guarded
    assert fetched(reader(bucket, tmp_path)).name == id_of(two[1])


def test_a_cache_that_is_full_removes_the_oldest_and_never_what_is_in_use(
    proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    store = ObjectStore(bucket)
    publish_to_store(two[0], store)
    bound = int(1.5 * size_of(two[0].resolve()))
    releases = reader(bucket, tmp_path, most_bytes=bound)
    first = fetched(releases)
    publish_to_store(two[1], store)
    with pytest.raises(BundleError) as refused:
        fetched(releases)
    assert refused.value.code == "bundle.cache_full"
    assert str(bound) in refused.value.message
    assert first.is_dir()
    releases.cache.let_go(but=())
    second = fetched(releases)
    assert second.is_dir()
    assert not first.exists()


def test_what_was_served_last_stays_in_a_full_cache(
    proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    store = ObjectStore(bucket)
    publish_to_store(two[0], store)
    releases = reader(bucket, tmp_path, most_bytes=int(1.5 * size_of(two[0].resolve())))
    first = fetched(releases)
    releases.cache.remember_served(first)
    releases.cache.let_go(but=())
    publish_to_store(two[1], store)
    with pytest.raises(BundleError, match="may hold"):
        fetched(releases)
    assert releases.cache.served_last() == first.resolve()


def test_a_cache_that_cannot_be_written_is_named(proxy: Proxy, published: StoreUrl, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError) as refused:
        fetched(reader(published, tmp_path / "file"))
    assert refused.value.code == "bundle.cache_unwritable"
    assert str(tmp_path / "file") in refused.value.message


def test_a_damaged_copy_is_downloaded_again(
    proxy: Proxy, published: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    releases = reader(published, tmp_path)
    folder = fetched(releases)
    releases.cache.let_go(but=())
    assert not releases.discard_if_damaged(folder)
    (folder / LARGE).write_bytes(b"damaged")
    assert releases.discard_if_damaged(folder)
    verify_files(fetched(releases), read_manifest(two[0]))


def test_a_release_can_be_named_by_a_url_of_its_own(
    proxy: Proxy, published: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    own = location_of(f"{published}/{id_of(two[0])}")
    assert isinstance(own, StoreUrl)
    assert fetched(reader(own, tmp_path)).name == id_of(two[0])


def test_an_empty_place_and_a_wrong_current_are_named(
    proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    store, releases = ObjectStore(bucket), reader(bucket, tmp_path)
    store.put("probe", b"")
    for content, code in ((None, "bundle.no_release"), (b"../x", "bundle.current"), (b"r-none", "bundle.no_release")):
        if content is not None:
            store.put("current", content)
        with pytest.raises(BundleError) as refused:
            fetched(releases)
        assert refused.value.code == code


def test_a_manifest_under_another_id_is_refused(
    proxy: Proxy, bucket: StoreUrl, two: tuple[Path, Path], tmp_path: Path
) -> None:
    store = ObjectStore(bucket)
    store.put("r-wrong/manifest.json", (two[0] / "manifest.json").read_bytes())
    store.put("current", b"r-wrong")
    with pytest.raises(BundleError) as refused:
        fetched(reader(bucket, tmp_path))
    assert refused.value.code == "bundle.other_release"


def test_errors_say_what_to_do_and_hold_no_secret(
    proxy: Proxy, bucket: StoreUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.fault = lambda _: "unavailable"
    with pytest.raises(BundleError) as down:
        reader(bucket, tmp_path).current_id()
    assert down.value.code == "bundle.store_unreachable"
    proxy.fault = lambda _: None
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address.replace("://", "://user:endpoint-secret@"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    with pytest.raises(BundleError) as denied:
        reader(bucket, tmp_path).current_id()
    assert denied.value.code == "bundle.store_denied"
    for error in (down.value, denied.value):
        assert "AWS_ACCESS_KEY_ID" in error.fix
        for secret in ("another-secret", "endpoint-secret", SECRET):
            assert secret not in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://shop/a/b/", StoreUrl("s3", "shop", "a/b")),
        ("S3://shop", StoreUrl("s3", "shop", "")),
        ("gs://shop/a", StoreUrl("gs", "shop", "a")),
        ("az://shop/a", StoreUrl("az", "shop", "a")),
        ("file:///srv/re%20leases", Path("/srv/re leases")),
        ("releases", Path("releases")),
    ],
)
def test_a_location_is_read_as_it_is_written(text: str, expected: object) -> None:
    assert location_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "s3://key:very-secret@shop/a",
        "s3://shop/a?token=very-secret",
        "s3://",
        "s3://shop/../a",
        "ftp://shop",
        "file://a",
    ],
)
def test_a_location_that_cannot_work_is_refused_without_its_secret(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        location_of(text)
    assert refused.value.code == "config.releases_url"
    assert "very-secret" not in str(refused.value)


def test_a_folder_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert location_of("releases") == Path("releases")
    with pytest.raises(ConfigError, match=r"pip install 'isrf\[object-store\]'") as refused:
        ObjectStore(StoreUrl("s3", "shop", ""))
    assert refused.value.code == "config.object_store_extra"


_FETCH = """
import sys
from pathlib import Path
from isrf.runtime.release_store.cache import ReleaseCache
from isrf.runtime.release_store.locations import location_of
from isrf.runtime.release_store.objects import ObjectStore
from isrf.runtime.release_store.remote import RemoteReleases
from isrf.runtime.limits.time_limit import TimeLimit

url = location_of(sys.argv[1])
cache = ReleaseCache(Path(sys.argv[2]), url)
releases = RemoteReleases(ObjectStore(url), cache, piece_bytes=int(sys.argv[3]))
releases.fetch(releases.current_id(), TimeLimit(60))
"""


def _start(request: Request) -> int:
    return int(request.range.removeprefix("bytes=").partition("-")[0] or 0)


def _wait_for_size(path: Path, size: int) -> None:
    arrived = threading.Event()
    for _ in range(600):
        if path.is_file() and path.stat().st_size >= size:
            return
        arrived.wait(0.05)
    raise AssertionError(f"{path} has not reached {size} bytes")
