"""Real servers and posted events for the service's tests; redis-server runs as docker/redis.conf configures it."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import redis
from pydantic import SecretStr

from isrf.contract.errors import StoreError
from isrf.runtime.release_store.locations import StoreUrl
from service.settings import Settings
from service.state.events import Event, EventReader, EventRules, Refusal
from service.state.records import Outcome
from service.state.redis.store import RedisStore
from service.state.sqlite import EmbeddedStore
from service.state.store import Store

ResultT = TypeVar("ResultT")

REDIS_CONF = Path(__file__).parents[2] / "docker" / "redis.conf"

PATIENCE_S = 90.0
"""What a test waits for something that must happen, on however busy a machine."""

PATIENT = {"redis_read_timeout_s": 10.0, "redis_write_timeout_s": 60.0, "deadline_s": 60.0}
"""Settings where it is not the claim how soon something is given up."""

AS_SERVED = {name: Settings.model_fields[name].default for name in PATIENT}
"""The same where that is the claim."""

SOON_S = 0.25
"""A read from the release while Redis is gone."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A redis-server process of our own on loopback; its data survives `kill` and `start`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options, self.port = folder, options, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        binary = shutil.which("redis-server")
        assert binary is not None, "redis-server is not installed; `make test` installs it"
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [binary, str(REDIS_CONF), "--port", str(self.port), "--bind", "127.0.0.1"]
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*command, "--dir", str(self.folder), *self.options], stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_until(
                self.answers,
                what="redis-server",
                alive=lambda: self.process is not None and self.process.poll() is None,
            )
        except AssertionError:
            self.kill()
            raise AssertionError((self.folder / "log").read_text()) from None

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False

    @contextmanager
    def client(self) -> Iterator[Any]:
        client = redis.Redis(port=self.port, socket_timeout=PATIENCE_S)
        try:
            yield client
        finally:
            client.close()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class RedisCluster:
    """Three masters that share the slots.

    Their node timeout is long: with Redis' own 15 s, a server that a test stops for longer, on a busy machine, is
    declared failed by the two others, and all three refuse everything until they have agreed again.
    """

    def __init__(self, folder: Path) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "600000")
        self.nodes = [RedisServer(folder / str(k), *options, "--cluster-port", str(free_port())) for k in range(3)]

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        with self.nodes[0].client() as client:
            for node in self.nodes[1:]:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, node.options[-1])
        for place, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 5461 * place, 5461 * (place + 1) - 1 + (place == 2))
        for node in self.nodes:
            wait_until(partial(self._knows_all, node), what="the cluster")

    def _knows_all(self, node: RedisServer) -> bool:
        with node.client() as client:
            info = client.execute_command("CLUSTER", "INFO")
            return b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info

    def flush(self) -> None:
        for node in self.nodes:
            with node.client() as client:
                client.flushall()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


class SlowProxy:
    """A TCP proxy in front of a server that lets bytes wait `delay_s` before it passes them on."""

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        self.waiting = 0
        """Pieces that are being held back."""
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self._opening = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            # Under the lock, so that `close` finds every socket: one that is left open warns in a later test.
            with self._opening:
                self._open.append(client)
                if self._closed.is_set():
                    client.close()
                    return
                try:
                    server = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    client.close()
                    return
                self._open.append(server)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.waiting += 1
                self._closed.wait(self.delay_s)
                self.waiting -= 1
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        with self._opening:
            for end in (self._listening, *self._open):
                end.close()


def at_least(number: int, found: Sized) -> bool:
    """A condition for `wait_until`."""
    return len(found) >= number


def wait_until(
    condition: Callable[[], bool],
    *,
    what: str,
    timeout_s: float = PATIENCE_S,
    alive: Callable[[], bool] = lambda: True,
) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert alive(), f"{what} ended"
        assert time.monotonic() < end, f"{what} took longer than {timeout_s} s"
        time.sleep(0.02)


def wait_for_quiet_epoch(epoch_s: int, *, at_least_s: float) -> None:
    """Waits until no epoch ends for a while: the service then gathers active users only when it starts."""
    while epoch_s - time.time() % epoch_s < at_least_s:
        time.sleep(0.2)


