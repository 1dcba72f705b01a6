"""Reads an item that a shop sends, in a body or as a line of its catalogue, and shows it in an answer."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from isrf.contract.ids import ID_SCHEMA
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
"""Names and values in the shop's own fields, at any depth: in memory each takes many times its bytes."""


class SizeError(ValueError):
    """An item with more data than the service stores of one."""


def _read_as(name: str) -> BeforeValidator:
    """Reads a field as the offline job reads it in a file; the limits declared beside it are for the schema."""

    def read(value: Any) -> Any:
        try:
            return READERS[name](value)
        except FieldError as error:
            raise PydanticCustomError("item_field", "{message}", {"message": str(error)}) from None

    return BeforeValidator(read)


class ItemBody(KnownFields):
    """The fields of an item. A field that is left out stays as it is; null removes it.

    No field has a default that a generated client would send: only the fields that were sent count.
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
    group_id: Annotated[
        Annotated[str, WithJsonSchema({"type": "string", **ID_SCHEMA})] | None,
        _read_as("group_id"),
        Field(description="The product that the item is a variant of: all items with the same text are its variants."),
    ] = None
    available: Annotated[
        bool | None,
        _read_as("available"),
        Field(description="false: known and not recommended; its events count. null: as if never sent, so on offer."),
    ] = None
    metadata: Annotated[
        dict[str, Any] | None,
        _read_as("metadata"),
        Field(
            description="The shop's own fields: the item's attributes, which conditions read; "
            f"{MAX_METADATA_BYTES} bytes as JSON and {MAX_METADATA_VALUES} names and values at most. "
            f"The whole item has {MAX_ITEM_BYTES} bytes at most."
        ),
    ] = None

    @model_validator(mode="after")
    def _small(self) -> "ItemBody":
        problem = _size_problem(self.sent_fields())
        if problem is not None:
            raise PydanticCustomError("item_size", "{message}", {"message": problem})
        return self

    def sent_fields(self) -> dict[str, Any]:
        """Returns the fields that were sent, and that the item is not hidden: any change brings back a hidden item."""
        return {**{name: getattr(self, name) for name in self.model_fields_set}, HIDDEN: False}


def fields_of_line(record: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the fields of a line of the shop's catalogue, without its item_id; unknown fields become metadata.

    Raises:
        FieldError: a value cannot be read.
        SizeError: the item has more data than the service stores of one.
    """
    fields = {
        HIDDEN: False,
        **{name: value for name, value in read_fields(record).items() if value is not None or name != HIDDEN},
    }
    problem = _size_problem(fields)
    if problem is not None:
        raise SizeError(problem)
    return fields


def _size_problem(fields: Mapping[str, Any]) -> str | None:
    """Says which limit the fields of an item exceed; None where they exceed none."""
    size = size_of(fields)
    if size > MAX_ITEM_BYTES:
        return f"the item has {size} bytes as JSON, {MAX_ITEM_BYTES} are allowed: shorten its description or metadata"
    values = _num_values(fields.get(METADATA))
    if values > MAX_METADATA_VALUES:
        return f"the item's own fields have {values} names and values, {MAX_METADATA_VALUES} are allowed"
    return None


def _num_values(value: Any) -> int:
    """Counts the names and values inside a JSON value."""
    if isinstance(value, dict):
        return sum(2 + _num_values(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(1 + _num_values(inner) for inner in value)
    return 0


def item_body(line: ItemLine, *, in_release: bool) -> dict[str, Any]:
    """Returns an item as a JSON object of an answer."""
    return {
        "item_id": line.item_id,
        "title": line.title,
        "brand": line.brand,
        "categories": line.categories,
        "price": line.price,
        "group_id": line.group_id,
        "available": line.available,
        "metadata": line.own_fields(),
        "in_release": in_release,
    }
