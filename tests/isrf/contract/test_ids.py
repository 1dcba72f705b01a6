"""Shop ids and row numbers are joined by one frozen map."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrf.contract.errors import DataError
from isrf.contract.ids import IdMap, ItemId, ItemIndex


@given(st.lists(st.text(min_size=1), unique=True))
def test_every_id_comes_back_from_its_row(ids: list[str]) -> None:
    id_map: IdMap[ItemId, ItemIndex] = IdMap(map(ItemId, ids))
    assert [id_map.external(ItemIndex(row)) for row in range(len(id_map))] == ids
    assert id_map.known([ItemId(i) for i in ids]) == list(range(len(ids)))


def test_an_unknown_id_has_no_row() -> None:
    id_map: IdMap[ItemId, ItemIndex] = IdMap([ItemId("a"), ItemId("b")])
    assert id_map.index(ItemId("c")) is None
    assert id_map.known([ItemId("b"), ItemId("c"), ItemId("a")]) == [1, 0]
    assert ItemId("c") not in id_map


def test_an_id_that_stands_twice_is_refused() -> None:
    with pytest.raises(DataError, match="rows 0 and 2") as error:
        IdMap([ItemId("a"), ItemId("b"), ItemId("a")])
    assert error.value.code == "data.duplicate_id"


def test_a_negative_row_is_no_row() -> None:
    id_map: IdMap[ItemId, ItemIndex] = IdMap([ItemId("a")])
    with pytest.raises(IndexError):
        id_map.external(ItemIndex(-1))


def test_an_extended_map_keeps_every_row_and_the_one_before_as_it_was() -> None:
    before: IdMap[ItemId, ItemIndex] = IdMap([ItemId("a"), ItemId("b")])
    after = before.extended([ItemId("c")])
    assert [after.index(ItemId(name)) for name in "abc"] == [0, 1, 2]
    assert (list(after), list(before), ItemId("c") in before) == (["a", "b", "c"], ["a", "b"], False)
    with pytest.raises(DataError):
        before.extended([ItemId("d"), ItemId("a")])
