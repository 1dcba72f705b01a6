"""The types that the parts of a request share: the query, the user, the answer, the ranking job."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

from isrf.method.interest import BoolArray
from isrf.method.recommend.request import RankedItem, Task, UserInterests
from service.recommend.result_lists import MOST_LENGTH, ListParameters, ids_text, length_for
from service.release.catalogue import EVERYTHING, Filter
from service.release.conditions import NOW, RequestValues
from service.release.snapshot import Snapshot
from service.state.merge import UserState

POOL = 400
"""Candidates of a diverse list. The number does not depend on n, so a shorter list is the beginning of a longer one."""

Write: TypeAlias = "Callable[[Answer], Sequence[Mapping[str, Any]]]"
"""Returns an answer's items as JSON objects."""


@dataclass(frozen=True, kw_only=True)
class ListQuery:
    """The caller's parameters for a list."""

    n: int
    item_filter: Filter = EVERYTHING
    include_seen: bool = False
    explain: bool = False
    diversity: float = 0.0  # 0: the ranked order stays, 1: the items differ from each other as much as possible
    offset: int = 0
    recommendation_id: str | None = None  # of the list that the caller pages through; None for a new list
    session: tuple[str, ...] = ()  # item_ids, oldest first: used where the user has no history
    named_parameters: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    """The list parameters (`ListParameters`) that the caller sent, with a default value or not."""

    @cached_property
    def text(self) -> str:
        """A text that is equal for equal queries, in every process of this version."""
        return repr(self)

    def text_at(self, now_s: float) -> str:
        """Returns `text`; where a condition may read `now`, with what it reads."""
        condition = self.item_filter.condition
        if condition is None or NOW not in condition:
            return self.text
        return f"{self.text} at {RequestValues(now_s=now_s).value(NOW)}"

    @property
    def length(self) -> int:
        """How many items the whole list has, of which the caller sees a page of n."""
        return max(length_for(self.n), min(self.offset + self.n, MOST_LENGTH))

    @property
    def pool(self) -> int:
        """How many candidates the list is chosen from."""
        return max(self.length, POOL) if self.diversity else self.length

    @property
    def parameters(self) -> ListParameters:
        """The parameters that must stay the same on a later page of the list."""
        item_filter = self.item_filter
        return ListParameters(
            category=item_filter.categories,
            exclude_category=item_filter.exclude_categories,
            filter=item_filter.condition,
            context=item_filter.context,
            min_price=item_filter.min_price,
            max_price=item_filter.max_price,
            exclude=ids_text(sorted(set(item_filter.exclude))),
            session=ids_text(self.session),
            include_seen=self.include_seen,
            exclude_variants=item_filter.exclude_variants,
            diversity=self.diversity,
        )


@dataclass(frozen=True, kw_only=True)
class UserView:
    """A user's state and snapshot for one request.

    Attributes:
        state: merged from release and store.
        rows: rows of the history's items that the release knows, oldest first.
        snapshot: the users among whom this request finds neighbours.
        user_row: the user's row in the snapshot, or −1; erased or not, a user is not their own neighbour.
        known: whether the release or an accepted event knows the user.
        cached: the store's cached interests of the user.
        store_was_read: False where the store could not be read; then the state is what the release knows of the user.
        lineage: part of the state's version; it changes with every erasure.
    """

    user_id: str
    state: UserState
    rows: list[int]
    snapshot: Snapshot
    user_row: int
    known: bool
    cached: bytes | None
    store_was_read: bool
    lineage: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A page of a list, best first.

    Attributes:
        places: positions of the items in the list, from 1 on.
        num_listed: how many items the whole list has.
    """

    items: list[RankedItem]
    places: Sequence[int]
    recommendation_id: str
    num_listed: int
    release_id: str
    source: str
    interests: UserInterests | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)
    reasons: list[list[dict[str, Any]]] | None = None
    """The reasons of each item, where the caller asked for them."""
    moves: list[list[dict[str, Any]]] | None = None
    """What each rule of a placement did to each item, where the caller asked for reasons."""

    @property
    def channels(self) -> dict[str, int]:
        """The number of items by channel."""
        return dict(Counter(item.source for item in self.items))

    def about(self, query: ListQuery) -> dict[str, Any]:
        """The list's id, the offset of its next page, and the number of its items by channel."""
        next_offset = query.offset + query.n
        return {
            "recommendation_id": self.recommendation_id,
            "next_offset": next_offset if next_offset < self.num_listed else None,
            "channels": self.channels,
        }


class ListOwner(NamedTuple):
    """The owner of a list (`service.recommend.result_lists`)."""

    owner: str
    lineage: str = ""


def owner_of(
    kind: Literal["user", "session", "popular", "similar", "choice", "placement"], external_id: str = ""
) -> str:
    return f"{kind}\n{external_id}"


class RankingJob(NamedTuple):
    """The input of a list.

    Attributes:
        rows: rows of the history's items, oldest first.
        user_row: the user's row in the snapshot, or −1.
        allowed: (items,) bool.
        user_id: who asks; None for a list that is no user's.
    """

    rows: Sequence[int]
    user_row: int
    snapshot: Snapshot
    allowed: BoolArray
    owner: ListOwner
    interests: UserInterests | None = None  # None: the engine computes them
    task: Task = "sequential"
    is_newcomer: bool = True  # without rows: the list is one user's, not everybody's
    user_id: str | None = None

    @property
    def for_newcomer(self) -> bool:
        """Whether the list's popular items are those that others took as their first ones."""
        return self.is_newcomer and not self.rows
