"""Takes the pictures of the guides and of the README: `python -m docs.generate.pictures`.

    python -m docs.generate.pictures                                   # serves var/demo/releases by itself
    python -m docs.generate.pictures --address http://127.0.0.1:8000   # of a service that runs with --demo
    python -m docs.generate.pictures --only phone dark
    GRAFANA_URL=http://127.0.0.1:3000 python -m docs.generate.pictures --only grafana

`make demo-release` makes the release. A service that it starts has an empty state, so that the lists are those of the
release, and gets placements before the picture of the studio, and clicks by a fixed rule before that of the statistics.
Another service is left as it is, but for the one click of a picture. Each picture has 256 colours at most: `pngquant`
finds them where it is installed, else Pillow.
"""

import argparse
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

DOCS = Path(__file__).parents[1]
IMAGES = DOCS / "images"
RELEASES = DOCS.parent / "var" / "demo" / "releases"
MAX_BYTES = 150_000
START_S = 120
SHOPPER = "shopper-0393"
"""The README's."""
CLICKED, EXPLAINED = 2, 0
"""Which cards of the list, from 0 on."""
STATS_SHOPPERS = 400
WARM_UP_SHOPPERS = 20


Step = Callable[[Page], None]


def arrive(page: Page) -> None:
    """Leaves the list as it comes."""


def look_at_one(page: Page) -> None:
    page.locator(".card .look").nth(CLICKED).click()
    expect(page.locator("#said")).to_have_text(re.compile("^Looked at"))


def open_reasons(page: Page) -> None:
    page.locator(".card summary").nth(EXPLAINED).click()


def let_others_buy(page: Page) -> None:
    page.locator("#others").click()
    expect(page.locator("#others-said")).to_have_text(re.compile("^Five shoppers bought"), timeout=30_000)


class Picture(NamedTuple):
    """What to do on the page before a picture, and which part of the page it shows."""

    name: str
    step: Step = arrive
    part: str | None = None  # a selector of one element; None for the window
    top: str | None = None  # a selector of what stands at the window's top


class Visit(NamedTuple):
    """One visit of the demo page by `SHOPPER`; each picture goes on where the one before ended."""

    pictures: tuple[Picture, ...]
    width: int = 1280
    height: int = 800
    dark: bool = False
    scale: float = 1


# The visit with a click comes last: it changes what the others would show.
VISITS = (
    Visit((Picture("dark"),), dark=True),
    Visit((Picture("phone"),), width=390, height=844, scale=1.5),
    Visit((Picture("phone-dark", open_reasons, top=".card"),), width=390, height=844, scale=1.5, dark=True),
    Visit((Picture("reasons", open_reasons, part=".card:has(.why[open])"),), scale=1.5),
    Visit((Picture("shopper"), Picture("click", look_at_one), Picture("demo", open_reasons))),
)
# It asks for long lists, which the statistics would count as shown.
AFTER_STATS = (Visit((Picture("others", let_others_buy),)),)
NAMES = (
    *(picture.name for visit in (*VISITS, *AFTER_STATS) for picture in visit.pictures),
    "studio",
    "stats",
    "grafana",
)
PLACEMENTS: dict[str, dict[str, Any]] = {
    "cart": {"kind": "together", "length": 4},
    "home": {"kind": "for-user", "length": 8, "rules": [{"at_most": {"attribute": "brand", "count": 2}}]},
    "product": {"kind": "similar", "length": 8, "filter": "price < 300"},
    "seen": {"kind": "recently-viewed", "length": 6},
}
"""What the studio shows."""


def visit_demo(browser: Browser, address: str, visit: Visit) -> Iterator[tuple[str, bytes]]:
    """Each picture's name and PNG."""
    page = browser.new_page(
        viewport={"width": visit.width, "height": visit.height},
        color_scheme="dark" if visit.dark else "light",
        device_scale_factor=visit.scale,
        reduced_motion="reduce",
    )
    page.goto(f"{address}/demo#{SHOPPER}")
    expect(page.locator("html")).to_have_attribute("data-ready", "yes")
    expect(page.locator("#who-name")).to_have_text(SHOPPER)
    for name, step, part, top in visit.pictures:
        step(page)
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        if top is not None:
            page.locator(top).first.evaluate("element => scrollTo(0, element.getBoundingClientRect().top - 12)")
        yield name, page.screenshot() if part is None else page.locator(part).first.screenshot()
    page.close()


def take(browser: Browser, address: str, visits: Sequence[Visit], wanted: Sequence[str]) -> None:
    """Takes and saves the wanted pictures of the visits."""
    for visit in visits:
        if any(picture.name in wanted for picture in visit.pictures):
            for name, shot in visit_demo(browser, address, visit):
                if name in wanted:
                    save(name, shot)


