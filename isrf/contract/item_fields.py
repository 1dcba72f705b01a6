"""Reads the fields of an item: one reader for the shop's files, for calls to the service, and for releases.

A value that the reader does not understand is refused. The error shows the value and says what would be right; no value
becomes a default in silence. A field counts as absent where it is missing, null, or a text of only white space. Markup
is removed from texts (`isrf.contract.html_text`), so that all later code sees what people read. Fields that are not
ours are the shop's own (`metadata`) and stay unchanged; each is an attribute with a type (`type_of`), which the offline
job reports and conditions of the service read. Pure.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from isrf.contract.html_text import clean_text
from isrf.contract.item_changes import AVAILABLE, GROUP_ID, HIDDEN, METADATA, ROW_FIELDS
from isrf.contract.shown import shown

MAX_ID_BYTES: Final = 512
INTEGERS: Final = range(-(2**63), 2**64)
"""Integers that every JSON reader reads exactly; an id outside this range must be sent as a string."""
MAX_TITLE: Final = 2048
MAX_NAME: Final = 512
MAX_DESCRIPTION: Final = 32_768
MAX_CATEGORIES: Final = 64
MAX_PRICE: Final = 1e12
MAX_METADATA_BYTES: Final = 16_384
MAX_DEPTH: Final = 30
"""Levels of nested lists and objects in metadata."""

MARKUP_TIMES: Final = 4
"""A text with its markup may be this many times as long as the limit for the text without it."""

_MAX_LENGTH = {"title": MAX_TITLE, "brand": MAX_NAME, "description": MAX_DESCRIPTION}
_FLAG = "true or false, without quotes"

_ID = f"a text of 1 to {MAX_ID_BYTES} bytes without control characters, or a whole number of at most 64 bits"

RIGHT: dict[str, str] = {
    "item_id": _ID,
    GROUP_ID: _ID,
    **{name: f"a text of at most {length} characters without its markup" for name, length in _MAX_LENGTH.items()},
    "categories": f"a list of at most {MAX_CATEGORIES} texts of at most {MAX_NAME} characters, the widest first, such "
    'as ["Kitchen", "Cups"]',
    "price": "a number from 0 to 1e12 without quotes and currency, such as 12.5",
    AVAILABLE: _FLAG,
    HIDDEN: _FLAG,
    METADATA: f"an object of the shop's own fields, at most {MAX_METADATA_BYTES} bytes as JSON and {MAX_DEPTH} levels "
    "deep, none of them named as a field of ours",
}
"""What each field accepts, for messages."""


class FieldError(ValueError):
    """A value that the reader does not understand.

    Attributes:
        field: the field's name.
        value: the value as a message may show it.
        missing: True where a value is needed and there is none.
    """

    def __init__(self, field: str, value: str, *, missing: bool = False) -> None:
        super().__init__(f"{value} is not understood; right is {RIGHT[field]}")
        self.field = field
        self.value = value
        self.missing = missing

    @property
    def kind(self) -> str:
        """A stable name for the kind of error: `bad_price`, `missing_item_id`, …"""
        return f"{'missing' if self.missing else 'bad'}_{self.field}"


def read_item_id(value: Any) -> str:
    """The item id as text: an integer becomes its decimal text, a string stays unchanged (not trimmed, not folded)."""
    if value is None or value == "":
        raise FieldError("item_id", shown(value), missing=True)
    return _read_id("item_id", value)


def read_group_id(value: Any) -> str | None:
    """The id of the product that an item is a variant of, read as an item id; None where there is none."""
    if value is None or (_is_text(value) and not value.strip(" ")):
        return None
    return _read_id(GROUP_ID, value)


def _read_id(field: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value in INTEGERS:
        return str(value)
    if not _is_text(value) or any(unicodedata.category(character) == "Cc" for character in value):
        raise FieldError(field, shown(value))
    if len(value.encode()) > MAX_ID_BYTES:
        raise FieldError(field, f"{shown(value)} ({len(value.encode())} bytes)")
    return str(value)


def read_text(field: str, value: Any) -> str | None:
    """The text of `title`, `brand` or `description` without its markup; None where there is none."""
    if value is None:
        return None
    if not _is_text(value):
        raise FieldError(field, shown(value))
    clean = _clean(value, _MAX_LENGTH[field])
    if clean is None:
        raise FieldError(field, f"{shown(value)} ({len(value)} characters)")
    return clean or None


def read_categories(value: Any) -> list[str] | None:
    """The item's categories, the widest first, blank ones left out; None where there are none."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_CATEGORIES or not all(map(_is_text, value)):
        raise FieldError("categories", shown(value))
    names = [clean for name in value if (clean := _clean(name, MAX_NAME)) != ""]
    if None in names:
        raise FieldError("categories", shown(value))
    return [name for name in names if name] or None


