"""What routes are handed: the running service, and the release that a request works with from start to end."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.inference.admission import AdmissionController
from service.recommend.click_stats import ClickStats
from service.recommend.recommender import RecommendationService
from service.state.events import EventReader
from service.state.store import Store
from service.sync.durability_watch import DurabilityWatch
from service.sync.release_manager import ReleaseManager
from service.sync.store_probe import StoreProbe
from service.telemetry.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class AppContext:
    """Everything that lives as long as the app does."""

    releases: ReleaseManager
    store: Store
    events: EventReader
    click_stats: ClickStats
    metrics: Metrics
    admission: AdmissionController
    probe: StoreProbe
    durability: DurabilityWatch | None = None  # None: state is not in Redis


@dataclass(frozen=True, kw_only=True)
class RequestContext(AppContext):
    """What a request works with: its release stays the same from start to end."""

    recommendations: RecommendationService


async def running(request: Request) -> AppContext:
    """Without a release of its own: for probes, and for those who would wait for themselves."""
    found: AppContext = request.app.state.running
    return found


AppDep = Annotated[AppContext, Depends(running)]


@contextmanager
def lease(app: AppContext, user_id: str | None) -> Iterator[RequestContext]:
    """The release of a user, or the current, to work with until the end."""
    began = time.perf_counter()
    with app.releases.lease(user_id) as runtime:
        yield RequestContext(**vars(app), recommendations=runtime.recommendations)
    app.metrics.release_requests.labels(runtime.release_id).observe(time.perf_counter() - began)


async def leased_service(request: Request, app: AppDep) -> AsyncIterator[RequestContext]:
    """The release of the path's user, if there is one, else the current."""
    with lease(app, request.path_params.get("user_id")) as context:
        yield context


ContextDep = Annotated[RequestContext, Depends(leased_service)]
