"""What can go wrong, in one tree; every error has a stable `code` to match on.

    ClientError
    ├── NoAnswerError   none that can be read, after all tries: `client.timeout`, `client.unreachable`,
    │                   `client.unreadable`
    └── ProblemError    the service's own problem: its `code`, `status`, `fix`, `request_id`

A shop falls back on `ClientError`; whoever is told `ProblemError.fix` is its developer.
"""


class ClientError(Exception):
    """Base of all errors of a call.

    Attributes:
        code: stable, dotted.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class NoAnswerError(ClientError):
    """The service was not reached, or did not answer in time."""


class ProblemError(ClientError):
    """The service answered that it will not, or not now.

    Attributes:
        status: of HTTP.
        detail: what was found.
        fix: what to do about it; may be empty.
        request_id: finds the request in the service's log; may be empty.
        retry_after_s: when to try again, where the service said so.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int,
        fix: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, f"{detail} {fix}".strip())
        self.status, self.detail, self.fix = status, detail, fix
        self.request_id, self.retry_after_s = request_id, retry_after_s
