"""Shops whose files hold times ahead of the clock: nothing that the service took in afterwards disappears."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from offline.commands.publish import publish
from tests.service.servers import PATIENCE_S, ServiceProcess
from tests.shops import Event, run_stages, write_shop

HOUR = 3600
ITEMS = [
    {"item_id": f"i{k}", "title": f"{'red' if k % 2 else 'blue'} thing {k % 7}", "price": 9.5, "available": True}
    for k in range(40)
]


def histories(newest: int) -> list[Event]:
    """40 shoppers with 6 events each, the latest of all at `newest`."""
    rng = random.Random(7)
    return [
        (f"u{user}", f"i{item}", newest - 900 * (6 - place) - user)
        for user in range(40)
        for place, item in enumerate(rng.sample(range(2 * (user % 2), 40, 2), 6))
    ]


def one_line_of_2125() -> list[Event]:
    return [*histories(int(time.time()) - HOUR), ("u3", "i11", 4_900_000_000)]


def all_nine_hours_ahead() -> list[Event]:
    return histories(int(time.time()) + 9 * HOUR)


class Shop:
    def __init__(self, service: ServiceProcess) -> None:
        self.service = service

    def call(self, method: str, path: str, **more: Any) -> Any:
        answer = httpx.request(method, self.service.url + path, timeout=PATIENCE_S, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, user_id: str, item_id: str, event: str) -> None:
        body = {"events": [{"user_id": user_id, "item_id": item_id, "event": event}]}
        assert self.call("POST", "/interactions", json=body)["results"][0]["status"] == "accepted"

    def history(self, user_id: str) -> list[str]:
        history: list[str] = self.call("GET", f"/users/{user_id}")["history"]
        return history

    def price(self, item_id: str) -> float:
        price: float = self.call("GET", f"/items/{item_id}")["item"]["price"]
        return price

    def recommended(self, user_id: str) -> set[str]:
        found = self.call("GET", f"/recommend/{user_id}", params={"n": 200, "include_seen": True})
        return {item["item_id"] for item in found["items"]}


@pytest.fixture(params=[one_line_of_2125, all_nine_hours_ahead])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    data = write_shop(tmp_path / "data", request.param(), ITEMS)
    publish(run_stages("export", data, tmp_path / "releases")["export"], tmp_path / "releases")
    service = ServiceProcess(tmp_path / "releases", tmp_path / "service", ISRF_WATCH_RELEASES_S="0")
    yield Shop(service.start())
    service.kill()


def started_anew(shop: Shop) -> None:
    """As after a night; the embedded store lets go of what was learned as soon as it starts."""
    assert shop.service.stop() == 0
    shop.service.start()
    time.sleep(1.0)


def test_what_was_answered_200_counts_and_stays(shop: Shop) -> None:
    before = shop.history("u3")
    assert shop.call("PUT", "/items/i7", json={"price": 1.25})["status"] == "changed"
    shop.call("PUT", "/items/i8", json={"available": False})
    shop.post("u3", before[0], "view")
    shop.post("u3", before[-1], "view")
    shop.post("u3", before[1], "remove")
    expected = [item for item in before if item != before[1]] + [before[0], before[-1]]

    def holds() -> None:
        assert shop.price("i7") == 1.25
        assert "i8" not in shop.recommended("u1")
        assert shop.history("u3") == expected, "the new clicks are the latest, the item taken back is gone"

    holds()
    for _ in range(2):
        started_anew(shop)
        holds()
