"""The parts around httpx that both clients share: addresses, headers, requests, answers, failures."""

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx

from isrf_client.attempts import Try, unreadable
from isrf_client.errors import ClientError, InvalidCallError, NoAnswerError
from isrf_client.version import __version__

MadeT = TypeVar("MadeT")

AGENT = f"isrf-client/{__version__}"
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_OF_THE_WIRE = {b"content-encoding", b"content-length", b"transfer-encoding"}
FAILURES = (NoAnswerError, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, RuntimeError, ValueError)
"""The errors that sending a request raises, from httpx and the layers below."""


def checked_url(base_url: str) -> str:
    """Returns the service's address without a slash at its end; a path in it (of a gateway) stays."""
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
            "client.invalid_url", f"base_url must be http(s)://host[:port][/path]{shown}.", fix="Correct base_url."
        )
    return str(base_url).rstrip("/")


def headers_for(api_key: str | None) -> dict[str, str]:
    headers = {"User-Agent": AGENT}
    if api_key is not None:
        is_text = isinstance(api_key, str) and api_key.isascii() and bool(api_key.strip())
        if not is_text or not api_key.strip().isprintable():
            raise InvalidCallError(
                "client.invalid_key",
                "api_key is not a key of `python -m service keys add`: empty, not text, or with other characters.",
                fix="Give the key as that command printed it, or None.",
            )
        headers["X-API-Key"] = api_key.strip()
    return headers


def request_of(step: Try, base_url: str) -> dict[str, Any]:
    """Returns arguments for httpx's `stream`. It follows no redirects: a key is for one address."""
    call = step.call
    body: dict[str, Any] = {"json": call.body}
    if call.lines is not None:
        body = {"content": call.lines, "headers": {"Content-Type": "application/x-ndjson"}}
    return {
        "method": call.method,
        "url": f"{base_url}{call.path}?{urlencode(call.params)}" if call.params else base_url + call.path,
        **body,
        "timeout": step.timeout_s,
        "follow_redirects": False,
    }


class Body:
    """Collects an answer's body, up to `MAX_ANSWER_BYTES`."""

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
        """Returns the response with the collected body, which is decoded already."""
        headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_THE_WIRE]
        return httpx.Response(response.status_code, headers=headers, content=b"".join(self._parts))


def outcome_of(error: Exception) -> httpx.TransportError | ClientError:
    """Returns the outcome of a failure: a temporary one, or an error that ends the call."""
    if isinstance(error, httpx.TransportError | NoAnswerError | InvalidCallError):
        return error
    if isinstance(error, httpx.DecodingError):
        return unreadable("its body cannot be decompressed")
    if isinstance(error, OSError):
        return httpx.NetworkError(type(error).__name__)
    if isinstance(error, httpx.InvalidURL | UnicodeError):
        return InvalidCallError("client.invalid_url", "base_url's host is not a valid name.", fix="Correct base_url.")
    return NoAnswerError("client.unreachable", f"nothing was sent ({type(error).__name__}).", fix=f"The cause: {error}")


def set_up(make: Callable[[], MadeT]) -> MadeT:
    """Makes an httpx object, which reads proxies and certificates from the environment; raises `InvalidCallError`."""
    try:
        return make()
    except (httpx.InvalidURL, ValueError, OSError, ImportError) as error:
        raise InvalidCallError(
            "client.invalid_environment",
            f"httpx cannot be set up here ({type(error).__name__}).",
            fix="Check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR.",
        ) from None


def closed() -> InvalidCallError:
    return InvalidCallError(
        "client.closed", "this client is closed.", fix="Make a new one, and close it when the shop ends."
    )
