"""Event types: reads a shop's names for them and says what each does, for files, the service and evaluation alike.

A type is the shop's own word, compared without case. A type that is not named here is history only:

    purchase   history, and its item is not recommended again; likewise an event without a type, and those of `exclude`
    dislike    its item is not recommended again, and it is no history
    remove     takes back everything that the user did with the item before
    history    history only; a shop's vocabulary cannot give it another meaning

A type also has a weight, 1 if the shop names none: how much an event of this type counts in what everybody learns from.
"""

import math
import unicodedata
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

PURCHASE = "purchase"
"""Takes its item off the user's list; an event without a type counts as a purchase. Other types (view, cart, …) do not:
the item may still be recommended to a shopper who only looked at it."""
DISLIKE = "dislike"
REMOVE = "remove"
HISTORY = "history"
MAX_BYTES = 64
MIN_WEIGHT, MAX_WEIGHT = 0.001, 1000.0
"""Bounds of a weight other than 0. They keep sums of millions of events exact."""

_MAX_ROUNDS = 4
"""Rounds of folding. Few texts need a second one: those where folding makes a letter that folds again."""

_BUILT_IN = frozenset({PURCHASE, DISLIKE, REMOVE, HISTORY})
_MISSING_VALUES = frozenset(
    {"nan", "nat", "null", "none", "undefined", "<na>", "\\n", "na", "n/a", "#n/a", "nil", "(null)", "<null>"}
)
"""Texts that programs write for a missing value. Nobody can know whether a purchase was meant."""


def plain(event: str | None) -> str:
    """The normal form of a type, for comparing and storing: lower case, trimmed, Unicode-normalised; "" for none.

    Invisible characters (a byte order mark, a soft hyphen, a zero-width space) are removed; full-width letters become
    plain ones. The four letters i of Turkish become one: there, lower case of VIEW is vıew, and upper case of view is
    VİEW.
    """
    text = event or ""
    if text.isascii():
        return text.strip().lower()
    for _ in range(_MAX_ROUNDS):
        visible = "".join(character for character in text if unicodedata.category(character) != "Cf").strip()
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", visible).casefold())
        folded = folded.replace("i\u0307", "i").replace("ı", "i").strip()
        if folded == text:
            break
        text = folded
    return text


def problem(event: str | None) -> str | None:
    """A sentence on why a type is refused; None for a valid type and for a missing one."""
    text = (event or "").strip()
    if len(text) > MAX_BYTES:
        return f"has more than {MAX_BYTES} bytes"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        return "holds a control character or half of a surrogate pair"
    kind = plain(text)
    if max(len(kind.encode()), len(text.encode())) > MAX_BYTES:
        return f"has more than {MAX_BYTES} bytes"
    if kind in _MISSING_VALUES:
        return "stands for a missing value; leave it empty where an event has no type (a purchase), or name the type"
    return None


def excluding(name: str) -> str:
    """The normal form (`plain`) of a type that shall take its item off the list.

    Raises:
        ValueError: the type has another meaning already, or is not valid.
    """
    kind = _checked(name)
    if kind in _BUILT_IN - {PURCHASE}:
        raise ValueError(f"the event type {kind!r} has a meaning already")
    return kind


def _sorted_types(value: Any) -> Any:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in value):
        return value
    return tuple(sorted({_checked(name) for name in value if name.strip()}))


def _normalised_names(value: Any) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for pair in value.items() for name in pair):
        return value
    _check_each_once(value)
    return {_checked(name): _checked(meaning) for name, meaning in sorted(value.items())}


def _weights_by_name(value: Any) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return value
    _check_each_once(value)
    return {_checked(name): weight for name, weight in sorted(value.items())}


def _check_each_once(names: Collection[str]) -> None:
    if len({plain(name) for name in names}) < len(names):
        raise ValueError("a name appears twice, ignoring case")


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a weight is a number, such as 0.1")
    return value


def _checked_weight(weight: float) -> float:
    if not math.isfinite(weight) or (weight != 0 and not MIN_WEIGHT <= weight <= MAX_WEIGHT):
        raise ValueError(f"a weight is 0, or a number from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}")
    return abs(weight)  # no negative zero


