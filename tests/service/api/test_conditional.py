"""An answer that the caller has already is 304 and nothing more, and only where the service gives it again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.releases import shopper_of


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    state_dir = tmp_path_factory.mktemp("state")
    # Without live evidence only the user's own events make another list.
    chosen = Settings(releases_dir=tiny_release, state_dir=state_dir, deadline_s=60, demo=True, live_evidence_mb=0)
    with TestClient(create_app(chosen)) as http:
        yield http


@pytest.fixture
def shopper(tiny_release: Path) -> str:
    return shopper_of(tiny_release / "current")


def again(http: TestClient, path: str, tag: str, method: str = "GET") -> Any:
    return http.request(method, path, headers={"If-None-Match": tag})


def shown(http: TestClient) -> int:
    return sum(one["answers"] for one in http.get("/admin/stats").json()["releases"])


def test_an_unchanged_list_is_not_sent_again(http: TestClient, shopper: str) -> None:
    path = f"/recommend/{shopper}?n=4"
    for _ in range(2):  # the second time around the framework
        first = http.get(path)
        tag = first.headers["etag"]
        assert tag == f'W/"{first.json()["meta"]["recommendation_id"]}"'
        assert first.headers["cache-control"] == "private, no-cache"
        for sent in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
            answer = again(http, path, sent)
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == tag
            assert answer.headers["cache-control"] == "private, no-cache"
            assert answer.headers["x-request-id"]
            assert "content-type" not in answer.headers
        assert again(http, path, tag, "HEAD").status_code == 304
        assert again(http, path, 'W/"other"').json()["items"] == first.json()["items"]
        assert again(http, f"/recommend/{shopper}?n=5", tag).status_code == 200


def test_a_click_makes_another_list(http: TestClient, shopper: str) -> None:
    path = f"/recommend/{shopper}?n=3"
    before = http.get(path)
    event = {"user_id": shopper, "item_id": before.json()["items"][0]["item_id"], "event": "purchase"}
    assert http.post("/interactions", json={"events": [event]}).json()["accepted"] == 1
    after = again(http, path, before.headers["etag"])
    assert after.status_code == 200
    assert after.headers["etag"] != before.headers["etag"]
    assert after.json()["items"] != before.json()["items"]


def test_a_list_that_is_not_sent_again_is_shown_again(http: TestClient, shopper: str) -> None:
    tag = http.get(f"/recommend/{shopper}?n=6").headers["etag"]
    before = shown(http)
    assert again(http, f"/recommend/{shopper}?n=6", tag).status_code == 304
    assert shown(http) == before + 1
    assert again(http, f"/recommend/{shopper}?n=6", tag, "HEAD").status_code == 304
    assert shown(http) == before + 1


def test_the_list_of_a_placement_has_a_tag_as_long_as_it_is_given_again(http: TestClient, shopper: str) -> None:
    path = f"/placements/tagged/items?user_id={shopper}&explain=true"
    assert http.put("/placements/tagged", json={"kind": "for-user"}).status_code == 200
    assert "etag" not in http.get(path).headers
    assert http.get(path).headers["cache-control"] == "no-store"
    assert http.put("/placements/tagged", json={"kind": "for-user", "cache_s": 600}).status_code == 200
    first = http.get(path)
    before = shown(http)
    assert again(http, path, first.headers["etag"]).status_code == 304
    assert shown(http) == before + 1
    page = f"{path}&offset=2&recommendation_id={first.json()['meta']['recommendation_id']}"
    assert "etag" not in http.get(page).headers
    assert http.put("/placements/tagged", json={"kind": "popular", "cache_s": 600}).status_code == 200
    assert again(http, path, first.headers["etag"]).json()["meta"]["source"] == "popular"


@pytest.mark.parametrize("path", ["/popular?n=2", "/similar/{item}?n=2", "/users/{shopper}", "/livez"])
def test_what_is_made_anew_has_no_tag(http: TestClient, shopper: str, path: str) -> None:
    item = http.get("/popular?n=1").json()["items"][0]["item_id"]
    headers = again(http, path.format(item=item, shopper=shopper), "*").headers
    assert "etag" not in headers
    assert headers["cache-control"] == "no-store"


def test_an_error_has_no_tag(http: TestClient, shopper: str) -> None:
    refused = again(http, f"/recommend/{shopper}?n=0", "*")
    assert refused.status_code == 422
    assert "etag" not in refused.headers


def test_without_a_cache_nothing_is_given_again(tiny_release: Path, tmp_path: Path, shopper: str) -> None:
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path, deadline_s=60, answer_cache_mb=0)
    with TestClient(create_app(chosen)) as http:
        tag = http.get(f"/recommend/{shopper}").headers["etag"]
        assert again(http, f"/recommend/{shopper}", tag).status_code == 200


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/studio/studio.js", "/demo", "/demo/demo.css"])
def test_a_file_is_sent_once(http: TestClient, path: str) -> None:
    first = http.get(path)
    assert first.headers["cache-control"] == "private, no-cache"
    answer = again(http, path, first.headers["etag"])
    assert (answer.status_code, answer.content) == (304, b"")
    # A browser takes these headers for the file that it has.
    for name in ("etag", "content-security-policy", "x-content-type-options"):
        assert answer.headers[name] == first.headers[name]
