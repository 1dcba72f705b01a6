"""The client for asyncio, with the methods of `isrf_client.synchronous`; one event loop uses it."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Self, Unpack

import httpx

from isrf_client.answers import (
    AffinitiesAnswer,
    AttributesAnswer,
    Event,
    Id,
    InteractionsAnswer,
    ItemAnswer,
    ItemBody,
    ItemChanged,
    ListOptions,
    PageOptions,
    Placement,
    PlacementAnswer,
    PlacementItems,
    PlacementList,
    PlacementOptions,
    PlacementPreviewAnswer,
    PopularItems,
    PreviewOptions,
    RankOptions,
    Recommendations,
    SessionOptions,
    SimilarItems,
    UserAnswer,
    UserOptions,
)
from isrf_client.attempts import (
    BULK,
    READS,
    WRITES,
    AnswerT,
    OpenAnswer,
    Outcome,
    Patience,
    Pause,
    Steps,
    Try,
    error_of,
)
from isrf_client.bulk import ExportedLines
from isrf_client.calls import Calls, Exported
from isrf_client.connection import FAILURES, Body, checked_url, closed, headers_for, outcome_of, request_of, set_up
from isrf_client.errors import ClientError, InvalidCallError
from isrf_client.operations import Imported, Line, Readiness, Reloaded, Stats


class Stream(OpenAnswer):
    """The body of an answer; a piece must come within `timeout_s`, and the last one before `end`."""

    def __init__(self, response: httpx.Response, opened: AsyncExitStack, timeout_s: float, end: float) -> None:
        self._response, self._opened, self._timeout_s, self._end = response, opened, timeout_s, end

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yields the body's pieces; raises `ClientError` where the rest does not come, or not in time."""
        async with self._opened:
            pieces = self._response.aiter_bytes()
            while True:
                left_s = self._end - time.monotonic()
                if left_s <= 0:
                    raise error_of(None)
                try:
                    async with asyncio.timeout(min(self._timeout_s, left_s)):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise error_of(None) from None
                except FAILURES as error:
                    raise error_of(outcome_of(error)) from None
                yield piece


