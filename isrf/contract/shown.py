"""A value of the shop's data as a message shows it: short, on one line, and harmless to a terminal."""

import json
from typing import Any

MAX_SHOWN = 60


def shown(value: Any) -> str:
    """The value as JSON where it can be written so, at most about `MAX_SHOWN` characters, nothing unprintable in it.

    Control characters, line ends and marks that turn the direction of writing round are written as their escapes.
    """
    if isinstance(value, str):
        text = json.dumps(value[: MAX_SHOWN + 1], ensure_ascii=False)
    elif isinstance(value, int) and value.bit_length() > 8 * MAX_SHOWN:
        text = f"a whole number of {value.bit_length()} bits"
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError, RecursionError):
            text = f"a {type(value).__name__}"
    return printable(text)


def printable(text: str, limit: int = MAX_SHOWN) -> str:
    """A text without quotes around it; otherwise as `shown`."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in cut)
