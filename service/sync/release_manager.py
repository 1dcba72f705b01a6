"""Serves releases and switches between them: no request is dropped, and none sees two releases.

Every worker of every replica checks `current` every few seconds, and at once when an operator asks for it. It opens and
verifies a new release beside the current one. Then new requests use the new release, requests in progress end on the
old one, and the old one is freed. A release that cannot be served is refused, and nothing changes. To go back, an
operator points `current` back.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from isrf.contract.errors import BundleError, IsrfError
from isrf.runtime.memory import give_back_free_memory
from service.inference.task_cancellation import end
from service.release.opening import open_folder
from service.settings import Experiment
from service.state.item_store import ItemChange, ItemOutcome
from service.sync.compaction import GRACE_S
from service.sync.daemon_threads import in_daemon_thread
from service.sync.release_runtime import Parts, ReleaseIdentity, ReleaseRuntime
from service.sync.release_source import ReleaseSource

REFUSED_AGAIN_S = 60.0
"""How long a refused release is not opened again: it may be large, and an operator must repair it first."""

_log = structlog.get_logger("service")

T = TypeVar("T")


class Switched(NamedTuple):
    """The result of a reload; the same release before and after where nothing changed."""

    before: str
    after: str
    seconds: float


class _Refusal(NamedTuple):
    """The last refused release, when its opening began, and the error."""

    identity: ReleaseIdentity | None
    began: float
    error: Exception


class ReleaseManager:
    """Opens, switches and closes the releases of an app."""

    def __init__(
        self,
        source: ReleaseSource,
        parts: Parts,
        *,
        experiment: Experiment | None = None,
        watch_s: float = 0,
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        source: where the releases come from.
        watch_s: how often `current` is checked, 0 for only when asked.
        opened: called whenever a release has been opened and is served.
        """
        self._on_opened = opened
        self._source, self._parts, self._experiment, self._watch_s = source, parts, experiment, watch_s
        self._current: ReleaseRuntime | None = None
        self._trial: ReleaseRuntime | None = None  # the experiment's; may be the current one
        self._open: set[ReleaseRuntime] = set()  # also those that start or end
        self._switching = asyncio.Lock()
        self._refused: _Refusal | None = None
        self._closing = False
        self._retiring: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    @property
    def current(self) -> ReleaseRuntime:
        assert self._current is not None, "not started"
        return self._current

    async def start(self) -> None:
        """Opens the releases to serve; raises `BundleError` where that fails."""
        identity = await self._in_thread(self._source.identify_at_start, "looking for it")
        self._current = runtime = await self._opened(identity)
        runtime.publish_age()
        if self._experiment is None:
            # The embedded store has one process: no other replica serves an older release.
            runtime.collect(0 if self._parts.store.kind == "embedded" else GRACE_S)
        else:
            identity = await self._identify(self._experiment.release_id)
            self._trial = runtime if identity == runtime.identity else await self._opened(identity)
        await self._settle()
        if self._watch_s:
            self._watching = asyncio.create_task(self._watch())
        self._on_opened()

    def of(self, user_id: str | None) -> ReleaseRuntime:
        """Returns the release that serves a user; without a user (None), the current one."""
        experiment, trial = self._experiment, self._trial
        if trial is not None and experiment is not None and user_id is not None and experiment.holds(user_id):
            return trial
        return self.current

    def now(self) -> float:
        """Returns the time in seconds, and always later than what the served releases have learned.

        This machine's clock may be set back; events that arrive then must still count as new.
        """
        served = (self.current.release, (self._trial or self.current).release)
        return max(time.time(), *(max(release.learned_until, release.items_learned_until) + 1e-6 for release in served))

    @contextmanager
    def lease(self, user_id: str | None) -> Iterator[ReleaseRuntime]:
        """Leases the release that serves a user, from the request's start to its end."""
        with self.of(user_id).lease() as runtime:
            yield runtime

    def knows(self, item_id: str) -> bool:
        """Whether an open release knows an item, so that a caller can have seen it."""
        return any(runtime.release.catalogue.knows(item_id) for runtime in self._open)

    def is_new(self, item_id: str) -> bool:
        """Whether no open release contains an item."""
        return all(runtime.items.is_new(item_id) for runtime in self._open)

    async def change_items(self, changes: Sequence[ItemChange]) -> list[ItemOutcome]:
        """Stores changes of items; they count in this replica's next answer.

        Raises:
            StoreError: as `Store.change_items`.
        """
        outcomes = await self._parts.store.change_items(changes, limit=self._parts.max_added_items)
        for runtime in tuple(self._open):
            await runtime.items.look()
        return outcomes

    async def look_for_items(self) -> None:
        """Reads the changes that other replicas accepted, before a caller learns that an item is unknown.

        Raises:
            StoreError: the store cannot be read now.
        """
        for runtime in tuple(self._open):
            await runtime.items.ask()

    async def forget(self, user_id: str) -> None:
        """Removes a user who was just erased from every snapshot of this replica at once."""
        for runtime in tuple(self._open):
            await runtime.forget(user_id)

    async def reload(self) -> Switched:
        """Serves the release that `current` points to now, if it is another one.

        Raises:
            BundleError: it cannot be served; the previous release still is.
        """
        asked_at = time.monotonic()
        async with self._switching:
            began, before, identity = time.monotonic(), self.current, None
            try:
                identity = await self._identify()
                self._raise_same_refusal(identity, asked_at)
                if identity != before.identity:
                    await self._switch(identity)
            except Exception as error:
                # Any error means that the release cannot be served.
                self._refuse(identity, error, began)
                raise
            self._refused = None
            seconds = time.monotonic() - began
        if self.current is not before:
            await self._settle()
            self._on_opened()
            self._parts.metrics.reloads.labels("switched", "").inc()
            _log.info(
                "release_switched",
                release_id=self.current.release_id,
                before=before.release_id,
                seconds=round(seconds, 2),
            )
        return Switched(before.release_id, self.current.release_id, seconds)

    async def close(self) -> None:
        self._closing = True
        if self._watching is not None:
            await end(self._watching)
        for runtime in (self._current, self._trial):
            self._retire(runtime)
        while self._retiring:
            await asyncio.wait(self._retiring)

    async def _switch(self, identity: ReleaseIdentity) -> None:
        if self._retiring:
            # At most one retiring release stays in memory.
            await asyncio.wait(self._retiring)
        before, trial = self.current, self._trial
        if trial is not None and trial.identity == identity:
            self._current = trial
        else:
            self._current = await self._opened(identity, before)
        self.current.publish_age()
        if before is not trial:
            self._retire(before)

    async def _opened(self, identity: ReleaseIdentity, before: ReleaseRuntime | None = None) -> ReleaseRuntime:
        """Opens a release and makes it ready for its first request."""
        parts, within_s = self._parts, self._parts.open_deadline_s
        await self._in_thread(partial(self._source.fetch, identity, within_s), "downloading it")
        opening = partial(open_folder, identity.folder, parts.variant, parts.device, within_s=within_s)
        try:
            release = await self._in_thread(opening, "opening it")
        except BundleError:
            await self._in_thread(partial(self._source.refused, identity), "checking it")
            raise
        if release.manifest.sha256 is None:
            _log.warning(
                "release_unsealed",
                release_id=release.manifest.release_id,
                message="The release has schema 2: the service cannot verify that its manifest is unchanged.",
                fix="Publish a release with this version.",
            )
        runtime = ReleaseRuntime(release, identity, self._parts, before=before)
        # From now on it receives erasures.
        self._open.add(runtime)
        try:
            await runtime.start()
        except BaseException:
            self._retire(runtime)
            raise
        return runtime

    def _retire(self, runtime: ReleaseRuntime | None) -> None:
        if runtime is not None and runtime in self._open:
            task = asyncio.create_task(self._end(runtime))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
            del runtime

    async def _end(self, runtime: ReleaseRuntime) -> None:
        await runtime.close()
        self._open.discard(runtime)
        del runtime
        await self._settle()
        if not self._closing:
            # Each release opens in a thread of its own, whose heap would keep the pages of the previous release.
            await asyncio.to_thread(give_back_free_memory)
        if self._experiment is None and not self._closing:
            # After the requests on the old release, which read state that it has not learned.
            self.current.collect(GRACE_S)

    def _refuse(self, identity: ReleaseIdentity | None, error: Exception, began: float) -> None:
        if self._refused is not None and error is self._refused.error:
            return
        self._refused = _Refusal(identity, began, error)
        code = error.code if isinstance(error, IsrfError) else "internal"
        self._parts.metrics.reloads.labels("refused", code).inc()
        if isinstance(error, BundleError):
            _log.error("release_refused", code=code, message=error.message, fix=error.fix)
        else:
            _log.error("release_refused", code=code, exc_info=error)

    async def _watch(self) -> None:
        # Spread over time, so that the workers of a machine do not all open a release at the same moment.
        await asyncio.sleep(self._watch_s * (os.getpid() % 8) / 8)
        while True:
            await asyncio.sleep(self._watch_s)
            try:
                identity: ReleaseIdentity | None = await self._identify()
            except BundleError:
                identity = None
            if identity == self.current.identity or self._was_refused(identity):
                continue
            with contextlib.suppress(Exception):  # `_refuse` logs it; the next release may be valid
                await self.reload()

    async def _identify(self, name: str | None = None) -> ReleaseIdentity:
        """Identifies the release that `current` points to, or the release with a name."""
        return await self._in_thread(partial(self._source.identify, name), "looking for it")

    async def _settle(self) -> None:
        """Tells the source what is served and which folders are open, so that it may remove others."""
        if self._current is None or self._closing:
            return
        in_use = {runtime.identity.folder for runtime in self._open}
        with contextlib.suppress(BundleError, OSError):  # the cache's disk is full or gone; what is open is served
            await self._in_thread(partial(self._source.settle, self.current.identity, in_use), "noting it")

    async def _in_thread(self, work: Callable[[], T], part: str) -> T:
        return await in_daemon_thread(work, within_s=self._parts.open_deadline_s, part=part)

    def warnings(self) -> list[dict[str, str]]:
        """Returns the warnings for `/readyz` about where releases come from."""
        return self._source.warnings()

    def _was_refused(self, identity: ReleaseIdentity | None) -> bool:
        last = self._refused
        return last is not None and last.identity == identity and time.monotonic() < last.began + REFUSED_AGAIN_S

    def _raise_same_refusal(self, identity: ReleaseIdentity, asked_at: float) -> None:
        """Raises a refusal of the same release from after `asked_at`: concurrent reloads open a release once."""
        refused = self._refused
        if refused is not None and refused.identity == identity and refused.began >= asked_at:
            raise refused.error
