"""The errors of the client; every error has a stable `code` to match on, a `message` and a `fix`.

    ClientError
    ├── InvalidCallError  invalid arguments, and nothing was sent: `client.invalid_id`, `client.invalid_value`,
    │                     `client.invalid_url`, `client.invalid_key`, `client.invalid_patience`, `client.url_too_long`,
    │                     `client.closed`, `client.other_loop`, `client.invalid_environment`. It is a ValueError
    │                     too.
    ├── NoAnswerError     no readable answer after all tries: `client.timeout`, `client.unreachable`,
    │                     `client.unreadable`, `client.too_large`
    └── ProblemError      the service's own problem: its `code`, `status`, `fix`, `request_id`

A shop shows its fallback on `ClientError`; `fix` is for its developer.
"""

from isrf_client.answers import Event, EventAnswer
from isrf_client.operations import Imported, Line


class ClientError(Exception):
    """Base of all errors of a call.

    Attributes:
        code: stable, dotted.
        message: what is wrong.
        fix: what to do about it.
        events: for `interactions`: the events to send again, with their event_ids. Give them to `interactions` as they
            are: an event that the service has already accepted is a duplicate and counts once.
        results: for `interactions`: the result of each event of the call, in order; None where there is none.
        records: for an import: the records of the part that was not answered, as they are sent, events with their
            event_ids. Import them and what follows them: nothing counts twice.
        report: for an import: the outcome of the parts before; None for other calls.
    """

    def __init__(self, code: str, message: str, *, fix: str = "") -> None:
        super().__init__(code, message)
        self.code, self.message, self.fix = code, message, fix
        self.events: list[Event] = []
        self.results: list[EventAnswer | None] = []
        self.records: list[Line] = []
        self.report: Imported | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message} {self.fix}".strip()


class InvalidCallError(ClientError, ValueError):
    """The arguments are invalid. Nothing was sent; the same call never works."""


class NoAnswerError(ClientError):
    """The service was not reached, did not answer in time, or another server answered."""


class ProblemError(ClientError):
    """The service answered with a problem.

    Attributes:
        status: the HTTP status.
        request_id: finds the request in the service's log; may be empty.
        retry_after_s: seconds until the next try, where the service gives them.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 0,
        fix: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, message, fix=fix)
        self.status, self.request_id, self.retry_after_s = status, request_id, retry_after_s

    @property
    def detail(self) -> str:
        """The message, under its name in the service's answer."""
        return self.message
