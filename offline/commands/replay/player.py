"""Plays events in time order: asks for the event's user through the code that serves, then counts the event.

Requests of a stretch of events run through the graphs together, one stretch ahead: the stream says what each user did
before each event. Evidence and fusion are computed event by event, from the user's history just before the event and
from what all events before it taught. The neighbours are those of the last gathering. A stretch ends where the active
users are gathered anew, and where it is full. New items of a stretch get their rows at its start, but are not allowed
earlier than their first event.
"""

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import numpy as np
from rich.progress import Progress

from isrf.contract.errors import DataError
from isrf.contract.event_types import DISLIKE, REMOVE, EventVocabulary
from isrf.contract.shown import shown
from isrf.method.interest import BoolArray
from isrf.method.recommend.live.live_events import LiveEvent, followed_items, whole_weight
from isrf.method.recommend.new_items import NewItemReader, ReadItem, added_items
from isrf.method.recommend.recommender import Recommender
from isrf.method.recommend.request import RankingRequest, SearchOutput, UserInterests
from isrf.runtime.active_users import ActiveUser, read_active_users, with_active_users
from isrf.runtime.neighbour_index import NeighbourIndex
from offline.commands.replay.cut import Cut, ReplayEvent
from offline.commands.replay.steps import Asked, StreamStep, UserPast
from offline.engine.local import usable_cpus

Frozen = Literal["history", "evidence", "popularity", "activity"]
"""What may stand still while events go by: a user's own history; the counts of what was taken after and with what; how
popular items are; who the active users are and what they took."""
FROZEN: tuple[Frozen, ...] = get_args(Frozen)

LIST_LENGTH = 20
BATCH = 64
"""Requests in one run of the search graph."""
STRETCH = 512
"""The most events of a stretch."""
ACTIVE_HISTORY = 50
"""Items of an active user's history that are read, as in the service."""
MAX_ACTIVE = 20_000
"""Users that count as active, the latest ones, as in the service."""
LIVE_BYTES = 150 << 20
"""Memory of live evidence, as in the service."""


class Shop(NamedTuple):
    """A release as the replay holds it."""

    release_id: str
    recommender: Recommender
    user_index: NeighbourIndex
    reader: NewItemReader | None
    item_ids: Sequence[str]
    user_ids: Sequence[str]
    histories: Mapping[str, UserPast]
    vocabulary: EventVocabulary


class Stretch(NamedTuple):
    """Consecutive events whose requests run through the graphs together, and the recommender that they ask."""

    recommender: Recommender
    steps: list[StreamStep]

    @property
    def asked(self) -> list[Asked]:
        return [step.asked for step in self.steps if step.asked is not None]


