"""The dependencies of routes: the running app, and the release that a request uses from start to end."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from fastapi import Depends, Request
from pydantic import SecretStr

from service.inference.admission import AdmissionController
from service.recommend.click_stats import ClickStats
from service.recommend.recommender import RecommendationService
from service.settings import WebhookItemId
from service.state.events import EventReader
from service.state.store import Store
from service.sync.durability_watch import DurabilityWatch
from service.sync.placement_sync import PlacementSync
from service.sync.release_manager import ReleaseManager
from service.sync.store_probe import StoreProbe
from service.telemetry.metrics import Metrics


class WebhookSettings(NamedTuple):
    """How orders of shop systems are checked and read; None: such orders are refused."""

    shopify_secret: SecretStr | None
    woocommerce_secret: SecretStr | None
    item_id: WebhookItemId


@dataclass(frozen=True, kw_only=True)
class AppContext:
    """The parts that live as long as the app."""

    releases: ReleaseManager
    store: Store
    events: EventReader
    click_stats: ClickStats
    metrics: Metrics
    admission: AdmissionController
    probe: StoreProbe
    placements: PlacementSync
    webhooks: WebhookSettings
    durability: DurabilityWatch | None = None  # None: state is not in Redis


@dataclass(frozen=True, kw_only=True)
class RequestContext(AppContext):
    """The app's parts and one release, which stays the same from the request's start to its end."""

    recommendations: RecommendationService


async def running(request: Request) -> AppContext:
    """The app without a leased release: for probes, and for routes that would wait for their own lease to end."""
    found: AppContext = request.app.state.running
    return found


AppDep = Annotated[AppContext, Depends(running)]


@contextmanager
def lease(app: AppContext, user_id: str | None) -> Iterator[RequestContext]:
    """Leases the user's release, or the current one without a user, until the block ends."""
    began = time.perf_counter()
    with app.releases.lease(user_id) as runtime:
        yield RequestContext(**vars(app), recommendations=runtime.recommendations)
    app.metrics.release_requests.labels(runtime.release_id).observe(time.perf_counter() - began)


async def leased_service(request: Request, app: AppDep) -> AsyncIterator[RequestContext]:
    """Leases the release of the path's user, or the current one where the path names no user."""
    with lease(app, request.path_params.get("user_id")) as context:
        yield context


ContextDep = Annotated[RequestContext, Depends(leased_service)]
