"""The page at /demo in a real headless Chromium, against a real service: pick, click, what changed, and why."""

import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from tests.examples.test_webshop import clicks
from tests.service.auth.test_doors import make_key
from tests.service.releases import with_text_everywhere
from tests.service.servers import PATIENCE_S, ServiceProcess, wait_until

NUM_ITEMS = 12
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>&amp;"\''
PHONE_WIDTH = 360


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(tiny_release, tmp_path_factory.mktemp("demo"), "--demo").start()
    yield process
    process.kill()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert binary is not None, "chromium is not installed; `make test` installs it"
    expect.set_options(timeout=PATIENCE_S * 1000)
    with sync_playwright() as playwright:
        # Containers have no user namespaces for its sandbox, and little shared memory.
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=binary, args=options)
        yield browser
        browser.close()


class Visit:
    """A page in a browser of its own; what the browser complained of is kept."""

    def __init__(self, chromium: Browser, url: str, **options: Any) -> None:
        self.context = chromium.new_context(**options)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready]")

    @property
    def cards(self) -> Locator:
        return self.page.locator("#list .card")

    def listed(self) -> list[str]:
        return [one.get_attribute("data-item-id") or "" for one in self.cards.all()]

    def said(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.locator("#said")).to_contain_text(text)

    def pick(self, user_id: str) -> None:
        self.page.select_option("#shopper", user_id)
        expect(self.page.locator("#who-name")).to_have_text(user_id)


@pytest.fixture
def visit(chromium: Browser, service: ServiceProcess) -> Iterator[Visit]:
    visit = Visit(chromium, f"{service.url}/demo")
    yield visit
    visit.context.close()
    assert visit.complaints == []


def user(service: ServiceProcess, user_id: str) -> Any:
    return httpx.get(f"{service.url}/users/{quote(user_id, safe='')}", timeout=PATIENCE_S).json()


def offered(service: ServiceProcess, place: int) -> str:
    shoppers = httpx.get(f"{service.url}/demo/shoppers", timeout=PATIENCE_S).json()["shoppers"]
    user_id: str = shoppers[place]["user_id"]
    return user_id


def test_pick_a_shopper_click_an_item_and_the_list_changes(visit: Visit, service: ServiceProcess) -> None:
    shopper = offered(service, 3)
    visit.pick(shopper)
    before, known = visit.listed(), user(service, shopper)
    assert len(set(before)) == NUM_ITEMS
    expect(visit.page.locator("#history .past-item")).to_have_count(min(NUM_ITEMS, len(known["history"])))
    for kind in ("explicit", "group"):
        words = [one["words"] for one in known["interests"][kind]]
        expect(visit.page.locator(f"#{kind} .chip")).to_have_count(len(words))
        assert [one.get_attribute("data-words") for one in visit.page.locator(f"#{kind} .chip").all()] == words
    title = visit.cards.nth(2).locator(".title").inner_text()

    visit.cards.nth(2).locator(".look").click()

    visit.said(f"Looked at “{title}”")
    visit.said(re.compile(r"\d+ new, \d+ moved.*Answered from their own history in \d+ ms"))
    after = visit.listed()
    assert len(set(after)) == NUM_ITEMS
    assert after != before
    fresh = [one.get_attribute("data-item-id") for one in visit.page.locator(".card.fresh").all()]
    assert sorted(map(str, fresh)) == sorted(set(after) - set(before))
    expect(visit.page.locator("#history .past-item .title").first).to_have_text(title)
    told = user(service, shopper)
    assert told["history"] == [*known["history"], before[2]]
    assert (
        visit.page.locator("#explicit .chip").first.inner_text().split("\n")[0]
        == told["interests"]["explicit"][0]["words"]
    )


def test_a_click_names_the_list_that_it_came_from(visit: Visit, service: ServiceProcess) -> None:
    before = clicks(service)
    visit.cards.nth(3).locator(".look").click()
    visit.said("Looked at “")
    wait_until(lambda: clicks(service) == before + 1, what="the click, counted")