def read_price(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise FieldError("price", shown(value))
    try:
        price = float(value)
    except OverflowError:
        price = math.inf
    if not 0 <= price <= MAX_PRICE:  # nor NaN
        raise FieldError("price", shown(value))
    return price + 0.0  # no negative zero


def read_flag(field: str, value: Any) -> bool | None:
    """The value of `available` or `hidden`."""
    if value is not None and not isinstance(value, bool):
        raise FieldError(field, shown(value))
    return value


def read_metadata(value: Any) -> dict[str, Any] | None:
    """The shop's own fields as plain JSON values."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise FieldError(METADATA, shown(value))
    for name in value:
        if name in ROW_FIELDS:
            raise FieldError(METADATA, f"{shown(name)} inside it")
    plain: dict[str, Any] = {}
    for name, inner in value.items():
        try:
            plain |= _plain({name: inner}, 0)
        except FieldError as error:
            raise FieldError(METADATA, f"{shown(name)}: {error.value}") from None
    size = len(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_METADATA_BYTES:
        raise FieldError(METADATA, f"{shown(value)} ({size} bytes)")
    return plain


READERS: dict[str, Callable[[Any], Any]] = {
    "title": lambda value: read_text("title", value),
    "brand": lambda value: read_text("brand", value),
    "description": lambda value: read_text("description", value),
    "categories": read_categories,
    "price": read_price,
    GROUP_ID: read_group_id,
    AVAILABLE: lambda value: read_flag(AVAILABLE, value),
    HIDDEN: lambda value: read_flag(HIDDEN, value),
    METADATA: read_metadata,
}
"""The reader of every field except the id."""


def read_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a catalogue row with their values, except its id; the shop's own fields go into `metadata`.

    Raises:
        FieldError: at the first value that the reader does not understand.
    """
    fields = {name: read(record[name]) for name, read in READERS.items() if name in record and name != METADATA}
    extra = {name: value for name, value in record.items() if name not in ROW_FIELDS}
    if METADATA in record or extra:
        nested = read_metadata(record.get(METADATA))
        for name in extra:
            if nested and name in nested:
                raise FieldError(METADATA, f"{shown(name)} inside it and beside it")
        fields[METADATA] = read_metadata({**(nested or {}), **extra}) if nested or extra else nested
    return fields


def _clean(text: str, limit: int) -> str | None:
    """The text without its markup; None where that is longer than `limit`, or the raw text is far too long."""
    if len(text) > MARKUP_TIMES * limit:
        return None
    clean = clean_text(text)
    return clean if len(clean) <= limit else None


def _is_text(value: Any) -> bool:
    """Whether the value is a string that UTF-8 can encode; a lone surrogate cannot be stored."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise FieldError(METADATA, f"something {depth} levels deep")
    if isinstance(value, dict):
        if not all(_is_text(name) for name in value):
            raise FieldError(METADATA, shown(value))
        return {name: _plain(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, depth + 1) for inner in value]
    if isinstance(value, str) and _is_text(value):
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value in INTEGERS:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str | int | float | bytes):
        raise FieldError(METADATA, shown(value))
    return value.isoformat() if hasattr(value, "isoformat") else str(value)  # a value of a Parquet column's own type


ITEM_NAMES: Mapping[str, Collection[str]] = {
    "item_id": (
        "id", "sku", "product_id", "article_id", "product", "item", "asin", "parent_asin", "handle", "code",
        "stock_code", "variant_sku", "movie_id", "id_product", "product_number", "product_code_sku", "product_sku",
        "listing_id", "artikelnummer",
    ),
    "title": ("name", "product_name", "item_name", "product_title", "item_title", "label", "headline", "bezeichnung"),
    "brand": (
        "manufacturer", "vendor", "maker", "brand_name", "producer", "label_name", "manufacturer_name",
        "hersteller",
    ),
    "categories": (
        "category", "product_type", "product_category", "category_path", "category_name", "item_type", "type", "tags",
        "breadcrumb", "breadcrumbs", "google_product_category", "main_category", "department", "genres",
        "collection", "kategorie",
    ),
    "description": (
        "desc", "body", "body_html", "summary", "long_description", "short_description", "text", "details",
        "beschreibung",
    ),
    "price": (
        "cost", "amount", "unit_price", "sale_price", "regular_price", "list_price", "price_usd", "price_eur",
        "price_gross", "preis",
    ),
    "group_id": (
        "item_group_id", "product_group_id", "variant_group_id", "variant_group", "parent_product_id", "parent_sku",
        "parent_id", "handle_id",
    ),
    "available": ("in_stock", "availability", "stock", "is_available", "active", "enabled", "status", "published"),
}  # fmt: skip


def folded(name: str) -> str:
    """The form in which two names are compared: lower-case letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


_FIELDS = {folded(name): field for field, names in ITEM_NAMES.items() for name in (field, *names)}
_LONGEST = max(map(len, (name for names in ITEM_NAMES.values() for name in names))) + 8
"""A longer name cannot be one of these."""


def meant_field(name: str) -> str | None:
    """Our field that a shop's column name is known to mean; None for any other name."""
    return _FIELDS.get(folded(name)) if len(name) <= _LONGEST else None


AttributeType: TypeAlias = Literal["number", "text", "boolean", "time", "texts"]
"""`time` is a moment in ISO 8601, `texts` a list of texts."""
ValueKind: TypeAlias = Literal["number", "text", "boolean", "time", "texts", "other"]
"""What one value is; `other` is an object, or a list of anything but texts."""

_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:[Zz]|[+-]\d\d:?\d\d)?)?", re.ASCII)


class ColumnType(NamedTuple):
    """The type of an attribute over all items.

    Attributes:
        mixed: whether its values are of several kinds, or of none of the types: they are read as their text.
    """

    type: AttributeType
    mixed: bool = False


def parse_time(text: str) -> datetime | None:
    """Reads a date or a moment in ISO 8601; one without a zone is in UTC.

    Returns:
        A moment in UTC without a zone, or None where the text is no such moment.
    """
    if text[4:5] != "-" or _TIME.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def kind_of(value: Any) -> ValueKind | None:
    """Returns what a JSON value is; None for null."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text" if parse_time(value) is None else "time"
    if isinstance(value, list) and all(isinstance(inner, str) for inner in value):
        return "texts"
    return "other"


def type_of(kinds: Collection[ValueKind]) -> ColumnType:
    """Returns the type of an attribute whose values are of these kinds; a text that is a time is a text too."""
    found = set(kinds)
    if "text" in found:
        found.discard("time")
    if len(found) == 1:
        (kind,) = found
        if kind != "other":
            return ColumnType(kind)
    return ColumnType("text", mixed=bool(found))
