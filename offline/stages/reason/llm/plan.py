"""Plans which items and users a limited number of calls or tokens is spent on (numbers in, rows out).

A chosen user brings the user's items along, because the user's prompt holds their features. An item may also be chosen
alone. The algorithm is budgeted maximum cover (Khuller, Moss and Naor 1999, the greedy part): the next choice adds the
most gain per cost. Other users of the same items then add little: `offline.stages.reason.llm.distill` copies the chosen
user's answer to them. Items and users with few events or ambiguous titles gain the most.
"""

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

from offline.stages.reason.attributes.item_sentences import ItemFacts
from offline.stages.reason.attributes.terms import MAX_TERMS
from offline.stages.reason.corpus import Corpus

COVERED_USER_SHARE = 0.1
"""The share of a user's gain that remains once chosen users have taken all of the user's items."""


class BudgetPlan(NamedTuple):
    """Rows to ask about, in the order of choice: if the budget ends early, the first rows are done."""

    items: list[int]
    users: list[int]
    cost: float
    covered_gain: float  # share of all gain: of chosen rows, and of users whose items chosen users took too


def plan_everything(corpus: Corpus) -> BudgetPlan:
    """Returns the plan without a budget: every item with a text and every user with an event."""
    items = [row for row in range(len(corpus.items)) if is_describable(corpus, row)]
    users = [row for row, history in enumerate(corpus.histories) if len(history)]
    return BudgetPlan(items, users, 0.0, 1.0)


def plan_budget(
    corpus: Corpus, facts: Sequence[ItemFacts], *, budget: float, item_cost: float, user_cost: float
) -> BudgetPlan:
    """Returns the greedy plan within `budget`; costs have the budget's unit (calls or tokens)."""
    gains = [item_gain(fact) if is_describable(corpus, row) else 0.0 for row, fact in enumerate(facts)]
    recent = [
        [item for item in corpus.recent(user) if gains[item] > 0] if len(history) else []
        for user, history in enumerate(corpus.histories)
    ]
    user_gains = [user_gain([facts[item] for item in items]) if items else 0.0 for items in recent]
    asked_items: set[int] = set()
    covered_items: set[int] = set()  # items of chosen users

    def gain_and_cost(user: int, item: int) -> tuple[float, float]:
        """Returns gain and cost of a user with the items not asked about yet, or of an item alone (user −1)."""
        if user < 0:
            return (0.0, item_cost) if item in asked_items else (gains[item], item_cost)
        new_items = [row for row in recent[user] if row not in asked_items]
        uncovered_share = sum(row not in covered_items for row in recent[user]) / len(recent[user])
        gain_of_user = user_gains[user] * (COVERED_USER_SHARE + (1.0 - COVERED_USER_SHARE) * uncovered_share)
        return gain_of_user + sum(gains[row] for row in new_items), user_cost + item_cost * len(new_items)

    choices = [(-1, item) for item, gain in enumerate(gains) if gain > 0]
    choices += [(user, -1) for user, items in enumerate(recent) if items]
    heap = [(-gain / cost, choice) for choice in choices for gain, cost in (gain_and_cost(*choice),)]
    heapq.heapify(heap)
    items: list[int] = []
    users: list[int] = []
    spent = 0.0
    while heap and spent + min(item_cost, user_cost) <= budget:
        _, choice = heapq.heappop(heap)
        gain, cost = gain_and_cost(*choice)
        if gain <= 0 or spent + cost > budget:
            continue
        if heap and -gain / cost > heap[0][0]:
            heapq.heappush(heap, (-gain / cost, choice))
            continue
        user, item = choice
        new_items = [item] if user < 0 else [row for row in recent[user] if row not in asked_items]
        asked_items.update(new_items)
        items += new_items
        if user >= 0:
            users.append(user)
            covered_items.update(recent[user])
        spent += cost
    covered_gain = sum(gains[item] for item in items) + sum(user_gains[user] for user in users)
    for user in set(range(len(recent))) - set(users):
        covered_gain += user_gains[user] * sum(row in covered_items for row in recent[user]) / max(len(recent[user]), 1)
    total = sum(gains) + sum(user_gains)
    return BudgetPlan(items, users, spent, covered_gain / total if total else 1.0)


def item_gain(facts: ItemFacts) -> float:
    """Returns an item's gain: it is larger with few buyers and few distinctive title terms, where the LLM adds most."""
    ambiguity = 1.0 - len(facts.terms) / MAX_TERMS
    return (1.0 + ambiguity) / math.sqrt(1.0 + facts.num_buyers)


def user_gain(items: Sequence[ItemFacts]) -> float:
    """Returns a user's gain: it is larger with few items, and with items of many categories."""
    spread = len({item.category for item in items}) / len(items)
    return (1.0 + spread) / math.sqrt(1.0 + len(items))


def is_describable(corpus: Corpus, item: int) -> bool:
    """Returns whether the item has any text to reason from."""
    known = corpus.items[item]
    return bool(known.title or known.brand or known.categories or known.description)
