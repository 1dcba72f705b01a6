"""The JavaScript client under Node (Playwright's own) against a real service and against servers of raw sockets."""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.clients.javascript.node import node
from tests.clients.raw_servers import OK, answer_of, dripping, saying, server
from tests.service.servers import PATIENCE_S, ServiceProcess


@pytest.fixture(scope="module")
def service(demo_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(demo_release, tmp_path_factory.mktemp("node")).start()
    yield process
    process.kill()


CHANGED = "placement.changed"
PATIENT = {"timeoutMs": 60_000, "deadlineMs": 60_000}


def test_what_is_undefined_is_not_sent(service: ServiceProcess) -> None:
    code = """
    const [plain] = (await isrf.popular({ n: 1 })).items;
    const nothing = { n: 1, category: undefined, exclude: null, min_price: undefined, include_seen: undefined };
    const event = { user_id: data.user, item_id: plain.item_id, event: undefined, event_id: undefined };
    said = [
      plain.item_id === (await isrf.popular(nothing)).items[0].item_id,
      (await isrf.recommendSession([plain.item_id], { ...nothing, user_id: undefined })).items.length,
      (await isrf.rank([plain.item_id], { user_id: undefined, n: undefined })).items.length,
      (await isrf.recommend(data.user, undefined)).items.length,
      (await isrf.interactions([event])).results[0],
      (await isrf.user(data.user)).history.length,
      await isrf.erase(data.user),
    ];
    """
    same, session, ranked, listed, posted, history, erased = node(
        code, service.url, user=uuid.uuid4().hex, options=PATIENT
    )
    assert (same, session, ranked, listed, history, erased) == (True, 1, 1, 10, 1, None)
    assert posted["status"] == "accepted"
    assert len(posted["event_id"]) == 32


def test_integers_are_ids_and_dates_are_times(service: ServiceProcess) -> None:
    code = """
    const [one, two] = (await isrf.popular({ n: 2, exclude: [7, 8n] })).items.map((item) => item.item_id);
    const at = (ms) => new Date(ms);
    const posted = await isrf.interactions([
      { user_id: 41, item_id: two, timestamp: at(2_000_500) },
      { user_id: 41n, item_id: one, timestamp: at(1000) },
    ]);
    const user = await isrf.user(41);
    const latest = await isrf.user(41, { last: 1 });
    said = [posted.accepted, user.user_id, user.history.length, user.history[0] === one, user.timestamps];
    said.push(latest.timestamps);
    """
    assert node(code, service.url, options=PATIENT) == [2, "41", 2, True, [1.0, 2000.5], [2000.5]]


def test_placements_are_put_shown_filled_and_removed(service: ServiceProcess) -> None:
    code = """
    const rules = [{ at_most: { attribute: "brand", count: 1 } }];
    const put = await isrf.putPlacement("js-home", { kind: "popular", length: 3, filter: null, rules });
    const shown = await isrf.placement("js-home");
    const [first] = (await isrf.placementItems("js-home", { n: 1 })).items;
    const page = { user_id: data.user, item_id: first.item_id, cart: [7, "x"], session: ["y"], n: undefined };
    const answer = await isrf.placementItems("js-home", page);
    const listed = (await isrf.placements()).placements.find((one) => one.name === "js-home");
    said = [
      shown.placement.rules[0].at_most.count,
      [put.version, listed.version, answer.meta.placement_version].every((version) => version === shown.version),
      answer.items.length,
      answer.items.some((item) => item.item_id === first.item_id),
      await code(() => isrf.putPlacement("js-home", { kind: "new" }, { expected_version: put.version - 1 })),
      await isrf.deletePlacement("js-home", { expected_version: put.version }),
      await code(() => isrf.placement("js-home")),
      await code(() => isrf.placementItems("js-home")),
    ];
    """
    gone = ["placement.unknown"] * 2
    assert node(code, service.url, user=uuid.uuid4().hex, options=PATIENT) == [1, True, 3, False, CHANGED, None, *gone]


def test_a_preview_shows_what_a_rule_moves(service: ServiceProcess) -> None:
    code = """
    const [first, , third] = (await isrf.popular({ n: 3 })).items;
    const rules = [{ pin: { item_id: third.item_id, place: 1, until: undefined } }];
    const page = { n: 3, cart: [7], name: null };
    const preview = await isrf.previewPlacement({ kind: "popular", rules }, page);
    said = [preview.before_is, preview.after.items[0].item_id === third.item_id,
      preview.moves.find((move) => move.item_id === third.item_id), preview.rules,
      (await isrf.popular({ n: 1 })).items[0].item_id === first.item_id,
      await code(() => isrf.previewPlacement("popular"))];
    """
    before, is_first, move, rules, stays, text = node(code, service.url, options=PATIENT)
    assert (before, is_first, stays, text) == ("without_rules", True, True, "client.invalid_value")
    assert (move["before"], move["after"], move["rules"]) == (3, 1, [{"rule": 1, "kind": "pin", "places": 2}])
    assert rules == [{"rule": 1, "kind": "pin", "items": 1}]


def test_conditions_categories_and_contexts_filter_a_list(service: ServiceProcess) -> None:
    code = """
    const item = async (one) => (await isrf.item(one.item_id)).item;
    const all = await Promise.all((await isrf.popular({ n: 50 })).items.map(item));
    const [wanted, other] = [...new Set(all.map((one) => one.categories.at(-1)))];
    const cheap = { filter: "price < 60 AND brand <> context.brand", context: { brand: all[0].brand } };
    const found = await isrf.popular({ n: 20, category: [wanted, other], exclude_category: [other], ...cheap });
    const shown = await Promise.all(found.items.map(item));
    const [first] = (await isrf.attributes({ limit: 1 })).attributes;
    said = [first.name === "item_id" && first.examples.length === 1, shown.length > 0,
      shown.every((one) => one.categories.includes(wanted) && !one.categories.includes(other)),
      shown.every((one) => one.price < 60 && one.brand !== all[0].brand),
      await code(() => isrf.popular({ filter: "prise < 60" }))];
    """
    assert node(code, service.url, options=PATIENT) == [True, True, True, True, "condition.invalid"]


def test_affinities_name_what_a_user_likes(service: ServiceProcess) -> None:
    code = """
    const user = data.user;
    const events = (await isrf.popular({ n: 4 })).items.map((one) => ({ user_id: user, item_id: one.item_id }));
    await isrf.interactions(events);
    const all = await isrf.affinities(user);
    const one = await isrf.affinities(user, { limit: 1 });
    said = [all.events, one.affinities.brand.length, one.affinities.brand[0].value === all.affinities.brand[0].value];
    """
    assert node(code, service.url, user=uuid.uuid4().hex, options=PATIENT) == [4, 1, True]


def test_a_refused_placement_names_its_fields(service: ServiceProcess) -> None:
    code = """
    const put = (placement) => isrf.putPlacement("js-wrong", placement).catch((error) => error);
    const error = await put({ kind: "populer", length: 0 });
    const rule = await put({ kind: "popular", rules: [{ boost: { where: "prise < 60", by: 2 } }] });
    said = [error.code, error.errors.map((one) => one.where).sort(), rule.code, rule.message, rule.errors];
    said.push(await code(() => isrf.putPlacement("js-wrong", "popular")));
    said.push(await code(() => isrf.putPlacement("", { kind: "popular" })));
    """
    fields, wheres, rule, message, none, text, name = node(code, service.url, options=PATIENT)
    assert (fields, wheres) == ("request.invalid", ["body.kind", "body.length"])
    assert (rule, none) == ("condition.invalid", [])
    assert message.startswith("rule 1: ")
    assert (text, name) == ("client.invalid_value", "client.invalid_id")


@pytest.mark.parametrize("item_id", ["x\n", "\n", "x\r\n", "a\x00"])
def test_an_id_with_a_control_character_is_refused(service: ServiceProcess, item_id: str) -> None:
    code = """
    said = [];
    for (const name of ["recommend", "similar", "user", "erase"]) said.push(await code(() => isrf[name](data.id)));
    """
    user, item = "request.invalid_user_id", "request.invalid_item_id"
    assert node(code, service.url, id=item_id, options=PATIENT) == [user, item, user, user]


WRONG_IDS = ["undefined", "null", '""', '"."', '".."', "NaN", "7.5", "2 ** 53", "true", "{}", "[]", "new Date()"]
WRONG_IDS += ['"a\\ud800"', "Symbol()", "() => 1", "new String('a')", "Infinity"]


@pytest.mark.parametrize("wrong", WRONG_IDS)
def test_what_is_no_id_is_refused(wrong: str) -> None:
    code = f"""
    const id = {wrong};
    said = [];
    for (const name of ["recommend", "similar", "user", "erase"]) said.push(await code(() => isrf[name](id)));
    if (![ "", ".", ".."].includes(id)) {{
      said.push(await code(() => isrf.recommendSession(["a", id])), await code(() => isrf.rank([id])));
      said.push(await code(() => isrf.popular({{ exclude: ["a", id] }})));
      if (id !== undefined && id !== null)
        said.push(await code(() => isrf.interactions([{{ user_id: id, item_id: "a" }}])));
    }}
    """
    assert set(node(code)) == {"client.invalid_id"}


WRONG_VALUES = [
    "NaN",
    "Infinity",
    "new Date('soon')",
    "new Date()",
    '"\\ud800"',
    "new Map()",
    "Symbol()",
    "() => 1",
    "1n",
]
WRONG_VALUES += ["{ a: NaN }", "[[undefined]]", "new (class Price {})()", "cycle", "new Uint8Array(2)"]


@pytest.mark.parametrize("wrong", WRONG_VALUES)
def test_what_json_does_not_have_is_refused(wrong: str) -> None:
    code = f"""
    const cycle = {{}};
    cycle.itself = cycle;
    const value = {wrong};
    said = [
      await code(() => isrf.popular({{ min_price: value }})),
      await code(() => isrf.recommendSession(["a"], {{ category: value }})),
      await code(() => isrf.rank(["a"], {{ diversity: value }})),
      await code(() => isrf.interactions([{{ user_id: "ann", item_id: "a", event: value }}])),
    ];
    """
    assert set(node(code)) == {"client.invalid_value"}


def test_what_is_no_list_and_no_event_is_refused() -> None:
    code = """
    said = [];
    for (const wrong of [undefined, null, "abc", { a: 1 }, 7])
      for (const name of ["recommendSession", "rank", "interactions"]) said.push(await code(() => isrf[name](wrong)));
    for (const wrong of [undefined, null, "ann", []]) said.push(await code(() => isrf.interactions([wrong])));
    for (const date of ["soon", NaN]) {
      const event = { user_id: "ann", item_id: "a", timestamp: new Date(date) };
      said.push(await code(() => isrf.interactions([event])));
    }
    said.push(await code(() => isrf.interactions([{ user_id: "ann", item_id: "a", timestamp: NaN }])));
    said.push(await code(() => isrf.popular("n=5")), await code(() => isrf.popular({ exclude: "abc" })));
    said.push(await code(() => isrf.placementItems("home", { cart: "abc" })));
    """
    assert set(node(code)) == {"client.invalid_value"}
    long = 'said = [await code(() => isrf.recommend("x".repeat(70000))), '
    long += "await code(() => isrf.popular({ exclude: Array(9000).fill('item-12345') }))];"
    assert set(node(long)) == {"client.url_too_long"}


def test_what_cannot_work_is_refused_when_the_client_is_made() -> None:
    code = """
    said = [];
    const made = async (url, options) => said.push(await code(() => new IsrfClient(url, options)));
    for (const url of ["", "shop:8000", "ftp://shop", "http://shop?x=1", "http://shop#x", "http://", null, 7])
      await made(url);
    await made("http://user:secret@shop");
    for (const nothing of [null, undefined, {}]) new IsrfClient("http://shop", nothing);
    for (const apiKey of ["", " ", "a\\nb", "ü", 7]) await made("http://shop", { apiKey });
    for (const tries of [0, 1.5]) await made("http://shop", { tries });
    for (const ms of [NaN, Infinity, "5"]) await made("http://shop", { timeoutMs: ms, deadlineMs: ms });
    await made("http://shop", { fetch: 5 });
    """
    refused = ["client.invalid_url"] * 9 + ["client.invalid_key"] * 5 + ["client.invalid_patience"] * 5
    assert node(code) == [*refused, "client.invalid_value"]


@pytest.mark.parametrize("user_id", ["x\n", "\n", "a\x00b", "a/../b", "../x", "...", "ü%2F?#", " x "])
def test_an_id_arrives_as_it_is(user_id: str) -> None:
    with server(saying(answer_of(b'{"items":[]}'))) as (url, requests):
        node('await isrf.recommend(data.id, { category: "a\\nb" });', url, id=user_id)
    path, query = requests[0].split(b" ")[1].split(b"?")
    escaped = quote(user_id, safe="").replace(".", "%2E")
    assert path.decode() == f"/recommend/{escaped}"
    assert query == b"category=a%0Ab"


@pytest.mark.parametrize("head", [OK + b"Content-Length: 99999\r\n\r\n", OK + b"X-Long: ", b"H"])
def test_an_answer_that_drips_is_given_up_in_time(head: bytes) -> None:
    code = "const began = performance.now(); said = [await code(() => isrf.popular()), performance.now() - began];"
    for options, num_requests in (
        ({"timeoutMs": 400, "deadlineMs": 5000, "tries": 2}, 2),
        ({"timeoutMs": 30_000, "deadlineMs": 600, "tries": 9}, 1),
    ):
        with server(dripping(head, b"a" if head != b"H" else b"", every_s=0.1)) as (url, requests):
            said, took_ms = node(code, url, options=options)
        assert said == "client.timeout"
        assert took_ms < 4000
        assert len(requests) == num_requests


def test_a_fetch_that_never_answers_is_given_up_too() -> None:
    code = """
    const deaf = new IsrfClient("http://shop", { fetch: () => new Promise(() => {}), timeoutMs: 100, deadlineMs: 300 });
    said = await code(() => deaf.popular());
    """
    assert node(code) == "client.timeout"


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"7", b"null", b"", b'{"ok": true}', b'{"items": 7}', b'{"placement": []}']
)
def test_an_answer_that_is_none_of_ours_is_said_to_be_none(body: bytes) -> None:
    with server(saying(answer_of(body))) as (url, requests):
        code = 'said = [await code(() => isrf.popular()), await code(() => isrf.erase("ann")), '
        code += 'await code(() => isrf.placement("home"))];'
        assert node(code, url) == ["client.unreadable"] * 3
    assert len(requests) == 3


