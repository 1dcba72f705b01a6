"""What a Redis cannot do now, as the error that a caller sees: the server's own words stay inside.

They may hold addresses, credentials or what a key holds; the kind is enough to act on.
"""

import asyncio

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from isrf.contract.errors import StoreError

FAILURES = (RedisError, RedisClusterException, OSError, asyncio.TimeoutError)
"""What a client raises where the server cannot do something now; that of a cluster as a whole is no `RedisError`."""
FOREIGN = "store.foreign_content"
UNREADABLE = ValueError
"""What reading raises where a key holds what this service did not write."""


class NotReplicatedError(RedisError):
    """Written on a master, and not known to be on as many replicas as the operator wants."""


def foreign(what: str) -> StoreError:
    """That a key holds what this service did not write."""
    return StoreError(
        FOREIGN,
        f"{what} in the store cannot be read: a key holds what this service did not write.",
        fix="Delete what does not belong there, and keep others out of the keys `isrf:*`.",
    )


def store_error(error: Exception) -> StoreError:
    """The error of the store that an exception of the client, or of reading its answer, is."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, NotReplicatedError):
        return StoreError(
            "store.not_replicated",
            f"this was written, and is {error}.",
            fix="Send it again after the time in Retry-After: what has an event_id or a timestamp counts once.",
        )
    if isinstance(error, UNREADABLE) or (isinstance(error, ResponseError) and _is_foreign(str(error))):
        return foreign("what belongs to this request")
    return StoreError(
        "store.unavailable",
        f"user state cannot be reached or written now ({type(error).__name__}).",
        fix="Send the request again after the time in Retry-After.",
    )


def _is_foreign(text: str) -> bool:
    return "WRONGTYPE" in text or "FOREIGN" in text
