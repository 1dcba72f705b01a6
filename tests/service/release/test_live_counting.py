"""However the accepted entries are cut into pages, they count for the same."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isrf.contract.event_log import StoredEvent, bucket_of
from isrf.contract.event_types import EventVocabulary
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


def with_weights(release: Release, **weights: float) -> Release:
    vocabulary = EventVocabulary.model_validate({"names": {"kauf": "purchase"}, "weights": weights})
    return dataclasses.replace(release, vocabulary=vocabulary)


def test_an_entry_counts_by_what_the_release_says_of_its_type(release: Release) -> None:
    kinds = ("view", "Kauf", "", "purchase", "cart")
    name = release.catalogue.item_id

    def entry(kind: str, row: int) -> AcceptedEntry:
        followed = (name(5),)
        event = StoredEvent("u", name(row), kind, "H", NOW, False, kind, NOW, followed)
        return AcceptedEntry(bucket_of("u"), event)

    entries, lookup = [entry(kind, row) for row, kind in enumerate(kinds)], ItemLookup(release.catalogue.ids)
    counting = counting_of(with_weights(release, view=0.1, purchase=3, cart=0))
    assert counting.count(MappedEntries.of(entries, lookup)) == {"counted": 4, "no_weight": 1}
    plain = counting_of(release)
    assert plain.count(MappedEntries.of(entries, lookup)) == {"counted": 5}
    taken = [one.evidence.counts.takers(np.arange(5)) for one in (counting, plain)]
    np.testing.assert_allclose(taken[0] / taken[1], [0.1, 3, 3, 3, 0], rtol=1e-4)
    pairs = dict(zip(*(column.tolist() for column in counting.evidence.counts.row(5)[:2]), strict=True))
    assert pairs == pytest.approx(dict(enumerate(taken[0][:4].tolist())))


@given(
    st.lists(st.tuples(MADE, st.sampled_from(["", "view", "cart", "kauf", "wish"])), max_size=50), st.integers(1, 30)
)
@settings(deadline=None, max_examples=40)
def test_replicas_count_weighed_entries_alike(release: Release, made: list[tuple[Made, str]], size: int) -> None:
    entries = [
        AcceptedEntry(bucket, None if event is None else event._replace(event=kind))
        for (bucket, event), (_, kind) in zip(entries_of(release, [one for one, _ in made]), made, strict=True)
    ]
    heavy, lookup = with_weights(release, view=0.1, cart=0.4, kauf=5, wish=0), ItemLookup(release.catalogue.ids)
    one_by_one, in_pages, by_bucket = (counting_of(heavy) for _ in range(3))
    for entry in entries:
        one_by_one.count(MappedEntries.of([entry], lookup))
    for start in range(0, len(entries), size):
        in_pages.count(MappedEntries.of(entries[start : start + size], lookup))
    for entry in sorted(entries, key=lambda one: one.bucket):
        by_bucket.count(MappedEntries.of([entry], lookup))
    assert state(one_by_one) == state(in_pages) == state(by_bucket)


@pytest.mark.parametrize("weights", [{}, {"purchase": 1, "view": 1.0, "cart": 1}])
def test_weights_of_1_count_as_none(release: Release, weights: dict[str, float]) -> None:
    name = release.catalogue.item_id
    events = [
        StoredEvent(f"u{k}", name(k % 4), kind, "H", NOW + k, False, "x", NOW + k, (name(5),))
        for k, kind in enumerate(["view", "kauf", "", "cart"] * 10)
    ]
    entries = [AcceptedEntry(bucket_of(event.user_id), event) for event in events]
    found = [counting_of(one) for one in (release, with_weights(release, **weights))]
    for counting in found:
        counting.count(MappedEntries.of(entries, ItemLookup(release.catalogue.ids)))
    assert state(found[0]) == state(found[1])


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
