"""Asks a service for lists over HTTP, for many users at a time, and again where it cannot answer now.

What a service cannot answer for one user fails for that user alone. A service that nobody reaches, or that cannot read
its store, ends the run after `PATIENCE_S`: lists made without what is known of the users would be wrong.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import orjson
import yarl

from isrf.contract.errors import ConfigError, StageError
from isrf.contract.shown import printable

PATIENCE_S = 60.0
"""How long a service may be unreachable, overloaded or without its store; 429 says itself how long to wait."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
MOST_USERS, MOST_ITEMS = 256, 12_800
"""Of one request; the service's own limits."""
_TIMEOUT = aiohttp.ClientTimeout(total=600, sock_connect=10)
_AGAIN = frozenset({408, 429, 502, 503, 504})
_UNREAD_STATE = frozenset({"store_unavailable", "placements_not_current"})
"""Warnings of an answer that was made without what the service knows."""
_SHOWN_CHARACTERS = 300


class UserList(NamedTuple):
    """A user's list, or why there is none.

    Attributes:
        items: as the service answers them; empty where `failure` says why.
        meta: of the answer.
        warnings: of the answer.
        failure: "" for a list that was made.
    """

    user_id: str
    items: Sequence[Mapping[str, Any]]
    meta: Mapping[str, Any]
    warnings: Sequence[Mapping[str, Any]]
    failure: str = ""

    @property
    def is_unknown(self) -> bool:
        """Whether neither the release nor an event knows the user."""
        return any(one["code"] == "unknown_user" for one in self.warnings)


class Pace(NamedTuple):
    """How fast a service is asked."""

    batch_users: int
    requests_at_once: int


RUNNING = Pace(batch_users=32, requests_at_once=2)
"""For a service that shops call meanwhile: their requests find room between these."""
PRIVATE = Pace(batch_users=256, requests_at_once=4)
RUNNING_PLACEMENT = Pace(batch_users=32, requests_at_once=8)
PRIVATE_PLACEMENT = Pace(batch_users=64, requests_at_once=32)


class _FailedAnswerError(Exception):
    """The service failed on this request; others may be answered."""


