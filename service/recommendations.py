"""From a user or a session to an answer: state, interests (cached), model, and what the answer rests on.

It knows no HTTP and no JSON; routes turn its answers into bodies.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import structlog

from isrf.diversity import diversify
from isrf.errors import StoreError
from isrf.interest import BoolArray, Neighbours
from isrf.recommend import SCORE_DIGITS, Interests, RankedItem, RankRequest, Task
from isrf.similar import likeness
from service.bundle_files import Release
from service.catalogue import EVERYTHING, Catalogue, Filter
from service.crowd import Crowd
from service.engine import Engine
from service.explain import Explainer
from service.observe import Metrics
from service.reasons import reason_body
from service.state.events import EventRules
from service.state.group_cache import decode, encode
from service.state.merge import UserState, merge
from service.state.store import NO_VERSION, Store, UserRecord

REMEMBERED = 2048
"""Interests computed last, kept in this process (about 2 KB each)."""

POOL_TIMES, POOL_MOST = 5, 400
"""Candidates for each place of a diverse list, and how many of them at most."""

_log = structlog.get_logger("service")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the caller asks of a list."""

    n: int
    only: Filter = EVERYTHING
    include_seen: bool = False
    explain: bool = False
    diversity: float = 0.0  # 0: the order stands, 1: items as unlike each other as can be

    @property
    def pool(self) -> int:
        """How many items a list of n different ones is chosen from."""
        return min(POOL_TIMES * self.n, max(self.n, POOL_MOST)) if self.diversity else self.n


