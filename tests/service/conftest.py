"""Stores of every kind, and the Redis servers behind them."""

import ssl
from collections.abc import AsyncIterator, Iterator
from functools import cache, partialmethod
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.state.connect import open_store
from service.state.store import Store
from tests.service.servers import RedisCluster, RedisServer, free_port, settings_for, wait_until


@pytest.fixture(scope="session", autouse=True)
def _own_name() -> Iterator[None]:
    """The framework's test client calls `testserver`, a name that development mode does not answer to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestClient, "__init__", partialmethod(TestClient.__init__, base_url="http://localhost"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _certificates_read_once() -> Iterator[None]:
    """A client of httpx reads all certificate authorities when it is made, 25 ms; no test here calls over TLS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(
        tmp_path_factory.mktemp("cluster"), "--cluster-enabled", "yes", "--cluster-port", str(free_port())
    )
    server.start()
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"), what="the cluster")
    yield server
    server.kill()


@pytest.fixture(scope="session")
def three_masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("masters"))
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may kill."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


STORES = ("embedded", "redis", "cluster")


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Every store, empty; tests that take it hold for all of them."""
    server = None
    if request.param != "embedded":
        server = request.getfixturevalue("redis_server" if request.param == "redis" else "redis_cluster")
        with server.client() as client:
            client.flushall()
    settings = settings_for(server, tmp_path / "state", redis_cluster=request.param == "cluster")
    opened = await open_store(settings)
    yield opened
    await opened.close()


@pytest.fixture
def address(store: Store, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of the store under test, as the offline job is told it."""
    kind = request.node.callspec.params["store"]
    if kind == "embedded":
        return str(tmp_path / "state")
    url: str = request.getfixturevalue("redis_server" if kind == "redis" else "redis_cluster").url
    return url
