"""What Prometheus is told, in a registry of the service's own (several apps in one process do not mix).

With several workers each writes to files that any of them can add up: `prometheus_client` does so when
PROMETHEUS_MULTIPROC_DIR is set, which `service.__main__` does before the workers start.
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
    """One per app."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Histogram(
            "isrf_request_seconds",
            "Time from the request's first byte to the answer's last.",
            ("route", "method", "status"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.stages = Histogram(
            "isrf_stage_seconds", "Time of a request's stages.", ("stage",), buckets=_BUCKETS, registry=registry
        )
        self.in_progress = Gauge(
            "isrf_requests_in_progress",
            "Requests being answered now.",
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
            "Model calls that were not made: refused since too many waited, expired, or without a caller by then.",
            ("reason",),
            registry=registry,
        )
        self.items = Counter(
            "isrf_items",
            "Recommended items of computed answers by the channel that speaks loudest for them.",
            ("source",),
            registry=registry,
        )
        self.answers = Counter(
            "isrf_answers", "Recommendation answers by what they rest on.", ("source", "release_id"), registry=registry
        )
        self.short_answers = Counter(
            "isrf_short_answers", "Answers with fewer items than asked for.", registry=registry
        )
        self.item_changes = Counter(
            "isrf_item_changes", "Items added, changed or hidden, by outcome.", ("outcome",), registry=registry
        )
        self.group_cache = Counter(
            "isrf_group_cache", "Where a user's interests came from.", ("result",), registry=registry
        )
        self.answer_cache = Counter(
            "isrf_answer_cache",
            "Where a user's answer came from: kept here or in the store, shared with one just being made, or computed.",
            ("result",),
            registry=registry,
        )
        self.events = Counter(
            "isrf_events", "Interactions by outcome; `detail` is the reason.", ("outcome", "detail"), registry=registry
        )
        self.empty_answers = Counter(
            "isrf_empty_answers", "Answers without any item, by what they rest on.", ("source",), registry=registry
        )
        self.store_failures = Counter(
            "isrf_store_failures",
            "Requests that user state did not answer: reads go on from the release, writes are refused.",
            ("operation",),
            registry=registry,
        )
        self.release_events = Counter(
            "isrf_release_events",
            "Accepted interactions of the users that a release answers; bought, history, disliked or removed.",
            ("release_id", "effect"),
            registry=registry,
        )
        self.release_requests = Histogram(
            "isrf_release_request_seconds",
            "Time that a request held a release.",
            ("release_id",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.reloads = Counter(
            "isrf_reloads",
            "Switches to another release, and refusals by code.",
            ("result", "code"),
            registry=registry,
        )
        self.problems = Counter("isrf_problems", "Problem answers by code.", ("code",), registry=registry)
        self.store_up = Gauge(
            "isrf_store_up",
            "1 while user state can be read and written.",
            ("kind",),
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.store_durable = Gauge(
            "isrf_store_durable",
            "1 while Redis is set so that what was accepted is kept, 0 while it is not, -1 while it does not say.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.release = Gauge(
            "isrf_release_info",
            "1 for a release that is served, 0 for one that was.",
            ("release_id", "preset", "encoder", "reasoner"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.release_created = Gauge(
            "isrf_release_created_timestamp_seconds",
            "When the release that is served was made; its age is time() minus this.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.learned_until = Gauge(
            "isrf_release_learned_until_timestamp_seconds",
            "The release that is served knows nothing newer than this.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._tracing: Callable[[str, float], None] | None = None

    def stage(self, name: str, seconds: float) -> None:
        self.stages.labels(name).observe(seconds)
        if self._tracing is not None:
            self._tracing(name, seconds)

    def trace_stages(self, told: Callable[[str, float], None]) -> None:
        """Tells each stage to somebody else, too."""
        self._tracing = told

    def exposition(self) -> bytes:
        """The text format."""
        return generate_latest(self._everyone())

    def _everyone(self) -> CollectorRegistry:
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self._registry
        everyone = CollectorRegistry()
        multiprocess.MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return everyone
