"""The rules of a placement as a shop sends them, and how unknown fields are refused."""

import difflib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from isrf.contract.known_fields import KnownFields

RuleKind = Literal["boost", "pin", "at_most", "at_least"]
RULE_KINDS: tuple[RuleKind, ...] = get_args(RuleKind)
MOST_RULES = 50
LEAST_FACTOR, MOST_FACTOR = 1e-6, 1e6
MOST_PLACE = 200
_CONDITION = "A condition on the items' attributes, as `filter`."


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole)]
"""An integer; 10.0 is one too, as in JSON Schema."""


class PlacementFields(KnownFields):
    """A part of a placement, which names the known field that an unknown one may mean."""

    model_config = ConfigDict(strict=True, frozen=True, serialize_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _near_misses(cls, sent: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for name in sent if isinstance(sent, Mapping) else ():
            if name not in known:
                near = difflib.get_close_matches(str(name)[:40], known, n=1)
                meant = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise PydanticCustomError(
                    "unknown_field", "{message}", {"message": f"there is no field {str(name)[:40]!r}; {meant}"}
                )
        return sent


def _moment(sent: Any) -> Any:
    """Reads a moment with its zone; a TOML file has such moments as values of their own."""
    if isinstance(sent, datetime):
        sent = sent.isoformat()
    if isinstance(sent, str):
        try:
            moment = datetime.fromisoformat(sent)
            if moment.tzinfo is None:
                raise PydanticCustomError("moment", "the moment has no zone: end it with Z, or with +01:00")
            moment.timestamp()
        except (ValueError, OverflowError):
            raise PydanticCustomError("moment", "no moment in ISO 8601 with a zone, and no seconds") from None
    return sent


Moment = Annotated[
    str | Annotated[float, Field(ge=0, le=253_402_300_799, allow_inf_nan=False)],
    BeforeValidator(_moment),
    Field(description="A moment in ISO 8601 with its zone, or seconds since 1970."),
]


def seconds_of(moment: str | float) -> float:
    """Returns the seconds of a valid moment."""
    return datetime.fromisoformat(moment).timestamp() if isinstance(moment, str) else moment


class BoostRule(PlacementFields):
    """Raises or lowers some items."""

    where: str = Field(min_length=1, max_length=2048, description=_CONDITION)
    by: Annotated[float, Field(ge=LEAST_FACTOR, le=MOST_FACTOR, allow_inf_nan=False)] = Field(
        description="A factor: above 1 it raises the items, below 1 it buries them."
    )


class PinRule(PlacementFields):
    """Puts one item to a place, if it is allowed."""

    item_id: str | None = Field(default=None, min_length=1, max_length=512, description="The item.")
    where: str | None = Field(
        default=None, min_length=1, max_length=2048, description="In place of `item_id`: the best item of a condition."
    )
    place: WholeNumber = Field(ge=1, le=MOST_PLACE, description="Its place, from 1 on.")
    from_: Moment | None = Field(default=None, alias="from", description="The rule counts from this moment on.")
    until: Moment | None = Field(default=None, description="The rule counts until just before this moment.")

    @model_validator(mode="after")
    def _consistent(self) -> "PinRule":
        if (self.item_id is None) == (self.where is None):
            raise PydanticCustomError("pin", "a pin has either item_id or where")
        if self.from_ is not None and self.until is not None and seconds_of(self.from_) >= seconds_of(self.until):
            raise PydanticCustomError("pin", "until is not after from: the pin would never count")
        return self

    def counts_at(self, now_s: float) -> bool:
        began = self.from_ is None or seconds_of(self.from_) <= now_s
        return began and (self.until is None or now_s < seconds_of(self.until))


class AtMostRule(PlacementFields):
    """Limits the items of one attribute value in every page of the list."""

    attribute: str = Field(
        min_length=1, max_length=512, description="An attribute of the items: `brand`, `categories`, `group_id`."
    )
    count: WholeNumber = Field(
        ge=1, le=MOST_PLACE, description="At most so many items of each value. No value: no limit."
    )


class AtLeastRule(PlacementFields):
    """Wants items of a condition in every page of the list."""

    where: str = Field(min_length=1, max_length=2048, description=_CONDITION)
    count: WholeNumber = Field(ge=1, le=MOST_PLACE, description="At least so many items of each page.")


class ListRule(PlacementFields):
    """One rule: exactly one of the fields."""

    boost: BoostRule | None = None
    pin: PinRule | None = None
    at_most: AtMostRule | None = None
    at_least: AtLeastRule | None = None

    @model_validator(mode="after")
    def _one(self) -> "ListRule":
        if sum(getattr(self, kind) is not None for kind in RULE_KINDS) != 1:
            raise PydanticCustomError("rule", "a rule has exactly one of boost, pin, at_most and at_least")
        return self

    @property
    def kind(self) -> RuleKind:
        return next(kind for kind in RULE_KINDS if getattr(self, kind) is not None)

    @property
    def condition(self) -> str | None:
        """The text of its condition."""
        part = self.boost or self.pin or self.at_least
        return None if part is None else part.where