@dataclass(frozen=True, kw_only=True)
class UserView:
    """A user as this request sees them.

    Attributes:
        state: merged from release and store.
        rows: of the history's items that the release knows, oldest first.
        crowd: among whom this request looks for neighbours.
        own: the user's row in the crowd, or −1; erased or not, it is no neighbour of theirs.
        cached: what the store holds of the user's interests.
        store_was_read: False where only the release was asked, since the store could not be.
    """

    user_id: str
    state: UserState
    rows: list[int]
    crowd: Crowd
    own: int
    cached: bytes | None
    store_was_read: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A list, best first."""

    items: list[RankedItem]
    source: str
    rows: Sequence[int] = ()
    neighbours: Neighbours | None = None
    crowd: Crowd
    warnings: list[dict[str, Any]] = field(default_factory=list)
    reasons: list[list[dict[str, Any]]] | None = None
    """Of each item, where the caller asked for them."""


class Recommendations:
    """One per release; remembers who computes, or has just computed, a user's interests, so that nobody does it twice.

    A finished computation is kept for a while: a request may have read the store just before the result came there.
    """

    def __init__(self, engine: Engine, store: Store, metrics: Metrics, *, rules: EventRules, group_ttl_s: int) -> None:
        self._engine, self._store, self._metrics = engine, store, metrics
        self._rules, self._group_ttl_s = rules, group_ttl_s
        self._computing: dict[tuple[str, str, str, str], asyncio.Task[Interests]] = {}
        self._store_answers = True
        self._background: set[asyncio.Task[None]] = set()

    @property
    def release(self) -> Release:
        return self._engine.release

    async def view(self, user_id: str) -> UserView:
        """The user's state; from the release alone where the store cannot be read."""
        release, crowd = self.release, self._engine.crowd
        began = time.perf_counter()
        try:
            record = await self._store.read(user_id)
            was_read = True
        except StoreError as error:
            record, was_read = UserRecord(NO_VERSION, (), {}, erased=False, group=None), False
            self._metrics.store_failures.labels("read").inc()
            if self._store_answers:
                _log.warning("store_unavailable", code=error.code, message=error.message)
        if was_read and not self._store_answers:
            _log.info("store_recovered")
        if was_read != self._store_answers:
            self._metrics.store_up.labels(self._store.kind).set(was_read)
        self._store_answers = was_read
        self._metrics.stage("store", time.perf_counter() - began)
        past = release.users.past(user_id, lambda kind: self._rules.effect(kind) == "B")
        if release.users.row(user_id) in crowd.erased:
            # Without the store, what it last said of erased users still holds.
            record = record._replace(erased=True)
        state = merge(record, past, release.learned_until)
        rows = release.catalogue.rows(entry.item_id for entry in state.history)
        return UserView(
            user_id=user_id,
            state=state,
            rows=rows,
            crowd=crowd,
            own=crowd.row(user_id),
            cached=record.group,
            store_was_read=was_read,
        )

    async def for_user(self, user: UserView, wanted: Wanted) -> Answer:
        """A user's recommendations; `sequence` for one with a history, else `popular`."""
        seen = () if wanted.include_seen else user.state.bought
        allowed = self._allowed([*seen, *user.state.disliked], wanted)
        warnings = []
        source: str = "sequence" if user.rows else "popular"
        if not user.store_was_read:
            source = f"bundle:{source}"
            warnings.append(_without_state())
        interests = await self.interests(user) if user.rows else None
        return await self._answer(user.rows, interests, user.crowd, allowed, wanted, source, warnings)

    async def for_session(self, history: Sequence[str], wanted: Wanted) -> Answer:
        """Recommendations for nothing but a history of item_ids, oldest first."""
        catalogue = self.release.catalogue
        rows = catalogue.rows(history)
        warnings = _unknown_history(len(history) - len(rows))
        seen = () if wanted.include_seen else history
        allowed = self._allowed(seen, wanted)
        crowd = self._engine.crowd
        interests = await self._engine.read(rows, -1, crowd) if rows else None
        source = "session" if rows else "popular"
        return await self._answer(rows, interests, crowd, allowed, wanted, source, warnings)

    async def rank(
        self, user: UserView | None, history: Sequence[str], candidates: Sequence[str], wanted: Wanted
    ) -> Answer:
        """Candidates in their order for a user, else for a history of item_ids, oldest first; seen ones stay."""
        crowd = self._engine.crowd if user is None else user.crowd
        catalogue = self.release.catalogue
        rows = catalogue.rows(history) if user is None else user.rows
        given = np.zeros(len(catalogue), dtype=np.bool_)
        given[catalogue.rows(candidates)] = True
        allowed = catalogue.allowed() & given
        warnings = _missing(candidates, catalogue, allowed)
        if user is None:
            warnings += _unknown_history(len(history) - len(rows))
        interests = (
            await (self._engine.read(rows, -1, crowd) if user is None else self.interests(user)) if rows else None
        )
        source = ("session" if user is None else "sequence") if rows else "popular"
        if user is not None and not user.store_was_read:
            source = f"bundle:{source}"
            warnings.append(_without_state())
        wanted = replace(wanted, n=min(wanted.n, max(1, int(allowed.sum()))))
        return await self._answer(rows, interests, crowd, allowed, wanted, source, warnings, task="direct")

    async def similar(self, item_id: str, wanted: Wanted) -> Answer:
        """What is like an item that the catalogue knows, itself left out."""
        crowd = self._engine.crowd
        catalogue, tables = self.release.catalogue, crowd.recommender.tables
        (row,) = catalogue.rows([item_id])
        allowed = self._allowed([item_id], wanted)

        def best() -> list[RankedItem]:
            like = likeness(row, tables.item_lists, tables.item_vectors)
            rows = np.flatnonzero(allowed)
            order = rows[np.lexsort((rows, -like.scores[rows]))][: wanted.pool].tolist()
            return [RankedItem(at, round(float(like.scores[at]), SCORE_DIGITS), like.source(at)) for at in order]

        items = await self._diversified(await self._engine.run("model", best), wanted, crowd)
        return await self._told(items, [row], None, crowd, wanted, "similar", self._unknown_category(wanted))

    async def interests(self, user: UserView) -> Interests:
        """A user's interests: from the cache, from a request that computes them now, or computed (and then cached)."""
        release_id, version = user.crowd.release.manifest.release_id, user.state.version
        found = decode(user.cached, version=version, release_id=release_id, crowd=user.crowd.token)
        if found is not None:
            self._metrics.group_cache.labels("hit").inc()
            return found
        # Without the store the version says nothing of the state: no sharing by it.
        if not user.store_was_read:
            self._metrics.group_cache.labels("bypassed").inc()
            return await self._engine.read(user.rows, user.own, user.crowd)
        key = (release_id, user.user_id, version, user.crowd.token)
        task = self._computing.get(key)
        self._metrics.group_cache.labels("computed" if task is None else "shared").inc()
        if task is None:
            task = self._begin(key, self._compute(user, release_id))
        # Shielded: a caller that goes away must not take the others' answer with it.
        return await asyncio.shield(task)

    def similar_items(self, interests: Interests, crowd: Crowd) -> list[int]:
        """Rows of what the similar users took, repeated as often as they did."""
        took = crowd.recommender.tables.user_items
        users = interests.neighbours.users[0]
        return [int(item) for user in users[users >= 0] for item in took.indices[took.row(int(user))]]

    async def close(self) -> None:
        """Waits for what is still being written to the cache."""
        computing = {task for task in self._computing.values() if not task.done()}
        if computing:
            await asyncio.wait(computing)
        if self._background:
            await asyncio.wait(self._background)

    async def _compute(self, user: UserView, release_id: str) -> Interests:
        interests = await self._engine.read(user.rows, user.own, user.crowd)
        payload = encode(interests, version=user.state.version, release_id=release_id, crowd=user.crowd.token)
        # The answer does not wait for the cache: with `appendfsync always` a write waits for the disk.
        self._later(self._store.keep_group(user.user_id, payload, self._group_ttl_s))
        return interests

    def _begin(self, key: tuple[str, str, str, str], work: Coroutine[Any, Any, Interests]) -> asyncio.Task[Interests]:
        while len(self._computing) >= REMEMBERED:
            del self._computing[next(iter(self._computing))]
        task = asyncio.create_task(work)
        self._computing[key] = task

        def forget_failure(done: asyncio.Task[Interests]) -> None:
            if done.cancelled() or done.exception() is not None:
                self._computing.pop(key, None)

        task.add_done_callback(forget_failure)
        return task

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _allowed(self, excluded: Collection[str], wanted: Wanted) -> BoolArray:
        return self.release.catalogue.allowed(excluded, wanted.only)

    async def _answer(
        self,
        rows: Sequence[int],
        interests: Interests | None,
        crowd: Crowd,
        allowed: BoolArray,
        wanted: Wanted,
        source: str,
        warnings: list[dict[str, Any]],
        task: Task = "sequential",
    ) -> Answer:
        catalogue = self.release.catalogue
        if interests is None or not allowed.any():
            items = [RankedItem(row, score, "popular") for row, score in catalogue.popular(allowed, wanted.pool)]
        else:
            ranked = await self._engine.rank(
                RankRequest(history=rows, n=wanted.pool, allowed=allowed, task=task), interests, crowd
            )
            items = ranked.items
        items = await self._diversified(items, wanted, crowd)
        warnings += self._unknown_category(wanted)
        return await self._told(items, rows, interests, crowd, wanted, source, warnings)

    async def _told(
        self,
        items: list[RankedItem],
        rows: Sequence[int],
        interests: Interests | None,
        crowd: Crowd,
        wanted: Wanted,
        source: str,
        warnings: list[dict[str, Any]],
    ) -> Answer:
        """A finished list as an answer: counted, with warnings and reasons."""
        if len(items) < wanted.n:
            self._metrics.short_answers.inc()
            if not items:
                self._metrics.empty_answers.labels(source).inc()
            warnings.append(_warning("fewer_items", f"Only {len(items)} items are allowed."))
        self._metrics.answers.labels(source, self.release.manifest.release_id).inc()
        for channel, count in Counter(item.source for item in items).items():
            self._metrics.items.labels(channel).inc(count)
        neighbours = None if interests is None else interests.neighbours
        return Answer(
            items=items,
            source=source,
            rows=rows,
            neighbours=neighbours,
            crowd=crowd,
            warnings=warnings,
            reasons=await self._reasons(items, rows, neighbours, crowd) if wanted.explain else None,
        )

    async def _diversified(self, items: list[RankedItem], wanted: Wanted, crowd: Crowd) -> list[RankedItem]:
        if not wanted.diversity:
            return items[: wanted.n]
        vectors = crowd.recommender.tables.item_vectors

        def order() -> list[RankedItem]:
            scores = np.array([item.score for item in items], dtype=np.float32)
            rows = [item.item_index for item in items]
            return [items[at] for at in diversify(scores, vectors[rows], wanted.n, diversity=wanted.diversity)]

        return await self._engine.run("diversity", order)

    def _unknown_category(self, wanted: Wanted) -> list[dict[str, Any]]:
        category = wanted.only.category
        if category is None or self.release.catalogue.has_category(category):
            return []
        return [_warning("unknown_category", "No item of the release is in this category.")]

    async def _reasons(
        self, items: Sequence[RankedItem], rows: Sequence[int], neighbours: Neighbours | None, crowd: Crowd
    ) -> list[list[dict[str, Any]]]:
        release = self.release

        def explain() -> list[list[dict[str, Any]]]:
            explainer = Explainer(release, crowd, rows, neighbours)
            return [
                [reason_body(item.item_index, reason, release) for reason in explainer.reasons(item)] for item in items
            ]

        return await self._engine.run("explain", explain)

    async def popular(self, wanted: Wanted) -> Answer:
        """The most popular items, the same for everybody."""
        return await self._answer((), None, self._engine.crowd, self._allowed((), wanted), wanted, "popular", [])


