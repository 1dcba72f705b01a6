"""A small shop that calls the recommendation service as a shop should: whatever becomes of it, there is a page.

    python examples/webshop/shop.py --items var/demo/data/items.jsonl --isrf http://127.0.0.1:8000

A page waits for recommendations for so long and no longer, and then shows the shop's own bestsellers. Events are
posted in the background, with the time they happened at and an id, and wait there while the service is away. What was
clicked in a list is posted with the list's id. Needs fastapi, uvicorn and isrf_client; logins are left out.
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
from isrf_client import AsyncClient, ClientError, Event, NoAnswerError, Patience, ProblemError, prepare

PAGE = Template(Path(__file__).with_name("page.html").read_text())
SHOWN = 8
READS = Patience(timeout_s=0.4, tries=1, deadline_s=0.4)
"""A page is late after half a second; by then its bestsellers are better than a better list."""
WAITING = 10_000
"""Events that may wait for the service; beyond them the oldest are given up."""
PART = 200
RETRY_S = 1.0
LATER = {429, 500, 502, 503, 504}
"""Statuses that may pass."""
NOT_NOW = "store_unavailable"
"""Why the service refuses an event that may be sent again."""


class Outbox:
    """Events on their way to the service. In memory: a shop that may lose none puts a table in this place."""

    def __init__(self, isrf: AsyncClient) -> None:
        self._isrf = isrf
        self._waiting: list[Event] = []
        self._more = asyncio.Event()

    def add(self, event: Event) -> None:
        self._waiting = [*self._waiting, *prepare([{**event, "timestamp": time.time()}])][-WAITING:]
        self._more.set()

    async def run(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while part := self._waiting[:PART]:
                again = await self._post(part)
                done = {one["event_id"] for one in part} - {one["event_id"] for one in again}
                self._waiting = [one for one in self._waiting if one["event_id"] not in done]
                if again:
                    await asyncio.sleep(RETRY_S)

    async def _post(self, part: list[Event]) -> list[Event]:
        """Those that are to be sent again; what will never be taken must not hold up the rest."""
        try:
            answer = await self._isrf.interactions(part)
        except ClientError as error:
            # The client has tried for a while already.
            if isinstance(error, NoAnswerError) or (isinstance(error, ProblemError) and error.status in LATER):
                return error.events
            print(f"{len(part)} events were refused: {error}")
            return []
        return [one for one, told in zip(part, answer["results"], strict=True) if told.get("reason") == NOT_NOW]


class Shop:
    """Its catalogue, its own count of sales, and what it asks the service."""

    def __init__(self, items: Path, isrf: AsyncClient) -> None:
        lines = items.read_text(encoding="utf-8").splitlines()
        self.items: dict[str, dict[str, Any]] = {item["item_id"]: item for item in map(json.loads, lines)}
        self.sold = Counter(dict.fromkeys(self.items, 0))
        self.outbox, self._isrf = Outbox(isrf), isrf

    async def recommended(self, user_id: str) -> tuple[str, list[str], str]:
        """A heading, item_ids, and the list's id for the clicks to come."""
        try:
            answer = await self._isrf.recommend(user_id, n=SHOWN)
        except ClientError:
            return "Bestsellers", [item_id for item_id, _ in self.sold.most_common(SHOWN)], ""
        # An item may have left the shop since the release was made.
        known = [item["item_id"] for item in answer["items"] if item["item_id"] in self.items]
        return "Recommended for you", known, answer["meta"].get("recommendation_id", "")

    def happened(self, user_id: str, item_id: str, event: str, shown_in: str) -> None:
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

    @app.get("/", response_class=HTMLResponse)
    async def front(request: Request, user: str = "visitor") -> HTMLResponse:
        return await _page(request.app.state.shop, user, "<h1>Welcome</h1>")

    @app.get("/items/{item_id:path}", response_class=HTMLResponse)
    async def look(request: Request, item_id: str, user: str = "visitor", shown_in: str = "") -> HTMLResponse:
        shop: Shop = request.app.state.shop
        if item_id not in shop.items:
            raise HTTPException(404)
        shop.happened(user, item_id, "view", shown_in)
        item, link = shop.items[item_id], escape(_link(f"/buy/{quote(item_id, safe='')}", user, shown_in))
        about = f"<h1>{escape(item.get('title') or item_id)}</h1><p>{escape(item.get('description') or '')}</p>"
        return await _page(shop, user, f'{about}<form method="post" action="{link}"><button>Buy</button></form>')

    @app.post("/buy/{item_id:path}")
    async def buy(request: Request, item_id: str, user: str = "visitor", shown_in: str = "") -> RedirectResponse:
        shop: Shop = request.app.state.shop
        if item_id not in shop.items:
            raise HTTPException(404)
        shop.sold[item_id] += 1
        shop.happened(user, item_id, "purchase", shown_in)
        return RedirectResponse(_link("/", user, ""), status_code=303)

    return app


async def _page(shop: Shop, user: str, top: str) -> HTMLResponse:
    heading, item_ids, list_id = await shop.recommended(user)
    cards = "".join(_card(shop.items[item_id], user, list_id) for item_id in item_ids)
    home = escape(_link("/", user, ""))
    return HTMLResponse(PAGE.substitute(top=top, heading=heading, cards=cards, user=escape(user), home=home))


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
