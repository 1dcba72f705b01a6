"""The rules of a placement as a shop sends them, and how unknown fields are refused."""

import difflib
import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from isrf.contract.known_fields import KnownFields
from isrf.contract.shown import shown

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

    @model_validator(mode="wrap")
    @classmethod
    def _near_misses(cls, sent: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(sent)
        except ValidationError as error:
            faults = [cls._named(fault) for fault in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(cls.__name__, faults) from None

    @classmethod
    def _named(cls, fault: ErrorDetails) -> InitErrorDetails:
        """Returns a fault as it is; that of an unknown field with the known one that it may mean."""
        message, where = fault["msg"], fault["loc"]
        if fault["type"] == "extra_forbidden" and len(where) == 1:
            known = [field.alias or name for name, field in cls.model_fields.items()]
            near = difflib.get_close_matches(str(where[0])[:40], known, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            message = f"there is no field {str(where[0])[:40]!r}; {meant}"
        said = PydanticCustomError(fault["type"], "{message}", {"message": message})
        return InitErrorDetails(type=said, loc=where, input=fault["input"])


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


def _factor(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        sent = f", not {shown(value)}" if number else ""
        message = (
            f"`by` is a factor from {LEAST_FACTOR:f} to {MOST_FACTOR:.0f}{sent}; to hide items use `filter`, to bury "
            "them a number below 1"
        )
        raise PydanticCustomError("factor", "{message}", {"message": message}) from None


def with_rule(where: Sequence[str | int], message: str) -> str:
    """Returns what is wrong with a field; inside a rule with the rule's number, from 1 on.

    Args:
        where: the path of the field.
    """
    for name, position in itertools.pairwise(where):
        if name == "rules" and isinstance(position, int):
            return f"rule {position + 1}: {message}"
    return message


class BoostRule(PlacementFields):
    """Raises or lowers some items."""

    where: str = Field(min_length=1, max_length=2048, description=_CONDITION)
    by: Annotated[float, Field(ge=LEAST_FACTOR, le=MOST_FACTOR, allow_inf_nan=False), WrapValidator(_factor)] = Field(
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
