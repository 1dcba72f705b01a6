"""What Prometheus is told, in a registry of the service's own (several apps in one process do not mix).

With several workers each writes to files that any of them can add up: `prometheus_client` does so when
PROMETHEUS_MULTIPROC_DIR is set, which `service.__main__` does before the workers start.
"""

import os

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
        self.answers = Counter(
            "isrf_answers", "Recommendation answers by what they rest on.", ("source",), registry=registry
        )
        self.short_answers = Counter(
            "isrf_short_answers", "Answers with fewer items than asked for.", registry=registry
        )
        self.group_cache = Counter(
            "isrf_group_cache", "Where a user's interests came from.", ("result",), registry=registry
        )
        self.events = Counter(
            "isrf_events", "Interactions by outcome; `detail` is the reason.", ("outcome", "detail"), registry=registry
        )
        self.problems = Counter("isrf_problems", "Problem answers by code.", ("code",), registry=registry)
        self.store_up = Gauge(
            "isrf_store_up",
            "1 while user state can be read and written.",
            ("kind",),
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.release = Gauge(
            "isrf_release_info",
            "1 for the release that is served.",
            ("release_id", "preset", "encoder", "reasoner"),
            registry=registry,
            multiprocess_mode="livemax",
        )

    def stage(self, name: str, seconds: float) -> None:
        self.stages.labels(name).observe(seconds)

    def exposition(self) -> bytes:
        """The text format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        everyone = CollectorRegistry()
        multiprocess.MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)
