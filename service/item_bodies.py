"""An item as a shop posts it, by itself or as a line of its catalogue, and as it is answered."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from isrf.item_changes import HIDDEN
from isrf.item_fields import (
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
from service.catalogue import ItemLine


def _read_as(name: str) -> BeforeValidator:
    """Reads a field as the offline job reads it in a file; what is declared beside it is for the schema."""

    def read(value: Any) -> Any:
        try:
            return READERS[name](value)
        except FieldError as error:
            raise PydanticCustomError("item_field", "{message}", {"message": str(error)}) from None

    return BeforeValidator(read)


class ItemBody(BaseModel):
    """What the shop says of an item. A field that is left out stays as it is; null takes it away."""

    model_config = ConfigDict(extra="forbid", strict=True)

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
    ] = True
    metadata: Annotated[
        dict[str, Any] | None,
        _read_as("metadata"),
        Field(description=f"The shop's own fields, kept for the next release; {MAX_METADATA_BYTES} bytes as JSON."),
    ] = None

    def said(self) -> dict[str, Any]:
        """The fields that were sent; whoever says something of an item brings back one that was hidden."""
        return {**{name: getattr(self, name) for name in self.model_fields_set}, HIDDEN: False}


def line_says(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a line of the shop's catalogue says, its item_id aside: fields that are not ours are its metadata.

    Raises:
        FieldError: a value that is not understood.
    """
    return {
        HIDDEN: False,
        **{name: value for name, value in read_fields(record).items() if value is not None or name != HIDDEN},
    }


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
