"""Which strings may be a shop's id. Ids are opaque: exact bytes, no trimming, no case folding, no normalisation.

JSON may write an id as an integer: that is its decimal text, on every route.

Control characters are refused because state keeps ids in one string with control characters between them, and because
they forge log lines; 512 bytes because an id is repeated in every key and stream entry of its user.
"""

import unicodedata
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from isrf.contract.item_fields import INTEGERS, MAX_ID_BYTES

ID_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": MAX_ID_BYTES, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]+$"}
"""What JSON Schema can say of an id; it counts characters, not bytes."""


def decimal_text(value: Any) -> Any:
    """An integer as its decimal text; anything else as it is, for others to judge.

    Raises:
        ValueError: an integer that some readers would round.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value not in INTEGERS:
        raise ValueError("an integer of more than 64 bits; send it as a string")
    return str(value)


# A schema's "integer" takes 7.0 as well, which is no id here.
ExternalId = Annotated[str, BeforeValidator(decimal_text), WithJsonSchema({"type": "string", **ID_SCHEMA})]
"""A shop's id in a JSON body, documented as the text that it is. `id_problem` says what is wrong with it."""


def id_problem(text: str) -> str | None:
    """A sentence on what is wrong with an id, None for a good one."""
    if not text:
        return "is empty"
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not valid Unicode (a lone surrogate)"
    if size > MAX_ID_BYTES:
        return f"has {size} bytes, {MAX_ID_BYTES} are allowed"
    # Printable ones have none; asked first, since it is asked of every id of every request.
    if not text.isprintable() and any(unicodedata.category(character) == "Cc" for character in text):
        return "holds a control character"
    return None
