"""From a user or a session to an answer: state, interests (cached), a list, and what the answer rests on.

It knows no HTTP. A user's answer is cached as the JSON that leaves; routes turn it, and other answers, into bodies.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import orjson

from isrf.contract.errors import RequestError
from isrf.method.recommend.request import RankedItem, UserInterests
from service.inference.engine import Engine
from service.recommend.lists import Lists, allowed_items, popular_source
from service.recommend.query_models import Answer, ListOwner, ListQuery, RankingJob, UserView, Write, owner_of
from service.recommend.response_cache import LARGEST_KEPT, AnswerKey, CachedResponse, ResponseCache, decode, encode
from service.recommend.result_lists import ResultLists, check_page
from service.recommend.user_views import UserViews
from service.recommend.warnings import (
    end_of_list,
    gone_items,
    missing_candidates,
    unknown_category,
    unknown_history,
    user_warnings,
)
from service.release.catalogue import Filter
from service.release.opening import Release
from service.release.snapshot import Snapshot
from service.state.events import EventRules
from service.state.records import Cached
from service.state.user_store import UserStore
from service.telemetry.metrics import Metrics


class Keeping(NamedTuple):
    """What is kept of what was computed, and for how long."""

    group_ttl_s: int
    answer_ttl_s: int
    answer_bytes: int  # of answers in this process; 0: no answer is kept anywhere


_CHOICE = ListOwner(owner_of("choice"))


class RecommendationService:
    """One per release. What is asked for again, at once or later, is not computed again
    (`service.recommend.response_cache`).
    """

    def __init__(
        self,
        engine: Engine,
        store: UserStore,
        metrics: Metrics,
        *,
        given: ResultLists,
        rules: EventRules,
        keeping: Keeping,
    ) -> None:
        self._engine, self._metrics, self._result_lists, self._keeping = engine, metrics, given, keeping
        self.users = UserViews(engine, store, metrics, rules=rules, group_ttl_s=keeping.group_ttl_s)
        self._lists = Lists(engine, metrics, given)
        self._answers = ResponseCache(max_bytes=keeping.answer_bytes, ttl_s=keeping.answer_ttl_s)

    @property
    def release(self) -> Release:
        return self._engine.release

    def has_room(self, user_id: str | None, under_way: int, *, shared: bool = False) -> bool:
        """Whether somebody may come while so many lists wait for the model or are on their way to it.

        Args:
            user_id: of whom a list is asked for; who was answered before may need no model.
            under_way: lists, however many callers each of them has.
            shared: whether the very list is among them.
        """
        if not self._engine.is_full(under_way) or (shared and self._keeping.answer_bytes > 0):
            return True
        return user_id is not None and self._answers.has_any(user_id)

    async def recommend(self, user_id: str, wanted: ListQuery, write: Write) -> tuple[str, CachedResponse]:
        """The user's version and answer; one that was given before where it is still true.

        Args:
            write: puts an answer's items down.
        """
        snapshot = self._engine.snapshot
        if not self._answers.has_any(user_id):
            # Not after the state was read: refusals must be cheap when there are many.
            self._engine.check()
        record, was_read = await self.users.read(user_id)
        if not was_read or not self._keeping.answer_bytes:
            # Without the store the version says nothing of the state.
            self._metrics.answer_cache.labels("bypassed").inc()
            return record.version, await self._make(
                self.users.seen_as(user_id, record, was_read, snapshot), wanted, write, None
            )
        key = self._key(user_id, record.version, snapshot, wanted)
        found = self._answers.get(key)
        if found is not None:
            return record.version, self._again(found, "process")
        found = decode(key, record.answer)
        if found is not None:
            self._answers.keep(key, found)
            return record.version, self._again(found, "store")
        self._metrics.answer_cache.labels("shared" if self._answers.is_made(key) else "computed").inc()
        return record.version, await self._answers.made(
            key, lambda: self._make(self.users.seen_as(user_id, record, was_read, snapshot), wanted, write, key)
        )

    def _key(self, user_id: str, version: str, snapshot: Snapshot, wanted: ListQuery) -> AnswerKey:
        return AnswerKey(
            user_id=user_id,
            version=version,
            release_id=self.release.manifest.release_id,
            snapshot=snapshot.token,
            catalogue=snapshot.release.catalogue.version,
            parameters=wanted.text,
        )

    def _again(self, served: CachedResponse, where: str) -> CachedResponse:
        self._metrics.answer_cache.labels(where).inc()
        self._metrics.answers.labels(served.source, self.release.manifest.release_id).inc()
        return served

    async def _make(self, user: UserView, wanted: ListQuery, write: Write, key: AnswerKey | None) -> CachedResponse:
        """An answer, computed; kept by the store as well where it has a key."""
        known = self.users.known_interests(user) if user.rows else None
        answer = await self.for_user(user, wanted, known)
        served = CachedResponse(
            answer.source,
            orjson.dumps(write(answer)),
            orjson.dumps(answer.warnings),
            orjson.dumps(answer.about(wanted)),
        )
        group = None if known is not None or not user.rows else self.users.to_keep(user, answer.interests)
        # Popular items are looked up as soon as kept answers are: nothing to keep of somebody unknown.
        kept = None if key is None or not user.rows else encode(key, served)
        if kept is not None and len(kept) > LARGEST_KEPT:
            kept = None
        self.users.keep(user, group, None if kept is None else Cached(kept, self._keeping.answer_ttl_s))
        return served

    async def for_user(self, user: UserView, wanted: ListQuery, interests: UserInterests | None = None) -> Answer:
        """A user's recommendations, computed: from their history, else from the session, else popular ones.

        Args:
            interests: the user's, where they are known already.
        """
        session = () if user.rows else wanted.session
        seen = () if wanted.include_seen else (*user.state.bought, *session)
        allowed = allowed_items(user.snapshot, [*seen, *user.state.disliked], wanted)
        session_rows = user.snapshot.release.catalogue.rows(session)
        warnings = unknown_history(len(session) - len(session_rows))
        source = "sequence" if user.rows else "session" if session_rows else popular_source(wanted)
        if not user.store_was_read:
            source = f"bundle:{source}"
        warnings += user_warnings(user)
        owner = ListOwner(owner_of("user", user.user_id), user.lineage)
        job = RankingJob(user.rows or session_rows, user.own, user.snapshot, allowed, owner, interests)
        return await self._lists.answer(job, wanted, source, warnings)

    async def for_session(self, history: Sequence[str], wanted: ListQuery) -> Answer:
        """Recommendations for nothing but a history of item_ids, oldest first."""
        snapshot = self._engine.snapshot
        rows = snapshot.release.catalogue.rows(history)
        warnings = unknown_history(len(history) - len(rows))
        seen = () if wanted.include_seen else history
        allowed = allowed_items(snapshot, seen, wanted)
        source = "session" if rows else popular_source(wanted)
        job = RankingJob(rows, -1, snapshot, allowed, ListOwner(owner_of("session")))
        return await self._lists.answer(job, wanted, source, warnings)

    async def rank(
        self, user: UserView | None, history: Sequence[str], candidates: Sequence[str], wanted: ListQuery
    ) -> Answer:
        """Candidates in their order for a user, else for a history of item_ids, oldest first; seen ones stay."""
        snapshot = self._engine.snapshot if user is None else user.snapshot
        catalogue = snapshot.release.catalogue
        by_history = user is None or not user.rows
        rows = catalogue.rows(history) if user is None or by_history else user.rows
        given = np.zeros(len(catalogue), dtype=np.bool_)
        given[catalogue.rows(candidates)] = True
        allowed = catalogue.allowed() & given
        warnings = missing_candidates(candidates, catalogue, allowed)
        if by_history:
            warnings += unknown_history(len(history) - len(rows))
        source = ("session" if by_history else "sequence") if rows else "popular"
        if user is not None:
            if not user.store_was_read:
                source = f"bundle:{source}"
            warnings += user_warnings(user)
        wanted = replace(wanted, n=min(wanted.n, max(1, int(allowed.sum()))))
        if user is None or by_history:
            job = RankingJob(rows, -1, snapshot, allowed, _CHOICE, None, "direct")
            return await self._lists.answer(job, wanted, source, warnings)
        known = self.users.known_interests(user)
        job = RankingJob(rows, user.own, snapshot, allowed, _CHOICE, known, "direct")
        answer = await self._lists.answer(job, wanted, source, warnings)
        if known is None:
            self.users.keep(user, self.users.to_keep(user, answer.interests), None)
        return answer

    async def similar(self, item_id: str, wanted: ListQuery) -> Answer:
        """What is like an item that the catalogue knows, itself left out."""
        return await self._lists.similar(item_id, wanted)

    async def popular(self, wanted: ListQuery) -> Answer:
        """The most popular items, the same for everybody."""
        return await self._lists.popular(wanted)

    async def next_page(
        self, owner: str, wanted: ListQuery, user: UserView | None = None, *, item_id: str | None = None
    ) -> Answer:
        """A page of a list that was given before, as it was then, without what must not be shown any more.

        The list's own filter holds, against the catalogue as it is now.

        Args:
            item_id: the one that the listed items are like, where that is what the list is.

        Raises:
            RequestError: `recommendation.gone`, `recommendation.other_parameters`, `recommendation.no_session`.
        """
        assert wanted.recommendation_id is not None
        given = await self._result_lists.of(wanted.recommendation_id, owner, "" if user is None else user.lineage)
        check_page(wanted.recommendation_id, given, wanted.parameters, wanted.said)
        snapshot = self._engine.snapshot if user is None else user.snapshot
        catalogue = snapshot.release.catalogue
        history = catalogue.rows(wanted.session if item_id is None else [item_id])
        if user is not None and user.rows:
            history = user.rows
        of_session = given.source.endswith("session")
        if wanted.explain and of_session and not (wanted.session or history):
            raise RequestError(
                "recommendation.no_session",
                "the reasons of this list's items lead over the items of its session.",
                fix="Send the session that the list was made from, or leave explain out.",
            )
        own = given.parameters
        # What the list excluded is not in it.
        only = Filter(category=own.category, min_price=own.min_price, max_price=own.max_price)
        bought = () if user is None or own.include_seen else user.state.bought
        allowed = catalogue.allowed((*bought, *(() if user is None else user.state.disliked)), only)
        page = list(enumerate(given.entries[wanted.offset : wanted.offset + wanted.n], start=wanted.offset + 1))
        rows = {item_id: row for _, (item_id, _, _) in page for row in catalogue.rows([item_id])}
        told = [(place, one) for place, one in page if one.item_id in rows and allowed[rows[one.item_id]]]
        items = [RankedItem(rows[one.item_id], one.score, one.channel) for _, one in told]
        warnings = [end_of_list(len(given.entries))] if len(page) < wanted.n else []
        if len(items) < len(page):
            warnings.append(gone_items(len(page) - len(items)))
        warnings += unknown_category(catalogue, own.category)
        warnings += [] if user is None else user_warnings(user)
        interests = await self._interests_again(user, history, snapshot) if wanted.explain and items else None
        neighbours = None if interests is None else interests.neighbours
        return Answer(
            items=items,
            places=[place for place, _ in told],
            recommendation_id=wanted.recommendation_id,
            num_listed=len(given.entries),
            release_id=given.release_id,
            source=given.source,
            warnings=warnings,
            reasons=await self._lists.reasons(items, history, neighbours, snapshot) if wanted.explain else None,
        )

    async def _interests_again(
        self, user: UserView | None, history: Sequence[int], snapshot: Snapshot
    ) -> UserInterests | None:
        if not history:
            return None
        if user is not None and user.rows:
            return await self.users.interests(user)
        return await self._engine.read(history, -1, snapshot)

    def forget(self, user_id: str) -> None:
        """Nothing of a user who was just erased stays in this process."""
        self._answers.forget(user_id)
        self.users.forget(user_id)

    async def close(self) -> None:
        """Waits for what is still being made, and written to the cache."""
        await self._answers.close()
        await self.users.close()
