"""The client for synchronous code; threads may share one."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Self, Unpack

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
from isrf_client.attempts import BULK, READS, WRITES, AnswerT, Patience, Pause, Steps
from isrf_client.bulk import ExportedLines
from isrf_client.calls import Calls, Exported
from isrf_client.connection import checked_url, headers_for
from isrf_client.errors import ClientError
from isrf_client.in_time import InTime, Stream
from isrf_client.operations import Imported, Line, Readiness, Reloaded, Stats


class Client:
    """A synchronous client; every method raises `ClientError` (`isrf_client.errors`)."""

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
        self._http = InTime(headers_for(api_key))
        self._calls = Calls(reads=reads, writes=writes, bulk=bulk, clock=time.monotonic)

    def recommend(self, user_id: Id, **options: Unpack[UserOptions]) -> Recommendations:
        """Returns items for a user; popular items for an unknown user."""
        return self._run(self._calls.recommend(user_id, options))

    def recommend_session(self, history: Iterable[Id], **options: Unpack[SessionOptions]) -> Recommendations:
        """Returns items for an anonymous session, from its item_ids, oldest first."""
        return self._run(self._calls.recommend_session(history, options))

    def recommend_many(self, user_ids: Iterable[Id], **options: Unpack[ListOptions]) -> list[Recommendations]:
        """Returns an answer for each user; any number of users."""
        return self._run(self._calls.recommend_many(user_ids, options))

    def rank(self, candidates: Iterable[Id], **options: Unpack[RankOptions]) -> Recommendations:
        """Ranks candidates for a user or a history."""
        return self._run(self._calls.rank(candidates, options))

    def similar(self, item_id: Id, **options: Unpack[PageOptions]) -> SimilarItems:
        """Returns items like this one."""
        return self._run(self._calls.similar(item_id, options))

    def popular(self, **options: Unpack[PageOptions]) -> PopularItems:
        """Returns the most popular items."""
        return self._run(self._calls.popular(options))

    def user(self, user_id: Id, *, last: int | None = None) -> UserAnswer:
        """Returns a user's state and interests in words; `last`: how many entries of the history (default 200)."""
        return self._run(self._calls.user(user_id, last))

    def affinities(
        self, user_id: Id, *, attribute: Sequence[str] | None = None, limit: int | None = None
    ) -> AffinitiesAnswer:
        """Returns a user's attributes, ranked with their evidence.

        Args:
            user_id: the shop's id.
            attribute: names of attributes that hold texts (default: categories and brand).
            limit: values of each (default 20).
        """
        return self._run(self._calls.affinities(user_id, attribute, limit))

    def placement_items(self, name: str, **options: Unpack[PlacementOptions]) -> PlacementItems:
        """Returns the items of a placement, for the user, product, cart or session of a page."""
        return self._run(self._calls.placement_items(name, options))

    def placements(self) -> PlacementList:
        """Returns all placements, in the order of their names."""
        return self._run(self._calls.placements())

    def placement(self, name: str) -> PlacementAnswer:
        """Returns a placement as it counts now."""
        return self._run(self._calls.placement(name))

    def put_placement(
        self, name: str, *, expected_version: int | None = None, **placement: Unpack[Placement]
    ) -> PlacementAnswer:
        """Puts a placement as a whole; it counts on every replica within a second. It needs a key of role admin.

        `expected_version`: put it only where this version is stored, 0 for none; else `placement.changed`.
        """
        return self._run(self._calls.put_placement(name, placement, expected_version))

    def preview_placement(self, placement: Placement, **page: Unpack[PreviewOptions]) -> PlacementPreviewAnswer:
        """Returns the list of a placement that is not put beside the list as it is now; it changes nothing.

        It needs a key of role admin.
        """
        return self._run(self._calls.preview_placement(placement, page))

    def delete_placement(self, name: str, *, expected_version: int | None = None) -> None:
        """Removes a placement; `expected_version` as in `put_placement`."""
        return self._run(self._calls.delete_placement(name, expected_version))

    def interactions(self, events: Iterable[Event]) -> InteractionsAnswer:
        """Posts any number of events; returns when each is accepted, a duplicate, or refused with a reason.

        An error has the `events` to send again, with their ids, and the `results` of the others.
        """
        return self._run(self._calls.interactions(events))

    def attributes(self, *, limit: int | None = None) -> AttributesAnswer:
        """Returns the attributes that conditions may name; `limit`: values shown of each (default 20)."""
        return self._run(self._calls.attributes(limit))

    def item(self, item_id: Id) -> ItemAnswer:
        """Returns an item as it is now."""
        return self._run(self._calls.item(item_id))

    def put_item(self, item_id: Id, **body: Unpack[ItemBody]) -> ItemChanged:
        """Adds or changes an item; the change counts from the next answer on."""
        return self._run(self._calls.put_item(item_id, body))

    def hide_item(self, item_id: Id) -> None:
        """Hides an item from recommendations; `put_item` brings it back."""
        return self._run(self._calls.hide_item(item_id))

    def erase(self, user_id: Id) -> None:
        """Erases everything about a user."""
        return self._run(self._calls.erase(user_id))

    def import_items(self, items: Iterable[Line]) -> Imported:
        """Adds and changes any number of items, as `put_item` each; reads the iterable as it sends.

        An error has the `report` of what was imported, and the `records` to send again.
        """
        return self._run(self._calls.import_items(items))

    def import_events(self, events: Iterable[Event]) -> Imported:
        """Posts any number of events from an iterable, which it reads as it sends; `interactions` for a few.

        Events whose ids are their own count once, however often they are imported.
        """
        return self._run(self._calls.import_events(events))

    def import_users(self, users: Iterable[Line]) -> Imported:
        """Imports users' state, as `export_users` returns it."""
        return self._run(self._calls.import_users(users))

    def export_items(self) -> Iterator[Line]:
        """Yields the whole catalogue as it is now. It needs a key of role admin, as every export."""
        return self._lines("items")

    def export_events(self) -> Iterator[Line]:
        """Yields the accepted events that the offline job has not used yet."""
        return self._lines("events")

    def export_users(self) -> Iterator[Line]:
        """Yields users' state since the release; a user with much state has several lines."""
        return self._lines("users")

    def ready(self) -> Readiness:
        """Returns whether the service can recommend, and whether its store is reached."""
        return self._run(self._calls.ready())

    def reload(self) -> Reloaded:
        """Has the newest published release served now. It needs a key of role admin."""
        return self._run(self._calls.reload())

    def stats(self) -> Stats:
        """Returns counts of answers, shown items, clicks and purchases. It needs a key of role admin."""
        return self._run(self._calls.stats())

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lines(self, what: Exported) -> Iterator[Line]:
        stream: Stream = self._run(self._calls.export(what))
        lines = ExportedLines()
        try:
            with closing(stream.pieces()) as pieces:
                for piece in pieces:
                    yield from lines.read(piece)
            lines.end()
        except ClientError as error:
            raise lines.cut(error) from None

    def _run(self, steps: Steps[AnswerT]) -> AnswerT:
        outcome = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    outcome = None
                else:
                    outcome = self._http.send(step, self._base_url)
        except StopIteration as done:
            answer: AnswerT = done.value
            return answer