def test_what_is_bought_leaves_the_list(visit: Visit, service: ServiceProcess) -> None:
    visit.pick(offered(service, 5))
    bought = visit.listed()[0]
    visit.cards.first.locator(".buy").click()
    visit.said("Bought “")
    assert bought not in visit.listed()


def test_a_new_visitor_is_known_after_one_look(visit: Visit) -> None:
    visit.page.click("#visitor")
    visit.said("popular items, for nobody knows them yet")
    expect(visit.page.locator("#who-about")).to_contain_text("Nobody knows this shopper yet")
    before = visit.listed()
    visit.cards.nth(1).locator(".look").click()
    visit.said("Looked at “")
    assert visit.listed() != before
    expect(visit.page.locator("#who-about")).to_contain_text("1 item in the history")


def test_what_others_buy_moves_a_list_and_says_so(visit: Visit) -> None:
    visit.page.click("#others")
    said = visit.page.locator("#others-said")
    expect(said).to_contain_text("5 shoppers who took “")
    expect(said).to_contain_text("took this too since the last release.")
    ranks = re.search(r"was number (\d+) of the sixth's list and is number (\d+) now", said.inner_text())
    assert ranks is not None
    assert int(ranks[2]) < int(ranks[1])
    expect(visit.page.locator("#who-name")).to_have_text(re.compile("^other-.*-6$"))
    expect(visit.page.locator("#others")).to_be_enabled()


def test_every_item_says_why(visit: Visit, service: ServiceProcess) -> None:
    starts: list[Callable[[], None]] = [
        lambda: visit.pick(offered(service, 7)),
        lambda: visit.page.click("#visitor"),
    ]
    for start in starts:
        start()
        visit.said("Answered")
        for card in visit.cards.all():
            card.locator("summary").click()
            reasons = card.locator(".reasons li")
            expect(reasons.first).to_be_visible()
            assert all(len(one.inner_text()) > 10 for one in reasons.all())


def test_every_call_is_shown_with_its_time(visit: Visit, service: ServiceProcess) -> None:
    visit.cards.first.locator(".look").click()
    visit.said("Looked at")
    calls = [one.inner_text().split("\n") for one in visit.page.locator("#calls .call").all()]
    assert {("POST", "/interactions", "200")} <= {(method, path, status) for method, path, status, _ in calls}
    assert any(path.startswith("/recommend/") for _, path, _, _ in calls)
    assert all(re.fullmatch(r"\d+\.\d ms", took) for *_, took in calls)


def test_the_keyboard_is_enough(visit: Visit) -> None:
    visit.page.locator("#shopper").focus()
    visit.page.keyboard.press("ArrowDown")
    second = visit.page.locator("#shopper option").nth(1).get_attribute("value") or ""
    expect(visit.page.locator("#who-name")).to_have_text(second)
    visit.cards.nth(4).locator("summary").focus()
    visit.page.keyboard.press("Enter")
    expect(visit.cards.nth(4).locator(".reasons li").first).to_be_visible()
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Space")
    visit.said("Looked at “")
    where = visit.page.evaluate("document.activeElement.closest('#list') !== null")
    assert where, "whoever uses the keyboard goes on where they were"


