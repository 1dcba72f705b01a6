"""A list is read page by page as it was made; what it shows is counted; each answer says what it rests on."""

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import polars as pl
import pytest
from fastapi.testclient import TestClient

from service.api.schemas import answers as schemas
from service.app import create_app
from service.settings import Settings
from tests.service.servers import RedisServer, settings_for


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with TestClient(
        create_app(Settings(releases_dir=tiny_release, state_dir=tmp_path_factory.mktemp("state"), deadline_s=60))
    ) as http:
        yield http


@pytest.fixture(scope="module")
def users(tiny_release: Path) -> list[str]:
    return pl.read_parquet(tiny_release / "current" / "users.parquet")["user_id"].to_list()


@pytest.fixture(scope="module")
def items(tiny_release: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tiny_release / "current" / "items.jsonl").read_text().splitlines()]


def good(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def ids(body: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in body["items"]]


def codes(body: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in body["warnings"]]


def post(http: TestClient, **event: Any) -> dict[str, Any]:
    (result,) = good(http.post("/interactions", json={"events": [event]}))["results"]
    told: dict[str, Any] = result
    return told


def pages(http: TestClient, path: str, first: dict[str, Any], **query: Any) -> Iterator[dict[str, Any]]:
    """The pages after the first."""
    body = first
    while "next_offset" in body["meta"]:
        asked = {"recommendation_id": first["meta"]["recommendation_id"], "offset": body["meta"]["next_offset"]}
        body = good(http.get(path, params={**asked, **query}))
        yield body


def test_pages_are_one_list(http: TestClient, users: list[str], items: list[dict[str, Any]]) -> None:
    category = items[0]["categories"][-1]
    for path in (f"/recommend/{users[1]}", "/popular", f"/similar/{items[0]['item_id']}", "/recommend/nobody"):
        for query in ({}, {"category": category}, {"diversity": 0.4}):
            whole = good(http.get(path, params={"n": 100, **query}))
            first = good(http.get(path, params=query))
            read = [first, *pages(http, path, first)]
            told = [item for page in read for item in page["items"]]
            assert [item["rank"] for item in told] == list(range(1, len(told) + 1))
            assert len({item["item_id"] for item in told}) == len(told)
            assert told == whole["items"][: len(told)]
            assert {page["meta"]["source"] for page in read} == {first["meta"]["source"]}
            schemas.Recommendations.model_validate({"user_id": None, **read[-1]})


def test_a_page_without_a_list_is_of_a_new_one(http: TestClient, users: list[str]) -> None:
    path = f"/recommend/{users[2]}"
    whole = good(http.get(path, params={"n": 40}))
    assert good(http.get(path, params={"offset": 25}))["items"] == whole["items"][25:35]
    beyond = good(http.get(path, params={"offset": 5000}))
    assert (beyond["items"], codes(beyond)) == ([], ["end_of_list"])


def test_nothing_is_repeated_while_the_user_changes(http: TestClient, users: list[str]) -> None:
    path = f"/recommend/{users[7]}"
    whole = ids(good(http.get(path, params={"n": 100})))
    first = good(http.get(path))
    seen = ids(first)
    bought: list[str] = []
    for page in pages(http, path, first):
        assert not set(ids(page)) & set(seen), "no repeats"
        assert not set(ids(page)) & set(bought), "and nothing that was bought meanwhile"
        assert ("fewer_items" in codes(page)) == (len(ids(page)) < 10)
        seen += ids(page)
        # What the next page would show first is bought, and what was shown is looked at.
        place = page["meta"].get("next_offset", 0)
        if place:
            bought.append(whole[place])
            assert post(http, user_id=users[7], item_id=whole[place])["status"] == "accepted"
            post(http, user_id=users[7], item_id=seen[-1], event="view")
    assert seen == [item for item in whole if item not in bought]
    assert len(bought) == 8
    assert ids(good(http.get(path))) != ids(first), "a new list knows what happened"


def test_a_list_is_for_those_whose_it_is(http: TestClient, users: list[str]) -> None:
    mine = good(http.get(f"/recommend/{users[8]}"))["meta"]["recommendation_id"]
    query = {"recommendation_id": mine, "offset": 10}
    assert len(ids(good(http.get(f"/recommend/{users[8]}", params=query)))) == 10
    for path in (f"/recommend/{users[9]}", "/popular", "/recommend/nobody"):
        refused = http.get(path, params=query)
        assert (refused.status_code, refused.json()["code"]) == (404, "recommendation.gone")
    unknown = http.get(f"/recommend/{users[8]}", params={"recommendation_id": "x" * 20})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "recommendation.gone")
    assert http.get("/popular", params={"recommendation_id": "a/b"}).status_code == 422
    http.delete(f"/users/{users[8]}")
    erased = http.get(f"/recommend/{users[8]}", params=query)
    assert (erased.status_code, erased.json()["code"]) == (404, "recommendation.gone")


