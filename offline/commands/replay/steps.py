"""One event of a replay: what its user did before it, what is asked, and what the event teaches."""

from dataclasses import dataclass, field
from typing import NamedTuple

from isrf.contract.event_types import DISLIKE, REMOVE
from isrf.method.interest import BoolArray
from isrf.method.recommend.live.live_events import LiveEvent
from offline.commands.replay.cut import ReplayEvent


@dataclass
class UserPast:
    """What a user did so far, in item rows."""

    history: list[int] = field(default_factory=list)
    """Oldest first; an item that was taken twice stands twice."""
    excluded: set[int] = field(default_factory=set)
    """Items that are not recommended to the user again: bought or disliked ones."""

    def count(self, row: int, kind: str, *, excluding: bool) -> None:
        """Takes in one event."""
        if kind == REMOVE:
            self.history = [item for item in self.history if item != row]
            self.excluded.discard(row)
        elif kind == DISLIKE:
            self.excluded.add(row)
        else:
            self.history.append(row)
            if excluding:
                self.excluded.add(row)

    def copy(self) -> "UserPast":
        return UserPast(list(self.history), set(self.excluded))


class Asked(NamedTuple):
    """One request of the replay, just before its event."""

    event: ReplayEvent
    target: int
    """Row of the event's item."""
    own: int
    """The user's row among the neighbours, −1 for none."""
    history: list[int]
    allowed: BoolArray
    num_live: int
    """Events of the user in the stream so far."""
    is_new_user: bool
    is_new_item: bool


class StreamStep(NamedTuple):
    """One event of the stream: the request before it, and what it teaches."""

    asked: Asked | None
    """None where the event is not about taking an item."""
    taken: LiveEvent | None
    removed: LiveEvent | None
    """An event whose user takes the item back."""
