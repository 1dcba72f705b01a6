"""Event types: how a shop's names for them are read and what each does. One reading for file, service and evaluation.

A type is the shop's own word, compared without case; what is not named here is history and nothing more:

    purchase   history, and its item is not recommended again; likewise an event without a type, and those of `exclude`
    dislike    its item is not recommended again, and it is no history
    remove     takes back everything that the user did with the item before
    history    history and nothing more, whatever a shop's vocabulary makes of other names
"""

import unicodedata
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

PURCHASE = "purchase"
"""Takes its item off the user's list; an event without a type counts as one. Others (view, cart, …) do not: a shopper
who looked may well be recommended the item."""
DISLIKE = "dislike"
REMOVE = "remove"
HISTORY = "history"
MAX_BYTES = 64

_SETTLED_AFTER = 4
"""Few texts need a second round: where folding makes a letter that folds again."""

_OURS = frozenset({PURCHASE, DISLIKE, REMOVE, HISTORY})
_WRITTEN_FOR_NOTHING = frozenset(
    {"nan", "nat", "null", "none", "undefined", "<na>", "\\n", "na", "n/a", "#n/a", "nil", "(null)", "<null>"}
)
"""What programs write where there is no value. Whether it was meant as a purchase cannot be known."""


def plain(event: str | None) -> str:
    """A type as it is compared and kept: no case, no space around it, one spelling of a letter; "" for none.

    What is not seen (a byte order mark, a soft hyphen, a space of no width) is no part of it, and wide letters are
    letters. The four letters i of Turkish are one: there, lower case of VIEW is vıew, and upper case of view is VİEW.
    """
    text = event or ""
    if text.isascii():
        return text.strip().lower()
    for _ in range(_SETTLED_AFTER):
        seen = "".join(one for one in text if unicodedata.category(one) != "Cf").strip()
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", seen).casefold())
        folded = folded.replace("i\u0307", "i").replace("ı", "i").strip()
        if folded == text:
            break
        text = folded
    return text


def problem(event: str | None) -> str | None:
    """A sentence on why a type cannot be taken, None for a good one (and for none)."""
    text = (event or "").strip()
    if len(text) > MAX_BYTES:
        return f"has more than {MAX_BYTES} bytes"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        return "holds a control character or half of a surrogate pair"
    kind = plain(text)
    if max(len(kind.encode()), len(text.encode())) > MAX_BYTES:
        return f"has more than {MAX_BYTES} bytes"
    if kind in _WRITTEN_FOR_NOTHING:
        return (
            "is what a missing value was written as; leave it empty where an event has no type (a purchase), or name it"
        )
    return None


def excluding(name: str) -> str:
    """A type that is to take its item off the list, as `plain` spells it; ValueError for one that cannot be made to."""
    kind = _checked(name)
    if kind in _OURS - {PURCHASE}:
        raise ValueError(f"the event type {kind!r} has a meaning already")
    return kind


def _listed(given: Any) -> Any:
    if isinstance(given, str):
        given = given.split(",")
    if not isinstance(given, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in given):
        return given
    return tuple(sorted({_checked(name) for name in given if name.strip()}))


def _mapped(given: Any) -> Any:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for pair in given.items() for name in pair):
        return given
    if len({plain(name) for name in given}) < len(given):
        raise ValueError("a name stands twice, case aside")
    return {_checked(name): _checked(meant) for name, meant in sorted(given.items())}


def _checked(name: str) -> str:
    wrong = problem(name) or (None if plain(name) else "is empty")
    if wrong:
        raise ValueError(f"the event type {name[:80]!r} {wrong}")
    return plain(name)


_Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class EventVocabulary(BaseModel):
    """A shop's event types; the section `[events]` of the offline configuration, kept in the manifest's `config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: Annotated[dict[str, str], BeforeValidator(_mapped)] = {}  # the shop's name → the type that is meant
    exclude: _Names = ()  # types that take their item off the list, beside purchase
    dislike: _Names = ()  # types that are dislikes
    remove: _Names = ()  # types that are removes

    @model_validator(mode="after")
    def _one_meaning(self) -> "EventVocabulary":
        said = [*self.names, *self.exclude, *self.dislike, *self.remove]
        twice = sorted({name for name in said if said.count(name) > 1})
        ours = sorted(_OURS & set(said))
        if twice or ours:
            raise ValueError(f"the event type {(twice or ours)[0]!r} has a meaning already")
        chained = sorted(set(self.names.values()) & set(self.names))
        if chained:  # what is read must mean the same when it is read again, from an export or the shop's own file
            raise ValueError(f"the event type {chained[0]!r} is what another name means, and means another type itself")
        return self

    @cached_property
    def _meanings(self) -> dict[str, str]:
        meant = self.names | dict.fromkeys(self.dislike, DISLIKE) | dict.fromkeys(self.remove, REMOVE)
        # `names` may name a type that one of the lists gives its meaning.
        return meant | {name: meant.get(kind, kind) for name, kind in self.names.items()}

    def read(self, event: str | None) -> str:
        """The type that a shop's name means, as `plain` spells it; "" for none. `problem` says what cannot be read."""
        kind = plain(event)
        return self._meanings.get(kind, kind)

    @cached_property
    def excluding(self) -> frozenset[str]:
        """The types that take their item off the list."""
        return frozenset({"", PURCHASE, *self.exclude})

    def beside(self, exclude: frozenset[str]) -> "EventVocabulary":
        """With more types that take their item off the list; what they mean otherwise stays."""
        more = {self.read(name) for name in exclude} - {"", *_OURS}
        # Not `model_copy`, which takes what was remembered of the old one along.
        fields = self.model_dump() | {"exclude": {*self.exclude, *more} - {*self.dislike, *self.remove}}
        return EventVocabulary.model_validate(fields)


STANDARD = EventVocabulary()
"""Where a shop has said nothing of its types."""