class ServiceProcess:
    """`python -m service` as its own process; its state folder survives `kill` and `start`.

    It waits longer for Redis than it would by default, where the environment does not say otherwise.
    """

    def __init__(self, releases: Path | StoreUrl, folder: Path, *options: str, **environment: str) -> None:
        self.folder, self.port = folder, free_port()
        self.command = [sys.executable, "-m", "service", "--releases", str(releases), "--port", str(self.port)]
        self.command += ["--state-dir", str(folder / "state"), *options]
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("ISRF_", "REDIS_URL"))
        } | (as_environment(PATIENT) | environment)
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def launch(self) -> None:
        """Starts it and waits for nothing."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def start(self) -> Self:
        self.launch()
        try:
            wait_until(self.is_ready, what="the service", alive=lambda: self.exit_code() is None)
        except AssertionError:
            self.kill()
            raise AssertionError(self.log) from None
        return self

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(sent)
        return self.process.wait(timeout=PATIENCE_S)

    def kill(self) -> None:
        """Its workers with it."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def refused(self) -> tuple[int, str]:
        """Runs a command that must end by itself: exit code and stderr."""
        ended = subprocess.run(
            self.command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        return ended.returncode, ended.stderr


async def eventually(read: Callable[[], Awaitable[ResultT]], *, what: str) -> ResultT:
    """The first answer that is none of a store that cannot be reached."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await read()
        except StoreError:
            assert time.monotonic() < end, f"{what} took longer than {PATIENCE_S} s"
            await asyncio.sleep(0.02)


def check_soon(taken_s: Sequence[float], *, wait_s: float) -> None:
    """Reads that took so long wait for no server that takes `wait_s`; a busy machine may delay some of them."""
    ordered = sorted(taken_s)
    assert ordered[len(ordered) // 2] < wait_s / 2, ordered
    assert ordered[0] < SOON_S, ordered


def settings_for(server: RedisServer | None, state_dir: Path, **more: Any) -> Settings:
    """Patient settings, where `more` does not say otherwise."""
    url = None if server is None else SecretStr(server.url)
    return Settings(redis_url=url, state_dir=state_dir, **(PATIENT | more))


def as_environment(settings: Mapping[str, object]) -> dict[str, str]:
    return {f"ISRF_{name.upper()}": str(value) for name, value in settings.items()}


def read_events(*posted: dict[str, Any], now: float | None = None) -> list[Event]:
    """Events that must be good."""
    read = EventReader(EventRules(()), lambda _: True).read(posted, time.time() if now is None else now)
    assert not any(isinstance(one, Refusal) for one in read), read
    return [one for one in read if isinstance(one, Event)]


def event(item_id: str, timestamp: float | None = None, kind: str | None = None, **more: Any) -> dict[str, Any]:
    posted: dict[str, Any] = {"user_id": "ann", "item_id": item_id, **more}
    if timestamp is not None:
        posted["timestamp"] = timestamp
    if kind is not None:
        posted["event"] = kind
    return posted


def apply_to(store: Store) -> Callable[..., Coroutine[Any, Any, list[Outcome]]]:
    async def apply(*posted: dict[str, Any], now: float | None = None) -> list[Outcome]:
        return [one.outcome for one in await store.apply(read_events(*posted, now=now))]

    return apply


async def let_pass(store: Store, seconds: float) -> None:
    """What a store remembers for a while is as old as if so many seconds had passed."""
    if isinstance(store, EmbeddedStore):
        store.clock.booted_at += seconds
        return
    assert isinstance(store, RedisStore)
    client: Any = store.clients.writes
    for kind in "ef":
        async for key in client.scan_iter(match=f"isrf:{{b*}}:{kind}:*"):
            for member, at in await client.zrange(key, 0, -1, withscores=True):
                await client.zadd(key, {member: at - seconds})
    async for key in client.scan_iter(match="isrf:{b*}:c:*"):
        at, named = (await client.get(key)).split(b"\n", 1)
        await client.set(key, b"%d\n%s" % (int(at) - seconds, named), keepttl=True)


async def all_of(work: Sequence[Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(*work))