class Player:
    """Plays a stream once: with everything in motion, or with a part that stands still."""

    def __init__(
        self, shop: Shop, cut: Cut, *, frozen: frozenset[Frozen] = frozenset(), epoch_s: float, step_s: float = 0.0
    ) -> None:
        """
        Args:
            shop: the release, made of what lies before the stream.
            cut: the stream, and the new items' fields.
            frozen: what stands still.
            epoch_s: how often the active users are gathered, in the stream's own time.
            step_s: how often evidence and popularity take in the events since, likewise; 0: with every event.

        Raises:
            DataError: `replay.no_item_reader` where new items come and the release reads none; `replay.other_items`
                where the release lacks an item that has an event before the stream.
        """
        self._shop, self._cut, self._frozen, self._epoch_s = shop, cut, frozen, epoch_s
        if cut.new_items and shop.reader is None:
            raise DataError(
                "replay.no_item_reader",
                f"{len(cut.new_items)} items come in the replayed time, and the release reads no new items.",
                fix="Train with an encoder whose release reads new items (docs/concepts/bundle.md).",
            )
        self._rows = {item_id: row for row, item_id in enumerate(shop.item_ids)}
        self._num_base_items = len(self._rows)
        for event in cut.stream:
            if event.item_id not in self._rows and event.item_id not in cut.new_items:
                raise DataError(
                    "replay.other_items",
                    f"the release lacks the item {shown(event.item_id)}, which has events before the moment.",
                    fix="Name the moment at which the release's data ends, or leave --release out to train a release.",
                )
        self._base_users = {user_id: row for row, user_id in enumerate(shop.user_ids)}
        self._pasts: dict[str, UserPast] = {}
        self._num_live: dict[str, int] = {}
        self._added: dict[str, ReadItem] = {}
        self._live = shop.recommender.tables.live_evidence(LIVE_BYTES)
        self._waiting: list[StreamStep] = []
        self._step_s, self._step = step_s, -1.0
        self._base = self._with_items = self._with_live(shop.recommender)
        self._active: dict[str, ActiveUser] = {}
        self._active_rows: dict[str, int] = {}
        self._moved: dict[str, None] = {}
        self._gathered: float | None = None  # the epoch in which the active users were gathered last
        self._entered: BoolArray = np.ones(self._num_base_items, dtype=np.bool_)

    def stretches(self) -> Iterator[Stretch]:
        """The stream's requests, a stretch at a time."""
        for events in self._parts():
            self._add_items(events)
            recommender = self._among_active(events[0].timestamp // self._epoch_s)
            yield Stretch(recommender, [self._ask_and_count(event) for event in events])

    def learn(self, step: StreamStep) -> None:
        """Takes in what an event teaches, once its request is answered."""
        if self._live is not None:
            self._waiting.append(step)
            if not self._step_s:
                self._count_waiting()

    def begin(self, moment_s: float) -> None:
        """Says that the next request is of this moment, seconds."""
        if self._step_s and moment_s // self._step_s != self._step:
            self._step = moment_s // self._step_s
            self._count_waiting()

    def _count_waiting(self) -> None:
        for step in self._waiting:
            if self._live is not None and step.taken is not None:
                self._live.add(step.taken)
            elif self._live is not None and step.removed is not None:
                gone = step.removed
                self._live.take_back(gone.item, gone.user_hash, gone.timestamp)
        self._waiting.clear()

    def _with_live(self, recommender: Recommender) -> Recommender:
        if self._live is None:
            return recommender
        tables, live = recommender.tables, recommender.tables.with_live(self._live)
        if "evidence" in self._frozen:
            live = replace(live, item_lists=tables.item_lists, live=None)
        if "popularity" in self._frozen:
            live = replace(live, recent=tables.recent, newcomers=tables.newcomers)
        return replace(recommender, tables=live)

    def _parts(self) -> Iterator[list[ReplayEvent]]:
        part: list[ReplayEvent] = []
        epoch = -1.0
        for event in self._cut.stream:
            if part and (len(part) == STRETCH or event.timestamp // self._epoch_s != epoch):
                yield part
                part = []
            epoch = event.timestamp // self._epoch_s
            part.append(event)
        if part:
            yield part

    def _add_items(self, events: Sequence[ReplayEvent]) -> None:
        """New items of the coming stretch get rows; a request may be answered with them from their first event on."""
        fresh = dict.fromkeys(event.item_id for event in events if event.item_id not in self._rows)
        if not fresh:
            return
        assert self._shop.reader is not None
        read = self._shop.reader.read([self._cut.new_items[item_id] for item_id in fresh])
        for item_id, one in zip(fresh, read, strict=True):
            self._rows[item_id] = len(self._rows)
            self._added[item_id] = one
        self._with_items = self._base.with_items(added_items(self._added))
        self._entered = np.concatenate([self._entered, np.zeros(len(fresh), np.bool_)])

    def _among_active(self, epoch: float) -> Recommender:
        if "activity" in self._frozen:
            return self._with_items
        if epoch != self._gathered:
            self._gather_active()
            self._gathered = epoch
        names = sorted(self._active)
        present = np.ones(len(self._shop.user_ids), dtype=np.bool_)
        present[[self._base_users[name] for name in names if name in self._base_users]] = False
        self._active_rows = {name: len(present) + place for place, name in enumerate(names)}
        people = [self._active[name] for name in names]
        return with_active_users(self._with_items, self._shop.user_index, present, people)

    def _gather_active(self) -> None:
        """Reads the users who had an event since the last gathering; a user without a history left is not active."""
        moved = [user_id for user_id in self._moved if self._past(user_id).history]
        histories = [self._past(user_id).history[-ACTIVE_HISTORY:] for user_id in moved]
        for user_id in self._moved:
            self._active.pop(user_id, None)
        self._active.update(zip(moved, read_active_users(self._with_items, moved, histories), strict=True))
        self._moved.clear()
        for user_id in list(self._active)[:-MAX_ACTIVE]:
            del self._active[user_id]

    def _ask_and_count(self, event: ReplayEvent) -> StreamStep:
        """The request before an event that is about taking an item; then the event counts for its user."""
        row, past = self._rows[event.item_id], self._past(event.user_id)
        self._entered[row] = True
        kind = self._shop.vocabulary.read(event.event)
        asked, live = None, self._live_event(event, row, past, self._shop.vocabulary.weight(kind))
        if kind not in (DISLIKE, REMOVE):
            asked_past = self._shop.histories.get(event.user_id, UserPast()) if "history" in self._frozen else past
            allowed = self._entered.copy()
            allowed[list(asked_past.excluded)] = False
            asked = Asked(
                event=event,
                target=row,
                own=self._active_rows.get(event.user_id, self._base_users.get(event.user_id, -1)),
                history=list(asked_past.history),
                allowed=allowed,
                num_live=self._num_live.get(event.user_id, 0),
                is_new_user=event.user_id not in self._base_users and not event.of_session,
                is_new_item=row >= self._num_base_items,
            )
        past.count(row, kind, excluding=kind in self._shop.vocabulary.excluding)
        self._num_live[event.user_id] = self._num_live.get(event.user_id, 0) + 1
        if not event.of_session:  # a session is nobody's neighbour
            self._moved.pop(event.user_id, None)
            self._moved[event.user_id] = None
        return StreamStep(asked, None if asked is None else live, live if kind == REMOVE else None)

    def _live_event(self, event: ReplayEvent, row: int, past: UserPast, weight: float) -> LiveEvent:
        user = zlib.crc32(event.user_id.encode())
        followed = followed_items(past.history, row)
        identity = hash((user, row, event.timestamp))
        return LiveEvent(row, followed, event.timestamp, user, identity, whole_weight(weight))

    def _past(self, user_id: str) -> UserPast:
        found = self._pasts.get(user_id)
        if found is None:
            found = self._pasts[user_id] = self._shop.histories.get(user_id, UserPast()).copy()
        return found


class _Answered(NamedTuple):
    interests: UserInterests
    output: SearchOutput


def ranks(player: Player, *, progress: Progress, title: str, total: int) -> Iterator[tuple[Asked, int]]:
    """Every request of a replay, and the rank of its event's item in the list, −1 where the list lacks it."""
    task = progress.add_task(title, total=total)
    for stretch, batches in _searched_ahead(player.stretches()):
        answered = _one_by_one(batches)
        for step in stretch.steps:
            if step.asked is not None:
                player.begin(step.asked.event.timestamp)
                items = _list(stretch.recommender, step.asked, *next(answered))
                yield step.asked, items.index(step.asked.target) if step.asked.target in items else -1
            player.learn(step)
        progress.advance(task, len(stretch.steps))
    progress.remove_task(task)


def _one_by_one(batches: Iterable[Future[_Answered]]) -> Iterator[tuple[_Answered, int]]:
    """Each request's batch, and its place there."""
    for batch in batches:
        answered = batch.result()
        for place in range(len(answered.interests.explicit)):
            yield answered, place


def _list(recommender: Recommender, asked: Asked, answered: _Answered, place: int) -> list[int]:
    request = _request(asked)
    if asked.history:
        ranked = recommender.ranked(request, answered.interests, answered.output, place)
    else:
        (ranked,) = recommender.rank([request], answered.interests.rows([place]))
    return [item.item_index for item in ranked.items]


def _request(asked: Asked) -> RankingRequest:
    return RankingRequest(history=asked.history, n=LIST_LENGTH, allowed=asked.allowed)


def _searched_ahead(stretches: Iterable[Stretch]) -> Iterator[tuple[Stretch, list[Future[_Answered]]]]:
    """The stretches in their order, their batches run in threads, one stretch ahead: the graphs let go of the GIL."""

    def search(recommender: Recommender, asked: Sequence[Asked]) -> _Answered:
        # A user without a history has no list of the graphs; any item keeps the batch's rows in place.
        histories = [one.history or [0] for one in asked]
        interests = recommender.read(histories, [one.own for one in asked])
        requests = [replace(_request(one), history=history) for one, history in zip(asked, histories, strict=True)]
        return _Answered(interests, recommender.search(requests, interests))

    with ThreadPoolExecutor(max_workers=usable_cpus()) as pool:
        waiting: deque[tuple[Stretch, list[Future[_Answered]]]] = deque()
        for stretch in stretches:
            asked = stretch.asked
            parts = (asked[start : start + BATCH] for start in range(0, len(asked), BATCH))
            waiting.append((stretch, [pool.submit(search, stretch.recommender, part) for part in parts]))
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting
