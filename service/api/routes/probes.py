"""Probes and metrics: whether the process is alive, whether it is ready, and its metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from service.api.context import AppDep
from service.api.presenters import PROBLEMS, json_response
from service.api.schemas.answers import Readiness
from service.auth.caller import ADMIN
from service.telemetry.metrics import CONTENT_TYPE

router = APIRouter(tags=["probes"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """200 while the process answers."""
    return {"status": "alive"}


@router.get("/readyz", response_model=Readiness)
async def readyz(context: AppDep) -> Response:
    """200 while the service can recommend; `degraded` while it cannot read and write user state.

    Keep a degraded replica in rotation: its answers are worse, and without it there would be none.
    """
    store = "ok" if await context.probe.is_up() else "unavailable"
    warnings = [] if context.durability is None else context.durability.warnings()
    runtime = context.releases.current
    live = None if runtime.live is None else runtime.live.progress._asdict()
    warnings += [] if runtime.live is None else runtime.live.warnings()
    warnings += context.releases.warnings()
    return json_response(
        {
            "status": "ready" if store == "ok" else "degraded",
            "release_id": runtime.release_id,
            "store": store,
            "live_evidence": live,
            **({"warnings": warnings} if warnings else {}),
        }
    )


@router.get(
    "/metrics",
    dependencies=[ADMIN],
    response_class=PlainTextResponse,
    responses={
        **PROBLEMS,
        200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    },
)
async def metrics(context: AppDep) -> Response:
    """The metrics in Prometheus' text format."""
    return Response(context.metrics.exposition(), media_type=CONTENT_TYPE)
