"""Values as shop systems write them: an amount has one reading or none."""

import pytest

from offline.importers.values import read_money


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
