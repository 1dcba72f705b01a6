"""What both clients tell httpx, and what httpx tells them: addresses, headers, requests, answers, failures."""

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx

from isrf_client.attempts import Outcome, Try, unreadable
from isrf_client.errors import InvalidCallError, NoAnswerError
from isrf_client.version import __version__

MadeT = TypeVar("MadeT")

AGENT = f"isrf-client/{__version__}"
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_OF_THE_WIRE = {b"content-encoding", b"content-length", b"transfer-encoding"}
FAILURES = (NoAnswerError, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, RuntimeError, ValueError)
"""What sending a request raises, of httpx and of what lies under it."""


def checked_url(base_url: str) -> str:
    """The service's address without a slash at its end; a path in it (a gateway's) is kept."""
    try:
        url = httpx.URL(base_url)
        good = url.scheme in {"http", "https"} and bool(url.host) and not set("?#") & set(str(base_url))
        good = good and 0 < (url.port or 80) < 65536
    except (httpx.InvalidURL, TypeError, ValueError):
        good = False
    if not good:
        # An address may hold a password.
        shown = "" if "@" in str(base_url) else f", not {base_url!a:.80}"
        raise InvalidCallError(
            "client.invalid_url", f"base_url is http(s)://host[:port][/path]{shown}.", fix="Mend it."
        )
    return str(base_url).rstrip("/")


def headers_for(api_key: str | None) -> dict[str, str]:
    headers = {"User-Agent": AGENT}
    if api_key is not None:
        known = isinstance(api_key, str) and api_key.isascii() and bool(api_key.strip())
        if not known or not api_key.strip().isprintable():
            raise InvalidCallError(
                "client.invalid_key",
                "api_key is not what `python -m service keys add` made: empty, no text, or with foreign characters.",
                fix="Give the key as that command printed it, or None.",
            )
        headers["X-API-Key"] = api_key.strip()
    return headers


def request_of(step: Try, base_url: str) -> dict[str, Any]:
    """Arguments for httpx's `stream`. Redirects are not followed: a key is for one address."""
    call = step.call
    return {
        "method": call.method,
        "url": f"{base_url}{call.path}?{urlencode(call.params)}" if call.params else base_url + call.path,
        "json": call.body,
        "timeout": step.timeout_s,
        "follow_redirects": False,
    }


class Body:
    """An answer's body as it comes in, up to `MAX_ANSWER_BYTES`."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > MAX_ANSWER_BYTES:
            raise NoAnswerError(
                "client.too_large",
                f"the answer has more than {MAX_ANSWER_BYTES} bytes.",
                fix="Ask for fewer items or users at once.",
            )
        self._parts.append(part)

    def answer(self, response: httpx.Response) -> httpx.Response:
        """The response with this body, decoded as it is."""
        headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_THE_WIRE]
        return httpx.Response(response.status_code, headers=headers, content=b"".join(self._parts))


def outcome_of(error: Exception) -> Outcome:
    """What a failure to send means: something that may pass, or the call's own error."""
    if isinstance(error, httpx.TransportError | NoAnswerError | InvalidCallError):
        return error
    if isinstance(error, httpx.DecodingError):
        return unreadable("its body cannot be decompressed")
    if isinstance(error, OSError):
        return httpx.NetworkError(type(error).__name__)
    if isinstance(error, httpx.InvalidURL | UnicodeError):
        return InvalidCallError(
            "client.invalid_url", "base_url's host is no name that can be looked up.", fix="Mend base_url."
        )
    return NoAnswerError("client.unreachable", f"nothing was sent ({type(error).__name__}).", fix=f"It says: {error}")


def set_up(make: Callable[[], MadeT]) -> MadeT:
    """What httpx makes of the environment: proxies, certificates."""
    try:
        return make()
    except (httpx.InvalidURL, ValueError, OSError, ImportError) as error:
        raise InvalidCallError(
            "client.invalid_environment",
            f"httpx cannot be set up here ({type(error).__name__}).",
            fix="Look at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR.",
        ) from None


def closed() -> InvalidCallError:
    return InvalidCallError(
        "client.closed", "this client was closed.", fix="Make one, and close it when the shop ends."
    )
