"""Shows a value of the shop's data in a message: short, on one line, and harmless to a terminal."""

import json
from typing import Any

MAX_SHOWN = 60


def shown(value: Any) -> str:
    """The value as JSON where that is possible, at most about `MAX_SHOWN` characters, all of them printable.

    Control characters, line ends and marks that reverse the direction of writing appear as their escapes.
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
    """A text cut to `limit` characters, unprintable characters as their escapes, without quotes around it."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut)
