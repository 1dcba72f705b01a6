"""One tree of errors with stable codes, shared by both halves.

    IsrfError
    ├── ConfigError         a setting that cannot work (raised before any work is done)
    ├── DataError           the shop's files: missing, empty, malformed, too many bad rows
    ├── StageError          the offline job: a stage cannot go on, another run holds the folder
    ├── BundleError         a release that must not be served
    ├── RequestError        a caller's request that cannot be answered
    ├── AccessError         a caller who is not allowed to do this, or not so often
    ├── StoreError          user state cannot be read or written now
    └── OverloadError       the service has more requests than it can answer in time

Every error says what was found, where, and what to do about it (`fix`). `code` is stable: callers may match on it.
It deliberately knows no HTTP: `service.api.problems` holds the only table from codes to HTTP statuses.
"""

from collections.abc import Callable


class IsrfError(Exception):
    """Base class of every error that a user may see.

    Attributes:
        code: stable, lower-case, dotted (`data.empty_file`).
        message: what was found and where.
        fix: what to do about it; empty only where the reader can do nothing.
    """

    def __init__(self, code: str, message: str, *, fix: str = "") -> None:
        super().__init__(f"{message} {fix}".strip())
        self.code = code
        self.message = message
        self.fix = fix

    def __reduce__(self) -> tuple[Callable[..., "IsrfError"], tuple[type["IsrfError"], str, str, str]]:
        """An error keeps code, message and fix on its way from another process."""
        return _error_of, (type(self), self.code, self.message, self.fix)


def _error_of(kind: type[IsrfError], code: str, message: str, fix: str) -> IsrfError:
    return kind(code, message, fix=fix)


class ConfigError(IsrfError):
    """A setting that cannot work."""


class DataError(IsrfError):
    """The shop's files cannot be used as they are."""


class StageError(IsrfError):
    """A stage of the offline job cannot go on."""


class BundleError(IsrfError):
    """A release bundle that must not be served."""


class RequestError(IsrfError):
    """A caller's request that cannot be answered."""


class AccessError(IsrfError):
    """A caller who is not allowed to do this, or not so often."""


class StoreError(IsrfError):
    """User state cannot be read or written now."""


class OverloadError(IsrfError):
    """The service has more requests than it can answer in time."""
