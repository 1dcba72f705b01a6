"""Runs one open release: its engine, its recommendations and its syncs, from its start to its last request.

A request leases it, and so uses one release, one engine and one catalogue from start to end.
It knows no other release; `service.sync.release_manager` does.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from isrf.contract.errors import BundleError
from isrf.contract.manifest import VariantName
from isrf.runtime.bundle.folder import BundleFolder
from isrf.runtime.bundle.manifests import manifest_bytes
from isrf.runtime.bundle.refusals import refusing
from isrf.runtime.limits.run_limit import RUN_LIMIT_S, limited
from service.inference.admission import AdmissionController
from service.inference.engine import Engine
from service.inference.task_cancellation import end
from service.recommend.recommender import CacheLimits, RecommendationService
from service.recommend.result_lists import ResultLists
from service.release.live_counting import LiveCounting
from service.release.opening import Release
from service.settings import DeviceName
from service.state.events import EventRules
from service.state.store import Store
from service.sync.activity_sync import ActivitySync
from service.sync.catalogue_sync import CatalogueSync
from service.sync.compaction import collect_later
from service.sync.daemon_threads import in_daemon_thread
from service.sync.live_sync import LiveSync
from service.telemetry.metrics import Metrics

CLOSE_S = 10.0
"""How long closing a release waits for the model's last runs."""


class ReleaseIdentity(NamedTuple):
    """Identifies a release by its folder and its manifest's digest."""

    folder: Path
    digest: str


def identify(folder: Path) -> ReleaseIdentity:
    """Identifies the release in a folder; raises `BundleError` where it has no readable manifest."""
    with BundleFolder(folder) as files:
        return ReleaseIdentity(folder, hashlib.sha256(manifest_bytes(files)).hexdigest())


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of the app that every release uses."""

    store: Store
    metrics: Metrics
    rules: EventRules
    result_lists: ResultLists
    admission: AdmissionController
    cache_limits: CacheLimits
    crowd_epoch_s: float
    items_poll_s: float = 1.0
    live_poll_s: float = 0.25
    live_evidence_bytes: int = 0
    """Memory of the events that count for everybody; 0: none does."""
    max_added_items: int = 10_000
    variant: VariantName = "fp32"
    device: DeviceName = "cpu"
    open_deadline_s: float = 300.0
    """How long opening a release may take, and so its first runs."""


def with_live_evidence(release: Release, memory_bytes: int) -> tuple[Release, LiveCounting | None]:
    """Returns the release reading live evidence, and what counts it; the release as it is where it allows none."""
    evidence = release.recommender.tables.live_evidence(memory_bytes) if memory_bytes else None
    if evidence is None:
        return release, None
    return replace(release, recommender=release.recommender.with_live(evidence)), LiveCounting(evidence, release)


class ReleaseRuntime:
    """An open release that is served, starts or ends."""

    def __init__(
        self, release: Release, identity: ReleaseIdentity, parts: Parts, *, before: "ReleaseRuntime | None" = None
    ) -> None:
        """before: the release served until now; its erased users are erased here from the first request on."""
        self.identity = identity
        self._parts = parts
        self._is_first = before is None
        self.rules = parts.rules.under(release.vocabulary)
        release, counting = with_live_evidence(release, parts.live_evidence_bytes)
        self.engine = Engine(release, limit=parts.admission.queue(), metrics=parts.metrics)
        """Runs the model for every answer of this release."""
        self.recommendations = RecommendationService(
            self.engine,
            parts.store,
            parts.metrics,
            result_lists=parts.result_lists,
            rules=self.rules,
            cache_limits=parts.cache_limits,
            live=counting,
        )
        self.activity_sync: ActivitySync = ActivitySync(
            self.engine,
            parts.store,
            rules=self.rules,
            epoch_s=parts.crowd_epoch_s,
            before=None if before is None else before.activity_sync,
        )
        self.items: CatalogueSync = CatalogueSync(
            self.engine, parts.store, poll_s=parts.items_poll_s, before=None if before is None else before.items
        )
        self.live: LiveSync | None = None
        """None where no event counts for others."""
        if counting is not None:
            self.live = LiveSync(
                counting,
                self.engine,
                parts.store,
                items=self.items,
                metrics=parts.metrics,
                poll_s=parts.live_poll_s,
            )
        self._collecting: asyncio.Task[None] | None = None
        self._leases = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def release(self) -> Release:
        """The release with its items as they are now."""
        return self.engine.release

    @property
    def release_id(self) -> str:
        return self.release.manifest.release_id

    async def start(self) -> None:
        """Makes the release ready for its first request: warms up, reads items and active users, counts events."""
        await in_daemon_thread(self._warm_up, within_s=self._parts.open_deadline_s, part="the first runs")
        await self.items.start()
        await self.activity_sync.start()
        if self.live is not None:
            await self.live.start(is_serving=not self._is_first)
        self._set_served_metric(1)

    def collect(self, grace_s: float) -> None:
        """Removes from the store, after `grace_s`, the state that this release has learned."""
        if self._collecting is None:
            parts = self._parts
            self._collecting = asyncio.create_task(
                collect_later(parts.store, self.release, self.rules, self.items, grace_s)
            )

    @contextmanager
    def lease(self) -> Iterator["ReleaseRuntime"]:
        """Keeps the release open for a request, from its start to its end."""
        self._leases += 1
        self._idle.clear()
        try:
            yield self
        finally:
            self._leases -= 1
            if self._leases == 0:
                self._idle.set()

    async def forget(self, user_id: str) -> None:
        """Removes a user who was just erased from everything that this release holds in memory."""
        self.recommendations.forget(user_id)
        await self.activity_sync.forget(user_id)
        if self.live is not None:
            await self.live.forget(user_id)

    async def close(self) -> None:
        """Waits for the requests that lease it and for their writes, then closes it."""
        await self._idle.wait()
        if self._collecting is not None:
            await end(self._collecting)
        if self.live is not None:
            await self.live.close()
        await self.activity_sync.close()
        await self.items.close()
        await self.recommendations.close()
        # An endless run must not delay the next release or the end.
        with contextlib.suppress(BundleError):
            await in_daemon_thread(self.engine.close, within_s=CLOSE_S, part="the model's last runs")
        self._set_served_metric(0)

    def _warm_up(self) -> None:
        within_s = min(RUN_LIMIT_S, self._parts.open_deadline_s)
        with limited(within_s), refusing("bundle.graph_failed", "the release's graphs"):
            self.engine.warm_up()

    def publish_age(self) -> None:
        """Sets the metrics of the current release's age; an experiment's release does not set them."""
        metrics = self._parts.metrics
        metrics.release_created.set(datetime.fromisoformat(self.release.manifest.created_at).timestamp())
        metrics.learned_until.set(self.release.learned_until)

    def _set_served_metric(self, value: int) -> None:
        manifest = self.release.manifest
        labels = (manifest.release_id, manifest.preset, manifest.encoder, manifest.reasoner)
        self._parts.metrics.release.labels(*labels).set(value)
