"""What is told to a shop whose event cannot be taken in: through every route that takes events, and on both stores."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.servers import PATIENCE_S, RedisServer, ServiceProcess


@pytest.fixture(scope="module", params=["embedded", "redis"])
def http(
    request: pytest.FixtureRequest,
    tiny_release: Path,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    environment = {} if request.param == "embedded" else {"REDIS_URL": redis_server.url}
    with redis_server.client() as client:
        client.flushall()
    process = ServiceProcess(tiny_release, tmp_path_factory.mktemp("refusals"), **environment).start()
    with httpx.Client(base_url=process.url, timeout=PATIENCE_S) as client:
        yield client
    process.kill()


@pytest.fixture(scope="module")
def items(http: httpx.Client) -> list[str]:
    return [item["item_id"] for item in http.get("/popular?n=3").json()["items"]]


def posted(http: httpx.Client, route: str, *events: dict[str, Any]) -> list[dict[str, str]]:
    """What was said of each event, by its reason and detail; nothing for one that was taken in."""
    if route == "/interactions":
        answer = http.post(route, json={"events": list(events)}).json()
        return [{k: one[k] for k in ("reason", "detail") if k in one} for one in answer["results"]]
    answer = http.post(route, content="\n".join(json.dumps(one) for one in events)).json()
    found: list[dict[str, str]] = [{} for _ in events]
    for problem in answer["problems"]:
        found[problem["line"] - 1] = {"reason": problem["reason"], "detail": problem["detail"]}
    return found


@pytest.mark.parametrize("route", ["/interactions", "/import/events"])
def test_a_reused_id_is_named_with_what_it_names(http: httpx.Client, items: list[str], route: str) -> None:
    one = {"user_id": f"ann-secret{route}", "item_id": items[0], "event": "Purchase", "event_id": f"order{route}"}
    others: list[dict[str, Any]] = [
        {**one, "item_id": items[1]}, {**one, "event": "view"}, {**one, "user_id": "bob"}, {**one, "timestamp": 5.0},
        {**one, "event": None},
    ]  # fmt: skip
    for answers in (posted(http, route, one, *others)[1:], posted(http, route, *others)):
        assert [answer.get("reason") for answer in answers] == ["event_id_reused"] * 3 + [None, "event_id_reused"]
        for answer in answers:
            if answer:
                assert items[0] in answer["detail"]
                assert "purchase" in answer["detail"]
                assert "ann-secret" not in answer["detail"]
    assert http.get("/users/bob").json()["history"] == []


@pytest.mark.parametrize("route", ["/interactions", "/import/events", "/import/users"])
def test_what_is_dated_before_an_erasure_is_refused(http: httpx.Client, items: list[str], route: str) -> None:
    user_id, now = f"gone{route}", time.time()
    assert posted(http, "/interactions", {"user_id": user_id, "item_id": items[0], "timestamp": now - 5}) == [{}]
    assert http.delete(f"/users/{user_id}").status_code == 204
    if route == "/import/users":
        again: list[dict[str, Any]] = [{"user_id": user_id, "bought": {items[0]: now - 5}}]
    else:
        again = [{"user_id": user_id, "item_id": items[0], "timestamp": now - 5, "event_id": f"e{route}"}]
    assert [answer["reason"] for answer in posted(http, route, *again)] == ["before_erasure"]
    assert http.get(f"/users/{user_id}").json()["history"] == []
    assert posted(http, "/interactions", {"user_id": user_id, "item_id": items[1]}) == [{}]
    assert [answer["reason"] for answer in posted(http, route, *again)] == ["before_erasure"]
    assert http.get(f"/users/{user_id}").json()["history"] == [items[1]]
    described = http.get("/openapi.json").text
    assert all(code in described for code in ("before_erasure", "event_id_reused"))


@pytest.mark.parametrize("route", ["/interactions", "/import/events"])
def test_what_is_sent_again_after_an_erasure_is_refused(http: httpx.Client, items: list[str], route: str) -> None:
    one = {"user_id": f"left{route}", "item_id": items[0], "event_id": f"left-order{route}"}
    assert posted(http, "/interactions", one) == [{}]
    assert http.delete(f"/users/{one['user_id']}").status_code == 204
    again, another = posted(http, route, one, {**one, "user_id": "bob"})
    assert (again["reason"], another["reason"]) == ("before_erasure", "event_id_reused")
    assert one["user_id"] not in another["detail"]
    assert not another["detail"].endswith("item ; give every event an id of its own")
    assert not http.get(f"/users/{one['user_id']}").json()["known"]


def test_an_integer_id_is_its_text_wherever_events_come_in(http: httpx.Client) -> None:
    for route in ("/interactions", "/import/events"):
        one = {"user_id": 7, "item_id": 12, "event": "remove", "event_id": 99}
        assert posted(http, route, one, {**one, "user_id": "7", "item_id": "12", "event_id": "99"}) == [{}, {}]
        (refused,) = posted(http, route, {**one, "item_id": "13"})
        assert (refused["reason"], "item 12" in refused["detail"]) == ("event_id_reused", True)