def test_a_later_page_says_why(http: TestClient, users: list[str], items: list[dict[str, Any]]) -> None:
    first = good(http.get(f"/recommend/{users[10]}", params={"explain": True}))
    (second, *_) = pages(http, f"/recommend/{users[10]}", first, explain=True)
    history = good(http.get(f"/users/{users[10]}"))["history"]
    assert all(item["reasons"] for item in second["items"])
    paths = {path["item_id"] for item in second["items"] for reason in item["reasons"] for path in reason["paths"]}
    assert paths
    assert paths <= set(history)
    session = {"history": [items[3]["item_id"]], "explain": True}
    begun = good(http.post("/recommend", json=session))
    asked = {"recommendation_id": begun["meta"]["recommendation_id"], "offset": begun["meta"]["next_offset"]}
    later = good(http.post("/recommend", json={**session, **asked}))
    assert not set(ids(later)) & set(ids(begun))
    assert all(item["reasons"] for item in later["items"])


def lists_of(users: list[str], items: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any] | None]]:
    """Every call that gives a list with pages, as (path, body)."""
    session = {"history": [items[3]["item_id"]]}
    return [
        (f"/recommend/{users[11]}", None),
        ("/recommend/nobody", None),
        ("/popular", None),
        (f"/similar/{items[0]['item_id']}", None),
        ("/recommend", session),
        ("/recommend", {**session, "user_id": users[11]}),
    ]


def ask(http: TestClient, path: str, body: dict[str, Any] | None, **query: Any) -> httpx2.Response:
    return http.get(path, params=query) if body is None else http.post(path, json={**body, **query})


def test_a_page_keeps_the_filter_of_its_list_as_the_catalogue_is_now(
    http: TestClient, users: list[str], items: list[dict[str, Any]]
) -> None:
    for path, body in lists_of(users, items):
        asked = {"n": 5, "max_price": 1e6, "min_price": 0.01, "category": items[5]["categories"][0]}
        first = good(ask(http, path, body, **asked))
        page = {"n": 5, "recommendation_id": first["meta"]["recommendation_id"], "offset": 5}
        before = ids(good(ask(http, path, body, **page)))
        assert len(before) == 5
        changes: dict[str, dict[str, Any]] = {
            "max_price": {"price": 2e6},
            "min_price": {"price": 0.0},
            "none": {"price": None},
            "category": {"categories": ["Elsewhere"]},
        }
        for gone, change in changes.items():
            as_it_was = next(item for item in items if item["item_id"] == before[0])
            http.put(f"/items/{before[0]}", json=change)
            later = good(ask(http, path, body, **page))
            http.put(f"/items/{before[0]}", json={name: as_it_was[name] for name in change})
            assert ids(later) == before[1:], (path, gone)
            assert "fewer_items" in codes(later)
        assert ids(good(ask(http, path, body, **page))) == before, "and back again"


def test_a_page_refuses_what_is_not_its_lists(http: TestClient, users: list[str], items: list[dict[str, Any]]) -> None:
    own = {
        "n": 5,
        "max_price": 500,
        "min_price": 1,
        "category": items[5]["categories"][0],
        "exclude": [items[8]["item_id"], items[9]["item_id"]],
        "diversity": 0.5,
        "include_seen": True,
    }
    others = {
        "max_price": 499,
        "min_price": 0,
        "category": "Elsewhere",
        "exclude": [items[8]["item_id"]],
        "diversity": 0,
        "include_seen": False,
    }
    for path, body in lists_of(users, items):
        bare, full = (good(ask(http, path, body, **asked)) for asked in ({"n": 5}, own))
        for first, asked in ((bare, {}), (full, own)):
            page = {"recommendation_id": first["meta"]["recommendation_id"], "offset": 5}
            kept = good(ask(http, path, body, **page, n=5))
            assert ids(good(ask(http, path, body, **page, **{**asked, "n": 5}))) == ids(kept), "its own may be said"
            assert not set(ids(kept)) & set(ids(first))
            for name, value in [*others.items(), ("category", "")]:
                if first is bare and value in (0, False):
                    continue  # what the list has by default
                refused = ask(http, path, body, **page, **{name: value})
                assert (refused.status_code, refused.json()["code"]) == (422, "recommendation.other_parameters"), name
                assert name in refused.json()["detail"]
                assert name in refused.json()["fix"]


