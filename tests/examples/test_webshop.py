"""The example shop as a process of its own, and the service killed under it, stopped and started again."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.releases import shopper_of
from tests.service.servers import PATIENCE_S, ServiceProcess, free_port, wait_until

FOLDER = Path(__file__).parents[2] / "examples" / "webshop"
RECOMMENDED, SIMILAR, TOGETHER = "Recommended for you", "Similar items", "Goes well with your cart"
BESTSELLERS = "Bestsellers"
SHOWN = 8


class ShopProcess:
    """`python examples/webshop/shop.py`."""

    def __init__(self, items: Path, isrf_url: str, folder: Path) -> None:
        self.port = free_port()
        command = [sys.executable, str(FOLDER / "shop.py"), "--items", str(items), "--isrf", isrf_url]
        environment = os.environ | {"PYTHONPATH": str(FOLDER.parents[1])}
        with (folder / "shop.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)], env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S)
        wait_until(self._answers, what="the shop", alive=lambda: self.process.poll() is None)

    def _answers(self) -> bool:
        try:
            return self.http.get("/").status_code == 200
        except httpx.TransportError:
            return False

    def page(self, path: str, **query: str) -> str:
        answer = self.http.get(path, params=query or None)
        assert answer.status_code == 200
        return answer.text

    def end(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()


def links(page: str) -> list[str]:
    return [unescape(link) for link in re.findall(r'<li><a href="([^"]*)"', page)]


def heading(page: str) -> str:
    found = re.search(r"<h2>(.*)</h2>", page)
    assert found is not None, page
    return found[1]


@pytest.fixture
def service(demo_release: Path, tmp_path: Path) -> Iterator[ServiceProcess]:
    placements = str(FOLDER / "placements.toml")
    process = ServiceProcess(demo_release, tmp_path / "service", ISRF_PLACEMENTS_FILE=placements).start()
    yield process
    process.kill()


@pytest.fixture
def shop(service: ServiceProcess, demo_shop: Path, tmp_path: Path) -> Iterator[ShopProcess]:
    process = ShopProcess(demo_shop / "items.jsonl", service.url, tmp_path)
    yield process
    process.end()


def history(service: ServiceProcess, user_id: str) -> list[str]:
    told: Any = httpx.get(f"{service.url}/users/{user_id}", timeout=PATIENCE_S).json()
    found: list[str] = told["history"]
    return found


def clicks(service: ServiceProcess) -> int:
    stats: Any = httpx.get(f"{service.url}/admin/stats", timeout=PATIENCE_S).json()
    return sum(one["clicks"] for release in stats["releases"] for one in release["by_item_source"])


def until_recommended(shop: ShopProcess, user_id: str, path: str = "/", expected: str = RECOMMENDED) -> str:
    """The page once it holds its placement's list: on a busy machine one may be late."""
    pages: list[str] = []

    def recommended() -> bool:
        pages.append(shop.page(path, user=user_id))
        return heading(pages[-1]) == expected

    wait_until(recommended, what="a page with recommendations")
    return pages[-1]


def listed(page: str) -> list[str]:
    """The item_ids of a page's list."""
    return [re.findall(r"/items/([^?]*)", link)[0] for link in links(page)]


def test_the_shop_outlives_the_service_and_loses_no_event(
    shop: ShopProcess, service: ServiceProcess, demo_release: Path
) -> None:
    shopper = shopper_of(demo_release / "current")
    past = history(service, shopper)
    page = until_recommended(shop, shopper)
    offered = links(page)
    asked: Any = httpx.get(f"{service.url}/recommend/{shopper}?n={SHOWN}", timeout=PATIENCE_S).json()
    item_ids = [item["item_id"] for item in asked["items"]]
    assert listed(page) == item_ids

    shop.page(offered[0])
    wait_until(lambda: history(service, shopper) == [*past, item_ids[0]], what="the view")

    wait_until(lambda: clicks(service) == 1, what="the click, counted for the list that it came from")

    service.kill()
    without = shop.page("/", user=shopper)
    assert heading(without) == BESTSELLERS
    assert len(links(without)) == SHOWN
    shop.page(offered[1])
    assert shop.http.post(f"/cart/{item_ids[2]}", params={"user": shopper}).status_code == 303
    bought = shop.http.post("/buy", params={"user": shopper})
    assert (bought.status_code, bought.headers["location"]) == (303, f"/?user={shopper}")
    assert f"/items/{item_ids[2]}?" in links(shop.page("/", user=shopper))[0], "the shop's own count of sales"

    service.start()
    again = until_recommended(shop, shopper)
    events = [*past, *item_ids[:3], item_ids[2]]  # the third was put into the cart, then bought
    wait_until(lambda: history(service, shopper) == events, what="the events that waited")
    again = until_recommended(shop, shopper)
    assert not any(f"/items/{item_ids[2]}?" in link for link in links(again)), "bought"


def test_three_pages_show_three_placements(shop: ShopProcess, service: ServiceProcess) -> None:
    user = "bob"
    first, second, *_ = listed(until_recommended(shop, user))
    similar = listed(until_recommended(shop, user, f"/items/{first}", SIMILAR))
    assert len(similar) == SHOWN
    assert first not in similar
    brands = [httpx.get(f"{service.url}/items/{one}", timeout=PATIENCE_S).json()["item"]["brand"] for one in similar]
    assert max(map(brands.count, brands)) <= 3, "the placement's rule"

    for item_id in (first, second):
        assert shop.http.post(f"/cart/{item_id}", params={"user": user}).headers["location"] == f"/cart?user={user}"
    cart = listed(until_recommended(shop, user, "/cart", TOGETHER))
    query = {"user_id": user, "cart": [first, second]}
    asked = httpx.get(f"{service.url}/placements/cart/items", params=query, timeout=PATIENCE_S).json()
    assert cart == [item["item_id"] for item in asked["items"]]
    assert len(cart) == 4
    assert not {first, second} & {*cart, *listed(until_recommended(shop, user))}, "what is in the cart"


def test_a_service_that_hangs_holds_up_no_page(shop: ShopProcess, service: ServiceProcess) -> None:
    until_recommended(shop, "ann")
    assert service.process is not None
    service.process.send_signal(signal.SIGSTOP)
    try:
        page = shop.page("/", user="ann")
    finally:
        service.process.send_signal(signal.SIGCONT)
    assert heading(page) == BESTSELLERS
    until_recommended(shop, "ann")


def test_what_does_not_exist_is_said_so_and_text_stays_text(shop: ShopProcess) -> None:
    assert shop.http.get("/items/nothing").status_code == 404
    assert shop.http.post("/cart/nothing").status_code == 404
    hostile = "<script>\"'&"
    page = shop.page("/", user=hostile)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_it_is_small() -> None:
    assert sum(len(file.read_text().splitlines()) for file in FOLDER.iterdir() if file.is_file()) < 250
