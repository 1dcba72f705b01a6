"""Asks a service for lists over HTTP, for many users at a time.

What a service cannot answer for one user fails for that user alone. A service that nobody reaches, or that cannot read
its store, ends the run after `calls.PATIENCE_S`: lists made without what is known of the users would be wrong.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
import orjson
import yarl

from isrf.contract.errors import StageError
from offline.commands.recommend import calls
from offline.commands.recommend.calls import AGAIN, TIMEOUT, FailedAnswerError, ServiceCalls

MOST_USERS, MOST_ITEMS = 256, 12_800
"""Of one request; the service's own limits."""
_UNREAD_STATE = frozenset({"store_unavailable", "placements_not_current"})
"""Warnings of an answer that was made without what the service knows."""


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


class _Ready(NamedTuple):
    """What a service says of itself: its release, and how much of the live evidence it has still to read."""

    release_id: str
    entries_behind: int


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
        self._placement, self._n = placement, n
        self.pace = pace._replace(batch_users=min(pace.batch_users, MOST_USERS, MOST_ITEMS // (n or 10)))
        self._calls = ServiceCalls(session, url, at_once=pace.requests_at_once, check=check)

    async def wait_until_ready(self) -> str:
        """Waits until the service has read its live evidence too, and returns the id of its release."""
        while True:
            ready = await self._ready()
            if not ready.entries_behind:
                return ready.release_id
            await asyncio.sleep(calls.FIRST_PAUSE_S)

    async def release_id(self) -> str:
        """The release that the service has now."""
        return (await self._ready()).release_id

    async def _ready(self) -> _Ready:
        try:
            answer = await self._calls.ask("GET", "readyz")
            live = answer.get("live_evidence")
            return _Ready(str(answer["release_id"]), int(live["entries_behind"]) if live else 0)
        except FailedAnswerError as error:
            raise self._calls.no_service(str(error)) from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._calls.unreadable("an answer of readyz that names no release") from error

    async def users_since_release(self) -> list[str]:
        """The users with accepted events since the release, each once; needs a key of the role admin."""
        found: dict[str, None] = {}
        url = self._calls.url / "export/users"
        try:
            async with self._calls.session.get(url, allow_redirects=False, timeout=TIMEOUT) as response:
                if response.status in AGAIN or response.status >= 500:
                    raise self._calls.no_service(self._calls.said(response.status, await response.read()))
                if response.status != 200:
                    raise self._calls.refusal(response.status, await response.read())
                async for line in response.content:
                    record = orjson.loads(line)
                    if "session_id" not in record:  # a visitor without an account
                        found[record["user_id"]] = None
        except (aiohttp.ClientError, TimeoutError) as error:
            self._calls.check()
            raise self._calls.no_service(f"{type(error).__name__}: {error}") from error
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise self._calls.unreadable("lines that are no users") from error
        return list(found)

    async def lists(self, users: Sequence[str]) -> list[UserList]:
        """The users' lists, in their order; a user on whom the service fails has a `failure`.

        Raises:
            ConfigError: `recommend.refused`, the service refuses such calls.
            StageError: `recommend.no_service`, `recommend.no_state`, nothing came for `calls.PATIENCE_S`.
        """
        found: dict[str, UserList] = {}
        unread_since, pause = None, calls.FIRST_PAUSE_S
        while missing := [user for user in users if user not in found]:
            answers = await self._lists_now(missing)
            for one in answers:
                if not any(warning["code"] in _UNREAD_STATE for warning in one.warnings):
                    found[one.user_id] = one
            if len(found) == len(users):
                break
            unread_since = unread_since or time.monotonic()
            if time.monotonic() - unread_since > calls.PATIENCE_S:
                raise StageError(
                    "recommend.no_state",
                    f"the service at {self._calls.url} could not read its store for {calls.PATIENCE_S:g} s, so that "
                    "lists would be made without what it knows of the users.",
                    fix="Run the same command again when its store answers: it goes on after the users that are done.",
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, calls.LONGEST_PAUSE_S)
        return [found[user] for user in users]

    async def _lists_now(self, users: Sequence[str]) -> list[UserList]:
        if self._placement is not None:
            return list(await asyncio.gather(*map(self._placement_list, users)))
        try:
            body = {"users": list(users), **({} if self._n is None else {"n": self._n})}
            answers = (await self._calls.ask("POST", "recommend", body=body))["answers"]
            found = [_list_of(answer["user_id"], answer) for answer in answers]
            if [one.user_id for one in found] != list(users):
                raise self._calls.unreadable("answers for other users")
        except FailedAnswerError as error:
            if len(users) == 1:
                return [UserList(users[0], (), {}, (), str(error))]
            half = len(users) // 2
            return [*await self._lists_now(users[:half]), *await self._lists_now(users[half:])]
        except (KeyError, TypeError) as error:
            raise self._calls.unreadable(f"an answer without {error}") from error
        return found

    async def _placement_list(self, user: str) -> UserList:
        params = {"user_id": user, **({} if self._n is None else {"n": str(self._n)})}
        try:
            answer = await self._calls.ask("GET", f"placements/{self._placement}/items", params=params)
            return _list_of(user, answer)
        except FailedAnswerError as error:
            return UserList(user, (), {}, (), str(error))
        except (KeyError, TypeError) as error:
            raise self._calls.unreadable(f"an answer without {error}") from error


def _list_of(user_id: str, answer: Mapping[str, Any]) -> UserList:
    return UserList(user_id, answer["items"], answer["meta"], answer["warnings"])
