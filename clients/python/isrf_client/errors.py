"""What can go wrong, in one tree; every error has a stable `code` to match on, a `message` and a `fix`.

    ClientError
    ├── InvalidCallError  what was given cannot be sent, and nothing was: `client.invalid_id`, `client.invalid_value`,
    │                     `client.invalid_url`, `client.invalid_key`, `client.invalid_patience`, `client.url_too_long`,
    │                     `client.closed`, `client.other_loop`, `client.invalid_environment`. It is a ValueError
    │                     too.
    ├── NoAnswerError     none that can be read, after all tries: `client.timeout`, `client.unreachable`,
    │                     `client.unreadable`, `client.too_large`
    └── ProblemError      the service's own problem: its `code`, `status`, `fix`, `request_id`

A shop falls back on `ClientError`; `fix` is for its developer.
"""

from isrf_client.answers import Event, EventAnswer


class ClientError(Exception):
    """Base of all errors of a call.

    Attributes:
        code: stable, dotted.
        message: what was found.
        fix: what to do about it.
        events: of `interactions`: those that must be sent again, with their event_ids. Give them to `interactions` as
            they are: what was taken in already is a duplicate and counts once.
        results: of `interactions`: the answer to each event of the call in its order; None where none came.
    """

    def __init__(self, code: str, message: str, *, fix: str = "") -> None:
        super().__init__(code, message)
        self.code, self.message, self.fix = code, message, fix
        self.events: list[Event] = []
        self.results: list[EventAnswer | None] = []

    def __str__(self) -> str:
        return f"{self.code}: {self.message} {self.fix}".strip()


class InvalidCallError(ClientError, ValueError):
    """What was given cannot be sent. Nothing was sent; the same call never works."""


class NoAnswerError(ClientError):
    """The service was not reached, did not answer in time, or with something that is no answer of it."""


class ProblemError(ClientError):
    """The service answered that it will not, or not now.

    Attributes:
        status: of HTTP.
        request_id: finds the request in the service's log; may be empty.
        retry_after_s: when to try again, where the service said so.
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
        """The message, by its name in the service's answer."""
        return self.message
