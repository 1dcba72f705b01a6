"""The commands: what they refuse, in one line with a code, and what they print."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isrf.contract.errors import DataError
from offline.__main__ import app
from offline.commands.publish import publish
from offline.config import build_config
from tests.shops import TINY, run_stages, write_shop

ITEMS = [{"item_id": f"i{row}", "title": f"Cup {row % 4}"} for row in range(12)]
EVENTS = [(f"u{user}", f"i{(user * 5 + step * 7) % 12}", 10 * step) for user in range(30) for step in range(6)]


def offline(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "offline", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shop` and `releases`, made by the command itself."""
    root = tmp_path_factory.mktemp("published")
    write_shop(root / "shop", EVENTS, ITEMS)
    settings = [part for setting in TINY for part in ("--set", setting)]
    done = offline("run", "--data", root / "shop", "--releases", root / "releases", *settings)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]) == (root / "releases" / "current").resolve()
    return root


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "--data", "nowhere", "--releases", "{tmp}/r"), "data.missing_folder"),
        (("run", "--data", ".", "--releases", "{tmp}/r", "--preset", "huge"), "config.preset"),
        (("run", "--data", ".", "--releases", "{tmp}/r", "--set", "train.speed=9"), "config.invalid"),
        (("run", "--data", ".", "--releases", "{tmp}/r", "--config", "nowhere.toml"), "config.file"),
        (("run", "--data", ".", "--releases", "{tmp}/r", "--llm-budget", "much"), "config.llm_budget"),
        (("evaluate", "--release", "{tmp}", "--data", "."), "bundle.no_release"),
        (("audit", "--data", ".", "--time-format", "foo"), "config.invalid"),
    ],
)
def test_what_cannot_work_ends_with_one_line_its_code_and_status_2(
    tmp_path: Path, arguments: tuple[str, ...], code: str
) -> None:
    done = offline(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 2
    assert f"[{code}]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    ["run", "ingest", "export", "embed", "graph", "semantic-ids", "train", "compile", "reason", "reason cost", "audit"],
)
def test_every_command_that_reads_the_shop_takes_the_option_that_its_refusal_names(
    tmp_path: Path, command: str
) -> None:
    shop = write_shop(tmp_path / "shop", EVENTS, [*ITEMS, {"item_id": "bad", "price": "12,50 \x1b[1m€"}])
    place = ("--data", shop) if command == "audit" else ("--data", shop, "--releases", tmp_path / "releases")
    refused = CliRunner().invoke(app, [*command.split(), *map(str, place)]).exception
    assert isinstance(refused, DataError)
    assert refused.code == "data.too_many_bad_rows"
    assert 'bad_price 1 (line 13: "12,50 \\u001b[1m€"; right: a number from 0 to 1e12' in refused.message
    assert refused.fix.endswith("leave them out with --max-bad-rows 0.077.")
    assert "--max-bad-rows" in CliRunner().invoke(app, [*command.split(), "--help"], terminal_width=200).output


def test_the_option_that_a_refusal_names_works(tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop", EVENTS, [*ITEMS, {"item_id": "bad", "price": "x"}])
    for command in ("ingest", "reason"):
        done = offline(command, "--data", shop, "--releases", tmp_path / command, "--max-bad-rows", "0.077")
        assert done.returncode == 0, done.stderr
        assert "items.jsonl: 1 rows were left out: bad_price 1 (line 13: " in done.stderr
    done = offline("audit", "--data", shop, "--max-bad-rows", "0.077")
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr.count("1 rows were left out") == 1


def test_evaluate_prints_its_protocol_and_writes_lists_without_seen_items(published: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists.jsonl"
    release = published / "releases" / "current"
    done = offline("evaluate", "--release", release, "--data", published / "shop", "--predictions", lists)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["protocol"] == "leave-one-out, full ranking, ties in file order, seen items excluded"
    seen = {user: {i for u, i, t in EVENTS if u == user and t < 50} for user, _, _ in EVENTS}
    written = [json.loads(line) for line in lists.read_text().splitlines()]
    assert {one["user_id"] for one in written} == set(seen)
    assert all(one["items"] and not seen[one["user_id"]] & set(one["items"]) for one in written)
    last = {user: item for user, item, time in EVENTS if time == 50}
    hits = sum(last[one["user_id"]] in one["items"][:10] for one in written)
    assert result["fused"]["HR@10"] == pytest.approx(hits / len(written), abs=1e-5)
    assert "direct recommendation" in done.stderr
    stored = json.loads((release / "manifest.json").read_text())["evaluation"]
    assert {name: result[name] for name in stored["test"]} == stored["test"], "measured again, the same comes out"


def test_evaluate_asks_all_users_under_the_other_protocols_on_request(tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop", EVENTS, ITEMS)
    config = build_config("demo", None, (*TINY, "evaluate.sampled_users=5"))
    release = publish(run_stages("export", shop, tmp_path / "releases", config)["export"], tmp_path / "releases")
    for options, count in (((), 5), (("--whole",), 30)):
        done = offline("evaluate", "--release", release, "--data", shop, "--split", "valid", *options)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["direct"]["users"] == count


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([*EVENTS, ("u0", "i9", 99)], "evaluate.other_data"),
        (EVENTS[::-1], None),  # other rows, same events and order in time
    ],
)
def test_evaluate_refuses_other_data_and_takes_the_same_in_another_row_order(
    published: Path, tmp_path: Path, events: list[tuple[str, str, int]], code: str | None
) -> None:
    shop = write_shop(tmp_path / "shop", events, ITEMS)
    done = offline("evaluate", "--release", published / "releases" / "current", "--data", shop)
    assert done.returncode == (2 if code else 0), done.stderr
    assert not code or f"[{code}]" in done.stderr


def test_data_whose_ties_stand_otherwise_is_refused(tmp_path: Path) -> None:
    tied = [(user, item, 0) for user, item, _ in EVENTS]
    shop = write_shop(tmp_path / "shop", tied, ITEMS)
    release = publish(run_stages("export", shop, tmp_path / "releases")["export"], tmp_path / "releases")
    other = write_shop(tmp_path / "other", tied[::-1], ITEMS)
    done = offline("evaluate", "--release", release, "--data", other)
    assert done.returncode == 2
    assert "[evaluate.other_order]" in done.stderr


def test_reason_show_prints_the_chain_over_an_item(published: Path) -> None:
    done = offline("reason", "show", "i3", "--release", published / "releases" / "current")
    assert done.returncode == 0, done.stderr
    assert "origin: attribute" in done.stdout


def test_forget_takes_a_user_out_of_everything_but_what_is_served(published: Path, tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop", EVENTS, ITEMS)
    run_stages("ingest", shop, tmp_path / "releases")
    done = offline("forget", "u3", "--data", shop, "--releases", tmp_path / "releases")
    assert done.returncode == 0, done.stderr
    assert "u3," not in (shop / "interactions.csv").read_text()
    again = offline("forget", "u3", "--data", shop, "--releases", tmp_path / "releases")
    assert again.returncode == 0
