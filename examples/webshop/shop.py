"""A small shop that calls the recommendation service and shows a page even when the service fails.

    ISRF_PLACEMENTS_FILE=examples/webshop/placements.toml python -m service --releases var/demo/releases
    python examples/webshop/shop.py --items var/demo/data/items.jsonl --isrf http://127.0.0.1:8000

Home page, product page and cart each show the list of a placement. A page waits for it for a limited time, then shows
the shop's own bestsellers. The shop posts events in the background, with an id and the time of the event, and keeps
them while the service is down. A click in a list is posted with the list's id. Needs fastapi, uvicorn and isrf_client;
there are no logins.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote, urlencode

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from isrf_client import (
    AsyncClient,
    ClientError,
    Event,
    NoAnswerError,
    Patience,
    PlacementOptions,
    ProblemError,
    prepare,
)

PAGE = Template(Path(__file__).with_name("page.html").read_text())
HEADINGS = {"home": "Recommended for you", "product": "Similar items", "cart": "Goes well with your cart"}
"""What stands above the list of each placement of placements.toml."""
SHOWN = 8
READS = Patience(timeout_s=0.4, tries=1, deadline_s=0.4)
"""A page must not wait longer than half a second; late, it shows bestsellers instead."""
MAX_WAITING = 10_000
"""Events that may wait for the service; beyond this number the shop drops the oldest."""
BATCH = 200
RETRY_S = 1.0
MAX_CART = 100
"""Items of a cart that the service takes."""
RETRIED_STATUSES = {429, 500, 502, 503, 504}
"""After these statuses a later try may succeed."""
RETRIED_REASON = "store_unavailable"
"""With this reason the service refuses an event that a later try may deliver."""


class Outbox:
    """Posts events to the service in the background. It keeps them in memory; a real shop uses a database table."""

    def __init__(self, isrf: AsyncClient) -> None:
        self._isrf = isrf
        self._waiting: list[Event] = []
        self._more = asyncio.Event()

    def add(self, event: Event) -> None:
        self._waiting = [*self._waiting, *prepare([{**event, "timestamp": time.time()}])][-MAX_WAITING:]
        self._more.set()

    async def run(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while batch := self._waiting[:BATCH]:
                again = await self._post(batch)
                done = {event["event_id"] for event in batch} - {event["event_id"] for event in again}
                self._waiting = [event for event in self._waiting if event["event_id"] not in done]
                if again:
                    await asyncio.sleep(RETRY_S)

    async def _post(self, batch: list[Event]) -> list[Event]:
        """Posts a batch; returns the events to send again, without those that the service will never accept."""
        try:
            answer = await self._isrf.interactions(batch)
        except ClientError as error:
            # the client has retried already
            if isinstance(error, NoAnswerError) or (
                isinstance(error, ProblemError) and error.status in RETRIED_STATUSES
            ):
                return error.events
            print(f"{len(batch)} events were refused: {error}")
            return []
        return [
            event
            for event, result in zip(batch, answer["results"], strict=True)
            if result.get("reason") == RETRIED_REASON
        ]


class Shop:
    """The shop: its catalogue, its carts, its count of sales and its calls to the service."""

    def __init__(self, items: Path, isrf: AsyncClient) -> None:
        lines = items.read_text(encoding="utf-8").splitlines()
        self.items: dict[str, dict[str, Any]] = {item["item_id"]: item for item in map(json.loads, lines)}
        self.sold = Counter(dict.fromkeys(self.items, 0))
        self.carts: dict[str, dict[str, str]] = {}  # user -> item_id -> the list that it came from
        self.outbox, self._isrf = Outbox(isrf), isrf

    async def listed(self, placement: str, user_id: str, item_id: str | None) -> tuple[str, list[str], str]:
        """Returns a heading, item_ids, and the list's id, which later clicks name."""
        cart = [*self.carts.get(user_id, {})][-MAX_CART:]
        page: PlacementOptions = {"user_id": user_id, "item_id": item_id, "cart": cart}
        try:
            answer = await self._isrf.placement_items(placement, **page)
        except ClientError:
            return "Bestsellers", [item_id for item_id, _ in self.sold.most_common(SHOWN)], ""
        # the shop may have removed an item since the release was made
        known = [item["item_id"] for item in answer["items"] if item["item_id"] in self.items]
        return HEADINGS[placement], known, answer["meta"].get("recommendation_id", "")

    def record(self, user_id: str, item_id: str, event: str, shown_in: str) -> None:
        posted: Event = {"user_id": user_id, "item_id": item_id, "event": event}
        self.outbox.add({**posted, "recommendation_id": shown_in or None})


