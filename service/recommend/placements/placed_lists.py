"""Makes the list of a placement: its kind's items first, then those of its fallbacks, until the list is full."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from cachetools import LRUCache

from isrf.method.interest import BoolArray, FloatArray, unit_rows
from isrf.method.recommend.request import RankedItem, RankingRequest, UserInterests
from service.inference.engine import Engine
from service.recommend.kinds.buy_again import buy_again_items
from service.recommend.kinds.newest import first_seen, new_items
from service.recommend.kinds.recently_viewed import recently_viewed_items
from service.recommend.kinds.together import together_items
from service.recommend.kinds.trending import trending_items
from service.recommend.lists import Lists, popular_items, similar_items
from service.recommend.placements.active_rules import ActiveRules, active_rules, are_cached, pins_at
from service.recommend.placements.placement import Kind, Placement, PlacementVersion
from service.recommend.placements.ruled_list import RuledList, Scored, boosted_kind, boosted_model, request_boost
from service.recommend.query_models import Answer, ListOwner, ListQuery, RankingJob, UserView, owner_of
from service.recommend.user_views import UserViews
from service.recommend.warnings import kind_found_nothing, unknown_category, unknown_history, user_warnings
from service.release.conditions import RequestValues
from service.release.live_counting import LiveCounting
from service.release.snapshot import Snapshot
from service.state.events import EventRules
from service.state.merge import Purchases, purchases
from service.state.records import UserRecord

OWN_ITEMS: frozenset[Kind] = frozenset({"buy-again", "recently-viewed"})
"""Kinds that list what the user has taken or seen already."""
BESIDE_ITEMS: frozenset[Kind] = frozenset({"similar", "together"})
"""Kinds that start from the given items, not from the user's."""
SCORED_ALONE: frozenset[Kind] = frozenset({"for-user", "similar", "together", "trending", "popular"})
"""Kinds whose score of an item does not depend on which other items are allowed: a rule may look items up."""
CACHED_ANSWERS = 4096

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


@dataclass(frozen=True, kw_only=True)
class PlacedQuery:
    """The parameters of a call for a placement's items.

    Attributes:
        given: item_ids of the page's product and of the cart.
        session: item_ids, oldest first, where the user has no history.
    """

    n: int | None = None
    user_id: str | None = None
    given: tuple[str, ...] = ()
    session: tuple[str, ...] = ()
    explain: bool = False
    offset: int = 0
    recommendation_id: str | None = None

    def owner(self, name: str) -> str:
        """Returns the owner of the list of a placement for this call's user and items."""
        return owner_of("placement", "\n".join((name, self.user_id or "", *sorted(set(self.given)))))

    def list_query(self, placement: Placement | None) -> ListQuery:
        """Returns the query of a list; without a placement that of a later page, whose list knows the rest."""
        query = ListQuery(
            n=self.n or (placement.length if placement else 10),
            explain=self.explain,
            offset=self.offset,
            recommendation_id=self.recommendation_id,
            session=self.session,
        )
        if placement is None:
            return query
        return replace(
            query,
            item_filter=placement.item_filter,
            diversity=placement.diversity,
            include_seen=bool(OWN_ITEMS & set(placement.kinds)),
        )


