"""From a user or a session to an answer: state, interests (cached), model, and what the answer rests on.

It knows no HTTP and no JSON; routes turn its answers into bodies.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import orjson
import structlog

from isrf.diversity import diversify
from isrf.errors import StoreError
from isrf.interest import BoolArray, Neighbours
from isrf.recommend import SCORE_DIGITS, Interests, RankedItem, RankRequest, Task
from isrf.similar import likeness
from service import answers
from service.answers import AnswerKey, Answers, Served
from service.bundle_files import Release
from service.catalogue import EVERYTHING, Catalogue, Filter
from service.crowd import Crowd
from service.engine import Engine
from service.explain import Explainer
from service.given import MOST_LENGTH, Entry, GivenList, GivenLists, length_for
from service.observe import Metrics
from service.reasons import reason_body
from service.state.events import EventRules
from service.state.group_cache import decode, encode
from service.state.merge import UserState, merge
from service.state.store import NO_VERSION, Cached, Store, UserRecord

REMEMBERED = 2048
"""Interests computed last, kept in this process (about 2 KB each)."""

POOL_TIMES, POOL_MOST = 5, 400
"""Candidates for each place of a diverse list, and how many of them at most."""

Write: TypeAlias = "Callable[[Answer], Sequence[Mapping[str, Any]]]"
"""An answer's items as they leave."""

_log = structlog.get_logger("service")


