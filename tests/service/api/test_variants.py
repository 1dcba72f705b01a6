"""Items of one group_id: sent, shown, filtered and excluded together, and one of them where the shop wants one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.releases import shopper_of

MANY = 200


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path_factory.mktemp("state"), deadline_s=60)
    with TestClient(create_app(chosen)) as client:
        yield client


@pytest.fixture
def shop(http: TestClient) -> Iterator[TestClient]:
    """The shop, whose items are in no group before and after the test."""
    yield http
    in_groups = [json.loads(line) for line in http.get("/export/items").text.splitlines() if '"group_id"' in line]
    group(http, None, *(item["item_id"] for item in in_groups))


@pytest.fixture(scope="module")
def shopper(tiny_release: Path) -> str:
    return shopper_of(tiny_release / "current")


def group(http: TestClient, group_id: Any, *item_ids: str) -> None:
    for item_id in item_ids:
        answer = http.put(f"/items/{item_id}", json={"group_id": group_id})
        assert answer.status_code == 200, answer.text


def listed(http: TestClient, path: str, **query: Any) -> list[str]:
    answer = http.get(path, params={"n": MANY, **query})
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def placed(http: TestClient, fields: dict[str, Any], **query: Any) -> list[str]:
    assert http.put("/placements/tested", json=fields).status_code == 200
    return listed(http, "/placements/tested/items", n=fields.get("length", 10), **query)


def test_a_group_is_sent_shown_and_removed(shop: TestClient) -> None:
    first = listed(shop, "/popular", n=1)[0]
    for sent, shown in (("shirt 7", "shirt 7"), (12, "12"), (" a b ", " a b "), (first, first), ("  ", None)):
        answer = shop.put(f"/items/{first}", json={"group_id": sent})
        assert answer.json()["item"]["group_id"] == shown
        assert shop.get(f"/items/{first}").json()["item"]["group_id"] == shown
    group(shop, "shirt", first)
    group(shop, None, first)
    assert shop.get(f"/items/{first}").json()["item"]["group_id"] is None


@pytest.mark.parametrize("wrong", ["a\nb", "a\u0000", "x" * 513, 1.5, True, ["shirt"], 2**70, "\ud800"])
def test_what_is_no_id_is_no_group(shop: TestClient, wrong: Any) -> None:
    first = listed(shop, "/popular", n=1)[0]
    answer = shop.put(
        f"/items/{first}", content=json.dumps({"group_id": wrong}), headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text
    assert shop.get(f"/items/{first}").json()["item"]["group_id"] is None


def test_metadata_holds_no_group(shop: TestClient) -> None:
    first = listed(shop, "/popular", n=1)[0]
    answer = shop.put(f"/items/{first}", json={"metadata": {"group_id": "shirt"}})
    assert answer.status_code == 422
    assert "group_id" in answer.text


def test_the_catalogue_is_exported_with_its_groups(shop: TestClient) -> None:
    one, other = listed(shop, "/popular", n=2)
    group(shop, "shirt", one)
    lines = map(json.loads, shop.get("/export/items").text.splitlines())
    groups = {line["item_id"]: line.get("group_id") for line in lines}
    assert (groups[one], groups[other]) == ("shirt", None)


def test_conditions_read_the_group(shop: TestClient) -> None:
    one, other, *_ = listed(shop, "/popular")
    group(shop, "it's", one, other)
    assert listed(shop, "/popular", filter="group_id = 'it''s'") == [one, other]
    assert not {one, other} & set(listed(shop, "/popular", filter="group_id IS NULL"))


def test_an_excluded_item_excludes_its_variants(shop: TestClient, shopper: str) -> None:
    path = f"/recommend/{shopper}"
    variants = listed(shop, path)[:3]
    bought = next(iter(shop.get(f"/users/{shopper}").json()["excluded"]))
    group(shop, "shirt", bought, *variants)
    plain = listed(shop, path)  # in the order of the product's evidence
    assert set(variants) <= set(plain)
    assert set(listed(shop, path, exclude_variants=True)) == set(plain) - set(variants)
    assert listed(shop, path, n=5, exclude_variants=True) == listed(shop, path, exclude_variants=True)[:5]
    # Nothing that was bought excludes anything here, so its variants stay too.
    everything = listed(shop, path, include_seen=True)
    assert listed(shop, path, include_seen=True, exclude_variants=True) == everything
    assert {bought, *variants} <= set(everything)
    answer = shop.post("/recommend", json={"users": [shopper], "n": MANY, "exclude_variants": True}).json()
    assert [item["item_id"] for item in answer["answers"][0]["items"]] == listed(shop, path, exclude_variants=True)


def test_a_group_that_changes_counts_at_once(shop: TestClient, shopper: str) -> None:
    path = f"/recommend/{shopper}"
    bought = next(iter(shop.get(f"/users/{shopper}").json()["excluded"]))
    first = listed(shop, path)[0]
    group(shop, "shirt", bought, first)
    assert first not in listed(shop, path, exclude_variants=True)
    group(shop, "coat", first)
    assert first in listed(shop, path, exclude_variants=True)
    group(shop, "shirt", first)
    assert first not in listed(shop, path, exclude_variants=True)
    group(shop, None, first)
    assert first in listed(shop, path, exclude_variants=True)


def test_a_session_and_exclude_exclude_variants(shop: TestClient) -> None:
    seen, other, third, fourth = listed(shop, "/popular", n=4)
    group(shop, seen, seen, other)
    group(shop, "third", third, fourth)
    body = {"history": [seen], "n": MANY, "exclude": [third], "exclude_variants": True}
    found = {item["item_id"] for item in shop.post("/recommend", json=body).json()["items"]}
    assert not found & {seen, other, third, fourth}
    assert other in {
        item["item_id"] for item in shop.post("/recommend", json={**body, "exclude_variants": False}).json()["items"]
    }


def test_similar_items_without_the_items_own_variants(shop: TestClient) -> None:
    one = listed(shop, "/popular", n=1)[0]
    variants = listed(shop, f"/similar/{one}")[:2]
    group(shop, "shirt", one, *variants)
    others = [item for item in listed(shop, f"/similar/{one}") if item not in variants]
    assert listed(shop, f"/similar/{one}", exclude_variants=True) == others
    page = shop.get(f"/similar/{one}", params={"n": 5, "exclude_variants": True}).json()
    later = {"n": 5, "offset": 5, "recommendation_id": page["meta"]["recommendation_id"]}
    assert listed(shop, f"/similar/{one}", **later) == others[5:10]
    refused = shop.get(f"/similar/{one}", params={**later, "exclude_variants": False})
    assert refused.json()["code"] == "recommendation.other_parameters"


def test_later_pages_leave_out_new_variants(shop: TestClient, shopper: str) -> None:
    path = f"/recommend/{shopper}"
    answer = shop.get(path, params={"n": 5, "exclude_variants": True}).json()
    page = {"n": 5, "offset": 5, "recommendation_id": answer["meta"]["recommendation_id"]}
    before = listed(shop, path, **page)
    bought = next(iter(shop.get(f"/users/{shopper}").json()["excluded"]))
    group(shop, "shirt", bought, before[0])
    assert listed(shop, path, **page) == before[1:]


@pytest.mark.parametrize("kind", ["for-user", "similar", "popular"])
def test_a_placement_excludes_variants(shop: TestClient, shopper: str, kind: str) -> None:
    given, *others = listed(shop, "/popular")
    fields = {"kind": kind, "fallbacks": [], "length": MANY}
    query = {"user_id": shopper, "item_id": given}
    bought = next(iter(shop.get(f"/users/{shopper}").json()["excluded"]))
    plain = placed(shop, fields, **query)
    group(shop, "of-bought", bought, plain[0])
    group(shop, "of-given", given, plain[1])
    assert set(placed(shop, fields, **query)) == set(plain)
    found = placed(shop, {**fields, "exclude_variants": True, "cache_s": 60}, **query)
    assert set(found) == set(plain[2:])
    group(shop, "of-given", plain[2])
    assert plain[2] not in placed(shop, {**fields, "exclude_variants": True, "cache_s": 60}, **query)
    assert set(found) - set(others) <= {given}


def test_items_taken_together_are_no_variants(shop: TestClient) -> None:
    fields = {"kind": "together", "fallbacks": [], "length": MANY}
    for given in listed(shop, "/popular", n=20):
        plain = placed(shop, fields, item_id=given)
        if len(plain) > 1:
            group(shop, "shirt", given, plain[0])
            assert plain[0] not in placed(shop, fields, item_id=given)
            assert plain[0] not in placed(shop, fields, cart=f"{given},{plain[1]}")
            return
    raise AssertionError("no item of the release has complements")


def test_one_variant_of_a_product_the_best_first(shop: TestClient, shopper: str) -> None:
    fields = {"kind": "for-user", "fallbacks": [], "length": 10}
    capped = {**fields, "rules": [{"at_most": {"attribute": "group_id", "count": 1}}]}
    best = placed(shop, fields, user_id=shopper)
    groups = {**dict.fromkeys((best[0], best[2], best[3]), "shirt"), **dict.fromkeys((best[4], best[9]), "cup")}
    for item_id, group_id in groups.items():
        group(shop, group_id, item_id)
    plain = placed(shop, {**fields, "length": 20}, user_id=shopper)
    products = [groups.get(item, item) for item in plain]
    kept = [item for place, item in enumerate(plain) if products[place] not in products[:place]]
    assert kept[:10] != plain[:10] == placed(shop, fields, user_id=shopper)
    assert placed(shop, capped, user_id=shopper) == kept[:10], "items without a group have no limit"


def test_a_release_without_groups_has_the_attribute(shop: TestClient, shopper: str) -> None:
    capped = {"kind": "popular", "rules": [{"at_most": {"attribute": "group_id", "count": 1}}]}
    assert placed(shop, capped) == placed(shop, {"kind": "popular"})
