"""Candidates as a running service would have them: just before each held-out event of the last part of training.

The events from a moment T on are played in time order and counted as live evidence; what lies before T is the base.
Items that nobody took before T are read by their text, as items that came since a release. Similar users have the items
that they took before the day of asking; their interests are those of the whole training split, which the model has seen
too. So a scorer is fitted on what it will see when it serves (docs/concepts/evidence.md#fusion).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.progress import Progress

from isrf.method.evidence import user_item_lists
from isrf.method.interest import BoolArray, IntArray
from isrf.method.ranking.fusion import Candidates
from isrf.method.recommend.live.live_events import LiveEvent, followed_items, whole_weight
from isrf.method.recommend.live.live_evidence import LiveEvidence
from isrf.method.recommend.recommender import Recommender
from isrf.method.recommend.request import RankingRequest, SearchOutput, UserInterests
from offline.config import EvidenceConfig
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.runtime.evidence import TimedEvents, count_events
from offline.runtime.ingest_report import excluding_types, type_weights
from offline.runtime.live_base import DAY_S, count_live_base
from offline.stages.evaluate.items_as_new import CatalogueReading, with_items_as_new
from offline.stages.evaluate.lists import BATCH, LIST_LENGTH

SHARE_BEFORE = 0.8
"""Share of the events before T."""
MEMORY_BYTES = 1 << 30
MIN_REQUESTS = 200
"""Fewest held-out events after T from which a scorer is chosen."""


class LiveSample(NamedTuple):
    candidates: list[Candidates]
    targets: IntArray  # (R,) rows of the held-out items


class Stream(NamedTuple):
    """All events in time order; of equal times in the order of user, then of the user's history."""

    users: IntArray  # (E,) of sessions too, whose rows are nobody's among the neighbours
    items: IntArray  # (E,)
    times: NDArray[np.float64]  # (E,) seconds
    weights: NDArray[np.float64]  # (E,) of an event's type and row
    type_weights: NDArray[np.float64]  # (E,) of its type alone, as the service counts it
    excludes: BoolArray  # (E,) whether the event takes its item off the user's list
    held_out: BoolArray  # (E,)
    start: int  # the first event from T on

    @classmethod
    def load(cls, ingest: Path) -> "Stream | None":
        """Reads the output of `ingest`; None where an event has no time, or all of the first ones have the same."""
        columns = ["user_index", "item_index", "timestamp", "event", "weight"]
        train = pl.read_parquet(ingest / "train.parquet", columns=columns).with_columns(part=pl.lit(0))
        parts = pl.when(pl.col("split") == "valid").then(1).otherwise(2)
        held_out = pl.read_parquet(ingest / "heldout.parquet").with_columns(part=parts).select([*columns, "part"])
        events = pl.concat([train, held_out.with_columns(pl.col("part").cast(pl.Int32))]).sort(
            "timestamp", "user_index", "part", maintain_order=True
        )
        if events["timestamp"].null_count() or events.is_empty():
            return None
        times = events["timestamp"].cast(pl.Float64).to_numpy()
        start = int(np.searchsorted(times, times[int(len(times) * SHARE_BEFORE)]))
        if start == 0:  # no event lies before T
            return None
        return cls(
            users=events["user_index"].to_numpy().astype(np.int64),
            items=events["item_index"].to_numpy().astype(np.int64),
            times=times,
            weights=events["weight"].to_numpy(),
            type_weights=events["event"].replace_strict(type_weights(ingest), return_dtype=pl.Float64).to_numpy(),
            excludes=events["event"].is_in(excluding_types(ingest)).to_numpy(),
            held_out=(events["part"] > 0).to_numpy(),
            start=start,
        )

    def before(self, end: int) -> TimedEvents:
        """The first `end` events, sorted by user, then time."""
        order = np.argsort(self.users[:end], kind="stable")
        return TimedEvents(self.users[order], self.items[order], self.times[order], self.weights[order])


class _Step(NamedTuple):
    """One event: what it follows, and what its user is asked before it."""

    event: LiveEvent
    history: list[int] | None  # of a request before the event; None: nobody is asked
    excluded: list[int]


def live_sample(
    recommender: Recommender,
    ingest: Path,
    *,
    reading: CatalogueReading | None,
    config: EvidenceConfig,
    limit: int,
    progress: Progress,
    engine: StageEngine = LOCAL,
) -> LiveSample | None:
    """The candidates before the held-out events of the last part of training, at most the last `limit` of them.

    Args:
        recommender: the release's, trained on the training split.
        ingest: the output folder of `ingest`.
        reading: reads a new item's text; None: new items stay as the model knows them.
        config: how evidence is counted.
        limit: most requests.
        progress: shows the progress.
        engine: runs the graphs; the events are counted here, one after the other.

    Returns:
        None where an event has no time, no event lies before T, or there are fewer than `MIN_REQUESTS` requests.
    """
    stream = Stream.load(ingest)
    if stream is None:
        return None
    asked = np.flatnonzero(stream.held_out & (np.arange(len(stream.users)) >= stream.start))[-limit:]
    steps = list(_steps(stream, frozenset(asked.tolist())))
    if sum(step.history is not None for step in steps) < MIN_REQUESTS:
        return None
    return _Sampler(recommender, stream, reading, config, engine).sample(steps, progress)