class _AnswerKey(NamedTuple):
    """Everything that a placement's answer depends on, but for live evidence, which `cache_s` lets stand still."""

    asked: PlacedQuery
    others: tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What the kinds of one call start from."""

    placement: Placement
    query: ListQuery
    snapshot: Snapshot
    user: UserView | None
    bought: dict[int, Purchases]  # by item row
    history: Sequence[int]  # rows, oldest first
    given: Sequence[int]  # rows
    now_s: float


class _Found(NamedTuple):
    """What a kind found, and the interests that it rests on."""

    scored: Scored
    allowed: BoolArray  # (N,)
    interests: UserInterests | None = None


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
        self._engine, self._lists, self._users = engine, lists, users
        self._rules, self._live, self._clock = rules, live, clock
        self._cached: LRUCache[_AnswerKey, tuple[float, Answer]] = LRUCache(CACHED_ANSWERS)

    async def items(self, name: str, found: PlacementVersion, asked: PlacedQuery) -> tuple[UserView | None, Answer]:
        """Returns the user's view, where the call names a user, and the list."""
        snapshot = self._engine.snapshot
        record, user = None, None
        if asked.user_id is not None:
            record, was_read = await self._users.read(asked.user_id)
            user = self._users.build_view(asked.user_id, record, was_read, snapshot)
        catalogue = snapshot.release.catalogue
        placement, now_s = found.placement, self._clock()
        of_user = () if user is None else (user.state.version, user.lineage, user.store_was_read)
        counting = pins_at(placement.rules, now_s)
        others = (name, found.text, found.version, counting, *of_user, snapshot.token, catalogue.version)
        key = _AnswerKey(asked, others)
        cached = self._cached.get(key) if placement.cache_s else None
        if cached is not None and 0 <= now_s - cached[0] < placement.cache_s:
            return user, cached[1]
        query = asked.list_query(placement)
        session = catalogue.rows(asked.session)
        given = catalogue.rows(dict.fromkeys(asked.given))
        inputs = _Inputs(
            placement=placement,
            query=query,
            snapshot=snapshot,
            user=user,
            bought={} if record is None or user is None else self._bought(record, user),
            history=user.rows if user is not None and user.rows else session,
            given=given,
            now_s=now_s,
        )
        warnings = unknown_history(len(asked.session) + len(set(asked.given)) - len(session) - len(given))
        answer = await self._made(asked.owner(name), inputs, warnings)
        if placement.cache_s:
            self._cached[key] = (now_s, answer)
        return user, answer

    def forget(self, user_id: str) -> None:
        """Drops the answers of an erased user."""
        for key in [key for key in self._cached if key.asked.user_id == user_id]:
            del self._cached[key]

    async def _made(self, owner: str, inputs: _Inputs, warnings: list[dict[str, Any]]) -> Answer:
        """Fills the list kind by kind, and stores it."""
        placement, query, user = inputs.placement, inputs.query, inputs.user
        active = await self._active(inputs)
        ruled = RuledList(active, page=query.n, length=query.length, explain=query.explain)
        # A limit skips items, so that more are needed than are listed.
        count = query.pool if not active.columns else max(query.pool, 2 * query.length)
        source, interests = "", None
        for kind in placement.kinds:
            if ruled.is_full:
                break
            found = await self._of_kind(kind, inputs, active, count)
            items = found.scored.items
            if kind == placement.kind:
                interests = found.interests
                ruled.pin(found.scored, found.allowed, _popular_pins(active, found, inputs.snapshot))
                chosen = await self._lists.diversified(items[: query.pool], query, inputs.snapshot)
                items = [*chosen, *items]
            if not items:
                warnings.append(kind_found_nothing(kind, _NOTHING[kind]))
            is_listed = ruled.add(items, found.scored)
            if not ruled.is_full and len(found.scored.items) >= count:
                found = await self._of_kind(kind, inputs, active, len(found.allowed))
                is_listed |= ruled.add(found.scored.items, found.scored)
            source = source or (kind if is_listed else "")
        source = source or placement.kind
        if user is not None:
            source = source if user.store_was_read else f"bundle:{source}"
            warnings += user_warnings(user)
        warnings += unknown_category(inputs.snapshot.release.catalogue, placement.item_filter.categories)
        warnings += [*ruled.warnings, *ruled.unmet()]
        job = RankingJob(
            inputs.given if placement.kind in BESIDE_ITEMS else inputs.history,
            -1 if user is None else user.user_row,
            inputs.snapshot,
            inputs.snapshot.release.catalogue.offered,
            ListOwner(owner, "" if user is None else user.lineage),
            is_newcomer=user is not None and not user.rows,
        )
        answer = await self._lists.first_page(job, ruled.listed(), interests, query, source, warnings)
        if not (query.explain and placement.rules):
            return answer
        moves = ruled.moves([rule.kind for rule in placement.rules])
        return replace(answer, moves=[moves[item.item_index] for item in answer.items])

    async def _active(self, inputs: _Inputs) -> ActiveRules:
        """Returns the placement's rules as they count for this call."""
        rules = inputs.placement.rules
        if not rules:
            return ActiveRules()
        catalogue, state = inputs.snapshot.release.catalogue, None if inputs.user is None else inputs.user.state
        values = RequestValues(
            now_s=inputs.now_s,
            bought=frozenset(() if state is None else catalogue.rows(state.bought)),
            disliked=frozenset(() if state is None else catalogue.rows(state.disliked)),
        )
        if are_cached(rules, catalogue, values):
            return active_rules(rules, catalogue, values)
        return await self._engine.run_within_deadline("filter", lambda: active_rules(rules, catalogue, values))

    async def _of_kind(self, kind: Kind, inputs: _Inputs, active: ActiveRules, count: int) -> _Found:
        """Returns the best items of one kind, with those that a rule looks up."""
        snapshot, user = inputs.snapshot, inputs.user
        catalogue, facts = snapshot.release.catalogue, snapshot.release.users.facts
        state = None if user is None else user.state
        off = {catalogue.item_id(row) for row in inputs.given} | (set() if state is None else set(state.disliked))
        if kind not in OWN_ITEMS:
            off |= set() if state is None else set(state.bought)
            off |= set() if user is not None and user.rows else {catalogue.item_id(row) for row in inputs.history}
        allowed = await self._lists.allowed(
            snapshot,
            off,
            inputs.query,
            bought=() if state is None else state.bought,
            disliked=() if state is None else state.disliked,
        )
        if not allowed.any():
            return _Found(boosted_kind(kind, [], ()), allowed)
        also = active.looked_up(allowed)
        if kind == "for-user" and inputs.history:
            boost = request_boost(active.boosts, len(allowed))
            request = RankingRequest(
                history=inputs.history, n=count, allowed=allowed, also=also if len(also) else None, boost=boost
            )
            known = None if user is None or not user.rows else self._users.known_interests(user)
            row = -1 if user is None else user.user_row
            interests, ranked = await self._engine.answer(request, row, snapshot, known)
            return _Found(boosted_model(ranked, boost), allowed, interests)
        interest = await self._interest(inputs) if kind == "new" else None

        def found(allowed: BoolArray, count: int) -> list[RankedItem]:
            if kind == "similar":
                return similar_items(snapshot, inputs.given[0], allowed, count) if inputs.given else []
            if kind == "together":
                return together_items(snapshot, inputs.given, allowed, count=count)
            if kind == "trending":
                live = None if self._live is None else self._live.evidence
                window_s = inputs.placement.window_s
                return trending_items(live, facts, allowed, now_s=inputs.now_s, window_s=window_s, count=count)
            if kind == "new":
                return new_items(first_seen(catalogue, facts), allowed, interest=interest, count=count)
            if kind == "buy-again":
                again = facts.repurchases(self._buys)
                return buy_again_items(inputs.bought, again, allowed, now_s=inputs.now_s, count=count)
            if kind == "recently-viewed":
                return recently_viewed_items(inputs.history, allowed, count=count)
            newcomer = kind == "for-user" and user is not None
            return popular_items(snapshot.recommender, allowed, count, newcomer=newcomer)

        def scored() -> Scored:
            items = found(allowed, count)
            more: list[RankedItem] = []
            if len(also) and len(items) == count and kind in SCORED_ALONE:
                wanted = np.zeros_like(allowed)
                wanted[also] = True
                more = found(wanted, len(also))
            return boosted_kind(kind, items, active.boosts, more)

        return _Found(await self._engine.run_within_deadline("model", scored), allowed)

    async def _interest(self, inputs: _Inputs) -> FloatArray | None:
        """(N,) cosine of each item to the explicit interest of the user or session; None without a history."""
        if not inputs.history:
            return None
        user = inputs.user
        if user is not None and user.rows:
            interests = await self._users.interests(user)
        else:
            interests = await self._engine.read(inputs.history, -1, inputs.snapshot)
        cosines: FloatArray = unit_rows(inputs.snapshot.recommender.tables.item_embeddings) @ interests.explicit[0]
        return np.nan_to_num(cosines)

    def _bought(self, record: UserRecord, user: UserView) -> dict[int, Purchases]:
        """The user's purchases by item row."""
        release = user.snapshot.release
        if user.snapshot.release.users.row(user.user_id) in user.snapshot.erased:
            record = record._replace(erased=True)
        past = release.users.past(user.user_id, self._buys)
        found = purchases(record, past, release.learned_until)
        return {row: found[item_id] for item_id in found for row in release.catalogue.rows([item_id])}

    def _buys(self, kind: str) -> bool:
        return self._rules.effect(kind) == "B"


def _popular_pins(active: ActiveRules, found: _Found, snapshot: Snapshot) -> list[int | None]:
    """Returns for each pin by a condition its most popular allowed item, where the kind found none."""
    none, popular = np.zeros(0, dtype=np.int64), snapshot.recommender.most_popular
    rows, best = found.scored.rows, list[int | None]()
    for pin in active.pins:
        wanted = None if pin.mask is None or pin.mask[rows].any() else pin.mask & found.allowed
        best.append(None if wanted is None or not wanted.any() else popular(wanted, none, 1)[0])
    return best
