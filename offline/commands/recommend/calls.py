"""One call to a service over HTTP, sent again where the service cannot answer now.

It does not know what is asked for.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import yarl

from isrf.contract.errors import ConfigError, StageError
from isrf.contract.shown import printable

PATIENCE_S = 60.0
"""How long a service may be unreachable, overloaded or without its store, from the first such answer to a call."""
LIMITED_PATIENCE_S = 900.0
"""How long one call may be refused because there are too many (429): each such answer says how long to wait."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
TIMEOUT = aiohttp.ClientTimeout(total=600, sock_connect=10)
AGAIN = frozenset({408, 429, 502, 503, 504})
_SHOWN_CHARACTERS = 300


class FailedAnswerError(Exception):
    """The service failed on this request; others may be answered."""


class _NotNowError(Exception):
    """The service cannot answer this request now.

    Attributes:
        wait_s: the least time after which it may.
        limited: whether the caller asked too often, rather than that the service is in trouble.
        tried_s: how long the request took, without waiting for its turn.
    """

    def __init__(self, problem: str, *, tried_s: float, wait_s: float = 0.0, limited: bool = False) -> None:
        super().__init__(problem)
        self.tried_s, self.wait_s, self.limited = tried_s, wait_s, limited


class ServiceCalls:
    """Calls one service, at most so many at once; use it from one event loop."""

    def __init__(
        self, session: aiohttp.ClientSession, url: yarl.URL, *, at_once: int, check: Callable[[], None]
    ) -> None:
        """Args:
        check: raises where there is no use in asking again.
        """
        self.session, self.url, self.check = session, url, check
        self._room = asyncio.Semaphore(at_once)

    async def ask(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        """The JSON of one answer; asks again while the service cannot answer now."""
        failing_s = limited_s = 0.0
        has_failed, pause = False, FIRST_PAUSE_S
        while True:
            try:
                return await self._try(method, path, params=params, body=body)
            except _NotNowError as error:
                wait_s = max(pause, error.wait_s)
                if error.limited:
                    limited_s += wait_s
                else:
                    failing_s += wait_s + (error.tried_s if has_failed else 0.0)
                    has_failed = True
                if failing_s > PATIENCE_S or limited_s > LIMITED_PATIENCE_S:
                    raise self.no_service(str(error)) from None
            await asyncio.sleep(wait_s)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _try(
        self, method: str, path: str, *, params: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> Any:
        """The JSON of one answer; raises `_NotNowError` where another try may help."""
        data = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        async with self._room:
            began = time.monotonic()
            try:
                async with self.session.request(
                    method,
                    self.url / path,
                    params=params,
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                    timeout=TIMEOUT,
                ) as response:
                    content = await response.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                self.check()
                tried_s = time.monotonic() - began
                raise _NotNowError(f"{type(error).__name__}: {error}", tried_s=tried_s) from None
            tried_s = time.monotonic() - began
        if response.status == 200:
            try:
                return orjson.loads(content)
            except orjson.JSONDecodeError:
                raise self.unreadable("an answer that is no JSON") from None
        said = self.said(response.status, content)
        if response.status in AGAIN:
            wait_s = _seconds(response.headers.get("Retry-After"))
            raise _NotNowError(said, tried_s=tried_s, wait_s=wait_s, limited=response.status == 429)
        if response.status >= 500:
            raise FailedAnswerError(said)
        raise self.refusal(response.status, content)

    def no_service(self, problem: str) -> StageError:
        return StageError(
            "recommend.no_service",
            f"the service at {self.url} cannot answer: {printable(problem, _SHOWN_CHARACTERS)}",
            fix="Run the same command again when it answers: it goes on after the users that are done.",
        )

    def refusal(self, status: int, content: bytes) -> ConfigError:
        return ConfigError(
            "recommend.refused",
            f"the service at {self.url} refuses the call: {self.said(status, content)}",
            fix="Correct the option that it names.",
        )

    def unreadable(self, what: str) -> ConfigError:
        return ConfigError(
            "recommend.unreadable_answer", f"{self.url} sent {what}.", fix="Give the address of an ISRF service."
        )

    def said(self, status: int, content: bytes) -> str:
        """The problem of an answer in one line."""
        try:
            problem = orjson.loads(content)
            text = f"{status} {problem['code']}: {problem['detail']} {problem.get('fix', '')}".strip()
        except (orjson.JSONDecodeError, KeyError, TypeError):
            text = f"{status} {content.decode('utf-8', 'replace')}"
        return printable(text, _SHOWN_CHARACTERS)


def _seconds(header: str | None) -> float:
    return float(header) if header is not None and header.isdigit() else 0.0


@asynccontextmanager
async def open_session(api_key: str | None) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that keeps its connections open, and sends the key."""
    headers = {} if api_key is None else {"X-API-Key": api_key}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=headers, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session


def read_url(text: str) -> yarl.URL:
    """The address of a service; raises `ConfigError` (`config.service_url`) where it is none."""
    try:
        url = yarl.URL(text)
        is_address = url.scheme in ("http", "https") and bool(url.host) and not (url.query_string or url.fragment)
    except ValueError:
        is_address = False
    if not is_address or url.user is not None or url.password is not None:
        raise ConfigError(
            "config.service_url",
            f"{printable(text.rpartition('@')[2])!r} is not the address of a service.",
            fix="Write --service https://host[:port], without user and password; the key is read from ISRF_API_KEY.",
        )
    return url
