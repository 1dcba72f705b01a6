"""What is asked of a release, who asks, and what is answered: the words that the parts of a request share."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

from isrf.method.interest import BoolArray
from isrf.method.recommend.request import RankedItem, Task, UserInterests
from service.recommend.result_lists import MOST_LENGTH, ListParameters, ids_text, length_for
from service.release.catalogue import EVERYTHING, Filter
from service.release.snapshot import Snapshot
from service.state.merge import UserState

POOL = 400
"""Candidates of a diverse list, however many of it are asked for: a shorter list is the beginning of a longer one."""

Write: TypeAlias = "Callable[[Answer], Sequence[Mapping[str, Any]]]"
"""An answer's items as they leave."""


@dataclass(frozen=True, kw_only=True)
class ListQuery:
    """What the caller asks of a list."""

    n: int
    only: Filter = EVERYTHING
    include_seen: bool = False
    explain: bool = False
    diversity: float = 0.0  # 0: the order stands, 1: items as unlike each other as can be
    offset: int = 0
    recommendation_id: str | None = None  # of the list to read on from; None for a new one
    session: tuple[str, ...] = ()  # item_ids, oldest first: read where the user has no history
    said: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    """Which of the list's parameters (`ListParameters`) the caller named, defaults or not."""

    @cached_property
    def text(self) -> str:
        """Equal for what asks for the same, in every process of this version."""
        return repr(self)

    @property
    def length(self) -> int:
        """How long a list is, of which a page of n is told."""
        return max(length_for(self.n), min(self.offset + self.n, MOST_LENGTH))

    @property
    def pool(self) -> int:
        """How many items the list is chosen from."""
        return max(self.length, POOL) if self.diversity else self.length

    @property
    def parameters(self) -> ListParameters:
        """What a later page of the list keeps to."""
        only = self.only
        return ListParameters(
            category=only.category,
            min_price=only.min_price,
            max_price=only.max_price,
            exclude=ids_text(sorted(set(only.exclude))),
            session=ids_text(self.session),
            include_seen=self.include_seen,
            diversity=self.diversity,
        )


@dataclass(frozen=True, kw_only=True)
class UserView:
    """A user as this request sees them.

    Attributes:
        state: merged from release and store.
        rows: of the history's items that the release knows, oldest first.
        snapshot: among whom this request looks for neighbours.
        own: the user's row in the snapshot, or −1; erased or not, it is no neighbour of theirs.
        known: whether the release, or an accepted event, knows the user.
        cached: what the store holds of the user's interests.
        store_was_read: False where only the release was asked, since the store could not be.
    """

    user_id: str
    state: UserState
    rows: list[int]
    snapshot: Snapshot
    own: int
    known: bool
    cached: bytes | None
    store_was_read: bool
    lineage: str
    """Another one after every erasure."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A page of a list, best first.

    Attributes:
        places: of the items in the list, from 1 on.
        num_listed: how long the list is.
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
    """Of each item, where the caller asked for them."""

    def about(self, wanted: ListQuery) -> dict[str, Any]:
        """What else is told and counted of it: its id, where its next page begins, and its items by channel."""
        next_offset = wanted.offset + wanted.n
        return {
            "recommendation_id": self.recommendation_id,
            "next_offset": next_offset if next_offset < self.num_listed else None,
            "channels": dict(Counter(item.source for item in self.items)),
        }


class ListOwner(NamedTuple):
    """Whose list it is (`service.recommend.result_lists`)."""

    owner: str
    lineage: str = ""


def owner_of(kind: Literal["user", "session", "popular", "similar", "choice"], external_id: str = "") -> str:
    return f"{kind}\n{external_id}"


class RankingJob(NamedTuple):
    """What a list is made from."""

    rows: Sequence[int]
    own: int
    snapshot: Snapshot
    allowed: BoolArray
    owner: ListOwner
    interests: UserInterests | None = None  # None: to be read
    task: Task = "sequential"