def test_the_address_names_the_shopper(visit: Visit, service: ServiceProcess) -> None:
    first, second = visit.page.locator("#who-name").inner_text(), offered(service, 9)
    visit.pick(second)
    visit.page.go_back()
    expect(visit.page.locator("#who-name")).to_have_text(first)
    assert visit.page.locator("#shopper").input_value() == first
    visit.page.evaluate(f"location.hash = {second!r}")
    expect(visit.page.locator("#who-name")).to_have_text(second)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_whole(chromium: Browser, service: ServiceProcess, scheme: Any) -> None:
    size: Any = {"width": PHONE_WIDTH, "height": 740}
    visit = Visit(chromium, f"{service.url}/demo", color_scheme=scheme, viewport=size, has_touch=True)
    visit.cards.first.locator("summary").tap()
    assert visit.page.evaluate("document.documentElement.scrollWidth") == PHONE_WIDTH
    ink, paper = (
        visit.page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert (brightness[0] < brightness[1]) == (scheme == "light")
    assert visit.complaints == []
    visit.context.close()


def test_titles_and_ids_are_text_whatever_stands_in_them(chromium: Browser, tiny_release: Path, tmp_path: Path) -> None:
    releases = with_text_everywhere(tiny_release / "current", tmp_path / "releases", HOSTILE)
    process = ServiceProcess(releases, tmp_path / "service", "--demo").start()
    try:
        shopper = offered(process, 0)
        for user_id in (shopper, HOSTILE):
            visit = Visit(chromium, f"{process.url}/demo#{quote(user_id, safe='')}")
            expect(visit.page.locator("#who-name")).to_have_text(user_id)
            visit.cards.first.locator("summary").click()
            assert visit.cards.first.locator(".title").inner_text() == HOSTILE
            visit.cards.first.locator(".look").click()
            visit.said(f"Looked at “{HOSTILE}”")
            assert visit.page.title() == "ISRF demo shop"
            assert visit.page.locator("main img, main script").count() == 0
            assert visit.complaints == []
            visit.context.close()
    finally:
        process.kill()


def test_a_service_that_went_away_is_said_to_have(chromium: Browser, tiny_release: Path, tmp_path: Path) -> None:
    process = ServiceProcess(tiny_release, tmp_path, "--demo").start()
    try:
        visit = Visit(chromium, f"{process.url}/demo")
        expect(visit.page.locator("#trouble")).to_be_hidden()
        process.kill()
        visit.cards.first.locator(".look").click()
        expect(visit.page.locator("#trouble")).to_contain_text("client.unreachable")
        expect(visit.cards).to_have_count(NUM_ITEMS)
        process.start()
        visit.cards.first.locator(".look").click()
        visit.said("Looked at “")
        expect(visit.page.locator("#trouble")).to_be_hidden()
        visit.context.close()
    finally:
        process.kill()


POST = """async ([userId, itemId]) => {
  const { IsrfClient } = await import("/demo/client/index.js");
  const isrf = new IsrfClient("", { tries: 5, timeoutMs: 90000, deadlineMs: 90000 });
  return await isrf.interactions([{ user_id: userId, item_id: itemId, event: "view" }]);
}"""


def test_the_javascript_client_doubles_no_event_whose_answer_was_lost(visit: Visit, service: ServiceProcess) -> None:
    ways = iter(["lost", "not now", "through"])

    def pass_on(route: Route) -> None:
        way = next(ways)
        if way == "not now":
            route.fulfill(status=503, headers={"Retry-After": "0"}, body="<html>")
            return
        answer = route.fetch()
        route.fulfill(response=answer) if way == "through" else route.abort()

    visit.page.route("**/interactions", pass_on)
    someone, item_id = f"a/b ..{uuid.uuid4().hex}", visit.listed()[0]
    posted = visit.page.evaluate(POST, [someone, item_id])
    assert [one["status"] for one in posted["results"]] == ["duplicate"]
    assert user(service, someone)["history"] == [item_id]
    # The browser tells of what was lost; nothing else may be wrong.
    assert len(visit.complaints) == 2
    assert all("Failed to load resource" in one for one in visit.complaints)
    visit.complaints.clear()


ASK = """async () => {
  const { IsrfClient } = await import("/demo/client/index.js");
  const isrf = new IsrfClient("");
  const told = async (work) => work().then((answer) => answer, (error) => [error.code, error.status]);
  return [
    await told(() => isrf.popular({ n: 0 })),
    await told(async () => (await isrf.user("a/../b?")).user_id),
    await told(async () => (await isrf.popular({ n: 2, exclude: ["x", "y,z"] })).items.length),
    await told(() => isrf.erase("nobody")),
    await told(async () => typeof (await isrf.exportItems().next()).value.item_id),
    await told(() => new IsrfClient("http://127.0.0.1:1", { tries: 1 }).popular()),
  ];
}"""


def test_the_javascript_client_has_the_services_codes(visit: Visit) -> None:
    told = visit.page.evaluate(ASK)
    assert told == [["request.invalid", 422], "a/../b?", 2, None, "string", ["client.unreachable", 0]]
    visit.complaints.clear()


BEACON = """async ([sessionId, itemId]) => {
  const { IsrfClient } = await import("/demo/client/index.js");
  return new IsrfClient("").sendBeacon(sessionId, [{ item_id: itemId, event: "view" }]);
}"""


def test_the_javascript_client_sends_beacons(visit: Visit, service: ServiceProcess) -> None:
    session, item_id = uuid.uuid4().hex, visit.listed()[0]
    assert visit.page.evaluate(BEACON, [session, item_id]) is True
    wait_until(lambda: user(service, f"isrf-session:{session}")["history"] == [item_id], what="the beacon's event")


def test_the_page_runs_nothing_that_is_not_its_own(visit: Visit, service: ServiceProcess) -> None:
    for path in ("/demo", "/demo/demo.js", "/demo/demo.css", "/demo/mark.svg"):
        answer = httpx.get(service.url + path, timeout=PATIENCE_S)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    html = httpx.get(f"{service.url}/demo", timeout=PATIENCE_S).text
    assert not re.search(r"<script(?![^>]*src=)|style=|\son\w+=", html)
    visit.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<b id=x onclick=\"document.title=1\">x</b>')")
    visit.page.locator("#x").click()
    assert visit.page.title() == "ISRF demo shop"
    assert any("Content Security Policy" in one for one in visit.complaints)
    visit.complaints.clear()


