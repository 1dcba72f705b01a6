"""docs/reference/metrics.md: every metric that the service registers."""

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from docs.generate.markdown import code, page, prose, table
from service.telemetry.metrics import Metrics


def metrics_page() -> str:
    found = [one for one in vars(Metrics()).values() if isinstance(one, MetricWrapperBase)]
    rows = [[code(_name(one)), _kind(one), _labels(one), one._documentation] for one in found]
    return page(
        "Metrics",
        prose(
            "`GET /metrics` answers in the Prometheus text format and needs an `admin` key. "
            "[`ISRF_METRICS_PORT`](settings.md#access-and-metrics) serves the same on a port of its own, without a "
            "key. With several workers the figures are those of all of them. `docker/grafana` holds a dashboard, "
            "`docker/prometheus/alerts.yaml` alert rules. A histogram has `_bucket`, `_sum` and `_count`."
        ),
        table(("Metric", "Type", "Labels", "Meaning"), sorted(rows)),
    )


def _name(metric: MetricWrapperBase) -> str:
    return f"{metric._name}_total" if isinstance(metric, Counter) else str(metric._name)


def _kind(metric: MetricWrapperBase) -> str:
    kinds = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    return kinds[type(metric)]


def _labels(metric: MetricWrapperBase) -> str:
    return ", ".join(code(label) for label in metric._labelnames)
