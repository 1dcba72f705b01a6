"""Makes the list of a placement: its kind's items first, then those of its fallbacks, until the list is full."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from isrf.contract.errors import RequestError
from isrf.method.interest import BoolArray
from isrf.method.recommend.request import RankedItem, UserInterests
from service.inference.engine import Engine
from service.recommend.lists import Lists
from service.recommend.placements.active_rules import ActiveRules, pins_at
from service.recommend.placements.kind_lists import FoundItems, KindLists, ListInputs, why_forbidden
from service.recommend.placements.placed_answers import PlacedAnswers, PlacedKey
from service.recommend.placements.placed_query import PlacedQuery
from service.recommend.placements.placement import Kind, Placement, PlacementVersion
from service.recommend.placements.preview import PlacementPreview, item_moves, rule_counts
from service.recommend.placements.ruled_list import Moves, RuledList
from service.recommend.query_models import Answer, ListOwner, ListQuery, RankingJob, UserView
from service.recommend.user_views import UserViews
from service.recommend.warnings import (
    fewer_items,
    kind_found_nothing,
    kind_needs,
    stored_placement_fails,
    unknown_category,
    unknown_history,
    user_warnings,
)
from service.release.live_counting import LiveCounting
from service.release.snapshot import Snapshot
from service.state.events import EventRules
from service.state.records import UserRecord

BESIDE_ITEMS: frozenset[Kind] = frozenset({"similar", "together"})
"""Kinds that start from the given items, not from the user's."""
ARRANGED_AT_ONCE = 300
"""Items of a kind that the event loop arranges itself; more of them are arranged in a thread."""

_NOTHING: dict[Kind, str] = {
    "for-user": "no item is allowed",
    "similar": "the call names no known item",
    "together": "nobody took an item together with the given ones, or the call names none",
    "trending": "no item's events rise, or events count for nobody but their user",
    "popular": "no item is allowed",
    "new": "no allowed item has a known first moment",
    "buy-again": "nothing that the user bought is due, or nobody buys an item again in this release",
    "recently-viewed": "neither user nor session has an item that is on offer",
}


class _Read(NamedTuple):
    """What one call reads once, however many lists it makes."""

    snapshot: Snapshot
    record: UserRecord | None
    user: UserView | None
    now_s: float


class _FilledList(NamedTuple):
    """A whole list, before its first page is stored or shown."""

    listed: list[RankedItem]
    ruled: RuledList
    source: str
    warnings: list[dict[str, Any]]
    interests: UserInterests | None
    job: RankingJob
    query: ListQuery


class _Page(NamedTuple):
    """The first page of a list, and what its rules did to items in it and outside of it (`RuledList.moves`)."""

    answer: Answer
    ruled: RuledList
    moves: Moves


