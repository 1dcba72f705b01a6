"""What routes are handed: the running service, and the release that a request works with from start to end."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from service.inference.limits import WRITES_AT_ONCE, Gate
from service.recommend.click_stats import Exposure
from service.recommend.recommender import Recommendations
from service.state.events import EventReader
from service.state.store import Store
from service.sync.durability_watch import DurabilityWatch
from service.sync.release_manager import Releases
from service.telemetry.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Running:
    """Everything that lives as long as the app does."""

    releases: Releases
    store: Store
    events: EventReader
    exposure: Exposure
    metrics: Metrics
    durability: DurabilityWatch | None = None  # None: state is not in Redis
    writes: Gate = field(default_factory=lambda: Gate(WRITES_AT_ONCE))


@dataclass(frozen=True, kw_only=True)
class Service(Running):
    """What a request works with: its release stays the same from start to end."""

    recommendations: Recommendations


async def running(request: Request) -> Running:
    """Without a release of its own: for probes, and for those who would wait for themselves."""
    found: Running = request.app.state.running
    return found


RunningDep = Annotated[Running, Depends(running)]


@contextmanager
def lease(app: Running, user_id: str | None) -> Iterator[Service]:
    """The release of a user, or the current, to work with until the end."""
    began = time.perf_counter()
    with app.releases.lease(user_id) as serving:
        yield Service(**vars(app), recommendations=serving.recommendations)
    app.metrics.release_requests.labels(serving.release_id).observe(time.perf_counter() - began)


async def leased_service(request: Request, app: RunningDep) -> AsyncIterator[Service]:
    """The release of the path's user, if there is one, else the current."""
    with lease(app, request.path_params.get("user_id")) as service:
        yield service


ServiceDep = Annotated[Service, Depends(leased_service)]