def test_a_page_of_a_session_keeps_to_it(http: TestClient, items: list[dict[str, Any]]) -> None:
    session, other = items[3]["item_id"], items[4]["item_id"]
    user = "nobody-" + uuid.uuid4().hex
    for path, body, query in (
        ("/recommend", {"history": [session]}, {}),
        ("/recommend", {"history": [session], "user_id": user}, {}),
        (f"/recommend/{user}", None, {"session": session}),
    ):
        first = good(ask(http, path, body, **query))
        page = {"recommendation_id": first["meta"]["recommendation_id"], "offset": 10}
        later = good(ask(http, path, body, **page, **query, explain=True))
        assert {path["item_id"] for one in later["items"] for why in one["reasons"] for path in why["paths"]} == {
            session
        }
        name = "session" if body is None else "history"
        grown = {name: [session, other]}
        refused = ask(http, path, body, **page, **{**query, **grown})
        assert (refused.status_code, refused.json()["code"]) == (422, "recommendation.other_parameters")
        without: dict[str, list[str]] = {"history": []} if body is not None else {}
        assert ids(good(ask(http, path, body, **page, **without))) == ids(later), "it need not be said again"
        unexplained = ask(http, path, body, **page, **without, explain=True)
        assert (unexplained.status_code, unexplained.json()["code"]) == (422, "recommendation.no_session")


def test_a_diverse_list_is_the_same_however_much_of_it_is_asked_for(
    http: TestClient, users: list[str], items: list[dict[str, Any]]
) -> None:
    for path, body in lists_of(users, items):
        for category in (None, items[0]["categories"][0]):
            asked = {"diversity": 0.4} | ({} if category is None else {"category": category})
            whole = good(ask(http, path, body, n=200, **asked))["items"]
            for n in (1, 2, 5, 10, 50, 99):
                assert good(ask(http, path, body, n=n, **asked))["items"] == whole[:n], (path, n)
            first = good(ask(http, path, body, n=5, **asked))
            page = {"recommendation_id": first["meta"]["recommendation_id"], "offset": 5, "n": 7}
            assert good(ask(http, path, body, **page))["items"] == whole[5:12]
            assert good(ask(http, path, body, n=7, offset=5, **asked))["items"] == whole[5:12]
    candidates = [item["item_id"] for item in items]
    for who in ({"user_id": users[11]}, {"history": candidates[:2]}, {}):
        whole = good(http.post("/rank", json={"candidates": candidates, "diversity": 0.4, **who}))["items"]
        for n in (1, 3, 5, 10, 80, 119):
            told = good(http.post("/rank", json={"candidates": candidates, "diversity": 0.4, "n": n, **who}))["items"]
            assert told == whole[:n], n


def test_another_replica_reads_on(
    tiny_release: Path, redis_server: RedisServer, tmp_path: Path, users: list[str]
) -> None:
    with redis_server.client() as client:
        client.flushall()
    settings = settings_for(redis_server, tmp_path, releases_dir=tiny_release)
    with ExitStack() as stack:
        one, other = (stack.enter_context(TestClient(create_app(settings))) for _ in range(2))
        first = good(one.get(f"/recommend/{users[0]}"))
        shown = ids(first)
        # The next answer waits until the first replica's write is through: a write of our own follows it.
        post(one, user_id="somebody", item_id=shown[0])
        for page in pages(other, f"/recommend/{users[0]}", first):
            assert not set(ids(page)) & set(shown)
            shown += ids(page)
        assert len(shown) == 100
        clicked = {"user_id": users[0], "recommendation_id": first["meta"]["recommendation_id"]}
        post(one, **clicked, item_id=shown[0], event="view")
        post(other, **clicked, item_id=shown[0], event="view")
        post(other, **clicked, item_id=shown[15])
        for replica in (one, other):
            good(replica.get("/admin/stats"))
        (told,) = good(one.get("/admin/stats"))["releases"]
        assert (told["answers"], told["by_answer_source"][0]["items_shown"]) == (10, 100)
        assert [(one["clicks"], one["purchases"]) for one in told["by_answer_source"]] == [(2, 1)]
        assert sum(one["items_shown"] for one in told["by_item_source"]) == 100
        assert sum(one["clicks"] for one in told["by_item_source"]) == 2


