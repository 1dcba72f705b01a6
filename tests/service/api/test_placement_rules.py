"""The rules of placements over HTTP: they act inside the list, are told, refused, and left out where they cannot."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isrf.contract.errors import RequestError
from service.app import create_app
from service.recommend.placements.active_rules import active_rules
from service.recommend.placements.checks import check_placement
from service.recommend.placements.coded_values import CodedColumns
from service.recommend.placements.placement import KINDS, Placement, read_placement, read_placements_file, stored_form
from service.recommend.placements.rule_fields import ListRule
from service.release.catalogue import Catalogue
from service.release.conditions import RequestValues
from service.release.opening import open_release
from service.settings import Settings
from tests.service.api.test_placements import ids, items, put
from tests.service.releases import shopper_of

Rules = list[dict[str, Any]]


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    state = tmp_path_factory.mktemp("rules") / "state"
    with TestClient(create_app(Settings(releases_dir=tiny_release, state_dir=state, deadline_s=60))) as client:
        yield client


@pytest.fixture(scope="module")
def shopper(tiny_release: Path) -> str:
    return shopper_of(tiny_release / "current")


@pytest.fixture(scope="module")
def catalogue(tiny_release: Path) -> Catalogue:
    return open_release(tiny_release).catalogue


@pytest.fixture(scope="module")
def fields(http: TestClient, catalogue: Catalogue) -> dict[str, dict[str, Any]]:
    """The items by item_id."""
    every = [catalogue.item_id(row) for row in range(len(catalogue))]
    return {one: http.get(f"/items/{one}").json()["item"] for one in every}


def ruled(http: TestClient, *rules: dict[str, Any], kind: str = "popular", **more: Any) -> None:
    put(http, "ruled", kind=kind, rules=list(rules), **more)


def codes(body: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in body["warnings"]]


def page_of(http: TestClient, shopper: str, **more: Any) -> dict[str, Any]:
    cart = ids(http.get("/popular", params={"n": 3}).json())
    return items(http, "ruled", user_id=shopper, item_id=cart[0], cart=cart[1:], **more)


@pytest.mark.parametrize("kind", ["for-user", "similar", "together", "trending", "popular", "new"])
def test_a_boost_raises_and_buries_in_every_kind(
    http: TestClient, shopper: str, fields: dict[str, dict[str, Any]], kind: str
) -> None:
    def cheap(body: dict[str, Any]) -> int:
        return sum(fields[one]["price"] < 30 for one in ids(body))

    ruled(http, kind=kind)
    plain = page_of(http, shopper)
    ruled(http, {"boost": {"where": "price < 30", "by": 1e6}}, kind=kind)
    raised = page_of(http, shopper, explain=True)
    ruled(http, {"boost": {"where": "price < 30", "by": 1e-6}}, kind=kind)
    buried = page_of(http, shopper)
    assert cheap(raised) > cheap(buried)
    assert cheap(raised) >= cheap(plain) >= cheap(buried)
    assert all(fields[one]["price"] < 30 for one in ids(raised)[: cheap(raised)]), "they come first"
    told = [move for item in raised["items"] for move in item["rules"]]
    assert told
    assert all((move["rule"], move["kind"]) == (1, "boost") and move["moved"] > 0 for move in told)


def test_a_boost_looks_up_what_no_channel_found(
    http: TestClient, shopper: str, fields: dict[str, dict[str, Any]]
) -> None:
    ruled(http, kind="for-user")
    last = ids(items(http, "ruled", user_id=shopper, n=100))[-1]
    ruled(http, {"boost": {"where": f"item_id = '{last}'", "by": 1e6}}, kind="for-user")
    body = items(http, "ruled", user_id=shopper, n=3, explain=True)
    assert ids(body)[0] == last
    assert body["items"][0]["rules"][0]["moved"] > 0
    assert body["items"][0]["reasons"]


def test_kinds_without_scores_are_boosted_by_place(http: TestClient) -> None:
    first, second, third = ids(http.get("/popular", params={"n": 3}).json())
    # 1, 1/2, 1/3 from the latest: twice the factor passes one place, not two.
    ruled(http, {"boost": {"where": f"item_id = '{first}'", "by": 2}}, kind="recently-viewed", fallbacks=[])
    assert ids(items(http, "ruled", session=[first, second, third])) == [third, first, second]


def test_pins_stand_at_their_places(http: TestClient, shopper: str, fields: dict[str, dict[str, Any]]) -> None:
    ruled(http, kind="for-user")
    plain = ids(items(http, "ruled", user_id=shopper, n=60))
    chosen, other = plain[40], plain[50]
    ruled(
        http,
        {"pin": {"item_id": chosen, "place": 1}},
        {"pin": {"item_id": other, "place": 1}},
        {"pin": {"where": "price > 60", "place": 4}},
        kind="for-user",
    )
    body = items(http, "ruled", user_id=shopper, explain=True)
    found = ids(body)
    assert found[:2] == [chosen, other]
    assert fields[found[3]]["price"] > 60
    assert codes(body) == ["rule_not_met"]
    assert "Rule 2" in body["warnings"][0]["message"]
    assert body["items"][0]["rules"] == [{"rule": 1, "kind": "pin", "moved": 40}]
    rest = [one for one in plain if one not in (chosen, other, found[3])]
    assert found[4:] == rest[1:7]
    again = items(http, "ruled", user_id=shopper, n=60)
    assert sorted(ids(again)) == sorted(plain), "pins take nothing out"


def test_a_pin_is_no_way_around_the_filter(http: TestClient, fields: dict[str, dict[str, Any]]) -> None:
    dear = max(fields, key=lambda one: fields[one]["price"])
    ruled(http, {"pin": {"item_id": dear, "place": 1}}, filter="price < 60")
    assert dear not in ids(items(http, "ruled"))


def test_pins_come_and_go_by_the_clock_in_any_zone(http: TestClient) -> None:
    plain = ids(http.get("/popular", params={"n": 40}).json())
    kathmandu = timezone(timedelta(hours=5, minutes=45))
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    for began, until, counts in (
        (now - hour, now + hour, True),
        (now + hour, now + 2 * hour, False),
        (now - 2 * hour, now - hour, False),
    ):
        for moments in (
            {"from": began.astimezone(kathmandu).isoformat(), "until": until.isoformat().replace("+00:00", "Z")},
            {"from": began.timestamp(), "until": until.timestamp()},
        ):
            ruled(http, {"pin": {"item_id": plain[30], "place": 1, **moments}}, cache_s=3600)
            assert (ids(items(http, "ruled"))[0] == plain[30]) is counts


@pytest.mark.parametrize("kind", KINDS)
def test_at_most_holds_and_the_list_stays_full(
    http: TestClient, shopper: str, fields: dict[str, dict[str, Any]], kind: str
) -> None:
    ruled(http, {"at_most": {"attribute": "brand", "count": 2}}, kind=kind)
    body = page_of(http, shopper, n=8)
    assert len(ids(body)) == 8
    brands = Counter(fields[one]["brand"] for one in ids(body))
    assert max(brands.values()) <= 2


def test_a_cap_that_empties_the_list_is_said(http: TestClient, fields: dict[str, dict[str, Any]]) -> None:
    brand = Counter(one["brand"] for one in fields.values()).most_common(1)[0][0]
    rule = {"at_most": {"attribute": "brand", "count": 1}}
    ruled(http, rule, filter=f"brand = '{brand}'")
    body = items(http, "ruled", n=5)
    assert len(ids(body)) == 1
    assert sorted(codes(body)) == ["fewer_items", "rule_not_met"]


@pytest.mark.parametrize("kind", KINDS)
def test_at_least_brings_items_into_every_page(
    http: TestClient, shopper: str, fields: dict[str, dict[str, Any]], kind: str
) -> None:
    """Also of kinds that do not find them: fallbacks bring them."""
    dear = sorted((one["price"] for one in fields.values()), reverse=True)[25]
    ruled(http, kind=kind)
    plain = ids(page_of(http, shopper, n=8))
    ruled(http, {"at_least": {"where": f"price > {dear}", "count": 3}}, kind=kind)
    body = page_of(http, shopper, n=8, explain=True)
    held = [fields[one]["price"] > dear for one in ids(body)]
    assert sum(held) == max(3, sum(fields[one]["price"] > dear for one in plain))
    assert codes(body) == [code for code in codes(body) if code == "kind_found_nothing"]
    brought = [item for item in body["items"] if item["rules"]]
    assert [item["item_id"] for item in body["items"] if item not in brought] == [
        one for one in plain if one in ids(body)
    ]
    for item in brought:
        assert fields[item["item_id"]]["price"] > dear
        (move,) = item["rules"]
        assert (move["rule"], move["kind"]) == (1, "at_least")
        assert move["moved"] is None or move["moved"] > 0
    second = page_of(http, shopper, n=8, recommendation_id=body["meta"]["recommendation_id"], offset=8)
    assert sum(fields[one]["price"] > dear for one in ids(second)) >= 3


def test_a_quota_that_cannot_be_met_is_said(http: TestClient, fields: dict[str, dict[str, Any]]) -> None:
    dear = sorted((one["price"] for one in fields.values()), reverse=True)[1]
    ruled(
        http,
        {"at_least": {"where": f"price > {dear}", "count": 2}},
        {"at_least": {"where": "price < 0", "count": 1}},
        {"at_least": {"where": "price >= 0", "count": 7}},
    )
    body = items(http, "ruled", n=5)
    assert len(ids(body)) == 5
    assert codes(body) == ["rule_not_met"] * 3
    told = [warning["message"] for warning in body["warnings"]]
    assert "Rule 1: 1 of the 2 items" in told[0]
    assert "Rule 2: 0 of the 1 items" in told[1]
    assert "Rule 3: 5 of the 7 items" in told[2]
    assert "room for 5" in told[2]


def test_a_quota_is_no_way_around_the_filter(http: TestClient, fields: dict[str, dict[str, Any]]) -> None:
    ruled(http, {"at_least": {"where": "price > 60", "count": 1}}, filter="price < 60")
    body = items(http, "ruled")
    assert all(fields[one]["price"] < 60 for one in ids(body))
    assert codes(body) == ["rule_not_met"]


def test_a_rule_without_its_column_is_left_out(catalogue: Catalogue) -> None:
    sent: Rules = [
        {"boost": {"where": "gone_since = 3", "by": 2}},
        {"pin": {"where": "gone_since = 3", "place": 1}},
        {"at_most": {"attribute": "bran", "count": 1}},
        {"pin": {"item_id": "gone", "place": 1}},
        {"boost": {"where": "price < 10", "by": 2}},
        {"at_least": {"where": "gone_since = 3", "count": 1}},
    ]
    rules = [ListRule.model_validate(rule) for rule in sent]
    active = active_rules(rules, catalogue, RequestValues(), CodedColumns())
    assert [warning["code"] for warning in active.warnings] == ["rule_left_out"] * 5
    assert "without rule 1" in active.warnings[0]["message"]
    assert [boost.rule for boost in active.boosts] == [5]
    placement = Placement.model_validate({"kind": "popular", "filter": "prise < 3", "rules": sent})
    with pytest.raises(RequestError) as refused:
        check_placement(placement, catalogue, 0.0)
    for said in ("filter: the condition", "rule 1: the", "rule 2: the", "rule 3: no item has", "rule 6: the"):
        assert said in refused.value.message
    assert "Did you mean price?" in refused.value.message
    assert "'brand'" in refused.value.message
    many = [{"boost": {"where": "gone_since = 3", "by": 2}}] * 50
    with pytest.raises(RequestError, match=r"rule 5: .*There are 45 more\."):
        check_placement(Placement.model_validate({"kind": "popular", "rules": many}), catalogue, 0.0)


def test_a_pin_that_is_not_met_says_why(http: TestClient, shopper: str, fields: dict[str, dict[str, Any]]) -> None:
    def told(*rules: dict[str, Any], kind: str = "for-user", page: dict[str, Any], **more: Any) -> list[str]:
        ruled(http, *rules, kind=kind, **more)
        return [one["message"] for one in items(http, "ruled", **page)["warnings"] if one["code"] == "rule_not_met"]

    put(http, "mine", kind="recently-viewed", filter="user.bought", fallbacks=[])
    bought = ids(items(http, "mine", user_id=shopper))[0]
    first, second = ids(http.get("/popular", params={"n": 2, "min_price": 30}).json())
    pin: dict[str, Any] = {"pin": {"item_id": bought, "place": 1}}
    user = {"user_id": shopper}
    assert told(pin, page=user) == [f"Rule 1: {bought} is not allowed in this list: the user bought it."]
    assert told(pin, page={}) == []
    assert told(pin, kind="recently-viewed", page=user) == []
    pin = {"pin": {"item_id": first, "place": 1}}
    assert "gives it as item_id or in cart" in told(pin, kind="similar", page={"item_id": first})[0]
    assert "in the session" in told(pin, page={"session": first})[0]
    assert "the filter, category or prices" in told(pin, page={}, filter="price < 0.5", fallbacks=[])[0]
    assert "or a variant of it" in told(pin, page={}, max_price=1, exclude_variants=True)[0]
    assert told({"pin": {"item_id": first, "place": 9}}, page={"n": 5}, max_price=1) == []
    assert "no allowed item is left" in told({"pin": {"where": "price < 0", "place": 1}}, page={})[0]
    assert "another pin has its item" in told(pin, {"pin": {"item_id": first, "place": 3}}, page={})[0]
    http.put(f"/items/{second}", json={"available": False})
    assert "not on offer" in told({"pin": {"item_id": second, "place": 1}}, page={})[0]
    http.put(f"/items/{second}", json={"available": True})


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"filter": "price < 0"}, "nothing_allowed", "No item on offer"),
        ({"category": "Nowhere"}, "unknown_category", "category"),
        ({"rules": [{"boost": {"where": "price < 0", "by": 2}}]}, "rule_without_effect", "Rule 1 does nothing: its"),
        (
            {"filter": "price < 40", "rules": [{"at_least": {"where": "price > 40", "count": 2}}]},
            "rule_without_effect",
            "no item that the filter allows",
        ),
        ({"rules": [{"pin": {"item_id": "gone", "place": 1}}]}, "rule_without_effect", "there is no item gone"),
        (
            {
                "rules": [
                    {"pin": {"where": "price > 20", "place": 2}},
                    {"pin": {"where": "price < 40", "place": 1}},
                    {"pin": {"where": "price > 30", "place": 2, "from": 2e9, "until": 3e9}},
                ]
            },
            "pins_at_one_place",
            "Rules 1 and 3 both pin to place 2",
        ),
    ],
)
def test_what_does_nothing_is_warned_of(http: TestClient, fields: dict[str, Any], code: str, said: str) -> None:
    sent = {"kind": "popular", **fields}
    for warnings in (
        put(http, "ruled", **sent)["warnings"],
        http.post("/placements/preview", json={"placement": sent}).json()["warnings"],
    ):
        assert code in [one["code"] for one in warnings]
        assert said in " ".join(one["message"] for one in warnings)


def test_what_may_count_is_not_warned_of(http: TestClient) -> None:
    rules: Rules = [
        {"boost": {"where": "user.bought", "by": 2}},
        {"pin": {"where": "NOT user.disliked", "place": 1, "until": 1e9}},
        {"pin": {"where": "price > 20", "place": 1, "until": 2e9}},
        {"pin": {"where": "price > 20", "place": 1, "from": 2e9}},
        {"at_most": {"attribute": "brand", "count": 1}},
    ]
    assert put(http, "ruled", kind="buy-again", filter="user.bought", rules=rules)["warnings"] == []


def test_a_put_names_the_rule_that_does_not_fit(http: TestClient) -> None:
    rules: Rules = [{"at_most": {"attribute": "brand", "count": 1}}, {"at_most": {"attribute": "bran", "count": 1}}]
    answer = http.put("/placements/ruled", json={"kind": "popular", "rules": rules})
    assert (answer.status_code, answer.json()["code"]) == (422, "condition.invalid")
    assert "rule 2" in answer.json()["detail"]
    assert "brand" in answer.json()["fix"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({}, "exactly one"),
        ({"boost": {"where": "price < 3", "by": 2}, "at_most": {"attribute": "brand", "count": 1}}, "exactly one"),
        ({"bost": {"where": "price < 3", "by": 2}}, "did you mean 'boost'?"),
        ({"boost": {"where": "price < 3", "bye": 2}}, "did you mean 'by'?"),
        ({"boost": {"where": "price < 3", "by": 0}}, "rule 1: `by` is a factor from 0.000001 to 1000000, not 0; to"),
        ({"boost": {"where": "price < 3", "by": -2}}, "not -2; to hide items use `filter`, to bury them a number"),
        ({"boost": {"where": "price < 3", "by": 1e400}}, "not Infinity; to"),
        ({"boost": {"where": "price < 3", "by": float("nan")}}, "by"),
        ({"boost": {"where": "price < 3", "by": 2e6}}, "1000000, not 2000000.0; to"),
        ({"boost": {"where": "price < 3", "by": True}}, "1000000; to hide"),
        ({"boost": {"where": "price < 3", "by": "2"}}, "1000000; to hide"),
        ({"boost": {"where": "price < 3"}}, "rule 1: Field required"),
        ({"boost": {"where": "", "by": 2}}, "where"),
        ({"pin": {"place": 1}}, "either item_id or where"),
        ({"pin": {"place": 1, "item_id": "a", "where": "price < 3"}}, "either item_id or where"),
        ({"pin": {"place": 0, "item_id": "a"}}, "place"),
        ({"pin": {"place": 201, "item_id": "a"}}, "place"),
        ({"pin": {"place": 1, "item_id": "a", "from": "2026-11-27"}}, "zone"),
        ({"pin": {"place": 1, "item_id": "a", "from": "soon"}}, "ISO 8601"),
        ({"pin": {"place": 1, "item_id": "a", "form": 3}}, "did you mean 'from'?"),
        ({"pin": {"place": 1, "item_id": "a", "from": 5, "until": "1970-01-01T01:00:05+01:00"}}, "not after"),
        ({"at_most": {"attribute": "brand", "count": 0}}, "count"),
        ({"at_most": {"count": 1}}, "attribute"),
        ({"at_least": {"where": "price < 3", "count": 0}}, "count"),
        ({"at_least": {"where": "price < 3", "count": 201}}, "count"),
        ({"at_least": {"where": "price < 3", "count": 1.5}}, "count"),
        ({"at_least": {"count": 1}}, "where"),
        ({"at_least": {"where": "prise < 3", "count": 1}}, "rule 1"),
        ({"at_leest": {"where": "price < 3", "count": 1}}, "did you mean 'at_least'?"),
    ],
)
def test_a_bad_rule_is_refused(http: TestClient, rule: dict[str, Any], said: str) -> None:
    body = json.dumps({"kind": "popular", "rules": [rule]})
    answer = http.put("/placements/bad", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert said in answer.json()["detail"] or answer.json()["code"] == "request.invalid_json"
    assert http.get("/placements/bad").status_code == 404


def test_every_wrong_field_is_named(http: TestClient) -> None:
    sent = {
        "lenght": 3,
        "kind": "popular",
        "cache_s": -1,
        "rules": [{"pin": {"plase": 1, "item_id": "a"}}, {"bost": {}}],
    }
    for method, path, body in (
        ("PUT", "/placements/bad", sent),
        ("POST", "/placements/preview", {"placement": sent}),
    ):
        answer = http.request(method, path, json=body).json()
        assert answer["code"] == "request.invalid"
        found = {
            fault["where"].removeprefix("body.").removeprefix("placement."): fault["message"]
            for fault in answer["errors"]
        }
        assert "did you mean 'length'?" in found.pop("lenght")
        assert "greater than or equal to 0" in found.pop("cache_s")
        assert found.pop("rules.0.pin.place") == "rule 1: Field required"
        assert found.pop("rules.0.pin.plase") == "rule 1: there is no field 'plase'; did you mean 'place'?"
        assert found.pop("rules.1.bost") == "rule 2: there is no field 'bost'; did you mean 'boost'?"
        assert not found


def test_fifty_rules_are_enough(http: TestClient, shopper: str) -> None:
    rules: Rules = [{"boost": {"where": f"price < {price + 1}", "by": 1.1}} for price in range(50)]
    ruled(http, *rules, kind="for-user")
    assert len(ids(items(http, "ruled", user_id=shopper, explain=True))) == 10
    answer = http.put("/placements/bad", json={"kind": "popular", "rules": [*rules, rules[0]]})
    assert answer.status_code == 422


def test_rules_are_stored_and_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "placements.toml"
    path.write_text(
        '[home]\nkind = "popular"\n'
        '[[home.rules]]\nboost = {where = "price < 3", by = 2}\n'
        '[[home.rules]]\npin = {item_id = "a", place = 1, from = 2026-11-27T00:00:00+01:00, until = 1900000000}\n'
    )
    placement = read_placements_file(path)["home"].placement
    pin = placement.rules[1].pin
    assert pin is not None
    assert pin.from_ == "2026-11-27T00:00:00+01:00"
    again = read_placement(stored_form(placement), 3)
    assert again is not None
    assert again.placement == placement
    assert '"from"' in again.text
    assert "null" not in again.text
    assert Placement.model_validate_json(again.text) == placement


CONDITIONS = ["price < 30", "price > 60", "NOT user.bought", "brand IS NOT NULL", "price < 0"]
RULE = st.one_of(
    st.builds(
        lambda where, by: {"boost": {"where": where, "by": by}},
        st.sampled_from(CONDITIONS),
        st.sampled_from([1e-6, 0.5, 2, 1e6]),
    ),
    st.builds(
        lambda where, place: {"pin": {"where": where, "place": place}}, st.sampled_from(CONDITIONS), st.integers(1, 12)
    ),
    st.builds(
        lambda attribute, count: {"at_most": {"attribute": attribute, "count": count}},
        st.sampled_from(["brand", "categories", "item_id"]),
        st.integers(1, 4),
    ),
    st.builds(
        lambda where, count: {"at_least": {"where": where, "count": count}},
        st.sampled_from(CONDITIONS),
        st.integers(1, 6),
    ),
)
HOLDS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "price < 30": lambda item: item["price"] < 30,
    "price > 60": lambda item: item["price"] > 60,
    "brand IS NOT NULL": lambda item: item["brand"] is not None,
    "price < 0": lambda item: False,
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), rules=st.lists(RULE, max_size=6), n=st.integers(1, 12))
def test_no_rules_let_a_filtered_item_through(
    http: TestClient, shopper: str, fields: dict[str, dict[str, Any]], kind: str, rules: Rules, n: int
) -> None:
    ruled(http, *rules, kind=kind, filter="price < 60")
    body = page_of(http, shopper, n=n)
    found = ids(body)
    assert len(set(found)) == len(found) <= n
    assert all(fields[one]["price"] < 60 for one in found)
    for rule in rules:
        if "at_most" in rule:
            values = [fields[one][rule["at_most"]["attribute"]] for one in found]
            flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
            assert max(Counter(flat).values(), default=0) <= rule["at_most"]["count"]
    if len(found) < n:
        assert any("at_most" in rule for rule in rules)
        assert "rule_not_met" in codes(body)
    told = " ".join(warning["message"] for warning in body["warnings"])
    for number, rule in enumerate(rules, start=1):
        where = rule.get("at_least", {}).get("where")
        if where in HOLDS:
            count = sum(HOLDS[where](fields[one]) for one in found)
            assert (count < rule["at_least"]["count"]) == (f"Rule {number}: {count} of the" in told)
    again = page_of(http, shopper, n=n)
    assert (ids(again), again["warnings"]) == (found, body["warnings"])