class _Sampler:
    """Plays one stream."""

    def __init__(
        self,
        recommender: Recommender,
        stream: Stream,
        reading: CatalogueReading | None,
        config: EvidenceConfig,
        engine: StageEngine,
    ) -> None:
        self._engine = engine
        num_items, num_users = len(recommender.tables.popularity), len(recommender.tables.group_layers)
        known = np.bincount(stream.items[: stream.start], minlength=num_items) > 0
        events = stream.before(stream.start)
        products = recommender.tables.products
        counted = count_events(
            events,
            recommender.tables.content,
            num_users=num_users,
            config=config,
            first_variants=None if products is None else products.groups.first,
            engine=engine,
        )
        tables = replace(
            recommender.tables,
            popularity=counted.popularity,
            item_lists=counted.item_lists,
            live_base=count_live_base(counted, events, config=config),
        )
        recommender = replace(recommender, tables=tables)
        if reading is not None and not known.all():
            recommender = with_items_as_new(recommender, reading, known)
        live = recommender.tables.live_evidence(MEMORY_BYTES)
        assert live is not None
        self._live: LiveEvidence = live
        self._searching = _UsersByDay(recommender, stream)
        self._counting = _UsersByDay(recommender.with_live(live), stream)
        # An item may be recommended from its first event on, as in the replay.
        self._first = np.full(num_items, np.inf)
        np.minimum.at(self._first, stream.items, stream.times)

    def sample(self, steps: Sequence[_Step], progress: Progress) -> LiveSample:
        """Plays the steps and returns the candidates of those that ask."""
        asked = [step for step in steps if step.history is not None]
        batches = [asked[start : start + BATCH] for start in range(0, len(asked), BATCH)]
        searched = zip(
            batches, self._engine.map(_search, (self._searching, self._first), batches, in_threads=True), strict=True
        )
        candidates: list[Candidates] = []
        batch: deque[tuple[Recommender, RankingRequest, _Searched, int]] = deque()
        task = progress.add_task("evaluate: replaying the last part of training", total=len(asked))
        for step in steps:
            if step.history is not None:
                if not batch:
                    of_batch, found = next(searched)
                    recommender = self._counting.on_day(of_batch)
                    requests = _requests(of_batch, self._first)
                    batch.extend((recommender, request, found, b) for b, request in enumerate(requests))
                recommender, request, found, b = batch.popleft()
                evidence = recommender.evidence(request.history, found.interests.neighbours, b)
                candidates.append(recommender.candidates(request, found.output, evidence, b))
                progress.advance(task)
            self._live.add(step.event)
        progress.remove_task(task)
        return LiveSample(candidates, np.array([step.event.item for step in asked], dtype=np.int64))


class _UsersByDay:
    """A recommender whose users have the items that they took before a day."""

    def __init__(self, recommender: Recommender, stream: Stream) -> None:
        self._recommender, self._stream = recommender, stream
        self._made = lru_cache(maxsize=4)(self._make)

    def __reduce__(self) -> tuple[type["_UsersByDay"], tuple[Recommender, Stream]]:
        return _UsersByDay, (self._recommender, self._stream)

    def on_day(self, batch: Sequence[_Step]) -> Recommender:
        """The recommender of the day on which the batch begins."""
        return self._made(int(batch[0].event.timestamp // DAY_S))

    def _make(self, day: int) -> Recommender:
        tables = self._recommender.tables
        num_users = len(tables.group_layers)
        events = self._stream.before(int(np.searchsorted(self._stream.times, day * DAY_S))).of_users(num_users)
        return self._recommender.with_users(
            group_layers=tables.group_layers,
            user_items=user_item_lists(events.users, events.items, num_users=num_users),
            nearest_users=self._recommender.nearest_users,
        )


class _Searched(NamedTuple):
    """The outputs of the graphs for a batch of requests."""

    interests: UserInterests
    output: SearchOutput


def _search(batch: Sequence[_Step], users: _UsersByDay, first: NDArray[np.float64]) -> _Searched:
    """Runs the graphs; `first` (N,) is when each item's first event was, seconds."""
    recommender, requests = users.on_day(batch), _requests(batch, first)
    interests = recommender.read([r.history for r in requests], [step.event.user_hash for step in batch])
    return _Searched(interests, recommender.search(requests, interests))


def _requests(batch: Sequence[_Step], first: NDArray[np.float64]) -> list[RankingRequest]:
    requests = []
    for step in batch:
        allowed: BoolArray = first <= step.event.timestamp
        allowed[step.excluded] = False
        requests.append(RankingRequest(history=step.history or (), n=LIST_LENGTH, allowed=allowed))
    return requests


def _steps(stream: Stream, asked: frozenset[int]) -> Iterator[_Step]:
    histories: dict[int, list[int]] = {}
    excluded: dict[int, list[int]] = {}
    columns = (stream.users, stream.items, stream.times, stream.type_weights)
    for number, (user, item, time, weight) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        history = histories.setdefault(user, [])
        if number >= stream.start:
            followed = followed_items(history, item)
            event = LiveEvent(item, followed, time, user, number, whole_weight(weight))
            is_asked = number in asked and bool(history)
            yield _Step(event, list(history) if is_asked else None, list(excluded.get(user, ())) if is_asked else [])
        history.append(item)
        if stream.excludes[number]:
            excluded.setdefault(user, []).append(item)