def test_a_redirect_is_not_followed_and_a_strange_problem_is_a_problem() -> None:
    with server(saying(answer_of(b'{"items":[]}'))) as (elsewhere, stolen):
        head = f"Location: {elsewhere}/popular\r\n".encode()
        with server(saying(answer_of(b"", "302 Found", head))) as (url, _):
            assert node("said = await code(() => isrf.popular());", url, options={"apiKey": "k"}) == "http.302"
    assert stolen == []
    with server(saying(answer_of(b'{"code": 7, "detail": null}', "404 Not Found"))) as (url, _):
        assert node("said = await code(() => isrf.popular());", url) == "http.404"


def test_an_error_has_the_events_that_are_to_be_sent_again(service: ServiceProcess) -> None:
    """Two thousand and one events; the service goes away after the first thousand."""
    item_id = httpx.get(f"{service.url}/popular?n=1", timeout=PATIENCE_S).json()["items"][0]["item_id"]
    code = """
    let posts = 0;
    const flaky = async (url, request) => {
      posts += 1;
      return posts === 2 ? new Response("{}", { status: 500 }) : fetch(url, request);
    };
    const lossy = new IsrfClient(data.url, { fetch: flaky, ...data.options });
    const event = { user_id: data.user, item_id: data.item };
    const events = Array.from({ length: 2001 }, (_, k) => ({ ...event, timestamp: k + 1 }));
    const error = await lossy.interactions(events).catch((caught) => caught);
    const again = await lossy.interactions(error.events);
    const twice = await lossy.interactions(error.events);
    const done = error.results.filter((one) => one !== null);
    const ids = new Set([...done, ...again.results].map((one) => one.event_id));
    said = [error.code, error.message, error.events.length, done.length, again.accepted, twice.duplicates, ids.size];
    """
    who = uuid.uuid4().hex
    status, message, left, done, accepted, duplicates, ids = node(
        code, service.url, user=who, item=item_id, options=PATIENT
    )
    assert (status, left, done, accepted, duplicates, ids) == ("http.500", 1001, 1000, 1001, 1001, 2001)
    assert "Of 2001 events 1000 were answered" in message


