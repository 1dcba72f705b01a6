"""Every route of the service has a method of the JavaScript client; signals end calls; nothing wrong is sent."""

import re
import shutil
import subprocess

import pytest

from service.app import create_app
from service.settings import Settings
from tests.clients.javascript.node import node
from tests.clients.python.test_client import NOT_OF_A_SHOP

SEND_ALL = """
const requests = [];
const fetch = async (url, { method, body, headers }) => {
  requests.push([method, new URL(url).pathname, body === undefined ? null : headers["Content-Type"]]);
  return new Response("{}", { status: 500 });
};
const all = new IsrfClient("http://shop", { fetch });
const event = { user_id: "x", item_id: "x" };
const given = {
  recommendSession: [["x"]], recommendMany: [["x"]], rank: [["x"]], popular: [], attributes: [], placements: [],
  putItem: ["x", {}], putPlacement: ["x", { kind: "popular" }], previewPlacement: [{ kind: "popular" }],
  interactions: [[event]], importItems: [[{ item_id: "x" }]], importUsers: [[{ user_id: "x" }]],
  importEvents: [[event]], exportItems: [], exportEvents: [], exportUsers: [], ready: [], reload: [], stats: [],
  sendBeacon: ["0123456789abcdef", [{ item_id: "x", event: "view" }]],
};
const names = Object.getOwnPropertyNames(IsrfClient.prototype)
  .filter((name) => !["constructor", "get", "post"].includes(name));
"""


def test_there_is_a_method_for_every_route() -> None:
    code = """
    for (const name of names) {
      const call = all[name](...(given[name] ?? ["x"]));
      if (call === true) continue;
      await (call.next ? call.next() : call).catch((error) => { if (error.code !== "http.500") throw error; });
    }
    said = requests;
    """
    routes = {
        (method.upper(), re.sub(r"{\w+}", "x", path))
        for path, methods in create_app(Settings.model_construct()).openapi()["paths"].items()
        for method in methods
        if not path.startswith(tuple(NOT_OF_A_SHOP))
    }
    said = node(SEND_ALL + code)
    assert {(method, path) for method, path, _ in said} == routes
    assert {kind for method, path, kind in said if path.startswith("/import/")} == {"application/x-ndjson"}
    assert {kind for method, _, kind in said if method in ("GET", "DELETE")} == {None}, "no preflight without need"


def test_a_callers_signal_ends_every_call() -> None:
    code = """
    const deaf = new IsrfClient("http://shop", { fetch: () => new Promise(() => {}), bulk: { deadlineMs: 60_000 } });
    const signal = AbortSignal.timeout(50);
    const gone = AbortSignal.abort();
    const patient = new IsrfClient("http://shop", { fetch: async () => new Response("{}", { status: 503 }),
      deadlineMs: 60_000, tries: 99 });
    said = await Promise.all([
      code(() => deaf.recommend("ann", { n: 5, signal })),
      code(() => deaf.recommendSession(["a"], { signal })),
      code(() => deaf.recommendMany(["a"], { signal })),
      code(() => deaf.interactions([event], { signal })),
      code(() => deaf.importItems([{ item_id: "a" }], { signal })),
      code(() => deaf.exportItems({ signal }).next()),
      code(() => deaf.erase("ann", { signal })),
      code(() => deaf.putItem("a", { price: 1 }, { signal: gone })),
      code(() => patient.popular({ signal })),
      code(() => all.popular({ signal: null })),
    ]);
    said.push(requests.map(([method, path]) => `${method} ${path}`));
    """
    *ended, unsignalled, requests = node(SEND_ALL + code)
    assert ended == ["client.aborted"] * 9
    assert (unsignalled, requests) == ("http.500", ["GET /popular"])


def test_many_users_are_asked_about_in_parts() -> None:
    code = """
    const parts = [];
    const answering = async (url, request) => {
      const { users, ...others } = JSON.parse(request.body);
      parts.push([users.length, others]);
      return Response.json({ answers: users.map((user_id) => ({ user_id, items: [] })) });
    };
    const many = new IsrfClient("http://shop", { fetch: answering });
    const users = Array.from({ length: 300 }, (_, k) => k);
    const found = await many.recommendMany(users, { explain: undefined });
    await many.recommendMany(users, { n: 200 });
    await many.recommendMany(users.slice(0, 12), { n: 200, explain: true });
    said = [found.length, found[299].user_id, parts];
    """
    count, last, parts = node(code)
    assert (count, last) == (300, "299")
    long, explained = {"n": 200}, {"n": 200, "explain": True}
    expected = [(256, {}), (44, {}), *[(64, long)] * 4, (44, long), *[(5, explained)] * 2, (2, explained)]
    assert [(size, options) for size, options in parts] == expected


