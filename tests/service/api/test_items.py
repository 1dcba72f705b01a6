"""The catalogue between two releases: new items recommended and clicked at once, others changed, hidden, kept."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from service.app import create_app
from service.settings import Settings
from tests.service.releases import change_manifest, named_copy, point, seal
from tests.service.servers import AS_SERVED, PATIENCE_S, RedisServer, ServiceProcess, as_environment, wait_until
from tests.service.told import Answered

STRANGE = "neu/ä #?%20 日本"
CATEGORY = "Headphones"
NEW = {
    "title": "Wireless Noise Cancelling Headphones",
    "brand": "Lumen & Oak",
    "categories": ["Electronics", "Headphones"],
    "description": "Wireless over-ear headphones with noise cancelling.",
    "price": 79.0,
}


class ServiceHere:
    """The service in this process, with the embedded store; its state folder survives `stop` and `start`."""

    def __init__(self, releases: Path, folder: Path, **chosen: Any) -> None:
        self._settings = Settings(releases_dir=releases, state_dir=folder, deadline_s=60, watch_releases_s=0, **chosen)
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        self.http = self._running.enter_context(TestClient(create_app(self._settings)))

    def stop(self) -> None:
        self._running.close()


class Shop:
    """One replica, as the shop's backend calls it."""

    def __init__(self, service: ServiceProcess | ServiceHere) -> None:
        self.service = service

    def call(self, method: str, path: str, **more: Any) -> Answered:
        if isinstance(self.service, ServiceHere):
            return self.service.http.request(method, path, **more)
        return httpx.request(method, self.service.url + path, timeout=PATIENCE_S, **more)

    def reload(self) -> None:
        assert self.call("POST", "/admin/reload").status_code == 200

    def put(self, item_id: str, **fields: Any) -> Answered:
        return self.call("PUT", f"/items/{quote(item_id, safe='')}", json=fields)

    def delete(self, item_id: str) -> int:
        return self.call("DELETE", f"/items/{quote(item_id, safe='')}").status_code

    def show(self, item_id: str) -> Answered:
        return self.call("GET", f"/items/{quote(item_id, safe='')}")

    def post(self, user_id: str, item_id: str, event: str = "view") -> str:
        body = {"events": [{"user_id": user_id, "item_id": item_id, "event": event}]}
        status: str = self.call("POST", "/interactions", json=body).json()["results"][0]["status"]
        return status

    def recommended(self, user_id: str, **more: Any) -> dict[str, str]:
        """item_id → source."""
        answer = self.call("GET", f"/recommend/{user_id}", params={"n": 200} | more)
        assert answer.status_code == 200, answer.text
        return {item["item_id"]: item["source"] for item in answer.json()["items"]}


def items_of(release: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (release / "items.jsonl").read_text().splitlines()]


def some_items(release: Path, category: str, count: int) -> list[str]:
    return [item["item_id"] for item in items_of(release) if category in item.get("categories", ())][:count]


@pytest.fixture
def releases(tiny_release: Path, tmp_path: Path) -> Path:
    named_copy(tiny_release / "current", tmp_path / "releases", "r-a")
    point(tmp_path / "releases", "r-a")
    return tmp_path / "releases"


@pytest.fixture
def shop(releases: Path, tmp_path: Path) -> Iterator[Shop]:
    """With the embedded store; looks at releases when told to."""
    service = ServiceHere(releases, tmp_path / "state")
    yield Shop(service)
    service.stop()


def interested(shop: Shop, releases: Path) -> None:
    """ann looked at three headphones."""
    for item_id in some_items(releases / "current", CATEGORY, 3):
        assert shop.post("ann", item_id) == "accepted"