def test_events_that_were_prepared_stay_as_they_are() -> None:
    code = """
    const first = prepare([{ user_id: 1, item_id: "a" }, { user_id: 1, item_id: "a", event_id: "mine" }]);
    said = [first, prepare(first), first[1].event_id];
    """
    first, again, mine = node(code)
    assert first == again
    assert mine == "mine"
    assert first[0]["user_id"] == "1"


def test_parts_share_one_deadline() -> None:
    def slow(client: Any, _: bytes) -> None:
        time.sleep(0.4)
        body = json.dumps({"results": [{"status": "accepted"}] * 1000}).encode()
        client.sendall(answer_of(body, head=b"Connection: close\r\n"))

    code = """
    const began = performance.now();
    const events = Array.from({ length: 9000 }, () => ({ user_id: "ann", item_id: "a" }));
    said = [await code(() => isrf.interactions(events)), performance.now() - began];
    """
    with server(slow) as (url, _):
        status, took_ms = node(code, url, options={"timeoutMs": 1000, "deadlineMs": 1000, "tries": 2})
    assert status == "client.timeout"
    assert took_ms < 2500


def test_what_is_no_option_of_the_client_is_refused() -> None:
    code = """
    said = [];
    for (const options of [{ apikey: "k" }, { timeout: 5 }, { tries: 1, retries: 2 }]) {
      said.push(await code(async () => new IsrfClient("http://shop", options)));
    }
    """
    assert node(code) == ["client.invalid_value"] * 3


