"""What the routes may ask of user state, whatever keeps it.

`RedisStore` (`service.state.redis.store`) keeps it in Redis; `EmbeddedStore` (`service.state.sqlite`) in a SQLite
database of this process. Anything that state cannot do now is a `StoreError`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from isrf.contract.item_changes import ItemEntry as ItemEntry
from service.state.events import Event
from service.state.redis.erasure import Erased
from service.state.redis.items import ItemChange, ItemOutcome, ItemsCursor, ItemsLook
from service.state.redis.recent import Look, Recent

if TYPE_CHECKING:
    from service.state.merge import Learned

Outcome = Literal["accepted", "duplicate", "reused", "erased", "unavailable"]
"""What became of an event: `reused` where its event_id names another one, `erased` where its user was erased after the
moment that the shop gave it, or after the same event was accepted."""


class Applied(NamedTuple):
    """What became of one event."""

    outcome: Outcome
    first_item: str = ""  # of `reused`: the item_id of the event that the event_id names ("": not known)
    first_type: str = ""  # and its event type, "" for one without a type


NO_VERSION = "0"
"""The version of a user of whom state knows nothing: what is known stands in the release."""


class HistoryEntry(NamedTuple):
    """One interaction in a history. Its identity is (item_id, timestamp)."""

    item_id: str
    timestamp: float | None  # seconds; None where the shop's data has no times
    assigned: bool = False  # the timestamp is the service's own


class ItemMark(NamedTuple):
    """The latest moment of each kind that concerns an item; None for never."""

    bought: float | None = None
    disliked: float | None = None
    removed: float | None = None


class UserRecord(NamedTuple):
    """What state holds of one user.

    Attributes:
        version: opaque, never used again for another state of this user.
        history: what came since the release (and perhaps before it), by timestamp, oldest first.
        marks: by item_id, exact and unbounded.
        erased: the release's history of this user must not be read.
        group: cached interests as bytes (`service.state.group_cache`), or None.
        answer: the last answer as bytes (`service.recommend.response_cache`), or None.
    """

    version: str
    history: Sequence[HistoryEntry]
    marks: Mapping[str, ItemMark]
    erased: bool
    group: bytes | None
    answer: bytes | None = None


NOBODY = UserRecord(NO_VERSION, (), {}, erased=False, group=None)
"""Of whom state knows nothing."""


class Cached(NamedTuple):
    """What a store keeps for a while."""

    payload: bytes
    ttl_s: int


class Store(Protocol):
    """User state."""

    kind: Literal["redis", "embedded"]

    async def read(self, user_id: str) -> UserRecord:
        """Everything of one user, in one round trip; `StoreError` if it cannot be had soon."""

    async def read_many(self, user_ids: Sequence[str]) -> list[UserRecord]:
        """Records without cached interests, for work behind the scenes, which may wait."""

    async def erased(self) -> Erased | None:
        """Who was ever erased; None for nobody."""

    async def recent(self, known: Recent, after: Sequence[bytes | None], before_ms: int, /) -> Look:
        """Who was active lately (`service.state.redis.recent.read_recent`)."""

    async def apply(self, events: Sequence[Event]) -> list[Applied]:
        """Takes events in; an accepted one survives a crash from here on.

        For `REMEMBER_S` an event_id names one event: a user, an item and a type. An event without a timestamp of the
        shop's comes after everything that state holds of its user, whatever the caller's clock says.

        Returns:
            One result per event; "unavailable" for those that could not be written (others could).

        Raises:
            StoreError: no event was taken in.
        """

    async def keep(
        self, user_id: str, version: str, *, group: Cached | None = None, answer: Cached | None = None
    ) -> None:
        """Caches interests and last answer of a user for other replicas, unless the user moved, or was erased, since
        `version`; a store that cannot do so now, or knows of no other replica, does nothing."""

    async def erase(self, user_id: str) -> None:
        """Forgets a user, release history included; events posted afterwards start a fresh one."""

    async def change_items(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        """Takes changes of items in; an accepted one survives a crash from here on.

        Args:
            limit: how many items there may be that no release has.

        Raises:
            StoreError: no more than a part was taken in; sending all of it again does no harm.
        """

    async def items(self, after: ItemsCursor | None, /) -> ItemsLook:
        """What the shop said of items since a cursor."""

    async def collect_items(self, doomed: Mapping[str, ItemEntry], /) -> int:
        """Takes out what a release says as well, if it has not changed since; how many."""

    def user_ids(self) -> AsyncIterator[list[str]]:
        """Everybody of whom state knows something, page by page; somebody may come twice."""

    def accepted(self) -> AsyncIterator[list[Event]]:
        """Accepted events that the store still has, page by page, without those of erased users."""

    async def keep_lists(self, lists: Mapping[str, bytes], ttl_s: int, /) -> None:
        """Keeps lists that were given, by recommendation_id, for other replicas."""

    async def read_list(self, recommendation_id: str, /) -> bytes | None:
        """A list that a replica kept."""

    async def first(self, marks: Sequence[str], ttl_s: int, /) -> list[bool]:
        """Of each mark, whether nobody asked for it in the last `ttl_s` seconds."""

    async def count(self, counts: Mapping[str, int], /) -> None:
        """Adds to the counts by name."""

    async def counts(self) -> dict[str, int]:
        """All counts, of all replicas."""

    async def claim(self, name: str, ttl_s: int, /) -> bool:
        """Whether work that one replica should do falls to this one."""

    async def collect(self, user_id: str, version: str, learned: "Learned") -> None:
        """Takes out what the release says as well, if the user has not moved since `version`."""

    async def compact(self) -> None:
        """Lets go of what was kept for state that is no more."""

    async def ping(self) -> None:
        """`StoreError` if state cannot be read or written now."""

    async def close(self) -> None: ...
