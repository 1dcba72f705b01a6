"""The page at /studio in a real headless Chromium, against a real service with keys: sign in, edit, preview, save."""

import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Route, expect

from service.auth.caller import OPEN
from tests.service.api.test_demo_page import HOSTILE, Visit, chromium
from tests.service.auth.test_doors import Guarded
from tests.service.releases import with_text_everywhere
from tests.service.servers import PATIENCE_S, ServiceProcess

__all__ = ["chromium"]

PAGE_FILES = ("", "/studio.js", "/studio.css", "/mark.svg", "/client/index.js", "/client/client.js")


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    process = Guarded(tiny_release, tmp_path_factory.mktemp("studio"), ISRF_RATE_LIMIT="")
    yield process.start()
    process.kill()


class Studio(Visit):
    """A visit of the page, signed in where a key is given."""

    def __init__(self, chromium: Browser, url: str, key: str | None = None, at: str = "", **options: Any) -> None:
        super().__init__(chromium, f"{url}/studio{at}", **options)
        if key is not None:
            self.sign_in(key)
            expect(self.page.locator("#studio")).to_be_visible()

    def sign_in(self, key: str) -> None:
        self.page.get_by_label("Admin key").fill(key)
        self.page.get_by_role("button", name="Open the studio").click()

    def open(self, name: str) -> None:
        self.page.locator("#placements a", has=self.page.get_by_text(name, exact=True)).click()
        expect(self.page.locator("#editor-title")).to_have_text(name)

    def add_rule(self, kind: str) -> Locator:
        self.page.get_by_role("button", name=f"Add a rule: {kind}").click()
        return self.page.locator("#rules > li").last

    def ids(self, side: str) -> list[str]:
        return [one.get_attribute("data-item-id") or "" for one in self.page.locator(f"#{side} .item").all()]

    def previewed(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.locator("#preview-said")).to_have_text(text)
        expect(self.page.locator("#lists[aria-busy]")).to_have_count(0)

    @property
    def suggested(self) -> Locator:
        return self.page.locator(".options:visible [role=option]")

    def save(self) -> list[str]:
        """Saves; answers with what the question says that changes."""
        self.page.locator("#save").click()
        lines = self.page.locator("#dialog-changes li").all_inner_texts()
        self.page.get_by_role("dialog").get_by_role("button", name="Save", exact=True).click()
        return lines

    def end(self) -> None:
        """No error may have been written to the console but those of calls that the service refused."""
        refused = [one for one in self.complaints if "Failed to load resource" not in one]
        self.context.close()
        assert refused == []


@pytest.fixture
def studio(chromium: Browser, service: Guarded) -> Iterator[Callable[..., Studio]]:
    opened: list[Studio] = []

    def open_studio(at: str = "", **options: Any) -> Studio:
        opened.append(Studio(chromium, service.url, service.keys["admin"], at, **options))
        return opened[-1]

    yield open_studio
    for one in opened:
        one.end()


def put(service: Guarded, name: str, **fields: Any) -> int:
    answer = service.call("PUT", f"/placements/{name}", service.keys["admin"], json=fields)
    assert answer.status_code == 200, answer.text
    version: int = answer.json()["version"]
    return version


def stored(service: Guarded, name: str) -> dict[str, Any]:
    found: dict[str, Any] = service.call("GET", f"/placements/{name}", service.keys["read"]).json()
    return found


def items(service: Guarded, name: str, **query: Any) -> list[str]:
    answer = service.call("GET", f"/placements/{name}/items", service.keys["read"], params=query).json()
    return [item["item_id"] for item in answer["items"]]


def test_a_wrong_key_is_told_with_its_fix(chromium: Browser, service: Guarded) -> None:
    studio = Studio(chromium, service.url)
    trouble = studio.page.locator("#key-trouble")
    expect(trouble).to_be_hidden()
    studio.sign_in("wrong")
    expect(trouble).to_have_text("The service does not know this API key. Ask the operator for one.")
    studio.sign_in(service.keys["write"])
    expect(trouble).to_contain_text("needs a key with the role admin; the key has the role write")
    expect(trouble).to_contain_text("service keys add --role admin")
    studio.sign_in("ü")
    expect(trouble).to_contain_text("ApiKey is empty, not text, or has other characters")
    studio.sign_in(service.keys["admin"])
    expect(studio.page.locator("#studio")).to_be_visible()
    studio.end()