def test_a_new_item_is_recommended_clicked_and_kept(releases: Path, tmp_path: Path) -> None:
    process = ServiceProcess(releases, tmp_path / "service")
    try:
        shop = Shop(process.start())
        interested(shop, releases)
        before = shop.recommended("ann", category=CATEGORY)
        assert shop.post("ann", STRANGE) == "refused"
        assert shop.show(STRANGE).status_code == 404
        put = shop.put(STRANGE, **NEW)
        assert (put.status_code, put.json()["status"], put.json()["warnings"]) == (200, "added", [])
        assert shop.show(STRANGE).json()["item"] == {
            "item_id": STRANGE, "group_id": None, "available": True, "in_release": False, "metadata": {},
            **{name: NEW[name] for name in ("title", "brand", "categories", "price")},
        }  # fmt: skip
        after = shop.recommended("ann", category=CATEGORY)
        assert set(after) - set(before) == {STRANGE}
        assert after[STRANGE] in {"generative", "dense", "content"}
        assert STRANGE in list(shop.recommended("ann"))[:30], "of 121: for what it is, not for what is left"
        elsewhere = shop.recommended("ann", category="Tents")
        assert elsewhere
        assert STRANGE not in elsewhere
        assert shop.post("ann", STRANGE) == "accepted"
        assert shop.post("bob", STRANGE) == "accepted"
        process.kill()
        process.start()
        assert STRANGE in shop.recommended("ann", category=CATEGORY)
        bob = shop.call("GET", "/users/bob").json()
        assert bob["history"] == [STRANGE]
        assert {one["words"] for one in bob["interests"]["explicit"]} >= {CATEGORY}
        assert bob["interests"]["similar_users"] > 0, "it is read as what it is most like"
        answer = shop.call("GET", "/recommend/bob", params={"n": 5}).json()
        assert answer["meta"]["source"] == "sequence"
        session = shop.call("POST", "/recommend", json={"history": [STRANGE], "n": 5}).json()
        assert [item["item_id"] for item in session["items"]] == [item["item_id"] for item in answer["items"]]
        assert session["meta"]["source"] == "session"
        assert session["warnings"] == []
        assert shop.post("bob", STRANGE, "purchase") == "accepted"
        assert STRANGE not in shop.recommended("bob")
    finally:
        process.kill()


def test_a_new_item_takes_part_in_every_kind_of_answer(shop: Shop, releases: Path) -> None:
    known = some_items(releases / "current", CATEGORY, 3)
    interested(shop, releases)
    shop.put("new", **NEW)
    told = shop.call("GET", "/recommend/ann", params={"n": 200, "explain": True}).json()["items"]
    (new,) = (item for item in told if item["item_id"] == "new")
    assert {reason["channel"] for reason in new["reasons"]} >= {new["source"]}
    assert {path["item_id"] for reason in new["reasons"] for path in reason["paths"]} <= set(known)
    assert shop.post("ann", "new") == "accepted"
    told = shop.call("GET", "/recommend/ann", params={"n": 50, "explain": True}).json()["items"]
    assert "new" in {path["item_id"] for item in told for reason in item["reasons"] for path in reason["paths"]}
    similar = [item["item_id"] for item in shop.call("GET", "/similar/new", params={"n": 10}).json()["items"]]
    assert set(similar) & set(some_items(releases / "current", CATEGORY, 99))
    assert "new" in [item["item_id"] for item in shop.call("GET", f"/similar/{known[0]}?n=100").json()["items"]]
    ranked = shop.call("POST", "/rank", json={"user_id": "ann", "candidates": [*known, "new"]}).json()
    assert {item["item_id"] for item in ranked["items"]} == {*known, "new"}
    assert ranked["warnings"] == []
    shop.put("new", price=12.0)
    assert "new" in shop.recommended("nobody", category=CATEGORY, min_price=11.5, max_price=12.5)
    assert shop.delete("new") == 204
    ranked = shop.call("POST", "/rank", json={"user_id": "ann", "candidates": [*known, "new"]}).json()
    assert [warning["code"] for warning in ranked["warnings"]] == ["unavailable_candidates"]
    assert shop.call("GET", "/users/ann").json()["history"][-1] == "new"


