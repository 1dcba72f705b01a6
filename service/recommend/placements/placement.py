"""A placement: a named list of a shop's page. Its fields, how it is read, and the file that gives defaults.

It knows neither stores nor HTTP; `service.sync.placement_sync` keeps placements up to date.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from isrf.contract.errors import ConfigError
from isrf.contract.known_fields import message_of
from service.recommend.placements.rule_fields import MOST_RULES, ListRule, PlacementFields, WholeNumber, with_rule
from service.release.catalogue import Filter

Kind = Literal["for-user", "similar", "together", "trending", "popular", "new", "buy-again", "recently-viewed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WEEK_S = 7 * 86_400
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
NAME_RULE = "has 1 to 64 characters of a-z, 0-9, - and _, and begins with a letter or a digit; 'preview' is taken"
RESERVED_NAME = "preview"
"""The API has a call of this name in the place of a placement's."""
MOST_PLACEMENTS = 1000
MOST_FILE_BYTES = 4 << 20


class Placement(PlacementFields):
    """What one list of a page shows."""

    kind: Kind = Field(description="The kind of list.")
    length: WholeNumber = Field(default=10, ge=1, le=200, description="Number of items, where the call gives no `n`.")
    filter: str | None = Field(
        default=None,
        max_length=2048,
        description="Only items for which this condition on their attributes holds, as `filter` of every list; it may "
        "read `now`, `user.bought` and `user.disliked`.",
    )
    category: str | None = Field(default=None, max_length=512, description="Only items of this category.")
    min_price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Only items with a price, of at least this much."
    )
    max_price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Only items with a price, of at most this much."
    )
    exclude_variants: bool = Field(
        default=False,
        description="Whatever excludes an item (bought, disliked, the given items) excludes all of its `group_id`.",
    )
    diversity: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.0, description="0: by score alone. Towards 1: items of the kind that differ from those before."
    )
    fallbacks: list[Kind] = Field(
        default=["popular"],
        max_length=len(KINDS),
        description="Kinds that fill the list where the kind finds too few items, in this order; [] for none.",
    )
    window_s: float = Field(
        default=WEEK_S,
        ge=3600,
        le=90 * 86_400,
        allow_inf_nan=False,
        description="trending: seconds of the window, which is compared with an equally long one before it.",
    )
    cache_s: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="How long an answer may be given again to the same user, items and session, while neither the "
        "user's state nor the catalogue has changed.",
    )

    rules: list[ListRule] = Field(
        default=[],
        max_length=MOST_RULES,
        description="Boosts, pins, limits per attribute value and quotas of conditions.",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_fallbacks(cls, sent: Any) -> Any:
        if isinstance(sent, Mapping) and sent.get("kind") == "popular" and "fallbacks" not in sent:
            return {**sent, "fallbacks": []}  # popular items fill every other list, and need no filling
        return sent

    @model_validator(mode="after")
    def _consistent(self) -> "Placement":
        if self.min_price is not None and self.max_price is not None and self.min_price > self.max_price:
            raise PydanticCustomError("prices", "min_price is greater than max_price: no item could be listed")
        kinds = [self.kind, *self.fallbacks]
        if len(set(kinds)) < len(kinds):
            raise PydanticCustomError("fallbacks", "fallbacks name a kind twice, or the placement's own kind")
        return self

    @property
    def kinds(self) -> list[Kind]:
        """The kind and its fallbacks, in order."""
        return [self.kind, *self.fallbacks]

    @property
    def item_filter(self) -> Filter:
        return Filter(
            categories=() if self.category is None else (self.category,),
            min_price=self.min_price,
            max_price=self.max_price,
            condition=self.filter,
            exclude_variants=self.exclude_variants,
        )


class PlacementVersion(NamedTuple):
    """A placement and where it comes from."""

    placement: Placement
    version: int  # the number of the change that put it; 0 where the file gives it
    text: str  # the placement as JSON


def is_name(text: str) -> bool:
    """Whether a placement may have this name."""
    return re.fullmatch(NAME_PATTERN, text) is not None and text != RESERVED_NAME


def near_name(text: str) -> str:
    """Returns a valid name that resembles one that is not."""
    name = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:64]
    return name if is_name(name) else "home-row"


def text_of(placement: Placement) -> str:
    """Returns the placement as JSON, without the fields that have no value."""
    return placement.model_dump_json(exclude_none=True)


def stored_form(placement: Placement) -> bytes:
    """Returns the placement as the store keeps it."""
    return text_of(placement).encode()


def read_placement(payload: bytes, version: int) -> PlacementVersion | None:
    """Reads a stored placement; None where another version of the service wrote fields that this one lacks."""
    try:
        placement = Placement.model_validate_json(payload)
    except ValidationError:
        return None
    return PlacementVersion(placement, version, text_of(placement))


def read_placements_file(path: Path) -> dict[str, PlacementVersion]:
    """Reads the placements of a TOML file, a table each: `[home]`, `kind = "for-user"`.

    Raises:
        ConfigError: `config.placements`, the file cannot be read or a placement is not valid.
    """
    fix = "See docs/guides/pages.md for the fields of a placement."
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise ConfigError("config.placements", f"{path} has more than {MOST_FILE_BYTES} bytes.", fix=fix)
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("config.placements", f"{path} cannot be read: {error}.", fix=fix) from None
    if len(tables) > MOST_PLACEMENTS:
        raise ConfigError("config.placements", f"{path} has {len(tables)} placements.", fix=fix)
    found: dict[str, PlacementVersion] = {}
    for name, fields in tables.items():
        if not is_name(name):
            raise ConfigError(
                "config.placements", f"{path}: {name[:80]!r} is not a valid name; a name {NAME_RULE}.", fix=fix
            )
        try:
            placement = Placement.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, (name, *first["loc"])))
            raise ConfigError(
                "config.placements", f"{path}: {where}: {with_rule(first['loc'], message_of(first))}.", fix=fix
            ) from None
        found[name] = PlacementVersion(placement, 0, text_of(placement))
    return found
