"""Sends OpenTelemetry traces to OTEL_EXPORTER_OTLP_ENDPOINT: a span per request and one per stage.

It needs the extra `otel`; without an endpoint it imports nothing of it. The SDK's own variables (OTEL_SERVICE_NAME,
OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, …) apply. Spans name routes and stages, never users or items.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from isrf.contract.errors import ConfigError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Traces:
    """Sends the traces of an app; it has one where an endpoint is set."""

    def __init__(self) -> None:
        try:
            from opentelemetry import propagate, trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise ConfigError(
                "config.no_otel",
                f"{' or '.join(ENDPOINTS)} is set, and OpenTelemetry is not installed ({error.name}).",
                fix="Install the extra (`pip install '.[otel]'`), or unset the endpoint.",
            ) from None
        self._trace, self._propagate = trace, propagate
        name = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "isrf"}
        resource = Resource.create(name)
        # The app's own provider, not the global one: several apps in one process do not mix.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("isrf.service")

    @contextmanager
    def request(self, method: str, headers: Mapping[bytes, bytes], request_id: str) -> Iterator[dict[str, Any]]:
        """Opens a request's span, a child of the caller's (`traceparent`); entries of the dict become attributes."""
        carrier = {name: headers[name.encode()].decode("latin-1") for name in _carried(headers)}
        kind = self._trace.SpanKind.SERVER
        with self._tracer.start_as_current_span(method, context=self._propagate.extract(carrier), kind=kind) as span:
            attributes: dict[str, Any] = {"http.request.method": method, "isrf.request_id": request_id}
            try:
                yield attributes
            finally:
                span.update_name(f"{method} {attributes.get('http.route', 'none')}")
                span.set_attributes(attributes)
                if attributes.get("http.response.status_code", 500) >= 500:
                    span.set_status(self._trace.StatusCode.ERROR)

    def stage(self, name: str, seconds: float) -> None:
        """Adds a span for a stage that has just ended, as a child of the current request's span, if there is one."""
        if self._trace.get_current_span().get_span_context().is_valid:
            ended = time.time_ns()
            self._tracer.start_span(name, start_time=ended - int(seconds * 1e9)).end(ended)

    def close(self) -> None:
        """Sends the remaining spans; takes seconds where the endpoint does not answer."""
        self._provider.shutdown()


def _carried(headers: Mapping[bytes, bytes]) -> list[str]:
    return [name for name in ("traceparent", "tracestate") if name.encode() in headers]


def open_traces() -> Traces | None:
    """Returns the traces of an app; None where no endpoint is set."""
    return Traces() if any(os.environ.get(name) for name in ENDPOINTS) else None
