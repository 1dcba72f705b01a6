"""What becomes of calls that a service refuses, fails on, or cannot answer now; against a server that does so."""

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.progress import Progress
from typer.testing import CliRunner

from isrf.contract.errors import IsrfError
from offline.__main__ import app
from offline.commands.recommend import calls
from offline.commands.recommend.calls import open_session, read_url
from offline.commands.recommend.list_client import MOST_ITEMS, MOST_USERS, ListClient, Pace, UserList
from offline.commands.recommend.private_service import PASSED, SETTINGS, answer_settings
from offline.commands.recommend.run import ListOptions, make_lists
from service.api.schemas.requests import MAX_N, UsersRequest
from service.auth import request_cost
from service.settings import Settings

USERS = [f"u{number}" for number in range(5)]
UNREAD = [{"code": "store_unavailable", "message": "User state could not be read."}]
Canned = tuple[int, dict[str, str], Any]
"""Status, headers, JSON of an answer."""


def problem(status: int, code: str, **headers: str) -> Canned:
    return status, headers, {"code": code, "detail": "so it is.", "fix": "Do that."}


class FailingService(ThreadingHTTPServer):
    """Answers each call for lists as `canned` says, in turn, then properly; fails on the users of `broken`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.canned: deque[Canned] = deque()
        self.releases = deque(["r-1"])
        self.broken: set[str] = set()
        self.readyz: Canned | None = None
        self.keys: list[str | None] = []
        self.unread: list[dict[str, str]] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def release(self) -> str:
        return self.releases.popleft() if len(self.releases) > 1 else self.releases[0]

    def answer(self, users: list[str]) -> Canned:
        if self.canned:
            return self.canned.popleft()
        if self.broken & {*users}:
            return problem(500, "internal")
        warnings, self.unread = self.unread, []
        item = {"item_id": "cup", "rank": 1, "score": None, "source": "popular"}
        one = {"items": [item], "meta": {"release_id": "r-1"}, "warnings": warnings}
        return 200, {}, {"answers": [{"user_id": user, **one} for user in users]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FailingService

    def do_GET(self) -> None:
        if self.server.readyz is not None:
            self._send(*self.server.readyz)
        else:
            self._send(200, {}, {"release_id": self.server.release(), "live_evidence": None})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers["X-API-Key"])
        self._send(*self.server.answer(body["users"]))

    def _send(self, status: int, headers: dict[str, str], body: Any) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingService]:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(calls, "PATIENCE_S", 0.1)
    with FailingService() as server:
        yield server
        server.shutdown()


@pytest.fixture
def options(service: FailingService, tmp_path: Path) -> ListOptions:
    users = tmp_path / "users.csv"
    users.write_text("\n".join(["user_id", *USERS]))
    return ListOptions(users=str(users), service=service.url, api_key="isrf_key", out=tmp_path / "lists.parquet")


def run(options: ListOptions) -> Any:
    with Progress(disable=True) as progress:
        return make_lists(options, progress)


def test_a_call_that_cannot_be_answered_now_is_sent_again(service: FailingService, options: ListOptions) -> None:
    service.canned += [problem(503, "overload.refused"), problem(429, "rate.limited", **{"Retry-After": "1"})]
    service.unread = UNREAD
    assert run(options).users == len(USERS)
    assert pl.read_parquet(options.out)["user_id"].to_list() == USERS
    assert service.keys == ["isrf_key"] * 4, "a list that was made without the user's state is made again"


def test_a_user_on_whom_the_service_fails_fails_alone(service: FailingService, options: ListOptions) -> None:
    service.broken = {"u1", "u4"}
    failures = options.out.with_name("lists.parquet.failed.csv")
    command = ["recommend", "--users", options.users, "--service", service.url, "--out", str(options.out)]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 1
    assert ended.stdout.strip() == str(options.out)
    assert "2 users have none, because the service failed on them: 500 internal: so it is. Do that." in ended.stderr
    assert pl.read_parquet(options.out)["user_id"].to_list() == ["u0", "u2", "u3"]
    service.broken = set()
    run(options._replace(users=str(failures), overwrite=True))
    assert pl.read_parquet(options.out)["user_id"].to_list() == ["u1", "u4"], "the file of failures names them"
    assert not failures.exists()


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ([problem(401, "key.unknown")], "recommend.refused", "401 key.unknown: so it is. Do that."),
        ([problem(422, "request.invalid")], "recommend.refused", "request.invalid"),
        ([(307, {"Location": "http://elsewhere.example"}, {})], "recommend.refused", "307"),
        ([(200, {}, "<html>")], "recommend.unreadable_answer", "no JSON"),
        ([(200, {}, {"items": []})], "recommend.unreadable_answer", "'answers'"),
        ([(200, {}, {"answers": []})], "recommend.unreadable_answer", "other users"),
        ([problem(503, "overload.refused")] * 50, "recommend.no_service", "503 overload.refused"),
    ],
)
def test_a_call_that_no_retry_helps_ends_the_run(
    service: FailingService, options: ListOptions, answers: list[Canned], code: str, said: str
) -> None:
    service.canned += answers
    with pytest.raises(IsrfError) as raised:
        run(options)
    assert raised.value.code == code
    assert said in raised.value.message
    assert not options.out.exists()


@pytest.mark.parametrize(
    ("readyz", "code", "said"),
    [
        (problem(500, "internal"), "recommend.no_service", "500 internal"),
        ((200, {}, ["r-1"]), "recommend.unreadable_answer", "names no release"),
        ((200, {}, {"status": "UP"}), "recommend.unreadable_answer", "names no release"),
        ((200, {}, {"release_id": "r-1", "live_evidence": True}), "recommend.unreadable_answer", "names no release"),
    ],
)
def test_an_address_that_says_no_release_is_refused(
    service: FailingService, options: ListOptions, readyz: Canned, code: str, said: str
) -> None:
    service.readyz = readyz
    with pytest.raises(IsrfError) as raised:
        run(options)
    assert raised.value.code == code
    assert said in raised.value.message


def test_patience_begins_with_the_first_failure_not_while_waiting_for_room(
    service: FailingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    proper, asked = service.answer, 0

    def slow_then_busy(users: list[str]) -> Canned:
        nonlocal asked
        asked += 1
        if asked == 1:
            time.sleep(3 * calls.PATIENCE_S)
        return problem(503, "overload.refused") if asked == 2 else proper(users)

    monkeypatch.setattr(service, "answer", slow_then_busy)

    async def ask() -> list[list[UserList]]:
        async with open_session(None) as session:
            pace = Pace(batch_users=1, requests_at_once=1)
            client = ListClient(session, read_url(service.url), placement=None, n=None, pace=pace)
            return list(await asyncio.gather(client.lists(["u0"]), client.lists(["u1"])))

    assert [[one.user_id for one in made] for made in asyncio.run(ask())] == [["u0"], ["u1"]]
    assert asked == 3


def test_a_limit_that_never_ends_ends_the_run(
    service: FailingService, options: ListOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "LIMITED_PATIENCE_S", 0.05)
    service.canned += [problem(429, "rate.limited")] * 50
    with pytest.raises(IsrfError, match=r"429 rate\.limited") as raised:
        run(options)
    assert raised.value.code == "recommend.no_service"


def test_lists_made_without_the_users_state_are_never_written(
    service: FailingService, options: ListOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    proper = service.answer

    def without_store(users: list[str]) -> Canned:
        service.unread = UNREAD
        return proper(users)

    monkeypatch.setattr(service, "answer", without_store)
    with pytest.raises(IsrfError) as raised:
        run(options)
    assert raised.value.code == "recommend.no_state"
    assert not options.out.exists()


def test_a_file_holds_the_lists_of_one_release(service: FailingService, options: ListOptions) -> None:
    service.releases = deque(["r-1", "r-2"])
    with pytest.raises(IsrfError) as raised:
        run(options)
    assert raised.value.code == "recommend.release_changed"


def test_a_private_services_settings_exist() -> None:
    """A setting of a new name that changes answers belongs among those that are passed on."""
    known = {f"ISRF_{name}".upper() for name in Settings.model_fields} | {"ISRF_ERASURE_KEY_FILE"}
    assert PASSED | SETTINGS.keys() <= known
    assert not PASSED & SETTINGS.keys()


def test_settings_that_change_answers_belong_to_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSED:
        monkeypatch.delenv(name, raising=False)
    assert answer_settings() is None
    for name, value in {"ISRF_VARIANT": "int8", "ISRF_INFERENCE_THREADS": "2", "ISRF_ERASURE_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    assert answer_settings() == "ISRF_VARIANT=int8"


def test_a_request_asks_for_no_more_than_the_service_allows() -> None:
    limits = UsersRequest.model_fields["users"].metadata
    assert MOST_USERS in [getattr(limit, "max_length", None) for limit in limits]
    assert request_cost.MOST_ITEMS == MOST_ITEMS
    refused = CliRunner().invoke(app, ["recommend", "--users", "all", "--out", "a.csv", "--n", str(MAX_N + 1)])
    assert refused.exit_code == 2
    assert f"{MAX_N}" in refused.stderr