def create_app(items: Path, isrf_url: str, api_key: str | None = None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncClient(isrf_url, api_key=api_key, reads=READS) as isrf:
            app.state.shop = Shop(items, isrf)
            sending = asyncio.create_task(app.state.shop.outbox.run())
            yield
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    def known(shop: Shop, item_id: str) -> dict[str, Any]:
        if item_id not in shop.items:
            raise HTTPException(404)
        return shop.items[item_id]

    @app.get("/", response_class=HTMLResponse)
    async def front(request: Request, user: str = "visitor") -> HTMLResponse:
        return await _page(request.app.state.shop, "home", user, "<h1>Welcome</h1>")

    @app.get("/items/{item_id:path}", response_class=HTMLResponse)
    async def look(request: Request, item_id: str, user: str = "visitor", shown_in: str = "") -> HTMLResponse:
        shop: Shop = request.app.state.shop
        item = known(shop, item_id)
        shop.record(user, item_id, "view", shown_in)
        about = f"<h1>{escape(item.get('title') or item_id)}</h1><p>{escape(item.get('description') or '')}</p>"
        button = _button(_link(f"/cart/{quote(item_id, safe='')}", user, shown_in), "Add to cart")
        return await _page(shop, "product", user, about + button, item_id)

    @app.get("/cart", response_class=HTMLResponse)
    async def cart(request: Request, user: str = "visitor") -> HTMLResponse:
        shop: Shop = request.app.state.shop
        lines = "".join(f"<p>{escape(shop.items[one].get('title') or one)}</p>" for one in shop.carts.get(user, {}))
        button = _button(_link("/buy", user, ""), "Buy") if lines else "<p>It is empty.</p>"
        return await _page(shop, "cart", user, f"<h1>Your cart</h1>{lines}{button}")

    @app.post("/cart/{item_id:path}")
    async def add(request: Request, item_id: str, user: str = "visitor", shown_in: str = "") -> RedirectResponse:
        shop: Shop = request.app.state.shop
        known(shop, item_id)
        shop.carts.setdefault(user, {})[item_id] = shown_in
        shop.record(user, item_id, "cart", shown_in)
        return RedirectResponse(_link("/cart", user, ""), status_code=303)

    @app.post("/buy")
    async def buy(request: Request, user: str = "visitor") -> RedirectResponse:
        shop: Shop = request.app.state.shop
        for item_id, shown_in in shop.carts.pop(user, {}).items():
            shop.sold[item_id] += 1
            shop.record(user, item_id, "purchase", shown_in)
        return RedirectResponse(_link("/", user, ""), status_code=303)

    return app


async def _page(shop: Shop, placement: str, user: str, top: str, item_id: str | None = None) -> HTMLResponse:
    heading, item_ids, list_id = await shop.listed(placement, user, item_id)
    cards = "".join(_card(shop.items[one], user, list_id) for one in item_ids)
    links = {name: escape(_link(path, user, "")) for name, path in (("home", "/"), ("cart", "/cart"))}
    return HTMLResponse(PAGE.substitute(links, top=top, heading=heading, cards=cards, user=escape(user)))


def _button(link: str, text: str) -> str:
    return f'<form method="post" action="{escape(link)}"><button>{text}</button></form>'


def _card(item: dict[str, Any], user: str, list_id: str) -> str:
    link = _link(f"/items/{quote(item['item_id'], safe='')}", user, list_id)
    title = escape(item.get("title") or item["item_id"])
    return f'<li><a href="{escape(link)}">{title}</a> {item.get("price") or ""}</li>'


def _link(path: str, user: str, shown_in: str) -> str:
    return f"{path}?{urlencode({'user': user} | ({'shown_in': shown_in} if shown_in else {}))}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A small shop.")
    parser.add_argument("--items", type=Path, required=True, help="the shop's items.jsonl")
    parser.add_argument("--isrf", default="http://127.0.0.1:8000", help="address of the recommendation service")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    uvicorn.run(create_app(options.items, options.isrf), port=options.port)
