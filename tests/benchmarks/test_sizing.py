"""A fit of costs that are sums of parts: exact where they are, and never smaller for a larger shop."""

import pytest
import sizing
from sizing import Fitted, Shop

SIZES = [(1_000, 2_000), (10_000, 100_000), (30_000, 20_000), (100_000, 20_000), (100_000, 400_000)]


def _shop(num_items: int, num_users: int) -> Shop:
    return Shop(num_items, num_users, 1_000.0, 0, 0.0, 6)


def test_a_sum_of_parts_is_found_exactly() -> None:
    shops = [_shop(*size) for size in SIZES]
    fit = Fitted.of(shops, [100 + 0.002 * items + 0.0005 * users for items, users in SIZES], sizing.by_size)
    assert fit.value(_shop(50_000, 300_000)) == pytest.approx(100 + 100 + 150)
    assert fit.worst < 1e-6


def test_no_part_shrinks_with_a_shop() -> None:
    fit = Fitted.of([_shop(*size) for size in SIZES], [9.0, 8.0, 7.0, 6.0, 5.0], sizing.by_size)
    assert fit.value(_shop(10**9, 10**9)) >= fit.value(_shop(1, 1)) >= 0
    assert fit.worst > 0.1
