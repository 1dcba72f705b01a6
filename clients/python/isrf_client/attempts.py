"""Decides how often a call is tried and how long it waits: a generator that yields tries and pauses to both clients.

It does no IO and has no clock of its own, so that tests can let hours pass in microseconds.
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
"""Statuses of temporary failures."""
MAX_SHOWN = 300
MAX_S = 10_000_000.0
"""Seconds; some clocks cannot count further."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a call may take.

    Attributes:
        timeout_s: of one try, from the name lookup to the answer's last byte.
        tries: the most tries of each request of the call.
        deadline_s: of the whole call with all its requests; no try and no pause ends later.
        first_pause_s: doubles with each try; half of it is random, so that callers do not retry at the same moment.
    """

    timeout_s: float
    tries: int
    deadline_s: float
    first_pause_s: float = 0.05

    def __post_init__(self) -> None:
        seconds = (self.timeout_s, self.deadline_s, self.first_pause_s)
        are_valid = all(isinstance(value, int | float) and 0 <= value <= MAX_S for value in seconds)
        if not (are_valid and isinstance(self.tries, int) and self.tries >= 1 and min(seconds[:2]) > 0):
            raise InvalidCallError(
                "client.invalid_patience",
                f"this patience is invalid: {self}.",
                fix=f"Give seconds above 0, {MAX_S:g} at most, and at least one try.",
            )


READS = Patience(timeout_s=1.0, tries=2, deadline_s=2.0)
"""For reads, which a page waits for: an early fallback is better than a late answer."""
WRITES = Patience(timeout_s=5.0, tries=6, deadline_s=30.0, first_pause_s=0.2)
"""For calls that no page waits for: events, erasures, recommendations for many users."""
BULK = Patience(timeout_s=60.0, tries=6, deadline_s=3600.0, first_pause_s=0.2)
"""For imports and exports of any size. Of an export, `timeout_s` is also the longest wait for its next bytes."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request that is safe to send twice: a read, an erasure, or events with their ids.

    Attributes:
        lines: a body of JSON Lines, in place of `body`.
        answer: a field that the answer must have, and its type; None where the answer is empty (204).
        streamed: the answer is left open, and its caller reads it piece by piece.
    """

    method: str
    path: str
    params: Sequence[tuple[str, str]] = ()
    body: Mapping[str, Any] | None = None
    lines: bytes | None = None
    answer: tuple[str, type] | None = None
    streamed: bool = False


class Try(NamedTuple):
    """Asks the client to send the call; the client returns the response or the failure within `timeout_s`.

    An answer that is left open may be read for `left_s`, the rest of the call's time.
    """

    call: Call
    timeout_s: float
    left_s: float


class Pause(NamedTuple):
    """Asks the client to wait; the client returns None."""

    seconds: float


class OpenAnswer:
    """A good answer whose body has not been read."""


Outcome: TypeAlias = httpx.Response | OpenAnswer | httpx.TransportError | ClientError
"""The outcome of a try. A `ClientError` ends the call."""
Steps: TypeAlias = Generator[Try | Pause, Outcome | None, AnswerT]


class Budget:
    """The tries and the time that a call has left."""

    def __init__(self, patience: Patience, clock: Callable[[], float]) -> None:
        self._patience, self._clock = patience, clock
        self._end = clock() + patience.deadline_s
        self._used = 0

    def renew_tries(self) -> None:
        """Allows all tries again, for the next request of the same call; the deadline stays."""
        self._used = 0

    def left_s(self) -> float:
        """Returns the seconds until the deadline, 0.0 after it."""
        return max(0.0, self._end - self._clock())

    def take(self) -> float:
        """Uses one try; returns how long it may take, 0.0 where no time is left."""
        self._used += 1
        return min(self._patience.timeout_s, self.left_s())

    def pause_s(self, asked_s: float | None) -> float | None:
        """Returns the pause before the next try, at least `asked_s`; None where no try is left."""
        if self._used >= self._patience.tries:
            return None
        random_s = self._patience.first_pause_s * 2.0 ** (self._used - 1) * random.uniform(0.5, 1.0)  # noqa: S311
        pause_s = max(random_s, asked_s or 0.0)
        return pause_s if self._clock() + pause_s < self._end else None


def attempts(call: Call, budget: Budget) -> Steps[Any]:
    """Tries until there is an answer or the budget is used up; returns the decoded answer, None for an empty one.

    Raises:
        ClientError: the error of the last try.
    """
    while True:
        timeout_s = budget.take()
        outcome = yield Try(call, timeout_s, budget.left_s()) if timeout_s > 0 else Pause(0.0)
        if isinstance(outcome, OpenAnswer):
            return outcome
        if isinstance(outcome, httpx.Response) and outcome.is_success:
            return _decoded(outcome, call)
        error = error_of(outcome)
        asked_s = error.retry_after_s if isinstance(error, ProblemError) else None
        pause_s = budget.pause_s(asked_s) if error is not outcome and _is_temporary(error) else None
        if pause_s is None:
            raise error
        yield Pause(pause_s)


def unreadable(found: str) -> NoAnswerError:
    """Returns the error for an answer that is not from the service."""
    return NoAnswerError(
        "client.unreadable",
        f"the answer is not from the service: {found}.",
        fix="Check base_url: another server answers there.",
    )


def _is_temporary(error: ClientError) -> bool:
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
        raise unreadable(f"{found} with a body that is not JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get(name), kind):
        raise unreadable(f"{found} with JSON that is not an object with `{name}`")
    return answer


def error_of(outcome: httpx.Response | httpx.TransportError | ClientError | None) -> ClientError:
    """Returns the error of a try that gave no good answer; None: the call's time is over."""
    if isinstance(outcome, ClientError):
        return outcome
    if outcome is None or isinstance(outcome, httpx.TimeoutException):
        kind = "the call's time is over" if outcome is None else type(outcome).__name__
        return NoAnswerError(
            "client.timeout",
            f"no answer in time ({kind}).",
            fix="Show a fallback; to wait longer, give a Patience for `reads` or `writes`.",
        )
    if not isinstance(outcome, httpx.Response):
        return NoAnswerError(
            "client.unreachable",
            f"no answer ({type(outcome).__name__}).",
            fix="Show a fallback; check that the service runs at base_url.",
        )
    try:
        problem = outcome.json()
    except (ValueError, RecursionError):
        problem = None
    fields: dict[str, Any] = problem if isinstance(problem, dict) else {}
    status = outcome.status_code
    # A gateway before the service may answer too, without codes.
    foreign = f"HTTP {status} {outcome.reason_phrase}"
    redirected = "The address redirects: give the final address as base_url."
    fix = (
        redirected if outcome.is_redirect else "A gateway or another server answered: check what is before the service."
    )
    return ProblemError(
        _text(fields, "code") or f"http.{status}",
        _text(fields, "detail") or foreign,
        status=status,
        fix=_text(fields, "fix") or ("" if _text(fields, "code") else fix),
        request_id=_text(fields, "request_id") or outcome.headers.get("X-Request-ID", ""),
        retry_after_s=_retry_after_s(outcome.headers.get("Retry-After")),
    )


def _text(problem: Mapping[str, Any], name: str) -> str:
    value = problem.get(name)
    return value[:MAX_SHOWN] if isinstance(value, str) else ""


def _retry_after_s(value: str | None) -> float | None:
    """Reads seconds or a date (RFC 9110, section 10.2.3); None where it is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
