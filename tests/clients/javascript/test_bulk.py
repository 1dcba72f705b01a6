"""The JavaScript client's imports and exports of any size: a `fetch` of the test's, and servers of raw sockets."""

import json
import socket
import threading
from contextlib import ExitStack
from typing import Any

from tests.clients.javascript.node import node
from tests.clients.raw_servers import OK, answer_of, dripping, saying, server

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
QUICK = {"bulk": {"timeoutMs": 400, "deadlineMs": 800, "tries": 2}}
PATIENT = {"bulk": {"timeoutMs": 20_000, "deadlineMs": 30_000, "tries": 2}}
SERVICE = """
const sent = [];
let answers = [];
const report = (accepted, refused = []) => ({
  lines: accepted + refused.length, accepted, duplicates: 0, refused: refused.length,
  reasons: refused.reduce((found, [, reason]) => ({ ...found, [reason]: (found[reason] ?? 0) + 1 }), {}),
  problems: refused.map(([line, reason]) => ({ line, reason, detail: "so" })),
  problems_left_out: 0, warnings: [{ code: "misnamed_field", message: "so" }], meta: { request_id: "r" },
});
const faked = async (url, request) => {
  const lines = request.body.trimEnd().split("\\n").map(JSON.parse);
  sent.push(lines);
  const answer = (answers.shift() ?? (() => report(lines.length)))();
  return typeof answer === "number" ? new Response("{}", { status: answer }) : Response.json(answer);
};
const shop = new IsrfClient("http://shop", { fetch: faked, ...data.options });
function* items(count) { for (let k = 0; k < count; k++) yield { item_id: k, price: null, title: undefined }; }
const lost = () => { throw new TypeError("lost"); };
"""


def fake(code: str, **data: Any) -> Any:
    """What the code says of a client whose service is `faked`."""
    return node(SERVICE + code, **data)


def test_records_are_read_and_sent_in_parts() -> None:
    code = """
    let read = 0;
    const reads = [];
    async function* slow() { for (const one of items(2500)) { read++; yield one; } }
    answers = [0, 0, 0].map(() => () => { reads.push(read); return report(sent.at(-1).length); });
    const done = await shop.importItems(slow());
    const own = { item_id: "a", context: "red", session: 1, history: [{ item_id: 7 }], session_id: null };
    said = [done, reads, sent[0][7], (await shop.importItems([])).lines, sent.length, own];
    await shop.importUsers([own]);
    said.push(sent[3][0]);
    """
    done, reads, item, none, requests, own, as_sent = fake(code)
    assert as_sent == own, "names of the shop's own"
    assert (done["lines"], done["accepted"], done["refused"], len(done["warnings"])) == (2500, 2500, 0, 1)
    assert reads == [1000, 2000, 2500]
    assert item == {"item_id": "7", "price": None}
    assert (none, requests) == (0, 3)


def test_events_keep_their_ids_over_tries_and_in_the_error() -> None:
    code = """
    const events = Array.from({ length: 2500 }, (_, k) => ({ user_id: "ann", item_id: k, timestamp: new Date(1500) }));
    answers = [lost, () => 503, () => report(1000), () => 500];
    const error = await shop.importEvents(events).catch((caught) => caught);
    const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
    const kept = same(sent[0], sent[1]) && same(sent[1], sent[2]);
    said = [error.code, error.report.lines, kept, same(error.records, sent[3])];
    const rest = [...error.records, ...events.slice(error.report.lines + error.records.length)];
    said.push((await shop.importEvents(rest)).accepted, same(sent[4], sent[3]), sent[0][0].timestamp, error.message);
    """
    *facts, message = fake(code)
    assert facts == ["http.500", 1000, True, True, 1500, True, 1.5]
    assert "1000 records were imported" in message


def test_refused_records_are_named_by_their_place_in_the_call() -> None:
    code = """
    answers = [() => report(998, [[3, "unknown_item"], [9, "malformed"]]), () => report(1, [[2, "unknown_item"]])];
    said = await shop.importItems(items(1002));
    """
    done = fake(code)
    assert [(one["line"], one["reason"]) for one in done["problems"]] == [
        (3, "unknown_item"),
        (9, "malformed"),
        (1002, "unknown_item"),
    ]
    assert (done["accepted"], done["refused"], done["reasons"]) == (999, 3, {"unknown_item": 2, "malformed": 1})


def test_what_the_store_could_not_accept_is_sent_again() -> None:
    code = """
    const busy = "store_unavailable";
    answers = [() => report(2, [[2, busy], [4, "unknown_item"], [5, busy]]), () => report(1, [[1, busy]])];
    const done = await shop.importItems(items(5));
    said = [sent.map((part) => part.map((one) => one.item_id)), done];
    """
    sent, done = fake(code)
    assert sent == [list("01234"), ["1", "4"], ["1"]]
    assert (done["lines"], done["accepted"], done["refused"], done["reasons"]) == (5, 4, 1, {"unknown_item": 1})
    assert done["problems"] == [{"line": 4, "reason": "unknown_item", "detail": "so"}]


def test_what_is_no_record_is_refused_before_it_is_sent() -> None:
    code = """
    said = [];
    for (const wrong of [undefined, null, "abc", 7, {}, ["a"], [null], [{ price: NaN }], [{ price: 1n }]])
      for (const name of ["importItems", "importUsers", "importEvents"]) said.push(await code(() => shop[name](wrong)));
    const error = await shop.importItems([...items(1002), { item_id: 7.5 }]).catch((caught) => caught);
    said = [[...new Set(said)], error.code, error.report.lines, error.records.map((one) => one.item_id), sent.length];
    """
    assert fake(code) == [["client.invalid_value"], "client.invalid_id", 1000, ["1000", "1001"], 1]


