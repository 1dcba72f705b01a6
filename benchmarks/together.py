"""Measures `together` on what users took on one day, against co-occurrence alone.

    python benchmarks/together.py --data FOLDER --releases FOLDER [--share 0.85] [--tune]

The release must be made of the first `share` of the shop's events (`offline replay --share` makes one). The rest is
played day by day: a basket is what one user took on one day, 2 to 20 items of the release. Each of its items asks for
the others, before the day's events count as live evidence, and a basket's figure is the mean NDCG@10 of its pairs. The
first half of the days is for choosing (`--tune` prints a grid of it), the second half for reporting. Unlike pairs are
those whose items are not `ALIKE`. Prints a table and one JSON line; it trains nothing.
"""

import argparse
import itertools
import json
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from intervals import rounded, show
from machine import machine
from numpy.typing import NDArray

from isrf.contract.event_log import FOLLOWED_ITEMS
from isrf.method.interest import BoolArray, FloatArray, IntArray
from isrf.method.kinds.together import CHOSEN, DAY_S, MOST_TOGETHER, TogetherWeights, complements
from isrf.method.metrics import Interval
from isrf.method.recommend.live.live_events import LiveEvent
from offline.commands.replay.cut import ReplayEvent, cut
from offline.config import build_config
from service.release.opening import Release, open_release

K = 10
GRID = {"popularity": (0.0, 0.1, 0.2, 0.3), "alike_penalty": (0.1, 0.3)}


class Asked(NamedTuple):
    """What one basket asked: for each of its items the scores of all items by way of asking."""

    day: int
    pairs: list[tuple[dict[str, IntArray], IntArray, BoolArray]]  # best items by way, wanted items, unlike


def best(scores: FloatArray, found: BoolArray, item: int) -> IntArray:
    """(K,) the best found items without `item`, ties by row."""
    rows = np.flatnonzero(found)
    rows = rows[rows != item]
    order: IntArray = rows[np.lexsort((rows, -scores[rows]))][:K]
    return order


def ways(release: Release, item: int, variants: Mapping[str, TogetherWeights]) -> tuple[dict[str, IntArray], BoolArray]:
    """The best items by each way of asking, and which items are alike the item."""
    tables = release.recommender.tables
    entries = tables.item_lists["cooccurrence"].entries(item)
    alone = np.zeros(len(tables.item_vectors), np.float32)
    alone[entries.indices] = entries.weights
    found = {"cooccurrence alone": best(alone, alone > 0, item)}
    alike = np.zeros(len(alone), np.bool_)
    for name, weights in variants.items():
        together = complements(
            [item],
            tables.item_lists,
            baskets=release.users.facts.baskets,
            vectors=tables.item_vectors,
            popularity=tables.recent_shares(),
            weights=weights,
        )
        found[name], alike = best(together.scores, together.found, item), together.alike
    return found, alike


