"""An item as a shop posts it, by itself or as a line of its catalogue, and as it is answered."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from isrf.item_changes import AVAILABLE, HIDDEN, METADATA
from service.catalogue import ItemLine

MAX_METADATA_BYTES = 16_384
LEFT_OUT = "Left out: it stays as it is. null: it is taken away."

Name = Annotated[str, Field(max_length=512)]


class ItemBody(BaseModel):
    """What the shop says of an item. A field that is left out stays as it is; null takes it away."""

    model_config = ConfigDict(extra="forbid", strict=True)

    title: Annotated[str, Field(max_length=2048)] | None = None
    brand: Name | None = None
    categories: Annotated[list[Name], Field(max_length=64)] | None = Field(None, description="The widest first.")
    description: Annotated[str, Field(max_length=32_768)] | None = None
    price: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] | None = None
    available: Annotated[bool, Field(description="false: not recommended, but known; its events count.")] = True
    metadata: Annotated[
        dict[str, Any] | None,
        Field(description=f"The shop's own fields, kept for the next release; {MAX_METADATA_BYTES} bytes as JSON."),
    ] = None

    @field_validator("title", "brand", "description")
    @classmethod
    def _trimmed(cls, value: str | None) -> str | None:
        return (value or "").strip() or None

    @field_validator("categories")
    @classmethod
    def _named(cls, value: list[str] | None) -> list[str] | None:
        return [name.strip() for name in value or () if name.strip()] or None

    @field_validator("price")
    @classmethod
    def _number(cls, value: float | None) -> float | None:
        return None if value is None else float(value) + 0.0  # no negative zero

    @field_validator("metadata")
    @classmethod
    def _plain(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            written = orjson.dumps(value)
        except TypeError as error:
            raise ValueError(f"cannot be kept as JSON: {error}") from None
        if len(written) > MAX_METADATA_BYTES:
            raise ValueError(f"has {len(written)} bytes as JSON, {MAX_METADATA_BYTES} are allowed")
        plain: dict[str, Any] | None = orjson.loads(written)
        return plain

    def said(self) -> dict[str, Any]:
        """The fields that were sent; whoever says something of an item brings back one that was hidden."""
        return {**{name: getattr(self, name) for name in self.model_fields_set}, HIDDEN: False}


def body_of_line(record: Mapping[str, Any]) -> ItemBody:
    """A line of the shop's catalogue, its item_id aside: fields that are not ours are its metadata.

    Raises:
        pydantic.ValidationError: as a posted item.
    """
    ours = {name: value for name, value in record.items() if name in ItemBody.model_fields}
    others = {name: value for name, value in record.items() if name not in ItemBody.model_fields and name != HIDDEN}
    if others:
        metadata = ours.get(METADATA)
        ours[METADATA] = {**metadata, **others} if isinstance(metadata, dict) else others
    if ours.get(AVAILABLE, True) is None:
        del ours[AVAILABLE]
    return ItemBody.model_validate(ours)


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
