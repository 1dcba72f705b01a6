"""No dependency of a route is skipped on its fast path: what the route comes to ask for is asked for there, too."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.routing import APIRoute
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from isrf.contract.errors import AccessError, OverloadError
from service.api.dependency_plan import DependencyPlan, effective_route
from service.api.problems import install_problem_handlers
from service.api.routes import recommend
from service.api.shortcut import Shortcut
from service.api.validation.parameters import KnownQueries
from service.app import create_app
from service.auth.caller import Caller
from service.recommend.query_models import ListQuery
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.servers import settings_for

QUERY = b"n=5"


@pytest.fixture
def route() -> APIRoute:
    """`GET /recommend/{user_id}` as its module declares it."""
    routes = [one for one in recommend.router.routes if isinstance(one, APIRoute)]
    return next(one for one in routes if one.endpoint is recommend.recommend_user)


@pytest.fixture
def settings(tmp_path: Any) -> Settings:
    return settings_for(None, tmp_path / "state", releases_dir=tmp_path)


async def refuses() -> None:
    raise OverloadError("overload.refused", "by what was added")


async def the_long_way(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("the long way", 418)(scope, receive, send)


async def called(app: FastAPI, *, role: Any = "read", user_id: str = "u1") -> httpx.Response:
    """What the fast path alone answers to a query that it knows."""
    queries = KnownQueries()
    queries.learn(QUERY, ListQuery(n=5))
    shortcut = Shortcut(the_long_way, queries=queries)

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        state = {"caller": Caller("k", role, "k"), "request_id": "r1"}
        await shortcut({**scope, "app": app, "state": state}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(inside), base_url="http://localhost") as client:
        return await client.get(f"/recommend/{user_id}?{QUERY.decode()}")


async def test_a_dependency_added_to_the_route_is_asked(
    settings: Settings, route: APIRoute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "dependencies", [*route.dependencies, Depends(refuses)])
    answer = await called(create_app(settings))
    assert (answer.status_code, answer.json()["code"]) == (503, "overload.refused")
    assert answer.json()["detail"] == "by what was added"


def test_known_and_new_queries_are_refused_alike(
    settings: Settings, route: APIRoute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "dependencies", [Depends(refuses), *route.dependencies])
    app = create_app(settings)
    client = TestClient(app)
    new = client.get("/recommend/u1?n=5", headers={"X-Request-ID": "r1"})
    app.state.queries.learn(QUERY, ListQuery(n=5))
    known = client.get("/recommend/u1?n=5", headers={"X-Request-ID": "r1"})
    assert (known.status_code, known.content, known.headers) == (new.status_code, new.content, new.headers)


async def test_what_only_the_framework_can_call_is_left_to_it(
    settings: Settings, route: APIRoute, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reads_a_header(x_more: Annotated[str, Header()] = "") -> None:
        raise AssertionError(x_more)

    monkeypatch.setattr(route, "dependencies", [*route.dependencies, Depends(reads_a_header)])
    assert (await called(create_app(settings))).text == "the long way"


async def test_the_route_as_it_is_is_answered_without_the_framework(settings: Settings) -> None:
    app = create_app(settings)
    refused = await called(app, user_id="%01")
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid_user_id")
    assert (await called(app, user_id="%FF")).json()["detail"] == "the user_id is not valid UTF-8."
    with pytest.raises(AttributeError, match="running"):
        # All before it was passed: the app that is not running has no release to lease.
        await called(app)


async def test_a_plan_calls_what_the_framework_calls_in_its_order() -> None:
    told: list[str] = []

    async def first(request: Request) -> str:
        told.append("first")
        return str(request.state.name)

    async def opened(name: Annotated[str, Depends(first)]) -> AsyncIterator[str]:
        told.append("opened")
        try:
            yield f"{name} opened"
        finally:
            told.append("closed")

    async def by_query(n: int, name: Annotated[str, Depends(first)]) -> int:
        told.append("by_query")
        return n

    router = APIRouter(dependencies=[Depends(first)])

    @router.get("/of/{key:path}")
    async def of(
        key: str, n: Annotated[int, Depends(by_query)], what: Annotated[str, Depends(opened)], request: Request
    ) -> Response:
        told.append("route")
        if n < 0:
            raise AccessError("key.unknown", "negative")
        return Response(f"{key} {n} {what} {request.method}")

    app = FastAPI()
    app.include_router(router)
    install_problem_handlers(app, Metrics())
    plan = DependencyPlan(effective_route(app, of), provided=[by_query])
    for n, outcome in ((3, "a/b 3 x opened GET"), (-1, None)):
        told.clear()
        scope = {"type": "http", "method": "GET", "state": {"name": "x"}, "headers": []}
        asked = plan.answer(Request(scope), {"key": "a/b"}, {by_query: n})
        if outcome is None:
            with pytest.raises(AccessError, match="negative"):
                await asked
        else:
            assert bytes((await asked).body).decode() == outcome
        assert told == ["first", "opened", "route", "closed"]
