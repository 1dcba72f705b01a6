"""Bodies that know their fields: one that is unknown is refused, and a hundred thousand cost no more than one."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import ErrorDetails

FEW = 8
"""So many unknown fields are each complained of; of more the first are named, and how many there are."""
NAMED = 3
NAME_CHARS = 40


_PLAIN = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "Input should be a JSON object"),
    "string_unicode": "Input should be valid Unicode, and holds half of a surrogate pair",
}
"""By type of error, what pydantic says in Python's words."""


def message_of(error: ErrorDetails) -> str:
    """What is wrong with a field, in the words of who sends JSON."""
    return _PLAIN.get(error["type"], error["msg"].removeprefix("Value error, "))


class KnownFields(BaseModel):
    """What a caller sends: no other fields than these."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_unknown(cls, sent: Any) -> Any:
        if not isinstance(sent, dict) or len(sent) <= FEW:
            return sent
        unknown = [name for name in sent if name not in cls.model_fields]
        if len(unknown) > FEW:
            first = ", ".join(repr(str(name)[:NAME_CHARS]) for name in unknown[:NAMED])
            raise ValueError(f"{len(unknown)} fields are not known here: {first}, …")
        return sent
