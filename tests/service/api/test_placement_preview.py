"""A preview shows both lists and what each rule does, and changes nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.api.test_placements import ids, items, put
from tests.service.releases import shopper_of

Body = dict[str, Any]


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("preview")
    file = folder / "placements.toml"
    file.write_text('[broken]\nkind = "popular"\nfilter = "gone_since = 3"\n')
    chosen = Settings(releases_dir=tiny_release, state_dir=folder / "state", placements_file=file, deadline_s=60)
    with TestClient(create_app(chosen)) as client:
        yield client


@pytest.fixture(scope="module")
def shopper(tiny_release: Path) -> str:
    return shopper_of(tiny_release / "current")


def preview(http: TestClient, placement: Body, **page: Any) -> Body:
    answer = http.post("/placements/preview", json={"placement": placement, **page})
    assert answer.status_code == 200, answer.text
    found: Body = answer.json()
    return found


def without(item: Body, *names: str) -> Body:
    return {name: value for name, value in item.items() if name not in names}


PAGES: list[Body] = [
    {"kind": "for-user"},
    {"kind": "similar", "diversity": 0.4},
    {"kind": "together", "filter": "price < 70"},
    {"kind": "trending"},
    {"kind": "popular"},
    {"kind": "new"},
    {"kind": "buy-again"},
    {"kind": "recently-viewed"},
]
RULES: list[Body] = [
    {"boost": {"where": "price < 30", "by": 8}},
    {"pin": {"where": "price > 50", "place": 2}},
    {"at_most": {"attribute": "brand", "count": 2}},
]


@pytest.mark.parametrize("placement", PAGES, ids=lambda placement: placement["kind"])
def test_both_lists_are_those_that_get_answers(http: TestClient, shopper: str, placement: Body) -> None:
    cart = ids(http.get("/popular", params={"n": 3}).json())
    page = {"user_id": shopper, "item_id": cart[0], "cart": cart[1:], "n": 6}
    ruled = {**placement, "rules": RULES}
    body = preview(http, ruled, **page)
    assert body["before_is"] == "without_rules"
    for shown, fields in ((body["before"], placement), (body["after"], ruled)):
        put(http, "same", **fields)
        answer = items(http, "same", explain=True, **page)
        assert shown["items"] == answer["items"]
        assert shown["warnings"] == answer["warnings"]
        assert without(shown["meta"], "request_id") == without(
            answer["meta"], "request_id", "recommendation_id", "next_offset", "placement", "placement_version"
        )
    put(http, "same", **placement)
    stored = preview(http, ruled, name="same", **page)
    assert (stored["before_is"], stored["before"]["items"]) == ("stored", body["before"]["items"])
    assert stored["before"]["meta"]["placement_version"] > 0
    assert stored["moves"] == body["moves"]


def test_moves_are_all_items_whose_place_differs(http: TestClient, shopper: str) -> None:
    body = preview(http, {"kind": "for-user", "rules": RULES}, user_id=shopper, n=8)
    before, after = ids(body["before"]), ids(body["after"])
    assert before != after
    differing = [one for one in after if one not in before or before.index(one) != after.index(one)]
    assert [move["item_id"] for move in body["moves"]] == [*differing, *(one for one in before if one not in after)]
    explained = {item["item_id"]: item["rules"] for item in body["after"]["items"]}
    for move in body["moves"]:
        for shown, place in ((before, move["before"]), (after, move["after"])):
            assert (shown.index(move["item_id"]) + 1 if move["item_id"] in shown else None) == place
        if move["after"] is not None:
            told = [{"rule": one["rule"], "kind": one["kind"], "moved": one["places"]} for one in move["rules"]]
            assert told == explained[move["item_id"]]


def test_each_rule_says_how_many_items_it_concerns(http: TestClient) -> None:
    first, second, third, fourth, fifth = ids(http.get("/popular", params={"n": 5}).json())
    rules: list[Body] = [
        {"boost": {"where": f"item_id IN ('{first}', '{second}')", "by": 1e-6}},
        {"pin": {"item_id": fifth, "place": 1}},
        {"at_most": {"attribute": "item_id", "count": 1}},
        {"boost": {"where": "price < 0", "by": 2}},
    ]
    body = preview(http, {"kind": "popular", "length": 3, "rules": rules})
    assert ids(body["before"]) == [first, second, third]
    assert ids(body["after"]) == [fifth, third, fourth]
    assert [(one["rule"], one["kind"], one["items"]) for one in body["rules"]] == [
        (1, "boost", 2),  # both left
        (2, "pin", 1),
        (3, "at_most", 0),
        (4, "boost", 0),
    ]
    assert [(one["item_id"], one["before"], one["after"]) for one in body["moves"]] == [
        (fifth, None, 1),
        (third, 3, 2),
        (fourth, None, 3),
        (first, 1, None),
        (second, 2, None),
    ]
    left = {one["item_id"]: one["rules"] for one in body["moves"]}[first]
    assert [(one["rule"], one["kind"]) for one in left] == [(1, "boost")]
    assert left[0]["places"] < 0


def test_a_cap_names_the_items_that_it_keeps_out(http: TestClient) -> None:
    everything = ids(http.get("/popular", params={"n": 100}).json())
    brand = {one: http.get(f"/items/{one}").json()["item"]["brand"] for one in everything[:12]}
    twice = next(one for at, one in enumerate(everything) if brand[one] in [brand[other] for other in everything[:at]])
    place = everything.index(twice) + 1
    placement = {"kind": "popular", "rules": [{"at_most": {"attribute": "brand", "count": 1}}]}
    body = preview(http, placement, n=place)
    (move,) = [one for one in body["moves"] if one["item_id"] == twice]
    assert (move["before"], move["after"]) == (place, None)
    assert [(one["rule"], one["kind"]) for one in move["rules"]] == [(1, "at_most")]
    assert body["rules"] == [{"rule": 1, "kind": "at_most", "items": 1}]


def test_nothing_is_changed_stored_or_counted(http: TestClient, shopper: str) -> None:
    put(http, "home", kind="popular", length=3, cache_s=3600)
    before = http.get("/placements").json()["placements"]

    def counted() -> tuple[Any, list[str]]:
        lines = http.get("/metrics").text.splitlines()
        return http.get("/admin/stats").json()["releases"], [
            line for line in lines if line.startswith(("isrf_answers_total", "isrf_items_total", "isrf_short_answers"))
        ]

    kept = counted()
    for name in ("home", "new-one"):
        body = preview(http, {"kind": "new", "rules": RULES}, name=name, user_id=shopper)
        for shown in (body["before"], body["after"]):
            assert "recommendation_id" not in shown["meta"]
    assert counted() == kept
    assert http.get("/placements").json()["placements"] == before
    assert http.get("/placements/new-one").status_code == 404
    assert ids(items(http, "home")) == ids(http.get("/popular", params={"n": 3}).json())


def test_the_stored_placement_may_fail_where_the_new_one_does_not(http: TestClient) -> None:
    assert http.get("/placements/broken/items").json()["code"] == "condition.invalid"
    body = preview(http, {"kind": "popular", "length": 2}, name="broken")
    assert body["before"]["items"] == []
    assert body["before"]["warnings"][0]["code"] == "stored_placement_fails"
    assert len(ids(body["after"])) == 2


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        ({}, "kind"),
        ({"kind": "popular", "lenght": 3}, "did you mean 'length'?"),
        ({"kind": "popular", "length": 0}, "length"),
        ({"kind": "popular", "filter": "prise < 3"}, "prise"),
        ({"kind": "popular", "rules": [{"at_most": {"attribute": "brand", "count": 0}}]}, "count"),
        (
            {
                "kind": "popular",
                "rules": [
                    {"at_most": {"attribute": "brand", "count": 1}},
                    {"at_most": {"attribute": "bran", "count": 1}},
                ],
            },
            "rule 2",
        ),
        ({"kind": "popular", "rules": [{"boost": {"where": "prise < 3", "by": 2}}]}, "rule 1"),
    ],
)
def test_what_put_refuses_is_refused_alike(http: TestClient, placement: Body, said: str) -> None:
    put_answer = http.put("/placements/bad", json=placement)
    answer = http.post("/placements/preview", json={"placement": placement})
    assert answer.status_code == put_answer.status_code == 422
    assert answer.json()["code"] == put_answer.json()["code"]
    assert said in answer.json()["detail"]
    assert answer.json()["detail"].replace("body.placement", "body") == put_answer.json()["detail"]
    assert answer.json().get("fix") == put_answer.json().get("fix")


@pytest.mark.parametrize(
    ("page", "code", "said"),
    [
        ({"n": 0}, "request.invalid", "body.n"),
        ({"n": 201}, "request.invalid", "body.n"),
        ({"n": True}, "request.invalid", "body.n"),
        ({"name": "Home"}, "request.invalid", "body.name"),
        ({"user_id": ""}, "request.invalid_user_id", "empty"),
        ({"item_id": "x" * 513}, "request.invalid_item_id", "bytes"),
        ({"cart": ["x"] * 101}, "request.invalid", "body.cart"),
        ({"cart": "x"}, "request.invalid", "body.cart"),
        ({"session": ["a\n"]}, "request.invalid_item_id", "control character"),
        ({"explain": False}, "request.invalid", "explain"),
    ],
)
def test_a_bad_page_is_refused(http: TestClient, page: Body, code: str, said: str) -> None:
    answer = http.post("/placements/preview", json={"placement": {"kind": "popular"}, **page})
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert said in answer.text


def test_unknown_items_and_users_are_said_of_both_lists(http: TestClient) -> None:
    body = preview(http, {"kind": "similar"}, user_id="nobody", cart=["no-item"], session=["no-item-either"])
    for shown in (body["before"], body["after"]):
        assert {"unknown_user", "unknown_items"} <= {warning["code"] for warning in shown["warnings"]}
    assert body["moves"] == body["rules"] == []


def test_no_placement_has_the_name_of_the_call(http: TestClient) -> None:
    assert http.put("/placements/preview", json={"kind": "popular"}).status_code == 405
    assert http.get("/placements/preview/items").json()["code"] == "request.invalid_placement"


def test_an_unknown_name_is_said(http: TestClient) -> None:
    body = preview(http, {"kind": "popular"}, name="hom")
    assert body["before_is"] == "without_rules"
    assert [one["code"] for one in body["warnings"]] == ["unknown_placement"]
    assert "'hom'" in body["warnings"][0]["message"]
    put(http, "hom", kind="popular")
    assert preview(http, {"kind": "popular"}, name="hom")["warnings"] == []


def test_a_move_says_that_the_filter_caused_it(http: TestClient) -> None:
    put(http, "whole", kind="popular", length=6)
    top = ids(items(http, "whole"))
    body = preview(http, {"kind": "popular", "length": 6, "filter": f"item_id <> '{top[2]}'"}, name="whole")
    causes = {one["item_id"]: (one["after"] is None, one["cause"]) for one in body["moves"]}
    assert causes.pop(top[2]) == (True, "filter")
    assert causes
    assert all(cause is None for _, cause in causes.values())
