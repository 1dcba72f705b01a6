"""The headers of every answer, and the request id."""

import random
import re
from collections.abc import Sequence

HeaderLines = Sequence[tuple[bytes, bytes]]
"""Pairs of a name in lower case and a value."""

POLICY = b"content-security-policy"
ANSWERS_CARRY: HeaderLines = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # Answers contain personal data: no cache between the service and the shop may store them.
    (b"cache-control", b"no-store"),
    (POLICY, b"default-src 'none'; frame-ancestors 'none'"),
)
"""Headers of every answer, unless a route sets them itself."""
REQUEST_ID = b"x-request-id"
_VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


def request_id_of(sent: bytes | None) -> str:
    """Returns the caller's id where it is valid, else a new one."""
    if sent is not None and _VALID_REQUEST_ID.fullmatch(sent):
        return sent.decode()
    # Not `os.urandom`, which releases the GIL: under load the event loop waits 5 ms to get it back.
    return f"{random.getrandbits(128):032x}"
