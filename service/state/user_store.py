"""What may be asked of users' state: their records, the events that change them, who was active and who was erased."""

from collections.abc import AsyncIterator, Sequence
from typing import Literal, NamedTuple, Protocol

from isrf.contract.event_log import NUM_BUCKETS, tombstone_name
from service.state.events import Event
from service.state.records import Applied, Cached, Learned, UserRecord

MAX_RECENT = 20_000
"""Users that count as active lately."""
RECENT_PER_BUCKET = MAX_RECENT // NUM_BUCKETS

RecentUsers = list[dict[str, None]]
"""Per bucket: user_ids, most recently active last."""


def nobody_recent() -> RecentUsers:
    """Before the first look."""
    return [{} for _ in range(NUM_BUCKETS)]


class ActivityLook(NamedTuple):
    """What one look found beside whom it knows."""

    seen: list[bytes | None]  # per bucket the last entry that was looked at
    moved: set[str]  # user_ids that were active since the look before


class ErasedUsers(NamedTuple):
    """Everyone who was ever erased; they stay in it when events posted later start a fresh user."""

    secret: bytes
    names: frozenset[str]
    counts: tuple[int, ...]  # per bucket a number that moves with every erasure, 0 before the first

    def holds(self, user_id: str) -> bool:
        return tombstone_name(self.secret, user_id) in self.names


class UserStore(Protocol):
    """Users' state.

    Attributes:
        kind: of the store, as metrics and the API name it.
    """

    kind: Literal["redis", "embedded"]

    async def read(self, user_id: str) -> UserRecord:
        """Everything of one user, in one round trip; `StoreError` if it cannot be had soon."""

    async def read_many(self, user_ids: Sequence[str]) -> list[UserRecord]:
        """Records without cached interests, for work behind the scenes, which may wait."""

    async def erased(self) -> ErasedUsers | None:
        """Who was ever erased; None for nobody."""

    async def recent(self, known: RecentUsers, after: Sequence[bytes | None], before_ms: int, /) -> ActivityLook:
        """Moves who was active after `after` and before `before_ms` to the end of `known`, in place.

        Args:
            known: what the last look found.
            after: the last look's `seen`.
            before_ms: by the store's clock; replicas that name the same moment find the same users.
        """

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

    def user_ids(self) -> AsyncIterator[list[str]]:
        """Everybody of whom state knows something, page by page; somebody may come twice."""

    def accepted(self) -> AsyncIterator[list[Event]]:
        """Accepted events that the store still has, page by page, without those of erased users."""

    async def claim(self, name: str, ttl_s: int, /) -> bool:
        """Whether work that one replica should do falls to this one."""

    async def collect(self, user_id: str, version: str, learned: Learned) -> None:
        """Takes out what the release says as well, if the user has not moved since `version`."""

    async def compact(self) -> None:
        """Lets go of what was kept for state that is no more."""
