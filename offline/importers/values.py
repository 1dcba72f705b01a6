"""Values as shop systems write them: money, moments, persons. Each is read as a whole or not at all."""

import hashlib
import math
import re
from datetime import UTC
from typing import Any, NamedTuple

from isrf.contract.item_fields import parse_time
from offline.reading.cells import read_price
from offline.reading.times import MAX_TIMESTAMP

RIGHT_MOMENT = "a moment in ISO 8601, such as 2025-10-07T09:50:26+02:00"
RIGHT_QUANTITY = "a number of pieces above 0"
RIGHT_ID = "a text or a whole number"
RIGHT_PRICE = "an amount such as 19.99 or 19.99 EUR"
_CURRENCY = re.compile(r"^[A-Z]{3}\b|\b[A-Z]{3}$")
_DECIMAL_COMMA = re.compile(r",\d{1,2}(?!\d|[.,])")
_ZONE = re.compile(r"\s+(?=[+-]\d\d:?\d\d$)")
_LONG_FRACTION = re.compile(r"(\.\d{6})\d+")
_PERSON_CHARACTERS = 24


class Money(NamedTuple):
    """An amount, and its currency as ISO 4217 names it; "" where it has none."""

    amount: float
    currency: str


def read_money(text: str) -> Money | None:
    """Reads `19.99 EUR`, `EUR 1,299.00` or `1.299,00 €`; None where it is none.

    A comma with one or two digits behind it stands before decimals; what may be read in two ways (`1,299`) is none.
    """
    amount = read_price(text, decimal_comma=_DECIMAL_COMMA.search(text) is not None)
    if isinstance(amount, str):
        return None
    found = _CURRENCY.search(text.strip())
    return Money(amount, found[0] if found else "")


def read_amount(value: Any) -> float | None:
    """A price of JSON, a number or a text; None for an empty value.

    Raises:
        ValueError: it is neither, or below 0.
    """
    if value is None or value == "":
        return None
    money = read_money(value) if isinstance(value, str) else None
    amount = value if isinstance(value, int | float) and not isinstance(value, bool) else money and money.amount
    if amount is None or not 0 <= amount < math.inf:
        raise ValueError("no price")
    return float(amount)


def read_moment(value: Any) -> float | None:
    """The seconds since 1970 of a moment in ISO 8601; one without a zone is in UTC. None where it is none."""
    if not isinstance(value, str):
        return None
    text = _ZONE.sub("", value.strip().removesuffix(" UTC"))
    moment = parse_time(_LONG_FRACTION.sub(r"\1", text))
    return None if moment is None else _in_range(moment.replace(tzinfo=UTC).timestamp())


def read_epoch(value: Any, per_second: float) -> float | None:
    """The seconds since 1970 of a whole number in smaller units, also as a text; None where it is none."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return _in_range(int(text) / per_second) if text.isascii() and text.isdigit() and len(text) < 20 else None


def read_quantity(value: Any) -> float | None:
    """A number of pieces, also as a text; 1 for an empty value, None where it is none."""
    if value is None or value == "":
        return 1.0
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        return None
    return number if 0 < number < 1e9 else None


def person_id(email: str) -> str:
    """An id for an e-mail address that does not hold the address: `email-` and the beginning of its SHA-256.

    Case and spaces around the address do not count. The shop's backend makes the same id.
    """
    digest = hashlib.sha256(email.strip().lower().encode()).hexdigest()
    return f"email-{digest[:_PERSON_CHARACTERS]}"


def plain_id(value: Any) -> str:
    """An id as text: a whole number as its decimal text; "" for anything else than a text or a whole number."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else ""


def is_no_id(value: Any) -> bool:
    """Whether a value stands where an id should, and is neither text nor a whole number."""
    return value is not None and not isinstance(value, str) and not plain_id(value)


def _in_range(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= MAX_TIMESTAMP else None
