"""One line of `items.jsonl`: an item's fields, and how a line is read and refused."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isrf.contract.item_changes import AVAILABLE, HIDDEN, METADATA, ROW_FIELDS
from isrf.contract.item_fields import INTEGERS, MAX_PRICE, read_fields, read_flag, read_item_id


class _Metadata(BaseModel):
    """The shop's own fields, and two of ours."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    available: bool | None = None
    hidden: bool | None = None


_NO_FLAGS = _Metadata()


class ItemLine(BaseModel):
    """One line of `items.jsonl`."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    item_id: str
    title: str | None = None
    brand: str | None = None
    categories: list[str] = Field(default_factory=list)
    price: Annotated[float, Field(ge=0, le=MAX_PRICE, allow_inf_nan=False)] | None = None
    group_id: str | None = None
    """The product that the item is a variant of."""
    feature: str | None = None
    """The text of the semantic feature, as the reasoner wrote it."""
    metadata: _Metadata | None = Field(default=None, exclude=True)
    available: bool = True
    hidden: bool = False
    own_json: bytes = Field(default=b"", exclude=True, repr=False)
    """The shop's own fields as a JSON object, which takes a tenth of the memory of a dictionary; empty for none."""

    def own_fields(self) -> dict[str, Any]:
        """Returns the shop's own fields, which are the item's attributes beside our fields."""
        fields: dict[str, Any] = orjson.loads(self.own_json) if self.own_json else {}
        return fields

    @property
    def offered(self) -> bool:
        """Whether it may be recommended."""
        return self.available and not self.hidden


def own_json_of(fields: Mapping[str, Any]) -> bytes:
    """Returns the shop's own fields of an item as `ItemLine.own_json` holds them."""
    # A copy: orjson's own result keeps a buffer of kilobytes.
    return bytes(memoryview(orjson.dumps(fields))) if fields else b""


def read_item(line: bytes) -> ItemLine:
    """Reads one line of `items.jsonl`.

    Raises:
        ValueError: the line cannot be read. It is a `isrf.contract.item_fields.FieldError`, which shows the field's
            value, or pydantic's error.
    """
    try:
        item = ItemLine.model_validate_json(line)
    except ValidationError:
        _read_again(line)
        raise
    metadata = item.metadata
    if metadata is None and not item.own_json:
        return item
    update: dict[str, Any] = {"own_json": b""}
    if metadata is not None:
        flags = _Metadata(available=metadata.available, hidden=metadata.hidden)
        update["metadata"] = None if flags == _NO_FLAGS else flags
        update["available"] = item.available if metadata.available is None else metadata.available
        update["hidden"] = item.hidden if metadata.hidden is None else metadata.hidden
        update["own_json"] = own_json_of(_of_64_bits(metadata.model_extra or {}))
    # In place, as nobody has the item yet: a copied model takes a kilobyte more.
    vars(item).update(update)
    return item


def _read_again(line: bytes) -> None:
    """Reads a line as a row of the shop's file, whose readers raise errors with the wrong value."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return
    if not isinstance(record, dict):
        return
    read_item_id(record.get("item_id"))
    read_fields({name: value for name, value in record.items() if name in ROW_FIELDS and name != METADATA})
    metadata = record.get(METADATA)
    for name in (AVAILABLE, HIDDEN):
        read_flag(name, metadata.get(name) if isinstance(metadata, dict) else None)


def _of_64_bits(value: Any) -> Any:
    """A JSON value whose larger integers are floats, as every later reader of the line has them."""
    if isinstance(value, dict):
        return {name: _of_64_bits(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_of_64_bits(inner) for inner in value]
    if type(value) is int and value not in INTEGERS:
        return float(value) if abs(value) < 10**300 else None
    return value
