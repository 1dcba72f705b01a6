"""Answers a query for a user or a session: reads state and interests, makes a list, names the answer's source.

It knows no HTTP. It caches a user's answer as JSON; routes turn answers into response bodies.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import orjson

from isrf.contract.errors import RequestError
from isrf.method.evidence import RECENT_ITEMS
from isrf.method.recommend.request import RankedItem, UserInterests
from service.inference.engine import Engine
from service.recommend.lists import Lists, popular_source
from service.recommend.placements.placed_lists import PlacedLists
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
from service.release.live_counting import LiveCounting
from service.release.opening import Release
from service.release.snapshot import Snapshot
from service.state.events import EventRules
from service.state.records import Cached, UserRecord
from service.state.user_store import UserStore
from service.telemetry.metrics import Metrics


class CacheLimits(NamedTuple):
    """How long and how much the service caches."""

    group_ttl_s: int  # a user's interests
    answer_ttl_s: int
    answer_bytes: int  # of answers in this process; 0: no answer is cached, in the store neither


_CHOICE = ListOwner(owner_of("choice"))


class RecommendationService:
    """Answers queries with one release; repeated queries get the cached answer (`service.recommend.response_cache`)."""

    def __init__(
        self,
        engine: Engine,
        store: UserStore,
        metrics: Metrics,
        *,
        result_lists: ResultLists,
        rules: EventRules,
        cache_limits: CacheLimits,
        live: LiveCounting | None = None,
    ) -> None:
        """live: of this release; None where events count for nobody but their user."""
        self._engine, self._metrics, self._result_lists = engine, metrics, result_lists
        self._cache_limits, self._live = cache_limits, live
        self.users = UserViews(engine, store, metrics, rules=rules, group_ttl_s=cache_limits.group_ttl_s)
        self._lists = Lists(engine, metrics, result_lists)
        self.placed = PlacedLists(engine, self._lists, self.users, rules=rules, live=live)
        """Makes the lists of placements."""
        self._answers = ResponseCache(max_bytes=cache_limits.answer_bytes, ttl_s=cache_limits.answer_ttl_s)

    @property
    def release(self) -> Release:
        return self._engine.release

    def has_room(self, user_id: str | None, under_way: int, *, shared: bool = False) -> bool:
        """Whether the service can take another request now.

        Args:
            user_id: the user of the request; an answer from the cache may need no run of the model.
            under_way: number of lists that wait for the model or will, however many callers wait for each of them.
            shared: whether the requested list is one of these.
        """
        if not self._engine.is_full(under_way) or (shared and self._cache_limits.answer_bytes > 0):
            return True
        return user_id is not None and self._answers.has_any(user_id)

    async def recommend(self, user_id: str, query: ListQuery, write: Write) -> tuple[str, CachedResponse]:
        """Returns the version of the user's state and the answer, from a cache where one holds it.

        Args:
            write: turns an answer's items into JSON objects.
        """
        snapshot = self._engine.snapshot
        if not self._answers.has_any(user_id):
            # Before the state is read: refusals must be cheap when there are many.
            self._engine.check()
        record, was_read = await self.users.read(user_id)
        if not was_read or not self._cache_limits.answer_bytes:
            # Without the store the version does not identify the state.
            self._metrics.answer_cache.labels("bypassed").inc()
            return record.version, await self._make(
                self.users.build_view(user_id, record, was_read, snapshot), query, write, None
            )
        key, user = self._key(user_id, record, snapshot, query)
        found = self._answers.get(key)
        if found is not None:
            return record.version, self._count_hit(found, "process")
        found = decode(key, record.answer)
        if found is not None:
            self._answers.keep(key, found)
            return record.version, self._count_hit(found, "store")
        self._metrics.answer_cache.labels("shared" if self._answers.is_in_progress(key) else "computed").inc()
        view = user or self.users.build_view(user_id, record, was_read, snapshot)
        return record.version, await self._answers.get_or_make(key, lambda: self._make(view, query, write, key))

    def _key(
        self, user_id: str, record: UserRecord, snapshot: Snapshot, query: ListQuery
    ) -> tuple[AnswerKey, UserView | None]:
        """Returns the key of the answer, and the user's view where the key needed it."""
        evidence, user = "", None
        if self._live is not None:
            rows = self.users.latest_rows(user_id, record, snapshot)
            if rows is None:
                user = self.users.build_view(user_id, record, was_read=True, snapshot=snapshot)
                rows = self.users.cache_latest_rows(user, record)
            evidence = self._evidence(rows or snapshot.release.catalogue.rows(query.session)[-RECENT_ITEMS:], snapshot)
        key = AnswerKey(
            user_id=user_id,
            version=record.version,
            release_id=self.release.manifest.release_id,
            snapshot=snapshot.token,
            catalogue=snapshot.release.catalogue.version,
            parameters=query.text_at(time.time()),
            evidence=evidence,
        )
        return key, user

    def _evidence(self, rows: Sequence[int], snapshot: Snapshot) -> str:
        """Names the state of the live evidence that a list from these items rests on, oldest first.

        Without items it is popularity, which any event moves: such a list costs no run of the model.
        """
        if self._live is None:
            return ""
        groups = snapshot.release.catalogue.groups
        return self._live.version(rows, groups) if rows else f"popular {self._live.num_changes}"

    def _count_hit(self, served: CachedResponse, where: str) -> CachedResponse:
        self._metrics.answer_cache.labels(where).inc()
        self._metrics.answers.labels(served.source, self.release.manifest.release_id).inc()
        return served

    async def _make(self, user: UserView, query: ListQuery, write: Write, key: AnswerKey | None) -> CachedResponse:
        """Computes an answer; the store caches it too where it has a key."""
        known = self.users.known_interests(user) if user.rows else None
        answer = await self.for_user(user, query, known)
        served = CachedResponse(
            answer.source,
            orjson.dumps(write(answer)),
            orjson.dumps(answer.warnings),
            orjson.dumps(answer.about(query)),
        )
        group = None if known is not None or not user.rows else self.users.cache_entry(user, answer.interests)
        # Popular items cost no more than a look into the store's cache: without a history there is nothing to cache.
        payload = None if key is None or not user.rows else encode(key, served)
        if payload is not None and len(payload) > LARGEST_KEPT:
            payload = None
        self.users.keep(user, group, None if payload is None else Cached(payload, self._cache_limits.answer_ttl_s))
        return served

    async def for_user(self, user: UserView, query: ListQuery, interests: UserInterests | None = None) -> Answer:
        """Computes a user's recommendations from their history, else from the session, else from popularity.

        Args:
            interests: the user's interests, where the caller has them.
        """
        session = () if user.rows else query.session
        seen = () if query.include_seen else (*user.state.bought, *session)
        state = user.state
        allowed = await self._lists.allowed(
            user.snapshot, [*seen, *state.disliked], query, bought=state.bought, disliked=state.disliked
        )
        session_rows = user.snapshot.release.catalogue.rows(session)
        warnings = unknown_history(len(session) - len(session_rows))
        source = "sequence" if user.rows else "session" if session_rows else popular_source(query)
        if not user.store_was_read:
            source = f"bundle:{source}"
        warnings += user_warnings(user)
        owner = ListOwner(owner_of("user", user.user_id), user.lineage)
        rows = user.rows or session_rows
        job = RankingJob(rows, user.user_row, user.snapshot, allowed, owner, interests=interests, user_id=user.user_id)
        return await self._lists.answer(job, query, source, warnings)

    async def for_session(self, history: Sequence[str], query: ListQuery) -> Answer:
        """Returns recommendations for a history of item_ids, oldest first, without a user."""
        snapshot = self._engine.snapshot
        rows = snapshot.release.catalogue.rows(history)
        warnings = unknown_history(len(history) - len(rows))
        seen = () if query.include_seen else history
        allowed = await self._lists.allowed(snapshot, seen, query)
        source = "session" if rows else popular_source(query)
        job = RankingJob(rows, -1, snapshot, allowed, ListOwner(owner_of("session")))
        return await self._lists.answer(job, query, source, warnings)

    async def rank(
        self, user: UserView | None, history: Sequence[str], candidates: Sequence[str], query: ListQuery
    ) -> Answer:
        """Ranks candidates for a user, else for a history of item_ids, oldest first; seen candidates stay."""
        snapshot = self._engine.snapshot if user is None else user.snapshot
        catalogue = snapshot.release.catalogue
        by_history = user is None or not user.rows
        rows = catalogue.rows(history) if user is None or by_history else user.rows
        is_candidate = np.zeros(len(catalogue), dtype=np.bool_)
        is_candidate[catalogue.rows(candidates)] = True
        warnings = missing_candidates(candidates, catalogue, catalogue.allowed() & is_candidate)
        bought, disliked = _marked(user)
        allowed = is_candidate & await self._lists.allowed(snapshot, (), query, bought=bought, disliked=disliked)
        if by_history:
            warnings += unknown_history(len(history) - len(rows))
        source = ("session" if by_history else "sequence") if rows else "popular"
        if user is not None:
            if not user.store_was_read:
                source = f"bundle:{source}"
            warnings += user_warnings(user)
        query = replace(query, n=min(query.n, max(1, int(allowed.sum()))))
        if user is None or by_history:
            user_id = None if user is None else user.user_id
            job = RankingJob(rows, -1, snapshot, allowed, _CHOICE, None, "direct", user_id=user_id)
            return await self._lists.answer(job, query, source, warnings)
        known = self.users.known_interests(user)
        job = RankingJob(rows, user.user_row, snapshot, allowed, _CHOICE, known, "direct", user_id=user.user_id)
        answer = await self._lists.answer(job, query, source, warnings)
        if known is None:
            self.users.keep(user, self.users.cache_entry(user, answer.interests), None)
        return answer

    async def similar(self, item_id: str, query: ListQuery) -> Answer:
        """Returns the items most like an item of the catalogue, without the item itself."""
        return await self._lists.similar(item_id, query)

    async def popular(self, query: ListQuery) -> Answer:
        """Returns the most popular items, the same for every user."""
        return await self._lists.popular(query)

    async def next_page(
        self, owner: str, query: ListQuery, user: UserView | None = None, *, item_id: str | None = None
    ) -> Answer:
        """Returns a later page of a stored list, without the items that may not be shown any more.

        The list's own filter still applies, to the catalogue as it is now.

        Args:
            owner: the list's owner.
            item_id: the item that a list of similar items belongs to.

        Raises:
            RequestError: `recommendation.gone`, `recommendation.other_parameters`, `recommendation.no_session`.
        """
        assert query.recommendation_id is not None
        result_list = await self._result_lists.get(query.recommendation_id, owner, "" if user is None else user.lineage)
        check_page(query.recommendation_id, result_list, query.parameters, query.named_parameters)
        snapshot = self._engine.snapshot if user is None else user.snapshot
        catalogue = snapshot.release.catalogue
        history = catalogue.rows(query.session if item_id is None else [item_id])
        if user is not None and user.rows:
            history = user.rows
        of_session = result_list.source.endswith("session")
        if query.explain and of_session and not (query.session or history):
            raise RequestError(
                "recommendation.no_session",
                "the reasons of this list need the items of its session.",
                fix="Send the session that the list was made from, or leave explain out.",
            )
        parameters = result_list.parameters
        # The stored entries hold no excluded item.
        item_filter = Filter(
            categories=parameters.category,
            exclude_categories=parameters.exclude_category,
            min_price=parameters.min_price,
            max_price=parameters.max_price,
            condition=parameters.filter,
            context=parameters.context,
            exclude_variants=parameters.exclude_variants,
        )
        bought, disliked = _marked(user)
        allowed = await self._lists.allowed(
            snapshot,
            (*(() if parameters.include_seen else bought), *disliked),
            replace(query, item_filter=item_filter),
            bought=bought,
            disliked=disliked,
        )
        page = list(enumerate(result_list.entries[query.offset : query.offset + query.n], start=query.offset + 1))
        rows = {item_id: row for _, (item_id, _, _) in page for row in catalogue.rows([item_id])}
        shown = [(place, entry) for place, entry in page if entry.item_id in rows and allowed[rows[entry.item_id]]]
        items = [RankedItem(rows[entry.item_id], entry.score, entry.channel) for _, entry in shown]
        warnings = [end_of_list(len(result_list.entries))] if len(page) < query.n else []
        if len(items) < len(page):
            warnings.append(gone_items(len(page) - len(items)))
        warnings += unknown_category(catalogue, parameters.category)
        warnings += [] if user is None else user_warnings(user)
        interests = await self._interests(user, history, snapshot) if query.explain and items else None
        neighbours = None if interests is None else interests.neighbours
        user_id = None if user is None else user.user_id
        return Answer(
            items=items,
            places=[place for place, _ in shown],
            recommendation_id=query.recommendation_id,
            num_listed=len(result_list.entries),
            release_id=result_list.release_id,
            source=result_list.source,
            warnings=warnings,
            reasons=await self._lists.explained(
                items, history, neighbours, snapshot, for_newcomer=result_list.for_newcomer, user_id=user_id
            )
            if query.explain
            else None,
        )

    async def _interests(
        self, user: UserView | None, history: Sequence[int], snapshot: Snapshot
    ) -> UserInterests | None:
        if not history:
            return None
        if user is not None and user.rows:
            return await self.users.interests(user)
        return await self._engine.read(history, -1, snapshot)

    def forget(self, user_id: str) -> None:
        """Drops everything that this process caches of an erased user."""
        self._answers.forget(user_id)
        self.placed.forget(user_id)
        self.users.forget(user_id)

    async def close(self) -> None:
        """Waits for answers in progress and for writes to the cache."""
        await self._answers.close()
        await self.users.close()


def _marked(user: UserView | None) -> tuple[Collection[str], Collection[str]]:
    """Returns the item_ids that the user bought and disliked."""
    return ((), ()) if user is None else (user.state.bought, user.state.disliked)
