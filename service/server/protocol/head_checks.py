"""Whether a request's head can stand as it came. Pure functions of it."""

import re
from typing import NamedTuple

from service.server.headers import HeaderLines

MAX_HEAD_BYTES = 64 * 1024
"""Of request line and headers together, as in most servers before this one; of chunk lines and trailers with them."""
TOO_LARGE = f"Request line and headers have more than {MAX_HEAD_BYTES} bytes."

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]*)(:[0-9]{0,5})?")


class HeadProblem(NamedTuple):
    """Why a head is refused, and with what status."""

    status: int
    code: str
    detail: str
    fix: str = "Send it as HTTP/1.1 has it."


HEAD_TOO_LARGE = HeadProblem(431, "request.head_too_large", TOO_LARGE, "Send lists in a body.")


def head_problem(
    url: bytes, headers: HeaderLines, http_version: str, *, has_body: bool, upgrades: bool
) -> HeadProblem | None:
    """None for a sound head.

    Args:
        has_body: whether it says that a body follows it.
        upgrades: whether it asks for another protocol.
    """
    if len(url) + sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES:
        return HEAD_TOO_LARGE
    hosts = [value for name, value in headers if name == b"host"]
    is_named = len(hosts) == 1 and _HOST.fullmatch(hosts[0]) is not None
    if not is_named and (hosts or http_version != "1.0"):
        found = "none" if not hosts else f"{len(hosts)}" if len(hosts) > 1 else "one that is no name and port"
        return HeadProblem(400, "http.bad_host", f"A request has one Host header, and this one has {found}.")
    if has_body and upgrades:
        # The parser takes all that follows for another protocol's: a body would be lost without a word.
        return HeadProblem(
            400,
            "http.upgrade",
            "A request with a body asks for another protocol (Upgrade).",
            "Send it without Upgrade, as HTTP/1.1 (in Java: HttpClient.Version.HTTP_1_1).",
        )
    return None
