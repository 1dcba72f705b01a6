"""How often a call is tried and how long it waits, for both clients: a generator that asks for tries and for pauses.

It does no IO and has no clock of its own, so that tests let hours pass in microseconds.
"""

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeAlias, TypeVar

import httpx

from isrf_client.errors import ClientError, InvalidCallError, NoAnswerError, ProblemError

AnswerT = TypeVar("AnswerT")

AGAIN = frozenset({408, 429, 502, 503, 504})
"""Statuses that say *not now*."""
MAX_SHOWN = 300
MAX_S = 10_000_000.0
"""Seconds; with years of them some clocks cannot reckon."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a call may take.

    Attributes:
        timeout_s: of one try, from looking up the name to the answer's last byte.
        tries: at most, of each request that the call is made of.
        deadline_s: of the whole call, however many requests it is made of; no try and no pause ends later.
        first_pause_s: doubles with each try; half of it is drawn by lot, so that callers do not come back in step.
    """

    timeout_s: float
    tries: int
    deadline_s: float
    first_pause_s: float = 0.05

    def __post_init__(self) -> None:
        seconds = (self.timeout_s, self.deadline_s, self.first_pause_s)
        numbers = all(isinstance(one, int | float) and 0 <= one <= MAX_S for one in seconds)
        if not (numbers and isinstance(self.tries, int) and self.tries >= 1 and min(seconds[:2]) > 0):
            raise InvalidCallError(
                "client.invalid_patience",
                f"this patience cannot work: {self}.",
                fix=f"Give seconds above 0, {MAX_S:g} at most, and at least one try.",
            )


READS = Patience(timeout_s=1.0, tries=2, deadline_s=2.0)
"""A page waits for a read: better a fallback soon than an answer late."""
WRITES = Patience(timeout_s=5.0, tries=6, deadline_s=30.0, first_pause_s=0.2)
"""For what no page waits for: events, erasures, recommendations for many."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, safe to be sent twice: a read, an erasure, or events that carry their ids.

    Attributes:
        answer: a field that the answer has, and its type; None where the answer is empty (204).
    """

    method: str
    path: str
    params: Sequence[tuple[str, str]] = ()
    body: Mapping[str, Any] | None = None
    answer: tuple[str, type] | None = None


class Try(NamedTuple):
    """Send the call; answered within `timeout_s` by the response, or by what went wrong."""

    call: Call
    timeout_s: float


class Pause(NamedTuple):
    """Wait; answered by None."""

    seconds: float


Outcome: TypeAlias = httpx.Response | httpx.TransportError | ClientError
"""Of a try. A `ClientError` ends the call."""
Steps: TypeAlias = Generator[Try | Pause, Outcome | None, AnswerT]


class Budget:
    """What is left of a call's patience."""

    def __init__(self, patience: Patience, clock: Callable[[], float]) -> None:
        self._patience, self._clock = patience, clock
        self._end = clock() + patience.deadline_s
        self._used = 0

    def renew_tries(self) -> None:
        """For the next request of the same call; the time goes on."""
        self._used = 0

    def take(self) -> float:
        """Uses one try; how long it may take, 0.0 where no time is left."""
        self._used += 1
        return max(0.0, min(self._patience.timeout_s, self._end - self._clock()))

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
        timeout_s = budget.take()
        outcome = yield Try(call, timeout_s) if timeout_s > 0 else Pause(0.0)
        if isinstance(outcome, httpx.Response) and outcome.is_success:
            return _decoded(outcome, call)
        error = _error(outcome)
        asked_s = error.retry_after_s if isinstance(error, ProblemError) else None
        pause_s = budget.pause_s(asked_s) if error is not outcome and _may_pass(error) else None
        if pause_s is None:
            raise error
        yield Pause(pause_s)


def unreadable(found: str) -> NoAnswerError:
    """The error of an answer that is none of the service's."""
    return NoAnswerError(
        "client.unreadable", f"the answer is none of the service: {found}.", fix="Look at base_url: who answers there?"
    )


def _may_pass(error: ClientError) -> bool:
    return not isinstance(error, ProblemError) or error.status in AGAIN


def _decoded(response: httpx.Response, call: Call) -> Any:
    found = f"status {response.status_code}"
    if call.answer is None:
        if response.status_code != 204:
            raise unreadable(f"{found} where 204 is expected")
        return None
    name, kind = call.answer
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        raise unreadable(f"{found} with a body that is no JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get(name), kind):
        raise unreadable(f"{found} with JSON that is no object with `{name}`")
    return answer


def _error(outcome: Outcome | None) -> ClientError:
    if isinstance(outcome, ClientError):
        return outcome
    if outcome is None or isinstance(outcome, httpx.TimeoutException):
        kind = "the call's time is over" if outcome is None else type(outcome).__name__
        return NoAnswerError(
            "client.timeout",
            f"no answer in time ({kind}).",
            fix="Fall back; a longer wait is a Patience for `reads` or `writes`.",
        )
    if not isinstance(outcome, httpx.Response):
        return NoAnswerError(
            "client.unreachable",
            f"no answer ({type(outcome).__name__}).",
            fix="Fall back; look whether the service runs where base_url says.",
        )
    try:
        problem = outcome.json()
    except (ValueError, RecursionError):
        problem = None
    told: dict[str, Any] = problem if isinstance(problem, dict) else {}
    status = outcome.status_code
    # What stands between may answer too, and knows no codes.
    foreign = f"HTTP {status} {outcome.reason_phrase}"
    redirected = "It leads elsewhere: give the address that answers itself as base_url."
    fix = redirected if outcome.is_redirect else "Look at what stands between: a gateway or another server answered."
    return ProblemError(
        _text(told, "code") or f"http.{status}",
        _text(told, "detail") or foreign,
        status=status,
        fix=_text(told, "fix") or ("" if _text(told, "code") else fix),
        request_id=_text(told, "request_id") or outcome.headers.get("X-Request-ID", ""),
        retry_after_s=_retry_after_s(outcome.headers.get("Retry-After")),
    )


def _text(problem: Mapping[str, Any], name: str) -> str:
    value = problem.get(name)
    return value[:MAX_SHOWN] if isinstance(value, str) else ""


def _retry_after_s(value: str | None) -> float | None:
    """Seconds or a date (RFC 9110, section 10.2.3); None for what is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
