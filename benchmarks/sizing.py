"""Estimates what a shop of a given size needs: the service's memory and CPU, Redis, and the time of a training.

    python benchmarks/sizing.py --items 50000 --users 300000 --events-per-day 100000 [--requests-per-second 40]
        [--epochs 6] [--history-days 365]

It interpolates between the measurements of `docs/data/sizing.jsonl`, which `sizing_measure.py` makes: memory and a
stage's CPU seconds as a sum of parts that grow with items, users and events, each by non-negative least squares; a
request's CPU between the two nearest catalogues. It prints how far each is from what was measured, and says where a
shop lies outside the measured sizes. Prints a table and one JSON line.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from offline.config import RunConfig
from offline.stages.embed.nearest import MAX_ITEMS_BY_TERMS
from offline.stages.train.objective import FULL_SOFTMAX_ITEMS
from service.settings import Settings

MEASUREMENTS = Path(__file__).resolve().parent.parent / "docs" / "data" / "sizing.jsonl"
EPOCHS = {"graph": RunConfig().graph.epochs, "train": RunConfig().train.epochs}
"""Stages that repeat, with the preset `demo`'s number of epochs; each was measured with one."""
SAMPLED_USERS = RunConfig().evaluate.validation_users
SECONDS_KEPT = {name: Settings.model_fields[f"{name}_ttl_s"].default for name in ("group", "answer", "recommendation")}
"""How long the store keeps a user's interests, an answer and a list, by default."""
STREAM_DAYS = 2.0
"""Events stay in Redis until the run after the one that read them has ended: two days of them with a run a day."""
BUSY = 0.6
"""Share of a core that requests may take, so that waits stay short."""


class Shop(NamedTuple):
    """What a shop's owner knows."""

    num_items: int
    num_users: int  # with a history
    events_per_day: float
    num_rows: int  # events that a training reads
    requests_per_s: float  # that need the model, at the busiest time
    epochs: int


class Fitted(NamedTuple):
    """A sum of parts that grow with a shop."""

    value: Callable[[Shop], float]
    worst: float  # largest relative error at the measured sizes

    @classmethod
    def of(cls, shops: Sequence[Shop], values: Sequence[float], parts: Callable[[Shop], Sequence[float]]) -> "Fitted":
        """Fits the parts' factors, none below 0, for the smallest relative errors."""
        table = np.array([parts(shop) for shop in shops], dtype=np.float64)
        measured = np.maximum(np.array(values, dtype=np.float64), 1e-9)
        factors: NDArray[np.float64] = nnls(table / measured[:, None], np.ones(len(measured)))[0]
        worst = float(np.max(np.abs(table @ factors / measured - 1)))
        return cls(lambda shop: float(np.array(parts(shop)) @ factors), worst)


def by_size(shop: Shop) -> Sequence[float]:
    return 1.0, shop.num_items, shop.num_users


def by_events(shop: Shop) -> Sequence[float]:
    return 1.0, shop.num_items, shop.num_rows


def by_softmax(shop: Shop) -> Sequence[float]:
    """As `by_events`, and each event is compared with the items, up to where the training samples them."""
    return *by_events(shop), shop.num_rows * min(shop.num_items, FULL_SOFTMAX_ITEMS)


def by_item_pairs(shop: Shop) -> Sequence[float]:
    """Each item's text is compared with the others', up to where they are searched by their vectors."""
    return 1.0, shop.num_items, float(min(shop.num_items, MAX_ITEMS_BY_TERMS)) ** 2


def by_sampled_users(shop: Shop) -> Sequence[float]:
    """The candidates of the users whose held-out items choose the weights are in memory together."""
    return 1.0, shop.num_items, min(shop.num_users, SAMPLED_USERS)


PARTS_OF_TIME = {"train": by_softmax, "embed": by_item_pairs, "evaluate": by_size}
PARTS_OF_MEMORY = {"evaluate": by_sampled_users}
"""What a stage's time and memory grow with, where that is not `by_events`."""


