"""The bodies of placements and affinities, for the API's document."""

from pydantic import BaseModel, Field

from service.api.schemas.answers import UserMeta, Warned


class Affinity(BaseModel):
    value: str
    weight: float = Field(description="Share of the history's weights, from 0 to 1; a newer event weighs more.")
    events: int = Field(description="Events of the history whose item has the value.")
    items: int = Field(description="Distinct items of the history that have the value.")


class AffinitiesMeta(UserMeta):
    user_version: str


class AffinitiesAnswer(BaseModel):
    user_id: str
    affinities: dict[str, list[Affinity]] = Field(
        description="By attribute (`brand`, `categories`), the heaviest value first."
    )
    events: int = Field(description="Events of the history, of which all count.")
    meta: AffinitiesMeta
    warnings: list[Warned]
