"""Checks the head of a request, in pure functions."""

import re
from typing import NamedTuple

from service.server.headers import HeaderLines

MAX_HEAD_BYTES = 64 * 1024
"""Limit of request line and headers together, as in most proxies; chunk lines and trailers count too."""
TOO_LARGE = f"Request line and headers have more than {MAX_HEAD_BYTES} bytes."

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]*)(:[0-9]{0,5})?")


class HeadProblem(NamedTuple):
    """Why a head is refused, with the status of the refusal."""

    status: int
    code: str
    detail: str
    fix: str = "Send a valid HTTP/1.1 request."


HEAD_TOO_LARGE = HeadProblem(431, "request.head_too_large", TOO_LARGE, "Send lists in a body.")


def head_problem(
    url: bytes, headers: HeaderLines, http_version: str, *, has_body: bool, upgrades: bool
) -> HeadProblem | None:
    """Returns the problem of a head; None for a valid one.

    Args:
        has_body: whether the head announces a body.
        upgrades: whether the head asks for another protocol.
    """
    if len(url) + sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES:
        return HEAD_TOO_LARGE
    hosts = [value for name, value in headers if name == b"host"]
    is_named = len(hosts) == 1 and _HOST.fullmatch(hosts[0]) is not None
    if not is_named and (hosts or http_version != "1.0"):
        found = "none" if not hosts else f"{len(hosts)}" if len(hosts) > 1 else "an invalid one"
        return HeadProblem(400, "http.bad_host", f"A request needs one Host header; this one has {found}.")
    if has_body and upgrades:
        # The parser treats all further bytes as the other protocol, so that a body would silently be lost.
        return HeadProblem(
            400,
            "http.upgrade",
            "A request with a body asks for another protocol (Upgrade).",
            "Send it without Upgrade, as HTTP/1.1 (in Java: HttpClient.Version.HTTP_1_1).",
        )
    return None
