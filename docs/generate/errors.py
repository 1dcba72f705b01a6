"""docs/reference/errors.md: every error code, its HTTP status, what it says and what to do."""

from collections.abc import Iterable

from docs.generate.error_codes import PACKAGES, Raised, errors, reasons, warnings
from docs.generate.markdown import code, page, prose, table
from isrf.contract import errors as classes
from service.api.problems import INTERNAL, STATUS_OF_CLASS, STATUS_OF_CODE

GROUPS = {
    "request": "The request cannot be answered as asked.",
    "http": "HTTP itself.",
    "key": "API keys.",
    "rate": "The key has called as often as it may.",
    "access": "Pages in a browser: which may call in development mode, without API keys, and which may send beacons.",
    "beacon": "Events from the browser.",
    "webhook": "Orders from shop systems.",
    "overload": "The service refuses what it cannot answer in time. Wait as long as `Retry-After` says.",
    "recommendation": "A later page of an earlier answer's list.",
    "condition": "A condition on items.",
    "item": "Items that are added or changed.",
    "placement": "Placements.",
    "store": "User state: Redis or the embedded store. At the start the service ends with status 3.",
    "internal": "A fault of the service.",
    "bundle": "The release cannot be served. At the start the service ends with status 3; while it runs, it goes on "
    "with the release that it serves, and `POST /admin/reload` is answered 409.",
    "config": "A setting cannot work. A command ends with status 2, before any work is done.",
    "data": "The shop's files.",
    "import": "`python -m offline import`.",
    "stage": "A run of the offline job.",
    "engine": "The machines that the offline job runs on (`--engine ray`).",
    "reason": "Reasoning with an LLM.",
    "embed": "Vectors of texts.",
    "graph": "The graphs.",
    "semantic_ids": "Semantic IDs.",
    "train": "Training.",
    "evaluate": "Evaluation.",
    "replay": "The replay of a period.",
    "audit": "`python -m offline audit`.",
    "publish": "Publishing a release.",
    "loop_back": "`python -m offline ingest --from-redis`.",
    "recommend": "`python -m offline recommend`.",
    "io": "Files.",
}
"""Groups of codes by what stands before the dot, in the page's order."""
ELSEWHERE = (
    Raised("internal", "", INTERNAL, "Look for the request_id in the log, and report it.", "service/", 500),
    Raised("http.malformed", "", "The request is no HTTP/1.1.", "Send it as HTTP/1.1 has it.", "service/", 400),
    Raised(
        "request.invalid",
        "RequestError",
        "*where*: *what is wrong*. `errors` has each invalid field.",
        "Correct the fields that `errors` names.",
        "service/",
    ),
    Raised(
        "overload.too_many_at_once",
        "OverloadError",
        "This caller has *number* requests, unfinished bodies or imports under way, as many as one may have at a time.",
        "Wait for their answers, then send the request again.",
        "service/",
    ),
    Raised(
        "store.erasure_key",
        "StoreError",
        "What [`config.erasure_key`](#config.erasure_key) says, of a store that is in use.",
        "See there.",
        "service/",
    ),
    Raised("io", "", "*what the system says*: *path*.", "See to the path and run the same command again.", "offline/"),
)
"""Codes whose sentence is made where no code stands beside it."""
_WRONG = {"ConfigError", "DataError", "StageError"}
"""End a command, and answer no request."""


def codes() -> list[Raised]:
    """Every place, without those that `ELSEWHERE` describes better."""
    known = {one.code for one in ELSEWHERE if one.code != "request.invalid"}
    return [one for one in errors() if one.code not in known] + list(ELSEWHERE)


def status(found: Iterable[Raised]) -> str:
    """The HTTP status of a code; "" where no request is answered with it."""
    for one in found:
        if one.status:
            return str(one.status)
        if one.module.startswith("offline/") or one.kind in _WRONG:
            continue
        if one.code in STATUS_OF_CODE:
            return str(STATUS_OF_CODE[one.code])
        kind = getattr(classes, one.kind)
        return str(next(answer for known, answer in STATUS_OF_CLASS if issubclass(kind, known)))
    return ""


def errors_page() -> str:
    found = codes()
    parts = []
    for group, sentence in GROUPS.items():
        own = sorted({one.code for one in found if one.code.partition(".")[0] == group})
        rows = [row for name in own for row in _rows(name, [one for one in found if one.code == name])]
        head = ["Code", "HTTP", "It says", "What to do"]
        if not any(row[1] for row in rows):
            head, rows = head[:1] + head[2:], [row[:1] + row[2:] for row in rows]
        parts += [f"## {group}", prose(sentence), table(head, rows)]
    return page(
        "Errors",
        prose(
            "Codes are stable: match on them, not on the sentences. The service answers errors as "
            "`application/problem+json` with `code`, `status`, `detail`, `fix` and `request_id`. A command prints one "
            "line with the code. What an error fills in stands in italics here. A code without an HTTP status ends a "
            "command or stands in the log."
        ),
        *parts,
        "## Reasons of one event or line",
        prose(
            "`POST /interactions` and the imports judge each event or line by itself: `status` is `refused` and "
            "`reason` is one of these. The others are taken in."
        ),
        _simple(("Reason", "It says"), reasons()),
        "## Warnings",
        prose("An answer's `warnings` say what the caller should know of it, each with a stable `code`."),
        _simple(("Code", "It says"), warnings()),
    )


def _rows(name: str, found: list[Raised]) -> list[list[str]]:
    said = dict.fromkeys((one.message, one.fix) for one in found)
    first = [f'<a id="{name}"></a>{code(name)}', status(found)]
    return [
        [*(first if not place else ["", ""]), message, "What `fix` says." if fix == "*fix*" else fix]
        for place, (message, fix) in enumerate(said)
    ]


def _simple(head: tuple[str, str], found: Iterable[Raised]) -> str:
    said = sorted({(one.code, one.message) for one in found if one.code and one.message})
    return table(head, ([code(name), message] for name, message in said))


def unknown() -> list[str]:
    """Codes that no group has, and places that say nothing."""
    found = codes()
    assert {one.module.partition("/")[0] for one in found} == set(PACKAGES)
    return [one.code for one in found if one.code.partition(".")[0] not in GROUPS] + [
        f"{one.module}: {one.code}" for one in found if not one.message
    ]