def estimate(shop: Shop, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the shop needs; times in CPU seconds of the measured machine, memory in MB."""
    service, training = ([line for line in lines if line["kind"] == kind] for kind in ("service", "training"))
    redis = next(line for line in lines if line["kind"] == "redis")
    return {
        **_service(shop, service),
        **_redis(shop, redis),
        **_training(shop, training),
        "outside": _outside(shop, service, training),
    }


def _service(shop: Shop, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    shops = [_shop_of(line) for line in lines]
    fits = {
        name: Fitted.of(shops, [line[name] for line in lines], by_size)
        for name in ("memory_mb", "own_memory_mb", "start_cpu_s", "disk_mb")
    }
    cpu_ms = _between(shop.num_items, [(line["num_items"], line["request_cpu_ms"]) for line in lines])
    return {
        **{name: round(fit.value(shop), 1) for name, fit in fits.items()},
        "request_cpu_ms": round(cpu_ms, 1),
        "service_cores": round(shop.requests_per_s * cpu_ms / 1e3 / BUSY, 1),
        "service_errors": {name: round(fit.worst, 2) for name, fit in fits.items()},
    }


def _redis(shop: Shop, line: dict[str, Any]) -> dict[str, Any]:
    """With every event by another user, as far as there are so many."""
    per_event = line["event_day_bytes"] + STREAM_DAYS * line["event_stream_bytes"]
    users = min(shop.num_users, shop.events_per_day)
    lists = shop.requests_per_s * SECONDS_KEPT["recommendation"]
    answers = min(users, shop.requests_per_s * SECONDS_KEPT["answer"])
    interests = min(users, shop.requests_per_s * SECONDS_KEPT["group"])
    total = shop.events_per_day * per_event + users * line["user_bytes"] + lists * line["list_bytes"]
    total += answers * line["answer_bytes"] + interests * line["interests_bytes"]
    return {"redis_mb": round(total * line["used_memory_over_keys"] / 1e6, 1)}


def _training(shop: Shop, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    shops = [_shop_of(line) for line in lines]
    seconds: dict[str, float] = {}
    errors: dict[str, float] = {}
    peaks: dict[str, float] = {}
    for stage in lines[0]["stages"]:
        times, peak_mbs = ([line["stages"][stage][name] for line in lines] for name in ("cpu_s", "peak_mb"))
        fit = Fitted.of(shops, times, PARTS_OF_TIME.get(stage, by_events))
        peak = Fitted.of(shops, peak_mbs, PARTS_OF_MEMORY.get(stage, by_events))
        epochs = shop.epochs if stage == "train" else EPOCHS.get(stage, 1)
        seconds[stage], errors[stage], peaks[stage] = epochs * fit.value(shop), round(fit.worst, 2), peak.value(shop)
    return {
        "training_cpu_min": round(sum(seconds.values()) / 60, 1),
        "training_peak_mb": round(max(peaks.values())),
        "training_stages_s": {stage: round(value, 1) for stage, value in seconds.items()},
        "training_errors": errors,
    }


def _shop_of(line: dict[str, Any]) -> Shop:
    return Shop(line["num_items"], line["num_users"], 0.0, line.get("num_rows", 0), 0.0, 1)


def _between(num_items: int, measured: Sequence[tuple[int, float]]) -> float:
    """Linear between the two nearest catalogues; of several measurements of one catalogue the largest counts."""
    largest = {items: max(value for other, value in measured if other == items) for items, _ in measured}
    sizes = sorted(largest)
    return float(np.interp(num_items, sizes, [largest[size] for size in sizes]))


def _outside(shop: Shop, service: Sequence[dict[str, Any]], training: Sequence[dict[str, Any]]) -> list[str]:
    """Where the shop is larger than what was measured, so that the estimate extrapolates."""
    found = []
    for what, value, most in (
        ("items, service", shop.num_items, max(line["num_items"] for line in service)),
        ("users, service", shop.num_users, max(line["num_users"] for line in service)),
        ("items, training", shop.num_items, max(line["num_items"] for line in training)),
        ("events, training", shop.num_rows, max(line["num_rows"] for line in training)),
    ):
        if value > most:
            found.append(f"{what}: {value:,} (measured up to {most:,})")
    return found


def table(shop: Shop, found: dict[str, Any]) -> str:
    rows = [
        ("a worker's memory", f"{found['memory_mb']:,.0f} MB, {found['own_memory_mb']:,.0f} MB of it not shared"),
        ("a release on disk", f"{found['disk_mb']:,.0f} MB"),
        ("start to ready", f"{found['start_cpu_s']:.0f} s of CPU"),
        ("a request that needs the model", f"{found['request_cpu_ms']} ms of CPU"),
        (f"cores for {shop.requests_per_s:g} such requests a second", f"{found['service_cores']}"),
        ("Redis", f"{found['redis_mb']:,.0f} MB"),
        (f"a training, {shop.epochs} epochs at most", f"{found['training_cpu_min']:,.0f} min of one core"),
        ("its peak of memory", f"{found['training_peak_mb']:,} MB"),
    ]
    lines = [f"{name:44} {value}" for name, value in rows]
    return "\n".join([*lines, *(f"extrapolated: {what}" for what in found["outside"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--users", type=int, required=True, help="users with a history")
    parser.add_argument("--events-per-day", type=float, required=True)
    parser.add_argument("--history-days", type=float, default=365, help="days of events that a training reads")
    parser.add_argument(
        "--requests-per-second", type=float, default=10, help="that need the model, at the busiest time"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS["train"])
    arguments = parser.parse_args()
    if not MEASUREMENTS.exists():
        sys.exit(f"{MEASUREMENTS} is missing: make it with benchmarks/sizing_measure.py --out {MEASUREMENTS}")
    shop = Shop(
        arguments.items,
        arguments.users,
        arguments.events_per_day,
        round(arguments.events_per_day * arguments.history_days),
        arguments.requests_per_second,
        arguments.epochs,
    )
    found = estimate(shop, [json.loads(line) for line in MEASUREMENTS.read_text().splitlines()])
    print(table(shop, found))
    print(json.dumps({"benchmark": "sizing", **shop._asdict(), **found}))


if __name__ == "__main__":
    main()
