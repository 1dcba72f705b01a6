"""The types of bulk calls and of an operator's calls, as in the service's OpenAPI document."""

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from isrf_client.answers import Warned

Line: TypeAlias = dict[str, Any]
"""A record of an import or an export: one JSON object a line."""


class BadLine(TypedDict):
    """A refused record; `line` is its place among the records of the call, from 1 on."""

    line: int
    reason: str
    detail: str


class Imported(TypedDict):
    """The outcome of an import, of all its requests together."""

    lines: int
    accepted: int
    duplicates: int
    refused: int
    reasons: dict[str, int]
    problems: list[BadLine]
    problems_left_out: int
    warnings: list[Warned]


class LiveEvidenceProgress(TypedDict):
    entries_behind: int
    seconds_behind: float
    truncated: bool
    entries_read: int


class Readiness(TypedDict):
    status: Literal["ready", "degraded"]
    release_id: str
    store: Literal["ok", "unavailable"]
    live_evidence: LiveEvidenceProgress | None
    warnings: NotRequired[list[Warned]]


class Reloaded(TypedDict):
    status: Literal["switched", "unchanged"]
    release_id: str
    previous_release_id: str
    seconds: float


class Rates(TypedDict):
    source: str
    items_shown: int
    clicks: int
    purchases: int
    click_through: float | None


class AnswerRates(Rates):
    answers: int


class ReleaseStats(TypedDict):
    release_id: str
    answers: int
    by_answer_source: list[AnswerRates]
    by_item_source: list[Rates]


class Stats(TypedDict):
    """Counts of all replicas, since counting began."""

    releases: list[ReleaseStats]