def baskets(stream: Sequence[ReplayEvent]) -> Iterator[tuple[int, dict[str, list[ReplayEvent]]]]:
    """Each day's events by user, in order of time."""
    for day, events in itertools.groupby(stream, key=lambda event: int(event.timestamp // DAY_S)):
        by_user: dict[str, list[ReplayEvent]] = defaultdict(list)
        for event in events:
            by_user[event.user_id].append(event)
        yield day, by_user


def play(
    release: Release,
    stream: Sequence[ReplayEvent],
    variants: Mapping[str, TogetherWeights],
    days: Callable[[int], bool],
) -> list[Asked]:
    """Asks for every basket of the chosen days, and counts every event after its day."""
    evidence = release.recommender.tables.live_evidence(150 << 20)
    assert evidence is not None, "the release is too old for live evidence"
    live = release.recommender.with_live(evidence)
    asking = Release(**{**vars(release), "recommender": live})
    pasts: dict[str, list[int]] = {}
    found: list[Asked] = []
    for day, by_user in baskets(stream):
        for events in by_user.values() if days(day) else ():
            taken = sorted(set(release.catalogue.rows(event.item_id for event in events)))
            if 2 <= len(taken) <= MOST_TOGETHER:
                pairs = []
                for item in taken:
                    listed, alike = ways(asking, item, variants)
                    wanted = np.array([other for other in taken if other != item], np.int64)
                    pairs.append((listed, wanted, ~alike[wanted]))
                found.append(Asked(day, pairs))
        for user_id, events in by_user.items():
            past = pasts.get(user_id)
            if past is None:
                history = release.users.past(user_id, lambda _: False).history
                past = pasts[user_id] = release.catalogue.rows(entry.item_id for entry in history)
            for event in events:
                rows = release.catalogue.rows([event.item_id])
                if rows:
                    followed = [row for row in dict.fromkeys(reversed(past)) if row != rows[0]][:FOLLOWED_ITEMS]
                    name = zlib.crc32(f"{user_id}\n{event.item_id}\n{event.timestamp}".encode())
                    evidence.add(LiveEvent(rows[0], followed, event.timestamp, zlib.crc32(user_id.encode()), name))
                    past.append(rows[0])
    return found


def ndcg(asked: Sequence[Asked], way: str, *, unlike: bool) -> NDArray[np.float64]:
    """(baskets,) mean NDCG@K of each basket's pairs; NaN for a basket without such a pair."""
    figures = np.full(len(asked), np.nan)
    for number, one in enumerate(asked):
        gains = [
            float((1.0 / np.log2(2.0 + np.flatnonzero(listed[way] == item))).sum())
            for listed, wanted, differs in one.pairs
            for item in wanted[differs if unlike else slice(None)]
        ]
        if gains:
            figures[number] = np.mean(gains)
    return figures


def interval(values: NDArray[np.float64]) -> Interval:
    """The mean and its 95% interval, by 1,000 bootstrap samples of the baskets."""
    values = values[np.isfinite(values)]
    rng = np.random.default_rng(0)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(1000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def figures(asked: Sequence[Asked], variants: Mapping[str, TogetherWeights]) -> dict[str, dict[str, object]]:
    """NDCG of each way, and its gain over co-occurrence alone, over all pairs and over unlike ones."""
    rows: dict[str, dict[str, object]] = {}
    for way in ("cooccurrence alone", *variants):
        row = rows[way] = {}
        for name, unlike in (("all", False), ("unlike", True)):
            of_way, alone = ndcg(asked, way, unlike=unlike), ndcg(asked, "cooccurrence alone", unlike=unlike)
            row[name] = rounded(interval(of_way))
            row[f"{name}_gain"] = rounded(interval(of_way - alone))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the shop's folder")
    parser.add_argument("--releases", type=Path, required=True, help="a release of the events before the cut")
    parser.add_argument("--share", type=float, default=0.85, help="of the events that lie before the cut")
    parser.add_argument("--tune", action="store_true", help="print a grid over the days for choosing, and no report")
    chosen = parser.parse_args()
    release = open_release(chosen.releases)
    with tempfile.TemporaryDirectory() as before:
        played = cut(chosen.data, Path(before), build_config("demo", None, ()), since=None, share=chosen.share)
    moments = [int(event.timestamp // DAY_S) for event in played.stream]
    middle = moments[len(moments) // 2]
    if chosen.tune:
        grid = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
        variants = {json.dumps(one): TogetherWeights(**one) for one in grid}
        asked = play(release, played.stream, variants, lambda day: day < middle)
    else:
        variants = {
            "together": CHOSEN,
            "without popularity": CHOSEN._replace(popularity=0.0),
            "without a step down for alike items": CHOSEN._replace(alike_penalty=0.0),
            "alike items far down": CHOSEN._replace(alike_penalty=3.0),
        }
        asked = play(release, played.stream, variants, lambda day: day >= middle)
    rows = figures(asked, variants)
    columns = {"NDCG@10": "all", "gain": "all_gain", "unlike pairs": "unlike", "gain ": "unlike_gain"}
    part = "earlier days" if chosen.tune else "later days"
    show(rows, columns, f"{len(asked)} baskets of the {part}, release {release.manifest.release_id}")
    print(
        json.dumps(
            {
                "benchmark": "together",
                "machine": machine(),
                "release_id": release.manifest.release_id,
                "days": part,
                "baskets": len(asked),
                "ndcg_at_10": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