def test_without_redis_nothing_is_taken_and_what_was_said_stays(
    releases: Path, tmp_path: Path, own_redis: RedisServer
) -> None:
    process = ServiceProcess(releases, tmp_path / "service", REDIS_URL=own_redis.url, ISRF_WATCH_RELEASES_S="0")
    shop = Shop(process.start())
    first, second, *_ = some_items(releases / "current", CATEGORY, 3)
    try:
        assert shop.put("new", **NEW).status_code == 200
        assert shop.put(first, available=False).status_code == 200
        own_redis.kill()
        for refused in (shop.put(second, price=1.0), shop.call("DELETE", f"/items/{second}")):
            assert (refused.status_code, refused.json()["code"]) == (503, "store.unavailable")
            assert refused.headers["retry-after"]
        shown = shop.recommended("nobody", category=CATEGORY)
        assert "new" in shown
        assert first not in shown
        named_copy(releases / "r-a", releases, "r-b")
        point(releases, "r-b")
        shop.reload()
        shown = shop.recommended("nobody", category=CATEGORY)
        assert "new" in shown, "another release takes it over from the one before"
        assert first not in shown
        own_redis.start()
        wait_until(lambda: shop.put(second, available=False).status_code == 200, what="Redis")
        shown = shop.recommended("nobody", category=CATEGORY)
        assert "new" in shown
        assert not {first, second} & set(shown)
    finally:
        process.kill()


def test_a_new_item_is_read_anew_when_its_texts_change(shop: Shop, releases: Path) -> None:
    interested(shop, releases)
    shop.put("new", **NEW)
    assert "new" in shop.recommended("ann", category=CATEGORY)
    pan = next(item for item in items_of(releases / "current") if "Tents" in str(item.get("categories")))
    shop.put("new", **{name: pan.get(name) for name in NEW if name in pan})
    assert "new" not in shop.recommended("ann", category=CATEGORY)
    like = shop.call("POST", "/recommend", json={"history": ["new"], "n": 10}).json()["items"]
    twin = shop.call("POST", "/recommend", json={"history": [pan["item_id"]], "n": 10}).json()["items"]
    assert len({one["item_id"] for one in like} & {one["item_id"] for one in twin}) > 2


def test_an_item_of_the_release_is_changed_hidden_and_brought_back(shop: Shop, releases: Path) -> None:
    first, second, third, *_ = some_items(releases / "current", CATEGORY, 5)
    everything = shop.recommended("nobody")
    assert first in shop.recommended("nobody", category=CATEGORY)
    put = shop.put(first, categories=["Odd things"], price=1.5, metadata={"colour": "red"})
    assert put.json()["status"] == "changed"
    assert put.json()["item"]["title"] == shop.show(first).json()["item"]["title"] is not None
    assert first not in shop.recommended("nobody", category=CATEGORY)
    assert list(shop.recommended("nobody", category="Odd things")) == [first]
    assert shop.show(first).json()["item"]["price"] == 1.5

    assert shop.post("ann", second) == "accepted"
    shop.put(second, available=False)
    assert second not in shop.recommended("nobody", category=CATEGORY)
    assert shop.show(second).json()["item"]["available"] is False
    assert shop.call("GET", "/users/ann").json()["history"] == [second]
    assert shop.call("GET", "/recommend/ann").json()["meta"]["source"] == "sequence", "it still says who ann is"
    assert shop.post("ann", second, "purchase") == "accepted"
    shop.put(second, available=True)
    assert second in shop.recommended("nobody", category=CATEGORY)

    assert [shop.delete(third), shop.delete(third), shop.delete("no such item")] == [204, 404, 404]
    assert shop.show(third).status_code == 404
    assert third not in shop.recommended("nobody", category=CATEGORY)
    assert shop.post("bob", third) == "accepted", "a page that was loaded before may still show it"
    shop.put(third)
    assert third in shop.recommended("nobody", category=CATEGORY)
    assert set(everything) - {first} <= set(shop.recommended("nobody"))


