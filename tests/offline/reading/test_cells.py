"""Cells of an items file in CSV: what JSON would hold, or the text itself, which the reader of items refuses."""

import polars as pl
import pytest

from offline.reading.cells import read_categories, read_cells, read_flag, read_price, typed, whole_ids
from offline.reading.settings import IngestConfig


@pytest.mark.parametrize(
    ("text", "point", "comma"),
    [
        ("19.99", 19.99, "19.99"),
        ("19,99 €", "19,99 €", 19.99),
        ("$1,299.00", 1299.0, "$1,299.00"),
        ("1.299,00 €", "1.299,00 €", 1299.0),
        ("1 299,5 kr", "1 299,5 kr", 1299.5),
        ("EUR 7", 7.0, 7.0),
        ("12.50 USD", 12.5, "12.50 USD"),
        ("1,299", "1,299", 1.299),
        ("1.299", 1.299, 1299.0),
        ("-1", "-1", "-1"),
        ("free", "free", "free"),
        ("1e3", "1e3", "1e3"),
        ("12.5.0", "12.5.0", "12.5.0"),
    ],
)
def test_a_price_is_read_with_its_decimal_sign_or_not_at_all(text: str, point: object, comma: object) -> None:
    assert read_price(text, decimal_comma=False) == point
    assert read_price(text, decimal_comma=True) == comma


@pytest.mark.timeout(10)
def test_a_long_text_is_no_price_and_takes_no_time() -> None:
    """The search for a currency takes time that grows with the square of the blanks."""
    text = "1" + " " * 20_000 + "!"
    assert [read_price(text, decimal_comma=comma) for comma in (False, True)] == [text] * 2
    assert read_price("CHF 12.50 " + " " * 20_000, decimal_comma=False) == 12.5


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ([1, None, 20], ["1", None, "20"]),
        ([1.0, float("nan"), 20.0], ["1", None, "20"]),
        ([1.5, 2.0], [1.5, 2.0]),
        ([1.0, 2.0**53], [1.0, 2.0**53]),
        (["007", "7.0"], ["007", "7.0"]),
        ([True], [True]),
    ],
)
def test_whole_numbers_are_ids_as_their_decimal_text(values: list[object], ids: list[object]) -> None:
    assert whole_ids(pl.Series(values, strict=False)).to_list() == ids
    assert whole_ids(pl.Series([None], dtype=pl.Float64)).to_list() == [None]
    assert whole_ids(pl.Series([2**64 - 1], dtype=pl.UInt64)).to_list() == ["18446744073709551615"]


@pytest.mark.parametrize(
    ("text", "separator", "categories"),
    [
        ('["Kitchen", "Cups, Mugs"]', "", ["Kitchen", "Cups, Mugs"]),
        ("Kitchen > Cups", "", ["Kitchen", "Cups"]),
        ("Creams, Gels & Lotions", "", ["Creams, Gels & Lotions"]),
        ("Kitchen/Cups", "/", ["Kitchen", "Cups"]),
        ("Kitchen/Cups", "", ["Kitchen/Cups"]),
        ("Adventure|Animation", "|", ["Adventure", "Animation"]),
        ("Adventure|Animation", "", "Adventure|Animation"),
        ("[Kitchen", "", "[Kitchen"),
    ],
)
def test_categories_are_a_list_or_a_path(text: str, separator: str, categories: object) -> None:
    assert read_categories(text, separator) == categories


def test_flags_are_words_and_nothing_else() -> None:
    assert [read_flag(text) for text in ("TRUE", "1", "yes", "In stock")] == [True] * 4
    assert [read_flag(text) for text in ("false", "0", "No", "out of stock")] == [False] * 4
    assert [read_flag(text) for text in ("3", "maybe", "deny")] == ["3", "maybe", "deny"]


def test_empty_cells_are_no_values_and_an_empty_id_stays_missing() -> None:
    row = {"item_id": None, "title": " ", "price": "", "metadata": '{"a": 1}', "available": None}
    assert read_cells(row, IngestConfig()) == {"item_id": None, "metadata": {"a": 1}}


def test_a_column_is_typed_only_if_every_value_is_of_the_type() -> None:
    table = pl.DataFrame(
        {
            "stock": ["3", None, "-10"],
            "rating": ["4.5", "3", None],
            "ean": ["0012345678905", "4006381333931", None],
            "long": ["1234567890123456", "1", None],
            "sale": ["TRUE", "false", None],
            "mixed": ["3", "XL", None],
            "none": pl.Series([None, None, None], dtype=pl.String),
        }
    )
    assert typed(table, table.columns).to_dict(as_series=False) == {
        "stock": [3, None, -10],
        "rating": [4.5, 3.0, None],
        "ean": ["0012345678905", "4006381333931", None],
        "long": ["1234567890123456", "1", None],
        "sale": [True, False, None],
        "mixed": ["3", "XL", None],
        "none": [None, None, None],
    }
