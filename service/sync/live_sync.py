"""Counts the accepted events of all users into the live evidence of one open release, on every replica alike.

It begins where the release's knowledge ends. At a start it catches up while the service answers; then it reads on every
`poll_s`. It counts in short pieces and rests between them, so that requests are not held up. An erased user's events go
when their bucket is counted again. While the store fails, the counts stay, and it tries again.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, ParamSpec, TypeVar

import structlog

from isrf.contract.errors import StoreError
from isrf.contract.event_log import NUM_BUCKETS, bucket_of
from service.inference.engine import Engine
from service.inference.task_cancellation import end
from service.release.live_counting import LiveCounting
from service.release.mapped_entries import ItemLookup, MappedEntries
from service.state.redis.failures import FOREIGN
from service.state.user_store import AcceptedEntry, UserStore
from service.sync.catalogue_sync import CatalogueSync
from service.telemetry.metrics import Metrics

READ_TOGETHER = 8000
"""Entries that are read at once."""
PIECE = 500
"""Entries that are counted without a pause, a few milliseconds."""
RESTS_FROM_S = 0.0005
"""Work that is shorter needs no rest."""
REST_SHARE = 0.5
"""While it catches up it rests this share of the time that it works: requests share the processor with it."""
ERASURES_S = 5.0
"""Seconds between two looks for users erased on other replicas."""
AGAIN_S = 1.0
"""How soon a failed store is read again."""
FIRST_LOOK_S = 5.0
"""How long the start waits for the events until now."""
CLOSE_S = 2.0
REMEMBERED_UNKNOWN = 10_000
"""Unknown items that the catalogue is not asked for again."""

EVENTS_MISSING = "live_events_missing"
_MISSING = (
    "The store has removed accepted events that the release has not learned: live evidence counts those that are left."
)
_ALL = range(NUM_BUCKETS)

P = ParamSpec("P")
T = TypeVar("T")

_log = structlog.get_logger("service")


class LiveProgress(NamedTuple):
    """How far the counting has come.

    Attributes:
        entries_behind: accepted entries that are not counted yet, about.
        seconds_behind: age of the last counted entry while others wait, else 0.
        truncated: whether the store has removed entries that the release has not learned, so that they are missing.
        entries_read: accepted entries that were read since the release was opened, whatever became of them.
    """

    entries_behind: int
    seconds_behind: float
    truncated: bool
    entries_read: int = 0


class LiveSync:
    """Keeps the live evidence of one open release up to date."""

    def __init__(
        self,
        counting: LiveCounting,
        engine: Engine,
        store: UserStore,
        *,
        items: CatalogueSync,
        metrics: Metrics,
        poll_s: float,
    ) -> None:
        """items: asked for items that are unknown here, which another replica may have added a moment ago."""
        self._counting, self._engine, self._store = counting, engine, store
        self._items, self._metrics, self._poll_s = items, metrics, poll_s
        self._positions: dict[int, bytes] = dict.fromkeys(_ALL, b"")
        self._behind: set[int] = set(_ALL)  # buckets that are not read to their end
        self._erasures: tuple[int, ...] | None = None  # per bucket; None before the first look
        self._erasures_at = 0.0
        self._unknown: dict[str, None] = {}
        self._lookup: ItemLookup | None = None
        self._progress = LiveProgress(0, 0.0, truncated=False)
        self._counts_now = asyncio.Lock()
        self._hurry = False  # nobody is served yet, or somebody waits
        self._failed = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def progress(self) -> LiveProgress:
        return self._progress

    def warnings(self) -> list[dict[str, str]]:
        """Returns the warnings for `/readyz`."""
        return [{"code": EVENTS_MISSING, "message": _MISSING}] if self._progress.truncated else []

    async def start(self, *, is_serving: bool) -> None:
        """Counts the events until now, within `FIRST_LOOK_S` if possible, and goes on until `close`.

        Args:
            is_serving: whether this process answers requests already.
        """
        self._hurry = not is_serving
        caught_up = asyncio.Event()
        self._task = asyncio.create_task(self._run(caught_up))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(caught_up.wait(), FIRST_LOOK_S)
        self._hurry = False

    async def close(self) -> None:
        if self._task is not None:
            # A store that hangs must not delay the end.
            await end(self._task, within_s=CLOSE_S)
            self._task = None
        release_id, metrics = self._engine.release.manifest.release_id, self._metrics
        for gauge in (metrics.live_behind, metrics.live_seconds_behind, metrics.live_window, metrics.live_truncated):
            gauge.labels(release_id).set(0)

    async def look(self) -> None:
        """Counts the events until now; raises `StoreError` where the store fails."""
        while not await self._read_on():
            pass

    async def forget(self, user_id: str) -> None:
        """Takes out the events of a user who was just erased; those of their bucket's other users are counted again."""
        self._hurry = True
        async with self._counts_now:
            self._hurry = False
            await self._count_again({bucket_of(user_id)})
        self._wake.set()

    async def _run(self, caught_up: asyncio.Event) -> None:
        while True:
            pause_s = self._poll_s
            try:
                if await self._read_on():
                    caught_up.set()
                else:
                    pause_s = 0.0
                if self._failed:
                    _log.info("live_counting_goes_on")
                self._failed = False
            except StoreError as error:
                if not self._failed:
                    _log.info("live_unchanged", code=error.code)
                self._failed, pause_s = True, max(self._poll_s, AGAIN_S)
                caught_up.set()  # the start does not wait for a store that fails
            except Exception as error:  # noqa: BLE001 - a failed look must not end the loop
                _log.error("live_failed", exc_info=error)
                pause_s = max(self._poll_s, AGAIN_S)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _read_on(self) -> bool:
        """Reads and counts the next entries; returns whether none was left."""
        async with self._counts_now:
            await self._look_for_erasures()
            # A bucket that is counted again is read alone: the others have nothing that waits.
            buckets = sorted(self._behind) or _ALL
            page = await self._store.entries(
                {bucket: self._positions[bucket] for bucket in buckets},
                since=self._engine.release.learned_until,
                limit=READ_TOGETHER,
            )
            pieces = await self._mapped(page.entries)
            # Before counting, so that an entry which cannot be counted is not tried for ever.
            self._positions |= page.positions
            if not page.waiting:
                self._behind -= set(buckets)
            await self._count(pieces)
            self._note(page.entries, page.waiting, page.trimmed_until)
        return not self._behind

    async def _mapped(self, entries: Sequence[AcceptedEntry]) -> list[MappedEntries]:
        """Returns the entries in pieces, after a look at the catalogue where they name items that are unknown here."""
        if not entries:
            return []
        pieces = [entries[start : start + PIECE] for start in range(0, len(entries), PIECE)]
        lookup = await self._lookup_now()
        found = [await self._in_background(MappedEntries.of, piece, lookup) for piece in pieces]
        unknown = set[str]().union(*(mapped.unknown for mapped in found)) - self._unknown.keys()
        if not unknown:
            return found
        await self._look_for_items(unknown)
        lookup = await self._lookup_now()
        return [
            await self._in_background(MappedEntries.of, piece, lookup) if mapped.unknown & unknown else mapped
            for piece, mapped in zip(pieces, found, strict=True)
        ]

    async def _lookup_now(self) -> ItemLookup:
        ids = self._engine.release.catalogue.ids
        if self._lookup is None or self._lookup.ids is not ids:
            self._lookup = await asyncio.to_thread(ItemLookup, ids)
        return self._lookup

    async def _count(self, pieces: Sequence[MappedEntries]) -> None:
        for mapped in pieces:
            outcomes = await self._in_background(self._counting.count, mapped)
            for outcome, count in outcomes.items():
                self._metrics.live_entries.labels(outcome).inc(count)

    async def _in_background(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Works on a piece in a thread, and rests afterwards if it took long."""
        began = time.monotonic()
        done = await asyncio.to_thread(work, *args, **kwargs)
        taken = time.monotonic() - began
        if not self._hurry and taken > RESTS_FROM_S:
            await asyncio.sleep(REST_SHARE * taken)
        return done

    async def _look_for_erasures(self) -> None:
        now = time.monotonic()
        if now < self._erasures_at:
            return
        erased = await self._store.erased()
        counts = (0,) * NUM_BUCKETS if erased is None else erased.counts
        before = self._erasures
        if before is not None:
            await self._count_again(bucket for bucket in _ALL if counts[bucket] != before[bucket])
        # Only now: what could not be taken out is taken out by the next look.
        self._erasures, self._erasures_at = counts, now + ERASURES_S

    async def _count_again(self, buckets: Iterable[int]) -> None:
        for bucket in buckets:
            await asyncio.to_thread(self._counting.take_out_bucket, bucket)
            self._positions[bucket] = b""
            self._behind.add(bucket)

    async def _look_for_items(self, unknown: Collection[str]) -> None:
        """Brings the catalogue up to date, and remembers which items it lacks even so."""
        try:
            await self._items.bring_up_to_date()
        except StoreError as error:
            # Foreign data stays until an operator removes it: to wait does not help.
            if error.code != FOREIGN:
                raise
        for item_id in unknown:
            if not self._engine.release.catalogue.knows(item_id):
                self._unknown[item_id] = None
        while len(self._unknown) > REMEMBERED_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]

    def _note(self, entries: Sequence[AcceptedEntry], waiting: int, trimmed_until: float) -> None:
        release = self._engine.release
        last = next((event.accepted_at for _, event in reversed(entries) if event is not None), None)
        seconds = max(0.0, time.time() - last) if waiting and last is not None else 0.0
        truncated = trimmed_until > release.learned_until
        if truncated and not self._progress.truncated:
            _log.warning(EVENTS_MISSING, release_id=release.manifest.release_id, message=_MISSING)
        self._progress = LiveProgress(waiting, seconds, truncated, self._progress.entries_read + len(entries))
        metrics, release_id = self._metrics, release.manifest.release_id
        metrics.live_behind.labels(release_id).set(waiting)
        metrics.live_seconds_behind.labels(release_id).set(seconds)
        metrics.live_window.labels(release_id).set(self._counting.num_bytes)
        metrics.live_truncated.labels(release_id).set(truncated)
