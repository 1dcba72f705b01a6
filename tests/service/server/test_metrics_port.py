"""The metrics' own port: few threads however many connect, and nobody keeps it from a scraper."""

from pathlib import Path

import httpx
import pytest

from service.server.metrics_port import MAX_CONNECTIONS
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
    demo_release: Path, tmp_path: Path, redis_server: RedisServer, workers: int
) -> None:
    port = free_port()
    several = {"REDIS_URL": redis_server.url, "ISRF_WORKERS": "2"} if workers > 1 else {}
    service = ServiceProcess(demo_release, tmp_path, ISRF_METRICS_PORT=str(port), **several)
    impatient(service, wire__HEAD_S=5.0)
    service.start()
    metrics = MetricsPort(service, port)
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        assert "isrf_requests_in_progress" in httpx.get(url).text
        before = threads_of(service)
        with many(metrics, 150), many(metrics, 150, b"GET /metrics HTTP/1.1\r\n"):
            assert httpx.get(url, timeout=30).status_code == 200
            assert threads_of(service) <= before + 4
        with many(metrics, 100, *[head("GET", "/metrics")] * 20):
            assert httpx.get(url, timeout=60).status_code == 200, "nobody reads what they asked for"
        with many(metrics, MAX_CONNECTIONS) as idle:
            idle[-1].line.settimeout(30)
            assert idle[-1].line.recv(100).startswith(b"HTTP/1.1 408 ")
        assert httpx.get(url.replace("/metrics", "/nothing")).status_code == 404
        assert httpx.post(url, content=b"x").status_code == 405
        wait_until(lambda: httpx.get(f"{service.url}/livez").status_code == 200, what="the service itself")
        assert service.stop() == 0
    finally:
        service.kill()


def test_a_port_that_is_taken_is_said_at_the_start(demo_release: Path, tmp_path: Path) -> None:
    code, error = ServiceProcess(
        demo_release, tmp_path / "other", ISRF_METRICS_PORT="1", ISRF_METRICS_HOST="192.0.2.1"
    ).refused()
    assert (code, "config.metrics_port" in error) == (2, True)