def test_only_demo_mode_has_it_and_never_with_keys(service: ServiceProcess, tiny_release: Path, tmp_path: Path) -> None:
    assert f"Open {service.url}/demo\n" in service.log
    plain = ServiceProcess(tiny_release, tmp_path).start()
    try:
        for path in ("/demo", "/demo/shoppers", "/demo/demo.js"):
            assert httpx.get(plain.url + path, timeout=PATIENCE_S).status_code == 404
    finally:
        plain.kill()
    keys = tmp_path / "keys.json"
    make_key(keys, "read")
    code, said = ServiceProcess(tiny_release, tmp_path, "--demo", "--api-keys-file", str(keys)).refused()
    assert code == 2
    assert "config.demo_with_keys" in said


@pytest.mark.parametrize("width", [320, PHONE_WIDTH, 390, 704, 705, 768, 1280])
def test_no_chip_covers_the_letter_of_a_picture(chromium: Browser, service: ServiceProcess, width: int) -> None:
    visit = Visit(chromium, f"{service.url}/demo?utm_source=mail&n=7", viewport={"width": width, "height": 900})
    visit.cards.nth(1).locator(".look").click()
    visit.said("Looked at “")  # some cards have moved, or are new: they have one chip more
    # The longest of what it can say, on every card.
    visit.page.evaluate("""import("/demo/view.js").then(view => {
      const longest = Object.values(view.SOURCES).sort((one, other) => other.length - one.length)[0];
      document.querySelectorAll("#list .card .source").forEach(chip => chip.textContent = longest);
    })""")
    boxes = """cards => cards.map(card => [".initial", ".rank", ".change", ".source", ".art"].map(name => {
      const box = card.querySelector(name).getBoundingClientRect();
      return [box.left, box.top, box.right, box.bottom];
    }))"""
    for letter, *chips, art in visit.page.locator("#list .card").evaluate_all(boxes):
        for left, top, right, bottom in (chip for chip in chips if chip[2] > chip[0]):
            assert left >= letter[2] or right <= letter[0] or top >= letter[3] or bottom <= letter[1], width
            assert (left >= art[0], right <= art[2], top >= art[1], bottom <= art[3]) == (True,) * 4, width
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    visit.context.close()
    assert visit.complaints == []
