"""`python -m offline recommend`: its rows are the service's answers, and a run that is cut short goes on."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import polars as pl
import pytest
from rich.progress import Progress

from isrf.contract.errors import IsrfError
from offline.commands.recommend import parts as parts_module
from offline.commands.recommend import run as run_module
from offline.commands.recommend.list_client import ListClient, UserList
from offline.commands.recommend.parts import ListParts, PartReport
from offline.commands.recommend.private_service import PrivateService
from offline.commands.recommend.run import ListOptions, Stopped, make_lists
from tests.service.servers import ServiceProcess, event, wait_until

pytestmark = pytest.mark.slow

PLACEMENTS = """
[mail]
kind = "new"
length = 3
fallbacks = ["popular"]
"""

EPOCH = {"ISRF_CROWD_EPOCH_S": "1"}
"""So soon a user who was active is a similar user, in both services."""


def lists(**options: Any) -> PartReport:
    with Progress(disable=True) as progress:
        return make_lists(ListOptions(**options), progress)


def refusal(**options: Any) -> IsrfError:
    with pytest.raises(IsrfError) as raised:
        lists(**options)
    return raised.value


@pytest.fixture(scope="module")
def user_ids(tiny_release: Path) -> list[str]:
    found: list[str] = pl.read_parquet(tiny_release / "current" / "users.parquet")["user_id"].to_list()
    return found


@pytest.fixture(scope="module")
def placements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("placements") / "placements.toml"
    path.write_text(PLACEMENTS)
    return path


@pytest.fixture(scope="module")
def service(
    tiny_release: Path, placements: Path, user_ids: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """A service that has learned since the release: a purchase, a new user, a visitor; one user is erased."""
    process = ServiceProcess(
        tiny_release, tmp_path_factory.mktemp("service"), ISRF_PLACEMENTS_FILE=str(placements), **EPOCH
    ).start()
    with httpx.Client(base_url=process.url, timeout=60) as client:
        first = client.get(f"/recommend/{user_ids[0]}").json()["items"][0]["item_id"]
        posted = [event(first) | {"user_id": user_id} for user_id in (user_ids[0], "new/shopper ü")]
        posted.append({"session_id": "visit-of-nobody-1", "item_id": first})
        assert client.post("/interactions", json={"events": posted}).json()["accepted"] == 3
        assert client.delete(f"/users/{user_ids[1]}").is_success
    yield process
    process.kill()


def answered(service: ServiceProcess, path: str, users: list[str], **params: str) -> dict[str, list[tuple[Any, ...]]]:
    """What the service answers to each user in a call of their own."""
    found = {}
    with httpx.Client(base_url=service.url, timeout=60) as client:
        for user in users:
            answer = client.get(path.format(user=quote(user, safe="")), params=params or None)
            assert answer.status_code == 200, answer.text
            found[user] = [(one["rank"], one["item_id"], one["source"]) for one in answer.json()["items"]]
    return found


def rows_by_user(rows: pl.DataFrame) -> dict[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows.iter_rows(named=True):
        found.setdefault(row["user_id"], []).append((row["rank"], row["item_id"], row["source"]))
    return found


def test_rows_are_the_answers_of_the_service_whose_state_is_copied_while_it_runs(
    service: ServiceProcess, tiny_release: Path, user_ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*next(iter(EPOCH.items())))
    # Neither is for the private service: the second would keep it from starting.
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("ISRF_DEMO", "true")
    out = tmp_path / "lists.parquet"
    report = lists(users="all", releases=tiny_release, state_dir=service.folder / "state", n=4, out=out)
    expected = [*(user for user in user_ids if user != user_ids[1]), "new/shopper ü"]
    rows = pl.read_parquet(out)
    assert rows.schema == parts_module.COLUMNS
    made = rows_by_user(rows)
    wait_until(lambda: answered(service, "/recommend/{user}", expected, n="4") == made, what="the next epoch")
    assert rows["user_id"].unique(maintain_order=True).to_list() == expected, "in the release's order"
    assert (report.users, report.left_out) == (len(expected), 1), "the erased user is in no row"
    about = json.loads(pl.read_parquet_metadata(out)["isrf"])
    assert rows["release_id"].unique().to_list() == [about["release_id"]]
    assert list(tmp_path.iterdir()) == [out], "nothing else is left"


def test_a_running_service_makes_a_placements_lists_for_the_users_of_a_file(
    service: ServiceProcess, user_ids: list[str], tmp_path: Path
) -> None:
    users, out = tmp_path / "users.txt", tmp_path / "mail.jsonl.gz"
    users.write_text("\n".join([*user_ids[2:12], "stranger"]))
    report = lists(users=str(users), service=service.url, placement="mail", out=out)
    lines = [json.loads(line) for line in gzip.decompress(out.read_bytes()).splitlines()]
    expected = {
        user: answered(service, "/placements/mail/items", [user], user_id=user)[user] for user in user_ids[2:12]
    }
    assert rows_by_user(pl.DataFrame(lines).filter(pl.col("user_id") != "stranger")) == expected
    assert report.warnings["unknown_user"].users == 1
    assert sum(line["user_id"] == "stranger" for line in lines) == 3, "whom the shop names gets what the service says"
    assert report.placement_versions == (0,)
    assert refusal(users=str(users), service=service.url, placement="mall", out=tmp_path / "x.csv").code == (
        "recommend.refused"
    )
    assert not (tmp_path / "x.csv.parts").exists(), "a run without a list leaves nothing"


def test_a_run_whose_service_dies_goes_on_where_it_stopped(
    tiny_release: Path, placements: Path, user_ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "PART_USERS", 50)
    monkeypatch.setattr(run_module, "PART_USERS", 50)
    asked: list[str] = []
    add, ask, started = ListParts.add, ListClient.lists, PrivateService.wait_until_it_listens
    services: list[PrivateService] = []

    async def counted(self: ListClient, users: list[str]) -> list[UserList]:
        asked.extend(users)
        return await ask(self, users)

    async def noted(self: PrivateService) -> None:
        services.append(self)
        await started(self)

    def killed_after(self: ListParts, made: list[UserList], *, keep_unknown: bool) -> None:
        add(self, made, keep_unknown=keep_unknown)
        services[-1].end()

    monkeypatch.setattr(ListClient, "lists", counted)
    monkeypatch.setattr(PrivateService, "wait_until_it_listens", noted)
    out = tmp_path / "lists.csv"
    options: dict[str, Any] = {"users": "all", "releases": tiny_release, "placements": placements, "out": out}
    with monkeypatch.context() as patch:
        patch.setattr(ListParts, "add", killed_after)
        ended = refusal(**options)
    assert ended.code == "recommend.service_ended"
    assert not out.exists()
    assert not (tmp_path / "lists.csv.parts" / "service").exists(), "the service's state is the run's own"
    other = refusal(**options, n=5)
    assert other.code == "recommend.other_options"
    assert "n was none and is 5" in other.message
    asked.clear()
    report = lists(**options)
    assert asked == user_ids[50:], "the first part is not made again"
    assert report.users == len(user_ids)
    rows = pl.read_csv(out)
    assert rows["user_id"].unique(maintain_order=True).to_list() == user_ids
    assert rows["rank"].to_list() == [*range(1, 11)] * len(user_ids)
    assert refusal(**options).code == "config.out_exists"


def offline(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "offline", "recommend", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_service_ends_with_a_command_that_is_killed(tiny_release: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists.csv"
    log = tmp_path / "lists.csv.parts" / "service" / "log"
    command = [sys.executable, "-m", "offline", "recommend", "--users", "all", "--releases", str(tiny_release)]
    killed = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: log.exists() and "Started server process" in log.read_text(), what="the start")
        (service,) = children(killed.pid)
    finally:
        killed.kill()
        killed.wait()
    wait_until(lambda: not Path(f"/proc/{service}").exists(), what="the end of the service")


def test_a_run_that_is_told_to_end_goes_on_later(
    service: ServiceProcess, tiny_release: Path, user_ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "PART_USERS", 50)
    monkeypatch.setattr(run_module, "PART_USERS", 50)
    add, out = ListParts.add, tmp_path / "lists.csv.gz"
    options: dict[str, Any] = {"users": "all", "service": service.url, "releases": tiny_release, "out": out, "n": 2}

    def told(self: ListParts, made: list[UserList], *, keep_unknown: bool) -> None:
        add(self, made, keep_unknown=keep_unknown)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(ListParts, "add", told)
        with pytest.raises(Stopped, match=f"50 of {len(user_ids) + 1} users are done"):
            lists(**options)
    assert lists(**options).users == len(user_ids)
    rows = rows_by_user(pl.read_csv(out))
    assert rows == answered(service, "/recommend/{user}", list(rows), n="2")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"out": "lists.xlsx", "releases": "."}, "config.out"),
        ({"out": "nowhere/lists.csv", "releases": "."}, "config.out"),
        ({}, "config.recommend"),
        ({"service": "http://127.0.0.1:1"}, "config.recommend"),
        ({"service": "http://127.0.0.1:1", "users": "none.txt"}, "data.missing_file"),
        ({"service": "127.0.0.1:1", "users": "users.txt"}, "config.service_url"),
        ({"service": "http://ann:secret@127.0.0.1:1", "users": "users.txt"}, "config.service_url"),
        ({"releases": ".", "placement": "home"}, "config.recommend"),
        ({"releases": ".", "column": "user"}, "config.recommend"),
        ({"releases": "."}, "bundle.no_release"),
        ({"releases": "{tiny}", "state_dir": "."}, "data.no_store"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    options: dict[str, str], code: str, tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("users.txt").write_text("ann\n")
    given: dict[str, Any] = {"users": "all", "out": "lists.csv"} | options
    for name in ("out", "releases", "state_dir"):
        if name in given:
            given[name] = Path(given[name].format(tiny=tiny_release))
    error = refusal(**given)
    assert error.code == code
    assert error.fix
    assert "secret" not in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["users.txt"]


def test_a_service_that_cannot_start_says_why(tiny_release: Path, tmp_path: Path) -> None:
    broken = tmp_path / "placements.toml"
    broken.write_text("[home]\nkind = 'best'\n")
    error = refusal(users="all", releases=tiny_release, placements=broken, out=tmp_path / "lists.csv")
    assert error.code == "recommend.service_ended"
    assert "placements.toml" in error.message


def test_a_second_run_does_not_disturb_the_first(tiny_release: Path, tmp_path: Path) -> None:
    with parts_module.lock_parts(tmp_path / "lists.csv"):
        assert refusal(users="all", releases=tiny_release, out=tmp_path / "lists.csv").code == "recommend.locked"


def test_an_address_where_nobody_answers_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offline.commands.recommend.calls.PATIENCE_S", 0.2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        (tmp_path / "users.txt").write_text("ann\n")
        error = refusal(
            users=str(tmp_path / "users.txt"),
            service=f"http://127.0.0.1:{taken.getsockname()[1]}",
            out=tmp_path / "lists.csv",
        )
    assert error.code == "recommend.no_service"