def _checked(name: str) -> str:
    complaint = problem(name) or (None if plain(name) else "is empty")
    if complaint:
        raise ValueError(f"the event type {name[:80]!r} {complaint}")
    return plain(name)


_Names = Annotated[tuple[str, ...], BeforeValidator(_sorted_types)]
_Weight = Annotated[float, BeforeValidator(_no_truth_value), AfterValidator(_checked_weight)]


class EventVocabulary(BaseModel):
    """A shop's event types: the section `[events]` of the offline configuration, saved in the manifest's `config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: Annotated[dict[str, str], BeforeValidator(_normalised_names)] = {}
    """The shop's name of a type, and the type that it means: `events.names.kauf=purchase`."""
    exclude: _Names = ()
    """Types that take their item off the user's list, in addition to `purchase`."""
    dislike: _Names = ()
    """Types that count as `dislike`."""
    remove: _Names = ()
    """Types that count as `remove`: they take back what the user did with the item."""
    weights: Annotated[dict[str, _Weight], BeforeValidator(_weights_by_name)] = {}
    """How much an event of a type counts in what everybody learns from, 0 or 0.001 to 1000; 1 for a type that is not
    named: `events.weights.view=0.1`. With 0 an event is history of its user alone."""

    @model_validator(mode="after")
    def _one_meaning(self) -> "EventVocabulary":
        defined = [*self.names, *self.exclude, *self.dislike, *self.remove]
        repeated = sorted({name for name in defined if defined.count(name) > 1})
        built_in = sorted(_BUILT_IN & set(defined))
        if repeated or built_in:
            raise ValueError(f"the event type {(repeated or built_in)[0]!r} has a meaning already")
        chained = sorted(set(self.names.values()) & set(self.names))
        if chained:  # a type must keep its meaning when it is read again, for instance from an export
            raise ValueError(
                f"the event type {chained[0]!r} is the meaning of another name, and has another meaning itself"
            )
        return self

    @model_validator(mode="after")
    def _one_weight(self) -> "EventVocabulary":
        """A shop's name has the weight of the type that it means, because files and streams may hold either."""
        named: dict[str, str] = {}
        for name in self.weights:
            kind = self.read(name)
            if kind in (DISLIKE, REMOVE):
                raise ValueError(f"the event type {name!r} means {kind}, which counts for nobody: it has no weight")
            if kind in named:
                raise ValueError(
                    f"the event types {named[kind]!r} and {name!r} both mean {kind!r}, which has one weight"
                )
            named[kind] = name
        return self

    @cached_property
    def _meanings(self) -> dict[str, str]:
        meanings = self.names | dict.fromkeys(self.dislike, DISLIKE) | dict.fromkeys(self.remove, REMOVE)
        # `names` may map to a type that one of the lists defines.
        return meanings | {name: meanings.get(kind, kind) for name, kind in self.names.items()}

    def read(self, event: str | None) -> str:
        """The type that a shop's name means, in its normal form (`plain`); "" for none. It does not check the name."""
        kind = plain(event)
        return self._meanings.get(kind, kind)

    @cached_property
    def _weights(self) -> dict[str, float]:
        return {self.read(name): weight for name, weight in self.weights.items()}

    def weight(self, kind: str) -> float:
        """The weight of an event of a type as `read` returned it, of its type alone; "" weighs as a purchase."""
        return self._weights.get(kind or PURCHASE, 1.0)

    @cached_property
    def excluding(self) -> frozenset[str]:
        """The types that take their item off the list."""
        return frozenset({"", PURCHASE, *self.exclude})

    def beside(self, exclude: frozenset[str]) -> "EventVocabulary":
        """This vocabulary with more types that take their item off the list; dislikes and removes stay as they are."""
        more = {self.read(name) for name in exclude} - {"", *_BUILT_IN}
        # Not `model_copy`: it would copy the cached properties too.
        fields = self.model_dump() | {"exclude": {*self.exclude, *more} - {*self.dislike, *self.remove}}
        return EventVocabulary.model_validate(fields)


STANDARD = EventVocabulary()
"""The vocabulary of a shop that configures none."""
