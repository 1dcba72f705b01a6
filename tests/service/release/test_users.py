"""A user's last items in the release: what an event of the user may have followed."""

import numpy as np
import pytest

from isrf.contract.ids import IdMap, UserId
from service.release.catalogue import Catalogue, ItemLine
from service.release.history_facts import Events
from service.release.users import Dislikes, ReleaseUsers
from service.state.events import MAX_TAIL
from service.state.records import HistoryEntry

LONG = [k % 40 for k in range(100)]
HISTORIES = {"untimed": [4], "few": [3, 1, 3, 2], "none": [], "many": LONG, "again": [5, *[7, 8] * 30]}


@pytest.fixture(scope="module")
def users() -> ReleaseUsers:
    catalogue = Catalogue.of([ItemLine(item_id=f"i{k}") for k in range(40)], np.zeros(40, dtype=np.float32))
    items = np.concatenate([np.array(history, dtype=np.int32) for history in HISTORIES.values()])
    indptr = np.cumsum([0, *map(len, HISTORIES.values())]).astype(np.int64)
    timestamps = np.arange(len(items), dtype=np.float64)
    timestamps[0] = np.nan
    events = Events(indptr, items, timestamps, np.zeros(len(items), dtype=np.int32), ["view"], [1])
    nothing = Dislikes(np.zeros(len(HISTORIES) + 1, dtype=np.int64), np.zeros(0, dtype=np.int32))
    return ReleaseUsers(IdMap(map(UserId, HISTORIES)), catalogue, events=events, dislikes=nothing)


def test_the_latest_items_come_first_each_once(users: ReleaseUsers) -> None:
    assert users.tail("few") == [HistoryEntry("i2", 4.0), HistoryEntry("i3", 3.0), HistoryEntry("i1", 2.0)]


def test_an_event_without_time_has_none(users: ReleaseUsers) -> None:
    assert users.tail("untimed") == [HistoryEntry("i4", None)]


def test_a_long_history_is_cut(users: ReleaseUsers) -> None:
    assert [entry.item_id for entry in users.tail("many")] == [f"i{item}" for item in LONG[::-1][:MAX_TAIL]]
    assert [entry.item_id for entry in users.tail("again")] == ["i8", "i7"]


@pytest.mark.parametrize("user_id", ["none", "nobody", ""])
def test_who_took_nothing_has_no_last_items(users: ReleaseUsers, user_id: str) -> None:
    assert users.tail(user_id) == []