def put_placements(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        for name, placement in PLACEMENTS.items():
            client.put(f"/placements/{name}", json=placement).raise_for_status()


def studio_picture(browser: Browser, address: str) -> bytes:
    """The studio with a new boost and its preview for `SHOPPER`; nothing is saved."""
    page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light", reduced_motion="reduce")
    page.goto(f"{address}/studio#home")
    expect(page.locator("html")).to_have_attribute("data-ready", "yes")
    page.get_by_label("Shopper", exact=True).fill(SHOPPER)
    page.get_by_role("button", name="Add a rule: Boost").click()
    page.locator("#rules > li").last.get_by_label("Items where").fill("price < 30")
    expect(page.locator("#after .tag.by-rule").first).to_be_visible()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.locator("#rules-title").evaluate("element => scrollTo(0, element.getBoundingClientRect().top - 130)")
    shot = page.screenshot()
    page.close()
    return shot


def stats_picture(browser: Browser, address: str) -> bytes:
    """The answer of `GET /admin/stats`, called from the page /docs, its frame made high enough to read it."""
    page = browser.new_page(viewport={"width": 760, "height": 3000}, color_scheme="light", reduced_motion="reduce")
    page.goto(f"{address}/docs")
    operation = page.locator(".opblock", has=page.get_by_text("/admin/stats", exact=True))
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .highlight-code pre").first
    expect(answer).to_contain_text("click_through")
    answer.evaluate("element => { element.style.maxHeight = '60rem' }")
    operation.locator(".download-contents, .copy-to-clipboard").evaluate_all("all => all.forEach(one => one.remove())")
    shot = answer.screenshot()
    page.close()
    return shot


def grafana_picture(browser: Browser, address: str) -> bytes:
    """The dashboard of docker/grafana, its last quarter of an hour."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme="light", reduced_motion="reduce")
    page.goto(f"{address.rstrip('/')}/d/isrf?kiosk&theme=light&from=now-15m&to=now")
    expect(page.get_by_text("State store").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    shot = page.screenshot()
    page.close()
    return shot


def shop_a_little(address: str) -> None:
    """Every shopper is shown a list; every third looks at one item of it, every ninth buys it."""
    with httpx.Client(base_url=address, timeout=60) as client:
        for number in range(STATS_SHOPPERS):
            user_id = f"shopper-{number:04}"
            answer = client.get(f"/recommend/{user_id}", params={"n": 12}).raise_for_status().json()
            if number % 3:
                continue
            event = {
                "user_id": user_id,
                "item_id": answer["items"][number // 3 % 12]["item_id"],
                "event": "view" if number % 9 else "purchase",
                "recommendation_id": answer["meta"]["recommendation_id"],
            }
            client.post("/interactions", json={"events": [event]}).raise_for_status()


@contextlib.contextmanager
def demo_service(releases: Path) -> Iterator[str]:
    """The address of a service that starts without anybody's events, and ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "service", "--demo", "--releases", str(releases)]
        command += ["--state-dir", f"{folder}/state", "--port", str(port)]
        # Before the picture of a click is taken, the click counts for its shopper alone.
        settings = {**os.environ, "ISRF_LIVE_POLL_S": "3"}
        with log.open("wb") as written:
            process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, env=settings)  # noqa: S603 - our own module
        try:
            end = time.monotonic() + START_S
            while not is_ready(address):
                if process.poll() is not None or time.monotonic() > end:
                    sys.exit(
                        f"The service did not start on {releases}; has `make demo-release` run?\n{log.read_text()}"
                    )
                time.sleep(0.1)
            warm_up(address)
            yield address
        finally:
            process.terminate()
            process.wait()


def warm_up(address: str) -> None:
    """The first calls of a process are slower than any later one, and no picture is about them."""
    for number in range(WARM_UP_SHOPPERS):
        httpx.get(f"{address}/recommend/shopper-{number:04}", timeout=60).raise_for_status()


def is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def save(name: str, shot: bytes) -> None:
    """Raises ValueError for a picture that is too large for a page."""
    png = quantised(shot)
    if len(png) > MAX_BYTES:
        raise ValueError(f"{name}.png has {len(png)} bytes, more than {MAX_BYTES}: make it smaller.")
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / f"{name}.png").write_bytes(png)
    print(f"{name}.png: {len(png):,} bytes")


def quantised(png: bytes) -> bytes:
    """The same picture with 256 colours at most."""
    pngquant = shutil.which("pngquant")
    if pngquant is not None:
        command = [pngquant, "--strip", "--speed", "1", "-"]
        return subprocess.run(command, input=png, capture_output=True, check=True).stdout  # noqa: S603
    smaller = BytesIO()
    Image.open(BytesIO(png)).convert("RGB").quantize(256).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the documents.")
    parser.add_argument("--address", help="A running service, started with --demo.")
    parser.add_argument("--releases", type=Path, default=RELEASES, help="What to serve where no address is given.")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    options = parser.parse_args()
    grafana = os.environ.get("GRAFANA_URL")
    wanted = options.only or [name for name in NAMES if name != "grafana" or grafana]
    if "grafana" in wanted and not grafana:
        parser.error("the picture of Grafana needs GRAFANA_URL")
    with contextlib.ExitStack() as stack:
        address = options.address
        if address is None and set(wanted) != {"grafana"}:
            address = stack.enter_context(demo_service(options.releases))
        playwright = stack.enter_context(sync_playwright())
        # A container has no user namespaces for its sandbox.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        take(browser, address, VISITS, wanted)
        if "studio" in wanted:
            if options.address is None:
                put_placements(address)
            save("studio", studio_picture(browser, address))
        if "stats" in wanted:
            if options.address is None:
                shop_a_little(address)
            save("stats", stats_picture(browser, address))
        take(browser, address, AFTER_STATS, wanted)
        if grafana and "grafana" in wanted:
            save("grafana", grafana_picture(browser, grafana))
        browser.close()


if __name__ == "__main__":
    main()
