"""An item as a shop posts it, by itself or as a line of its catalogue, and as it is answered."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from isrf.contract.item_changes import HIDDEN, MAX_ITEM_BYTES, METADATA, size_of
from isrf.contract.item_fields import (
    MAX_CATEGORIES,
    MAX_DESCRIPTION,
    MAX_METADATA_BYTES,
    MAX_NAME,
    MAX_PRICE,
    MAX_TITLE,
    READERS,
    FieldError,
    read_fields,
)
from isrf.contract.known_fields import KnownFields
from service.release.catalogue import ItemLine

MAX_METADATA_VALUES = 300
"""Names and values of the shop's own fields, wherever they stand: in memory each is many times its bytes."""


class SizeError(ValueError):
    """A line that says more of an item than is kept."""


def _read_as(name: str) -> BeforeValidator:
    """Reads a field as the offline job reads it in a file; what is declared beside it is for the schema."""

    def read(value: Any) -> Any:
        try:
            return READERS[name](value)
        except FieldError as error:
            raise PydanticCustomError("item_field", "{message}", {"message": str(error)}) from None

    return BeforeValidator(read)


class ItemBody(KnownFields):
    """What the shop says of an item. A field that is left out stays as it is; null takes it away.

    No field has a default that a generated client would send: which fields were sent is what counts.
    """

    model_config = ConfigDict(strict=True)

    title: Annotated[Annotated[str, Field(max_length=MAX_TITLE)] | None, _read_as("title")] = None
    brand: Annotated[Annotated[str, Field(max_length=MAX_NAME)] | None, _read_as("brand")] = None
    categories: Annotated[
        Annotated[list[Annotated[str, Field(max_length=MAX_NAME)]], Field(max_length=MAX_CATEGORIES)] | None,
        _read_as("categories"),
        Field(description="The widest first."),
    ] = None
    description: Annotated[Annotated[str, Field(max_length=MAX_DESCRIPTION)] | None, _read_as("description")] = None
    price: Annotated[Annotated[float, Field(ge=0, le=MAX_PRICE, allow_inf_nan=False)] | None, _read_as("price")] = None
    available: Annotated[
        bool | None,
        _read_as("available"),
        Field(description="false: not recommended, but known; its events count. null: as if never said, so on offer."),
    ] = None
    metadata: Annotated[
        dict[str, Any] | None,
        _read_as("metadata"),
        Field(
            description=f"The shop's own fields, kept for the next release; {MAX_METADATA_BYTES} bytes as JSON and "
            f"{MAX_METADATA_VALUES} names and values. Of the whole item {MAX_ITEM_BYTES} bytes are kept at most."
        ),
    ] = None

    @model_validator(mode="after")
    def _small(self) -> "ItemBody":
        problem = _size_problem(self.said())
        if problem is not None:
            raise PydanticCustomError("item_size", "{message}", {"message": problem})
        return self

    def said(self) -> dict[str, Any]:
        """The fields that were sent; whoever says something of an item brings back one that was hidden."""
        return {**{name: getattr(self, name) for name in self.model_fields_set}, HIDDEN: False}


def line_says(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a line of the shop's catalogue says, its item_id aside: fields that are not ours are its metadata.

    Raises:
        FieldError: a value that is not understood.
        SizeError: more than is kept of an item.
    """
    said = {
        HIDDEN: False,
        **{name: value for name, value in read_fields(record).items() if value is not None or name != HIDDEN},
    }
    problem = _size_problem(said)
    if problem is not None:
        raise SizeError(problem)
    return said


def _size_problem(said: Mapping[str, Any]) -> str | None:
    """What is too much of what is said of an item, None for nothing."""
    size = size_of(said)
    if size > MAX_ITEM_BYTES:
        return f"the item has {size} bytes as JSON, {MAX_ITEM_BYTES} are allowed: shorten its description or metadata"
    values = _num_values(said.get(METADATA))
    if values > MAX_METADATA_VALUES:
        return f"the item's own fields have {values} names and values, {MAX_METADATA_VALUES} are allowed"
    return None


def _num_values(value: Any) -> int:
    """Names and values inside a JSON value."""
    if isinstance(value, dict):
        return sum(2 + _num_values(one) for one in value.values())
    if isinstance(value, list):
        return sum(1 + _num_values(one) for one in value)
    return 0


def item_body(line: ItemLine, *, in_release: bool) -> dict[str, Any]:
    """An item as it is answered."""
    return {
        "item_id": line.item_id,
        "title": line.title,
        "brand": line.brand,
        "categories": line.categories,
        "price": line.price,
        "available": line.available,
        "in_release": in_release,
    }