def test_what_is_shown_and_clicked_is_counted_without_names(
    tiny_release: Path, tmp_path: Path, users: list[str]
) -> None:
    settings = Settings(releases_dir=tiny_release, state_dir=tmp_path, deadline_s=60)
    with TestClient(create_app(settings)) as http:
        assert good(http.get("/admin/stats")) == {"releases": []}
        for _ in range(3):  # two of them from the cache
            body = good(http.get(f"/recommend/{users[3]}", params={"n": 5}))
        answer = {"user_id": users[3], "recommendation_id": body["meta"]["recommendation_id"]}
        event = {"user_id": users[3], "item_id": ids(body)[0], "event": "view", "timestamp": 1.0e9}
        assert post(http, **event, recommendation_id="unknown-one")["status"] == "accepted"
        assert post(http, **event)["status"] == "duplicate", "the id of a list is no part of an event"
        for kind in ("view", "cart", "purchase", "purchase"):
            post(http, **answer, item_id=ids(body)[1], event=kind)
        for kind in ("dislike", "remove"):
            post(http, **answer, item_id=ids(body)[2], event=kind)
        bought = good(http.get(f"/users/{users[3]}"))["excluded"][0]  # so that no list of theirs holds it
        post(http, **answer, item_id=bought)
        assert post(http, **event | {"recommendation_id": "x" * 65})["reason"] == "invalid_event"
        good(http.get("/popular", params={"n": 7}))
        told = good(http.get("/admin/stats"))
    schemas.Stats.model_validate(told)
    (release,) = told["releases"]
    by_source = {one["source"]: one for one in release["by_answer_source"]}
    assert set(by_source) == {"sequence", "popular"}
    sequence = by_source["sequence"]
    assert (sequence["answers"], sequence["items_shown"]) == (3, 15)
    assert (sequence["clicks"], sequence["purchases"], sequence["click_through"]) == (1, 1, round(1 / 15, 6))
    assert (by_source["popular"]["items_shown"], by_source["popular"]["clicks"]) == (7, 0)
    assert not any(user in json.dumps(told) for user in users)


def test_each_answer_says_what_it_rests_on(http: TestClient, users: list[str], items: list[dict[str, Any]]) -> None:
    nobody = "nobody-" + uuid.uuid4().hex
    session, category = items[20]["item_id"], items[20]["categories"][-1]

    def source(user: str, **query: Any) -> str:
        body = good(http.get(f"/recommend/{user}", params=query))
        assert body["items"], "never an empty page while there are items"
        told: str = body["meta"]["source"]
        return told

    assert source(users[4], session=session, category=category) == "sequence"
    assert source(nobody, session=session, category=category) == "session"
    assert source(nobody, session=f"gone,{session}") == "session"
    assert source(nobody, session="gone", category=category) == "category-popular"
    assert source(nobody, category=category) == "category-popular"
    assert source(nobody, session="gone") == source(nobody) == "popular"
    assert good(http.get("/popular", params={"category": category}))["meta"]["source"] == "category-popular"
    for user, expected in ((users[4], "sequence"), (nobody, "session")):
        body = good(http.post("/recommend", json={"history": [session], "user_id": user}))
        assert (body["user_id"], body["meta"]["source"]) == (user, expected)
    alone = good(http.post("/recommend", json={"history": [session]}))
    assert ids(alone) == ids(good(http.get(f"/recommend/{nobody}", params={"session": session})))
    assert session not in ids(alone)
    # The session was read and is not remembered as the user's.
    assert good(http.get(f"/users/{nobody}"))["history"] == []
    assert source(nobody) == "popular"


def test_a_filter_is_kept_though_it_leaves_nothing(http: TestClient, users: list[str]) -> None:
    for user in (users[4], "nobody"):
        body = good(http.get(f"/recommend/{user}", params={"category": "no such category"}))
        nobody = ["unknown_user"] if user == "nobody" else []
        assert (body["items"], sorted(codes(body))) == ([], ["fewer_items", "unknown_category", *nobody])
