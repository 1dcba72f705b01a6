"""How often a call is tried and how long it waits, for both clients: a generator that asks for tries and for pauses.

It does no IO and has no clock of its own, so that tests let hours pass in microseconds.
"""

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeAlias, TypeVar

import httpx

from isrf_client.errors import ClientError, NoAnswerError, ProblemError

AnswerT = TypeVar("AnswerT")

AGAIN = frozenset({408, 429, 502, 503, 504})
"""Statuses that say *not now*."""
MAX_SHOWN = 300


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a call may take.

    Attributes:
        timeout_s: of one try: for each of connecting, sending, and waiting for the next bytes.
        tries: at most.
        deadline_s: no try and no pause begins that would end later than this after the call began.
        first_pause_s: doubles with each try; half of it is drawn by lot, so that callers do not come back in step.
    """

    timeout_s: float
    tries: int
    deadline_s: float
    first_pause_s: float = 0.05

    def __post_init__(self) -> None:
        if self.tries < 1 or min(self.timeout_s, self.deadline_s) <= 0 or self.first_pause_s < 0:
            raise ValueError(f"this patience cannot work: {self}")


READS = Patience(timeout_s=1.0, tries=2, deadline_s=2.0)
"""A page waits for a read: better a fallback soon than an answer late."""
WRITES = Patience(timeout_s=5.0, tries=6, deadline_s=30.0, first_pause_s=0.2)
"""For what no page waits for: events, erasures, recommendations for many."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, safe to be sent twice: a read, an erasure, or events that carry their ids."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None


class Try(NamedTuple):
    """Send the call; answered by the response, or by what the transport raised."""

    call: Call
    timeout_s: float


class Pause(NamedTuple):
    """Wait; answered by None."""

    seconds: float


Steps: TypeAlias = Generator[Try | Pause, httpx.Response | httpx.TransportError | None, AnswerT]


class Budget:
    """What is left of a call's patience."""

    def __init__(self, patience: Patience, clock: Callable[[], float]) -> None:
        self._patience, self._clock = patience, clock
        self._end = clock() + patience.deadline_s
        self._used = 0

    def take(self) -> float:
        """Uses one try; how long it may take."""
        self._used += 1
        return max(0.001, min(self._patience.timeout_s, self._end - self._clock()))

    def pause_s(self, asked_s: float | None) -> float | None:
        """How long to wait before the next try, not less than was asked for; None if there is none to come."""
        if self._used >= self._patience.tries:
            return None
        drawn = self._patience.first_pause_s * 2.0 ** (self._used - 1) * random.uniform(0.5, 1.0)  # noqa: S311
        pause_s = max(drawn, asked_s or 0.0)
        return pause_s if self._clock() + pause_s < self._end else None


def attempts(call: Call, budget: Budget) -> Steps[Any]:
    """Tries until there is an answer or the budget is used up; the decoded answer, None for an empty one.

    Raises:
        ClientError: of the last try.
    """
    while True:
        outcome = yield Try(call, budget.take())
        if isinstance(outcome, httpx.Response) and outcome.is_success:
            return _decoded(outcome)
        error = _error(outcome)
        asked_s = error.retry_after_s if isinstance(error, ProblemError) else None
        pause_s = budget.pause_s(asked_s) if _may_pass(error) else None
        if pause_s is None:
            raise error
        yield Pause(pause_s)


def _may_pass(error: ClientError) -> bool:
    return not isinstance(error, ProblemError) or error.status in AGAIN


def _decoded(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise NoAnswerError(
            "client.unreadable", f"status {response.status_code} with a body that is no JSON; is this the service?"
        ) from None


def _error(outcome: httpx.Response | httpx.TransportError | None) -> ClientError:
    if isinstance(outcome, httpx.TimeoutException):
        return NoAnswerError("client.timeout", f"no answer in time ({type(outcome).__name__}).")
    if not isinstance(outcome, httpx.Response):
        return NoAnswerError("client.unreachable", f"no answer ({type(outcome).__name__}).")
    try:
        problem = outcome.json()
    except ValueError:
        problem = None
    told = problem if isinstance(problem, dict) else {}
    return ProblemError(
        # What stands between may answer too, and knows no codes.
        str(told.get("code", f"http.{outcome.status_code}")),
        str(told.get("detail", outcome.reason_phrase))[:MAX_SHOWN],
        status=outcome.status_code,
        fix=str(told.get("fix", ""))[:MAX_SHOWN],
        request_id=str(told.get("request_id", outcome.headers.get("X-Request-ID", ""))),
        retry_after_s=_retry_after_s(outcome.headers.get("Retry-After")),
    )


def _retry_after_s(value: str | None) -> float | None:
    """Seconds or a date (RFC 9110, section 10.2.3); None for what is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
