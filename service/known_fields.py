"""Bodies that know their fields: one that is unknown is refused, and a hundred thousand cost no more than one."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

FEW = 8
"""So many unknown fields are each complained of; of more the first are named, and how many there are."""
NAMED = 3
NAME_CHARS = 40


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
