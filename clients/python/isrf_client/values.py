"""Checks and converts arguments: ids to text, options without None, values that JSON can hold.

It checks everything before anything is sent, so that no call is sent in part or with another meaning.
"""

import math
import numbers
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from isrf_client.answers import Id
from isrf_client.errors import InvalidCallError

IDS = frozenset({"user_id", "session_id", "item_id", "event_id"})
ID_LISTS = frozenset({"cart", "exclude", "session", "history", "candidates", "users"})
MAX_DEPTH = 32
MAX_SHOWN = 60


def id_text(value: Any, where: str) -> str:
    """Returns an id as the service knows it: a string as it is, an integer as its decimal text.

    Raises:
        InvalidCallError: `client.invalid_id`.
    """
    if isinstance(value, str):
        return _unicode(value, where, "client.invalid_id")
    try:
        if not isinstance(value, bool):
            return str(operator.index(value))
    except (TypeError, ValueError):
        pass  # not an integer, or one with thousands of digits
    raise InvalidCallError(
        "client.invalid_id",
        f"{where} is {_shown(value)}.",
        fix="An id is a string, or an integer, which is sent as its decimal text.",
    )


def id_texts(values: Iterable[Id], where: str) -> list[str]:
    """Returns the ids of an iterable; refuses a string, whose characters are no ids."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidCallError("client.invalid_value", f"{where} is {_shown(values)}.", fix="Give a list of ids.")
    return [id_text(value, f"{where}[{index}]") for index, value in enumerate(values)]


def segment(value: Id, where: str = "id") -> str:
    """Returns an id as one segment of a path, with `/`, `..` and all special characters encoded."""
    text = id_text(value, where)
    if not text:
        raise InvalidCallError("client.invalid_id", f"{where} is empty.", fix="Give the shop's own id.")
    return quote(text, safe="").replace(".", "%2E")


def json_fields(options: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Returns options or an event as JSON values, without those that are None."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        place = f"{where}.{name}" if where else name
        if name in IDS:
            found[name] = id_text(value, place)
        elif name in ID_LISTS:
            found[name] = id_texts(value, place)
        elif name == "context" and not isinstance(value, Mapping):
            fix = 'Give a dict of texts, as {"theme": "red"}.'
            raise InvalidCallError("client.invalid_value", f"{place} is {_shown(value)}.", fix=fix)
        else:
            found[name] = plain(value, place)
    return found


def query(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns options as the parameters of a URL; a list becomes a repeated parameter, `context` one for each name."""
    pairs = []
    fields = json_fields(options)
    context = fields.pop("context", {})
    for name, value in [*fields.items(), *((f"context.{inner}", value) for inner, value in context.items())]:
        for single in value if isinstance(value, list) else [value]:
            if isinstance(single, list | dict) or single is None:
                raise InvalidCallError("client.invalid_value", f"{name} is {_shown(value)}.", fix="Give single values.")
            pairs.append((name, str(single).lower() if isinstance(single, bool) else str(single)))
    return pairs


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Returns a value as JSON can hold it.

    Raises:
        InvalidCallError: `client.invalid_value`, with the place of a value that JSON cannot hold.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _unicode(value, where, "client.invalid_value")
    if isinstance(value, numbers.Integral) and -(2**63) <= int(value) < 2**64:
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral) and math.isfinite(value):
        return float(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
            return {
                _unicode(name, where, "client.invalid_value"): plain(inner, f"{where}.{name}", depth + 1)
                for name, inner in value.items()
            }
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
            return [plain(inner, f"{where}[{place}]", depth + 1) for place, inner in enumerate(value)]
    raise InvalidCallError(
        "client.invalid_value",
        f"{where} is {_shown(value)}, which JSON cannot hold.",
        fix="Give text, a finite number, true or false, a list or a dict of those; a time in Unix seconds.",
    )


def _unicode(text: str, where: str, code: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidCallError(
            code,
            f"{where} is not valid Unicode: its character {error.start} is half of a pair ({text[error.start]!a}).",
            fix="Decode the text with the encoding that it was written in.",
        ) from None
    return str.__str__(text)  # a plain string, also for a member of an Enum


def _shown(value: Any) -> str:
    # Python cannot show huge integers and broken classes.
    try:
        shown = ascii(value)
    except (ValueError, TypeError, RecursionError):
        shown = "a value without a text"
    shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"
    return shown if value is None else f"{shown} ({type(value).__name__})"
