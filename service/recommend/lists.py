"""Makes a list for a query: ranks items or takes popular ones, diversifies, stores, counts and explains them.

It reads no user state: the caller passes the history and the items that are allowed.
"""

import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from isrf.method.interest import BoolArray, FloatArray, Neighbours
from isrf.method.kinds.similar import likeness
from isrf.method.ranking.diversity import diversify
from isrf.method.recommend.recommender import Recommender
from isrf.method.recommend.request import SCORE_DIGITS, RankedItem, RankingRequest, UserInterests
from service.inference.engine import Engine
from service.recommend.explain import Explainer
from service.recommend.query_models import Answer, ListOwner, ListQuery, RankingJob, owner_of
from service.recommend.reasons import reason_body
from service.recommend.result_lists import MOST_LENGTH, ResultEntry, ResultList, ResultLists
from service.recommend.warnings import end_of_list, fewer_items, unknown_category
from service.release.conditions import BOUGHT, CONTEXT, DISLIKED, NOW, RequestValues
from service.release.snapshot import Snapshot
from service.telemetry.metrics import Metrics

SHARE_DIGITS = 6
"""Decimals of a share of recent events, which is small in a large catalogue."""
_NONE = np.zeros(0, dtype=np.int64)


class Lists:
    """Makes the lists of one release."""

    def __init__(self, engine: Engine, metrics: Metrics, result_lists: ResultLists) -> None:
        self._engine, self._metrics, self._result_lists = engine, metrics, result_lists

    async def allowed(
        self,
        snapshot: Snapshot,
        excluded: Collection[str],
        query: ListQuery,
        *,
        bought: Collection[str] = (),
        disliked: Collection[str] = (),
    ) -> BoolArray:
        """(items,) bool: which items a request of this snapshot may show.

        Args:
            excluded: item_ids.
            bought, disliked: the user's item_ids, which the caller's condition may read.

        Raises:
            RequestError: `condition.invalid`.
        """
        catalogue, item_filter = snapshot.release.catalogue, query.item_filter
        allowed, condition = catalogue.allowed(excluded, item_filter), item_filter.condition
        if condition is None:
            return allowed
        values = RequestValues(
            now_s=time.time(),
            bought=frozenset(catalogue.rows(bought)),
            disliked=frozenset(catalogue.rows(disliked)),
            context=dict(item_filter.context),
        )
        names = frozenset((NOW, BOUGHT, DISLIKED, CONTEXT, *(CONTEXT + name for name, _ in item_filter.context)))
        mask = catalogue.conditions.find(condition, values, names)
        if mask is None:
            mask = await self._engine.run_within_deadline(
                "filter", lambda: catalogue.conditions.mask(condition, values, names)
            )
        return allowed & mask

    async def answer(self, job: RankingJob, query: ListQuery, source: str, warnings: list[dict[str, Any]]) -> Answer:
        """Returns the model's list for a history, or popular items where the history is empty."""
        interests: UserInterests | None = None
        # Diversity compares all the caller's candidates with each other, however few of them the caller asks for.
        pool = int(job.allowed.sum()) if query.diversity and job.task == "direct" else query.pool
        if job.rows and job.allowed.any():
            request = RankingRequest(history=job.rows, n=pool, allowed=job.allowed, task=job.task)
            interests, ranked = await self._engine.answer(request, job.user_row, job.snapshot, job.interests)
            items = ranked.items
        else:
            items = popular_items(job.snapshot.recommender, job.allowed, pool, newcomer=job.is_newcomer)
        items = await self.diversified(items, query, job.snapshot)
        warnings += unknown_category(job.snapshot.release.catalogue, query.item_filter.categories)
        return await self.first_page(job, items, interests, query, source, warnings)

    async def first_page(
        self,
        job: RankingJob,
        listed: list[RankedItem],
        interests: UserInterests | None,
        query: ListQuery,
        source: str,
        warnings: list[dict[str, Any]],
        *,
        given_s: float = 0,
    ) -> Answer:
        """Stores and counts a finished list; returns its first page with warnings and reasons.

        Args:
            given_s: how long the answer may be given again.
        """
        items = listed[query.offset : query.offset + query.n]
        if len(items) < query.n:
            self._metrics.short_answers.inc()
            if not items:
                self._metrics.empty_answers.labels(source).inc()
            warnings.append(end_of_list(len(listed)) if query.offset else fewer_items(len(items)))
        release_id, catalogue = job.snapshot.release.manifest.release_id, job.snapshot.release.catalogue
        self._metrics.answers.labels(source, release_id).inc()
        for channel, count in Counter(item.source for item in items).items():
            self._metrics.items.labels(channel).inc(count)
        entries = [
            ResultEntry(catalogue.item_id(item.item_index), item.score, item.source) for item in listed[:MOST_LENGTH]
        ]
        neighbours = None if interests is None else interests.neighbours
        return Answer(
            items=items,
            places=range(query.offset + 1, query.offset + len(items) + 1),
            recommendation_id=self._result_lists.keep(
                ResultList(*job.owner, release_id, source, job.for_newcomer, query.parameters, entries), given_s=given_s
            ),
            num_listed=len(listed),
            release_id=release_id,
            source=source,
            interests=interests,
            warnings=warnings,
            reasons=await self.explained(
                items, job.rows, neighbours, job.snapshot, for_newcomer=job.for_newcomer, user_id=job.user_id
            )
            if query.explain
            else None,
        )

    def is_at_hand(self, recommendation_id: str) -> bool:
        """Whether this process still holds the list of an answer, for its later pages."""
        return self._result_lists.is_at_hand(recommendation_id)

    async def similar(self, item_id: str, query: ListQuery) -> Answer:
        """Returns the items most like an item of the catalogue, without the item itself."""
        snapshot = self._engine.snapshot
        catalogue = snapshot.release.catalogue
        (row,) = catalogue.rows([item_id])
        allowed = await self.allowed(snapshot, [item_id], query)

        def best() -> list[RankedItem]:
            return similar_items(snapshot, row, allowed, query.pool)

        items = await self.diversified(await self._engine.run_within_deadline("model", best), query, snapshot)
        job = RankingJob([row], -1, snapshot, allowed, ListOwner(owner_of("similar", item_id)))
        warnings = unknown_category(catalogue, query.item_filter.categories)
        return await self.first_page(job, items, None, query, "similar", warnings)

    async def popular(self, query: ListQuery) -> Answer:
        """Returns the most popular items, the same for every user."""
        snapshot = self._engine.snapshot
        allowed = await self.allowed(snapshot, (), query)
        job = RankingJob((), -1, snapshot, allowed, ListOwner(owner_of("popular")), is_newcomer=False)
        return await self.answer(job, query, popular_source(query), [])

    async def diversified(self, items: list[RankedItem], query: ListQuery, snapshot: Snapshot) -> list[RankedItem]:
        if not query.diversity:
            return items
        vectors = snapshot.recommender.tables.item_vectors

        def order() -> list[RankedItem]:
            rows = [item.item_index for item in items]
            places = diversify(_relevance(items), vectors[rows], query.length, diversity=query.diversity)
            return [items[at] for at in places]

        return await self._engine.run("diversity", order)

    async def explained(
        self,
        items: Sequence[RankedItem],
        rows: Sequence[int],
        neighbours: Neighbours | None,
        snapshot: Snapshot,
        *,
        for_newcomer: bool,
        user_id: str | None,
    ) -> list[list[dict[str, Any]]]:
        """Returns the reasons of each item; arguments as `Explainer`."""
        release = snapshot.release

        def explain() -> list[list[dict[str, Any]]]:
            explainer = Explainer(release, snapshot, rows, neighbours, for_newcomer=for_newcomer, user_id=user_id)
            return [
                [reason_body(item.item_index, reason, release) for reason in explainer.reasons(item)] for item in items
            ]

        return await self._engine.run("explain", explain)


def _relevance(items: Sequence[RankedItem]) -> FloatArray:
    """(items,) float32: scores; popular items that only fill the list get the lowest score of the ranked items."""
    scores = np.array([item.score for item in items], dtype=np.float32)
    fills = np.array([item.source == "popular" for item in items], dtype=np.bool_)
    if fills.any() and not fills.all():
        scores[fills] = scores[~fills].min()
    return scores


def similar_items(snapshot: Snapshot, item: int, allowed: BoolArray, count: int) -> list[RankedItem]:
    """Returns the allowed items most like an item (its row), the most similar first."""
    tables = snapshot.recommender.tables
    like = likeness(item, tables.item_lists, tables.item_vectors)
    rows = np.flatnonzero(allowed)
    order = rows[np.lexsort((rows, -like.scores[rows]))][:count].tolist()
    return [RankedItem(at, round(float(like.scores[at]), SCORE_DIGITS), like.source(at)) for at in order]


def popular_items(
    recommender: Recommender, allowed: BoolArray, count: int, *, newcomer: bool = False
) -> list[RankedItem]:
    """Returns the most popular allowed items, most popular first.

    An item's score is its share of all recent events, a newer one weighing more; where the release does not know when
    its events were, it is how many users took the item.

    Args:
        newcomer: for a user without a history: by what others took as their first items.
    """
    tables = recommender.tables
    recent = tables.newcomers if newcomer else tables.recent
    found = recommender.for_newcomers(allowed, count) if newcomer else recommender.most_popular(allowed, _NONE, count)
    rows = np.array(found, dtype=np.int64)
    scores = tables.popularity[rows] if recent is None else recent.shares(rows)
    # Events may be counted meanwhile: scores never rise.
    falling = np.minimum.accumulate(scores.astype(np.float64))
    return [
        RankedItem(row, round(score, SHARE_DIGITS), "popular")
        for row, score in zip(rows.tolist(), falling.tolist(), strict=True)
    ]


def popular_source(query: ListQuery) -> str:
    return "category-popular" if query.item_filter.categories else "popular"
