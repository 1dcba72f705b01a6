"""An item's usual interval is the median between two purchases of one user."""

import numpy as np
import pytest

from isrf.method.kinds.repurchase import SAME_PURCHASE_S as DAY
from isrf.method.kinds.repurchase import due, repurchases


def test_the_median_interval_of_each_item() -> None:
    # User 0 buys item 0 on days 0, 10 and 30; user 1 on days 0 and 14. User 1 buys item 1 once.
    indptr = np.array([0, 3, 6], np.int64)
    items = np.array([0, 0, 0, 0, 1, 0], np.int32)
    days = np.array([0.0, 10.0, 30.0, 0.0, 1.0, 14.0])
    found = repurchases(indptr, items, days * DAY, np.ones(6, np.bool_), num_items=3)
    assert found.users.tolist() == [2, 0, 0]
    assert found.intervals[0] == 14 * DAY, "of 10, 14 and 20 days"
    assert np.isnan(found.intervals[1:]).all()


def test_views_and_double_clicks_are_no_repurchase() -> None:
    indptr, items = np.array([0, 3], np.int64), np.zeros(3, np.int32)
    times = np.array([0.0, 3600.0, 5 * DAY])
    assert repurchases(indptr, items, times, np.array([True, True, False]), num_items=1).users.tolist() == [0]
    assert repurchases(indptr, items, np.full(3, np.nan), np.ones(3, np.bool_), num_items=1).users.tolist() == [0]


@pytest.mark.parametrize(("elapsed", "share"), [(1.0, 1.0), (0.5, 0.5), (2.0, 0.5), (4.0, 0.25)])
def test_due_is_greatest_after_the_interval(elapsed: float, share: float) -> None:
    assert due(np.array([elapsed * DAY]), np.array([DAY]))[0] == pytest.approx(share)
