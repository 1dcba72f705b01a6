"""Which releases are served, and how one takes the other's place: no request is dropped, and none sees two of them.

`current` is looked at every few seconds on every worker of every replica, and at once where an operator asks for it.
What it points to is opened beside what is served, verified, its goldens replayed; then requests to come are answered
from it, those under way end on the old one, and the old one is freed. What cannot be served is refused, and nothing
changes. Going back is pointing `current` back.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from isrf.contract.errors import BundleError, IsrfError
from isrf.runtime.bundle.manifests import find_release, named_release
from isrf.runtime.memory import give_back_free_memory
from service.inference.task_cancellation import end
from service.release.opening import open_folder
from service.settings import Experiment
from service.state.item_store import ItemChange, ItemOutcome
from service.sync.compaction import GRACE_S
from service.sync.daemon_threads import in_daemon_thread
from service.sync.release_runtime import Parts, ReleaseIdentity, ReleaseRuntime, identify

REFUSED_AGAIN_S = 60.0
"""A release that was refused is not opened again before: it may be large, and somebody has to mend it first."""

_log = structlog.get_logger("service")


class Switched(NamedTuple):
    """What a look at `current` came to; the same release before and after where nothing changed."""

    before: str
    after: str
    seconds: float


class _Refusal(NamedTuple):
    """The last release that was refused, when that was begun, and why."""

    wanted: ReleaseIdentity | None
    began: float
    error: Exception


class ReleaseManager:
    """One per app."""

    def __init__(
        self,
        folder: Path,
        parts: Parts,
        *,
        experiment: Experiment | None = None,
        watch_s: float = 0,
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        watch_s: how often `current` is looked at, 0 for only when asked.
        opened: called whenever what is served from now on is open.
        """
        self._tell_opened = opened
        self._folder, self._parts, self._experiment, self._watch_s = folder, parts, experiment, watch_s
        self._current: ReleaseRuntime | None = None
        self._trial: ReleaseRuntime | None = None  # the experiment's; may be the current one
        self._open: set[ReleaseRuntime] = set()  # those on their way in and out too
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
        """Opens what is to be served; `BundleError` where that cannot be."""
        self._current = runtime = await self._opened(await self._identify())
        runtime.tell_age()
        if self._experiment is None:
            # One process on its state: nobody else serves an older release.
            runtime.collect(0 if self._parts.store.kind == "embedded" else GRACE_S)
        else:
            identity = await self._identify(self._experiment.release_id)
            self._trial = runtime if identity == runtime.identity else await self._opened(identity)
        if self._watch_s:
            self._watching = asyncio.create_task(self._watch())
        self._tell_opened()

    def of(self, user_id: str | None) -> ReleaseRuntime:
        """What answers a user; None is nobody in particular, who takes part in no experiment."""
        experiment, trial = self._experiment, self._trial
        if trial is not None and experiment is not None and user_id is not None and experiment.holds(user_id):
            return trial
        return self.current

    def now(self) -> float:
        """Seconds, and later than all that the served releases have learned: this machine's clock may step back, and
        what comes in then is news all the same."""
        served = (self.current.release, (self._trial or self.current).release)
        return max(time.time(), *(max(one.learned_until, one.items_learned_until) + 1e-6 for one in served))

    @contextmanager
    def lease(self, user_id: str | None) -> Iterator[ReleaseRuntime]:
        """What answers a user, to be held from the request's start to its end."""
        with self.of(user_id).lease() as runtime:
            yield runtime

    def knows(self, item_id: str) -> bool:
        """Whether the item is one that a caller can have been shown."""
        return any(one.release.catalogue.knows(item_id) for one in self._open)

    def is_new(self, item_id: str) -> bool:
        """Whether no release that is open holds an item."""
        return all(one.items.is_new(item_id) for one in self._open)

    async def change_items(self, changes: Sequence[ItemChange]) -> list[ItemOutcome]:
        """Takes in what the shop says of its items; it is part of this replica's next answer.

        Raises:
            StoreError: as `Store.change_items`.
        """
        outcomes = await self._parts.store.change_items(changes, limit=self._parts.max_added_items)
        for one in tuple(self._open):
            await one.items.look()
        return outcomes

    async def look_for_items(self) -> None:
        """What the shop said to another replica, at once: to be known before somebody is told that an item is unknown.

        Raises:
            StoreError: that cannot be known now.
        """
        for one in tuple(self._open):
            await one.items.ask()

    async def forget(self, user_id: str) -> None:
        """Takes a user who was just erased out of every snapshot of this replica at once."""
        for one in tuple(self._open):
            one.recommendations.forget(user_id)
            await one.activity_sync.forget(user_id)

    async def reload(self) -> Switched:
        """Serves what `current` points to now, if that is another release than before.

        Raises:
            BundleError: it cannot be served; what was served still is.
        """
        asked = time.monotonic()
        async with self._switching:
            began, before, wanted = time.monotonic(), self.current, None
            try:
                wanted = await self._identify()
                self._same_refusal(wanted, asked)
                if wanted != before.identity:
                    await self._switch(wanted)
            except Exception as error:
                # Whatever is wrong with it, it is not served.
                self._refuse(wanted, error, began)
                raise
            self._refused = None
            seconds = time.monotonic() - began
        if self.current is not before:
            self._tell_opened()
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
        for one in (self._current, self._trial):
            self._retire(one)
        while self._retiring:
            await asyncio.wait(self._retiring)

    async def _switch(self, identity: ReleaseIdentity) -> None:
        if self._retiring:
            # Never more than one release that nobody asks any more.
            await asyncio.wait(self._retiring)
        before, trial = self.current, self._trial
        if trial is not None and trial.identity == identity:
            self._current = trial
        else:
            self._current = await self._opened(identity, before)
        self.current.tell_age()
        if before is not trial:
            self._retire(before)

    async def _opened(self, identity: ReleaseIdentity, before: ReleaseRuntime | None = None) -> ReleaseRuntime:
        """An open release, ready for its first request."""
        parts = self._parts
        release = await in_daemon_thread(
            partial(open_folder, identity.folder, parts.variant, parts.device, within_s=parts.open_deadline_s),
            within_s=parts.open_deadline_s,
            part="opening it",
        )
        if release.manifest.sha256 is None:
            _log.warning(
                "release_unsealed",
                release_id=release.manifest.release_id,
                message="The release is of schema 2: nothing tells whether its manifest was changed.",
                fix="Publish one with this version.",
            )
        runtime = ReleaseRuntime(release, identity, self._parts, before=before)
        # From now on it hears of erasures.
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
        if not self._closing:
            # Each opening has a thread of its own, whose heap would keep the pages of the release before.
            await asyncio.to_thread(give_back_free_memory)
        if self._experiment is None and not self._closing:
            # Later than requests that still read what the old one has not learned.
            self.current.collect(GRACE_S)

    def _refuse(self, wanted: ReleaseIdentity | None, error: Exception, began: float) -> None:
        if self._refused is not None and error is self._refused.error:
            return
        self._refused = _Refusal(wanted, began, error)
        code = error.code if isinstance(error, IsrfError) else "internal"
        self._parts.metrics.reloads.labels("refused", code).inc()
        if isinstance(error, BundleError):
            _log.error("release_refused", code=code, message=error.message, fix=error.fix)
        else:
            _log.error("release_refused", code=code, exc_info=error)

    async def _watch(self) -> None:
        # Workers of one machine do not all open a release at the same moment.
        await asyncio.sleep(self._watch_s * (os.getpid() % 8) / 8)
        while True:
            await asyncio.sleep(self._watch_s)
            try:
                wanted: ReleaseIdentity | None = await self._identify()
            except BundleError:
                wanted = None
            if wanted == self.current.identity or self._was_refused(wanted):
                continue
            with contextlib.suppress(Exception):  # told by `_refuse`; the next release may be better
                await self.reload()

    async def _identify(self, name: str | None = None) -> ReleaseIdentity:
        """Of what `current` points to, or of the release of a name."""

        def look() -> ReleaseIdentity:
            return identify(find_release(self._folder) if name is None else named_release(self._folder, name))

        return await in_daemon_thread(look, within_s=self._parts.open_deadline_s, part="looking for it")

    def _was_refused(self, wanted: ReleaseIdentity | None) -> bool:
        refused = self._refused
        return refused is not None and refused.wanted == wanted and time.monotonic() < refused.began + REFUSED_AGAIN_S

    def _same_refusal(self, wanted: ReleaseIdentity, asked: float) -> None:
        """Raises the refusal of the same release that was begun after `asked`: many who ask at once open it once."""
        refused = self._refused
        if refused is not None and refused.wanted == wanted and refused.began >= asked:
            raise refused.error