class AsyncClient:
    """A client for asyncio; every method raises `ClientError` (`isrf_client.errors`)."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        reads: Patience = READS,
        writes: Patience = WRITES,
        bulk: Patience = BULK,
    ) -> None:
        self._base_url = checked_url(base_url)
        headers = headers_for(api_key)
        self._http = set_up(lambda: httpx.AsyncClient(headers=headers))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls = Calls(reads=reads, writes=writes, bulk=bulk, clock=time.monotonic)

    async def recommend(self, user_id: Id, **options: Unpack[UserOptions]) -> Recommendations:
        """Returns items for a user; popular items for an unknown user."""
        return await self._run(self._calls.recommend(user_id, options))

    async def recommend_session(self, history: Iterable[Id], **options: Unpack[SessionOptions]) -> Recommendations:
        """Returns items for an anonymous session, from its item_ids, oldest first."""
        return await self._run(self._calls.recommend_session(history, options))

    async def recommend_many(self, user_ids: Iterable[Id], **options: Unpack[ListOptions]) -> list[Recommendations]:
        """Returns an answer for each user; any number of users."""
        return await self._run(self._calls.recommend_many(user_ids, options))

    async def rank(self, candidates: Iterable[Id], **options: Unpack[RankOptions]) -> Recommendations:
        """Ranks candidates for a user or a history."""
        return await self._run(self._calls.rank(candidates, options))

    async def similar(self, item_id: Id, **options: Unpack[PageOptions]) -> SimilarItems:
        """Returns items like this one."""
        return await self._run(self._calls.similar(item_id, options))

    async def popular(self, **options: Unpack[PageOptions]) -> PopularItems:
        """Returns the most popular items."""
        return await self._run(self._calls.popular(options))

    async def user(self, user_id: Id, *, last: int | None = None) -> UserAnswer:
        """Returns a user's state and interests in words; `last`: how many entries of the history (default 200)."""
        return await self._run(self._calls.user(user_id, last))

    async def affinities(
        self, user_id: Id, *, attribute: Sequence[str] | None = None, limit: int | None = None
    ) -> AffinitiesAnswer:
        """Returns a user's attributes, ranked with their evidence.

        Args:
            user_id: the shop's id.
            attribute: names of attributes that hold texts (default: categories and brand).
            limit: values of each (default 20).
        """
        return await self._run(self._calls.affinities(user_id, attribute, limit))

    async def placement_items(self, name: str, **options: Unpack[PlacementOptions]) -> PlacementItems:
        """Returns the items of a placement, for the user, product, cart or session of a page."""
        return await self._run(self._calls.placement_items(name, options))

    async def placements(self) -> PlacementList:
        """Returns all placements, in the order of their names."""
        return await self._run(self._calls.placements())

    async def placement(self, name: str) -> PlacementAnswer:
        """Returns a placement as it counts now."""
        return await self._run(self._calls.placement(name))

    async def put_placement(
        self, name: str, *, expected_version: int | None = None, **placement: Unpack[Placement]
    ) -> PlacementAnswer:
        """Puts a placement as a whole; it counts on every replica within a second. It needs a key of role admin.

        `expected_version`: put it only where this version is stored, 0 for none; else `placement.changed`.
        """
        return await self._run(self._calls.put_placement(name, placement, expected_version))

    async def preview_placement(self, placement: Placement, **page: Unpack[PreviewOptions]) -> PlacementPreviewAnswer:
        """Returns the list of a placement that is not put beside the list as it is now; it changes nothing.

        It needs a key of role admin.
        """
        return await self._run(self._calls.preview_placement(placement, page))

    async def delete_placement(self, name: str, *, expected_version: int | None = None) -> None:
        """Removes a placement; `expected_version` as in `put_placement`."""
        return await self._run(self._calls.delete_placement(name, expected_version))

    async def interactions(self, events: Iterable[Event]) -> InteractionsAnswer:
        """Posts any number of events; returns when each is accepted, a duplicate, or refused with a reason.

        An error has the `events` to send again, with their ids, and the `results` of the others.
        """
        return await self._run(self._calls.interactions(events))

    async def attributes(self, *, limit: int | None = None) -> AttributesAnswer:
        """Returns the attributes that conditions may name; `limit`: values shown of each (default 20)."""
        return await self._run(self._calls.attributes(limit))

    async def item(self, item_id: Id) -> ItemAnswer:
        """Returns an item as it is now."""
        return await self._run(self._calls.item(item_id))

    async def put_item(self, item_id: Id, **body: Unpack[ItemBody]) -> ItemChanged:
        """Adds or changes an item; the change counts from the next answer on."""
        return await self._run(self._calls.put_item(item_id, body))

    async def hide_item(self, item_id: Id) -> None:
        """Hides an item from recommendations; `put_item` brings it back."""
        return await self._run(self._calls.hide_item(item_id))

    async def erase(self, user_id: Id) -> None:
        """Erases everything about a user."""
        return await self._run(self._calls.erase(user_id))

    async def import_items(self, items: Iterable[Line]) -> Imported:
        """Adds and changes any number of items, as `put_item` each; reads the iterable as it sends.

        An error has the `report` of what was imported, and the `records` to send again.
        """
        return await self._run(self._calls.import_items(items))

    async def import_events(self, events: Iterable[Event]) -> Imported:
        """Posts any number of events from an iterable, which it reads as it sends; `interactions` for a few.

        Events whose ids are their own count once, however often they are imported.
        """
        return await self._run(self._calls.import_events(events))

    async def import_users(self, users: Iterable[Line]) -> Imported:
        """Imports users' state, as `export_users` returns it."""
        return await self._run(self._calls.import_users(users))

    def export_items(self) -> AsyncIterator[Line]:
        """Yields the whole catalogue as it is now. It needs a key of role admin, as every export."""
        return self._lines("items")

    def export_events(self) -> AsyncIterator[Line]:
        """Yields the accepted events that the offline job has not used yet."""
        return self._lines("events")

    def export_users(self) -> AsyncIterator[Line]:
        """Yields users' state since the release; a user with much state has several lines."""
        return self._lines("users")

    async def ready(self) -> Readiness:
        """Returns whether the service can recommend, and whether its store is reached."""
        return await self._run(self._calls.ready())

    async def reload(self) -> Reloaded:
        """Has the newest published release served now. It needs a key of role admin."""
        return await self._run(self._calls.reload())

    async def stats(self) -> Stats:
        """Returns counts of answers, shown items, clicks and purchases. It needs a key of role admin."""
        return await self._run(self._calls.stats())

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _lines(self, what: Exported) -> AsyncIterator[Line]:
        stream: Stream = await self._run(self._calls.export(what))
        lines = ExportedLines()
        try:
            async with aclosing(stream.pieces()) as pieces:
                async for piece in pieces:
                    for line in lines.read(piece):
                        yield line
            lines.end()
        except ClientError as error:
            raise lines.cut(error) from None

    async def _run(self, steps: Steps[AnswerT]) -> AnswerT:
        outcome = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    outcome = None
                else:
                    outcome = await self._try(step)
        except StopIteration as done:
            answer: AnswerT = done.value
            return answer

    async def _try(self, step: Try) -> Outcome:
        if self._http.is_closed:
            return closed()
        self._loop = self._loop or asyncio.get_running_loop()
        if self._loop is not asyncio.get_running_loop():
            return InvalidCallError(
                "client.other_loop",
                "this client was used in another event loop.",
                fix="Make an AsyncClient in each loop, or use Client.",
            )
        body = Body()
        end = time.monotonic() + step.left_s
        try:
            # httpx's timeout bounds each read; this one bounds the whole request.
            async with asyncio.timeout(step.timeout_s), AsyncExitStack() as opened:
                response = await opened.enter_async_context(self._http.stream(**request_of(step, self._base_url)))
                if step.call.streamed and response.is_success:
                    return Stream(response, opened.pop_all(), step.timeout_s, end)
                async for part in response.aiter_bytes():
                    body.add(part)
            return body.answer(response)
        except TimeoutError:
            return httpx.TimeoutException("given up")
        except FAILURES as error:
            return outcome_of(error)
