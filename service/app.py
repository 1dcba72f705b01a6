"""Makes the FastAPI app, which opens release and store when it starts and closes them when it ends.

uvicorn --factory service.app:from_environment      (or, with the command line's options: python -m service)
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from fastapi import Depends, FastAPI

import isrf
from isrf.contract.errors import IsrfError
from isrf.runtime.cpus import available_cpus
from service.api.context import AppContext, WebhookSettings
from service.api.openapi import Api, operation_id
from service.api.pages.demo import demo_router
from service.api.pages.docs import docs_router
from service.api.pages.studio import studio_router
from service.api.problems import install_problem_handlers
from service.api.routes import (
    admin,
    affinities,
    attributes,
    beacons,
    bulk,
    interactions,
    items,
    placement_preview,
    placements,
    probes,
    recommend,
    users,
    webhooks,
)
from service.api.shortcut import Shortcut
from service.api.validation.calls import CallCheck
from service.api.validation.parameters import KnownQueries, only_known_parameters
from service.auth.keys import KeyRing
from service.auth.rate import RateLimiter
from service.auth.route_rules import RouteRules
from service.auth.signatures import SHOPIFY, WOOCOMMERCE
from service.inference.admission import AdmissionController
from service.inference.limits import LoadLimits
from service.recommend.click_stats import ClickStats
from service.recommend.placements.placement import read_placements_file
from service.recommend.recommender import CacheLimits
from service.recommend.result_lists import ResultLists
from service.server.access import AccessMiddleware
from service.server.admission import AdmissionMiddleware
from service.server.cross_origin import CrossOrigin
from service.server.gc_tuning import set_apart
from service.server.load_shedding import NAME, LoadShedder
from service.server.middleware import RequestMiddleware
from service.settings import Settings, load_settings
from service.state.connect import open_store
from service.state.events import EventReader, EventRules
from service.state.redis.store import RedisStore
from service.sync.durability_watch import DurabilityWatch
from service.sync.placement_sync import PlacementSync
from service.sync.release_manager import ReleaseManager
from service.sync.release_runtime import Parts
from service.sync.release_source import release_source
from service.sync.store_probe import StoreProbe
from service.telemetry.logs import configure_logs
from service.telemetry.metrics import Metrics
from service.telemetry.traces import open_traces

CLOSE_S = 2.0

_log = structlog.get_logger("service")


def create_app(settings: Settings | None = None, *, opened: Callable[[], None] = lambda: None) -> FastAPI:
    """Makes the app with `settings` (else the environment's); it opens nothing before its lifespan begins.

    Args:
        opened: called whenever a release has been opened and is served.
    """
    chosen = settings or load_settings()
    metrics = Metrics()
    ring = None if chosen.api_keys_file is None else KeyRing(chosen.api_keys_file)
    limiter, address_limiter = RateLimiter(chosen.rate_limit or None), RateLimiter(chosen.beacon_rate or None)
    admission = AdmissionController(_load(chosen), metrics, deadline_s=chosen.deadline_s)
    load_shedder = LoadShedder(admission, metrics, ring)
    traces = open_traces()
    if traces is not None:
        metrics.trace_stages(traces.stage)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            if traces is not None:
                stack.push_async_callback(asyncio.to_thread, traces.close)
            try:
                app.state.running = await _open(chosen, metrics, admission, stack, opened)
                for one in (limiter, address_limiter):
                    one.share(chosen)
                    stack.push_async_callback(one.close)
            except IsrfError as error:
                app.state.start_error = error
                _log.error("cannot_start", code=error.code, message=error.message, fix=error.fix)
                raise
            except Exception as error:
                _log.error("cannot_start", exc_info=error)
                raise
            load_shedder.open(app.state.running.releases)
            yield {NAME: load_shedder}

    app = Api(
        title="ISRF",
        summary="Recommendations that react to the last click and say why.",
        version=isrf.__version__,
        lifespan=lifespan,
        dependencies=[Depends(only_known_parameters)],
        # A redirect would send the key to the host that the header Host names.
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        generate_unique_id_function=operation_id,
        redoc_url=None,
    )
    queries = app.state.queries = KnownQueries()
    # The middleware that is added last is the outermost.
    app.add_middleware(Shortcut, queries=queries)
    route_rules = RouteRules(app)
    app.add_middleware(
        AdmissionMiddleware,
        rules=route_rules,
        admission=admission,
        load_shedder=load_shedder,
        metrics=metrics,
        max_body_bytes=chosen.max_body_bytes,
    )
    app.add_middleware(CallCheck, rules=route_rules, metrics=metrics)
    app.add_middleware(
        AccessMiddleware,
        ring=ring,
        load_shedder=load_shedder,
        limiter=limiter,
        metrics=metrics,
        origins=chosen.cors_origins,
        senders=chosen.beacon_origins,
        address_limiter=address_limiter,
        secrets={SHOPIFY: chosen.shopify_webhook_secret, WOOCOMMERCE: chosen.woocommerce_webhook_secret},
    )
    app.add_middleware(CrossOrigin, readers=chosen.cors_origins, senders=chosen.beacon_origins)
    app.add_middleware(
        RequestMiddleware,
        rules=route_rules,
        metrics=metrics,
        traces=traces,
        admission=admission,
        max_body_bytes=chosen.max_body_bytes,
    )
    app.state.metrics = metrics
    install_problem_handlers(app, metrics)
    # An id is the rest of its path: the more precise paths come first.
    routes = (
        recommend,
        interactions,
        beacons,
        webhooks,
        affinities,
        users,
        items,
        attributes,
        placement_preview,
        placements,
        bulk,
        probes,
        admin,
    )
    for one in routes:
        app.include_router(one.router)
    pages = {docs_router: True, studio_router: chosen.studio, demo_router: chosen.demo}
    for page, is_served in pages.items():
        if is_served:
            app.include_router(page())
    return app


def from_environment() -> FastAPI:
    """Makes the app of a worker process, with settings and logs from the environment."""
    settings = load_settings()
    configure_logs(settings.log_level)
    return create_app(settings, opened=set_apart)


def _load(settings: Settings) -> LoadLimits:
    threads = settings.inference_threads or max(1, available_cpus() // settings.workers)
    return LoadLimits(threads, settings.max_batch, settings.max_waiting, settings.max_in_progress)


async def _in_time(close: Callable[[], Awaitable[None]]) -> None:
    """Closes a part within `CLOSE_S`: the store may hang, and caches and counts must not delay the end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await close()


async def _open(
    settings: Settings,
    metrics: Metrics,
    admission: AdmissionController,
    stack: AsyncExitStack,
    opened: Callable[[], None],
) -> AppContext:
    defaults = {} if settings.placements_file is None else read_placements_file(settings.placements_file)
    # The store first: a second process on the same state folder fails before it spends seconds on a release.
    store = await open_store(settings)
    stack.push_async_callback(store.close)
    durability = None
    if isinstance(store, RedisStore):
        durability = DurabilityWatch(store, metrics, settings.redis_durability)
        stack.push_async_callback(durability.close)
        await durability.start()
    rules = EventRules(settings.exclude_events)
    # A cached answer can leave `answer_ttl_s` after its list was made, and its list must still live long enough.
    list_ttl_s = settings.recommendation_ttl_s + settings.answer_ttl_s
    result_lists = ResultLists(store, ttl_s=list_ttl_s)
    stack.push_async_callback(_in_time, result_lists.close)
    click_stats = ClickStats(store, result_lists, ttl_s=list_ttl_s)
    stack.push_async_callback(_in_time, click_stats.close)
    click_stats.start()
    parts = Parts(
        store=store,
        metrics=metrics,
        rules=rules,
        result_lists=result_lists,
        admission=admission,
        cache_limits=CacheLimits(settings.group_ttl_s, settings.answer_ttl_s, settings.answer_cache_mb << 20),
        crowd_epoch_s=settings.crowd_epoch_s,
        items_poll_s=settings.items_poll_s,
        live_poll_s=settings.live_poll_s,
        live_evidence_bytes=settings.live_evidence_mb << 20,
        max_added_items=settings.max_added_items,
        variant=settings.variant,
        device=settings.device,
        open_deadline_s=settings.open_deadline_s,
    )
    releases = ReleaseManager(
        release_source(settings, metrics),
        parts,
        experiment=settings.experiment,
        watch_s=settings.watch_releases_s,
        opened=opened,
    )
    stack.push_async_callback(releases.close)
    await releases.start()
    _log.info("ready", release_id=releases.current.release_id, store=store.kind, threads=_load(settings).num_threads)
    events = EventReader(
        lambda: releases.current.rules,
        releases.knows,
        tail_of=lambda user_id: releases.current.release.users.tail(user_id),
    )
    placed = PlacementSync(store, defaults)
    stack.push_async_callback(placed.close)
    await placed.start()
    probe = StoreProbe(store, metrics)
    stack.push_async_callback(probe.close)
    return AppContext(
        releases=releases,
        store=store,
        events=events,
        click_stats=click_stats,
        metrics=metrics,
        admission=admission,
        probe=probe,
        placements=placed,
        webhooks=WebhookSettings(
            settings.shopify_webhook_secret, settings.woocommerce_webhook_secret, settings.webhook_item_id
        ),
        durability=durability,
    )