WarningCode = Literal[
    "store_unavailable",
    "unknown_items",
    "unknown_category",
    "fewer_items",
    "unknown_candidates",
    "unavailable_candidates",
]


def _warning(code: WarningCode, message: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "message": message, **more}


def _without_state() -> dict[str, Any]:
    return _warning("store_unavailable", "User state could not be read; the answer rests on the release alone.")


def _unknown_history(count: int) -> list[dict[str, Any]]:
    return [_warning("unknown_items", f"{count} items of the history are unknown.")] if count else []


def _missing(candidates: Sequence[str], catalogue: Catalogue, allowed: BoolArray) -> list[dict[str, Any]]:
    """What cannot be ranked, by name."""
    known = [item_id for item_id in dict.fromkeys(candidates) if catalogue.knows(item_id)]
    unknown = [item_id for item_id in dict.fromkeys(candidates) if not catalogue.knows(item_id)]
    gone = [item_id for item_id, row in zip(known, catalogue.rows(known), strict=True) if not allowed[row]]
    told = []
    if unknown:
        told.append(_warning("unknown_candidates", f"{len(unknown)} candidates are unknown.", item_ids=unknown))
    if gone:
        told.append(_warning("unavailable_candidates", f"{len(gone)} candidates are not on offer.", item_ids=gone))
    return told
