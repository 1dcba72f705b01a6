"""The service's Prometheus metrics, in a registry per app (several apps in one process do not mix).

With several workers, each worker writes its metrics to files, and any worker can add them up: `prometheus_client` does
this when PROMETHEUS_MULTIPROC_DIR is set, which `service.__main__` does before the workers start.
"""

import os
from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of an app."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Histogram(
            "isrf_request_seconds",
            "Time from a request's first byte to its answer's last byte.",
            ("route", "method", "status"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.stages = Histogram(
            "isrf_stage_seconds", "Time of each stage of a request.", ("stage",), buckets=_BUCKETS, registry=registry
        )
        self.in_progress = Gauge(
            "isrf_requests_in_progress",
            "Requests that are being answered now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.waiting = Gauge(
            "isrf_model_queue",
            "Model calls that wait for a thread now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.batch_size = Histogram(
            "isrf_model_batch_size",
            "Requests that one run of the model answers.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.not_run = Counter(
            "isrf_model_not_run",
            "Model calls that did not run: refused because too many wait, expired, or left by their caller.",
            ("reason",),
            registry=registry,
        )
        self.items = Counter(
            "isrf_items",
            "Recommended items of computed answers, by the channel that contributes most to their score.",
            ("source",),
            registry=registry,
        )
        self.answers = Counter(
            "isrf_answers", "Recommendation answers, by their source.", ("source", "release_id"), registry=registry
        )
        self.short_answers = Counter(
            "isrf_short_answers", "Answers with fewer items than the request asks for.", registry=registry
        )
        self.item_changes = Counter(
            "isrf_item_changes", "Items added, changed or hidden, by outcome.", ("outcome",), registry=registry
        )
        self.group_cache = Counter(
            "isrf_group_cache", "Users' interests, by where they come from.", ("result",), registry=registry
        )
        self.answer_cache = Counter(
            "isrf_answer_cache",
            "Users' answers, by where they come from: this process's cache, the store's, another request, or computed.",
            ("result",),
            registry=registry,
        )
        self.events = Counter(
            "isrf_events", "Interactions, by outcome; `detail` is the reason.", ("outcome", "detail"), registry=registry
        )
        self.webhooks = Counter(
            "isrf_webhooks",
            "Lines of orders from shop systems: accepted, duplicate or refused as events; or why they give no event.",
            ("system", "outcome"),
            registry=registry,
        )
        self.empty_answers = Counter(
            "isrf_empty_answers", "Answers without items, by their source.", ("source",), registry=registry
        )
        self.store_failures = Counter(
            "isrf_store_failures",
            "Failed reads and writes of user state: reads go on without it, writes are refused.",
            ("operation",),
            registry=registry,
        )
        self.release_events = Counter(
            "isrf_release_events",
            "Accepted interactions of a release's users, by effect: bought, history, disliked or removed.",
            ("release_id", "effect"),
            registry=registry,
        )
        self.release_requests = Histogram(
            "isrf_release_request_seconds",
            "Time that a request uses a release.",
            ("release_id",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.reloads = Counter(
            "isrf_reloads",
            "Switches to another release, and refusals, by code.",
            ("result", "code"),
            registry=registry,
        )
        self.release_store_up = Gauge(
            "isrf_release_store_up",
            "1 while the object store with the releases could be asked for `current`, else 0; 1 for a folder.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.release_store_up.set(1)
        self.problems = Counter("isrf_problems", "Problem answers, by code.", ("code",), registry=registry)
        self.store_up = Gauge(
            "isrf_store_up",
            "1 while user state can be read and written, else 0.",
            ("kind",),
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.store_durable = Gauge(
            "isrf_store_durable",
            "1 while Redis' settings keep accepted events, 0 while they can lose them, -1 while they are unknown.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.release = Gauge(
            "isrf_release_info",
            "1 for a release that is served, 0 for an earlier one.",
            ("release_id", "preset", "encoder", "reasoner"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.release_created = Gauge(
            "isrf_release_created_timestamp_seconds",
            "When the served release was made; its age is time() minus this.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.learned_until = Gauge(
            "isrf_release_learned_until_timestamp_seconds",
            "The served release has no data newer than this moment.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.live_entries = Counter(
            "isrf_live_entries",
            "Accepted events that this replica has read to count them for everybody, by what became of them.",
            ("outcome",),
            registry=registry,
        )
        self.live_behind = Gauge(
            "isrf_live_entries_behind",
            "Accepted events that are not counted yet, about.",
            ("release_id",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.live_seconds_behind = Gauge(
            "isrf_live_seconds_behind",
            "Age of the last counted event while others wait, else 0.",
            ("release_id",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.live_window = Gauge(
            "isrf_live_window_bytes",
            "Memory of the events that count now; at ISRF_LIVE_EVIDENCE_MB the oldest leave.",
            ("release_id",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.live_truncated = Gauge(
            "isrf_live_truncated",
            "1 where the store has removed events that the release has not learned, so that they are not counted.",
            ("release_id",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._tracing: Callable[[str, float], None] | None = None

    def stage(self, name: str, seconds: float) -> None:
        """Records the time of a stage."""
        self.stages.labels(name).observe(seconds)
        if self._tracing is not None:
            self._tracing(name, seconds)

    def trace_stages(self, record: Callable[[str, float], None]) -> None:
        """Also passes each stage to `record`."""
        self._tracing = record

    def exposition(self) -> bytes:
        """Returns the metrics of all workers in Prometheus' text format."""
        return generate_latest(self._all_workers())

    def _all_workers(self) -> CollectorRegistry:
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self._registry
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry
