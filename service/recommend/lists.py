"""From what is asked to a finished list: ranked or popular, made diverse, kept to be read on, counted, explained.

It knows no user's state: whose history it is, and what may be answered, is said to it.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from isrf.method.interest import BoolArray, FloatArray, Neighbours
from isrf.method.ranking.diversity import diversify
from isrf.method.recommend.request import SCORE_DIGITS, RankedItem, RankingRequest, UserInterests
from isrf.method.similar import likeness
from service.inference.engine import Engine
from service.recommend.explain import Explainer
from service.recommend.query_models import Answer, ListOwner, ListQuery, RankingJob, owner_of
from service.recommend.reasons import reason_body
from service.recommend.result_lists import MOST_LENGTH, ResultEntry, ResultList, ResultLists
from service.recommend.warnings import end_of_list, fewer_items, unknown_category
from service.release.snapshot import Snapshot
from service.telemetry.metrics import Metrics


class Lists:
    """One per release."""

    def __init__(self, engine: Engine, metrics: Metrics, given: ResultLists) -> None:
        self._engine, self._metrics, self._result_lists = engine, metrics, given

    async def answer(self, job: RankingJob, wanted: ListQuery, source: str, warnings: list[dict[str, Any]]) -> Answer:
        """What the model says of a history, else popular items."""
        interests: UserInterests | None = None
        # Given candidates are weighed against each other all together, however few of them are wanted.
        pool = int(job.allowed.sum()) if wanted.diversity and job.task == "direct" else wanted.pool
        if job.rows and job.allowed.any():
            request = RankingRequest(history=job.rows, n=pool, allowed=job.allowed, task=job.task)
            interests, ranked = await self._engine.answer(request, job.own, job.snapshot, job.interests)
            items = ranked.items
        else:
            popular = job.snapshot.release.catalogue.popular(job.allowed, pool)
            items = [RankedItem(row, score, "popular") for row, score in popular]
        items = await self._diversified(items, wanted, job.snapshot)
        warnings += unknown_category(job.snapshot.release.catalogue, wanted.only.category)
        return await self._told(job, items, interests, wanted, source, warnings)

    async def _told(
        self,
        job: RankingJob,
        listed: list[RankedItem],
        interests: UserInterests | None,
        wanted: ListQuery,
        source: str,
        warnings: list[dict[str, Any]],
    ) -> Answer:
        """The first page of a finished list: kept to be read on, counted, with warnings and reasons."""
        items = listed[wanted.offset : wanted.offset + wanted.n]
        if len(items) < wanted.n:
            self._metrics.short_answers.inc()
            if not items:
                self._metrics.empty_answers.labels(source).inc()
            warnings.append(end_of_list(len(listed)) if wanted.offset else fewer_items(len(items)))
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
            places=range(wanted.offset + 1, wanted.offset + len(items) + 1),
            recommendation_id=self._result_lists.keep(
                ResultList(*job.owner, release_id, source, wanted.parameters, entries)
            ),
            num_listed=len(listed),
            release_id=release_id,
            source=source,
            interests=interests,
            warnings=warnings,
            reasons=await self.reasons(items, job.rows, neighbours, job.snapshot) if wanted.explain else None,
        )

    async def similar(self, item_id: str, wanted: ListQuery) -> Answer:
        """What is like an item that the catalogue knows, itself left out."""
        snapshot = self._engine.snapshot
        catalogue, tables = snapshot.release.catalogue, snapshot.recommender.tables
        (row,) = catalogue.rows([item_id])
        allowed = allowed_items(snapshot, [item_id], wanted)

        def best() -> list[RankedItem]:
            like = likeness(row, tables.item_lists, tables.item_vectors)
            rows = np.flatnonzero(allowed)
            order = rows[np.lexsort((rows, -like.scores[rows]))][: wanted.pool].tolist()
            return [RankedItem(at, round(float(like.scores[at]), SCORE_DIGITS), like.source(at)) for at in order]

        items = await self._diversified(await self._engine.run_within_deadline("model", best), wanted, snapshot)
        job = RankingJob([row], -1, snapshot, allowed, ListOwner(owner_of("similar", item_id)))
        warnings = unknown_category(catalogue, wanted.only.category)
        return await self._told(job, items, None, wanted, "similar", warnings)

    async def popular(self, wanted: ListQuery) -> Answer:
        """The most popular items, the same for everybody."""
        snapshot = self._engine.snapshot
        job = RankingJob((), -1, snapshot, allowed_items(snapshot, (), wanted), ListOwner(owner_of("popular")))
        return await self.answer(job, wanted, popular_source(wanted), [])

    async def _diversified(self, items: list[RankedItem], wanted: ListQuery, snapshot: Snapshot) -> list[RankedItem]:
        if not wanted.diversity:
            return items
        vectors = snapshot.recommender.tables.item_vectors

        def order() -> list[RankedItem]:
            rows = [item.item_index for item in items]
            places = diversify(_relevance(items), vectors[rows], wanted.length, diversity=wanted.diversity)
            return [items[at] for at in places]

        return await self._engine.run("diversity", order)

    async def reasons(
        self, items: Sequence[RankedItem], rows: Sequence[int], neighbours: Neighbours | None, snapshot: Snapshot
    ) -> list[list[dict[str, Any]]]:
        release = snapshot.release

        def explain() -> list[list[dict[str, Any]]]:
            explainer = Explainer(release, snapshot, rows, neighbours)
            return [
                [reason_body(item.item_index, reason, release) for reason in explainer.reasons(item)] for item in items
            ]

        return await self._engine.run("explain", explain)


def _relevance(items: Sequence[RankedItem]) -> FloatArray:
    """(items,) float32: their scores, where what only fills the list up is as relevant as the last of the others."""
    scores = np.array([item.score for item in items], dtype=np.float32)
    fills = np.array([item.source == "popular" for item in items], dtype=np.bool_)
    if fills.any() and not fills.all():
        scores[fills] = scores[~fills].min()
    return scores


def popular_source(wanted: ListQuery) -> str:
    return "popular" if wanted.only.category is None else "category-popular"


def allowed_items(snapshot: Snapshot, excluded: Collection[str], wanted: ListQuery) -> BoolArray:
    """Of the items that are on offer for a request of this snapshot."""
    return snapshot.release.catalogue.allowed(excluded, wanted.only)