class Keeping(NamedTuple):
    """What is kept of what was computed, and for how long."""

    group_ttl_s: int
    answer_ttl_s: int
    answer_bytes: int  # of answers in this process; 0: no answer is kept anywhere


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the caller asks of a list."""

    n: int
    only: Filter = EVERYTHING
    include_seen: bool = False
    explain: bool = False
    diversity: float = 0.0  # 0: the order stands, 1: items as unlike each other as can be
    offset: int = 0
    recommendation_id: str | None = None  # of the list to read on from; None for a new one
    session: tuple[str, ...] = ()  # item_ids, oldest first: read where the user has no history

    @property
    def length(self) -> int:
        """How long a list is, of which a page of n is told."""
        return max(length_for(self.n), min(self.offset + self.n, MOST_LENGTH))

    @property
    def pool(self) -> int:
        """How many items the list is chosen from."""
        return max(self.length, min(POOL_TIMES * self.n, POOL_MOST)) if self.diversity else self.length


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
    lineage: str
    """Another one after every erasure."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A page of a list, best first.

    Attributes:
        places: of the items in the list, from 1 on.
        num_listed: how long the list is.
    """

    items: list[RankedItem]
    places: Sequence[int]
    recommendation_id: str
    num_listed: int
    release_id: str
    source: str
    rows: Sequence[int] = ()
    neighbours: Neighbours | None = None
    crowd: Crowd
    interests: Interests | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)
    reasons: list[list[dict[str, Any]]] | None = None
    """Of each item, where the caller asked for them."""

    def about(self, wanted: Wanted) -> dict[str, Any]:
        """What else is told and counted of it: its id, where its next page begins, and its items by channel."""
        next_offset = wanted.offset + wanted.n
        return {
            "recommendation_id": self.recommendation_id,
            "next_offset": next_offset if next_offset < self.num_listed else None,
            "channels": dict(Counter(item.source for item in self.items)),
        }


class Recommendations:
    """One per release. What is asked for again, at once or later, is not computed again (`service.answers`).

    Interests just computed are remembered: a request may have read the store before they came there.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        metrics: Metrics,
        *,
        given: GivenLists,
        rules: EventRules,
        keeping: Keeping,
    ) -> None:
        self._engine, self._store, self._metrics, self._given = engine, store, metrics, given
        self._rules, self._keeping = rules, keeping
        self._computed: OrderedDict[tuple[str, str, str], Interests] = OrderedDict()
        self._answers = Answers(max_bytes=keeping.answer_bytes, ttl_s=keeping.answer_ttl_s)
        self._store_answers = True
        self._background: set[asyncio.Task[None]] = set()

    @property
    def release(self) -> Release:
        return self._engine.release

    async def recommend(self, user_id: str, wanted: Wanted, write: Write) -> tuple[str, Served]:
        """The user's version and answer; one that was given before where it is still true.

        Args:
            write: puts an answer's items down.
        """
        crowd = self._engine.crowd
        if not self._answers.has_any(user_id):
            # Not after the state was read: refusals must be cheap when there are many.
            self._engine.check()
        record, was_read = await self._read(user_id)
        if not was_read or not self._keeping.answer_bytes:
            # Without the store the version says nothing of the state.
            self._metrics.answer_cache.labels("bypassed").inc()
            return record.version, await self._make(self._view(user_id, record, was_read, crowd), wanted, write, None)
        key = self._key(user_id, record.version, crowd, wanted)
        found = self._answers.get(key)
        if found is not None:
            return record.version, self._again(found, "process")
        found = answers.decode(key, record.answer)
        if found is not None:
            self._answers.keep(key, found)
            return record.version, self._again(found, "store")
        self._metrics.answer_cache.labels("shared" if self._answers.is_made(key) else "computed").inc()
        return record.version, await self._answers.made(
            key, lambda: self._make(self._view(user_id, record, was_read, crowd), wanted, write, key)
        )

    async def view(self, user_id: str) -> UserView:
        """The user's state; from the release alone where the store cannot be read."""
        crowd = self._engine.crowd
        return self._view(user_id, *(await self._read(user_id)), crowd)

    def _view(self, user_id: str, record: UserRecord, was_read: bool, crowd: Crowd) -> UserView:
        release = crowd.release  # with the items of this crowd
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
            lineage=state.version.partition(".")[0] if record.erased else "",
        )

    async def _read(self, user_id: str) -> tuple[UserRecord, bool]:
        """What the store holds of a user, and whether it could be asked."""
        began = time.perf_counter()
        try:
            record, was_read = await self._store.read(user_id), True
        except StoreError as error:
            record, was_read = UserRecord(NO_VERSION, (), {}, erased=False, group=None), False
            self._metrics.store_failures.labels("read").inc()
            if self._store_answers:
                _log.warning("store_unavailable", code=error.code, message=error.message)
        if was_read != self._store_answers:
            if was_read:
                _log.info("store_recovered")
            self._metrics.store_up.labels(self._store.kind).set(was_read)
        self._store_answers = was_read
        self._metrics.stage("store", time.perf_counter() - began)
        return record, was_read

    def _key(self, user_id: str, version: str, crowd: Crowd, wanted: Wanted) -> AnswerKey:
        return AnswerKey(
            user_id=user_id,
            version=version,
            release_id=self.release.manifest.release_id,
            crowd=crowd.token,
            catalogue=crowd.release.catalogue.version,
            parameters=repr(wanted),
        )

    def _again(self, served: Served, where: str) -> Served:
        self._metrics.answer_cache.labels(where).inc()
        self._metrics.answers.labels(served.source, self.release.manifest.release_id).inc()
        return served

    async def _make(self, user: UserView, wanted: Wanted, write: Write, key: AnswerKey | None) -> Served:
        """An answer, computed; kept by the store as well where it has a key."""
        known = self._known_interests(user) if user.rows else None
        answer = await self.for_user(user, wanted, known)
        served = Served(
            answer.source,
            orjson.dumps(write(answer)),
            orjson.dumps(answer.warnings),
            orjson.dumps(answer.about(wanted)),
        )
        group = None if known is not None or not user.rows else self._to_keep(user, answer.interests)
        # Popular items are looked up as soon as kept answers are: nothing to keep of somebody unknown.
        kept = None if key is None or not user.rows else answers.encode(key, served)
        if kept is not None and len(kept) > answers.LARGEST_KEPT:
            kept = None
        self._keep(user.user_id, group, None if kept is None else Cached(kept, self._keeping.answer_ttl_s))
        return served

    async def for_user(self, user: UserView, wanted: Wanted, interests: Interests | None = None) -> Answer:
        """A user's recommendations, computed: from their history, else from the session, else popular ones.

        Args:
            interests: the user's, where they are known already.
        """
        session = () if user.rows else wanted.session
        seen = () if wanted.include_seen else (*user.state.bought, *session)
        allowed = _allowed(user.crowd, [*seen, *user.state.disliked], wanted)
        session_rows = user.crowd.release.catalogue.rows(session)
        warnings = _unknown_history(len(session) - len(session_rows))
        source = "sequence" if user.rows else "session" if session_rows else _popular(wanted)
        if not user.store_was_read:
            source = f"bundle:{source}"
            warnings.append(_without_state())
        whose = _Whose(owner_of("user", user.user_id), user.lineage)
        asked = _Asked(user.rows or session_rows, user.own, user.crowd, allowed, whose, interests)
        return await self._answer(asked, wanted, source, warnings)

    async def for_session(self, history: Sequence[str], wanted: Wanted) -> Answer:
        """Recommendations for nothing but a history of item_ids, oldest first."""
        crowd = self._engine.crowd
        rows = crowd.release.catalogue.rows(history)
        warnings = _unknown_history(len(history) - len(rows))
        seen = () if wanted.include_seen else history
        allowed = _allowed(crowd, seen, wanted)
        source = "session" if rows else _popular(wanted)
        asked = _Asked(rows, -1, crowd, allowed, _Whose(owner_of("session")))
        return await self._answer(asked, wanted, source, warnings)

    async def rank(
        self, user: UserView | None, history: Sequence[str], candidates: Sequence[str], wanted: Wanted
    ) -> Answer:
        """Candidates in their order for a user, else for a history of item_ids, oldest first; seen ones stay."""
        crowd = self._engine.crowd if user is None else user.crowd
        catalogue = crowd.release.catalogue
        rows = catalogue.rows(history) if user is None else user.rows
        given = np.zeros(len(catalogue), dtype=np.bool_)
        given[catalogue.rows(candidates)] = True
        allowed = catalogue.allowed() & given
        warnings = _missing(candidates, catalogue, allowed)
        if user is None:
            warnings += _unknown_history(len(history) - len(rows))
        source = ("session" if user is None else "sequence") if rows else "popular"
        if user is not None and not user.store_was_read:
            source = f"bundle:{source}"
            warnings.append(_without_state())
        wanted = replace(wanted, n=min(wanted.n, max(1, int(allowed.sum()))))
        if user is None or not rows:
            asked = _Asked(rows, -1, crowd, allowed, _CHOICE, None, "direct")
            return await self._answer(asked, wanted, source, warnings)
        known = self._known_interests(user)
        asked = _Asked(rows, user.own, crowd, allowed, _CHOICE, known, "direct")
        answer = await self._answer(asked, wanted, source, warnings)
        if known is None:
            self._keep(user.user_id, self._to_keep(user, answer.interests), None)
        return answer

    async def similar(self, item_id: str, wanted: Wanted) -> Answer:
        """What is like an item that the catalogue knows, itself left out."""
        crowd = self._engine.crowd
        catalogue, tables = crowd.release.catalogue, crowd.recommender.tables
        (row,) = catalogue.rows([item_id])
        allowed = _allowed(crowd, [item_id], wanted)

        def best() -> list[RankedItem]:
            like = likeness(row, tables.item_lists, tables.item_vectors)
            rows = np.flatnonzero(allowed)
            order = rows[np.lexsort((rows, -like.scores[rows]))][: wanted.pool].tolist()
            return [RankedItem(at, round(float(like.scores[at]), SCORE_DIGITS), like.source(at)) for at in order]

        items = await self._diversified(await self._engine.run_in_turn("model", best), wanted, crowd)
        asked = _Asked([row], -1, crowd, allowed, _Whose(owner_of("similar", item_id)))
        return await self._told(asked, items, None, wanted, "similar", self._unknown_category(wanted))

    async def interests(self, user: UserView) -> Interests:
        """A user's interests: from the cache, just computed for another request, or computed (and then cached)."""
        known = self._known_interests(user)
        if known is not None:
            return known
        interests = await self._engine.read(user.rows, user.own, user.crowd)
        self._keep(user.user_id, self._to_keep(user, interests), None)
        return interests

    def _known_interests(self, user: UserView) -> Interests | None:
        release_id, version = user.crowd.release.manifest.release_id, _version(user)
        # Without the store the version says nothing of the state.
        if not user.store_was_read:
            self._metrics.group_cache.labels("bypassed").inc()
            return None
        found = decode(user.cached, version=version, release_id=release_id, crowd=user.crowd.token)
        if found is None:
            found = self._computed.get((user.user_id, version, user.crowd.token))
        self._metrics.group_cache.labels("computed" if found is None else "hit").inc()
        return found

    def _to_keep(self, user: UserView, interests: Interests | None) -> Cached | None:
        """Interests that were just computed, remembered here and as the store keeps them."""
        if interests is None or not user.store_was_read:
            return None
        while len(self._computed) >= REMEMBERED:
            self._computed.popitem(last=False)
        version, release_id, crowd = _version(user), user.crowd.release.manifest.release_id, user.crowd.token
        self._computed[user.user_id, version, crowd] = interests
        payload = encode(interests, version=version, release_id=release_id, crowd=crowd)
        return Cached(payload, self._keeping.group_ttl_s)

    def _keep(self, user_id: str, group: Cached | None, answer: Cached | None) -> None:
        if group is not None or answer is not None:
            # The answer does not wait for the cache: with `appendfsync always` a write waits for the disk.
            self._later(self._store.keep(user_id, group=group, answer=answer))

    def forget(self, user_id: str) -> None:
        """Nothing of a user who was just erased stays in this process."""
        self._answers.forget(user_id)
        for key in [key for key in self._computed if key[0] == user_id]:
            del self._computed[key]

    def similar_items(self, interests: Interests, crowd: Crowd) -> list[int]:
        """Rows of what the similar users took, repeated as often as they did."""
        took = crowd.recommender.tables.user_items
        users = interests.neighbours.users[0]
        return [int(item) for user in users[users >= 0] for item in took.indices[took.row(int(user))]]

    async def close(self) -> None:
        """Waits for what is still being made, and written to the cache."""
        await self._answers.close()
        if self._background:
            await asyncio.wait(self._background)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _answer(self, asked: "_Asked", wanted: Wanted, source: str, warnings: list[dict[str, Any]]) -> Answer:
        interests: Interests | None = None
        if asked.rows and asked.allowed.any():
            request = RankRequest(history=asked.rows, n=wanted.pool, allowed=asked.allowed, task=asked.task)
            interests, ranked = await self._engine.answer(request, asked.own, asked.crowd, asked.interests)
            items = ranked.items
        else:
            popular = asked.crowd.release.catalogue.popular(asked.allowed, wanted.pool)
            items = [RankedItem(row, score, "popular") for row, score in popular]
        items = await self._diversified(items, wanted, asked.crowd)
        warnings += self._unknown_category(wanted)
        return await self._told(asked, items, interests, wanted, source, warnings)

    async def _told(
        self,
        asked: "_Asked",
        listed: list[RankedItem],
        interests: Interests | None,
        wanted: Wanted,
        source: str,
        warnings: list[dict[str, Any]],
    ) -> Answer:
        """The first page of a finished list: kept to be read on, counted, with warnings and reasons."""
        items = listed[wanted.offset : wanted.offset + wanted.n]
        if len(items) < wanted.n:
            self._metrics.short_answers.inc()
            if not items:
                self._metrics.empty_answers.labels(source).inc()
            warnings.append(_end_of_list(len(listed)) if wanted.offset else _fewer_items(len(items)))
        release_id, catalogue = self.release.manifest.release_id, asked.crowd.release.catalogue
        self._metrics.answers.labels(source, release_id).inc()
        for channel, count in Counter(item.source for item in items).items():
            self._metrics.items.labels(channel).inc(count)
        entries = [Entry(catalogue.item_id(item.item_index), item.score, item.source) for item in listed[:MOST_LENGTH]]
        neighbours = None if interests is None else interests.neighbours
        return Answer(
            items=items,
            places=range(wanted.offset + 1, wanted.offset + len(items) + 1),
            recommendation_id=self._given.keep(
                GivenList(*asked.whose, release_id, source, wanted.include_seen, entries)
            ),
            num_listed=len(listed),
            release_id=release_id,
            source=source,
            rows=asked.rows,
            neighbours=neighbours,
            crowd=asked.crowd,
            interests=interests,
            warnings=warnings,
            reasons=await self._reasons(items, asked.rows, neighbours, asked.crowd) if wanted.explain else None,
        )

    async def next_page(self, owner: str, wanted: Wanted, user: UserView | None = None) -> Answer:
        """A page of a list that was given before, as it was then, without what must not be shown any more.

        Raises:
            RequestError: `recommendation.gone`.
        """
        assert wanted.recommendation_id is not None
        given = await self._given.of(wanted.recommendation_id, owner, "" if user is None else user.lineage)
        crowd = self._engine.crowd if user is None else user.crowd
        catalogue = crowd.release.catalogue
        bought = () if user is None or given.include_seen else user.state.bought
        allowed = catalogue.allowed((*bought, *(() if user is None else user.state.disliked)))
        page = list(enumerate(given.entries[wanted.offset : wanted.offset + wanted.n], start=wanted.offset + 1))
        rows = {item_id: row for _, (item_id, _, _) in page for row in catalogue.rows([item_id])}
        told = [(place, one) for place, one in page if one.item_id in rows and allowed[rows[one.item_id]]]
        items = [RankedItem(rows[one.item_id], one.score, one.channel) for _, one in told]
        warnings = [_end_of_list(len(given.entries))] if len(page) < wanted.n else []
        if len(items) < len(page):
            warnings.append(_warning("fewer_items", f"{len(page) - len(items)} items are not to be shown any more."))
        history = catalogue.rows(wanted.session) if user is None or not user.rows else user.rows
        interests = await self._interests_again(user, history, crowd) if wanted.explain and items else None
        neighbours = None if interests is None else interests.neighbours
        return Answer(
            items=items,
            places=[place for place, _ in told],
            recommendation_id=wanted.recommendation_id,
            num_listed=len(given.entries),
            release_id=given.release_id,
            source=given.source,
            crowd=crowd,
            warnings=warnings,
            reasons=await self._reasons(items, history, neighbours, crowd) if wanted.explain else None,
        )

    async def _interests_again(self, user: UserView | None, history: Sequence[int], crowd: Crowd) -> Interests | None:
        if not history:
            return None
        if user is not None and user.rows:
            return await self.interests(user)
        return await self._engine.read(history, -1, crowd)

    async def _diversified(self, items: list[RankedItem], wanted: Wanted, crowd: Crowd) -> list[RankedItem]:
        if not wanted.diversity:
            return items
        vectors = crowd.recommender.tables.item_vectors

        def order() -> list[RankedItem]:
            scores = np.array([item.score for item in items], dtype=np.float32)
            rows = [item.item_index for item in items]
            return [items[at] for at in diversify(scores, vectors[rows], wanted.length, diversity=wanted.diversity)]

        return await self._engine.run("diversity", order)

    def _unknown_category(self, wanted: Wanted) -> list[dict[str, Any]]:
        category = wanted.only.category
        if category is None or self.release.catalogue.has_category(category):
            return []
        return [_warning("unknown_category", "No item of the release is in this category.")]

    async def _reasons(
        self, items: Sequence[RankedItem], rows: Sequence[int], neighbours: Neighbours | None, crowd: Crowd
    ) -> list[list[dict[str, Any]]]:
        release = crowd.release

        def explain() -> list[list[dict[str, Any]]]:
            explainer = Explainer(release, crowd, rows, neighbours)
            return [
                [reason_body(item.item_index, reason, release) for reason in explainer.reasons(item)] for item in items
            ]

        return await self._engine.run("explain", explain)

    async def popular(self, wanted: Wanted) -> Answer:
        """The most popular items, the same for everybody."""
        crowd = self._engine.crowd
        asked = _Asked((), -1, crowd, _allowed(crowd, (), wanted), _Whose(owner_of("popular")))
        return await self._answer(asked, wanted, _popular(wanted), [])


