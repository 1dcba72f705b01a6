"""Values as shop systems write them: an amount has one reading or none."""

import pytest

from offline.importers.values import is_no_id, plain_id, read_amount, read_money


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("19.99 EUR", 19.99),
        ("EUR 1,299.00", 1299.0),
        ("12,50 EUR", 12.5),
        ("1.299,00 €", 1299.0),
        ("9,5", 9.5),
        ("1,299", None),
        ("1,299,00", None),
        ("12,50,00", None),
        ("1,2.50", None),
        ("free", None),
    ],
)
def test_an_amount_has_one_reading_or_none(text: str, amount: float | None) -> None:
    money = read_money(text)
    assert (None if money is None else money.amount) == amount


@pytest.mark.parametrize(
    ("value", "read"),
    [("12.50", 12.5), ("12.50 EUR", 12.5), (3, 3.0), (0, 0.0), (None, None), ("", None)],
)
def test_a_price_of_json_is_a_number_or_a_text(value: object, read: float | None) -> None:
    assert read_amount(value) == read


@pytest.mark.parametrize("value", [-1, "-1", True, [], "free", "1,299"])
def test_what_is_no_price_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="no price"):
        read_amount(value)


@pytest.mark.parametrize(
    ("value", "text", "wrong"),
    [
        (" a ", "a", False), (7, "7", False), (1234567.0, "1234567", False), (None, "", False), ("", "", False),
        (7.5, "", True), (True, "", True), ([], "", True), (float("inf"), "", True),
    ],
)  # fmt: skip
def test_an_id_is_a_text_or_a_whole_number(value: object, text: str, wrong: bool) -> None:
    assert (plain_id(value), is_no_id(value)) == (text, wrong)
