"""Base class for JSON bodies that refuse unknown fields; 100,000 unknown fields cost no more than one."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import ErrorDetails

FEW = 8
"""Up to this many unknown fields get an error each; of more, one error names the first `NAMED` and gives the number."""
NAMED = 3
NAME_CHARS = 40


_PLAIN = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "Input should be a JSON object"),
    "string_unicode": "Input should be valid Unicode, and holds half of a surrogate pair",
}
"""Messages by error type, in place of pydantic's, which use Python's words."""


def message_of(error: ErrorDetails) -> str:
    """What is wrong with a field, in the words of a caller who sends JSON."""
    return _PLAIN.get(error["type"], error["msg"].removeprefix("Value error, "))


class KnownFields(BaseModel):
    """A JSON body of a caller that may hold no other fields than these."""

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
