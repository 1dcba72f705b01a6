"""What every answer carries, whoever writes it, and the id by which its request is spoken of."""

import random
import re
from collections.abc import Sequence

HeaderLines = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""

POLICY = b"content-security-policy"
ANSWERS_CARRY: HeaderLines = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # Answers are about somebody: no cache between here and the shop may keep them.
    (b"cache-control", b"no-store"),
    (POLICY, b"default-src 'none'; frame-ancestors 'none'"),
)
"""Unless a route says otherwise."""
REQUEST_ID = b"x-request-id"
KEY_HEADER = b"x-api-key"
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


def request_id_of(sent: bytes | None) -> str:
    """The caller's own id where it is a sane one, else a new one."""
    if sent is not None and _SANE_REQUEST_ID.fullmatch(sent):
        return sent.decode()
    # Not from the system's source, which lets go of the GIL: under load the event loop waits 5 ms to have it again.
    return f"{random.getrandbits(128):032x}"
