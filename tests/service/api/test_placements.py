"""Placements are put whole or not at all, filled through their fallbacks, and read on after they are gone."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from isrf.contract.errors import ConfigError
from service.app import create_app
from service.recommend import result_lists
from service.recommend.placements.placement import KINDS, read_placements_file
from service.settings import Settings
from tests.service.releases import shopper_of

FILE = """
[home]
kind = "for-user"
length = 5

[trend]
kind = "trending"
window_s = 604800
"""


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("placements")
    (folder / "placements.toml").write_text(FILE)
    chosen = Settings(
        releases_dir=tiny_release,
        state_dir=folder / "state",
        placements_file=folder / "placements.toml",
        deadline_s=60,
    )
    with TestClient(create_app(chosen)) as client:
        yield client


@pytest.fixture(scope="module")
def shopper(tiny_release: Path) -> str:
    return shopper_of(tiny_release / "current")


def put(http: TestClient, name: str, **fields: Any) -> dict[str, Any]:
    answer = http.put(f"/placements/{name}", json=fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def items(http: TestClient, name: str, **query: Any) -> dict[str, Any]:
    answer = http.get(f"/placements/{name}/items", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(body: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in body["items"]]


def test_the_files_placements_count_until_stored(http: TestClient, shopper: str) -> None:
    assert http.get("/placements/home").json()["version"] == 0
    assert len(ids(items(http, "home", user_id=shopper))) == 5
    assert put(http, "home", kind="popular", length=3)["version"] > 0
    body = items(http, "home", user_id=shopper)
    assert (len(ids(body)), body["meta"]["source"]) == (3, "popular")
    assert body["meta"]["placement_version"] == http.get("/placements/home").json()["version"]
    assert http.delete("/placements/home").status_code == 204
    assert http.get("/placements/home").json()["version"] == 0
    assert http.delete("/placements/home").json()["code"] == "placement.unknown"


def test_for_user_is_the_users_own_list(http: TestClient, shopper: str) -> None:
    put(http, "own", kind="for-user", length=20)
    plain = http.get(f"/recommend/{shopper}", params={"n": 20}).json()["items"]
    assert items(http, "own", user_id=shopper)["items"] == plain


def test_similar_is_the_products_own_list(http: TestClient) -> None:
    put(http, "like", kind="similar", length=7)
    item = ids(items(http, "trend"))[0]
    plain = http.get(f"/similar/{item}", params={"n": 7}).json()["items"]
    assert items(http, "like", item_id=item)["items"] == plain


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_filled_and_filtered(http: TestClient, shopper: str, kind: str) -> None:
    put(http, f"full-{kind}", kind=kind, length=12, max_price=60)
    cart = ids(http.get("/popular", params={"n": 3}).json())
    body = items(http, f"full-{kind}", user_id=shopper, item_id=cart[0], cart=",".join(cart[1:]), explain="true")
    found = ids(body)
    assert len(found) == len(set(found)) == 12
    assert not set(found) & set(cart)
    assert all(http.get(f"/items/{one}").json()["item"]["price"] <= 60 for one in found)
    assert all(item["reasons"] for item in body["items"])
    assert [item["rank"] for item in body["items"]] == list(range(1, 13))


def test_a_condition_filters_every_kind(http: TestClient, shopper: str) -> None:
    put(http, "cheap", kind="for-user", filter="price < 30 AND NOT user.bought", fallbacks=["trending", "popular"])
    found = ids(items(http, "cheap", user_id=shopper))
    assert found
    assert all(http.get(f"/items/{one}").json()["item"]["price"] < 30 for one in found)
    refused = http.put("/placements/cheap", json={"kind": "popular", "filter": "prise < 30"})
    assert (refused.status_code, refused.json()["code"]) == (422, "condition.invalid")
    assert "price" in refused.json()["detail"] + refused.json()["fix"]
    assert http.get("/placements/cheap").json()["placement"]["kind"] == "for-user"


def test_what_a_kind_lacks_is_said(http: TestClient) -> None:
    put(http, "again", kind="buy-again", fallbacks=["together", "recently-viewed"])
    body = items(http, "again", user_id="nobody-yet")
    assert body["items"] == []
    codes = [warning["code"] for warning in body["warnings"]]
    assert codes.count("kind_found_nothing") == 3
    assert "fewer_items" in codes


def test_recently_viewed_shows_the_session_latest_first(http: TestClient) -> None:
    put(http, "seen", kind="recently-viewed", fallbacks=[])
    first, second, third = ids(http.get("/popular", params={"n": 3}).json())
    assert ids(items(http, "seen", session=[first, second, first, third])) == [third, first, second]
    assert ids(items(http, "seen", session=[first, second], item_id=second)) == [first], "not the page's own product"
    events = [{"user_id": "viewer", "item_id": one, "event": "view", "timestamp": at} for at, one in
              enumerate((first, second), start=1_757_000_000)]  # fmt: skip
    assert http.post("/interactions", json={"events": events}).json()["accepted"] == 2
    assert ids(items(http, "seen", user_id="viewer")) == [second, first]


def test_pages_go_on_after_the_placement_is_gone(http: TestClient, shopper: str) -> None:
    put(http, "paged", kind="for-user", length=4)
    first = items(http, "paged", user_id=shopper)
    whole = ids(items(http, "paged", user_id=shopper, n=8))
    page = {"recommendation_id": first["meta"]["recommendation_id"], "offset": first["meta"]["next_offset"], "n": 4}
    assert http.delete("/placements/paged").status_code == 204
    second = items(http, "paged", user_id=shopper, **page)
    assert ids(first) + ids(second) == whole
    assert [item["rank"] for item in second["items"]] == [5, 6, 7, 8]
    assert "placement_version" not in second["meta"]
    assert http.get("/placements/paged/items", params={"user_id": shopper}).json()["code"] == "placement.unknown"
    other = http.get("/placements/paged/items", params={**page, "user_id": "somebody-else"})
    assert other.json()["code"] == "recommendation.gone"


def test_a_cached_answer_ends_with_its_seconds_or_an_event(http: TestClient, shopper: str) -> None:
    put(http, "cached", kind="for-user", cache_s=3600)
    first = items(http, "cached", user_id=shopper)
    again = items(http, "cached", user_id=shopper)
    assert again["meta"]["recommendation_id"] == first["meta"]["recommendation_id"]
    event = {"user_id": shopper, "item_id": ids(first)[0], "event": "purchase"}
    assert http.post("/interactions", json={"events": [event]}).json()["accepted"] == 1
    assert ids(first)[0] not in ids(items(http, "cached", user_id=shopper))
    put(http, "cached", kind="popular", cache_s=3600)
    assert items(http, "cached", user_id=shopper)["meta"]["source"] == "popular"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "kind"),
        ({"kind": "best-sellers"}, "for-user"),
        ({"kind": "popular", "lenght": 3}, "did you mean 'length'?"),
        ({"kind": "popular", "length": 0}, "length"),
        ({"kind": "popular", "length": 201}, "length"),
        ({"kind": "popular", "length": True}, "length"),
        ({"kind": "new", "fallbacks": ["new"]}, "twice"),
        ({"kind": "new", "fallbacks": ["popular", "popular"]}, "twice"),
        ({"kind": "trending", "window_s": 1}, "window_s"),
        ({"kind": "popular", "min_price": 2, "max_price": 1}, "min_price is greater"),
        ({"kind": "popular", "diversity": 1.5}, "diversity"),
        ({"kind": "popular", "cache_s": -1}, "cache_s"),
        ([], "object"),
    ],
)
def test_a_bad_placement_changes_nothing(http: TestClient, body: Any, said: str) -> None:
    put(http, "kept", kind="popular", length=2)
    before = http.get("/placements/kept").json()["placement"]
    answer = http.put("/placements/kept", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert said in answer.json()["detail"]
    assert http.get("/placements/kept").json()["placement"] == before


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("Home", "For example home."),
        ("home row", "For example home-row."),
        ("-x", "For example x."),
        ("x" * 65, f"For example {'x' * 64}."),
        ("ä", "For example home-row."),
        ("home&n=2", "Parameters begin with ?, as in /placements/home/items?user_id=a."),
    ],
)
def test_a_name_is_plain(http: TestClient, name: str, fix: str) -> None:
    for answer in (
        http.put(f"/placements/{name}", json={"kind": "popular"}),
        http.get(f"/placements/{name}/items"),
        http.delete(f"/placements/{name}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid_placement")
        assert "is not a valid name" in answer.json()["detail"]
        assert answer.json()["fix"] == fix


def test_the_list_of_placements_is_in_order(http: TestClient) -> None:
    names = [one["name"] for one in http.get("/placements").json()["placements"]]
    assert names == sorted(names)
    assert {"home", "trend"} <= set(names)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[home]\nkind = 3", "home.kind"),
        ("[home]\nkind = 'popular'\nlenght = 3", "did you mean 'length'"),
        ("[Home]\nkind = 'popular'", "'Home'"),
        ("home = 3", "home"),
        ("[", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_at_the_start(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "placements.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_placements_file(path)
    assert refused.value.code == "config.placements"
    assert said in refused.value.message


def test_a_cached_answer_is_made_anew_where_its_list_is_gone(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_lists, "IN_PROCESS_BYTES", 20_000)
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path / "state", deadline_s=60)
    with TestClient(create_app(chosen)) as client:
        put(client, "kept", kind="popular", cache_s=3600, length=5)
        first = items(client, "kept")
        assert items(client, "kept")["meta"]["recommendation_id"] == first["meta"]["recommendation_id"]
        for _ in range(50):
            assert client.get("/popular").status_code == 200
        anew = items(client, "kept")
        assert anew["meta"]["recommendation_id"] != first["meta"]["recommendation_id"]
        page = {"recommendation_id": anew["meta"]["recommendation_id"], "offset": 5}
        assert len(ids(items(client, "kept", **page))) == 5


def test_a_fallbacks_reasons_rest_on_the_users_interests(http: TestClient, shopper: str) -> None:
    put(http, "own", kind="for-user", length=20)
    own = {item["item_id"]: item for item in items(http, "own", user_id=shopper, explain=True)["items"]}
    put(http, "viewed", kind="recently-viewed", fallbacks=["for-user"], length=20)
    filled = items(http, "viewed", user_id=shopper, explain=True)["items"]
    both = [item for item in filled if item["item_id"] in own and item["source"] == own[item["item_id"]]["source"]]
    assert any(reason["channel"] == "group" for item in both for reason in item["reasons"])
    assert all(item["reasons"] == own[item["item_id"]]["reasons"] for item in both)


def test_a_thousand_placements_are_enough(tiny_release: Path, tmp_path: Path) -> None:
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path / "state", deadline_s=60)
    with TestClient(create_app(chosen)) as client:
        for number in range(1000):
            put(client, f"p{number}", kind="popular")
        refused = client.put("/placements/one-more", json={"kind": "popular"})
        assert (refused.status_code, refused.json()["code"]) == (409, "placement.too_many")
        assert put(client, "p7", kind="new")["version"] == 1001
        began = time.monotonic()
        assert len(client.get("/placements").json()["placements"]) == 1000
        assert time.monotonic() - began < 5


def test_a_change_of_another_is_not_overwritten(http: TestClient) -> None:
    def change(method: str, version: int, kind: str = "popular") -> Any:
        sent = {"kind": kind} if method == "PUT" else None
        return http.request(method, "/placements/edited", params={"expected_version": version}, json=sent)

    first = change("PUT", 0).json()["version"]
    mine = change("PUT", first, "new").json()["version"]
    for refused in (change("PUT", first, "trending"), change("DELETE", first), change("PUT", 0)):
        assert (refused.status_code, refused.json()["code"]) == (409, "placement.changed")
        assert f"version {mine}" in refused.json()["detail"]
    assert http.get("/placements/edited").json()["placement"]["kind"] == "new"
    assert change("DELETE", mine).status_code == 204
    gone = change("PUT", mine)
    assert (gone.status_code, gone.json()["code"]) == (409, "placement.changed")
    assert "not stored" in gone.json()["detail"]
    assert change("DELETE", 0).json()["code"] == "placement.unknown"
    assert change("PUT", -1).status_code == 422


def test_the_files_placement_is_changed_as_version_0(http: TestClient) -> None:
    assert http.get("/placements/trend").json()["version"] == 0
    put = http.put("/placements/trend", params={"expected_version": 0}, json={"kind": "popular"})
    assert put.status_code == 200
    assert http.delete("/placements/trend", params={"expected_version": put.json()["version"]}).status_code == 204
    assert http.get("/placements/trend").json()["version"] == 0


def test_what_is_shown_can_be_put_again(http: TestClient) -> None:
    rule = {"pin": {"item_id": "a", "place": 1}}
    sent = put(http, "again", kind="popular", rules=[rule])["placement"]
    assert sent["rules"] == [rule]
    shown = http.get("/placements/again").json()["placement"]
    assert shown == sent
    assert put(http, "again", **shown)["placement"] == shown
    assert "null" not in json.dumps(http.get("/placements").json()["placements"])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("similar", "similar needs item_id or cart; the call gives neither."),
        ("together", "together needs item_id or cart; the call gives neither."),
        ("buy-again", "buy-again needs user_id; the call gives none."),
        ("recently-viewed", "recently-viewed needs user_id or session; the call gives neither."),
    ],
)
def test_a_call_without_what_the_kind_needs_says_so(http: TestClient, kind: str, said: str) -> None:
    put(http, "needs", kind=kind)
    assert [one["message"] for one in items(http, "needs")["warnings"]] == [said]


def test_a_known_query_is_answered_as_by_the_framework(http: TestClient, shopper: str) -> None:
    """`user%5Fid` says the same as `user_id`, and only the framework reads it."""
    put(http, "known", kind="for-user", rules=[{"at_most": {"attribute": "brand", "count": 2}}])
    bad = ("%01", "", "%FF", "x" * 600)
    calls = ("user_id={}&n=4", "explain=true&n=4&user_id={}", "n=0&user_id={}", "user_id={}&unknown=1")
    for query in calls:
        assert http.get(f"/placements/known/items?{query.format('somebody')}").status_code in {200, 422}
        for user in (shopper, "nobody", *bad):
            answers = [
                http.get(f"/placements/{name}/items?{text.format(user)}")
                for text in (query.replace("user_id", "user%5Fid"), query)
                for name in ("known", "no-such", "n%C3%B6")
            ]
            for framework, known in zip(answers[:3], answers[3:], strict=True):
                assert known.status_code == framework.status_code
                assert without_ids(known.json()) == without_ids(framework.json())


def without_ids(body: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs from call to call."""
    meta = {name: value for name, value in body.get("meta", {}).items() if not name.endswith("_id")}
    return {**body, "meta": meta, "request_id": "", "instance": ""}
