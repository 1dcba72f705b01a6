"""Visitors without an account teach what users teach, and are no users."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient
from rich.progress import Progress

from isrf.contract.errors import DataError
from isrf.method.evidence import SparseLists
from offline.commands.audit.run import audit
from offline.commands.publish import publish
from offline.commands.replay.cut import cut
from offline.commands.replay.player import Player, ranks
from offline.commands.replay.shop import open_shop
from offline.config import build_config
from offline.runtime.evidence import TimedEvents, count_events
from offline.stages.evaluate.split import load_owners, load_split
from offline.stages.train.samples import read_sequences
from service.app import create_app
from service.settings import Settings
from tests.offline.stages.ingest.ingest_command import Files, ingest, report_of, write
from tests.shops import TINY, run_stages

HEADER = "user_id,item_id,timestamp,session_id"
CATALOGUE = "item_id,title\na,A\nb,B\nc,C\nd,D\n"
ROWS = ("u,a,1,", "u,b,2,", "u,c,3,", "u,d,4,", "v,a,5,", "v,b,6,u")
GUESTS = (",c,1,u", ",d,2,u", ",a,1,s 2", ",b,2,s 2", ",c,3,s 2", ",d,4,s 2", ",d,9,v")
CONFIG = build_config("demo", None, TINY)


def small_shop(folder: Path, *rows: str) -> Path:
    files: Files = {"interactions.csv": "\n".join((HEADER, *rows)) + "\n", "items.csv": CATALOGUE}
    return write(folder, files)


def items_by_owner(out: Path) -> dict[int, list[str]]:
    items = pl.read_parquet(out / "items.parquet")["item_id"]
    found: dict[int, list[str]] = {}
    for owner, item in pl.read_parquet(out / "train.parquet").select("user_index", "item_index").iter_rows():
        found.setdefault(owner, []).append(items[item])
    return found


def test_a_session_is_numbered_after_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ingest(small_shop(tmp_path / "shop", *ROWS, *GUESTS), tmp_path / "r")
    assert sorted(pl.read_parquet(out / "users.parquet")["user_id"]) == ["u", "v"]
    taken = items_by_owner(out)
    assert sorted(taken[owner] for owner in (0, 1)) == [["a", "b"], ["a", "b"]]
    assert sorted(taken[owner] for owner in taken if owner > 1) == [["a", "b"], ["c", "d"], ["d"]]
    items = pl.read_parquet(out / "items.parquet")["item_id"]
    held_out = pl.read_parquet(out / "heldout.parquet").filter(pl.col("user_index") > 1)
    assert [(items[item], part) for item, part in held_out.select("item_index", "split").iter_rows()] == [
        ("c", "valid"),
        ("d", "test"),
    ]
    report = report_of(out)
    assert (report["counts"]["users"], report["counts"]["sessions"]) == (2, 3)
    assert report["sessions"] == {"interactions": 7, "train": 5, "valid": 1, "test": 1}


def test_a_session_without_an_id_that_can_be_read_is_a_bad_row(tmp_path: Path) -> None:
    long = "x" * 513
    data = small_shop(tmp_path / "shop", *ROWS, *GUESTS, f",a,3,{long}", ",a,3,", ",a,3,tab\x01")
    with pytest.raises(DataError, match="bad_session_id 2") as caught:
        ingest(data, tmp_path / "r")
    assert "xxx" not in caught.value.message
    bad = report_of(ingest(data, tmp_path / "r", "--max-bad-rows 0.5"))["bad_rows"]["interactions.csv"]
    assert {kind: one["rows"] for kind, one in bad.items()} == {"bad_session_id": 2, "missing_user_id": 1}
    assert bad["bad_session_id"]["values"] == ["513 bytes", "4 bytes"]


def test_a_dislike_of_a_session_is_nobody_s(tmp_path: Path) -> None:
    rows = [f"{row}," for row in (*ROWS, *GUESTS)] + [",c,3,u,dislike", ",a,3,w,dislike", "u,b,3,,dislike"]
    files: Files = {"interactions.csv": "\n".join((f"{HEADER},event", *rows)) + "\n", "items.csv": CATALOGUE}
    out = ingest(write(tmp_path / "shop", files), tmp_path / "r")
    assert pl.read_parquet(out / "excluded.parquet").height == report_of(out)["disliked_pairs"] == 1
    assert report_of(out)["counts"]["sessions"] == 3


def test_what_is_held_out_from_a_user_is_not_learned_from_their_session(tmp_path: Path) -> None:
    """Session s is u's before the login, session t is of a visitor who saw d alone, session w is nobody's."""
    login = ("u,a,1,s", "u,b,2,t", "u,c,3,", "u,d,4,s", *ROWS[4:])
    before = (",b,0,s", ",d,0.5,s", ",d,0.5,t", ",a,0,w", ",d,0.5,w")
    out = ingest(small_shop(tmp_path / "shop", *login, *before), tmp_path / "r")
    taken = items_by_owner(out)
    assert sorted(taken[owner] for owner in taken if owner > 1) == [["a", "d"], ["b"]]
    assert sorted(taken[owner] for owner in (0, 1)) == [["a", "b"], ["a", "b"]]
    report = report_of(out)
    assert report["own_sessions"] == {"pairs": 2, "left_out": 2}
    assert (report["counts"]["sessions"], report["counts"]["interactions"]) == (2, 9)
    everything = ingest(small_shop(tmp_path / "shop", *login, *before), tmp_path / "all", "--set fit=all")
    assert report_of(everything)["own_sessions"] == {"pairs": 2, "left_out": 0}


def _hash(values: object) -> str:
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()[:16]


def test_a_shop_without_sessions_is_read_and_counted_as_before_they_were(demo_shop: Path, tmp_path: Path) -> None:
    out = ingest(demo_shop, tmp_path / "r")
    tables = {name: pl.read_parquet(out / f"{name}.parquet") for name in ("items", "users", "train", "heldout")}
    assert {name: _hash(table.rows()) for name, table in tables.items()} == {
        "items": "416f55ca6c9385ce",
        "users": "487b936e2d2d5fae",
        "train": "c045ee602093b786",
        "heldout": "088d6101e7d30a55",
    }
    num_items, num_users = tables["items"].height, tables["users"].height
    content = SparseLists(np.zeros(num_items + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    counted = count_events(
        TimedEvents.of(tables["train"]), content, num_users=num_users, config=CONFIG.evidence, first_variants=None
    )
    arrays = {name: lists.indices for name, lists in counted.lists.items() if name != "content"}
    hashes = {name: hashlib.sha256(array.tobytes()).hexdigest()[:16] for name, array in arrays.items()}
    assert hashes == {
        "transition": "ce7e05a21fcce631",
        "cooccurrence": "6cbbddb713305ad0",
        "user_items": "5be1765d6e1ed565",
    }
    assert hashlib.sha256(counted.popularity.tobytes()).hexdigest()[:16] == "1f9c8dbe1a973ad7"


NUM_USERS, NUM_SESSIONS = 40, 40
TASTES = ("Red", "Blue")


def write_visited_shop(folder: Path) -> Path:
    """40 users who take the items of their taste, and 40 sessions, 40% of all rows, of items that no user takes."""
    rng = random.Random(5)
    rows = []
    for user in range(NUM_USERS):
        taste = user % 2 * 10
        for place, item in enumerate(rng.sample(range(taste, taste + 10), 6)):
            rows.append(f"u{user},i{item},{1000 * place + user},")
    for session in range(NUM_SESSIONS):
        first = session % 6
        rows += [f",x{(first + place) % 6},{5 * session + place},s{session}" for place in range(4)]
    items = [{"item_id": f"i{row}", "title": f"{TASTES[row // 10]} cup {row % 10}"} for row in range(20)]
    items += [{"item_id": f"x{row}", "title": f"Lamp {row}"} for row in range(6)]
    catalogue = "".join(json.dumps(item) + "\n" for item in items)
    return write(folder, {"interactions.csv": "\n".join((HEADER, *rows)) + "\n", "items.jsonl": catalogue})


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sessions")
    data = write_visited_shop(root / "data")
    stages = run_stages("export", data, root / "releases", CONFIG)
    return stages | {
        "data": data,
        "releases": root / "releases",
        "release": publish(stages["export"], root / "releases"),
    }


def test_arrays_of_users_hold_users_alone(stages: dict[str, Path]) -> None:
    manifest = json.loads((stages["release"] / "manifest.json").read_text())
    assert manifest["counts"] == {
        "num_items": 26,
        "num_users": NUM_USERS,
        "num_interactions": 6 * NUM_USERS + 4 * NUM_SESSIONS,
        "num_sessions": NUM_SESSIONS,
    }
    for name in ("user_features", "group_layers"):
        assert len(np.load(stages["release"] / f"{name}.npy")) == NUM_USERS
    for name in ("users", "histories", "reasoning/user_features"):
        assert pl.read_parquet(stages["release"] / f"{name}.parquet").height == NUM_USERS
    items = pl.read_parquet(stages["ingest"] / "items.parquet")["item_id"].to_list()
    indices = np.load(stages["release"] / "evidence" / "user_items_indices.npy")
    assert not any(items[row].startswith("x") for row in indices)


def test_samples_and_popularity_are_of_sessions_too(stages: dict[str, Path]) -> None:
    sequences = read_sequences(stages["ingest"], NUM_USERS)
    assert np.diff(sequences.start).tolist() == [4] * NUM_USERS + [2] * NUM_SESSIONS
    items = pl.read_parquet(stages["ingest"] / "items.parquet")["item_id"].to_list()
    popularity = dict(zip(items, np.load(stages["release"] / "popularity.npy").tolist(), strict=True))
    assert sum(popularity[f"x{row}"] for row in range(6)) == 2 * NUM_SESSIONS
    graph = json.loads((stages["graph"] / "report.json").read_text())
    assert graph["interaction_graph"]["interactions"] == 4 * NUM_USERS + 2 * NUM_SESSIONS
    assert graph["similar_user_graph"]["users"] == NUM_USERS


def test_figures_of_sessions_stand_apart(stages: dict[str, Path]) -> None:
    evaluation = json.loads((stages["release"] / "manifest.json").read_text())["evaluation"]
    for name in ("valid", "test"):
        assert evaluation[name]["users"] == NUM_USERS
        assert evaluation["sessions"][name]["users"] == NUM_SESSIONS
    assert evaluation["sessions"]["test"]["fused"]["HR@10"] > 0.8, "three of the six are left, and only they fit"
    owners, users = load_owners(stages["ingest"], "test"), load_split(stages["ingest"], "test")
    assert owners.users.tolist() == [*range(NUM_USERS), *[-1] * NUM_SESSIONS]
    assert users.users.tolist() == list(range(NUM_USERS))


def test_the_audit_of_sessions_finds_no_leak(stages: dict[str, Path]) -> None:
    with Progress(disable=True) as progress:
        found = {one.line: one for one in audit(stages["data"], stages["release"], progress)}
    assert [line for line, one in found.items() if one.verdict == "leak"] == []
    assert found["large accounts"].verdict == "ok"
    assert found["ties"].figures["users"] == NUM_USERS


def test_a_session_is_answered_by_what_sessions_took_together(stages: dict[str, Path], tmp_path: Path) -> None:
    chosen = Settings(releases_dir=stages["releases"], state_dir=tmp_path, deadline_s=60)
    with TestClient(create_app(chosen), base_url="http://localhost") as http:
        asked = http.post("/recommend", json={"history": ["x0"], "n": 4}).json()
        assert asked["meta"]["source"] == "session"
        assert all(item["item_id"].startswith("x") for item in asked["items"]), asked["items"]
        for user in range(4):
            items = [item["item_id"] for item in http.get(f"/recommend/u{user}", params={"n": 3}).json()["items"]]
            taste = {f"i{user % 2 * 10 + row}" for row in range(10)}
            assert set(items) <= taste, (user, items)


def test_where_only_sessions_have_much_to_tell_they_are_what_is_learned_and_measured(tmp_path: Path) -> None:
    rows = [f"u{user},i{user},{user}," for user in range(3)]
    rows += [
        f",i{(session + place) % 12},{5 * session + place},s{session}" for session in range(60) for place in range(4)
    ]
    items = "".join(json.dumps({"item_id": f"i{row}", "title": f"Cup {row % 3}"}) + "\n" for row in range(12))
    data = write(tmp_path / "shop", {"interactions.csv": "\n".join((HEADER, *rows)) + "\n", "items.jsonl": items})
    evaluation = json.loads((run_stages("evaluate", data, tmp_path / "r")["evaluate"] / "evaluation.json").read_text())
    assert not {"valid", "test"} & evaluation.keys()
    assert evaluation["sessions"]["test"]["users"] == evaluation["weights_chosen_on"]["users"] == 60
    assert evaluation["sessions"]["test"]["fused"]["HR@10"] > 0.9


def test_a_replay_asks_a_session_by_its_items_alone(stages: dict[str, Path], tmp_path: Path) -> None:
    stream = cut(stages["data"], tmp_path / "before", CONFIG, since=150.0, share=None)
    before = pl.read_parquet(tmp_path / "before" / "interactions.parquet")
    assert before["user_id"].drop_nulls().n_unique() == NUM_USERS
    assert before.filter(pl.col("user_id").is_null())["session_id"].n_unique() == 30
    shop = open_shop(stages["release"], CONFIG.events)
    with Progress(disable=True) as progress:
        answers = list(
            ranks(Player(shop, stream, epoch_s=100.0), progress=progress, title="", total=len(stream.stream))
        )
    asked = [one for one, _ in answers if one.event.of_session]
    assert len(asked) == 40
    assert {one.own for one in asked} == {-1}
    assert not any(one.is_new_user for one in asked)
    assert [len(one.history) for one in asked] == [0, 1, 2, 3] * 10