def test_a_strange_report_is_none() -> None:
    code = """
    said = [];
    for (const change of [{ lines: 2 }, { accepted: "1" }, { problems: [7] }, { problems: [{ line: 9, reason: "x" }] },
      { reasons: [] }, { warnings: null }]) {
      answers = [() => ({ ...report(1), ...change })];
      said.push(await code(() => shop.importItems([{ item_id: 1 }])));
    }
    """
    assert fake(code) == ["client.unreadable"] * 6


def test_all_parts_share_one_deadline() -> None:
    code = """
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    const slow = async (url, request) => { await wait(300); return faked(url, request); };
    const late = new IsrfClient("http://shop", { fetch: slow, ...data.options });
    const error = await late.importItems(items(90_000)).catch((caught) => caught);
    said = [error.code, error.report.lines > 0 && error.report.lines < 90_000];
    """
    assert fake(code, options={"bulk": {"timeoutMs": 500, "deadlineMs": 1500}}) == ["client.timeout", True]


def chunks(*pieces: bytes, end: bool = True) -> bytes:
    return CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces) + (b"0\r\n\r\n" if end else b"")


EXPORT = """
const lines = [];
const error = await (async () => { for await (const line of isrf.exportItems()) lines.push(line); })().catch((e) => e);
said = [lines, error?.code, error?.message];
"""


def test_lines_come_as_they_arrive() -> None:
    pieces = [b'{"a": 1}\n{"a"', b': "\xc3', b'\xbc"}\n\n{}', b"\n"]
    with server(saying(chunks(*pieces))) as (url, requests):
        assert node(EXPORT, url, options=PATIENT) == [[{"a": 1}, {"a": "ü"}, {}], None, None]
    assert requests[0].startswith(b"GET /export/items ")


EXPORTS = """
said = await Promise.all(data.urls.map(async (url) => {
  const began = performance.now();
  const one = new IsrfClient(url, data.options);
  const error = await (async () => { for await (const line of one.exportItems()); })().catch((caught) => caught);
  return [error?.code, error?.message, performance.now() - began];
}));
"""


def exported(talks: list[Any], **options: Any) -> tuple[list[Any], list[int]]:
    """Code, message and milliseconds of an export from each server, and the requests of each."""
    with ExitStack() as stack:
        servers = [stack.enter_context(server(talk)) for talk in talks]
        said = node(EXPORTS, urls=[url for url, _ in servers], options=options)
        return said, [len(requests) for _, requests in servers]


def test_an_export_that_drips_ends_at_the_deadline() -> None:
    bytewise = dripping(CHUNKED, b"1\r\n \r\n", every_s=0.2)
    silent = dripping(chunks(b'{"a": 1}\n', end=False), b"", every_s=0.2)
    for said, _, took_ms in exported([bytewise, silent, dripping(b"H", b"", every_s=0.2)], **QUICK)[0]:
        assert said == "client.timeout"
        assert took_ms < 4000


CUT = {
    chunks(b'{"a": 1}\n', end=False): "client.unreachable",
    chunks(b'{"a": 1}\n{"a": '): "client.unreadable",
    chunks(b'{"a": 1}\nno\n'): "client.unreadable",
    chunks(b'{"a": 1}\n[]\n'): "client.unreadable",
    chunks(b'{"a": 1}\n\xff\n'): "client.unreadable",
    chunks(b'{"a": 1}\n\xc3'): "client.unreadable",
}


def test_a_cut_export_is_never_taken_for_a_whole_one() -> None:
    found, requests = exported([saying(answer) for answer in CUT], **PATIENT)
    assert [code for code, _, _ in found] == [*CUT.values()]
    assert all("The export was cut after" in message for _, message, _ in found)
    assert requests == [1] * len(CUT), "what has begun is not asked for again"


def test_an_export_is_asked_for_again_until_it_begins() -> None:
    answers = iter([answer_of(b"", "503 Busy"), chunks(b'{"a": 1}\n')])
    with server(lambda client, _: client.sendall(next(answers))) as (url, requests):
        assert node(EXPORT, url, options=PATIENT)[0] == [{"a": 1}]
    assert len(requests) == 2
    problem = json.dumps({"code": "key.insufficient", "detail": "no", "fix": "do"}).encode()
    with server(saying(answer_of(problem, "403 Forbidden"))) as (url, _):
        assert node(EXPORT, url, options=PATIENT) == [[], "key.insufficient", "no"]


def test_a_caller_who_leaves_early_ends_the_export() -> None:
    ended = threading.Event()

    def endless(client: socket.socket, _: bytes) -> None:
        client.sendall(CHUNKED)
        try:
            while True:
                client.sendall(b"a\r\n" + b'{"a": 10}\n' + b"\r\n")
        except OSError:
            ended.set()
            raise

    code = """
    said = [];
    for await (const line of isrf.exportEvents()) { said.push(line); if (said.length === 3) break; }
    await new Promise((done) => setTimeout(done, 300));
    """
    with server(endless) as (url, _):
        assert node(code, url, options=PATIENT) == [{"a": 10}] * 3
        assert ended.wait(10.0)
