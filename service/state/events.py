"""Turns each posted event into an `Event` that the store can apply, or into the reason why not.

The effect of an event on state follows from its type, here; the script (`script.lua`) knows four effects and no types:

    B bought    history, and excluded from recommendations (`purchase`, no type, whatever `exclude_events` names)
    H history   history only (any other type)
    D disliked  excluded, no history
    R removed   cancels everything about the item up to the event's timestamp
"""

import hashlib
import math
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, WithJsonSchema

from isrf.contract.event_types import DISLIKE, REMOVE, STANDARD, EventVocabulary, plain
from isrf.contract.event_types import problem as type_problem
from isrf.contract.ids import SESSION_PREFIX, ExternalId, decimal_text, id_problem, session_owner
from isrf.contract.item_fields import MAX_ID_BYTES
from isrf.contract.known_fields import KnownFields, message_of
from isrf.method.order import MAX_AHEAD_S
from service.state.records import HistoryEntry

Effect = Literal["B", "H", "D", "R"]
EFFECTS: dict[Effect, str] = {"B": "bought", "H": "history", "D": "disliked", "R": "removed"}
UNKNOWN_ITEM = "unknown_item"


TypeName = Annotated[
    str, BeforeValidator(decimal_text), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}]})
]
"""A shop's name or number of an event type."""


