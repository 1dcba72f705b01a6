"""Our columns among a table's own: found by name, mapped by an option, or asked for."""

import pytest

from isrf.contract.errors import DataError
from offline.reading.columns import Columns, Wanted, check_unique, find_columns, unused_mapping
from offline.reading.names import INTERACTION_NAMES, option
from offline.reading.settings import INTERACTION_COLUMNS

WANTED = Wanted(INTERACTION_COLUMNS, ("user_id", "item_id"), INTERACTION_NAMES, order=("timestamp", "position"))


def found(header: str, **mapping: tuple[str, ...]) -> Columns:
    return find_columns("interactions.csv", header.split(","), WANTED, mapping)


def refused(header: str, **mapping: tuple[str, ...]) -> DataError:
    with pytest.raises(DataError) as caught:
        found(header, **mapping)
    return caught.value


def test_names_count_in_any_case_and_without_spaces() -> None:
    columns = found("\ufeffUser_ID, item_id ,TIMESTAMP,Colour,,")
    assert columns.ours == {"user_id": 0, "item_id": 1, "timestamp": 2}
    assert columns.others == {"Colour": 3}, "a column without a name is none"


def test_an_option_names_a_column_and_goes_before_our_own_name() -> None:
    columns = found("user_id,Customer ID,item_id,position", user_id=("customer id",))
    assert columns.ours["user_id"] == 1
    assert columns.others == {}, "what the option replaces is nobody's"
    assert found("user_id,item_id,position", item_id=("sku",)).ours["item_id"] == 1, "the other file's name"
    assert found("user_id,sku,position", item_id=("handle", "sku")).ours["item_id"] == 1


def test_two_columns_for_one_of_ours_are_refused() -> None:
    assert refused("user_id,USER_ID,item_id,position").code == "data.duplicate_column"
    assert refused("a,b,item_id,position", user_id=("a", "b")).message.endswith('"a" and "b".')


def test_a_missing_column_is_asked_for_with_the_option() -> None:
    error = refused("visitorid,event,itemid,timestamp")
    assert error.code == "data.missing_column"
    assert '"visitorid", "event", "itemid", "timestamp"' in error.message
    assert "--column user_id=visitorid; --column item_id=itemid." in error.fix
    plain = refused("a,b,timestamp")
    assert plain.fix == "Name the shop's own column with --column user_id=NAME."


def test_a_file_without_a_header_is_told_to_have_one() -> None:
    error = refused("196,242,3,881250949")
    assert error.code == "data.no_header"
    assert "Write a first line with the columns' names" in error.fix


def test_other_columns_of_one_name_are_refused_where_they_are_read() -> None:
    columns = found("user_id,item_id,position,x,x")
    with pytest.raises(DataError) as caught:
        check_unique("items.csv", columns)
    assert caught.value.code == "data.duplicate_column"


def test_an_option_that_names_no_column_is_refused() -> None:
    error = unused_mapping({"user_id": ("custmer",)}, [["customer", "item_id"]])
    assert error is not None
    assert "--column user_id=custmer" in error.message
    assert '"customer"' in error.message
    assert unused_mapping({"user_id": ("Customer",)}, [["customer"], []]) is None


def test_an_option_is_quoted_for_a_shell() -> None:
    assert option("timestamp", "Created at") == "--column 'timestamp=Created at'"