def test_bad_items_are_refused_with_what_is_wrong(shop: Shop) -> None:
    for wrong in (
        {"title": 5}, {"price": -1}, {"price": "3"}, {"categories": "Audio"}, {"categories": [None]},
        {"available": 0}, {"available": "false"}, {"available": "no"},
        {"colour": "red"}, {"title": "x" * 3000}, {"metadata": {"a": "x" * 20_000}},
        {"categories": ["x"] * 65}, {"metadata": {"a": 2**70}},
    ):  # fmt: skip
        answer = shop.put("new", **wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid"), wrong
    for text in ('{"title": "\\ud800"}', '{"price": NaN}', '{"metadata": {"\\ud800": 1}}', '{"price": 1e999}'):
        headers = {"Content-Type": "application/json"}
        assert shop.call("PUT", "/items/new", content=text, headers=headers).status_code == 422, text
    assert shop.call("PUT", "/items/%ff", json={}).json()["code"] == "request.invalid_item_id"
    assert shop.call("PUT", "/items/%01", json={}).json()["code"] == "request.invalid_item_id"
    assert shop.put("x" * 513).json()["code"] == "request.invalid_item_id"
    assert shop.show("new").status_code == 404
    silent = shop.put("new", title="Zzyzx qwrtp")
    assert [one["code"] for one in silent.json()["warnings"]] == ["no_known_words"]


def test_so_many_items_may_be_added(releases: Path, tmp_path: Path) -> None:
    service = ServiceHere(releases, tmp_path / "state", max_added_items=2)
    shop = Shop(service)
    assert [shop.put(f"new{k}", **NEW).status_code for k in range(3)] == [200, 200, 409]
    assert shop.put("new9", **NEW).json()["code"] == "item.too_many"
    assert shop.put("new1", price=3.0).status_code == 200
    assert shop.put(some_items(releases / "current", CATEGORY, 1)[0], price=3.0).status_code == 200
    service.stop()


def test_a_release_without_a_reader_changes_items_and_takes_no_new_ones(shop: Shop, releases: Path) -> None:
    folder = named_copy(releases / "r-a", releases, "r-old")
    (folder / "golden_items.jsonl").unlink()

    def older(manifest: dict[str, Any]) -> None:
        """As releases were before there was a reader, or goldens of items."""
        manifest |= {"item_reader": None, "goldens": None}
        del manifest["files"]["golden_items.jsonl"]

    change_manifest(folder, older)
    shop.put("new", **NEW)
    point(releases, "r-old")
    shop.reload()
    answer = shop.put("another", **NEW)
    assert (answer.status_code, answer.json()["code"]) == (409, "item.unreadable")
    assert "new" not in shop.recommended("nobody")
    first = some_items(releases / "current", CATEGORY, 1)[0]
    assert shop.put(first, available=False).status_code == 200
    assert first not in shop.recommended("nobody", category=CATEGORY)
    point(releases, "r-a")
    shop.reload()
    assert "new" in shop.recommended("nobody", category=CATEGORY)


def test_the_next_release_takes_over_what_was_said(shop: Shop, releases: Path) -> None:
    """One that holds the item, and says of another what was said: both are its own from then on."""
    first, second, third, *_ = some_items(releases / "r-a", CATEGORY, 3)
    shop.put("new", **NEW)
    shop.put(first, price=1.5)
    shop.put(second, available=False)
    shop.post("ann", "new")
    assert shop.recommended("ann", category=CATEGORY)
    folder = named_copy(releases / "r-a", releases, "r-b")
    lines = items_of(folder)
    for line in lines:
        if line["item_id"] == third:  # what was the third's row is the new item's
            line |= {"item_id": "new", **{name: NEW[name] for name in ("title", "brand", "categories", "price")}}
        if line["item_id"] == first:
            line["price"] = 1.5
    (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    forget_item(folder, third)
    seal(folder)
    point(releases, "r-b")
    shop.reload()
    assert shop.show("new").json()["item"]["in_release"] is True
    shown = shop.recommended("nobody", category=CATEGORY)
    assert "new" in shown
    assert second not in shown, "of what it is silent about, what was said stands"
    assert shop.call("GET", "/users/ann").json()["history"] == ["new"]
    assert isinstance(shop.service, ServiceHere)
    shop.service.stop()
    with capture_logs() as logged:
        shop.service.start()  # whoever starts on it collects what it knows
        wait_until(lambda: {"items_collected"} <= {line["event"] for line in logged}, what="the collection")
    assert shop.show(first).json()["item"]["price"] == 1.5
    assert second not in shop.recommended("nobody", category=CATEGORY)


def recommends(shop: Shop, item_id: str) -> bool:
    return item_id in shop.recommended("ann", category=CATEGORY)


def forget_item(folder: Path, item_id: str) -> None:
    import polars as pl

    histories = pl.read_parquet(folder / "histories.parquet")
    kept = []
    for row in histories.iter_rows(named=True):
        places = [k for k, item in enumerate(row["item_ids"]) if item != item_id]
        kept.append(
            {
                **row,
                **{name: [row[name][k] for k in places] for name in ("item_ids", "timestamps", "events")},
                "disliked_item_ids": [item for item in row["disliked_item_ids"] if item != item_id],
            }
        )
    pl.DataFrame(kept, schema=histories.schema).write_parquet(folder / "histories.parquet")


def test_what_one_replica_was_told_the_other_shows(releases: Path, tmp_path: Path, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.flushall()
    processes = [ServiceProcess(releases, tmp_path / str(k), REDIS_URL=redis_server.url) for k in range(2)]
    try:
        one, other = (Shop(process.start()) for process in processes)
        interested(one, releases)
        assert one.put("new", **NEW).status_code == 200
        assert other.post("ann", "new") == "accepted", "at once: who is asked looks first"
        assert one.put("newer", **NEW).status_code == 200
        assert other.show("newer").status_code == 200
        assert one.put("newest", **NEW).status_code == 200
        assert other.call("GET", "/similar/newest").status_code == 200
        assert one.put("last", **NEW).status_code == 200
        assert other.put("last", price=2.0).json()["status"] == "changed"
        for item_id in ("newer", "newest", "last"):
            assert one.delete(item_id) == 204
        for shop in (one, other):
            wait_until(partial(recommends, shop, "new"), what="the new item")
            assert shop.call("GET", "/users/ann").json()["history"][-1] == "new"
        assert one.delete("new") == 204
        assert "new" not in one.recommended("ann", category=CATEGORY)
        wait_until(lambda: not recommends(other, "new"), what="its end")
        first = some_items(releases / "current", CATEGORY, 1)[0]
        assert other.put(first, available=False).status_code == 200
        wait_until(lambda: first not in one.recommended("nobody", category=CATEGORY), what="the change")
    finally:
        for process in processes:
            process.kill()


def test_a_redis_that_hangs_keeps_nobody_waiting_who_asks_for_unknown_items(
    releases: Path, tmp_path: Path, own_redis: RedisServer
) -> None:
    """One after the other waited for Redis, each at a place among the requests under way."""
    process = ServiceProcess(releases, tmp_path / "service", REDIS_URL=own_redis.url, **as_environment(AS_SERVED))
    shop = Shop(process.start())
    assert own_redis.process is not None
    try:
        assert shop.show("unknown").status_code == 404
        os.kill(own_redis.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        paths = [f"/{route}/unknown-{k}" for k in range(20) for route in ("items", "similar")]
        with ThreadPoolExecutor(len(paths)) as pool:
            answers = list(pool.map(lambda path: shop.call("GET", path), paths))
        assert time.monotonic() - began < 6 * float(AS_SERVED["redis_write_timeout_s"])
        assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "store.unavailable")}
        began = time.monotonic()
        assert shop.show("unknown").status_code == 503
        assert time.monotonic() - began < 1, "it is known that Redis does not say"
        assert shop.show(some_items(releases / "current", CATEGORY, 1)[0]).status_code == 200
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)
        wait_until(lambda: shop.show("unknown").status_code == 404, what="recovery")
        process.kill()


def test_an_event_on_a_new_item_is_not_refused_for_good_while_redis_is_away(
    releases: Path, tmp_path: Path, own_redis: RedisServer
) -> None:
    process = ServiceProcess(releases, tmp_path / "service", REDIS_URL=own_redis.url)
    shop = Shop(process.start())
    try:
        assert shop.put("new", **NEW).status_code == 200
        process.kill()
        own_redis.kill()
        process.start()
        event = {"user_id": "ann", "item_id": "new"}
        (result,) = shop.call("POST", "/interactions", json={"events": [event]}).json()["results"]
        assert (result["status"], result["reason"]) == ("refused", "store_unavailable")
        line = json.dumps(event)
        assert shop.call("POST", "/import/events", content=line).json()["reasons"] == {"store_unavailable": 1}
        for path in ("/items/new", "/similar/new"):
            assert shop.call("GET", path).status_code == 503, path
        assert shop.delete("new") == 503
        own_redis.start()
        wait_until(lambda: shop.show("new").status_code == 200, what="the item")
        assert shop.post("ann", "new") == "accepted"
        assert shop.post("ann", "gone") == "refused"
    finally:
        process.kill()