def _as_float(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf


Seconds = Annotated[float, BeforeValidator(_as_float)]
"""A moment in JSON; an integer beyond the range of floats becomes infinite."""


class EventIn(KnownFields):
    """One interaction as a shop posts it."""

    model_config = ConfigDict(strict=True)

    user_id: ExternalId | None = Field(
        default=None, description=f"The shop's id, up to {MAX_ID_BYTES} bytes, no control characters."
    )
    session_id: ExternalId | None = Field(
        default=None,
        description="In place of a user_id: the session of a visitor without an account. Its list is that of the user "
        f"`{SESSION_PREFIX}` followed by the session_id. Beside a user_id it changes nothing.",
    )
    item_id: ExternalId = Field(description="An item of the catalogue.")
    event: TypeName | None = Field(
        default=None,
        description="purchase, view, cart, …; without a type it counts as a purchase. `dislike` excludes the item and "
        "is no history; `remove` cancels earlier events on the item.",
    )
    timestamp: Seconds | None = Field(default=None, description="Unix time in seconds; now, if missing.")
    event_id: ExternalId | None = Field(
        default=None,
        description="Identifies this event among those of all users for 24 hours: sent again with the same user, item "
        "and type it is a duplicate, with others it is refused (`event_id_reused`). Derived from user, item, event and "
        "timestamp if missing; an event with neither id nor timestamp is never a duplicate.",
    )
    recommendation_id: str | None = Field(
        default=None,
        max_length=64,
        description="From the answer that showed the item; the service counts it and does not store it.",
    )

    @property
    def owner(self) -> str:
        """The user_id, or the owner of the session's events; one of the two ids must be there."""
        return session_owner(self.session_id or "") if self.user_id is None else self.user_id

    def ids(self) -> Iterator[tuple[str, str]]:
        """Yields the ids that were sent, with their names; a session_id leaves room for the prefix of its owner."""
        names = ("user_id", "item_id", "event_id")
        yield from ((name, text) for name in names if (text := getattr(self, name)) is not None)
        if self.session_id is not None:
            yield "session_id", session_owner(self.session_id) if self.session_id else ""


class Event(NamedTuple):
    """An event that the store can apply."""

    user_id: str  # or the owner of a session's events (`isrf.contract.ids`)
    item_id: str
    event: str  # "" for one without a type
    effect: Effect
    timestamp: float  # seconds
    assigned: bool  # the service assigned the timestamp, as the shop sent none
    event_id: str
    accepted_at: float  # seconds
    named: bool = True  # the caller sent the event_id; an id that the service makes cannot be another event's
    tail: Sequence[HistoryEntry] = ()  # the user's last items in the release, latest first; not stored


class Refusal(NamedTuple):
    """Why an event is refused."""

    reason: str  # stable code
    detail: str


TailOf = Callable[[str], Sequence[HistoryEntry]]
"""Returns a user's last items in the release, latest first, each item once, at most `MAX_TAIL`."""
MAX_TAIL = 16

_event_in: TypeAdapter[EventIn] = TypeAdapter(EventIn)


class EventRules:
    """The meaning of event types, both in posted events and in a release's histories."""

    def __init__(self, exclude_events: Collection[str], vocabulary: EventVocabulary = STANDARD) -> None:
        """exclude_events: event types that exclude an item, in addition to those of the vocabulary."""
        self._exclude_events = frozenset(plain(name) for name in exclude_events)
        self._vocabulary = vocabulary.beside(self._exclude_events)

    def under(self, vocabulary: EventVocabulary) -> "EventRules":
        """Returns rules with the same exclusions and a release's vocabulary."""
        return EventRules(self._exclude_events, vocabulary)

    def read(self, event: str | None) -> str:
        """Returns an event type as the store keeps it; "" for none."""
        return self._vocabulary.read(event)

    def effect(self, kind: str) -> Effect:
        """Returns the effect of an event type, as `read` returned it."""
        if kind == DISLIKE:
            return "D"
        if kind == REMOVE:
            return "R"
        return "B" if kind in self._vocabulary.excluding else "H"


class EventReader:
    """Turns posted events into `Event`s under one configuration and one catalogue."""

    def __init__(
        self,
        rules: EventRules | Callable[[], EventRules],
        knows_item: Callable[[str], bool],
        *,
        tail_of: TailOf = lambda _: (),
    ) -> None:
        """rules: or a function that returns the current ones. knows_item: whether the catalogue has an item_id."""
        self._rules: Callable[[], EventRules] = rules if callable(rules) else lambda: rules
        self._knows_item, self._tail_of = knows_item, tail_of

    def read(self, posted: Sequence[Any], now: float, dated: float | None = None) -> list[Event | Refusal]:
        """Returns an event or a refusal for each posted event, in order.

        Args:
            now: seconds.
            dated: seconds, the timestamp of events without one; they get it a microsecond apart, so that a batch keeps
                its order. None for now.
        """
        start = now if dated is None else dated
        tail_of = cache(self._tail_of)  # an import has many events of one user
        return [self._read_one(raw, now, start + index * 1e-6, tail_of) for index, raw in enumerate(posted)]

    def _read_one(self, raw: Any, now: float, assigned_at: float, tail_of: TailOf) -> Event | Refusal:
        try:
            posted = _event_in.validate_python(raw)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the event"
            return Refusal("invalid_event", f"{where[:80]}: {message_of(first)}")
        return self._refusal(posted, now) or self._event(posted, now, assigned_at, tail_of)

    def _refusal(self, posted: EventIn, now: float) -> Refusal | None:
        if posted.user_id is None and posted.session_id is None:
            return Refusal("invalid_event", "user_id: Field required, or session_id for a visitor without an account")
        for name, text in posted.ids():
            problem = id_problem(text)
            if problem:
                return Refusal(f"invalid_{name}", f"the {name} {problem}")
        if posted.user_id is not None and posted.user_id.startswith(SESSION_PREFIX):
            detail = f"the user_id begins with {SESSION_PREFIX}, as no user's does: send the rest of it as session_id"
            return Refusal("invalid_user_id", detail)
        problem = type_problem(posted.event)
        if problem:
            return Refusal("invalid_event_type", f"the event type {(posted.event or '')[:80]!r} {problem}")
        refusal = _timestamp_refusal(posted.timestamp, now)
        if refusal:
            return refusal
        # A `remove` may name an item that the catalogue has dropped.
        if not self._knows_item(posted.item_id) and self._rules().read(posted.event) != REMOVE:
            return Refusal(UNKNOWN_ITEM, "the item_id is not in the catalogue")
        return None

    def _event(self, posted: EventIn, now: float, assigned_at: float, tail_of: TailOf) -> Event:
        rules = self._rules()
        kind = rules.read(posted.event)
        assigned = posted.timestamp is None
        timestamp = assigned_at if posted.timestamp is None else float(posted.timestamp)
        event_id = posted.event_id
        if event_id is None:
            event_id = f"auto-{uuid.uuid4().hex}" if assigned else derived_event_id(posted, kind, timestamp)
        # −0.0 and 0.0 are the same moment, and must have the same identity in the store.
        return Event(
            posted.owner,
            posted.item_id,
            kind,
            rules.effect(kind),
            timestamp + 0.0,
            assigned,
            event_id,
            accepted_at=now,
            named=posted.event_id is not None,
            tail=tail_of(posted.owner),
        )


def derived_event_id(posted: EventIn, kind: str, timestamp: float) -> str:
    """Returns an id for an event without one: equal events get equal ids, on every replica."""
    parts = "\n".join((posted.owner, posted.item_id, kind, repr(timestamp + 0.0)))
    return "derived-" + hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def _timestamp_refusal(seconds: float | None, now: float) -> Refusal | None:
    if seconds is None:
        return None
    if not math.isfinite(seconds) or seconds < 0:
        return Refusal("invalid_timestamp", "a timestamp is a number of seconds since 1970, not negative")
    if seconds > now + MAX_AHEAD_S:
        return Refusal(
            "timestamp_in_future", "the timestamp is more than a day ahead (seconds are expected, not milliseconds)"
        )
    return None
