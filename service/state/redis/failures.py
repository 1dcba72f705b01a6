"""Turns failures of Redis into the errors that a caller sees, without the server's own messages.

A server's message may contain addresses, credentials or the content of a key; its type is enough to act on.
"""

import asyncio

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from isrf.contract.errors import StoreError

FAILURES = (RedisError, RedisClusterException, OSError, asyncio.TimeoutError)
"""The errors that a client raises where the server fails; a cluster's own error is not a `RedisError`."""
FOREIGN = "store.foreign_content"
UNREADABLE = ValueError
"""The error for a key with content that this service did not write."""


class NotReplicatedError(RedisError):
    """A write reached a master, but not as many replicas as the operator requires."""


def foreign(what: str) -> StoreError:
    """Returns the error for a key with content that this service did not write."""
    return StoreError(
        FOREIGN,
        f"{what} in the store cannot be read: a key has content that this service did not write.",
        fix="Delete the foreign content, and let no other program write keys `isrf:*`.",
    )


def store_error(error: Exception) -> StoreError:
    """Returns the `StoreError` for an error of the client or of reading its answer."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, NotReplicatedError):
        return StoreError(
            "store.not_replicated",
            f"the write reached the master, and is {error}.",
            fix="Send it again after the time in Retry-After: an event with an event_id or a timestamp counts once.",
        )
    if isinstance(error, UNREADABLE) or (isinstance(error, ResponseError) and _is_foreign(str(error))):
        return foreign("the data of this request")
    return StoreError(
        "store.unavailable",
        f"user state cannot be reached or written now ({type(error).__name__}).",
        fix="Send the request again after the time in Retry-After.",
    )


def _is_foreign(text: str) -> bool:
    return "WRONGTYPE" in text or "FOREIGN" in text
