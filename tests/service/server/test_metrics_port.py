"""The metrics' own port: few threads however many connect, and nobody keeps it from a scraper."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.server.metrics_port import MAX_CONNECTIONS, serve_metrics
from service.telemetry.metrics import Metrics
from tests.service.hostile import head, impatient, many
from tests.service.servers import RedisServer, ServiceProcess, free_port, wait_until


def threads_of(service: ServiceProcess) -> int:
    assert service.process is not None
    return len(list(Path(f"/proc/{service.process.pid}/task").iterdir()))


class MetricsPort(ServiceProcess):
    """As its callers connect to it."""

    def __init__(self, service: ServiceProcess, port: int) -> None:
        self.port = port
        self.process = service.process


@pytest.mark.parametrize("workers", [1, 2])
def test_300_idle_connections_are_no_threads(
    tiny_release: Path, tmp_path: Path, redis_server: RedisServer, workers: int
) -> None:
    port = free_port()
    several = {"REDIS_URL": redis_server.url, "ISRF_WORKERS": "2"} if workers > 1 else {}
    service = ServiceProcess(tiny_release, tmp_path, ISRF_METRICS_PORT=str(port), **several)
    impatient(service, {"protocol.http_protocol.HEAD_S": 5.0})
    service.start()
    metrics = MetricsPort(service, port)
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        assert "isrf_requests_in_progress" in httpx.get(url).text
        before = threads_of(service)
        with many(metrics, 150), many(metrics, 150, b"GET /metrics HTTP/1.1\r\n"):
            assert httpx.get(url, timeout=30).status_code == 200
            assert threads_of(service) <= before + 4
        with many(metrics, 100) as unread:
            for caller in unread:
                with contextlib.suppress(ConnectionError):  # of those that made room for others
                    caller.send(*[head("GET", "/metrics")] * 20)
            # At once, or when the first of them are known not to read what they asked for.
            wait_until(lambda: httpx.get(url, timeout=60).status_code == 200, what="room among those who do not read")
        with many(metrics, MAX_CONNECTIONS) as idle:
            idle[-1].line.settimeout(30)
            assert idle[-1].is_ended()
        assert httpx.get(url.replace("/metrics", "/nothing")).status_code == 404
        assert httpx.post(url, content=b"x").status_code == 405
        wait_until(lambda: httpx.get(f"{service.url}/livez").status_code == 200, what="the service itself")
        assert service.stop() == 0
    finally:
        service.kill()


def test_scrapes_that_nobody_reads_keep_no_scraper_waiting() -> None:
    """Half a megabyte each: made anew for every one, they would take a processor's minute."""
    metrics, port = Metrics(), free_port()
    for number in range(400):
        metrics.requests.labels(f"/route{number}", "GET", "200").observe(0.1)
    serve_metrics(metrics, "127.0.0.1", port)
    url = f"http://127.0.0.1:{port}/metrics"
    wait_until(lambda: len(httpx.get(url).content) > 400_000, what="the port")
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            caller = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            caller.sendall(head("GET", "/metrics") * 20)
        for _ in range(5):
            assert httpx.get(url, timeout=5).status_code == 200
    metrics.problems.labels("a.new_one").inc()
    wait_until(lambda: "a.new_one" in httpx.get(url).text, what="a number that is new")


def test_no_loop_runs_when_the_interpreter_ends() -> None:
    """A timer of a loop that still runs then is a SIGSEGV. Exit handlers run in reverse order: this one is the last."""
    program = f"""
import atexit, threading, time, urllib.request
from service.server.metrics_port import THREAD, serve_metrics
from service.telemetry.metrics import Metrics
running = lambda: [one.name for one in threading.enumerate() if one.name == THREAD]
atexit.register(lambda: print("at the end:", running()))
serve_metrics(Metrics(), "127.0.0.1", {(port := free_port())})
urllib.request.urlopen("http://127.0.0.1:{port}/metrics").read()
print("meanwhile:", running())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=90, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["meanwhile: ['metrics']", "at the end: []"]


@pytest.mark.slow
def test_a_port_that_is_taken_is_said_at_the_start(tiny_release: Path, tmp_path: Path) -> None:
    code, error = ServiceProcess(
        tiny_release, tmp_path / "other", ISRF_METRICS_PORT="1", ISRF_METRICS_HOST="192.0.2.1"
    ).refused()
    assert (code, "config.metrics_port" in error) == (2, True)
