"""Reads the cells of an items file in CSV, which are all texts, as the values that JSON would hold.

A cell that cannot be read stays the text that it is, so that the reader of items refuses it with its value. It knows no
file.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import polars as pl

from isrf.contract.item_changes import AVAILABLE, HIDDEN, METADATA
from offline.reading.settings import IngestConfig

TRUE = ("true", "1", "yes", "y", "in stock", "in_stock", "instock", "available")
FALSE = ("false", "0", "no", "n", "out of stock", "out_of_stock", "outofstock", "sold out", "unavailable")
PATH = ">"
LIKELY_SEPARATORS = ("|", ";")
"""In a cell of categories these are hardly part of a name; what they mean is asked for."""
MAX_PRICE_LENGTH = 64
"""Characters; a longer text is no price, and takes the expressions below longer than its length."""
_CURRENCY = re.compile(r"^(?:[A-Z]{3}|[$€£¥₹₽₩₺₴₫฿]|zł|kr\.?)?\s*(.*?)\s*(?:[A-Z]{3}|[$€£¥₹₽₩₺₴₫฿]|zł|kr\.?)?$")
_POINT = re.compile(r"(?:\d+|\d{1,3}(?:,\d{3})+(?=\.))(?:\.\d+)?", re.ASCII)
_COMMA = re.compile(r"(?:\d+|\d{1,3}(?:[. '’\u00a0\u202f]\d{3})+)(?:,\d+)?", re.ASCII)
_NUMBER = r"^-?(?:0|[1-9]\d{0,14})(?:\.\d{1,12})?$"
_WHOLE = r"^-?(?:0|[1-9]\d{0,14})$"
_FLAG = "^(?i:true|false)$"


def read_price(text: str, *, decimal_comma: bool) -> float | str:
    """A price such as `12.5`, `$1,299.00` or, with a decimal comma, `1.299,00 €`; the text where it is none."""
    plain = text.strip()
    found = _CURRENCY.match(plain) if len(plain) <= MAX_PRICE_LENGTH else None
    amount = found[1] if found else ""
    if not (_COMMA if decimal_comma else _POINT).fullmatch(amount):
        return text
    if decimal_comma:
        amount = re.sub(r"[^\d,]", "", amount).replace(",", ".")
    return float(amount.replace(",", ""))


def read_flag(text: str) -> bool | str:
    """Whether an item is available; the text where it says neither."""
    plain = text.strip().casefold()
    return True if plain in TRUE else False if plain in FALSE else text


def read_categories(text: str, separator: str = "") -> list[str] | str:
    """Categories from a JSON list, or from a path; the text where it may be a list with another separator."""
    plain = text.strip()
    if plain.startswith("["):
        try:
            found = orjson.loads(plain)
        except orjson.JSONDecodeError:
            return text
        return found if isinstance(found, list) else text
    if not separator and any(mark in plain for mark in LIKELY_SEPARATORS):
        return text
    return [name.strip() for name in plain.split(separator or PATH)]


def read_cells(record: Mapping[str, str | None], settings: IngestConfig) -> dict[str, Any]:
    """The values of our fields in a row of texts; empty cells are left out."""
    fields: dict[str, Any] = {}
    for name, text in record.items():
        if text is None or not text.strip():
            if name == "item_id":
                fields[name] = text
            continue
        if name == "price":
            fields[name] = read_price(text, decimal_comma=settings.decimal_comma)
        elif name in (AVAILABLE, HIDDEN):
            fields[name] = read_flag(text)
        elif name == "categories":
            fields[name] = read_categories(text, settings.category_separator)
        elif name == METADATA:
            fields[name] = _object(text)
        else:
            fields[name] = text
    return fields


def typed(table: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The table with the shop's own columns typed: numbers or flags where every value of a column is one.

    A number with a leading zero or more than 15 digits is an identifier, and its column stays text.
    """
    found: list[pl.Expr] = []
    for name in names:
        text = pl.col(name).str.strip_chars()
        values = table.select(text.alias("text"))["text"].drop_nulls()
        if len(values) and values.str.contains(_WHOLE).all():
            found.append(text.cast(pl.Int64).alias(name))
        elif len(values) and values.str.contains(_NUMBER).all():
            found.append(text.cast(pl.Float64).alias(name))
        elif len(values) and values.str.contains(_FLAG).all():
            found.append((text.str.to_lowercase() == "true").alias(name))
    return table.with_columns(found)


def whole_ids(ids: pl.Series) -> pl.Series:
    """Ids that are whole numbers as decimal texts, also where a table with gaps holds them as floats.

    Args:
        ids: (N,) of any type; a column of other values than whole numbers stays as it is.
    """
    if ids.dtype.is_float():
        known = ids.fill_nan(None)
        number = known.drop_nulls()
        if not (number.is_finite() & (number == number.floor()) & (number.abs() < 2.0**53)).all():
            return ids
        ids = known.cast(pl.Int64)
    return ids.cast(pl.String) if ids.dtype.is_integer() else ids


def _object(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
