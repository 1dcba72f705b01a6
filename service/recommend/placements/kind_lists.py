"""Finds the items of one kind for a placement's call, with those that a rule looks up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from isrf.contract.shown import printable
from isrf.method.interest import BoolArray, FloatArray, unit_rows
from isrf.method.recommend.request import RankedItem, RankingRequest, UserInterests
from service.inference.engine import Engine
from service.recommend.kinds.buy_again import buy_again_items
from service.recommend.kinds.newest import first_seen, new_items
from service.recommend.kinds.recently_viewed import recently_viewed_items
from service.recommend.kinds.together import together_items
from service.recommend.kinds.trending import trending_items
from service.recommend.lists import Lists, popular_items, similar_items
from service.recommend.placements.active_rules import ActiveRules, active_rules, are_cached
from service.recommend.placements.coded_values import CodedColumns
from service.recommend.placements.placed_query import OWN_ITEMS
from service.recommend.placements.placement import Kind, Placement
from service.recommend.placements.ruled_list import Scored, boosted_kind, boosted_model
from service.recommend.placements.rules_cache import RulesCache
from service.recommend.query_models import ListQuery, UserView
from service.recommend.user_views import UserViews
from service.release.conditions import RequestValues
from service.release.live_counting import LiveCounting
from service.release.snapshot import Snapshot
from service.state.events import EventRules
from service.state.merge import Purchases, purchases
from service.state.records import UserRecord

SCORED_ALONE: frozenset[Kind] = frozenset({"for-user", "similar", "together", "trending", "popular"})
"""Kinds whose score of an item does not depend on which other items are allowed: a rule may look items up."""


@dataclass(frozen=True, kw_only=True)
class ListInputs:
    """What the kinds of one call start from.

    Attributes:
        record: what the store holds of the user.
        history: rows, oldest first.
        given: rows of the page's product and of the cart.
        is_preview: nothing is cached.
    """

    placement: Placement
    query: ListQuery
    snapshot: Snapshot
    user: UserView | None
    record: UserRecord | None
    history: Sequence[int]
    given: Sequence[int]
    now_s: float
    is_preview: bool = False


def why_forbidden(row: int, inputs: ListInputs, kind: Kind) -> str:
    """Says why a list of a kind may not show an item that it does not allow."""
    catalogue, placement = inputs.snapshot.release.catalogue, inputs.placement
    state = None if inputs.user is None else inputs.user.state
    item_id = catalogue.item_id(row)
    if not catalogue.offered[row]:
        why = "it is not on offer"
    elif row in inputs.given:
        why = "the call gives it as item_id or in cart"
    elif state is not None and item_id in state.disliked:
        why = "the user dislikes it"
    elif kind not in OWN_ITEMS and state is not None and item_id in state.bought:
        why = "the user bought it"
    elif kind not in OWN_ITEMS and row in inputs.history and (inputs.user is None or not inputs.user.rows):
        why = "it is in the session"
    elif placement.exclude_variants:
        why = "the filter does not allow it, or a variant of it is bought, disliked or given"
    else:
        why = "the filter, category or prices of the placement do not allow it"
    return f"{printable(item_id)} is not allowed in this list: {why}"


class FoundItems(NamedTuple):
    """What a kind found, and the interests that it rests on."""

    scored: Scored
    allowed: BoolArray  # (N,)
    interests: UserInterests | None = None


class KindLists:
    """Finds the items of each kind with one release."""

    def __init__(
        self, engine: Engine, lists: Lists, users: UserViews, *, rules: EventRules, live: LiveCounting | None
    ) -> None:
        self._engine, self._lists, self._users = engine, lists, users
        self._rules, self._live = rules, live
        self._columns = CodedColumns()
        self._active = RulesCache()

    async def active(self, inputs: ListInputs) -> ActiveRules:
        """Returns the placement's rules as they count for this call."""
        placement, rules, catalogue = inputs.placement, inputs.placement.rules, inputs.snapshot.release.catalogue
        if not rules:
            return ActiveRules()
        cached = self._active.get(placement, catalogue, inputs.now_s)
        if cached is not None:
            return cached
        state = None if inputs.user is None else inputs.user.state
        values = RequestValues(
            now_s=inputs.now_s,
            bought=frozenset(() if state is None else catalogue.rows(state.bought)),
            disliked=frozenset(() if state is None else catalogue.rows(state.disliked)),
        )
        if are_cached(rules, catalogue, values, self._columns):
            active = active_rules(rules, catalogue, values, self._columns)
        else:
            active = await self._engine.run_within_deadline(
                "filter", lambda: active_rules(rules, catalogue, values, self._columns)
            )
        if not inputs.is_preview:
            self._active.keep(placement, catalogue, inputs.now_s, active)
        return active

    async def find(self, kind: Kind, inputs: ListInputs, active: ActiveRules, count: int) -> FoundItems:
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
            return FoundItems(boosted_kind(kind, [], ()), allowed)
        also = active.looked_up(allowed)
        if kind == "for-user" and inputs.history:
            request = RankingRequest(
                history=inputs.history,
                n=count,
                allowed=allowed,
                also=also if len(also) else None,
                boost=active.boost,
            )
            known = None if user is None or not user.rows else self._users.known_interests(user)
            row = -1 if user is None else user.user_row
            interests, ranked = await self._engine.answer(request, row, snapshot, known)
            if known is None and user is not None and user.rows and not inputs.is_preview:
                self._users.keep(user, self._users.cache_entry(user, interests), None)
            return FoundItems(
                boosted_model(ranked, active.boost, whole=bool(active.quotas or active.columns)), allowed, interests
            )
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
                return buy_again_items(self._bought(inputs), again, allowed, now_s=inputs.now_s, count=count)
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

        return FoundItems(await self._engine.run_within_deadline("model", scored), allowed)

    async def _interest(self, inputs: ListInputs) -> FloatArray | None:
        """(N,) cosine of each item to the explicit interest of the user or session; None without a history."""
        if not inputs.history:
            return None
        user = inputs.user
        if user is not None and user.rows:
            interests = await self._users.interests(user, caches=not inputs.is_preview)
        else:
            interests = await self._engine.read(inputs.history, -1, inputs.snapshot)
        cosines: FloatArray = unit_rows(inputs.snapshot.recommender.tables.item_embeddings) @ interests.explicit[0]
        return np.nan_to_num(cosines)

    def _bought(self, inputs: ListInputs) -> dict[int, Purchases]:
        """The user's purchases by item row."""
        record, user = inputs.record, inputs.user
        if record is None or user is None:
            return {}
        release = user.snapshot.release
        if user.snapshot.release.users.row(user.user_id) in user.snapshot.erased:
            record = record._replace(erased=True)
        past = release.users.past(user.user_id, self._buys)
        found = purchases(record, past, release.learned_until)
        return {row: found[item_id] for item_id in found for row in release.catalogue.rows([item_id])}

    def _buys(self, kind: str) -> bool:
        return self._rules.effect(kind) == "B"