def test_the_key_stays_in_its_tab_alone(studio: Callable[..., Studio], service: Guarded) -> None:
    page = studio().page
    assert page.evaluate("Object.values(sessionStorage)") == [service.keys["admin"]]
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    page.reload()
    expect(page.locator("#studio")).to_be_visible()
    assert service.keys["admin"] not in page.content()
    page.get_by_role("button", name="Change key").click()
    expect(page.locator("#sign-in")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    other = page.context.new_page()
    other.goto(f"{service.url}/studio")
    expect(other.locator("#sign-in")).to_be_visible()


def test_a_rule_moves_an_item_in_the_preview_and_then_on_the_page(
    studio: Callable[..., Studio], service: Guarded
) -> None:
    put(service, "row", kind="popular", length=6)
    visit = studio("#row")
    visit.previewed("Both lists are the same.")
    before = items(service, "row")
    assert visit.ids("before") == visit.ids("after") == before
    third = visit.page.locator("#after .item").nth(2)
    title = third.locator(".title").inner_text()

    card = visit.add_rule("Pin")
    visit.previewed("Complete the rule, and you see here what it does.")
    card.get_by_label("Item").fill(title)
    card.get_by_role("option", name=re.compile(re.escape(title))).first.click()
    visit.previewed("3 moved.")
    assert visit.ids("before") == before
    assert visit.ids("after") == [before[2], before[0], before[1], *before[3:]]
    moved = visit.page.locator("#after .item").first
    assert moved.locator(".tag").all_inner_texts() == ["▲ 2", "rule 1 ▲2"]
    expect(visit.page.locator("#effects-list li")).to_have_text(
        [re.compile(f"^Pin “{re.escape(title)}” to place 1.*1 item")]
    )
    expect(card.locator(".effect")).to_have_text("1 item")
    assert items(service, "row") == before, "nothing is saved yet"

    expect(visit.page.locator("#changed")).to_have_text("1 unsaved change")
    assert visit.save() == [f"Rule 1 added: Pin “{title}” to place 1"]
    expect(visit.page.locator("#changed")).to_have_text(re.compile("^Saved as version"))
    assert items(service, "row") == [before[2], before[0], before[1], *before[3:]]
    expect(visit.page.locator("#save")).to_be_disabled()
    visit.previewed("3 moved.")
    expect(visit.page.locator("#before-title")).to_have_text("Without its rules")


def test_every_field_and_rule_is_saved_as_it_is_shown(studio: Callable[..., Studio], service: Guarded) -> None:
    first = items(service, "seen") if stored(service, "seen").get("name") else []
    assert first == []
    visit = studio()
    page = visit.page
    page.locator("#new").click()
    page.get_by_label("Name").fill("everything")
    page.get_by_label("Kind of list").select_option("trending")
    page.get_by_label("Items", exact=True).fill("7")
    page.get_by_label("Days compared").fill("2")
    page.get_by_label("Only items where").fill("price < 500")
    page.locator("#diversity").fill("0.5")
    page.get_by_label("A kind to fill up with").select_option("new")
    page.locator("#fallback-add").click()
    page.get_by_role("button", name="Use New earlier").click()
    page.locator("#more summary").click()
    page.locator("#max_price").fill("900")
    page.locator("#cache_s").fill("30")
    page.get_by_label("leaves out its variants too").check()
    visit.add_rule("Bury").get_by_label("Items where").fill("price > 100")
    quota = visit.add_rule("At least")
    quota.get_by_label("At least").fill("1")
    quota.get_by_label("Items where").fill("price < 90")
    limit = visit.add_rule("At most")
    limit.get_by_label("At most").fill("3")
    pin = visit.add_rule("Pin")
    pin.get_by_label("Pin", exact=True).select_option("where")
    pin.get_by_label("Items where").fill("price < 50")
    pin.get_by_label("Place").fill("2")
    pin.locator("summary").click()
    pin.get_by_label("Until").fill("2099-01-01T10:00")
    page.get_by_role("button", name="Move up rule 4").click()
    visit.previewed(re.compile("moved|same|new|gone"))
    lines = visit.save()
    expect(page.locator("#changed")).to_have_text(re.compile("^Saved as version"))
    assert lines[0] == "Kind of list: Trending"
    assert len(lines) == 12
    saved = stored(service, "everything")["placement"]
    rules = saved.pop("rules")
    assert saved == {
        "kind": "trending",
        "length": 7,
        "filter": "price < 500",
        "max_price": 900.0,
        "exclude_variants": True,
        "diversity": 0.5,
        "fallbacks": ["new", "popular"],
        "window_s": 172_800.0,
        "cache_s": 30.0,
    }
    until = rules[2]["pin"].pop("until")
    assert re.fullmatch(r"20(98-12-31|99-01-01)T\d\d:\d0:00.000Z", until)
    assert rules == [
        {"boost": {"where": "price > 100", "by": 0.5}},
        {"at_least": {"where": "price < 90", "count": 1}},
        {"pin": {"where": "price < 50", "place": 2}},
        {"at_most": {"attribute": "brand", "count": 3}},
    ]
    page.reload()
    expect(page.locator("#editor-title")).to_have_text("everything")
    expect(page.locator("#rules > li")).to_have_count(4)
    expect(page.locator("#changed")).to_have_text("no changes")


def test_an_error_stands_beside_what_it_is_about(studio: Callable[..., Studio], service: Guarded) -> None:
    put(service, "faulty", kind="popular")
    visit = studio("#faulty")
    page = visit.page
    page.get_by_label("Only items where").fill("prise < 30")
    fault = page.locator("[data-path=filter] .fault")
    expect(fault).to_contain_text("there is no attribute prise. Did you mean price?")
    assert page.locator("#filter").get_attribute("aria-describedby") == fault.get_attribute("id")
    page.get_by_label("Only items where").fill("")
    expect(fault).to_have_count(0)

    visit.add_rule("At most")
    second = visit.add_rule("Boost")
    second.get_by_label("Items where").fill("brand = ")
    expect(second.locator(".fault")).to_contain_text("The condition, at character")
    second.get_by_label("Items where").fill("price < 50")
    expect(second.locator(".fault")).to_have_count(0)
    second.get_by_label("Score times").fill("-1")
    expect(second.locator("[data-path$='boost.by'] .fault")).to_contain_text("is a factor from")
    page.get_by_label("Items", exact=True).fill("500")
    expect(page.locator("[data-path=length] .fault")).to_contain_text("less than or equal to 200")
    version = stored(service, "faulty")["version"]
    visit.save()
    expect(page.locator("#length")).to_be_focused()
    assert stored(service, "faulty")["version"] == version


def test_a_change_of_somebody_else_is_never_overwritten_unseen(studio: Callable[..., Studio], service: Guarded) -> None:
    put(service, "shared", kind="popular", length=5)
    visit = studio("#shared")
    page = visit.page
    page.get_by_label("Items", exact=True).fill("8")
    theirs = put(service, "shared", kind="popular", length=5, filter="price < 400")
    visit.save()
    notice = page.locator("#notice")
    expect(notice).to_contain_text("Somebody changed shared while you edit it. Only items where: none → price < 400")
    assert stored(service, "shared")["version"] == theirs

    page.get_by_role("button", name="Keep mine and compare").click()
    expect(notice).to_be_hidden()
    assert visit.save() == ["Items: 5 → 8", "Only items where: price < 400 → none"]
    expect(page.locator("#changed")).to_have_text(re.compile("^Saved as version"))
    assert stored(service, "shared")["placement"]["length"] == 8

    page.get_by_label("Items", exact=True).fill("9")
    put(service, "shared", kind="new")
    visit.save()
    page.get_by_role("button", name="Show their version").click()
    expect(page.locator("#kind")).to_have_value("new")
    expect(page.locator("#changed")).to_have_text(re.compile("^This is version"))
    assert stored(service, "shared")["placement"]["kind"] == "new"


def test_what_nobody_edits_follows_the_changes_of_others(studio: Callable[..., Studio], service: Guarded) -> None:
    put(service, "followed", kind="popular", length=5)
    visit = studio("#followed")
    expect(visit.page.locator("#length")).to_have_value("5")
    put(service, "followed", kind="popular", length=6)
    visit.page.evaluate("dispatchEvent(new Event('focus'))")
    expect(visit.page.locator("#length")).to_have_value("6")
    expect(visit.page.locator("#changed")).to_contain_text("Somebody changed it")


def test_a_name_that_exists_is_not_taken(studio: Callable[..., Studio], service: Guarded) -> None:
    version = put(service, "taken", kind="popular")
    visit = studio()
    visit.page.locator("#new").click()
    visit.page.locator("#save").click()
    expect(visit.page.locator("[data-path=name] .fault")).to_have_text("Give it a name.")
    for name, told in (
        ("taken", "There is a placement taken already"),
        ("Not a name!", "a name has 1 to 64 characters"),
    ):
        visit.page.get_by_label("Name").fill(name)
        visit.save()
        expect(visit.page.locator("[data-path=name] .fault")).to_contain_text(told)
    assert stored(service, "taken")["version"] == version


def test_deleting_and_leaving_ask_first(studio: Callable[..., Studio], service: Guarded) -> None:
    put(service, "kept", kind="popular")
    put(service, "doomed", kind="popular")
    visit = studio("#doomed")
    dialog = visit.page.get_by_role("dialog")
    visit.page.get_by_label("Items", exact=True).fill("3")
    visit.page.locator("#placements a", has=visit.page.get_by_text("kept", exact=True)).click()
    expect(dialog).to_contain_text("Items: 10 → 3")
    dialog.get_by_role("button", name="Stay").click()
    expect(visit.page.locator("#length")).to_have_value("3")
    visit.page.locator("#discard").click()
    dialog.get_by_role("button", name="Leave").click()
    expect(visit.page.locator("#length")).to_have_value("10")

    visit.page.locator("#delete").click()
    dialog.get_by_role("button", name="Cancel").click()
    assert stored(service, "doomed")["name"] == "doomed"
    visit.page.locator("#delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(visit.page.locator("#welcome")).to_be_visible()
    expect(visit.page.locator("#placements")).not_to_contain_text("doomed")
    assert stored(service, "doomed")["code"] == "placement.unknown"


def test_what_is_changed_keeps_the_focus_near(studio: Callable[..., Studio], service: Guarded) -> None:
    put(service, "near", kind="together", length=5)
    visit = studio("#near")
    page = visit.page
    expect(page.locator("#category")).to_have_attribute("aria-expanded", "false")
    visit.previewed(re.compile("same|new|gone"))
    page.locator("#fallback-kind").focus()
    page.keyboard.press("ArrowDown")  # chooses, and adds nothing yet
    expect(page.locator("#fallbacks li")).to_have_count(1)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#fallbacks li")).to_have_count(2)
    expect(page.locator("#fallback-kind")).to_be_focused()
    page.locator("#fallbacks li").last.get_by_role("button", name="Do not use").press("Enter")
    expect(page.get_by_role("button", name="Do not use Popular")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#fallback-kind")).to_be_focused()
    for title in visit.page.locator("#after .title").all_inner_texts()[:2]:
        page.locator("#cart-add").fill(title)
        visit.suggested.first.click()
    expect(page.locator("#cart li")).to_have_count(2)
    page.locator("#cart button").first.press("Enter")
    expect(page.locator("#cart button")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#cart-add")).to_be_focused()

    link = page.locator("#placements a", has=page.get_by_text("near", exact=True))
    link.focus()
    with page.expect_response("**/placements"):
        page.evaluate("dispatchEvent(new Event('focus'))")
    expect(link).to_be_focused()
    page.locator(".skip").press("Enter")
    expect(page.locator("#editor")).to_be_focused()
    assert page.url.endswith("#near")


def test_a_preview_that_fails_is_busy_no_more(studio: Callable[..., Studio], service: Guarded) -> None:
    put(service, "failing", kind="popular")
    visit = studio("#failing")
    visit.previewed(re.compile("same"))
    visit.page.route(
        "**/placements/preview", lambda route: route.fulfill(status=422, json={"code": "x", "detail": "y"})
    )
    visit.page.locator("#length").fill("3")
    expect(visit.page.locator("#preview-said")).to_have_text("The list is as it was before the marked field.")
    expect(visit.page.locator("#lists[aria-busy]")).to_have_count(0)


def test_a_list_beside_a_product_starts_from_the_chosen_one(studio: Callable[..., Studio], service: Guarded) -> None:
    put(service, "beside", kind="similar", length=5)
    visit = studio("#beside")
    popular = service.call("GET", "/popular?n=2", service.keys["read"]).json()["items"]
    visit.previewed("Both lists are the same.")
    assert visit.ids("after") == items(service, "beside", item_id=popular[0]["item_id"])
    visit.page.get_by_label("Product of the page").fill(popular[1]["item_id"])
    visit.suggested.first.click()
    expect(visit.page.locator("#lists[aria-busy]")).to_have_count(0)
    expect(visit.page.locator(f"#after [data-item-id='{popular[1]['item_id']}']")).to_have_count(0)
    visit.page.get_by_label("Cart").fill(popular[0]["item_id"])
    visit.suggested.first.click()
    expect(visit.page.locator("#cart li")).to_have_count(1)
    expect(visit.page.locator("#lists[aria-busy]")).to_have_count(0)
    given = {"item_id": popular[1]["item_id"], "cart": popular[0]["item_id"]}
    assert visit.ids("after") == items(service, "beside", **given)


def test_the_keyboard_completes_a_condition(studio: Callable[..., Studio], service: Guarded) -> None:
    put(service, "typed", kind="popular")
    page = studio("#typed").page
    brand = next(
        one["examples"][0]
        for one in service.call("GET", "/attributes", service.keys["read"]).json()["attributes"]
        if one["name"] == "brand"
    )
    filled = page.locator("#filter")
    filled.focus()
    page.keyboard.type("bra")
    expect(page.locator(".options:visible [role=option]").first).to_contain_text("brand")
    page.keyboard.press("ArrowDown")
    assert filled.get_attribute("aria-activedescendant")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert filled.input_value() == "brand = ''"
    page.keyboard.type(brand[:2])
    expect(page.locator(".options:visible [role=option]").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert re.fullmatch(r"brand = '.*'", filled.input_value())
    page.keyboard.press("Escape")
    expect(page.locator(".options:visible")).to_have_count(0)


COMPLETE = """async ([text, attributes]) => {
  const { completions } = await import("/studio/conditions.js");
  return completions(text, text.length, attributes).map((one) => text.slice(0, one.from) + one.insert);
}"""
ATTRIBUTES = [
    {"name": "brand", "type": "text", "items": 9, "examples": ["Auralis", "D'Or"]},
    {"name": "categories", "type": "texts", "items": 9, "examples": ["Sale", "Audio"]},
    {"name": "my stock", "type": "number", "items": 9, "examples": [1, 5, 9]},
]


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("", ["brand ", "categories ", '"my stock" ']),
        ("sto", ['"my stock" ']),
        ("aur", ["brand = 'Auralis'"]),
        ("brand = 'd", ["brand = 'D''Or'"]),
        ("brand IN ('Auralis', 'd", ["brand IN ('Auralis', 'D''Or'"]),
        ("brand = 'D''", ["brand = 'D''Or'"]),
        ("NOT 'sal", ["NOT 'Sale' IN categories"]),
        ('"my stock" ', ['"my stock" < ', '"my stock" > ', '"my stock" BETWEEN  AND ', '"my stock" IS NOT NULL']),
        ("brand = 'x' and", []),
        ("brand = 'x' ", []),
    ],
)
def test_conditions_are_completed(studio: Callable[..., Studio], text: str, completed: list[str]) -> None:
    assert studio().page.evaluate(COMPLETE, [text, ATTRIBUTES]) == completed


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (390, "light"), (390, "dark"), (760, "light")])
def test_a_phone_shows_it_whole(studio: Callable[..., Studio], service: Guarded, width: int, scheme: Any) -> None:
    rules = [{"boost": {"where": "price < 60", "by": 2}}, {"at_most": {"attribute": "brand", "count": 1}}]
    put(service, "small", kind="similar", length=8, rules=rules)
    visit = studio("#small", color_scheme=scheme, viewport={"width": width, "height": 844}, has_touch=True)
    page = visit.page
    expect(page.locator("#after .item").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if width < 704:
        expect(page.locator("#before .item").first).to_be_hidden()
        page.get_by_text("Without its rules").first.tap()
        expect(page.locator("#before .item").first).to_be_visible()
    page.locator("#save").scroll_into_view_if_needed()
    page.locator("#new").tap()
    page.get_by_label("Name").fill("n" * 64)
    page.locator("#save").tap()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert (brightness[0] < brightness[1]) == (scheme == "light")


def test_every_control_has_a_name(studio: Callable[..., Studio], service: Guarded) -> None:
    rules: list[Any] = [
        {"boost": {"where": "price < 60", "by": 2}},
        {"pin": {"where": "price < 60", "place": 2}},
        {"at_most": {"attribute": "brand", "count": 1}},
        {"at_least": {"where": "price < 60", "count": 1}},
    ]
    put(service, "named", kind="together", fallbacks=["trending"], rules=rules)
    visit = studio("#named")
    expect(visit.page.locator("#after .item").first).to_be_visible()
    unnamed = visit.page.evaluate(
        """[...document.querySelectorAll("#studio :is(input, select, textarea, button)")].filter((one) =>
          !one.labels?.length && !one.getAttribute("aria-label") && !one.textContent.trim()).map((one) => one.id)"""
    )
    assert unnamed == []
    ids = visit.page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


def test_names_and_titles_are_text_whatever_stands_in_them(
    chromium: Browser, tiny_release: Path, tmp_path: Path
) -> None:
    releases = with_text_everywhere(tiny_release / "current", tmp_path / "releases", HOSTILE)
    process = ServiceProcess(releases, tmp_path / "service").start()
    try:
        item_id = httpx.get(f"{process.url}/popular", timeout=PATIENCE_S).json()["items"][0]["item_id"]
        rules = [{"pin": {"item_id": item_id, "place": 1}}, {"at_most": {"attribute": "brand", "count": 1}}]
        body = {"kind": "similar", "category": HOSTILE, "rules": rules}
        assert httpx.put(f"{process.url}/placements/row", json=body, timeout=PATIENCE_S).status_code == 200
        studio = Studio(chromium, process.url, at=f"#{quote(HOSTILE)}")
        page = studio.page
        page.route("**/placements", hostile_names)
        page.evaluate("dispatchEvent(new Event('focus'))")
        expect(page.locator("#placements strong").last).to_have_text(HOSTILE)
        expect(page.locator("#after .title").first).to_have_text(HOSTILE)
        expect(page.locator("#effects-list")).to_contain_text(HOSTILE)
        page.locator("#category").fill("<img")
        expect(page.locator(".options:visible [role=option]").first).to_contain_text(HOSTILE)
        page.keyboard.press("Escape")
        page.locator("#filter").fill(HOSTILE)
        expect(page.locator("[data-path=filter] .fault")).to_be_visible()
        page.locator("#placements a").last.click()
        expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
        page.get_by_role("button", name="Leave").click()
        expect(page.locator("#editor-title")).to_have_text(HOSTILE)
        assert page.title() == "ISRF studio"
        assert page.locator("#studio img, #studio script, dialog img").count() == 0
        studio.end()
    finally:
        process.kill()


def hostile_names(route: Route) -> None:
    """Adds a placement with a name that the service would not take."""
    answer = route.fetch()
    body = answer.json()
    body["placements"].append({**body["placements"][0], "name": HOSTILE})
    route.fulfill(response=answer, json=body)


def test_without_keys_it_opens_at_once(chromium: Browser, tiny_release: Path, tmp_path: Path) -> None:
    process = ServiceProcess(tiny_release, tmp_path).start()
    try:
        studio = Studio(chromium, process.url)
        expect(studio.page.locator("#no-placements")).to_be_visible()
        expect(studio.page.locator("#change-key")).to_be_hidden()
        process.kill()
        studio.page.locator("#new").click()
        expect(studio.page.locator("#trouble")).to_contain_text("check that the service runs")
        studio.end()
    finally:
        process.kill()


def test_the_page_runs_nothing_that_is_not_its_own(service: Guarded) -> None:
    for name in PAGE_FILES:
        answer = service.call("GET", f"/studio{name}", None)
        assert answer.status_code == 200, name
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    html = service.call("GET", "/studio", None).text
    assert not re.search(r"<script(?![^>]*src=)|style=|\son\w+=", html)


def test_exactly_its_files_need_no_key() -> None:
    folder = files("service.api.pages").joinpath("studio_files")
    own = {f"/studio/{one.name}" for one in folder.iterdir() if one.is_file() and one.name != "index.html"}
    paths = own | {f"/studio/client/{one.name}" for one in folder.joinpath("client").iterdir()}
    assert {path for path in OPEN if path.startswith("/studio/")} == paths


def test_it_can_be_switched_off(tiny_release: Path, tmp_path: Path) -> None:
    process = Guarded(tiny_release, tmp_path, ISRF_STUDIO="false").start()
    try:
        for path in ("/studio", "/studio/studio.js"):
            assert process.call("GET", path, None).status_code == 404
        assert process.call("GET", "/studio/shoppers", process.keys["admin"]).status_code == 404
        assert process.call("GET", "/placements", process.keys["read"]).status_code == 200
    finally:
        process.kill()