def test_a_context_that_is_no_object_is_refused_and_shown() -> None:
    code = """
    said = [];
    for (const context of [["red"], "red", 7, new Map([["theme", "red"]])])
      for (const call of [() => isrf.popular({ context }), () => isrf.rank(["a"], { context })])
        said.push(await call().catch(told));
    """
    shown = ["Array", '"red"', "7", "Map"]
    assert node(code) == [["client.invalid_value", f"context is {value}."] for value in shown for _ in range(2)]


def test_a_hole_is_no_event() -> None:
    code = """
    const event = { user_id: "a", item_id: "b" };
    said = [await code(async () => prepare([, event])), await code(() => isrf.interactions([event, , event]))];
    """
    assert node(code) == ["client.invalid_value"] * 2


def test_what_is_imported_is_exported(service: ServiceProcess) -> None:
    code = """
    const all = async (lines) => { const found = []; for await (const line of lines) found.push(line); return found; };
    const [shown] = (await isrf.popular({ n: 1 })).items;
    const { item } = await isrf.item(shown.item_id);
    await isrf.putItem(data.mark, { title: item.title, price: 5 });
    const removed = await isrf.importItems([{ item_id: data.mark, price: null, brand: "Tea & Co" }]);
    const [line] = (await all(isrf.exportItems())).filter((one) => one.item_id === data.mark);
    const posted = await isrf.importEvents([{ user_id: data.mark, item_id: data.mark, event: "view" },
      { session_id: `s-${data.mark}`, item_id: data.mark, event: "view" }, { user_id: data.mark, item_id: "no" }]);
    const [event] = (await all(isrf.exportEvents())).filter((one) => one.user_id === data.mark);
    const [state] = (await all(isrf.exportUsers())).filter((one) => one.user_id === data.mark);
    const again = await isrf.importUsers([{ ...state, user_id: `${data.mark}-2` }]);
    await isrf.hideItem(data.mark);
    const refused = [posted.accepted, posted.reasons, posted.problems[0].line];
    said = [[removed.accepted, line.price ?? null, line.brand], refused,
      event.item_id === data.mark, again.accepted, (await isrf.user(`${data.mark}-2`)).history,
      (await isrf.ready()).status, (await isrf.reload()).status, Array.isArray((await isrf.stats()).releases),
      (await isrf.recommendMany([data.mark, 7], { n: 2 })).map((one) => one.items.length)];
    """
    mark = uuid.uuid4().hex
    options = PATIENT | {"bulk": PATIENT}
    assert node(code, service.url, mark=mark, options=options) == [
        [1, None, "Tea & Co"],
        [2, {"unknown_item": 1}, 3],
        True,
        1,
        [mark],
        "ready",
        "unchanged",
        True,
        [2, 2],
    ]
