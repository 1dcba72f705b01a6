"""The protocol of users' state: their records, events, active users and erased users."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from isrf.contract.event_log import NUM_BUCKETS, StoredEvent, tombstone_name
from service.state.events import Event
from service.state.records import Applied, Cached, Learned, UserRecord

MAX_RECENT = 20_000
"""How many users count as recently active."""
RECENT_PER_BUCKET = MAX_RECENT // NUM_BUCKETS

RecentUsers = list[dict[str, None]]
"""Per bucket: user_ids, most recently active last; no sessions."""


def nobody_recent() -> RecentUsers:
    """Returns the recent users before the first look."""
    return [{} for _ in range(NUM_BUCKETS)]


class ActivityLook(NamedTuple):
    """The result of one look at the active users."""

    seen: list[bytes | None]  # per bucket the last entry that was read
    moved: set[str]  # user_ids that were active since the previous look


class ErasedUsers(NamedTuple):
    """All users who were ever erased, even if later events have started a new history."""

    secret: bytes
    names: frozenset[str]
    counts: tuple[int, ...]  # per bucket a number that changes with every erasure, 0 before the first

    def holds(self, user_id: str) -> bool:
        return tombstone_name(self.secret, user_id) in self.names


class AcceptedEntry(NamedTuple):
    """An entry of a bucket's accepted events."""

    bucket: int
    event: StoredEvent | None  # None where the entry cannot be read


class EntryPage(NamedTuple):
    """A part of the accepted events.

    Attributes:
        entries: those of one bucket in the order of acceptance.
        positions: by bucket where the next page begins: after the last entry that was looked at.
        waiting: about how many entries are left after this page; 0 only where none was left.
        trimmed_until: seconds; entries accepted before it may have been removed (0 where none were).
    """

    entries: list[AcceptedEntry]
    positions: dict[int, bytes]
    waiting: int
    trimmed_until: float


class UserStore(Protocol):
    """Users' state.

    Attributes:
        kind: the store's name in metrics and in the API.
    """

    kind: Literal["redis", "embedded"]

    async def read(self, user_id: str) -> UserRecord:
        """Returns a user's record, in one round trip; raises `StoreError` where that takes too long."""

    async def read_many(self, user_ids: Sequence[str]) -> list[UserRecord]:
        """Returns records without cached interests, for background work, which may wait."""

    async def erased(self) -> ErasedUsers | None:
        """Returns all users who were ever erased; None where there are none."""

    async def recent(self, known: RecentUsers, after: Sequence[bytes | None], before_ms: int, /) -> ActivityLook:
        """Moves the users active after `after` and before `before_ms` to the end of `known`, in place.

        Args:
            known: the recent users of the last look.
            after: the last look's `seen`.
            before_ms: by the store's clock; replicas that pass the same moment find the same users.
        """

    async def apply(self, events: Sequence[Event]) -> list[Applied]:
        """Applies events; an accepted event survives a crash from here on.

        For `REMEMBER_S` an event_id names one event: a user, an item and a type. An event without a timestamp of the
        shop gets one after all events of its user in the store, whatever the caller's clock says.

        Returns:
            One result per event; "unavailable" for those that could not be written (others could).

        Raises:
            StoreError: no event was stored.
        """

    async def keep(
        self, user_id: str, version: str, *, group: Cached | None = None, answer: Cached | None = None
    ) -> None:
        """Caches interests and last answer of a user for other replicas, unless the user's state has changed since
        `version`. It does nothing where the store fails or has no other replica."""

    async def erase(self, user_id: str) -> None:
        """Erases a user, including their history in the release; later events start a new history."""

    def user_ids(self) -> AsyncIterator[list[str]]:
        """Yields the users with a record, page by page; a user may occur twice."""

    def accepted(self) -> AsyncIterator[list[Event]]:
        """Yields the accepted events that the store still has, page by page, without those of erased users."""

    async def entries(self, after: Mapping[int, bytes], *, since: float, limit: int) -> EntryPage:
        """Returns the next accepted events of some buckets, without those of users erased after them.

        Args:
            after: by bucket the last page's position; b"" for the beginning.
            since: seconds by the store's clock; from the beginning means from the first entry accepted at this moment
                or later.
            limit: about the most entries, shared equally among the buckets in `after`; at least one each.
        """

    async def claim(self, name: str, ttl_s: int, /) -> bool:
        """Claims work that only one replica should do; returns whether this replica does it."""

    async def collect(self, user_id: str, version: str, learned: Learned) -> None:
        """Removes state that the release has learned, if the user's state has not changed since `version`."""

    async def compact(self) -> None:
        """Removes records of events that no state needs any more."""