class _Whose(NamedTuple):
    """Whose list it is (`service.given`)."""

    owner: str
    lineage: str = ""


def owner_of(kind: Literal["user", "session", "popular", "similar", "choice"], external_id: str = "") -> str:
    return f"{kind}\n{external_id}"


_CHOICE = _Whose(owner_of("choice"))


def _popular(wanted: Wanted) -> str:
    return "popular" if wanted.only.category is None else "category-popular"


def _allowed(crowd: Crowd, excluded: Collection[str], wanted: Wanted) -> BoolArray:
    """Of the items that are on offer for a request of this crowd."""
    return crowd.release.catalogue.allowed(excluded, wanted.only)


def _version(user: UserView) -> str:
    """What interests depend on of the user; a replica that does not know a new item yet must not speak for others."""
    known, held = len(user.rows), len(user.state.history)
    return user.state.version if known == held else f"{user.state.version} {known}"


class _Asked(NamedTuple):
    """What a list is made from."""

    rows: Sequence[int]
    own: int
    crowd: Crowd
    allowed: BoolArray
    whose: _Whose
    interests: Interests | None = None  # None: to be read
    task: Task = "sequential"


WarningCode = Literal[
    "store_unavailable",
    "unknown_items",
    "unknown_category",
    "fewer_items",
    "end_of_list",
    "unknown_candidates",
    "unavailable_candidates",
]


def _warning(code: WarningCode, message: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "message": message, **more}


def _fewer_items(count: int) -> dict[str, Any]:
    return _warning("fewer_items", f"Only {count} items are allowed.")


def _end_of_list(count: int) -> dict[str, Any]:
    return _warning("end_of_list", f"The list has {count} items.")


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
