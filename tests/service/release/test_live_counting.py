"""However the accepted entries are cut into pages, they count for the same."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isrf.contract.event_log import StoredEvent, bucket_of
from isrf.contract.ids import IdMap, ItemId, ItemIndex
from service.release import live_counting
from service.release.live_counting import LiveCounting
from service.release.mapped_entries import ItemLookup, MappedEntries
from service.release.opening import Release, open_release
from service.state.user_store import AcceptedEntry
from service.sync.release_runtime import with_live_evidence

NOW = 1_757_000_000.0
NUM_ITEMS = 6
"""Items that events are about; the last is none of the catalogue's."""

Made = tuple[int, int, str, float, list[int]]
MADE = st.tuples(
    st.integers(0, 5),
    st.integers(0, NUM_ITEMS),
    st.sampled_from("BBBBHHHRD"),
    st.one_of(st.integers(0, 20).map(float), st.floats(-1e308, 1e308)),
    st.lists(st.integers(0, NUM_ITEMS), max_size=10),
)


@pytest.fixture(scope="module")
def release(tiny_release: Path) -> Release:
    return open_release(tiny_release)


def counting_of(release: Release) -> LiveCounting:
    _, counting = with_live_evidence(release, 20_000)
    assert counting is not None
    return counting


def entries_of(release: Release, made: list[Made]) -> list[AcceptedEntry]:
    """Foreign ones too: an item may be followed twice, or by itself."""
    ids = [*(release.catalogue.item_id(row) for row in range(NUM_ITEMS)), "nothing"]
    entries = []
    for user, item, effect, moment, followed in made:
        user_id, at = f"u{user}", NOW + moment if abs(moment) < 100 else moment
        event = StoredEvent(user_id, ids[item], "", effect, at, False, "x", at, tuple(ids[row] for row in followed))
        entries.append(AcceptedEntry(bucket_of(user_id), event if user or item else None))
    return entries


def state(counting: LiveCounting) -> list[object]:
    counts, popularity = counting.evidence.counts, counting.evidence.popularity
    rows = np.arange(NUM_ITEMS)
    found: list[object] = [counts.version(row) for row in rows.tolist()]
    found += [column.tolist() for row in rows.tolist() for column in counts.row(row)]
    return [*found, counts.takers(rows).tolist(), popularity.most_popular().items.tolist(), counting.num_events]


@given(st.lists(MADE, max_size=50), st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_pages_of_any_size_count_alike(release: Release, made: list[Made], size: int) -> None:
    entries, lookup = entries_of(release, made), ItemLookup(release.catalogue.ids)
    one_by_one, in_pages = counting_of(release), counting_of(release)
    outcomes: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for entry in entries:
        outcomes[0].update(one_by_one.count(MappedEntries.of([entry], lookup)))
    for start in range(0, len(entries), size):
        outcomes[1].update(in_pages.count(MappedEntries.of(entries[start : start + size], lookup)))
    assert outcomes[0] == outcomes[1]
    assert state(one_by_one) == state(in_pages)


def test_items_followed_twice_count_once(release: Release) -> None:
    names = [release.catalogue.item_id(row) for row in range(4)]
    foreign, proper = counting_of(release), counting_of(release)
    for counting, followed in ((foreign, [1, 1, 0, 2, 1, 2]), (proper, [1, 2])):
        event = StoredEvent("u", names[0], "", "B", NOW, False, "x", NOW, ("?", *(names[row] for row in followed)))
        counting.count(MappedEntries.of([AcceptedEntry(bucket_of("u"), event)], ItemLookup(release.catalogue.ids)))
    assert state(foreign) == state(proper)
    assert proper.evidence.counts.row(1).transition_counts.tolist() == pytest.approx([1.0], rel=0.1)


def test_the_latest_removes_are_remembered(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_counting, "REMOVES_PER_BUCKET", 2)
    counting, names = counting_of(release), [release.catalogue.item_id(row) for row in range(4)]

    def entry(item: int, effect: str) -> AcceptedEntry:
        return AcceptedEntry(bucket_of("u"), StoredEvent("u", names[item], "", effect, NOW, False, "x", NOW))

    counting.count(MappedEntries.of([entry(item, "R") for item in (0, 1, 0, 2)], ItemLookup(release.catalogue.ids)))
    found = counting.count(
        MappedEntries.of([entry(item, "B") for item in (0, 1, 2)], ItemLookup(release.catalogue.ids))
    )
    assert found == {"removed": 2, "counted": 1}


def test_a_lookup_finds_what_the_catalogue_finds() -> None:
    ids = IdMap[ItemId, ItemIndex](ItemId(f"item {number}") for number in range(1000))
    asked = [*reversed(list(ids)), "", "item", "item 1000", "item 7", "item 7"]
    expected = [-1 if (row := ids.index(ItemId(item_id))) is None else row for item_id in asked]
    assert ItemLookup(ids).rows(asked).tolist() == expected
    assert ItemLookup(IdMap(())).rows(["a", "b"]).tolist() == [-1, -1]
    assert ItemLookup(ids).rows([]).tolist() == []
