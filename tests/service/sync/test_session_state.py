"""Events of sessions: counted like everybody's, exported without a user_id, and never an account."""

from pathlib import Path

import polars as pl
import pytest

from isrf.contract.ids import session_owner
from offline.commands.loop_back.take_in import TakenIn, take_in
from service.api.bulk.users import events_of, user_lines
from service.release.opening import open_release
from service.state.connect import open_store
from service.state.events import EventRules
from service.state.store import Store
from service.state.user_store import nobody_recent
from service.sync.compaction import SESSION_KEPT_S, collect_learned
from tests.service.servers import apply_to, event, settings_for

OLD = "user_id,item_id,timestamp\nann,cup,1\n"
LATER_MS = 4_000_000_000_000


def of_session(item_id: str, timestamp: float, session_id: str = "s1", kind: str = "view") -> dict[str, object]:
    return {"session_id": session_id, "item_id": item_id, "timestamp": timestamp, "event": kind}


async def test_a_session_has_state_and_is_nobodys_similar_user(store: Store) -> None:
    await apply_to(store)(of_session("pot", 2.0), event("pot", 3.0, user_id="ann"))
    assert [entry.item_id for entry in (await store.read(session_owner("s1"))).history] == ["pot"]
    look = await store.recent(nobody_recent(), [None] * len(nobody_recent()), LATER_MS)
    assert look.moved == {"ann"}


async def test_a_store_that_is_opened_again_knows_no_session_as_active(tmp_path: Path) -> None:
    for _ in range(2):
        store = await open_store(settings_for(None, tmp_path))
        look = await store.recent(nobody_recent(), [None] * len(nobody_recent()), LATER_MS)
        await apply_to(store)(of_session("pot", 2.0), event("pot", 3.0, user_id="ann"))
        await store.close()
    assert look.moved == {"ann"}


async def test_an_export_names_the_session_and_no_user(store: Store) -> None:
    await apply_to(store)(of_session("pot", 2.0, kind="purchase"))
    (line,) = user_lines(session_owner("s1"), await store.read(session_owner("s1")))
    assert line["session_id"] == "s1"
    assert "user_id" not in line
    assert events_of(line) == [{"session_id": "s1", "item_id": "pot", "event": "purchase", "timestamp": 2.0}]


@pytest.mark.parametrize("form", ["csv", "parquet"])
async def test_the_shops_file_gets_sessions_and_loses_an_erased_one(
    store: Store, address: str, tmp_path: Path, form: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    file = data / f"interactions.{form}"
    file.write_text(OLD) if form == "csv" else pl.read_csv(OLD.encode()).write_parquet(file)
    apply = apply_to(store)
    await apply(of_session("pot", 2.0), of_session("pan", 3.0, "s,2"), event("pot", 4.0, user_id="s1"))
    assert take_in(address, data) == TakenIn(3, 0, 0)
    columns = ["user_id", "session_id", "item_id", "event"]
    old = ("ann", None, "cup", None)
    of_user = ("s1", None, "pot", "purchase")
    read = pl.read_csv if form == "csv" else pl.read_parquet
    table = read(file).select(columns)
    first, second = (None, "s1", "pot", "view"), (None, "s,2", "pan", "view")
    assert table.rows() == [old, first, second, (*of_user[:3], table["event"][3])]
    await store.erase(session_owner("s1"))
    assert take_in(address, data) == TakenIn(0, 0, 0, 0)._replace(forgotten_rows=1)
    assert read(file).select(columns)["item_id"].to_list() == ["cup", "pan", "pot"]


async def test_a_session_of_long_ago_leaves_the_state(store: Store, tiny_release: Path) -> None:
    release = open_release(tiny_release)
    old = release.learned_until - SESSION_KEPT_S - 1
    items = [str(item) for item in release.catalogue.ids][:2]
    await apply_to(store)(of_session(items[0], old), of_session(items[1], release.learned_until, "s2"))
    assert await collect_learned(store, release, EventRules(())) == 1
    assert not (await store.read(session_owner("s1"))).history
    assert (await store.read(session_owner("s2"))).history
