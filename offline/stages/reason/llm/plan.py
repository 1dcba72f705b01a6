"""The budget planner: whom a limited number of calls or tokens is spent on (numbers in, rows out).

A user is asked about together with the items taken, so that the chain holds; an item may also be asked about alone.
Budgeted maximum cover (Khuller, Moss and Naor 1999, the greedy part): the next choice is the one that adds the most
gain per cost. Once a user is chosen, users of the same items add little: each chosen one speaks for a group, and the
rest of the group is served by `offline.stages.reason.llm.distill`. Cold and ambiguous items and users gain the most.
"""

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

from offline.stages.reason.attributes.item_sentences import ItemFacts
from offline.stages.reason.attributes.terms import MAX_TERMS
from offline.stages.reason.corpus import Corpus

SPOKEN_FOR = 0.1
"""What is left of a user's gain once chosen users have taken all the same items."""


class BudgetPlan(NamedTuple):
    """Rows in the order of choice: where the money ends earlier than planned, the first ones have been served."""

    items: list[int]
    users: list[int]
    cost: float
    covered_gain: float  # share of all gain: asked about, or a user whose items chosen users took too


def plan_everything(corpus: Corpus) -> BudgetPlan:
    """Every item that says something, every user that took something."""
    items = [row for row in range(len(corpus.items)) if is_describable(corpus, row)]
    users = [row for row, history in enumerate(corpus.histories) if len(history)]
    return BudgetPlan(items, users, 0.0, 1.0)


def plan_budget(
    corpus: Corpus, facts: Sequence[ItemFacts], *, budget: float, item_cost: float, user_cost: float
) -> BudgetPlan:
    """The greedy plan within `budget`; costs are in its unit (calls or tokens)."""
    gains = [item_gain(fact) if is_describable(corpus, row) else 0.0 for row, fact in enumerate(facts)]
    recent = [
        [item for item in corpus.recent(user) if gains[item] > 0] if len(history) else []
        for user, history in enumerate(corpus.histories)
    ]
    user_gains = [user_gain([facts[item] for item in items]) if items else 0.0 for items in recent]
    asked: set[int] = set()  # items
    voiced: set[int] = set()  # items of chosen users: others who took them are spoken for

    def offer(user: int, item: int) -> tuple[float, float]:
        """Gain and cost of a user with the items not yet asked about, or of an item alone (user −1)."""
        if user < 0:
            return (0.0, item_cost) if item in asked else (gains[item], item_cost)
        fresh = [row for row in recent[user] if row not in asked]
        unheard = sum(row not in voiced for row in recent[user]) / len(recent[user])
        own = user_gains[user] * (SPOKEN_FOR + (1.0 - SPOKEN_FOR) * unheard)
        return own + sum(gains[row] for row in fresh), user_cost + item_cost * len(fresh)

    choices = [(-1, item) for item, gain in enumerate(gains) if gain > 0]
    choices += [(user, -1) for user, items in enumerate(recent) if items]
    heap = [(-gain / cost, choice) for choice in choices for gain, cost in (offer(*choice),)]
    heapq.heapify(heap)
    items: list[int] = []
    users: list[int] = []
    spent = 0.0
    while heap and spent + min(item_cost, user_cost) <= budget:
        _, choice = heapq.heappop(heap)
        gain, cost = offer(*choice)
        if gain <= 0 or spent + cost > budget:
            continue
        if heap and -gain / cost > heap[0][0]:
            heapq.heappush(heap, (-gain / cost, choice))
            continue
        user, item = choice
        fresh = [item] if user < 0 else [row for row in recent[user] if row not in asked]
        asked.update(fresh)
        items += fresh
        if user >= 0:
            users.append(user)
            voiced.update(recent[user])
        spent += cost
    served = sum(gains[item] for item in items) + sum(user_gains[user] for user in users)
    for user in set(range(len(recent))) - set(users):
        served += user_gains[user] * sum(row in voiced for row in recent[user]) / max(len(recent[user]), 1)
    total = sum(gains) + sum(user_gains)
    return BudgetPlan(items, users, spent, served / total if total else 1.0)


def item_gain(facts: ItemFacts) -> float:
    """Few buyers and a title without distinctive terms: what the graph and the words do not say, the LLM might."""
    ambiguity = 1.0 - len(facts.terms) / MAX_TERMS
    return (1.0 + ambiguity) / math.sqrt(1.0 + facts.num_buyers)


def user_gain(items: Sequence[ItemFacts]) -> float:
    """Few items, and items that have little to do with each other."""
    spread = len({item.category for item in items}) / len(items)
    return (1.0 + spread) / math.sqrt(1.0 + len(items))


def is_describable(corpus: Corpus, item: int) -> bool:
    """Whether there is any text to reason from."""
    known = corpus.items[item]
    return bool(known.title or known.brand or known.categories or known.description)