class PlacedLists:
    """Makes the lists of placements with one release."""

    def __init__(
        self,
        engine: Engine,
        lists: Lists,
        users: UserViews,
        *,
        rules: EventRules,
        live: LiveCounting | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._lists, self._users, self._clock = engine, lists, users, clock
        self._kinds = KindLists(engine, lists, users, rules=rules, live=live)
        self._answers = PlacedAnswers()

    async def items(self, name: str, found: PlacementVersion, asked: PlacedQuery) -> tuple[UserView | None, Answer]:
        """Returns the user's view, where the call names a user, and the list."""
        read = await self._read(asked)
        user, snapshot, placement = read.user, read.snapshot, found.placement
        key = None
        if placement.cache_s:
            counting, catalogue = pins_at(placement.rules, read.now_s), snapshot.release.catalogue
            of_user = () if user is None else (user.state.version, user.lineage, user.store_was_read)
            others = (name, found.text, found.version, counting, *of_user, snapshot.token, catalogue.version)
            key = PlacedKey(asked, others)
            cached = self._answers.get(key, read.now_s)
            if cached is not None and self._lists.is_at_hand(cached.recommendation_id):
                return user, cached
        filled = await self._fill(asked.owner(name), asked, placement, read)
        query = filled.query
        answer = await self._lists.first_page(
            filled.job,
            filled.listed,
            filled.interests,
            query,
            filled.source,
            filled.warnings,
            given_s=placement.cache_s,
        )
        if query.explain and placement.rules:
            moves = filled.ruled.moves([rule.kind for rule in placement.rules])
            answer = replace(answer, moves=[moves.get(item.item_index, []) for item in answer.items])
        if key is not None:
            self._answers.keep(key, answer, made_s=read.now_s, given_s=placement.cache_s, bytes_of_key=len(found.text))
        return user, answer

    async def preview(
        self, placement: Placement, stored: PlacementVersion | None, asked: PlacedQuery
    ) -> tuple[UserView | None, PlacementPreview]:
        """Returns the user's view, and the list of a placement that is not stored beside the list as it is now.

        Nothing is stored, cached or counted. Both lists come from the same state of the user and the same items.

        Args:
            stored: the placement to compare with; None for the same placement without its rules.
        """
        read = await self._read(asked)
        now = placement.model_copy(update={"rules": []}) if stored is None else stored.placement
        try:
            before = (await self._page(now, asked, read)).answer
        except RequestError as error:
            if stored is None:
                raise
            # A later release may lack an attribute of its filter, and the preview is of what mends it.
            release_id = read.snapshot.release.manifest.release_id
            before = Answer(
                items=[],
                places=[],
                recommendation_id="",
                num_listed=0,
                release_id=release_id,
                source=now.kind,
                warnings=[stored_placement_fails(error.message)],
                reasons=[],
            )
        after, ruled, moved = await self._page(placement, asked, read)
        state = None if read.user is None else read.user.state
        passing = await self._lists.allowed(
            read.snapshot,
            (),
            asked.list_query(placement),
            bought=() if state is None else state.bought,
            disliked=() if state is None else state.disliked,
        )
        kinds = [rule.kind for rule in placement.rules]
        return read.user, PlacementPreview(
            before_is="without_rules" if stored is None else "stored",
            before=before,
            after=after,
            moves=item_moves(before, after, moved, passing),
            rules=rule_counts(kinds, moved, ruled.concerned(asked.list_query(placement).n)),
        )

    def forget(self, user_id: str) -> None:
        """Drops the answers of an erased user."""
        self._answers.forget(user_id)

    async def _read(self, asked: PlacedQuery) -> _Read:
        snapshot = self._engine.snapshot
        record, user = None, None
        if asked.user_id is not None:
            record, was_read = await self._users.read(asked.user_id)
            user = self._users.build_view(asked.user_id, record, was_read, snapshot)
        return _Read(snapshot, record, user, self._clock())

    async def _page(self, placement: Placement, asked: PlacedQuery, read: _Read) -> _Page:
        """Returns the first page of a list with its reasons and moves; it stores and counts nothing."""
        filled = await self._fill("", asked, placement, read, is_preview=True)
        query = filled.query
        items, job = filled.listed[: query.n], filled.job
        warnings = filled.warnings + ([fewer_items(len(items))] if len(items) < query.n else [])
        neighbours = None if filled.interests is None else filled.interests.neighbours
        reasons = await self._lists.explained(
            items, job.rows, neighbours, job.snapshot, for_newcomer=job.for_newcomer, user_id=job.user_id
        )
        moves = filled.ruled.moves([rule.kind for rule in placement.rules])
        answer = Answer(
            items=items,
            places=range(1, len(items) + 1),
            recommendation_id="",
            num_listed=len(filled.listed),
            release_id=read.snapshot.release.manifest.release_id,
            source=filled.source,
            warnings=warnings,
            reasons=reasons,
            moves=[moves.get(item.item_index, []) for item in items] if placement.rules else None,
        )
        return _Page(answer, filled.ruled, moves)

    async def _fill(
        self, owner: str, asked: PlacedQuery, placement: Placement, read: _Read, *, is_preview: bool = False
    ) -> _FilledList:
        """Fills the list kind by kind."""
        inputs, warnings = self._inputs(asked, placement, read, is_preview=is_preview)
        query, user, snapshot = inputs.query, inputs.user, inputs.snapshot
        active = await self._kinds.active(inputs)
        explain = query.explain and bool(placement.rules)
        ruled = RuledList(active, page=query.n, length=query.length, explain=explain)
        source, interests, allowed = "", None, None
        for kind in placement.kinds:
            if allowed is not None and not ruled.wants_more(allowed):
                break
            count = _count(kind, inputs, active)
            found = await self._kinds.find(kind, inputs, active, count)
            items, allowed = found.scored.items, found.allowed
            interests = interests or found.interests
            if kind == placement.kind:
                pinned = {pin.row for pin in active.pins if pin.row is not None and not allowed[pin.row]}
                forbidden = {row: why_forbidden(row, inputs, kind) for row in pinned}
                ruled.pin(found.scored, allowed, partial(_most_popular, snapshot), forbidden)
                if query.diversity:
                    items = [*await self._lists.diversified(items[: query.pool], query, snapshot), *items]
            if not items:
                warnings.append(_found_nothing(kind, asked))
            is_listed = await self._add(ruled, items, found)
            if len(found.scored.items) >= count and ruled.wants_more(allowed):
                found = await self._kinds.find(kind, inputs, active, len(allowed))
                is_listed |= await self._add(ruled, found.scored.items, found)
            source = source or (kind if is_listed else "")
        source = source or placement.kind
        if user is not None:
            source = source if user.store_was_read else f"bundle:{source}"
            warnings += user_warnings(user)
        warnings += unknown_category(snapshot.release.catalogue, placement.item_filter.categories)
        warnings += [*ruled.warnings, *ruled.unmet()]
        job = RankingJob(
            inputs.given if placement.kind in BESIDE_ITEMS else inputs.history,
            -1 if user is None else user.user_row,
            snapshot,
            snapshot.release.catalogue.offered,
            ListOwner(owner, "" if user is None else user.lineage),
            is_newcomer=user is not None and not user.rows,
            user_id=None if user is None else user.user_id,
        )
        return _FilledList(ruled.listed(), ruled, source, warnings, interests, job, query)

    async def _add(self, ruled: RuledList, items: Sequence[RankedItem], found: FoundItems) -> bool:
        """Adds a kind's items to the list, in a thread where they are many; returns whether the list got longer."""
        if len(items) <= ARRANGED_AT_ONCE:
            return ruled.add(items, found.scored)
        return await self._engine.run("arrange", ruled.add, items, found.scored)

    def _inputs(
        self, asked: PlacedQuery, placement: Placement, read: _Read, *, is_preview: bool
    ) -> tuple[ListInputs, list[dict[str, Any]]]:
        """Returns what the kinds start from, and the warnings of items that the call names and nobody knows."""
        catalogue, user = read.snapshot.release.catalogue, read.user
        session = catalogue.rows(asked.session)
        given = catalogue.rows(dict.fromkeys(asked.given))
        inputs = ListInputs(
            placement=placement,
            query=asked.list_query(placement),
            snapshot=read.snapshot,
            user=user,
            record=read.record,
            history=user.rows if user is not None and user.rows else session,
            given=given,
            now_s=read.now_s,
            is_preview=is_preview,
        )
        return inputs, unknown_history(len(asked.session) + len(set(asked.given)) - len(session) - len(given))


def _count(kind: Kind, inputs: ListInputs, active: ActiveRules) -> int:
    """Returns how many items of a kind a list asks for at first."""
    query = inputs.query
    if not active.columns or (kind == "for-user" and inputs.history):
        return query.pool  # behind the model's items stand all of its candidates
    return max(query.pool, 2 * query.length)  # a limit skips items, so that more are needed than are listed


def _found_nothing(kind: Kind, asked: PlacedQuery) -> dict[str, Any]:
    """Warns of a kind without items, and names what it needs where the call brings nothing of it."""
    if kind in BESIDE_ITEMS and not asked.given:
        return kind_needs(kind, "item_id or cart", "neither")
    if kind == "recently-viewed" and asked.user_id is None and not asked.session:
        return kind_needs(kind, "user_id or session", "neither")
    if kind == "buy-again" and asked.user_id is None:
        return kind_needs(kind, "user_id", "none")
    return kind_found_nothing(kind, _NOTHING[kind])


def _most_popular(snapshot: Snapshot, allowed: BoolArray) -> int | None:
    """Returns the most popular allowed item (N,), where one is allowed."""
    none = np.zeros(0, dtype=np.int64)
    return snapshot.recommender.most_popular(allowed, none, 1)[0] if allowed.any() else None