def test_it_runs_in_the_machines_own_node() -> None:
    binary = shutil.which("node")
    if binary is None:
        pytest.skip("no Node beside Playwright's is installed here")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < 18:
        pytest.skip(f"Node {version.strip()} is older than 18, which the client needs")
    code = "said = [await code(() => all.popular()), prepare([event])[0].event_id.length];"
    assert node(SEND_ALL + code, binary=binary) == ["http.500", 32]


def test_an_id_needs_no_crypto() -> None:
    """Node 18 has no global `crypto`."""
    code = """
    Object.defineProperty(globalThis, "crypto", { value: undefined });
    const events = Array.from({ length: 5000 }, () => event);
    const ids = prepare(events).map((one) => one.event_id);
    said = [new Set(ids).size, ids.every((id) => /^[0-9a-f]{32}$/.test(id))];
    """
    assert node(SEND_ALL + code) == [5000, True]


BEACONS = """
const handed = [];
let takes = true;
Object.defineProperty(globalThis, "navigator", { configurable: true, value: {
  sendBeacon: (url, body) => { handed.push([url, JSON.parse(body)]); return takes; },
} });
const page = new IsrfClient("http://shop", { fetch, apiKey: "a+b" });
const session = "0123456789abcdef";
"""


def test_a_beacon_is_handed_to_the_browser() -> None:
    code = """
    const events = [{ item_id: 7, event: "view" }, { item_id: "b", event: "cart", event_id: "mine", extra: undefined }];
    said = [page.sendBeacon(session, events), [...handed], requests.length];
    takes = false;
    said.push(page.sendBeacon(session, events));
    """
    taken, ((url, body),), requests, refused = node(SEND_ALL + BEACONS + code)
    assert (taken, refused, requests) == (True, False, 0)
    assert url == "http://shop/beacon?key=a%2Bb"
    first, second = body.pop("events")
    assert body == {"session_id": "0123456789abcdef"}
    assert len(first.pop("event_id")) == 32
    assert first == {"item_id": "7", "event": "view"}
    assert second == {"item_id": "b", "event": "cart", "event_id": "mine"}


def test_many_events_are_several_beacons() -> None:
    code = """
    const many = (count, id) => Array.from({ length: count }, () => ({ item_id: id, event: "view" }));
    page.sendBeacon(session, many(250, "a"));
    page.sendBeacon(session, many(90, "ü".repeat(1000)));
    page.sendBeacon(session, []);
    const small = (body) => new TextEncoder().encode(JSON.stringify(body)).length < 65536;
    said = handed.map(([, body]) => [body.events.length, small(body)]);
    """
    sizes = node(SEND_ALL + BEACONS + code)
    assert [count for count, _ in sizes[:3]] == [100, 100, 50]
    assert sum(count for count, _ in sizes[3:]) == 90
    assert all(small for _, small in sizes)


def test_a_beacon_that_the_browser_refuses_keeps_none_back() -> None:
    code = """
    navigator.sendBeacon = (url, body) => { handed.push(body); return handed.length !== 2; };
    const taken = page.sendBeacon(session, Array.from({ length: 250 }, () => ({ item_id: "a", event: "view" })));
    said = [taken, handed.length];
    """
    assert node(SEND_ALL + BEACONS + code) == [False, 3]


def test_what_is_no_beacon_is_refused() -> None:
    code = """
    said = [];
    const look = { item_id: "a", event: "view" };
    for (const id of [undefined, "short", "x".repeat(65), "0123456789 abcdef", 7])
      said.push(await code(async () => page.sendBeacon(id, [look])));
    for (const wrong of [undefined, look, [null], [{ ...look, user_id: "ann" }], [{ ...look, at: NaN }]])
      said.push(await code(async () => page.sendBeacon(session, wrong)));
    said = [[...new Set(said)], handed.length];
    """
    assert node(SEND_ALL + BEACONS + code) == [["client.invalid_value"], 0]
