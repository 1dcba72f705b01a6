"""Releases: a tiny one that stands in the repository, and a really trained one, made once for all test processes.

What a test claims decides which it takes: `tiny_release` for all that holds of any release, `demo_release` where the
demo shop's size, or what its model has learned, is part of the claim. Nothing here imports the offline job before a
trained release is asked for.

`ISRF_TEST_CACHE=DIR` keeps them between sessions, for quick runs of single tests: empty the folder after a change of
the offline job or of the bundle.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from isrf.runtime.release_store.locations import StoreUrl
from tests.object_store import Proxy, StoreServer, environment

NEEDS = {
    "trained": {"demo_release", "demo_shop"},
    "redis": {"redis_server", "redis_cluster", "three_masters", "own_redis", "fast_redis"},
    "browser": {"browser"},
}
"""What a test cannot do without, by the fixtures that it takes."""

TINY_RELEASES = Path(__file__).parent / "tiny_bundle" / "releases"
OLDER_RELEASES = {schema: TINY_RELEASES.parent / f"schema_{schema}" for schema in (3, 4)}
"""The same release as earlier versions published it, which this version still opens."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test with what it needs."""
    for item in items:
        taken = set(getattr(item, "fixturenames", ()))
        chosen = {value for value in _parameters(item).values() if isinstance(value, str)}
        for name, fixtures in NEEDS.items():
            if taken & fixtures or ("store" in taken and name == "redis" and chosen & {"redis", "cluster"}):
                item.add_marker(name)


def _parameters(item: pytest.Item) -> Mapping[str, object]:
    callspec = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params


def _shared(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first test process to come fills and the others wait for."""
    base = tmp_path_factory.getbasetemp()
    cache = os.environ.get("ISRF_TEST_CACHE")
    root = Path(cache) if cache else base.parent if base.name.startswith("popen-") else base
    root.mkdir(parents=True, exist_ok=True)
    folder = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "finished").exists():
            make(folder)
            (folder / "finished").touch()
    return folder


@pytest.fixture(scope="session")
def tiny_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the releases folder that stands in the repository; shared: do not change it."""
    folder = tmp_path_factory.mktemp("tiny") / "releases"
    shutil.copytree(TINY_RELEASES, folder, symlinks=True)
    return folder


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """An object store of the S3 protocol; each test takes a bucket of its own."""
    server = StoreServer(tmp_path_factory.mktemp("object-store"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(store_server: StoreServer) -> Iterator[Proxy]:
    """A way to the object store that misbehaves where the test tells it to; this process's environment leads there."""
    proxy = Proxy(store_server.address)
    with environment(proxy.address):
        yield proxy
    proxy.close()


@pytest.fixture
def bucket(proxy: Proxy) -> StoreUrl:
    """A place in the store that no other test uses; through the proxy."""
    return StoreUrl("s3", "shops", f"{uuid.uuid4().hex[:16]}/releases")


@pytest.fixture(scope="session")
def demo_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo shop's two files, with fewer shoppers."""
    from offline.commands.demo_shop.generate import generate

    def make(folder: Path) -> None:
        generate(folder / "data", seed=0, num_shoppers=600)

    return _shared(tmp_path_factory, "demo-shop", make) / "data"


@pytest.fixture(scope="session")
def demo_release(tmp_path_factory: pytest.TempPathFactory, demo_shop: Path) -> Path:
    """A releases folder with one release of the demo shop and `current` pointing to it; shared: do not change it."""
    from offline.commands.publish import publish
    from offline.config import build_config
    from tests.shops import run_stages

    def make(folder: Path) -> None:
        config = build_config(
            "demo",
            None,
            (
                "train.epochs=2",
                "graph.epochs=4",
                "evaluate.bootstrap_samples=50",
                "search.int8=true",
                "search.fp16=true",
            ),
        )
        publish(run_stages("export", demo_shop, folder, config)["export"], folder)

    return _shared(tmp_path_factory, "demo-release", make)
