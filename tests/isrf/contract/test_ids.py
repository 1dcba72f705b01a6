"""Shop ids and row numbers are joined by one frozen map."""

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrf.contract.errors import DataError
from isrf.contract.ids import IdMap, ItemId, ItemIndex

PACKED = pytest.mark.parametrize("packed_from", [0, 1_000_000], ids=["packed", "not-packed"])


def map_of(ids: Iterable[str], packed_from: int) -> IdMap[ItemId, ItemIndex]:
    return IdMap(map(ItemId, ids), packed_from=packed_from)


@PACKED
@given(st.lists(st.text(st.characters(), min_size=1), unique=True))
def test_every_id_comes_back_from_its_row(packed_from: int, ids: list[str]) -> None:
    id_map = map_of(ids, packed_from)
    assert [id_map.external(ItemIndex(row)) for row in range(len(id_map))] == ids == list(id_map)
    assert id_map.known([ItemId(i) for i in ids]) == list(range(len(ids)))


@PACKED
def test_an_unknown_id_has_no_row(packed_from: int) -> None:
    id_map = map_of("ab", packed_from)
    assert id_map.index(ItemId("c")) is None
    assert id_map.known([ItemId("b"), ItemId("c"), ItemId("a")]) == [1, 0]
    assert ItemId("c") not in id_map
    assert 5 not in id_map
    with pytest.raises(IndexError):
        id_map.external(ItemIndex(2))


@PACKED
def test_an_id_that_stands_twice_is_refused(packed_from: int) -> None:
    with pytest.raises(DataError, match="rows 0 and 2") as error:
        map_of("aba", packed_from)
    assert error.value.code == "data.duplicate_id"


class SameHash(str):
    """A text whose hash another text has, which Python's own hash does not allow to make."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7


def test_packed_ids_of_one_hash_are_told_apart() -> None:
    ids = [SameHash(text) for text in "abc"]
    id_map = map_of(ids, 0)
    assert [id_map.index(ItemId(SameHash(text))) for text in "cabd"] == [2, 0, 1, None]
    with pytest.raises(DataError, match="rows 1 and 3"):
        map_of([*ids, SameHash("b")], 0)


def test_packed_ids_take_a_third_of_a_dictionary() -> None:
    def num_bytes(packed_from: int) -> int:
        tracemalloc.start()
        id_map = map_of((f"item-{row}" for row in range(20_000)), packed_from)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(id_map) == 20_000
        return size

    assert num_bytes(0) < num_bytes(1_000_000) / 3


@PACKED
def test_a_negative_row_is_no_row(packed_from: int) -> None:
    with pytest.raises(IndexError):
        map_of("a", packed_from).external(ItemIndex(-1))


@PACKED
def test_an_extended_map_keeps_every_row_and_the_one_before_as_it_was(packed_from: int) -> None:
    before = map_of("ab", packed_from)
    after = before.extended([ItemId("c")])
    assert [after.index(ItemId(name)) for name in "abc"] == [0, 1, 2]
    assert [after.external(ItemIndex(row)) for row in range(3)] == ["a", "b", "c"]
    assert (list(after), list(before), ItemId("c") in before) == (["a", "b", "c"], ["a", "b"], False)
    for twice in (["d", "a"], ["d", "d"]):
        with pytest.raises(DataError):
            before.extended(list(map(ItemId, twice)))