class ListClient:
    """Asks one service; use it from one event loop."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: yarl.URL,
        *,
        placement: str | None,
        n: int | None,
        pace: Pace,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        placement: whose lists these are; None for `POST /recommend`.
        n: items of a list; None for the length of the placement, or 10.
        check: raises where there is no use in asking again.
        """
        self._session, self._url, self._check = session, url, check
        self._placement, self._n = placement, n
        self.pace = pace._replace(batch_users=min(pace.batch_users, MOST_USERS, MOST_ITEMS // (n or 10)))
        self._room = asyncio.Semaphore(pace.requests_at_once)

    async def wait_until_ready(self) -> str:
        """Waits until the service has read its live evidence too, and returns the id of its release."""
        while True:
            ready = await self._ask("GET", "readyz")
            live = ready.get("live_evidence")
            if not live or not live["entries_behind"]:
                return str(ready["release_id"])
            await asyncio.sleep(FIRST_PAUSE_S)

    async def release_id(self) -> str:
        """The release that the service has now."""
        return str((await self._ask("GET", "readyz"))["release_id"])

    async def users_since_release(self) -> list[str]:
        """The users with accepted events since the release, each once; needs a key of the role admin."""
        found: dict[str, None] = {}
        url = self._url / "export/users"
        try:
            async with self._session.get(url, allow_redirects=False, timeout=_TIMEOUT) as response:
                if response.status in _AGAIN or response.status >= 500:
                    raise self._no_service(self._said(response.status, await response.read()))
                if response.status != 200:
                    raise self._refusal(response.status, await response.read())
                async for line in response.content:
                    record = orjson.loads(line)
                    if "session_id" not in record:  # a visitor without an account
                        found[record["user_id"]] = None
        except (aiohttp.ClientError, TimeoutError) as error:
            self._check()
            raise self._no_service(f"{type(error).__name__}: {error}") from error
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise self._unreadable("lines that are no users") from error
        return list(found)

    async def lists(self, users: Sequence[str]) -> list[UserList]:
        """The users' lists, in their order; a user on whom the service fails has a `failure`.

        Raises:
            ConfigError: `recommend.refused`, the service refuses such calls.
            StageError: `recommend.no_service`, `recommend.no_state`, nothing came for `PATIENCE_S`.
        """
        found: dict[str, UserList] = {}
        unread_since, pause = None, FIRST_PAUSE_S
        while missing := [user for user in users if user not in found]:
            answers = await self._lists_now(missing)
            for one in answers:
                if not any(warning["code"] in _UNREAD_STATE for warning in one.warnings):
                    found[one.user_id] = one
            if len(found) == len(users):
                break
            unread_since = unread_since or time.monotonic()
            if time.monotonic() - unread_since > PATIENCE_S:
                raise StageError(
                    "recommend.no_state",
                    f"the service at {self._url} could not read its store for {PATIENCE_S:g} s, so that lists would be "
                    "made without what it knows of the users.",
                    fix="Run the same command again when its store answers: it goes on after the users that are done.",
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return [found[user] for user in users]

    async def _lists_now(self, users: Sequence[str]) -> list[UserList]:
        if self._placement is not None:
            return list(await asyncio.gather(*map(self._placement_list, users)))
        try:
            body = {"users": list(users), **({} if self._n is None else {"n": self._n})}
            answers = (await self._ask("POST", "recommend", body=body))["answers"]
            found = [_list_of(answer["user_id"], answer) for answer in answers]
            if [one.user_id for one in found] != list(users):
                raise self._unreadable("answers for other users")
        except _FailedAnswerError as error:
            if len(users) == 1:
                return [UserList(users[0], (), {}, (), str(error))]
            half = len(users) // 2
            return [*await self._lists_now(users[:half]), *await self._lists_now(users[half:])]
        except (KeyError, TypeError) as error:
            raise self._unreadable(f"an answer without {error}") from error
        return found

    async def _placement_list(self, user: str) -> UserList:
        params = {"user_id": user, **({} if self._n is None else {"n": str(self._n)})}
        try:
            answer = await self._ask("GET", f"placements/{self._placement}/items", params=params)
            return _list_of(user, answer)
        except _FailedAnswerError as error:
            return UserList(user, (), {}, (), str(error))
        except (KeyError, TypeError) as error:
            raise self._unreadable(f"an answer without {error}") from error

    async def _ask(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        """The JSON of one answer; asks again while the service cannot answer now."""
        asked_at, pause = time.monotonic(), FIRST_PAUSE_S
        data = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        while True:
            wait_s, is_told = pause, False
            try:
                async with (
                    self._room,
                    self._session.request(
                        method,
                        self._url / path,
                        params=params,
                        data=data,
                        headers=headers,
                        allow_redirects=False,
                        timeout=_TIMEOUT,
                    ) as response,
                ):
                    content = await response.read()
                if response.status == 200:
                    return orjson.loads(content)
                if response.status >= 500 and response.status not in _AGAIN:
                    raise _FailedAnswerError(self._said(response.status, content))
                if response.status not in _AGAIN:
                    raise self._refusal(response.status, content)
                problem = self._said(response.status, content)
                is_told = response.status == 429
                wait_s = max(pause, _seconds(response.headers.get("Retry-After")))
            except orjson.JSONDecodeError:
                raise self._unreadable("an answer that is no JSON") from None
            except (aiohttp.ClientError, TimeoutError) as error:
                self._check()
                problem = f"{type(error).__name__}: {error}"
            if not is_told and time.monotonic() + wait_s - asked_at > PATIENCE_S:
                raise self._no_service(problem)
            await asyncio.sleep(wait_s)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _no_service(self, problem: str) -> StageError:
        return StageError(
            "recommend.no_service",
            f"the service at {self._url} cannot answer: {printable(problem, _SHOWN_CHARACTERS)}",
            fix="Run the same command again when it answers: it goes on after the users that are done.",
        )

    def _refusal(self, status: int, content: bytes) -> ConfigError:
        return ConfigError(
            "recommend.refused",
            f"the service at {self._url} refuses the call: {self._said(status, content)}",
            fix="Correct the option that it names.",
        )

    def _unreadable(self, what: str) -> ConfigError:
        return ConfigError(
            "recommend.unreadable_answer", f"{self._url} sent {what}.", fix="Give the address of an ISRF service."
        )

    def _said(self, status: int, content: bytes) -> str:
        """The problem of an answer in one line."""
        try:
            problem = orjson.loads(content)
            text = f"{status} {problem['code']}: {problem['detail']} {problem.get('fix', '')}".strip()
        except (orjson.JSONDecodeError, KeyError, TypeError):
            text = f"{status} {content.decode('utf-8', 'replace')}"
        return printable(text, _SHOWN_CHARACTERS)


def _list_of(user_id: str, answer: Mapping[str, Any]) -> UserList:
    return UserList(user_id, answer["items"], answer["meta"], answer["warnings"])


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
