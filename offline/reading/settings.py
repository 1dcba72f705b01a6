"""The section `[ingest]`: how the shop's files are read. The release saves it, so that all commands read alike."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from isrf.contract.item_changes import FIELDS, METADATA

INTERACTION_COLUMNS = ("user_id", "item_id", "timestamp", "position", "event", "weight", "session_id")
ITEM_COLUMNS = ("item_id", *(name for name in FIELDS if name != METADATA))
TimeForm = Literal["seconds", "milliseconds", "microseconds", "nanoseconds", "iso", "iso-zone"]
UnknownItemsRule = Literal["refuse", "drop", "create"]
_Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _listed_columns(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    unknown = sorted({str(name) for name in value} - {*INTERACTION_COLUMNS, *ITEM_COLUMNS})
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no column of ours; ours are {', '.join(_ours())}")
    return {name: (theirs,) if isinstance(theirs, str) else theirs for name, theirs in sorted(value.items())}


def _ours() -> list[str]:
    return list(dict.fromkeys((*INTERACTION_COLUMNS, *ITEM_COLUMNS)))


def _is_separator(value: str) -> str:
    if value == "tab":
        return "\t"
    if value != "auto" and (len(value) != 1 or value in '"\r\n' or value.isalnum()):
        raise ValueError("a separator is one character, tab, or auto")
    return value


def _is_encoding(value: str) -> str:
    try:
        return value if value == "auto" or "a".encode(value).decode(value) == "a" else ""
    except (LookupError, UnicodeError, TypeError, AttributeError):
        raise ValueError("no such encoding; write for instance utf-8, cp1252, cp1250 or utf-16-le") from None


def _is_time_format(value: str) -> str:
    if value != "auto" and value not in get_args(TimeForm) and "%" not in value:
        raise ValueError(f"write a format such as %d.%m.%Y %H:%M, or one of auto, {', '.join(get_args(TimeForm))}")
    return value


class IngestConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_listed_columns)] = {}
    """The shop's names of our columns: `ingest.columns.user_id=customer`, or `--column user_id=customer`."""
    separator: Annotated[str, AfterValidator(_is_separator)] = "auto"
    """What stands between the fields of a CSV file: one character, `tab`, or `auto` (comma, semicolon or tab)."""
    encoding: Annotated[str, AfterValidator(_is_encoding)] = "auto"
    """The encoding of text files; `auto` recognises UTF-8, UTF-16 with a byte order mark, and cp1252."""
    time_format: Annotated[str, AfterValidator(_is_time_format)] = "auto"
    """How `timestamp` is written: a format such as `%d.%m.%Y %H:%M`, `seconds`, `milliseconds`, `microseconds`,
    `nanoseconds`, `iso` (no zone, read as UTC), `iso-zone`; `auto` recognises all but formats."""
    category_separator: str = ""
    """What stands between the levels of `categories` in CSV; empty for `>`. A JSON list is always read."""
    decimal_comma: bool = False
    """Whether a comma stands before the decimals of prices and weights that are texts."""
    max_bad_rows: _Share = 0.001
    """The largest share of a file's rows that may be bad; above it the run stops."""
    unknown_items: UnknownItemsRule = "refuse"
    """What happens to rows of items that the items file lacks: `refuse` (leave out at most `max_unknown_items`),
    `drop` (leave out all of them), `create` (add the items, with nothing but their id)."""
    max_unknown_items: _Share = 0.001
    """With `unknown_items=refuse`, the largest share of rows whose item is unknown; above it the run stops."""
    shuffle_ties: int | None = None
    """A seed that shuffles events with equal timestamps; `none` keeps the order of the file."""

    def of_our_own_files(self) -> "IngestConfig":
        """These settings for files that this program wrote, in its own form."""
        own = IngestConfig()
        names = ("columns", "separator", "encoding", "time_format", "category_separator", "decimal_comma")
        return self.model_copy(update={name: getattr(own, name) for name in names})
