"""What operators see: metrics of a real process, a port of their own, traces as a collector receives them."""

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from isrf.contract.errors import ConfigError
from service.telemetry.traces import open_traces
from tests.service.releases import shopper_of
from tests.service.servers import RedisServer, ServiceProcess, free_port, wait_until


@pytest.fixture
def shopper(tiny_release: Path) -> str:
    return shopper_of(tiny_release / "current")


def value(text: str, series: str) -> float:
    """Of one series, 0.0 if it is not there."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_request_leaves_its_numbers(tiny_release: Path, tmp_path: Path, own_redis: RedisServer, shopper: str) -> None:
    port = free_port()
    service = ServiceProcess(
        tiny_release, tmp_path / "service", REDIS_URL=own_redis.url, ISRF_METRICS_PORT=str(port)
    ).start()
    try:
        for path in (f"/recommend/{shopper}", f"/recommend/{shopper}?category=nothing", "/recommend/nobody"):
            assert httpx.get(service.url + path).status_code == 200
        httpx.get(f"{service.url}/popular?n=x")
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        for stage in ("store", "queue", "features", "group", "model"):
            assert value(text, f'isrf_stage_seconds_count{{stage="{stage}"}}') >= 1, stage
        assert value(text, "isrf_model_batch_size_count") == 1, "a category without items needs no model"
        assert value(text, "isrf_model_queue") == 0
        assert value(text, 'isrf_empty_answers_total{source="sequence"}') == 1
        assert value(text, 'isrf_items_total{source="popular"}') >= 10
        assert value(text, 'isrf_problems_total{code="request.invalid"}') == 1
        assert 0 < value(text, "isrf_release_created_timestamp_seconds") <= time.time()
        assert 0 < value(text, "isrf_release_learned_until_timestamp_seconds") <= time.time()
        httpx.get(f"{service.url}/readyz")
        own_redis.kill()
        assert httpx.get(f"{service.url}/recommend/{shopper}").json()["meta"]["source"] == "bundle:sequence"
        events = {"events": [{"user_id": "ann", "item_id": pl.read_ndjson(
            tiny_release / "current" / "items.jsonl")["item_id"][0]}]}  # fmt: skip
        assert httpx.post(f"{service.url}/interactions", json=events, timeout=20).status_code == 503
        text = httpx.get(f"{service.url}/metrics").text
        assert value(text, 'isrf_store_up{kind="redis"}') == 0
        assert value(text, 'isrf_store_failures_total{operation="read"}') == 1
        assert value(text, 'isrf_store_failures_total{operation="write"}') == 1
        assert value(text, "isrf_requests_in_progress") == 1, "this one"
    finally:
        service.kill()


def test_the_metrics_port_adds_up_the_workers(tiny_release: Path, tmp_path: Path, redis_server: RedisServer) -> None:
    port = free_port()
    service = ServiceProcess(
        tiny_release, tmp_path / "s", "--workers", "2", REDIS_URL=redis_server.url, ISRF_METRICS_PORT=str(port)
    ).start()
    try:
        for _ in range(10):
            assert httpx.get(f"{service.url}/popular").status_code == 200

        def counted() -> float:
            text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            return value(text, 'isrf_request_seconds_count{method="GET",route="/popular",status="200"}')

        # A request is counted once it is answered: the caller may be faster.
        wait_until(lambda: counted() >= 10, what="the count of both workers")
        assert counted() == 10
    finally:
        service.kill()


@pytest.mark.slow
def test_a_metrics_port_that_is_taken_is_said(tiny_release: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, error = ServiceProcess(tiny_release, tmp_path, ISRF_METRICS_PORT=str(port)).refused()
    assert (code, "config.metrics_port" in error, "Traceback" in error) == (2, True, False)


class Collector:
    """An OTLP collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    names = [
                        one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
                    ]
                    collector.services.update(names)
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.close()


@pytest.mark.slow
def test_a_request_is_one_trace_that_names_nobody(
    tiny_release: Path, tmp_path: Path, collector: Collector, shopper: str
) -> None:
    service = ServiceProcess(
        tiny_release, tmp_path / "service",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="100",
    ).start()  # fmt: skip
    try:
        trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
        headers = {"traceparent": f"00-{trace}-{parent}-01", "X-Request-ID": "mine"}
        assert httpx.get(f"{service.url}/recommend/{shopper}", headers=headers).status_code == 200
        wait_until(lambda: any(span.name.startswith("GET /recommend") for span in collector.spans), what="the span")
        mine = [span for span in collector.spans if span.trace_id.hex() == trace]
        (request,) = [span for span in mine if span.name == "GET /recommend/{user_id:path}"]
        assert request.parent_span_id.hex() == parent
        told = {one.key: one.value.string_value or one.value.int_value for one in request.attributes}
        assert told["http.response.status_code"] == 200
        assert told["isrf.request_id"] == "mine"
        stages = {span.name for span in mine if span.parent_span_id == request.span_id}
        assert {"store", "queue", "features", "group", "model"} <= stages
        for span in mine:
            assert request.start_time_unix_nano - 1e6 <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert collector.services == {"isrf"}
        assert shopper not in str(collector.spans)
        assert service.stop() == 0
    finally:
        service.kill()


@pytest.mark.slow
def test_without_an_endpoint_no_traces_are_made() -> None:
    # redis-py looks for OpenTelemetry's interface by itself; what makes and sends spans must not come with it.
    code = (
        "import sys, service.app; service.app.create_app();"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.exporter', 'opentelemetry.sdk.trace'))])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_an_endpoint_without_the_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError) as refused:
        open_traces()
    assert refused.value.code == "config.no_otel"
